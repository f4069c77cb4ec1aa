//! What is done before the checks, and when another program holds the lock (HLT-3, HLT-38, HLT-39, HLT-41, UPD-44).

use super::*;

/// After the checks of a committed boot.
const TOLD: [&str; 2] = ["disarm", "guard: count 0"];

#[test]
fn on_a_committed_boot_ralphd_is_told_before_the_checks_hlt_3() {
    for (outcomes, verdict) in [(passing(), Verdict::Healthy), (failing(), Verdict::Report)] {
        let (ran, log) = flow(Booted::Committed(entry()), outcomes, |_| {});
        assert_eq!(
            log,
            events(&[&["open", "tell ralphd", "note fallbacks", "close", "guard: count 0", "checks"], &TOLD])
        );
        let expected = Settled { verdict, booted: Booted::Committed(entry()), done: true, guard: Told::NotYet };
        assert_eq!(ran.settled, expected);
    }
}

#[test]
fn a_commit_that_a_power_cut_left_half_done_is_ended_before_the_checks_upd_24() {
    for halves in [1, 9] {
        let (ran, log) = flow(Booted::Committed(entry()), passing(), |machine| machine.halves = halves.into());
        // What is ended leaves the floor to be raised.
        let floor: &[&str] = if halves == 1 { &["raise the floor"] } else { &[] };
        let look = ["note fallbacks", "close", "guard: count 0", "checks"];
        assert_eq!(log, events(&[&["open", "tell ralphd", "finish the commit"], floor, &look, &TOLD]));
        assert!(ran.settled.done, "ralphd is told whether it could be ended or not");
    }
}

#[test]
fn an_unknown_boot_is_reported_and_nothing_is_changed() {
    for outcomes in [passing(), failing()] {
        let (ran, log) = flow(Booted::Unknown("the slots disagree".into()), outcomes, |machine| {
            machine.guard_event = Some("deadline".into());
        });
        assert_eq!(log, events(&[&BEFORE, &["close"], &TOLD]));
        assert_eq!(ran.settled.verdict, Verdict::Unknown);
    }
}

#[test]
fn an_event_of_the_guard_is_taken_over_before_the_checks_upd_44() {
    for booted in [trial(), Booted::Committed(entry())] {
        let (ran, log) = flow(booted, passing(), |machine| machine.guard_event = Some("deadline".into()));
        let at = |wanted: &str| log.iter().position(|event| event == wanted).unwrap();
        assert!(at("history: the guard's deadline") < at("checks"), "{log:?}");
        assert!(ran.notes.contains(&"the guard's deadline".to_owned()), "{:?}", ran.notes);
    }
}

#[test]
fn what_was_read_before_the_checks_is_read_again() {
    // Somebody committed while the checks ran.
    let (ran, log) = flow(trial(), failing(), |machine| machine.booted.push(Booted::Committed(entry())));
    assert_eq!(log, events(&[&BEFORE, &["tell ralphd", "note fallbacks", "close"], &TOLD]));
    assert_eq!(ran.settled.verdict, Verdict::Report);
    // It could not be read before, and is a trial.
    let (ran, log) = Scene::new(trial()).refusing([Refusal::Broken]).run(passing());
    assert_eq!(log, events(&[&["broken", "checks", "open"], &COMMITTED]));
    assert!(ran.settled.done);
}

#[test]
fn a_committed_boot_does_not_wait_for_the_lock_hlt_39() {
    let scene = Scene::new(Booted::Committed(entry())).refusing([Refusal::Busy]);
    let (ran, log) = scene.run(passing());
    let early = ["busy", "glance", "tell ralphd", "guard: count 0", "checks"];
    let late = ["open", "tell ralphd", "note fallbacks", "close"];
    assert_eq!(log, events(&[&early, &late, &TOLD]));
    assert_eq!((ran.settled.verdict, ran.settled.done), (Verdict::Healthy, true));
    // The other program does not end: nothing but the fallbacks is missed.
    let scene = Scene::new(Booted::Committed(entry())).refusing([Refusal::Busy; 1000]);
    let (ran, log) = scene.run(passing());
    assert_eq!(log[..5], early);
    assert_eq!((ran.settled.verdict, ran.settled.done), (Verdict::Healthy, true));
    assert!(ran.notes.iter().any(|note| note.contains("fell back is not looked at")), "{:?}", ran.notes);
}

#[test]
fn a_trial_waits_for_the_lock_but_not_for_ever_hlt_39() {
    let scene = Scene::new(trial()).refusing([Refusal::Busy, Refusal::Busy, Refusal::Not, Refusal::Busy]);
    let (ran, log) = scene.run(passing());
    let look = ["busy", "glance", "busy", "sleep 1000 ms", "open", "close", "checks"];
    let late = ["busy", "sleep 1000 ms", "open"];
    assert_eq!(log, events(&[&look, &late, &COMMITTED]));
    assert!(ran.settled.done);

    let scene = Scene::new(trial()).refusing([Refusal::Busy; 1000]);
    let (ran, log) = scene.run(passing());
    assert_eq!((ran.settled.verdict, ran.settled.guard), (Verdict::Unknown, Told::LeftArmed));
    assert!(!log.iter().any(|event| event == "disarm" || event.starts_with("guard")), "{log:?}");
    let busy = log.iter().filter(|event| *event == "busy").count();
    assert_eq!(busy, 1 + 4 * 61, "a minute before the checks, and one in each attempt");
}

#[test]
fn a_unit_that_would_commit_behind_our_back_is_a_warning_hlt_38() {
    for booted in [trial(), Booted::Committed(entry())] {
        let mut scene = Scene::new(booted);
        scene.surroundings.bless_boot = Some("loaded, static, inactive".into());
        let (ran, _) = scene.run(passing());
        let warning = ran.notes.iter().find(|note| note.starts_with(WARNING)).unwrap();
        assert!(warning.contains("not masked (loaded, static, inactive)"), "{warning}");
        assert!(ran.settled.done, "it changes no verdict");
    }
    let (ran, _) = flow(trial(), passing(), |_| {});
    assert!(!ran.notes.iter().any(|note| note.starts_with(WARNING)), "{:?}", ran.notes);
}
