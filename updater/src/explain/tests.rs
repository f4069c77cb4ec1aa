//! `explain` on the stories it is for, in the words a person reads (IFC-40 to IFC-44).

use boot_entries::guard::{GuardEvent, GuardRecord};
use boot_entries::{EntryName, Generation};

use super::*;
use crate::evidence::{CheckRecord, Evidence, PreviousEnd};
use crate::history::{Event, EventKind};
use crate::status::{SlotState, SlotStatus, Slots, Status, without_entry};

/// 2026-03-01 12:00 UTC.
const T: u64 = 1_772_366_400;

fn slot(name: &str, version: &str, state: SlotState, failed: Option<&str>) -> SlotStatus {
    let parsed: EntryName = name.parse().unwrap();
    SlotStatus {
        state,
        version: Some(version.into()),
        system_id: Some(format!("system of {version}")),
        generation: Some(parsed.generation.get()),
        epoch: Some(1),
        root_hash: None,
        entry: Some(name.into()),
        tries_left: parsed.counter.map(|c| c.left()),
        tries_done: parsed.counter.map(|c| c.done()),
        failed: failed.map(str::to_owned),
    }
}

fn empty() -> SlotStatus {
    without_entry(SlotState::Empty)
}

/// A runs from generation 1 and boots next; B is as given.
fn machine(b: SlotStatus) -> Facts {
    let a = slot("ralphos-a-g1.conf", "1.0.0", SlotState::Committed, None);
    let next = NextBoot {
        slot: Some(Slot::A),
        generation: Some(1),
        entry: "ralphos-a-g1.conf".into(),
        reason: "it is the first in the loader's order".into(),
    };
    Facts {
        command: "ralph-update".into(),
        booted: Some(Booted {
            slot: Slot::A,
            generation: 1,
            version: "1.0.0".into(),
            system: "system of 1.0.0".into(),
        }),
        booted_bad: false,
        status: Status {
            format: 1,
            booted: Some(Slot::A),
            on_trial: false,
            slots: Slots { a, b },
            next_boot: Some(next),
            floor: 1,
            problems: Vec::new(),
        },
        no_next_boot: String::new(),
        events: Vec::new(),
        evidence: Vec::new(),
        remembered: true,
        guard: Some(GuardRecord::default()),
        unread: Vec::new(),
    }
}

/// The same, with B running.
fn on_b(name: &str, state: SlotState) -> Facts {
    let mut facts = machine(slot(name, "2.0.0", state, None));
    let version = "2.0.0".to_owned();
    facts.booted = Some(Booted { slot: Slot::B, generation: 2, version, system: "system of 2.0.0".into() });
    facts.status.booted = Some(Slot::B);
    facts.status.next_boot = Some(NextBoot {
        slot: Some(Slot::B),
        generation: Some(2),
        entry: name.into(),
        reason: "it is the first".into(),
    });
    facts
}

fn event(kind: EventKind, generation: u32, detail: &str, attempt: Option<u32>) -> Event {
    Event {
        time: T + u64::from(generation) * 1000 + u64::from(attempt.unwrap_or(0)),
        boot_id: "boot".into(),
        event: kind,
        slot: if generation.is_multiple_of(2) { Slot::B } else { Slot::A },
        generation,
        version: "2.0.0".into(),
        system: "system of 2.0.0".into(),
        detail: detail.into(),
        attempt,
    }
}

fn record(attempt: u32, verdict: &str, checks: Vec<CheckRecord>) -> Evidence {
    Evidence {
        format: 1,
        slot: Some(Slot::B),
        generation: 2,
        system: "system of 2.0.0".into(),
        version: "2.0.0".into(),
        attempt,
        time: T + 2000 + u64::from(attempt) * 100,
        boot_id: format!("1111-{attempt}"),
        verdict: verdict.into(),
        uptime_ms: 81_250,
        checks,
        ..Evidence::default()
    }
}

fn failed_check() -> CheckRecord {
    CheckRecord {
        name: "policy".into(),
        level: "required".into(),
        verdict: "failed".into(),
        milliseconds: 60_000,
        tries: 41,
        reason: Some("json".into()),
        detail: "/loaded: expected true, found false".into(),
        output: "{\"contract\":1,\n\"loaded\":false}\u{1b}[2J".into(),
        recorded: None,
    }
}

fn guard_event(attempt: Option<u32>, text: &str) -> Option<GuardRecord> {
    let generation = Generation::new(2).unwrap();
    let event = GuardEvent { slot: Slot::B, generation, attempt, text: text.parse().unwrap() };
    Some(GuardRecord::default().with_event(event))
}

fn bad_b() -> SlotStatus {
    slot("ralphos-b-g2+0-3.conf", "2.0.0", SlotState::Bad, None)
}

fn commands(explanation: &Explanation) -> Vec<&str> {
    explanation.advice.iter().filter_map(|a| a.command.as_deref()).collect()
}

#[track_caller]
fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
}

#[test]
fn ifc_40_a_healthy_fresh_machine() {
    let told = explain(&machine(empty()));
    let expected = "\
Running now: version 1.0.0 in slot a (generation 1).
  Why: it is committed.
Next boot: version 1.0.0 in slot a (generation 1), committed: it is the first in the loader's order.

What to do:
  1. nothing: all is as it should be

What happened, newest first:

  Version 1.0.0, slot a, generation 1
    came with the disk
    committed
";
    assert_eq!(text::text(&told), expected);
}

#[test]
fn ifc_42_a_committed_update_says_what_was_recorded() {
    let mut facts = on_b("ralphos-b-g2.conf", SlotState::Committed);
    facts.events = vec![
        event(EventKind::Applied, 2, "ralphos-b-g2+3-0.conf", None),
        event(EventKind::Committed, 2, "policy sha256:aa", None),
    ];
    facts.evidence = vec![record(1, "commit", Vec::new())];
    let told = explain(&facts);
    assert_eq!(told.updates[0].end, End::Committed);
    let expected = "\
Running now: version 2.0.0 in slot b (generation 2).
  Why: it is committed.
Next boot: version 2.0.0 in slot b (generation 2), committed: it is the first.

What to do:
  1. nothing: all is as it should be

What happened, newest first:

  Version 2.0.0, slot b, generation 2
    applied 2026-03-01T12:33:20Z
    boot 1, 2026-03-01T12:35:00Z: passed, and was committed, 81.2 s after the kernel's start
    committed (2026-03-01T12:33:20Z)
      policy sha256:aa

  Version 1.0.0, slot a, generation 1
    came with the disk
    committed
";
    assert_eq!(text::text(&told), expected);
}

#[test]
fn ifc_43_a_fallback_after_three_failed_checks() {
    let mut facts = machine(bad_b());
    facts.events = vec![event(EventKind::Applied, 2, "", None)];
    facts.events.extend((1..=3).map(|n| event(EventKind::TrialFailed, 2, "policy: json", Some(n))));
    facts.events.push(event(EventKind::FellBack, 2, "no try of 3 was committed", Some(3)));
    facts.evidence = (1..=3).map(|n| record(n, "record-and-reboot", vec![failed_check()])).collect();
    let told = explain(&facts);
    assert_eq!((told.updates[0].end, told.updates[0].tries.len()), (End::FellBack, 3));
    let text = text::text(&told);
    contains(
        &text,
        &[
            "Why: it is committed; the boot loader went back to it: version 2.0.0 in slot b (generation 2) used up its tries",
            "boot 3, 2026-03-01T12:38:20Z: failed, and rebooted, 81.2 s after the kernel's start",
            "required check policy failed after 60.0 s, 41 tries: /loaded: expected true, found false (json)",
            "        | \"loaded\":false}?[2J",
            "fell back: its tries are used up",
        ],
    );
    assert!(!text.contains('\u{1b}'), "what a failing system printed moves no cursor");
    assert_eq!(
        commands(&told),
        [
            "cat /var/lib/ralph-update/evidence/g2-try3.json",
            "journalctl -b 11113",
            "ralph-update apply NEW-IMAGE",
            "ralph-update apply --retry-failed IMAGE",
        ]
    );
}

#[test]
fn ifc_43_a_deadline_is_told_from_the_guards_record_and_from_the_history() {
    let mut facts = machine(bad_b());
    facts.guard = guard_event(Some(3), "deadline");
    facts.events = vec![event(EventKind::TrialFailed, 2, "deadline", Some(2))];
    let told = explain(&facts);
    assert_eq!(told.updates[0].end, End::FellBack);
    let guards: Vec<_> = told.updates[0].tries.iter().map(|t| t.guard.as_deref()).collect();
    assert_eq!(guards, [None, Some("deadline"), Some("deadline")]);
    contains(
        &text::text(&told),
        &[
            "boot 1: no evidence: a power cut, or it hung",
            "boot 3: it never came to a verdict\n      its deadline passed without a verdict",
        ],
    );
}

#[test]
fn ifc_43_a_panic_leaves_no_record_but_the_next_boot_may_have_its_last_words() {
    let mut facts = machine(slot("ralphos-b-g2+0-2.conf", "2.0.0", SlotState::Bad, None));
    let text = "[   3.1] one\n[   3.2] Kernel panic - not syncing: Attempted to kill init!".to_owned();
    let end = Some(PreviousEnd { source: "pstore".into(), text });
    facts.evidence = vec![Evidence { previous_end: end, ..record(2, "mark-bad-and-reboot", vec![failed_check()]) }];
    let told = explain(&facts);
    assert!(!told.updates[0].tries[0].evidence);
    contains(
        &text::text(&told),
        &[
            "boot 1: no evidence",
            "its last words, from the pstore:\n",
            "Kernel panic - not syncing",
            "boot 2, 2026-03-01T12:36:40Z: failed, was marked bad, and rebooted",
        ],
    );
}

#[test]
fn upd_45_an_inconclusive_system_may_be_applied_again_until_it_was_three_times() {
    let mut facts = machine(slot("ralphos-b-g4+0-3.conf", "2.0.0", SlotState::Bad, None));
    facts.events = vec![event(EventKind::FellBack, 2, "", Some(3))];
    let told = explain(&facts);
    assert_eq!((told.updates[0].end, told.updates[0].inconclusive), (End::Inconclusive, 2));
    assert_eq!((told.updates[1].end, told.updates[1].replaced), (End::Inconclusive, true));
    contains(&text::text(&told), &["(2 such ends of this system so far)", "(2 of 3 such ends so far)"]);
    assert_eq!(commands(&told), ["ralph-update apply IMAGE"]);
    facts.events.extend([event(EventKind::FellBack, 4, "", Some(3)), event(EventKind::FellBack, 6, "", Some(3))]);
    facts.status.slots.b = slot("ralphos-b-g6+0-3.conf", "2.0.0", SlotState::Bad, None);
    let told = explain(&facts);
    assert_eq!(told.updates[0].inconclusive, 3);
    assert_eq!(commands(&told), ["ralph-update apply --retry-failed IMAGE"]);
}

#[test]
fn ifc_42_a_rollback_and_a_rejection() {
    for (reason, kind, end, words) in [
        ("rolled-back", EventKind::RolledBack, End::RolledBack, "an operator went back to it from version 2.0.0"),
        (
            "rejected",
            EventKind::Rejected,
            End::Rejected,
            "an operator marked version 2.0.0 in slot b (generation 2) bad",
        ),
    ] {
        let mut facts = machine(slot("ralphos-b-g2+0-0.conf", "2.0.0", SlotState::Bad, Some(reason)));
        facts.events = vec![event(EventKind::Committed, 2, "", None), event(kind, 2, "A boots instead", None)];
        let told = explain(&facts);
        assert_eq!(told.updates[0].end, end);
        assert_eq!(told.updates[0].ended, Some(T + 2000));
        contains(&text::text(&told), &[words, "A boots instead"]);
        assert_eq!(commands(&told), ["ralph-update apply NEW-IMAGE", "ralph-update apply --retry-failed IMAGE"]);
    }
}

#[test]
fn ifc_44_two_bad_slots_still_take_an_update() {
    let mut facts = machine(slot("ralphos-b-g2+0-0.conf", "2.0.0", SlotState::Bad, Some("checks")));
    facts.status.slots.a = slot("ralphos-a-g1+0-4.conf", "1.0.0", SlotState::Trial, None);
    facts.status.on_trial = true;
    facts.booted_bad = true;
    facts.status.next_boot.as_mut().unwrap().entry = "ralphos-a-g1+0-4.conf".into();
    let told = explain(&facts);
    assert_eq!(told.updates[0].end, End::MarkedBad);
    assert_eq!(told.updates[1].end, End::Inconclusive);
    contains(
        &text::text(&told),
        &[
            "Why: it is marked bad itself, and nothing better could be booted",
            "marked bad or without tries, and nothing better is there",
            "an update is accepted all the same",
        ],
    );
    assert_eq!(commands(&told)[0], "ralph-update apply IMAGE");
}

#[test]
fn ifc_40_without_var_the_entries_and_the_guard_tell_what_they_can() {
    let mut facts = machine(slot("ralphos-b-g2+0-3.conf", "2.0.0", SlotState::Bad, Some("checks")));
    facts.remembered = false;
    facts.unread = vec!["/var/lib/ralph-update does not exist".into()];
    facts.guard = guard_event(Some(3), "check: policy");
    let told = explain(&facts);
    assert_eq!(told.updates[0].end, End::MarkedBad);
    contains(
        &text::text(&told),
        &[
            "Could not be read: /var/lib/ralph-update does not exist",
            "boot 1: what it came to cannot be read",
            "boot 3: failed; its record is not here\n      the required check policy failed",
            "the health check marked it bad",
            "findmnt /var",
        ],
    );
}

#[test]
fn ifc_42_a_committed_slot_that_the_guard_gave_up() {
    let mut facts = machine(slot("ralphos-b-g2+0-0.conf", "2.0.0", SlotState::Bad, Some("guard")));
    facts.events = vec![
        event(EventKind::Applied, 2, "", None),
        event(EventKind::Committed, 2, "", None),
        event(EventKind::BootFailed, 2, "initrd: no root", None),
    ];
    facts.guard = guard_event(None, "guard");
    let told = explain(&facts);
    assert_eq!((told.updates[0].end, told.updates[0].tries.len()), (End::MarkedBad, 0));
    contains(
        &text::text(&told),
        &[
            "the boot guard marked it bad: it was booted more than 5 times",
            "its initrd gave up: no root",
            "it was booted too often without a verdict",
            "went back to it: version 2.0.0 in slot b (generation 2) was marked bad",
            "apply the same version again",
            "suspect the disk",
        ],
    );
}

#[test]
fn ifc_43_a_running_trial_and_a_staged_one() {
    let mut facts = on_b("ralphos-b-g2+1-2.conf", SlotState::Trial);
    facts.status.on_trial = true;
    facts.evidence = vec![record(1, "record-and-reboot", vec![failed_check()])];
    let told = explain(&facts);
    assert_eq!(told.updates[0].end, End::OnTrial);
    assert_eq!(told.updates[0].tries.iter().map(|t| t.now).collect::<Vec<_>>(), [false, true]);
    contains(&text::text(&told), &["this is boot 2 of it, and 1 more may follow", "boot 2: runs now; no verdict yet"]);
    assert_eq!(commands(&told)[1], "ralph-update rollback --reboot");
    let staged = slot("ralphos-b-g2+3-0.conf", "2.0.0", SlotState::Staged, None);
    let told = explain(&machine(staged));
    assert_eq!((told.updates[0].end, commands(&told)), (End::Staged, vec!["systemctl reboot"]));
    let image = Facts { booted: None, ..machine(slot("ralphos-b-g2+3-0.conf", "2.0.0", SlotState::Staged, None)) };
    assert_eq!(commands(&explain(&image)), Vec::<&str>::new(), "nothing can be rebooted from a disk image");
}

#[test]
fn ifc_41_a_clock_that_was_wrong_is_a_question_mark() {
    assert_eq!(text::when(0), "?");
    assert_eq!(text::when(T), "2026-03-01T12:00:00Z");
    assert_eq!(text::when(u64::MAX), "?");
}

#[test]
fn ifc_40_no_more_than_eight_updates_are_told() {
    let mut facts = machine(bad_b());
    facts.events = (1..=40).map(|n| event(EventKind::Applied, n, "", None)).collect();
    let told = explain(&facts);
    assert_eq!(told.updates.len(), UPDATES_MAX);
    assert_eq!(told.updates[0].generation, 40);
}

#[test]
fn ifc_40_facts_are_gathered_from_the_other_slot_and_nothing_is_changed() {
    use crate::history::Records;
    let dir = tempfile::tempdir().unwrap();
    let mut host = crate::testing::FakeHost::new();
    host.put_system("ralphos-b-g2+0-3.conf", "2.0.0");
    host.records = Records::in_dir(dir.path().join("lost"), "boot");
    let facts = gather::gather(&host, "ralph-update").unwrap();
    assert!(!facts.remembered && facts.unread[0].contains("does not exist"), "{:?}", facts.unread);
    host.records = Records::in_dir(dir.path(), "boot");
    let folder = dir.path().join("evidence");
    std::fs::create_dir(&folder).unwrap();
    let kept = record(3, "record-and-reboot", vec![failed_check()]);
    std::fs::write(folder.join("g2-try3.json"), serde_json::to_vec(&kept).unwrap()).unwrap();
    std::fs::write(folder.join("g2-try2.json"), "spoilt").unwrap();
    host.take_log();
    let facts = gather::gather(&host, "ralph-update").unwrap();
    let log = host.take_log();
    assert!(log.iter().all(|line| !line.contains("write") && !line.contains("remove")), "{log:?}");
    assert!(facts.remembered && facts.unread[0].contains("g2-try2.json"), "{:?}", facts.unread);
    let told = explain(&facts);
    assert_eq!((told.updates[0].end, told.updates[0].tries.len()), (End::FellBack, 3));
    assert_eq!(told.running.unwrap().slot, Slot::A);
}
