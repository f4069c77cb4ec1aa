//! Checks run together, with real threads and processes (HLT-20).

use super::*;
use crate::config::Policy;
use crate::fakes::FakeSystemd;
use crate::span::Span;

fn command(name: &str, script: &str, deadline: &str) -> Check {
    Check {
        name: name.into(),
        level: Level::Required,
        deadline: Span::parse(deadline).unwrap(),
        tries: Some(1),
        interval: Span::seconds(1),
        after: Vec::new(),
        kind: Kind::Command { program: "/bin/sh".into(), args: vec!["-c".into(), script.into()] },
    }
}

fn policy(overall: &str) -> Policy {
    Policy { overall_deadline: Span::parse(overall).unwrap(), ..Policy::default() }
}

fn run(checks: Vec<Check>, overall: &str) -> (Vec<Outcome>, Duration) {
    let tools = Tools {
        clock: Arc::new(SystemClock),
        systemd: Arc::new(FakeSystemd::telling([None])),
        ..Tools::of_this_machine()
    };
    let begin = Instant::now();
    let outcomes = run_all(&Config { checks, policy: policy(overall) }, &tools, Duration::MAX);
    (outcomes, begin.elapsed())
}

#[test]
fn checks_run_at_the_same_time_and_are_told_in_the_order_of_the_configuration() {
    let (outcomes, took) = run((0..8).map(|n| command(&format!("c{n}"), "sleep 2", "30s")).collect(), "60s");
    let names: Vec<&str> = outcomes.iter().map(|outcome| outcome.name.as_str()).collect();
    assert_eq!(names, ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7"]);
    assert!(outcomes.iter().all(|outcome| outcome.passed && outcome.milliseconds >= 2000));
    assert!(took < Duration::from_secs(12), "{took:?}: one after the other would take 16 s");
}

#[test]
fn each_way_to_fail_has_its_reason() {
    let mut missing = command("missing", "", "30s");
    missing.kind = Kind::Command { program: "/nonexistent".into(), args: vec![] };
    let checks = vec![
        command("pass", "exit 0", "30s"),
        command("code", "echo why >&2; exit 3", "30s"),
        command("signal", "kill -9 $$", "30s"),
        command("late", "sleep 100", "300ms"),
        missing,
    ];
    let (outcomes, _) = run(checks, "60s");
    let told: Vec<_> = outcomes.iter().map(|outcome| (outcome.passed, outcome.reason)).collect();
    let expected = [
        (true, None),
        (false, Some(Reason::ExitCode)),
        (false, Some(Reason::Signal)),
        (false, Some(Reason::Deadline)),
        (false, Some(Reason::CannotStart)),
    ];
    assert_eq!(told, expected);
    assert_eq!(outcomes[1].output, "why\n");
    assert!(outcomes[4].detail.starts_with("cannot start /nonexistent: No such file"), "{}", outcomes[4].detail);
}

#[test]
fn the_overall_deadline_ends_what_still_runs_hlt_12() {
    let (outcomes, took) = run(vec![command("quick", "exit 0", "30s"), command("slow", "sleep 100", "30s")], "2s");
    assert!(outcomes[0].passed);
    assert_eq!(outcomes[1].reason, Some(Reason::OverallDeadline));
    assert!(took < Duration::from_secs(20), "{took:?}");
}

/// A systemd that never answers and cannot be interrupted.
struct Stuck;

impl Systemd for Stuck {
    fn show(&self, _: &str, _: Duration) -> Result<crate::systemd::UnitShow, crate::systemd::SystemdError> {
        std::thread::sleep(Duration::from_secs(3600));
        unreachable!("nobody waits that long")
    }
}

#[test]
fn a_check_that_is_stuck_does_not_hold_up_the_others() {
    let stuck = Check {
        name: "stuck".into(),
        level: Level::Required,
        deadline: Span::seconds(30),
        tries: Some(1),
        interval: Span::seconds(1),
        after: Vec::new(),
        kind: Kind::Unit { unit: "x.service".into(), stable_for: Span::seconds(1) },
    };
    let tools = Tools { clock: Arc::new(SystemClock), systemd: Arc::new(Stuck), ..Tools::of_this_machine() };
    let begin = Instant::now();
    let config = Config { checks: vec![stuck, command("quick", "exit 0", "30s")], policy: policy("2s") };
    let outcomes = run_all(&config, &tools, Duration::MAX);
    assert_eq!(outcomes[0].reason, Some(Reason::OverallDeadline));
    assert!(outcomes[1].passed);
    assert!(begin.elapsed() < Duration::from_secs(25), "{:?}", begin.elapsed());
}

#[test]
fn only_required_checks_count_and_none_is_not_all() {
    let of = |level, passed| {
        let mut outcome = Outcome::own_failure("x", Reason::Commit, String::new());
        (outcome.level, outcome.passed) = (level, passed);
        outcome
    };
    use Level::{Required as R, Wanted as W};
    assert_eq!(required(&[of(R, true), of(W, false)]), Required::AllPassed);
    assert_eq!(required(&[of(R, true), of(R, false)]), Required::OneFailed);
    assert_eq!(required(&[of(W, true)]), Required::OneFailed);
    assert_eq!(required(&[]), Required::OneFailed);
}

fn after(check: Check, after: &[&str]) -> Check {
    Check { after: after.iter().map(|name| (*name).to_owned()).collect(), ..check }
}

#[test]
fn a_check_begins_when_what_it_comes_after_has_passed_hlt_25() {
    let checks = vec![
        // Its deadline is shorter than what it waits for takes.
        after(command("second", "exit 0", "1s"), &["first", "other"]),
        command("first", "sleep 2", "30s"),
        command("other", "exit 0", "30s"),
    ];
    let (outcomes, took) = run(checks, "60s");
    assert!(outcomes.iter().all(|outcome| outcome.passed), "{outcomes:?}");
    assert!(took >= Duration::from_secs(2) && outcomes[0].milliseconds < 1000, "{outcomes:?}");
}

#[test]
fn a_check_fails_at_once_with_what_it_comes_after_hlt_25() {
    let checks = vec![
        command("first", "exit 1", "30s"),
        after(command("second", "exit 0", "30s"), &["first"]),
        after(command("third", "exit 0", "30s"), &["second", "slow"]),
        command("slow", "sleep 3", "30s"),
    ];
    let (outcomes, _) = run(checks, "60s");
    for index in [1, 2] {
        assert_eq!((outcomes[index].reason, outcomes[index].tries), (Some(Reason::After), 0));
        assert_eq!(outcomes[index].milliseconds, 0, "at once");
    }
    assert!(outcomes[2].detail.contains("`second`, which failed"), "{}", outcomes[2].detail);
}

#[test]
fn waiting_counts_into_the_overall_deadline_and_a_budget_cuts_it_hlt_25_hlt_36() {
    let checks = vec![command("slow", "sleep 100", "20min"), after(command("waits", "exit 0", "30s"), &["slow"])];
    let tools = Tools { systemd: Arc::new(FakeSystemd::telling([None])), ..Tools::of_this_machine() };
    let begin = Instant::now();
    let outcomes = run_all(&Config { checks, policy: policy("30min") }, &tools, Duration::from_secs(2));
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    assert_eq!(outcomes[0].reason, Some(Reason::OverallDeadline));
    assert!(matches!(outcomes[1].reason, Some(Reason::OverallDeadline | Reason::After)), "{:?}", outcomes[1]);
}

#[test]
fn a_command_is_tried_again_until_it_passes_hlt_24() {
    let folder = tempfile::tempdir().unwrap();
    let count = folder.path().join("count");
    let script = format!("echo x >> {0}; test $(wc -l < {0}) -ge 3", count.display());
    let check = |tries| Check { tries: Some(tries), interval: Span::milliseconds(100), ..command("x", &script, "30s") };
    let (outcomes, _) = run(vec![check(2)], "60s");
    assert_eq!((outcomes[0].reason, outcomes[0].tries), (Some(Reason::ExitCode), 2));
    let (outcomes, _) = run(vec![check(2)], "60s");
    assert_eq!((outcomes[0].reason, outcomes[0].tries), (None, 1), "the third run of all");
}

#[test]
fn a_control_plane_that_is_not_installed_is_not_waited_for_hlt_34() {
    let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("units/checks.d");
    let config = crate::config::load(&[crate::config::source::Place::Given(shipped)], &SystemClock).unwrap();
    let missing = crate::systemd::UnitShow {
        load: "not-found".into(),
        active: "inactive".into(),
        sub: "dead".into(),
        restarts: None,
        active_since: None,
        result: None,
    };
    let systemd = Arc::new(crate::fakes::FakeSystemd::telling([Some(missing)]));
    let outcomes = run_all(&config, &Tools { systemd, ..Tools::of_this_machine() }, Duration::MAX);
    let (ralphd, others): (Vec<Outcome>, _) = outcomes.iter().cloned().partition(|outcome| outcome.name == "ralphd");
    assert_eq!(ralphd[0].reason, Some(Reason::UnitMissing));
    assert!(others.iter().all(|outcome| outcome.reason == Some(Reason::After)), "{others:?}");
    assert_eq!(crate::act::action(&outcomes, &config.policy), crate::config::Action::MarkBad);
    // What never began is no reason by itself.
    assert_eq!(crate::act::action(&others, &config.policy), crate::config::Action::Reboot);
}
