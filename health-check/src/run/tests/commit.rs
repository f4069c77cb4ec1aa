//! Trials that pass (HLT-23, HLT-30 row 2, HLT-31, HLT-36, HLT-40).

use super::*;

#[test]
fn a_trial_that_passes_is_committed_and_nothing_waits_for_var_hlt_36() {
    let (ran, log) = flow(trial(), passing(), |_| {});
    assert_eq!(log, events(&[&BEFORE, &COMMITTED]));
    assert_eq!(ran.settled, Settled { verdict: Verdict::Commit, booted: trial(), done: true, guard: Told::Wholly });
}

#[test]
fn a_trial_that_was_not_counted_and_passes_is_committed_hlt_32() {
    let (ran, log) = flow(not_counted(), passing(), |_| {});
    assert_eq!(log, events(&[&BEFORE, &COMMITTED]));
    assert_eq!(ran.settled.verdict, Verdict::Commit);
}

#[test]
fn a_commit_leaves_evidence_and_the_history_names_what_checks_recorded_hlt_40() {
    let mut outcomes = passing();
    let recorded = Outcome { recorded: Some("sha256:5e".into()), ..outcome("policy", Level::Required, true) };
    outcomes.push(recorded);
    let scene = Scene::new(trial());
    let (_, log) = scene.run(outcomes);
    assert!(log.contains(&"history: committed: policy sha256:5e".to_owned()), "{log:?}");
    let kept = scene.records.kept.lock().unwrap();
    let evidence = &kept[0];
    assert_eq!((evidence.verdict.as_str(), evidence.generation, evidence.attempt), ("commit", 7, 1));
    assert_eq!((evidence.version.as_str(), evidence.boot_id.as_str()), ("1.2.0", "boot"));
    assert_eq!(evidence.kernel_log, "[    1.000000] hello\n");
    assert_eq!(evidence.previous_end.as_ref().unwrap().source, "pstore");
    assert_eq!(evidence.checks[2].recorded.as_deref(), Some("sha256:5e"));
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
    let scene = Scene::new(trial()).telling([None, show("active", SINCE, 1)]);
    let (ran, log) = scene.run(unit_passed());
    let again = ["ask for ralphd.service", "sleep 500 ms", "ask for ralphd.service"];
    assert_eq!(log, events(&[&BEFORE, &again, &COMMITTED]));
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
        let (ran, log) = Scene::new(trial()).telling([now]).run(unit_passed());
        assert!(!log.contains(&"commit".to_owned()), "{log:?}");
        assert_eq!(ran.settled.verdict, Verdict::RecordAndReboot, "{log:?}");
        assert_eq!(ran.outcomes[0].reason, Some(Reason::UnitChanged));
        assert!(ran.outcomes[0].detail.contains(said), "{}", ran.outcomes[0].detail);
        assert!(ran.outcomes[1].passed, "a wanted unit is not asked again");
        assert!(log.iter().any(|event| event.starts_with("history: trial-failed: ralphd: ralphd.service passed, but")));
        assert_eq!(*log.last().unwrap(), "reboot");
    }
}

#[test]
fn a_commit_that_fails_twice_is_tried_a_third_time_hlt_31() {
    let (ran, log) = flow(trial(), passing(), |machine| machine.failing_commits = 2);
    let failed = ["commit fails", "close", "sleep 5000 ms", "open"];
    assert_eq!(log, events(&[&BEFORE, &failed, &failed, &COMMITTED]));
    assert!(ran.settled.done);
    assert_eq!(ran.notes.iter().filter(|note| note.contains("read-only file system")).count(), 2);
}

#[test]
fn a_commit_that_is_half_done_is_ended_and_the_guard_does_not_wait_for_var_upd_24_hlt_36() {
    // The first attempt fails with the new name live; the second finds it committed.
    let (ran, log) = flow(trial(), passing(), |machine| {
        machine.failing_commits = 1;
        machine.booted = vec![trial(), trial(), Booted::Committed(entry())];
        machine.halves = 1.into();
    });
    let esp = ["tell ralphd", "finish the commit", "disarm", "guard: count 0"];
    let var = ["raise the floor", "note fallbacks", "history, if it is not there: committed: ", "evidence", "close"];
    let ended = [&esp[..], &var].concat();
    assert_eq!(log, events(&[&BEFORE, &["commit fails", "close", "sleep 5000 ms", "open"], &ended]));
    assert_eq!((ran.settled.verdict, ran.settled.done), (Verdict::Healthy, true));
    // It cannot be ended: no reason to reboot, the slot boots by either name.
    let (ran, log) = flow(trial(), passing(), |machine| {
        machine.failing_commits = 1;
        machine.booted = vec![trial(), trial(), Booted::Committed(entry())];
        machine.halves = 9.into();
    });
    let again = ["tell ralphd", "finish the commit", "close", "sleep 5000 ms", "open"];
    let last = [&esp[..], &var[1..]].concat();
    // The guard is told once more at the very end: what it did not obey the first time it may obey now.
    let end = ["disarm", "guard: count 0"];
    assert_eq!(log, events(&[&BEFORE, &["commit fails", "close", "sleep 5000 ms", "open"], &again, &last, &end]));
    assert!(!log.contains(&"reboot".to_owned()));
    assert_eq!((ran.settled.verdict, ran.settled.done), (Verdict::Healthy, false));
}

#[test]
fn a_commit_that_got_through_half_way_leaves_its_evidence_hlt_31() {
    let mut scene = Scene::new(trial());
    scene.machine.failing_commits = 1;
    scene.machine.booted = vec![trial(), trial(), Booted::Committed(entry())];
    scene.machine.halves = 1.into();
    let mut outcomes = passing();
    outcomes.push(Outcome { recorded: Some("sha256:5e".into()), ..outcome("policy", Level::Required, true) });
    let (_, log) = scene.run(outcomes);
    assert!(log.contains(&"history, if it is not there: committed: policy sha256:5e".to_owned()), "{log:?}");
    let kept = scene.records.kept.lock().unwrap();
    assert_eq!((kept[0].verdict.as_str(), kept[0].attempt), ("commit", 1));
    assert_eq!(kept[0].checks[2].recorded.as_deref(), Some("sha256:5e"));
}

#[test]
fn a_commit_of_somebody_else_leaves_no_evidence_of_ours_hlt_31() {
    // An operator committed it while the checks ran; or the attempt before failed without having begun.
    for refusals in [vec![], vec![Refusal::Not, Refusal::Broken]] {
        let mut scene = Scene::new(trial()).refusing(refusals);
        scene.machine.booted = vec![trial(), Booted::Committed(entry())];
        let (ran, log) = scene.run(passing());
        assert_eq!(ran.settled.verdict, Verdict::Healthy);
        assert!(!log.iter().any(|event| event == "evidence" || event.starts_with("history")), "{log:?}");
    }
}

#[test]
fn a_commit_that_fails_thrice_is_a_failed_check_hlt_31() {
    let (ran, log) = flow(trial(), passing(), |machine| machine.failing_commits = 3);
    let failed = ["commit fails", "close", "sleep 5000 ms", "open"];
    let last = ["commit fails", "close", "open", "ask the model"];
    let recorded = [
        "guard: event b try1: check: commit",
        "evidence",
        "history: trial-failed: commit: read-only file system",
        "close",
    ];
    assert_eq!(log, events(&[&BEFORE, &failed, &failed, &last, &recorded, &REBOOT]));
    let last = ran.outcomes.last().unwrap();
    assert_eq!((last.name.as_str(), last.passed, last.reason), ("commit", false, Some(Reason::Commit)));
}

#[test]
fn a_third_commit_that_got_through_half_way_is_no_failed_trial_hlt_31() {
    // It can be ended, or the ESP has turned read-only meanwhile.
    for (halves, done) in [(1, true), (9, false)] {
        let mut scene = Scene::new(trial());
        scene.machine.failing_commits = 3;
        scene.machine.booted = vec![trial(), trial(), trial(), trial(), Booted::Committed(entry())];
        scene.machine.halves = halves.into();
        let (ran, log) = scene.run(passing());
        assert_eq!((ran.settled.verdict, ran.settled.done), (Verdict::Healthy, done), "{log:?}");
        assert_eq!(ran.settled.booted, Booted::Committed(entry()));
        assert_eq!(ran.outcomes, passing(), "no check has failed");
        let kept = scene.records.kept.lock().unwrap();
        assert_eq!(kept.len(), 1, "{log:?}");
        assert_eq!((kept[0].verdict.as_str(), kept[0].attempt, kept[0].checks.len()), ("commit", 1, 2));
        assert!(log.contains(&"tell ralphd".to_owned()) && log.contains(&"disarm".to_owned()), "{log:?}");
        let failed = |event: &String| event.contains("check: ") || event.contains("trial-failed") || event == "reboot";
        assert!(!log.iter().any(failed), "{log:?}");
        assert_eq!(log.iter().filter(|event| *event == "commit fails").count(), 3, "{log:?}");
    }
}

#[test]
fn a_third_commit_of_which_nothing_can_be_read_any_more_is_a_failed_check_hlt_31() {
    // Five sessions: the look before the checks, three attempts, and the one that is refused.
    let mut scene = Scene::new(trial()).refusing([[Refusal::Not; 4].as_slice(), &[Refusal::Broken]].concat());
    scene.machine.failing_commits = 3;
    let (ran, log) = scene.run(passing());
    assert_eq!((ran.settled.verdict, ran.settled.guard), (Verdict::RecordAndStay, Told::LeftArmed), "{log:?}");
    assert_eq!(ran.outcomes.iter().filter(|outcome| outcome.name == COMMIT).count(), 1);
    assert!(log.contains(&"guard: event b try1: check: commit".to_owned()), "{log:?}");
}

#[test]
fn a_commit_that_fails_thrice_stays_up_if_nothing_better_boots() {
    let (ran, log) = flow(trial(), passing(), |machine| {
        machine.failing_commits = 3;
        machine.another = false;
    });
    assert!(!log.iter().any(|event| event.starts_with("reboot") || event == "tell ralphd"), "{log:?}");
    assert_eq!(ran.settled.verdict, Verdict::RecordAndStay);
}

#[test]
fn a_commit_that_ralphd_cannot_be_told_of_is_not_carried_out() {
    let mut scene = Scene::new(trial());
    scene.records.mark_fails = true;
    let (ran, log) = scene.run(passing());
    assert!(log.contains(&"mark fails".to_owned()) && log.contains(&"disarm".to_owned()), "{log:?}");
    assert_eq!((ran.settled.verdict, ran.settled.done), (Verdict::Commit, false));
}

#[test]
fn an_esp_that_does_not_unmount_is_told_and_undoes_nothing() {
    let (ran, _) = flow(trial(), passing(), |machine| machine.close_fails = true);
    assert!(ran.settled.done);
    assert!(ran.notes.iter().any(|note| note == "closing the ESP: target is busy"), "{:?}", ran.notes);
}
