//! The order of effects of `run`, as whole lists of events (HLT-30, HLT-31, HLT-40, HLT-41).

use super::*;
use crate::act;
use crate::config::Level;
use crate::fakes::{FakeClock, FakeMachine, FakeReboot, FakeRecords, FakeSystemd, Log, Refusal, entry, trial};
use crate::policy::Verdict;
use crate::records::Medium;
use crate::systemd::UnitShow;

fn outcome(name: &str, level: Level, passed: bool) -> Outcome {
    Outcome {
        name: name.into(),
        level,
        passed,
        milliseconds: 1,
        tries: 1,
        reason: (!passed).then_some(Reason::Deadline),
        detail: "too late".into(),
        output: String::new(),
        recorded: None,
        seen: None,
    }
}

/// A run whose checks end so, and the reboot it asks for; all events go into the log.
fn run_with(log: &Log, machine: &FakeMachine, records: &FakeRecords, outcomes: Vec<Outcome>) -> Ran {
    run_telling(log, machine, records, outcomes, FakeSystemd::telling([None]))
}

/// The same, with units that are asked again before the commit.
fn run_telling(
    log: &Log,
    machine: &FakeMachine,
    records: &FakeRecords,
    outcomes: Vec<Outcome>,
    systemd: FakeSystemd,
) -> Ran {
    let clock = FakeClock::logging(log);
    let systemd = systemd.logging(log);
    let world = World { clock: &clock, records, systemd: &systemd };
    let ran = run(machine, world, || {
        log.add("checks");
        outcomes
    });
    if ran.settled.verdict.reboots() {
        let reboot = FakeReboot { log: log.clone(), orderly_fails: false, forced_fails: false };
        assert!(act::reboot(&reboot, &mut |_| panic!("it does not fail")));
    }
    ran
}

fn passing() -> Vec<Outcome> {
    // A wanted check that fails changes nothing (HLT-33).
    vec![outcome("ralphd", Level::Required, true), outcome("extra", Level::Wanted, false)]
}

fn failing() -> Vec<Outcome> {
    vec![outcome("ralphd", Level::Required, false), outcome("extra", Level::Wanted, true)]
}

fn flow(booted: Booted, outcomes: Vec<Outcome>, prepare: impl FnOnce(&mut FakeMachine)) -> (Ran, Vec<String>) {
    let log = Log::default();
    let mut machine = FakeMachine::new(&log, booted);
    prepare(&mut machine);
    let ran = run_with(&log, &machine, &FakeRecords::new(&log), outcomes);
    (ran, log.events())
}

#[test]
fn a_trial_that_passes_is_committed_and_then_ralphd_is_told() {
    let (ran, events) = flow(trial(), passing(), |_| {});
    assert_eq!(events, ["open", "close", "checks", "open", "commit", "tell ralphd", "close"]);
    assert_eq!(ran.settled, Settled { verdict: Verdict::Commit, booted: trial(), done: true });
}

#[test]
fn a_trial_that_fails_leaves_evidence_before_it_reboots_hlt_40() {
    let (ran, events) = flow(trial(), failing(), |_| {});
    let expected = [
        "open",
        "close",
        "checks",
        "open",
        "ask the model",
        "evidence",
        "history: trial-failed: ralphd: too late",
        "close",
        "reboot",
    ];
    assert_eq!(events, expected);
    assert_eq!(ran.settled.verdict, Verdict::RecordAndReboot);
}

#[test]
fn a_trial_that_fails_stays_up_if_nothing_better_boots() {
    let (ran, events) = flow(trial(), failing(), |machine| machine.another = false);
    let expected = [
        "open",
        "close",
        "checks",
        "open",
        "ask the model",
        "evidence",
        "history: trial-failed: ralphd: too late",
        "close",
    ];
    assert_eq!(events, expected);
    assert_eq!(ran.settled.verdict, Verdict::RecordAndStay);
    assert!(ran.notes.iter().any(|note| note.contains("slot a is fenced")), "{:?}", ran.notes);
}

/// A trial that was booted with DONE 0.
fn not_counted() -> Booted {
    Booted::Trial { entry: entry(), attempt: 0 }
}

#[test]
fn a_trial_that_was_not_counted_is_marked_bad_before_it_reboots_hlt_32() {
    let (ran, events) = flow(not_counted(), failing(), |_| {});
    let expected = [
        "open",
        "close",
        "checks",
        "open",
        "ask the model",
        "mark bad",
        "evidence",
        "history: trial-failed: ralphd: too late",
        "close",
        "reboot",
    ];
    assert_eq!(events, expected);
    assert_eq!(ran.settled.verdict, Verdict::MarkBadAndReboot);
}

#[test]
fn a_trial_that_was_not_counted_and_cannot_be_marked_bad_stays_up_hlt_32() {
    let (ran, events) = flow(not_counted(), failing(), |machine| machine.mark_bad_fails = true);
    let expected = [
        "open",
        "close",
        "checks",
        "open",
        "ask the model",
        "mark bad fails",
        "evidence",
        "history: trial-failed: ralphd: too late",
        "close",
    ];
    assert_eq!(events, expected);
    assert_eq!(ran.settled.verdict, Verdict::RecordAndStay);
    // And where nothing better boots it is not even tried (UPD-50).
    let (ran, events) = flow(not_counted(), failing(), |machine| machine.another = false);
    assert!(!events.iter().any(|event| event.starts_with("mark bad") || event == "reboot"), "{events:?}");
    assert_eq!(ran.settled.verdict, Verdict::RecordAndStay);
}

#[test]
fn a_trial_that_was_not_counted_and_passes_is_committed() {
    let (ran, events) = flow(not_counted(), passing(), |_| {});
    assert_eq!(events, ["open", "close", "checks", "open", "commit", "tell ralphd", "close"]);
    assert_eq!(ran.settled.verdict, Verdict::Commit);
}

const SINCE: Duration = Duration::from_secs(7);

fn show(active: &str, since: Duration, restarts: u32) -> Option<UnitShow> {
    Some(UnitShow {
        load: "loaded".into(),
        active: active.into(),
        sub: "running".into(),
        restarts: Some(restarts),
        active_since: Some(since),
        result: None,
    })
}

/// Checks of a unit that passed, required and wanted.
fn unit_passed() -> Vec<Outcome> {
    [Level::Required, Level::Wanted]
        .map(|level| {
            let seen = check::Seen { unit: "ralphd.service".into(), active_since: Some(SINCE), restarts: Some(1) };
            Outcome { seen: Some(seen), ..outcome("ralphd", level, true) }
        })
        .into()
}

#[test]
fn a_required_unit_is_asked_again_under_the_lock_before_the_commit_hlt_23() {
    let log = Log::default();
    let machine = FakeMachine::new(&log, trial());
    let systemd = FakeSystemd::telling([None, show("active", SINCE, 1)]);
    let ran = run_telling(&log, &machine, &FakeRecords::new(&log), unit_passed(), systemd);
    let expected = [
        "open",
        "close",
        "checks",
        "open",
        "ask for ralphd.service",
        "sleep 500 ms",
        "ask for ralphd.service",
        "commit",
        "tell ralphd",
        "close",
    ];
    assert_eq!(log.events(), expected);
    assert_eq!(ran.settled.verdict, Verdict::Commit);
}

#[test]
fn a_unit_that_did_not_stay_as_it_passed_fails_the_trial_hlt_23() {
    for (now, said) in [
        (show("failed", SINCE, 1), "now is failed (running)"),
        (show("reloading", SINCE, 1), "now is reloading (running)"),
        (show("active", SINCE + SINCE, 1), "was started anew"),
        (show("active", SINCE, 2), "was started anew"),
        (None, "is not known: systemctl exited with code 1: no bus"),
    ] {
        let log = Log::default();
        let machine = FakeMachine::new(&log, trial());
        let ran = run_telling(&log, &machine, &FakeRecords::new(&log), unit_passed(), FakeSystemd::telling([now]));
        let events = log.events();
        assert!(!events.contains(&"commit".to_owned()), "{events:?}");
        assert_eq!(ran.settled.verdict, Verdict::RecordAndReboot, "{events:?}");
        assert_eq!(ran.outcomes[0].reason, Some(Reason::UnitChanged));
        assert!(ran.outcomes[0].detail.contains(said), "{}", ran.outcomes[0].detail);
        assert!(ran.outcomes[1].passed, "a wanted unit is not asked again");
        assert!(
            events.iter().any(|event| event.starts_with("history: trial-failed: ralphd: ralphd.service passed, but"))
        );
        assert_eq!(*events.last().unwrap(), "reboot");
    }
}

#[test]
fn on_a_committed_boot_ralphd_is_told_before_the_checks_hlt_3() {
    for (outcomes, verdict) in [(passing(), Verdict::Healthy), (failing(), Verdict::Report)] {
        let (ran, events) = flow(Booted::Committed(entry()), outcomes, |_| {});
        assert_eq!(events, ["open", "tell ralphd", "note fallbacks", "close", "checks"]);
        assert_eq!(ran.settled, Settled { verdict, booted: Booted::Committed(entry()), done: true });
    }
}

#[test]
fn an_unknown_boot_is_reported_and_nothing_is_changed() {
    for outcomes in [passing(), failing()] {
        let (ran, events) = flow(Booted::Unknown("the slots disagree".into()), outcomes, |_| {});
        assert_eq!(events, ["open", "close", "checks", "open", "close"]);
        assert_eq!(ran.settled.verdict, Verdict::Unknown);
    }
}

#[test]
fn a_commit_that_fails_twice_is_tried_a_third_time_hlt_31() {
    let (ran, events) = flow(trial(), passing(), |machine| machine.failing_commits = 2);
    let expected = [
        "open",
        "close",
        "checks",
        "open",
        "commit fails",
        "close",
        "sleep 5000 ms",
        "open",
        "commit fails",
        "close",
        "sleep 5000 ms",
        "open",
        "commit",
        "tell ralphd",
        "close",
    ];
    assert_eq!(events, expected);
    assert!(ran.settled.done);
    assert_eq!(ran.notes.iter().filter(|note| note.contains("read-only file system")).count(), 2);
}

#[test]
fn a_commit_that_is_half_done_is_ended_upd_24() {
    // The first attempt fails with the new name live; the second finds it committed.
    let (ran, events) = flow(trial(), passing(), |machine| {
        machine.failing_commits = 1;
        machine.booted = vec![trial(), trial(), Booted::Committed(entry())];
        machine.halves = 1.into();
    });
    let expected = [
        "open",
        "close",
        "checks",
        "open",
        "commit fails",
        "close",
        "sleep 5000 ms",
        "open",
        "tell ralphd",
        "finish the commit",
        "note fallbacks",
        "close",
    ];
    assert_eq!(events, expected);
    assert_eq!((ran.settled.verdict, ran.settled.done), (Verdict::Healthy, true));
    // It cannot be ended: no reason to reboot, the slot boots by either name.
    let (ran, events) = flow(trial(), passing(), |machine| {
        machine.failing_commits = 1;
        machine.booted = vec![trial(), trial(), Booted::Committed(entry())];
        machine.halves = 9.into();
    });
    assert_eq!(events.iter().filter(|event| *event == "finish the commit").count(), 2);
    assert!(!events.contains(&"reboot".to_owned()));
    assert_eq!((ran.settled.verdict, ran.settled.done), (Verdict::Healthy, false));
    // A power cut left it so: ended before the checks, and ralphd is told whether it could be or not.
    for halves in [1, 9] {
        let (ran, events) = flow(Booted::Committed(entry()), passing(), |machine| machine.halves = halves.into());
        assert_eq!(events, ["open", "tell ralphd", "finish the commit", "note fallbacks", "close", "checks"]);
        assert!(ran.settled.done);
    }
}

#[test]
fn a_commit_that_fails_thrice_is_a_failed_check_hlt_31() {
    let (ran, events) = flow(trial(), passing(), |machine| machine.failing_commits = 3);
    let expected = [
        "open",
        "close",
        "checks",
        "open",
        "commit fails",
        "close",
        "sleep 5000 ms",
        "open",
        "commit fails",
        "close",
        "sleep 5000 ms",
        "open",
        "commit fails",
        "close",
        "open",
        "ask the model",
        "evidence",
        "history: trial-failed: commit: read-only file system",
        "close",
        "reboot",
    ];
    assert_eq!(events, expected);
    let last = ran.outcomes.last().unwrap();
    assert_eq!((last.name.as_str(), last.passed, last.reason), ("commit", false, Some(Reason::Commit)));
}

#[test]
fn a_commit_that_fails_thrice_stays_up_if_nothing_better_boots() {
    let (ran, events) = flow(trial(), passing(), |machine| {
        machine.failing_commits = 3;
        machine.another = false;
    });
    assert!(!events.iter().any(|event| event.starts_with("reboot") || event == "tell ralphd"), "{events:?}");
    assert_eq!(ran.settled.verdict, Verdict::RecordAndStay);
}

#[test]
fn what_was_read_before_the_checks_is_read_again() {
    // Somebody committed while the checks ran.
    let (ran, events) = flow(trial(), failing(), |machine| machine.booted.push(Booted::Committed(entry())));
    assert_eq!(events, ["open", "close", "checks", "open", "tell ralphd", "note fallbacks", "close"]);
    assert_eq!(ran.settled.verdict, Verdict::Report);
    // It could not be read before, and is a trial.
    let (ran, events) = flow(trial(), passing(), |machine| {
        machine.refusals.get_mut().unwrap().push_back(Refusal::Broken);
    });
    assert_eq!(events, ["broken", "checks", "open", "commit", "tell ralphd", "close"]);
    assert!(ran.settled.done);
}

#[test]
fn a_lock_that_is_held_is_waited_for_but_not_for_ever() {
    let log = Log::default();
    let machine = FakeMachine::new(&log, trial()).refusing([Refusal::Not, Refusal::Busy, Refusal::Busy]);
    let ran = run_with(&log, &machine, &FakeRecords::new(&log), passing());
    let expected = [
        "open",
        "close",
        "checks",
        "busy",
        "sleep 1000 ms",
        "busy",
        "sleep 1000 ms",
        "open",
        "commit",
        "tell ralphd",
        "close",
    ];
    assert_eq!(log.events(), expected);
    assert!(ran.settled.done);

    let log = Log::default();
    let machine = FakeMachine::new(&log, trial()).refusing([Refusal::Busy; 1000]);
    let ran = run_with(&log, &machine, &FakeRecords::new(&log), passing());
    assert_eq!(ran.settled.verdict, Verdict::Unknown);
    let busy = log.events().iter().filter(|event| *event == "busy").count();
    assert_eq!(busy, 4 * 61, "a minute before the checks, and one in each attempt");
}

#[test]
fn a_trial_whose_state_cannot_be_read_any_more_stays_up_with_evidence() {
    for (outcomes, name) in [(failing(), "ralphd"), (passing(), "commit")] {
        let log = Log::default();
        let refusals = [Refusal::Not].into_iter().chain([Refusal::Broken; 10]);
        let machine = FakeMachine::new(&log, trial()).refusing(refusals);
        let records = FakeRecords::new(&log);
        let ran = run_with(&log, &machine, &records, outcomes);
        assert_eq!(ran.settled.verdict, Verdict::RecordAndStay);
        let events = log.events();
        assert_eq!(events.last().unwrap(), "evidence");
        assert!(!events.iter().any(|event| event == "commit" || event == "reboot"), "{events:?}");
        let kept = records.kept.lock().unwrap();
        assert!(kept[0].checks.iter().any(|check| check.name == name && check.fails_the_trial()));
    }
}

#[test]
fn evidence_that_cannot_be_written_changes_nothing_else_hlt_40() {
    let log = Log::default();
    let mut machine = FakeMachine::new(&log, trial());
    machine.history_fails = true;
    let mut records = FakeRecords::new(&log);
    records.evidence_fails = true;
    let ran = run_with(&log, &machine, &records, failing());
    let expected =
        ["open", "close", "checks", "open", "ask the model", "evidence fails", "history fails", "close", "reboot"];
    assert_eq!(log.events(), expected);
    assert!(ran.notes.iter().any(|note| note.starts_with("evidence is not recorded: ")), "{:?}", ran.notes);
    assert!(ran.notes.iter().any(|note| note.contains("no space left on device")), "{:?}", ran.notes);
}

#[test]
fn the_detail_of_the_history_event_is_short_hlt_40() {
    for (length, expected) in [(504, 512), (505, 511), (5000, 512), (5001, 511)] {
        let mut outcome = outcome("ralphd", Level::Required, false);
        // Two bytes each; the cut must not fall into one.
        outcome.detail = format!("{}{}", "x".repeat(length % 2), "ü".repeat(length / 2));
        let (_, events) = flow(trial(), vec![outcome], |_| {});
        let detail = events.iter().find_map(|event| event.strip_prefix("history: trial-failed: ")).unwrap();
        assert_eq!((detail.len(), detail.ends_with(" …")), (expected, length > 504), "{detail}");
    }
}

#[test]
fn evidence_that_a_reboot_takes_is_not_called_kept_hlt_40() {
    let log = Log::default();
    let mut records = FakeRecords::new(&log);
    records.medium = Medium::Memory;
    let ran = run_with(&log, &FakeMachine::new(&log, trial()), &records, failing());
    assert!(ran.notes.iter().any(|note| note.ends_with("it is not kept over the reboot")), "{:?}", ran.notes);
    assert_eq!(log.events().last().unwrap(), "reboot");
}

#[test]
fn a_commit_that_ralphd_cannot_be_told_of_is_not_carried_out() {
    let log = Log::default();
    let mut records = FakeRecords::new(&log);
    records.mark_fails = true;
    let ran = run_with(&log, &FakeMachine::new(&log, trial()), &records, passing());
    assert_eq!(log.events(), ["open", "close", "checks", "open", "commit", "mark fails", "close"]);
    assert_eq!((ran.settled.verdict, ran.settled.done), (Verdict::Commit, false));
}

#[test]
fn an_esp_that_does_not_unmount_is_told_and_undoes_nothing() {
    let (ran, _) = flow(trial(), passing(), |machine| machine.close_fails = true);
    assert!(ran.settled.done);
    assert!(ran.notes.iter().any(|note| note == "closing the ESP: target is busy"), "{:?}", ran.notes);
}

#[test]
fn no_check_at_all_commits_nothing_hlt_10() {
    let (ran, events) = flow(trial(), Vec::new(), |_| {});
    assert_eq!(ran.settled.verdict, Verdict::RecordAndReboot);
    assert!(!events.contains(&"commit".to_owned()));
    let wanted = vec![outcome("extra", Level::Wanted, true)];
    assert_eq!(flow(trial(), wanted, |_| {}).0.settled.verdict, Verdict::RecordAndReboot);
}

#[test]
fn a_reboot_that_is_refused_is_forced() {
    for (orderly_fails, forced_fails, expected, rebooting) in [
        (false, false, &["reboot"][..], true),
        (true, false, &["reboot", "reboot --force"], true),
        (true, true, &["reboot", "reboot --force"], false),
    ] {
        let log = Log::default();
        let mut said = Vec::new();
        let fake = FakeReboot { log: log.clone(), orderly_fails, forced_fails };
        assert_eq!(act::reboot(&fake, &mut |text| said.push(text.to_owned())), rebooting);
        assert_eq!(log.events(), expected);
        assert_eq!(said.len(), usize::from(orderly_fails) + usize::from(forced_fails));
    }
}
