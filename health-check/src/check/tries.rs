//! Trying a check again (HLT-24).

use super::{Finding, Limit, Reason};
use crate::clock::Clock;
use crate::config::Check;

/// Tries until one passes, the tries are used, the failure cannot change or the deadline is near; the last failure, and how many
/// tries there were. A try gets the time that is left.
pub fn run(check: &Check, limit: Limit, clock: &dyn Clock, mut once: impl FnMut(Limit) -> Finding) -> (Finding, u32) {
    let until = clock.monotonic().saturating_add(limit.within);
    let mut before: Option<Finding> = None;
    let mut tries = 0;
    let mut left = limit.within;
    loop {
        tries += 1;
        let finding = once(Limit { within: left, ..limit });
        let Some(reason) = finding.failed else { return (finding, tries) };
        if matches!(reason, Reason::Deadline | Reason::OverallDeadline) {
            // A try that was cut says less than one that ran to its end.
            let told = before.map(|last| Finding {
                detail: format!("{}; try {tries} was ended by the deadline", last.detail),
                ..last
            });
            return (told.unwrap_or(finding), tries);
        }
        let interval = check.interval.duration();
        left = until.saturating_sub(clock.monotonic());
        if reason.is_deterministic() || check.tries.is_some_and(|most| tries >= most) || left <= interval {
            return (finding, tries);
        }
        before = Some(finding);
        clock.sleep(interval);
        left = until.saturating_sub(clock.monotonic());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Kind, Level};
    use crate::fakes::FakeClock;
    use crate::span::Span;
    use std::time::Duration;

    fn check(tries: Option<u32>, interval: u64) -> Check {
        Check {
            name: "x".into(),
            level: Level::Required,
            deadline: Span::seconds(60),
            tries,
            interval: Span::seconds(interval),
            after: Vec::new(),
            kind: Kind::Command { program: "/x".into(), args: Vec::new() },
        }
    }

    /// Runs a story of findings, each of which takes two seconds; the last one goes on for ever.
    fn story(check: &Check, story: &[Option<Reason>]) -> (Finding, u32, u64) {
        let clock = FakeClock::at(Duration::from_secs(100));
        let limit = Limit { within: Duration::from_secs(60), reason: Reason::Deadline };
        let mut next = 0;
        let (finding, tries) = run(check, limit, &clock, |limit| {
            assert!(limit.within <= Duration::from_secs(60) && !limit.within.is_zero());
            clock.sleep(Duration::from_secs(2).min(limit.within));
            let failed = story[next.min(story.len() - 1)];
            next += 1;
            Finding { failed, ..Finding::passed(format!("story {next}")) }
        });
        (finding, tries, clock.monotonic().as_secs() - 100)
    }

    const FAILS: Option<Reason> = Some(Reason::ExitCode);

    #[test]
    fn until_the_tries_are_used_hlt_24() {
        let (finding, tries, took) = story(&check(Some(3), 5), &[FAILS]);
        assert_eq!((finding.failed, tries, took), (FAILS, 3, 3 * 2 + 2 * 5));
        assert_eq!(finding.detail, "story 3", "the last failure is told");
        let (finding, tries, took) = story(&check(Some(1), 5), &[FAILS]);
        assert_eq!((finding.failed, tries, took), (FAILS, 1, 2));
    }

    #[test]
    fn until_one_passes_hlt_24() {
        let (finding, tries, took) = story(&check(Some(9), 5), &[FAILS, FAILS, None]);
        assert_eq!((finding.failed, tries, took), (None, 3, 16));
    }

    #[test]
    fn as_often_as_the_deadline_allows_hlt_24() {
        let (finding, tries, took) = story(&check(None, 8), &[FAILS]);
        assert_eq!((finding.failed, tries, took), (FAILS, 6, 52), "after 60 s there would be no time for another");
    }

    #[test]
    fn what_cannot_change_is_not_tried_again_hlt_24_hlt_34() {
        for reason in [Reason::CannotStart, Reason::Contract, Reason::UnitMissing] {
            let (finding, tries, _) = story(&check(None, 1), &[Some(reason)]);
            assert_eq!((finding.failed, tries), (Some(reason), 1));
        }
        let (finding, tries, _) = story(&check(None, 1), &[FAILS, Some(Reason::Contract)]);
        assert_eq!((finding.failed, tries), (Some(Reason::Contract), 2));
    }

    #[test]
    fn a_try_that_the_deadline_cuts_hides_no_earlier_failure() {
        let (finding, tries, _) = story(&check(Some(5), 1), &[FAILS, Some(Reason::Deadline)]);
        assert_eq!((finding.failed, tries), (FAILS, 2));
        assert_eq!(finding.detail, "story 1; try 2 was ended by the deadline");
        let (finding, tries, _) = story(&check(Some(5), 1), &[Some(Reason::OverallDeadline)]);
        assert_eq!((finding.failed, tries), (Some(Reason::OverallDeadline), 1));
    }
}
