//! Rounds of checks, one after the other, until they have held for long enough (HLT-35).

use super::*;
use crate::guard::Watch;

fn soaking(seconds: u64, round: u64) -> Scene {
    let mut scene = Scene::new(trial());
    scene.policy.soak = Span::seconds(seconds);
    scene.round = Duration::from_secs(round);
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
    // 200 s are left, so the verdict is due at 140 s. A round takes 10 s: none may begin after 115 s.
    let mut scene = soaking(600, 10);
    scene.guard.watch = Watch::Armed { left: Duration::from_secs(200), another: true };
    let (ran, log) = scene.run(passing());
    assert_eq!(ran.settled.verdict, Verdict::Commit);
    // They begin at 0, 15, … 105, 120 s.
    assert_eq!(rounds(&log), 9);
    assert!(ran.notes.iter().any(|note| note.ends_with("the soak is 105 s instead of 600 s")), "{:?}", ran.notes);
    // Too little for any soak.
    let mut scene = soaking(600, 50);
    scene.guard.watch = Watch::Armed { left: Duration::from_secs(200), another: true };
    let (ran, log) = scene.run(passing());
    assert_eq!((rounds(&log), ran.settled.verdict), (1, Verdict::Commit));
}
