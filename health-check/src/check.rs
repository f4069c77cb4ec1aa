//! Running the checks (HLT-20): all at the same time, each with its deadline, none beyond the overall one.

mod command;
mod http;
mod order;
mod outcome;
mod path;
mod sandbox;
mod tries;
mod unit;

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::clock::{Clock, SystemClock};
use crate::config::{Check, Config, Kind, Level};
use crate::policy::Required;
use crate::systemd::{Systemctl, Systemd};
pub use http::{client as http_client, judge as judge_http};
use order::Board;
pub use outcome::{Finding, Outcome, Reason};
pub use sandbox::Sandboxes;
#[cfg(test)]
pub use unit::Seen;

/// Name of the check that fails when the configuration does (HLT-13).
pub const CONFIGURATION: &str = "configuration";
/// Name of the check that fails when a trial cannot be committed (HLT-31).
pub const COMMIT: &str = "commit";
/// Name of the check that fails when the system came up in emergency or rescue mode (HLT-64).
pub const EMERGENCY: &str = "emergency";
/// Name of the check that fails when the trial was to be marked bad before, and a cut let it boot once more (HLT-32).
pub const MARKED: &str = "marked-bad";
/// A name kept for what is said of the soak (HLT-35).
pub const SOAK: &str = "soak";

/// How long after the overall deadline a check may take to say that it was ended.
const GRACE: Duration = Duration::from_secs(5);

/// How long all units together may take to answer when they are asked again.
pub const AGAIN: Duration = Duration::from_secs(30);

/// Did every required check pass? Of none at all, none has passed (HLT-10).
pub fn required(outcomes: &[Outcome]) -> Required {
    let mut required = outcomes.iter().filter(|outcome| outcome.level == Level::Required).peekable();
    if required.peek().is_some() && required.all(|outcome| outcome.passed) {
        Required::AllPassed
    } else {
        Required::OneFailed
    }
}

/// Right before a commit: the checks ended up to an hour ago, so each required unit is asked once more whether the run that passed still
/// lasts. A unit of which that is not so has failed (HLT-23).
pub fn ask_again(outcomes: &mut [Outcome], systemd: &dyn Systemd, clock: &dyn Clock, within: Duration) {
    let until = clock.monotonic().saturating_add(within);
    for outcome in outcomes.iter_mut().filter(|outcome| outcome.level == Level::Required && outcome.passed) {
        let Some(seen) = &outcome.seen else { continue };
        if let Err(why) = unit::still(seen, until, systemd, clock) {
            (outcome.passed, outcome.reason, outcome.detail) = (false, Some(Reason::UnitChanged), why);
        }
    }
}

/// What the checks need of the machine.
#[derive(Clone)]
pub struct Tools {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Units.
    pub systemd: Arc<dyn Systemd>,
    /// Who makes sandboxes.
    pub sandboxes: Sandboxes,
}

impl Tools {
    /// Those of this machine.
    pub fn of_this_machine() -> Self {
        Self { clock: Arc::new(SystemClock), systemd: Arc::new(Systemctl), sandboxes: Sandboxes::default() }
    }
}

/// Which deadline a check has.
#[derive(Debug, Clone, Copy)]
struct Limit {
    within: Duration,
    /// What is said when it has passed: [`Reason::Deadline`] or [`Reason::OverallDeadline`].
    reason: Reason,
}

impl Limit {
    fn of(check: &Check, overall: Duration) -> Self {
        let own = check.deadline.duration();
        if own <= overall {
            Self { within: own, reason: Reason::Deadline }
        } else {
            Self { within: overall, reason: Reason::OverallDeadline }
        }
    }
}

/// Runs all checks; the outcomes come in the order of the configuration. Returns at the latest a few seconds after the overall
/// deadline, also if a check is stuck in the kernel. The caller may have less time than the configuration gives: `budget` (HLT-36).
pub fn run_all(config: &Config, tools: &Tools, budget: Duration) -> Vec<Outcome> {
    let overall = config.policy.overall_deadline.duration().min(budget);
    let begin = Instant::now();
    let board = Arc::new(Board::new(&config.checks));
    let (sender, receiver) = mpsc::channel();
    let mut outcomes: Vec<Option<Outcome>> = Vec::new();
    for (index, check) in config.checks.iter().enumerate() {
        let (sender, tools, owned, of_all) = (sender.clone(), tools.clone(), check.clone(), board.clone());
        let body = move || {
            let outcome = run_one(&owned, begin + overall, &of_all, &tools);
            of_all.ended(index, outcome.passed);
            // Nobody listens any more once the overall deadline has passed.
            let _ = sender.send((index, outcome));
        };
        let started = thread::Builder::new().name(format!("check-{}", check.name)).spawn(body);
        outcomes.push(started.err().map(|error| {
            board.ended(index, false);
            // Not `cannot-start`: that would say that the next boot shows it again (HLT-34).
            let detail = format!("it never began: cannot start a thread: {error}");
            Outcome::of(check, Duration::ZERO, 0, Finding::failed(Reason::Deadline, detail))
        }));
    }
    drop(sender);
    let until = begin + overall + GRACE;
    while outcomes.iter().any(Option::is_none) {
        match receiver.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok((index, outcome)) => outcomes[index] = Some(outcome),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    let stuck = |check| {
        let detail = "the overall deadline passed and the check could not be ended".to_owned();
        Outcome::of(check, begin.elapsed(), 1, Finding::failed(Reason::OverallDeadline, detail))
    };
    config.checks.iter().zip(outcomes).map(|(check, outcome)| outcome.unwrap_or_else(|| stuck(check))).collect()
}

/// One check, from its turn (HLT-25) to its end.
fn run_one(check: &Check, overall: Instant, board: &Board, tools: &Tools) -> Outcome {
    if let Err(finding) = board.wait_for_turn(check, overall) {
        return Outcome::of(check, Duration::ZERO, 0, *finding);
    }
    let begin = Instant::now();
    let limit = Limit::of(check, overall.saturating_duration_since(begin));
    let (finding, tries) = tries::run(check, limit, tools.clock.as_ref(), |limit| match &check.kind {
        Kind::Unit { unit, stable_for } => unit::run(unit, stable_for.duration(), limit, tools),
        Kind::Command { program, args } => command::run(program, args, limit),
        Kind::Http(http) => http::run(http, limit),
        Kind::Sandbox(sandbox) => sandbox::run(sandbox, &tools.sandboxes, limit),
        Kind::Path(path) => path::run(path, limit),
    });
    Outcome::of(check, begin.elapsed(), tries, finding)
}

#[cfg(test)]
mod tests;
