//! Stories of units, against a clock that jumps (HLT-1, HLT-2, HLT-22).

use std::sync::Arc;

use super::*;
use crate::fakes::{FakeClock, FakeSystemd};
use crate::systemd::SystemdError;

const STABLE: Duration = Duration::from_secs(5);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn unit(active: &str, sub: &str, since: Option<u64>, restarts: u32) -> Option<UnitShow> {
    Some(UnitShow {
        load: "loaded".into(),
        active: active.into(),
        sub: sub.into(),
        restarts: Some(restarts),
        active_since: since.map(secs),
        result: Some("exit-code".into()),
    })
}

/// The finding, and the seconds it took; the story begins 100 s after boot and the deadline is 60 s.
fn judge(story: Vec<Option<UnitShow>>) -> (Finding, Duration) {
    let clock = Arc::new(FakeClock::at(secs(100)));
    let tools =
        Tools { clock: clock.clone(), systemd: Arc::new(FakeSystemd::telling(story)), ..Tools::of_this_machine() };
    let limit = Limit { within: secs(60), reason: Reason::Deadline };
    let finding = run("ralphd.service", STABLE, limit, &tools);
    (finding, clock.monotonic() - secs(100))
}

#[test]
fn one_that_has_long_been_active_passes_at_once() {
    let (finding, took) = judge(vec![unit("active", "running", Some(90), 3)]);
    assert_eq!((finding.failed, took), (None, secs(0)), "{finding:?}");
}

#[test]
fn one_that_has_just_become_active_is_waited_for() {
    let (finding, took) = judge(vec![
        unit("activating", "start", None, 0),
        unit("activating", "start", None, 0),
        unit("active", "running", Some(101), 0),
    ]);
    assert_eq!((finding.failed, took), (None, secs(6)), "active from 101 s to 106 s: {finding:?}");
}

#[test]
fn a_restart_begins_the_wait_anew_hlt_2() {
    let (finding, took) = judge(vec![
        unit("active", "running", Some(98), 0),
        unit("activating", "auto-restart", Some(98), 0),
        unit("active", "running", Some(104), 1),
    ]);
    assert_eq!((finding.failed, took), (None, secs(9)), "{finding:?}");
}

#[test]
fn a_restart_that_nobody_saw_begins_the_wait_anew_too_hlt_2() {
    // The counter grew between two looks, the time did not move (or is not known).
    let (finding, took) = judge(vec![unit("active", "running", Some(97), 0), unit("active", "running", Some(97), 1)]);
    assert_eq!((finding.failed, took), (None, Duration::from_millis(5500)), "{finding:?}");
}

#[test]
fn one_that_never_stays_up_meets_its_deadline() {
    let mut story = Vec::new();
    for n in 0..200 {
        story.push(unit("active", "running", Some(100 + u64::from(n)), n));
        story.push(unit("activating", "auto-restart", None, n));
    }
    let (finding, took) = judge(story);
    assert_eq!((finding.failed, took), (Some(Reason::Deadline), secs(60)), "{finding:?}");
    assert!(finding.detail.contains("ralphd.service is"), "{}", finding.detail);
}

#[test]
fn one_that_is_never_ready_meets_its_deadline_and_says_what_it_was() {
    let (finding, took) = judge(vec![unit("activating", "start", None, 0)]);
    assert_eq!((finding.failed, took), (Some(Reason::Deadline), secs(60)));
    assert_eq!(finding.detail, "not passed within 60000 ms: ralphd.service is activating (start)");
    // Nothing is concluded from a state that is not `active` (HLT-1).
    for active in ["inactive", "deactivating", "reloading", "maintenance", "refreshing"] {
        assert_eq!(judge(vec![unit(active, "?", Some(1), 0)]).0.failed, Some(Reason::Deadline), "{active}");
    }
}

#[test]
fn one_that_has_failed_fails_at_once() {
    let (finding, took) = judge(vec![unit("failed", "failed", Some(99), 0)]);
    assert_eq!((finding.failed, took), (Some(Reason::UnitFailed), secs(0)));
    assert_eq!(finding.detail, "ralphd.service has failed: exit-code");
    let (finding, took) = judge(vec![unit("active", "running", Some(99), 0), unit("failed", "failed", Some(99), 0)]);
    assert_eq!((finding.failed, took), (Some(Reason::UnitFailed), Duration::from_millis(500)));
}

#[test]
fn one_that_is_being_restarted_is_waited_for_also_when_it_looks_failed() {
    let (finding, _) =
        judge(vec![unit("failed", "failed-before-auto-restart", Some(99), 0), unit("active", "running", Some(101), 1)]);
    assert_eq!(finding.failed, None, "{finding:?}");
}

#[test]
fn one_that_does_not_exist_or_cannot_be_loaded_fails_at_once() {
    for load in ["not-found", "masked", "bad-setting"] {
        let mut show = unit("inactive", "dead", None, 0).unwrap();
        show.load = load.into();
        let (finding, took) = judge(vec![Some(show)]);
        assert_eq!((finding.failed, took), (Some(Reason::UnitMissing), secs(0)), "{load}");
    }
}

#[test]
fn a_systemd_that_does_not_answer_is_asked_again() {
    let (finding, took) = judge(vec![None, None, unit("active", "running", Some(50), 0)]);
    assert_eq!((finding.failed, took), (None, secs(1)), "{finding:?}");
    let (finding, took) = judge(vec![None]);
    assert_eq!((finding.failed, took), (Some(Reason::Deadline), secs(60)));
    assert!(finding.detail.ends_with("systemctl exited with code 1: no bus"), "{}", finding.detail);
}

/// A systemd whose answers are as old as they took.
struct Slow(Arc<FakeClock>, FakeSystemd);

impl Systemd for Slow {
    fn show(&self, unit: &str, within: Duration) -> Result<UnitShow, SystemdError> {
        let answer = self.1.show(unit, within);
        self.0.sleep(secs(4));
        answer
    }
}

#[test]
fn the_time_an_answer_takes_is_no_time_of_being_active_hlt_22() {
    let clock = Arc::new(FakeClock::at(secs(100)));
    let story = FakeSystemd::telling([unit("active", "running", Some(98), 0), unit("failed", "failed", Some(98), 0)]);
    let tools = Tools { clock: clock.clone(), systemd: Arc::new(Slow(clock, story)), ..Tools::of_this_machine() };
    let finding = run("ralphd.service", STABLE, Limit { within: secs(60), reason: Reason::Deadline }, &tools);
    assert_eq!(finding.failed, Some(Reason::UnitFailed), "{finding:?}");
}

#[test]
fn what_passed_is_remembered_with_its_run_hlt_23() {
    let seen = judge(vec![unit("active", "running", Some(90), 3)]).0.seen;
    let expected = Seen { unit: "ralphd.service".into(), active_since: Some(secs(90)), restarts: Some(3) };
    assert_eq!(seen, Some(expected));
    assert_eq!(judge(vec![unit("failed", "failed", Some(90), 3)]).0.seen, None);
}

#[test]
fn without_a_time_the_wait_begins_when_it_is_first_seen() {
    let (finding, took) = judge(vec![unit("active", "running", None, 0)]);
    assert_eq!((finding.failed, took), (None, secs(5)), "{finding:?}");
}

#[test]
fn a_time_in_the_future_is_no_proof() {
    let (finding, took) = judge(vec![unit("active", "running", Some(120), 0)]);
    assert_eq!((finding.failed, took), (None, secs(25)), "{finding:?}");
}
