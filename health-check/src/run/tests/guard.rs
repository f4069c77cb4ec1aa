//! The guard has a deadline, and the verdict comes before it (HLT-36).

use super::*;
use crate::guard::Watch;

fn watched(left: u64) -> Scene {
    let mut scene = Scene::new(trial());
    scene.guard.watch = Watch::Armed { left: Duration::from_secs(left), another: true };
    scene
}

#[test]
fn the_checks_end_a_minute_before_the_guard_would_end_the_boot_hlt_36() {
    // The overall deadline is 300 s.
    for (left, expected) in [
        (600, "checks"),
        (360, "checks"),
        (359, "checks within 299 s"),
        (120, "checks within 60 s"),
        (100, "checks within 50 s"),
        (0, "checks within 0 s"),
    ] {
        let (ran, log) = watched(left).run(passing());
        assert_eq!(log[2], expected, "{left} s left");
        let cut = ran.notes.iter().any(|note| note.contains("instead of 300 s"));
        assert_eq!(cut, expected != "checks", "it is said: {:?}", ran.notes);
    }
}

#[test]
fn no_guard_is_one_note_on_a_trial_and_none_on_a_committed_boot_hlt_36() {
    for (booted, expected) in [(trial(), 1), (Booted::Committed(entry()), 0)] {
        let mut scene = Scene::new(booted);
        scene.guard.watch = Watch::Off { why: "nobody answers for it".into(), left: None };
        scene.policy.soak = Span::seconds(30);
        let (ran, log) = scene.run(passing());
        assert_eq!(ran.notes.iter().filter(|note| note.contains("nobody answers for it")).count(), expected);
        assert!(log.contains(&"disarm".to_owned()), "it may have come up since: {log:?}");
        assert!(log.contains(&"guard: count 0".to_owned()), "its count is set to 0 all the same: {log:?}");
    }
}

#[test]
fn what_is_written_of_the_deadline_holds_where_nobody_answers_hlt_36() {
    let left = Some(Duration::from_secs(200));
    for watch in [Watch::NotKnown { why: "busy".into(), left }, Watch::Off { why: "killed".into(), left }] {
        let mut scene = Scene::new(trial());
        scene.guard.watch = watch;
        let (_, log) = scene.run(passing());
        assert_eq!(log[2], "checks within 140 s");
        assert!(log.contains(&"disarm".to_owned()), "{log:?}");
    }
    // One that ends nothing does not hurry anybody.
    let mut scene = watched(100);
    scene.guard.watch = Watch::Armed { left: Duration::from_secs(100), another: false };
    assert_eq!(scene.run(passing()).1[2], "checks");
}

#[test]
fn waiting_for_the_lock_ends_by_the_guards_time_hlt_36() {
    // After the checks: 60 s, then what is left of the 100 s but for 5, then 3 s.
    let scene = watched(100).refusing([Refusal::Not].into_iter().chain([Refusal::Busy; 1000]));
    let (ran, log) = scene.run(failing());
    assert_eq!(log.iter().filter(|event| *event == "sleep 1000 ms").count(), 60 + 30 + 3);
    assert_eq!((ran.settled.verdict, ran.settled.guard), (Verdict::RecordAndStay, Told::LeftArmed));
    assert!(log.contains(&"evidence".to_owned()), "{log:?}");
}

#[test]
fn a_guard_that_does_not_obey_changes_no_verdict_hlt_36() {
    for (outcomes, verdict) in [(passing(), Verdict::Commit), (failing(), Verdict::RecordAndReboot)] {
        let mut scene = Scene::new(trial());
        scene.guard.fails = true;
        let (ran, log) = scene.run(outcomes);
        assert_eq!(ran.settled.verdict, verdict);
        assert!(log.contains(&"evidence".to_owned()), "{log:?}");
        assert!(ran.notes.iter().any(|note| note.contains("boot guard's record: no such file")), "{:?}", ran.notes);
    }
}

#[test]
fn the_guards_time_runs_while_the_lock_is_waited_for_hlt_36() {
    let scene = watched(400).refusing([Refusal::Busy; 61]);
    let (_, log) = scene.run(passing());
    assert!(log.contains(&"checks within 280 s".to_owned()), "a minute is gone: {log:?}");
}

/// The limits of what a trial leaves behind, whose checks took so many of the guard's 600 s.
fn limits(scene: Scene, took: u64, outcomes: Vec<Outcome>) -> Vec<String> {
    let scene = Scene { rounds: vec![Duration::from_secs(took)], ..scene };
    scene.run(outcomes);
    scene.log.limits()
}

#[test]
fn what_a_failed_trial_leaves_is_written_before_the_guard_cuts_it_hlt_42() {
    // In time, and late: all but 5 s of what is left, half of it for what is gathered; then there is a little for each.
    for (took, expected) in [
        (540, ["guard 10000 ms", "traces 15000 ms", "evidence 30000 ms", "history 30000 ms"]),
        (575, ["guard 10000 ms", "traces 10000 ms", "evidence 20000 ms", "history 20000 ms"]),
        (588, ["guard 7000 ms", "traces 3500 ms", "evidence 7000 ms", "history 7000 ms"]),
        (599, ["guard 3000 ms", "traces 1500 ms", "evidence 3000 ms", "history 3000 ms"]),
    ] {
        assert_eq!(limits(watched(600), took, failing()), expected, "after {took} s");
    }
}

#[test]
fn nothing_is_hurried_once_the_guard_is_disarmed_hlt_42() {
    let usual = ["traces 15000 ms", "evidence 30000 ms", "history 30000 ms"];
    // It stays up: the policy wants it so.
    let mut scene = watched(600);
    scene.policy.on_failure = Action::Stay;
    assert_eq!(limits(scene, 588, failing())[1..], usual);
    let mut scene = watched(600);
    scene.policy.on_failure = Action::Stay;
    scene.guard.fails = true;
    assert_eq!(limits(scene, 588, failing())[1], "traces 3500 ms", "it did not obey");
    let committed = limits(watched(600), 588, passing());
    assert_eq!(committed, ["guard 10000 ms", "history 30000 ms", "traces 15000 ms", "evidence 30000 ms"]);
}
