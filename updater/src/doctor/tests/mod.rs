//! One machine in memory for each thing the doctor finds, and the exact effects of each repair (specs/doctor.md).

mod boot_loader;
mod disk;
mod entries;
mod fix;
mod loader;

use boot_entries::LoaderVars;

use super::*;
use crate::testing::FakeHost;

/// A runs, committed, generation 1; B is committed, generation 2, and boots next.
fn two_systems() -> FakeHost {
    let mut host = FakeHost::new();
    host.put_system("ralphos-b-g2.conf", "2.0.0");
    host.boot("ralphos-b-g2.conf", "2.0.0");
    host
}

fn with_default(pattern: &str) -> LoaderVars {
    LoaderVars { default: Some(pattern.into()), ..LoaderVars::default() }
}

/// Ids with their severity, `!` for a danger, `~` for a warning, and `+` where `--fix` repairs it.
fn ids(diagnosis: &Diagnosis) -> Vec<String> {
    let mark = |finding: &Finding| {
        let severity = match finding.severity {
            Severity::Danger => "!",
            Severity::Warning => "~",
            Severity::Note => "",
        };
        format!("{}{severity}{}", finding.id, if finding.fixable { "+" } else { "" })
    };
    diagnosis.findings.iter().map(mark).collect()
}

/// Looks, and checks what must be true of every finding.
#[track_caller]
fn look(host: &FakeHost) -> Diagnosis {
    let diagnosis = diagnose(host);
    for finding in &diagnosis.findings {
        for text in [finding.what.as_str(), finding.why, &finding.remedy] {
            assert!(text.len() > 3 && !text.contains('\n') && !text.ends_with('.'), "{finding:?}");
        }
        assert!(finding.id.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{finding:?}");
        assert_eq!(finding.fixable, finding.repair.is_some());
        assert!(!finding.fixable || finding.command.as_deref() == Some("ralph-update doctor --fix"), "{finding:?}");
        assert!(SPEC.contains(&format!("`{}`", finding.id)), "{} stands in specs/doctor.md", finding.id);
    }
    let changing = ["write", "overwrite", "remove", "mkdir", "drop", "repair"];
    let log = host.take_log();
    let changed: Vec<_> =
        log.iter().filter(|line| changing.iter().any(|word| line.contains(&format!(" {word} ")))).collect();
    assert!(changed.is_empty(), "DOC-1: {changed:?}");
    diagnosis
}

const SPEC: &str = include_str!("../../../../specs/doctor.md");

#[test]
fn doc_1_a_healthy_machine_has_no_danger_and_says_what_boots() {
    let diagnosis = look(&two_systems());
    assert_eq!(ids(&diagnosis), Vec::<String>::new());
    assert_eq!(diagnosis.next_boot.as_ref().unwrap().entry, "ralphos-b-g2.conf");
    assert_eq!(diagnosis.left_out, Vec::<String>::new());
    let text = text::text(&diagnosis, None, &[]);
    assert_eq!(
        text,
        "next boot: slot b, ralphos-b-g2.conf: it is the first in the loader's order\n\nnothing endangers the next boot or update\n"
    );
}

#[test]
fn doc_11_before_the_first_update_there_is_nothing_to_fall_back_to_and_that_is_a_note() {
    let diagnosis = look(&FakeHost::new());
    assert_eq!(ids(&diagnosis), ["no-fallback"]);
    assert!(!diagnosis.is_endangered());
}

#[test]
fn the_text_says_first_what_boots_then_the_dangers_each_with_a_line_to_copy() {
    let mut host = two_systems();
    host.vars = with_default("ralphos-a*");
    host.vitals.borrow_mut().watchdog = Some(crate::vitals::Watchdog::Absent);
    host.vitals.borrow_mut().busy = Some(1);
    let diagnosis = look(&host);
    let text = text::text(&diagnosis, None, &[]);
    let expected = "\
next boot: slot a, ralphos-a-g1.conf: the EFI variable LoaderEntryDefault names it

DANGER [default-variable]: the EFI variable LoaderEntryDefault is \"ralphos-a*\"
    why: it decides before the counters do: an update may not be tried, or a failed one may boot again and again
    do:  take it away; then ralphos-b-g2.conf (it is the first in the loader's order) boots
         ralph-update doctor --fix

warning [watchdog-absent]: there is no hardware watchdog
    why: a machine that hangs before or after the boot guard's watch stays so until somebody resets it
    do:  load its driver; a virtual machine can be given one

not looked at: another program is at work (process 1): what it is changing may look wrong for now
1 danger, 1 warning; `ralph-update doctor --fix` repairs 1
";
    assert_eq!(text, expected);
}

#[test]
fn ifc_50_the_json_has_these_fields_and_no_other() {
    let mut host = two_systems();
    host.vars = with_default("ralphos-a*");
    let value = serde_json::to_value(look(&host)).unwrap();
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&value), ["findings", "left_out", "next_boot", "next_boot_why"]);
    let finding = &value["findings"][0];
    assert_eq!(keys(finding), ["command", "fixable", "id", "remedy", "severity", "what", "why"]);
    assert_eq!((&finding["severity"], &finding["fixable"]), (&"danger".into(), &true.into()));
}
