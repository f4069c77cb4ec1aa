//! How often the checks run, and for how long: once, or until they have held for the soak (HLT-35), and never past the guard's deadline (HLT-36).

use std::time::Duration;

use crate::check::{self, Outcome};
use crate::clock::Clock;
use crate::config::Policy;
use crate::guard::Watch;
use crate::policy::{Another, Booted, Facts, Required, Verdict, verdict};

/// Pause between two rounds (HLT-35).
const PAUSE: Duration = Duration::from_secs(5);
/// The verdict comes this long before the guard would end the boot, if there is as much.
const MARGIN: Duration = Duration::from_secs(60);

/// The time there is.
#[derive(Clone, Copy)]
pub struct Rounds<'a> {
    clock: &'a dyn Clock,
    policy: Policy,
    /// As far as is known before the checks.
    booted: Booted,
    /// On the monotonic clock, if somebody waits for the verdict.
    verdict_by: Option<Duration>,
}

impl<'a> Rounds<'a> {
    /// From now on; the guard has given its answer at the time `asked`.
    pub fn new(clock: &'a dyn Clock, policy: Policy, booted: Booted, watch: &Watch, asked: Duration) -> Self {
        let verdict_by = watch.left().map(|left| asked.saturating_add(left - margin(left)));
        Self { clock, policy, booted, verdict_by }
    }

    /// Runs the checks until their outcomes are final: those of the last round.
    pub fn run(&self, checks: &mut dyn FnMut(Duration) -> Vec<Outcome>, notes: &mut Vec<String>) -> Vec<Outcome> {
        let overall = self.policy.overall_deadline.duration();
        if self.budget() < overall {
            let (left, overall) = (self.budget().as_secs(), overall.as_secs());
            notes.push(format!("the boot guard waits for a verdict: the checks have {left} s instead of {overall} s"));
        }
        let (mut longest, mut until) = (Duration::ZERO, None);
        loop {
            let began = self.clock.monotonic();
            let outcomes = checks(self.budget());
            let now = self.clock.monotonic();
            longest = longest.max(now.saturating_sub(began));
            let until = *until.get_or_insert_with(|| self.soak_ends(now, longest, notes));
            let required = match check::required(&outcomes) {
                Required::AllPassed if until.is_some_and(|until| began < until) => Required::Pending,
                other => other,
            };
            let facts = Facts { booted: self.booted, required, another: Another::No, action: self.policy.on_failure };
            if verdict(facts) != Verdict::KeepTrying {
                return outcomes;
            }
            self.clock.sleep(PAUSE);
        }
    }

    /// What one round may take.
    fn budget(&self) -> Duration {
        let overall = self.policy.overall_deadline.duration();
        self.verdict_by.map_or(overall, |by| overall.min(by.saturating_sub(self.clock.monotonic())))
    }

    /// When the soak is over, if there is one. It is for what may be committed; a round that has begun by then must have the time to end.
    fn soak_ends(&self, now: Duration, longest: Duration, notes: &mut Vec<String>) -> Option<Duration> {
        let soak = self.policy.soak.duration();
        if soak.is_zero() || !crate::policy::may_be_committed(self.booted) {
            return None;
        }
        let wanted = now.saturating_add(soak);
        let possible = self.verdict_by.map_or(wanted, |by| by.saturating_sub(longest * 2 + PAUSE));
        if possible < wanted {
            let seconds = possible.saturating_sub(now).as_secs();
            notes.push(format!(
                "the boot guard waits for a verdict: the soak is {seconds} s instead of {} s",
                soak.as_secs()
            ));
        }
        (possible > now).then(|| possible.min(wanted))
    }
}

/// How long before the guard's end the verdict is to come.
fn margin(left: Duration) -> Duration {
    if left < MARGIN * 2 { left / 2 } else { MARGIN }
}
