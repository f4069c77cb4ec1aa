//! Rounds of checks, one after the other, until they have held for long enough (HLT-35).

use super::*;
use crate::guard::Watch;

fn soaking(seconds: u64, round: u64) -> Scene {
    let mut scene = Scene::new(trial());
    scene.policy.soak = Span::seconds(seconds);
    scene.rounds = vec![Duration::from_secs(round)];
    scene.guard.watch = Watch::Off { why: "not in this test".into(), left: None };
    scene
}

fn rounds(log: &[String]) -> usize {
    log.iter().filter(|event| event.starts_with("checks")).count()
}

#[test]
fn the_commit_follows_a_round_that_began_after_the_soak_hlt_35() {
    // The first round ends at 1 s, and the soak at 13 s. Rounds begin at 0, 6, 12 and 18 s.
    let (ran, log) = soaking(12, 1).run(passing());
    let pause = ["checks", "sleep 5000 ms"];
    let soaked = [&["open", "close"][..], &pause, &pause, &pause, &["checks", "open"]].concat();
    assert_eq!(log[..soaked.len()], events(&[&soaked]));
    assert_eq!(ran.settled.verdict, Verdict::Commit);
}

#[test]
fn without_a_soak_there_is_one_round_hlt_35() {
    let (_, log) = soaking(0, 1).run(passing());
    assert_eq!(rounds(&log), 1);
}

#[test]
fn a_check_that_fails_in_a_later_round_fails_the_trial_hlt_35() {
    let (ran, log) = soaking(60, 1).run_rounds(vec![passing(), passing(), failing()]);
    assert_eq!(rounds(&log), 3);
    assert_eq!(ran.settled.verdict, Verdict::RecordAndReboot);
    assert!(!ran.outcomes[0].passed);
}

#[test]
fn a_wanted_check_that_fails_does_not_end_the_soak_hlt_33() {
    let wanted = vec![outcome("ralphd", Level::Required, true), outcome("extra", Level::Wanted, false)];
    let (ran, log) = soaking(6, 1).run_rounds(vec![wanted]);
    assert_eq!((rounds(&log), ran.settled.verdict), (3, Verdict::Commit));
}

#[test]
fn only_what_may_be_committed_soaks_hlt_35() {
    for booted in [Booted::Committed(entry()), Booted::Unknown("the slots disagree".into())] {
        let scene = Scene { machine: FakeMachine::new(&Log::default(), booted), ..soaking(60, 1) };
        let (_, log) = scene.run(passing());
        assert_eq!(rounds(&log), 1);
    }
}

#[test]
fn the_guard_cuts_the_soak_and_the_last_round_has_time_to_end_hlt_36() {
    // 200 s are left, so the verdict is due at 140 s. A round takes 10 s: none may begin after 110 s, so that it may take 30 s.
    let mut scene = soaking(600, 10);
    scene.guard.watch = left(200);
    let (ran, log) = scene.run(passing());
    assert_eq!(ran.settled.verdict, Verdict::Commit);
    // They begin at 0, 15, … 105 s; the first ends at 10 s.
    assert_eq!(rounds(&log), 8);
    assert!(ran.notes.iter().any(|note| note.ends_with("the soak is 95 s instead of 600 s")), "{:?}", ran.notes);
    // Too little for any soak: the second round might take until 155 s.
    let mut scene = soaking(600, 120);
    scene.guard.watch = left(200);
    let (ran, log) = scene.run(passing());
    assert_eq!((rounds(&log), ran.settled.verdict), (1, Verdict::Commit));
    assert!(ran.notes.iter().any(|note| note.ends_with("the soak is 0 s instead of 600 s")), "{:?}", ran.notes);
}

fn left(seconds: u64) -> Watch {
    Watch::Armed { left: Duration::from_secs(seconds), another: true }
}

#[test]
fn a_first_round_that_waits_for_the_machine_does_not_shorten_the_soak_hlt_35() {
    // The verdict is due at 300 s. The first round ends at 100 s, and the soak at 160 s; rounds of 1 s begin at 105, 111, … 165 s.
    let mut scene = soaking(60, 1);
    scene.rounds.insert(0, Duration::from_secs(100));
    scene.guard.watch = left(360);
    let (ran, log) = scene.run(passing());
    assert_eq!((rounds(&log), ran.settled.verdict), (12, Verdict::Commit));
    assert!(!ran.notes.iter().any(|note| note.contains("the soak is")), "{:?}", ran.notes);
}

#[test]
fn the_longest_of_the_later_rounds_tells_what_the_next_may_take_hlt_36() {
    // The verdict is due at 140 s. Rounds end at 1, 7 and 62 s; the next might take 75 s, so the soak held to the third's begin at 12 s.
    let mut scene = soaking(600, 1);
    scene.rounds.extend([1, 50, 1].map(Duration::from_secs));
    scene.guard.watch = left(200);
    let (ran, log) = scene.run(passing());
    assert_eq!((rounds(&log), ran.settled.verdict), (3, Verdict::Commit));
    assert!(ran.notes.iter().any(|note| note.ends_with("the soak is 11 s instead of 600 s")), "{:?}", ran.notes);
}

#[test]
fn a_slow_first_round_does_not_keep_the_second_from_its_begin_hlt_35() {
    // The verdict is due at 140 s. The first round ends at 100 s; the second begins at 105 s and has 30 s at least, the third would not.
    let mut scene = soaking(600, 1);
    scene.rounds.insert(0, Duration::from_secs(100));
    scene.guard.watch = left(200);
    let (ran, log) = scene.run(passing());
    assert_eq!((rounds(&log), ran.settled.verdict), (2, Verdict::Commit));
    assert!(ran.notes.iter().any(|note| note.ends_with("the soak is 5 s instead of 600 s")), "{:?}", ran.notes);
}

/// A required check that failed for this reason, and one that comes after it.
fn cut(reason: Reason) -> Vec<Outcome> {
    let failed = |reason| Outcome { reason: Some(reason), ..outcome("ralphd", Level::Required, false) };
    vec![failed(reason), failed(Reason::After), outcome("extra", Level::Wanted, false)]
}

#[test]
fn a_round_of_the_soak_that_the_guard_cuts_ends_it_and_fails_nothing_hlt_35() {
    // The verdict is due at 140 s. Rounds begin at 0, 6 and 12 s; the third takes far longer than those before it, and all that is left.
    let scene = |watch| {
        let mut scene = soaking(600, 1);
        scene.rounds.extend([1, 128].map(Duration::from_secs));
        scene.guard.watch = watch;
        scene
    };
    let (ran, log) = scene(left(200)).run_rounds(vec![passing(), passing(), cut(Reason::OverallDeadline)]);
    assert_eq!((rounds(&log), ran.settled.verdict), (3, Verdict::Commit), "{log:?}");
    assert_eq!(ran.outcomes, passing(), "those of the round before");
    let told = "cut a round of the soak after 128 s: the soak is 5 s instead of 600 s";
    assert!(ran.notes.iter().any(|note| note.ends_with(told)), "{:?}", ran.notes);
    // A check that has failed by itself fails the trial, and so does one that the policy's own deadline cuts.
    let off = Watch::Off { why: "not in this test".into(), left: None };
    for (watch, reason) in [(left(200), Reason::HttpStatus), (off, Reason::OverallDeadline)] {
        let (ran, log) = scene(watch).run_rounds(vec![passing(), passing(), cut(reason)]);
        assert_eq!(ran.settled.verdict, Verdict::RecordAndReboot, "{log:?}");
    }
    // Of the first round nothing has held yet.
    let (ran, log) = scene(left(200)).run_rounds(vec![cut(Reason::OverallDeadline)]);
    assert_eq!((rounds(&log), ran.settled.verdict), (1, Verdict::RecordAndReboot), "{log:?}");
}
