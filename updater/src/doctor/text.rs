//! The diagnosis for a person, at 3 a.m.: what boots next, what endangers it, what to type.

use std::fmt::Write as _;

use super::fix::{NotRepaired, Repaired};
use super::{Diagnosis, Finding, Severity};

/// The whole text. `repaired`: what was just repaired; none when nothing was to be. `not_repaired`: what was tried for it.
pub fn text(diagnosis: &Diagnosis, repaired: Option<&[Repaired]>, not_repaired: &[NotRepaired]) -> String {
    let mut out = String::new();
    match &diagnosis.next_boot {
        Some(next) => {
            let slot = next.slot.map_or("an entry that is not ours".to_owned(), |slot| format!("slot {slot}"));
            let _ = writeln!(out, "next boot: {slot}, {}: {}", next.entry, next.reason);
        }
        None => {
            let _ = writeln!(out, "next boot: {}", diagnosis.next_boot_why);
        }
    }
    for step in repaired.unwrap_or_default() {
        let _ = writeln!(out, "repaired: {}: {}", step.id, step.what);
    }
    for step in not_repaired {
        let _ = writeln!(out, "tried, could not: {}: {}", step.id, step.why);
    }
    for finding in &diagnosis.findings {
        tell(&mut out, finding);
    }
    out.push('\n');
    for what in &diagnosis.left_out {
        let _ = writeln!(out, "not looked at: {what}");
    }
    let _ = writeln!(out, "{}", verdict(diagnosis, repaired));
    out
}

fn tell(out: &mut String, finding: &Finding) {
    let word = match finding.severity {
        Severity::Danger => "DANGER",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    let _ = writeln!(out, "\n{word} [{}]: {}", finding.id, finding.what);
    let _ = writeln!(out, "    why: {}", finding.why);
    let _ = writeln!(out, "    do:  {}", finding.remedy);
    if let Some(command) = &finding.command {
        let _ = writeln!(out, "         {command}");
    }
}

fn verdict(diagnosis: &Diagnosis, repaired: Option<&[Repaired]>) -> String {
    let count = |severity| diagnosis.findings.iter().filter(|finding| finding.severity == severity).count();
    let (dangers, warnings) = (count(Severity::Danger), count(Severity::Warning));
    let numbered = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    let mut text = match (dangers, warnings) {
        (0, 0) => "nothing endangers the next boot or update".to_owned(),
        (0, _) => format!("nothing endangers the next boot or update; {}", numbered(warnings, "warning")),
        (_, 0) => numbered(dangers, "danger"),
        _ => format!("{}, {}", numbered(dangers, "danger"), numbered(warnings, "warning")),
    };
    let fixable = diagnosis.findings.iter().filter(|finding| finding.fixable);
    let command = fixable.clone().find_map(|finding| finding.command.as_ref());
    if let Some(command) = command {
        let _ = write!(text, "; `{command}` repairs {}", fixable.count());
    }
    if repaired.is_some_and(<[_]>::is_empty) {
        text.push_str("; nothing was repaired");
    }
    text
}
