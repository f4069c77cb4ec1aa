//! How often the checks run, and for how long: once, or until they have held for the soak (HLT-35), and never past the guard's deadline (HLT-36).

use std::time::Duration;

use crate::check::{self, Outcome, Reason};
use crate::clock::Clock;
use crate::config::Policy;
use crate::guard::Watch;
use crate::policy::{Another, Booted, Facts, Required, Verdict, verdict};

/// Pause between two rounds (HLT-35).
const PAUSE: Duration = Duration::from_secs(5);
/// So much room a round of the soak has at least, unless the policy gives it less: rounds take milliseconds, and one try more takes seconds.
const ROOM: Duration = Duration::from_secs(30);
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
        let mut held: Option<Held> = None;
        loop {
            let (began, budget) = (self.clock.monotonic(), self.budget());
            let outcomes = checks(budget);
            let ended = self.clock.monotonic();
            if let Some(held) = held.take_if(|_| budget < overall && was_only_cut(&outcomes)) {
                // The guard left it no more time, which says nothing against what has held until now.
                let (so_long, soak) = (held.so_long.as_secs(), self.policy.soak.duration().as_secs());
                notes.push(format!(
                    "the boot guard waits for a verdict, and cut a round of the soak after {} s: the soak is {so_long} s instead of {soak} s",
                    ended.saturating_sub(began).as_secs()
                ));
                return held.outcomes;
            }
            let required = match check::required(&outcomes) {
                Required::AllPassed if self.goes_on(&mut held, &outcomes, (began, ended), notes) => Required::Pending,
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

    /// After a round that passed: is there another one, because the soak is not over and the guard leaves the time? None is begun that is
    /// likely not to end. Only what may be committed soaks.
    fn goes_on(
        &self,
        held: &mut Option<Held>,
        outcomes: &[Outcome],
        (began, ended): (Duration, Duration),
        notes: &mut Vec<String>,
    ) -> bool {
        let soak = self.policy.soak.duration();
        if soak.is_zero() || !crate::policy::may_be_committed(self.booted) {
            return false;
        }
        let took = ended.saturating_sub(began);
        let held = match held {
            None => held.insert(Held { since: ended, ..Held::default() }),
            Some(held) => {
                held.longest = held.longest.max(took);
                held
            }
        };
        held.so_long = began.saturating_sub(held.since);
        if held.so_long >= soak {
            return false;
        }
        let room = held.room().max(ROOM.min(self.policy.overall_deadline.duration()));
        let next_ends = ended.saturating_add(PAUSE).saturating_add(room);
        let fits = self.verdict_by.is_none_or(|by| next_ends <= by);
        if fits {
            held.outcomes = outcomes.to_vec();
        } else {
            let (held, soak) = (held.so_long.as_secs(), soak.as_secs());
            notes.push(format!("the boot guard waits for a verdict: the soak is {held} s instead of {soak} s"));
        }
        fits
    }
}

/// Did required checks fail for nothing but that the round's time was over? One that comes after such a check never began.
fn was_only_cut(outcomes: &[Outcome]) -> bool {
    let mut failed = outcomes.iter().filter(|outcome| outcome.fails_the_trial()).map(|outcome| outcome.reason);
    check::required(outcomes) == Required::OneFailed
        && failed.all(|reason| matches!(reason, Some(Reason::OverallDeadline | Reason::After)))
}

/// The rounds that have passed, one after the other (HLT-35).
#[derive(Default)]
struct Held {
    /// The end of the first: the checks hold since then.
    since: Duration,
    /// From there to the begin of the last: so long they have held.
    so_long: Duration,
    /// How long the longest behind the first took. The first waits for the machine to come up, for units to be stable for as long as they must;
    /// the others wait for none of that.
    longest: Duration,
    /// What the last came to.
    outcomes: Vec<Outcome>,
}

impl Held {
    /// What the next round may take by what the others took: half as long again, for no two are alike.
    fn room(&self) -> Duration {
        self.longest.saturating_add(self.longest / 2)
    }
}

/// How long before the guard's end the verdict is to come.
fn margin(left: Duration) -> Duration {
    if left < MARGIN * 2 { left / 2 } else { MARGIN }
}
