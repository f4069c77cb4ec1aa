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
        let mut held = None;
        loop {
            let began = self.clock.monotonic();
            let outcomes = checks(self.budget());
            let ended = self.clock.monotonic();
            let required = match check::required(&outcomes) {
                Required::AllPassed if self.goes_on(&mut held, began, ended, notes) => Required::Pending,
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

    /// After a round that passed: is there another one, because the soak is not over and the guard leaves the time? A round that it cut short
    /// would fail the trial, so none is begun that might not end. Only what may be committed soaks.
    fn goes_on(&self, held: &mut Option<Held>, began: Duration, ended: Duration, notes: &mut Vec<String>) -> bool {
        let soak = self.policy.soak.duration();
        if soak.is_zero() || !crate::policy::may_be_committed(self.booted) {
            return false;
        }
        let took = ended.saturating_sub(began);
        let held = match held {
            None => held.insert(Held { since: ended, first: took, longest_later: None }),
            Some(held) => {
                held.longest_later = Some(held.longest_later.unwrap_or_default().max(took));
                held
            }
        };
        let so_long = began.saturating_sub(held.since);
        if so_long >= soak {
            return false;
        }
        let next_ends = ended.saturating_add(PAUSE).saturating_add(held.room());
        let fits = self.verdict_by.is_none_or(|by| next_ends <= by);
        if !fits {
            let (held, soak) = (so_long.as_secs(), soak.as_secs());
            notes.push(format!("the boot guard waits for a verdict: the soak is {held} s instead of {soak} s"));
        }
        fits
    }
}

/// The rounds that have passed, one after the other (HLT-35).
struct Held {
    /// The end of the first: the checks hold since then.
    since: Duration,
    /// How long the first took. It waits for the machine to come up, for units to be stable for as long as they must.
    first: Duration,
    /// The longest of the others, which wait for none of that.
    longest_later: Option<Duration>,
}

impl Held {
    /// What the next round may take: half as long again as the longest so far, for no two are alike. The first round tells only as long as
    /// there is no other.
    fn room(&self) -> Duration {
        let longest = self.longest_later.unwrap_or(self.first);
        longest.saturating_add(longest / 2)
    }
}

/// How long before the guard's end the verdict is to come.
fn margin(left: Duration) -> Duration {
    if left < MARGIN * 2 { left / 2 } else { MARGIN }
}
