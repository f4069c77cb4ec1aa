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
