//! Trials that fail (HLT-30 rows 3 to 8, HLT-32, HLT-34, HLT-37, HLT-40).

use super::*;

#[test]
fn a_trial_that_fails_leaves_evidence_before_it_reboots_hlt_40() {
    let (ran, log) = flow(trial(), failing(), |_| {});
    assert_eq!(log, events(&[&BEFORE, &["ask the model"], &RECORDED, &REBOOT]));
    assert_eq!(ran.settled.verdict, Verdict::RecordAndReboot);
}

#[test]
fn a_trial_that_fails_stays_up_if_nothing_better_boots() {
    let (ran, log) = flow(trial(), failing(), |machine| machine.another = false);
    // Then no reboot is to come that the guard would have to see to.
    let recorded = [&["guard: count 0, event b try1: check: ralphd", "disarm"], &RECORDED[1..]].concat();
    assert_eq!(log, events(&[&BEFORE, &["ask the model"], &recorded]));
    assert_eq!(ran.settled.verdict, Verdict::RecordAndStay);
    assert!(ran.notes.iter().any(|note| note.contains("slot a is fenced")), "{:?}", ran.notes);
}

#[test]
fn a_trial_that_fails_stays_up_if_the_policy_says_so_hlt_12() {
    let mut scene = Scene::new(trial());
    scene.policy.on_failure = Action::Stay;
    let (ran, log) = scene.run(failing());
    assert!(!log.iter().any(|event| event == "ask the model" || event == "reboot"), "{log:?}");
    assert_eq!(ran.settled.verdict, Verdict::RecordAndStay);
    assert_eq!(scene.records.kept.lock().unwrap()[0].verdict, "record-and-stay");
}

/// What happened with DONE 0 in place of 1.
fn recorded_uncounted() -> Vec<String> {
    RECORDED.iter().map(|event| event.replace("try1", "try0")).collect()
}

#[test]
fn a_trial_that_was_not_counted_is_marked_bad_before_it_reboots_hlt_32() {
    let (ran, log) = flow(not_counted(), failing(), |_| {});
    let mut expected = events(&[&BEFORE, &["ask the model", "mark bad: not-counted"]]);
    expected.extend(recorded_uncounted());
    expected.extend(events(&[&REBOOT]));
    assert_eq!(log, expected);
    assert_eq!(ran.settled.verdict, Verdict::MarkBadAndReboot);
}

#[test]
fn a_trial_that_was_not_counted_and_cannot_be_marked_bad_stays_up_hlt_32() {
    let (ran, log) = flow(not_counted(), failing(), |machine| machine.mark_bad_fails = true);
    assert!(log.contains(&"mark bad fails".to_owned()) && log.contains(&"evidence".to_owned()), "{log:?}");
    assert!(!log.contains(&"reboot".to_owned()), "{log:?}");
    assert_eq!(ran.settled.verdict, Verdict::RecordAndStay);
    // And where nothing better boots it is not even tried (UPD-50).
    let (ran, log) = flow(not_counted(), failing(), |machine| machine.another = false);
    assert!(!log.iter().any(|event| event.starts_with("mark bad") || event == "reboot"), "{log:?}");
    assert_eq!(ran.settled.verdict, Verdict::RecordAndStay);
}

/// Required checks that failed for these reasons.
fn failed_by(reasons: &[Reason]) -> Vec<Outcome> {
    let outcomes = reasons.iter().map(|&reason| Outcome::own_failure("ralphd", reason, "too late".into()));
    outcomes.chain([outcome("extra", Level::Wanted, false), outcome("other", Level::Required, true)]).collect()
}

#[test]
fn a_failure_that_the_next_boot_would_show_again_is_not_waited_for_hlt_34() {
    let (ran, log) = flow(trial(), failed_by(&[Reason::UnitMissing, Reason::Contract]), |_| {});
    let detail = "history: trial-failed: ralphd: too late; ralphd: too late";
    let recorded = [RECORDED[0], RECORDED[1], detail, RECORDED[3]];
    assert_eq!(log, events(&[&BEFORE, &["ask the model", "mark bad: checks"], &recorded, &REBOOT]));
    assert_eq!(ran.settled.verdict, Verdict::MarkBadAndReboot);
    // One that may pass next time is enough to wait for it.
    let (ran, log) = flow(trial(), failed_by(&[Reason::UnitMissing, Reason::Deadline]), |_| {});
    assert!(!log.iter().any(|event| event.starts_with("mark bad")), "{log:?}");
    assert_eq!(ran.settled.verdict, Verdict::RecordAndReboot);
}

#[test]
fn a_counted_trial_that_cannot_be_marked_bad_runs_out_of_tries_hlt_34() {
    let scene = {
        let mut scene = Scene::new(trial());
        scene.machine.mark_bad_fails = true;
        scene
    };
    let (ran, log) = scene.run(failed_by(&[Reason::CannotStart]));
    assert_eq!(log, events(&[&BEFORE, &["ask the model", "mark bad fails"], &RECORDED, &REBOOT]));
    assert_eq!(ran.settled.verdict, Verdict::RecordAndReboot);
    assert_eq!(scene.records.kept.lock().unwrap()[0].verdict, "record-and-reboot");
}

#[test]
fn a_trial_that_the_firmware_did_not_boot_is_left_as_it_is_hlt_37() {
    for outcomes in [passing(), failing()] {
        let mut scene = Scene::new(trial());
        scene.surroundings.not_firmware = Some("the kernel was started by kexec".into());
        scene.policy.soak = Span::seconds(60);
        let (ran, log) = scene.run(outcomes);
        // Nothing is given up or proven, so the guard is not disarmed; what was seen is kept.
        assert_eq!(log, events(&[&BEFORE, &["evidence", "close"]]));
        assert_eq!(ran.settled.verdict, Verdict::Report);
        assert!(ran.notes.iter().any(|note| note.ends_with("started by kexec")), "{:?}", ran.notes);
    }
}

#[test]
fn a_trial_whose_state_cannot_be_read_any_more_is_left_to_the_guard_hlt_31() {
    for (outcomes, name) in [(failing(), "ralphd"), (passing(), "commit")] {
        let scene = Scene::new(trial()).refusing([Refusal::Not].into_iter().chain([Refusal::Broken; 10]));
        let (ran, log) = scene.run(outcomes);
        assert_eq!(ran.settled.verdict, Verdict::RecordAndStay);
        assert_eq!(log[log.len() - 2..], [format!("guard: event b try1: check: {name}"), "evidence".into()]);
        assert!(!log.iter().any(|event| event == "commit" || event == "reboot" || event == "disarm"), "{log:?}");
        assert!(ran.notes.last().unwrap().starts_with("the boot guard will end this boot"), "{:?}", ran.notes);
        let kept = scene.records.kept.lock().unwrap();
        assert!(kept[0].checks.iter().any(|check| check.name == name && check.failed()));
    }
}

#[test]
fn what_else_would_boot_is_asked_three_times_hlt_31() {
    let again = ["the model cannot be asked", "close", "sleep 5000 ms", "open"];
    let (ran, log) = flow(trial(), failing(), |machine| machine.not_asked = 2.into());
    assert_eq!(log, events(&[&BEFORE, &again, &again, &["ask the model"], &RECORDED, &REBOOT]));
    assert_eq!(ran.settled.verdict, Verdict::RecordAndReboot);
    // Then it stays up, but not for good: the guard knows, and the boot counts.
    let (ran, log) = flow(trial(), failing(), |machine| machine.not_asked = 3.into());
    assert_eq!(log, events(&[&BEFORE, &again, &again, &again[..1], &RECORDED]));
    assert_eq!((ran.settled.verdict, ran.settled.guard), (Verdict::RecordAndStay, Told::LeftArmed));
    assert!(ran.notes.last().unwrap().starts_with("the boot guard will end this boot"), "{:?}", ran.notes);
}

#[test]
fn with_the_policy_stay_nothing_is_left_to_the_guard_hlt_12() {
    let mut scene = Scene::new(trial()).refusing([Refusal::Not].into_iter().chain([Refusal::Broken; 10]));
    scene.policy.on_failure = Action::Stay;
    let (ran, log) = scene.run(failing());
    assert!(log.contains(&"disarm".to_owned()) && log.iter().any(|event| event.starts_with("guard: count 0")));
    assert_eq!(ran.settled.guard, Told::Wholly);
}

#[test]
fn evidence_that_cannot_be_written_changes_nothing_else_hlt_40() {
    let mut scene = Scene::new(trial());
    (scene.machine.history_fails, scene.records.evidence_fails) = (true, true);
    let (ran, log) = scene.run(failing());
    let recorded = [RECORDED[0], "evidence fails", "history fails", "close"];
    assert_eq!(log, events(&[&BEFORE, &["ask the model"], &recorded, &REBOOT]));
    assert!(ran.notes.iter().any(|note| note.starts_with("evidence is not recorded: ")), "{:?}", ran.notes);
    assert!(ran.notes.iter().any(|note| note.contains("no space left on device")), "{:?}", ran.notes);
}

#[test]
fn the_detail_of_the_history_event_is_short_hlt_40() {
    for (length, expected) in [(504, 512), (505, 511), (5000, 512), (5001, 511)] {
        let mut outcome = outcome("ralphd", Level::Required, false);
        // Two bytes each; the cut must not fall into one.
        outcome.detail = format!("{}{}", "x".repeat(length % 2), "ü".repeat(length / 2));
        let (_, log) = flow(trial(), vec![outcome], |_| {});
        let detail = log.iter().find_map(|event| event.strip_prefix("history: trial-failed: ")).unwrap();
        assert_eq!((detail.len(), detail.ends_with(" …")), (expected, length > 504), "{detail}");
    }
}

#[test]
fn evidence_that_a_reboot_takes_is_not_called_kept_hlt_40() {
    let mut scene = Scene::new(trial());
    scene.records.medium = Medium::Memory;
    let (ran, log) = scene.run(failing());
    assert!(ran.notes.iter().any(|note| note.ends_with("it is not kept over the reboot")), "{:?}", ran.notes);
    assert_eq!(log.last().unwrap(), "reboot");
}

#[test]
fn no_check_at_all_commits_nothing_hlt_10() {
    let (ran, log) = flow(trial(), Vec::new(), |_| {});
    assert_eq!(ran.settled.verdict, Verdict::RecordAndReboot);
    assert!(!log.contains(&"commit".to_owned()));
    let wanted = vec![outcome("extra", Level::Wanted, true)];
    assert_eq!(flow(trial(), wanted, |_| {}).0.settled.verdict, Verdict::RecordAndReboot);
}
