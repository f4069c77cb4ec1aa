//! Why it cannot be told what boots next (LDR-8 to LDR-10): each reason is another danger with another way out.

use boot_entries::{Prediction, Unpredictable};

use super::entries::tidied;
use super::facts::{EspFacts, Facts};
use super::finding::{Finding, Severity};
use crate::session::{because_text, describe};

/// A commit of what runs asks nobody what boots next.
const REFUSED: &str = "every update and rollback is refused";

pub(super) fn find(facts: &Facts, esp: &EspFacts) -> Vec<Finding> {
    let Prediction::Unknown { because } = &esp.next else { return Vec::new() };
    let mut found = Vec::new();
    let halting: Vec<&str> = because.iter().filter_map(halts).collect();
    found.extend(halting.iter().map(|file| loader_halts(facts, esp, file, &halting)));
    let (unmodelled, others): (Vec<_>, Vec<_>) = because
        .iter()
        .filter(|why| halts(why).is_none())
        .cloned()
        .partition(|why| matches!(why, Unpredictable::Unmodelled(_)));
    if !unmodelled.is_empty() {
        // Never a readable entry of ours: what is named here is what only the loader can read (LDR-8).
        found.push(
            danger("unmodelled-entry", &unmodelled, REFUSED)
                .remedy("unified kernel images in EFI/Linux, and entries that only the loader can read, may sort before ours: remove what is named from the EFI partition, if nobody needs it"),
        );
    }
    for why in others {
        let why = std::slice::from_ref(&why);
        // The entries that are named may be good ones of ours: what names them goes, not they.
        found.push(match why {
            [Unpredictable::ReleasesDiffer { .. }] => danger("releases-differ", why, REFUSED).remedy(
                "leave the entries of ours as they are; take away the variable or the line of loader.conf that names one, or the entry that is not ours (see the other findings)",
            ),
            _ => danger("pattern-elsewhere", why, REFUSED).remedy(
                "take away the variable or the line of loader.conf with this pattern (see the other findings), or let loader.conf say `auto-entries no`, `auto-firmware no` and `secure-boot-enroll off`",
            ),
        });
    }
    found
}

fn halts(why: &Unpredictable) -> Option<&str> {
    match why {
        Unpredictable::Halts(file) => Some(file),
        _ => None,
    }
}

fn danger(id: &'static str, because: &[Unpredictable], why: &'static str) -> Finding {
    let what = format!("what boots next cannot be told: {}", because_text(because));
    Finding::new(id, Severity::Danger, what, why)
}

/// LDR-10: an empty path, in an entry of anyone.
fn loader_halts(facts: &Facts, esp: &EspFacts, file: &str, all: &[&str]) -> Finding {
    let what = format!("loader/entries/{file} has an empty path, at which the boot loader halts");
    let why = "the machine does not come back from its next restart, whatever else would boot";
    let finding = Finding::new("loader-halts", Severity::Danger, what, why);
    if esp.state.ours.iter().any(|ours| ours.file_name == file && tidied(esp, ours)) {
        return esp.tidy(facts, finding, "remove it; the one beside it stays");
    }
    let then = esp.state.without(all).predict(&esp.vars, esp.architecture);
    finding.remedy(format!(
        "before the machine is restarted, remove it from the EFI partition: it starts nothing; what the loader boots then: {}",
        describe(&then)
    ))
}
