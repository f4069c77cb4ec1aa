//! DOC-20 to DOC-26: each repair, its exact effects in order, and a failure at each of them.

use boot_entries::fat::ClusterFault;
use boot_entries::{EspPath, Liveness};
use disk_layout::{TableCopy, TableHealth};

use super::*;
use crate::doctor::fix::{FixError, Fixed, StepError, fix};

/// What changes a machine: everything but looks.
fn changes(host: &FakeHost) -> Vec<String> {
    let looks = |line: &String| line.contains("read ") || line.ends_with("check clusters");
    host.take_log().into_iter().filter(|line| !looks(line)).collect()
}

fn fixed(host: &FakeHost) -> Fixed {
    fix(host).unwrap_or_else(|error| panic!("{}", crate::exit::with_source(&error)))
}

/// Everything that can be repaired at once.
fn patient() -> FakeHost {
    let mut host = two_systems();
    host.vars = LoaderVars { one_shot: Some("ralphos-a-g1.conf".into()), ..with_default("ralphos-a*") };
    let damaged = TableHealth { primary: Some("bad checksum".into()), backup: None, differ: false, misplaced: false };
    host.vitals.borrow_mut().table = Some(damaged);
    let entry = host.entry("ralphos-a-g3+3-0.conf".parse().unwrap(), "3.0.0");
    host.with_esp(|esp| {
        esp.put("loader/entries/ralphos-a-g3+3-0.conf", &entry.render(Liveness::Inert));
        esp.put("loader/loader.conf", b"timeout 0\ndefault ralphos-b*\ndefault ralphos-a*\n");
        esp.take("ralphos/guard");
    });
    host
}

#[test]
fn doc_26_a_healthy_machine_is_not_written_to() {
    let host = two_systems();
    let done = fixed(&host);
    assert!(done.repaired.is_empty());
    assert_eq!(changes(&host), Vec::<String>::new());
    assert!(text::text(&done.diagnosis, Some(&done.repaired), &[]).ends_with("nothing was repaired\n"));
}

#[test]
fn doc_21_the_exact_effects_of_every_repair_in_order() {
    let host = patient();
    *host.guard.borrow_mut() = None;
    // The record is told apart from its file in this fake: the file is made, and the record stays unreadable.
    let done = fixed(&host);
    let expected = [
        "table repair Primary",
        "esp remove loader/entries/ralphos-a-g3+3-0.conf",
        "esp flush",
        // The first line changes nothing yet, the last one the choice.
        "esp overwrite loader/loader.conf '#'",
        "esp flush",
        "esp overwrite loader/loader.conf '#'",
        "esp flush",
        "variable remove LoaderEntryOneShot",
        "variable remove LoaderEntryDefault",
        "esp write ralphos/guard",
        "esp flush",
    ];
    assert_eq!(changes(&host), expected);
    let steps: Vec<&str> = done.repaired.iter().map(|step| step.id).collect();
    assert_eq!(
        steps,
        [
            "gpt-primary-damaged",
            "inert-entry",
            "default-in-conf",
            "one-shot-variable",
            "default-variable",
            "guard-missing"
        ]
    );
    let conf = host.with_esp(|esp| esp.content("loader/loader.conf").unwrap().to_vec());
    assert_eq!(String::from_utf8(conf).unwrap(), "timeout 0\n#efault ralphos-b*\n#efault ralphos-a*\n");
    assert_eq!(done.diagnosis.next_boot.unwrap().entry, "ralphos-b-g2.conf");
    assert_eq!(ids(&look(&host)), ["guard-missing~+"]);
    *host.guard.borrow_mut() = Some(Default::default());
    assert!(fixed(&host).repaired.is_empty(), "DOC-26");
    let told = text::text(&look(&host), Some(&done.repaired), &[]);
    assert!(
        told.starts_with("next boot: slot b")
            && told.contains("\nrepaired: default-variable: the EFI variable LoaderEntryDefault was removed\n"),
        "{told}"
    );
}

#[test]
fn doc_20_a_failure_at_any_event_of_the_esp_stops_there_and_the_next_run_ends_well() {
    let whole_run = {
        let host = patient();
        fixed(&host);
        host.with_esp(|esp| esp.events().iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let mut stopped = 0;
    for event in 0.. {
        let host = patient();
        host.with_esp(|esp| esp.fail_at(event));
        let result = fix(&host);
        let events = host.with_esp(|esp| esp.take_events());
        let Some(at) = events.iter().position(|event| event.starts_with("FAILED")) else {
            assert!(result.is_ok());
            break;
        };
        assert_eq!(at, event);
        let failed = events[at].trim_start_matches("FAILED ").to_owned();
        assert_eq!((&events[..at], &failed), (&whole_run[..at], &whole_run[at]), "the same order every time");
        match &result {
            // Failed steps: nothing is written after them.
            Err(error) => {
                stopped += 1;
                assert!(matches!(error, FixError::Step { .. }), "{error:?}");
                let after: Vec<_> =
                    events[at + 1..].iter().filter(|e| !e.starts_with("read") && *e != "check clusters").collect();
                assert!(after.is_empty(), "event {event}: {after:?}");
            }
            // A look that failed: what it did not see was seen by the next one, or is told.
            Ok(_) => assert!(failed.starts_with("read") || failed == "check clusters", "event {event}: {failed}"),
        }
        host.take_log();
        let next = look(&host).next_boot.expect("something boots at every instant");
        assert!(["ralphos-a-g1.conf", "ralphos-b-g2.conf"].contains(&next.entry.as_str()));
        // Power back, and again.
        let done = fixed(&host);
        assert_eq!(done.diagnosis.findings, [], "event {event}");
        assert_eq!(done.diagnosis.next_boot.unwrap().entry, "ralphos-b-g2.conf");
    }
    assert!(stopped > 5, "{stopped}");
}

#[test]
fn doc_20_a_power_cut_behind_any_write_leaves_something_that_boots() {
    // What a cut may leave of each change is the fake's to say: all of it, nothing, or garbage in a file that was being written.
    for event in 0.. {
        let host = patient();
        host.with_esp(|esp| esp.fail_at(event));
        let _ = fix(&host);
        if !host.with_esp(|esp| esp.events().iter().any(|e| e.to_string().starts_with("FAILED"))) {
            break;
        }
        for left in host.with_esp(|esp| esp.after_power_cut()) {
            let again = patient();
            *again.esp.borrow_mut() = Some(left);
            let found = look(&again);
            assert!(found.next_boot.is_some_and(|next| next.slot.is_some()), "event {event}");
            assert_eq!(fixed(&again).diagnosis.findings, [], "event {event}");
        }
    }
}

#[test]
fn doc_20_a_table_or_variable_that_is_not_taken_stops_the_repair_and_says_what_was_done() {
    let mut host = patient();
    host.refuses = true;
    match fix(&host).unwrap_err() {
        FixError::Step { id: "gpt-primary-damaged", done, source, .. } => {
            assert!(done.is_empty() && matches!(*source, StepError::Table(_)), "{source:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(changes(&host), ["table repair Primary"]);

    host.vitals.borrow_mut().table = None;
    let error = fix(&host).unwrap_err();
    let FixError::Step { id: "one-shot-variable", done, source, .. } = &error else { panic!("{error:?}") };
    assert!(done.len() == 2 && matches!(**source, StepError::Variable(_)), "{error:?}");
    assert!(error.to_string().contains("repaired before it: inert-entry"), "{error}");
    assert_eq!(changes(&host).last().unwrap(), "variable remove LoaderEntryOneShot", "and nothing after it");
}

#[test]
fn doc_21_a_cut_rename_is_told_apart_and_a_twin_removed() {
    let mut host = FakeHost::new();
    host.put_system("ralphos-b-g2+2-1.conf", "2.0.0");
    let (old, new) = ("loader/entries/ralphos-b-g2+2-1.conf", "loader/entries/ralphos-b-g2+1-2.conf");
    let content = host.with_esp(|esp| esp.content(old).unwrap().to_vec());
    host.with_esp(|esp| {
        esp.put(new, &content);
        let (first, second) = (EspPath::literal(old), EspPath::literal(new));
        esp.set_faults(vec![ClusterFault::Shared { first, second, same_start: true }]);
    });
    let done = fixed(&host);
    assert_eq!(changes(&host), [format!("esp drop {old}"), "esp flush".to_owned()]);
    assert_eq!(done.diagnosis.findings, []);
    assert_eq!(host.entries(), ["ralphos-a-g1.conf", "ralphos-b-g2+1-2.conf"]);
}

/// A cut rename on a volume that is in use, a misleading variable and a misleading line.
fn cannot_be_unmounted() -> FakeHost {
    let mut host = FakeHost::new();
    host.put_system("ralphos-b-g2+2-1.conf", "2.0.0");
    host.vars = with_default("ralphos-a*");
    let (old, new) = ("loader/entries/ralphos-b-g2+2-1.conf", "loader/entries/ralphos-b-g2+1-2.conf");
    let content = host.with_esp(|esp| esp.content(old).unwrap().to_vec());
    host.with_esp(|esp| {
        esp.put(new, &content);
        let (first, second) = (EspPath::literal(old), EspPath::literal(new));
        esp.set_faults(vec![ClusterFault::Shared { first, second, same_start: true }]);
        esp.put("loader/loader.conf", b"default ralphos-a*\n");
        esp.set_busy(true);
    });
    host
}

#[test]
fn doc_20_a_volume_that_cannot_be_unmounted_does_not_keep_the_rest_from_being_repaired() {
    let host = cannot_be_unmounted();
    let done = fixed(&host);
    let repaired: Vec<&str> = done.repaired.iter().map(|step| step.id).collect();
    assert_eq!(repaired, ["default-in-conf", "default-variable"]);
    let [not] = &done.not_repaired[..] else { panic!("{:?}", done.not_repaired) };
    assert!(not.id == "twin" && not.why.contains("end what uses it"), "{not:?}");
    let expected = ["esp overwrite loader/loader.conf '#'", "esp flush", "variable remove LoaderEntryDefault"];
    assert_eq!(changes(&host), expected);
    let text = text::text(&done.diagnosis, Some(&done.repaired), &done.not_repaired);
    assert!(text.contains("\ntried, could not: twin: cannot unmount the EFI system partition"), "{text}");
    assert!(ids(&done.diagnosis).contains(&"twin!+".to_owned()), "{:?}", ids(&done.diagnosis));

    // What needs no more than to be told again, once it is free.
    host.with_esp(|esp| esp.set_busy(false));
    let done = fixed(&host);
    assert!(done.not_repaired.is_empty() && done.diagnosis.findings.is_empty(), "{done:?}");
}

#[test]
fn doc_20_a_step_that_fails_also_says_what_was_tried_in_vain_before_it() {
    let mut host = cannot_be_unmounted();
    host.refuses = true;
    let error = fix(&host).unwrap_err();
    let FixError::Step { id: "default-variable", done, not_repaired, .. } = &error else { panic!("{error:?}") };
    assert_eq!(done.iter().map(|step| step.id).collect::<Vec<_>>(), ["default-in-conf"]);
    assert_eq!(not_repaired.iter().map(|step| step.id).collect::<Vec<_>>(), ["twin"]);
    let told = error.to_string();
    assert!(
        told.contains("; repaired before it: default-in-conf (") && told.contains("; tried, could not: twin ("),
        "{told}"
    );
}

#[test]
fn doc_20_what_was_tried_and_is_still_there_is_left_as_a_finding() {
    let host = two_systems();
    *host.guard.borrow_mut() = None;
    let done = fixed(&host);
    assert_eq!(done.repaired[0].what, "ralphos/guard is there already");
    assert_eq!(ids(&done.diagnosis), ["guard-missing~+"]);
}

#[test]
fn dsk_6_the_table_is_repaired_first_whatever_else_is_there() {
    let host = two_systems();
    let damaged = TableHealth { primary: None, backup: Some("gone".into()), differ: false, misplaced: false };
    host.vitals.borrow_mut().table = Some(damaged.clone());
    assert_eq!(damaged.repairable(), Some(TableCopy::Backup));
    fixed(&host);
    assert_eq!(changes(&host), ["table repair Backup"]);
}
