//! Running the checks (HLT-20): all at the same time, each with its deadline, none beyond the overall one.

mod command;
mod unit;

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};

use crate::clock::{Clock, SystemClock};
use crate::config::{Check, Config, Kind, Level};
use crate::policy::Required;
use crate::systemd::{Systemctl, Systemd};
pub use unit::Seen;

/// Name of the check that fails when the configuration does (HLT-13).
pub const CONFIGURATION: &str = "configuration";
/// Name of the check that fails when a trial cannot be committed (HLT-31).
pub const COMMIT: &str = "commit";
/// Name of the check that fails when the system came up in emergency or rescue mode (HLT-64).
pub const EMERGENCY: &str = "emergency";
/// A name kept for what is said of the soak (HLT-35).
pub const SOAK: &str = "soak";

/// How long after the overall deadline a check may take to say that it was ended.
const GRACE: Duration = Duration::from_secs(5);

/// How long all units together may take to answer when they are asked again.
const AGAIN: Duration = Duration::from_secs(30);

/// Why a check failed: stable words, for programs and evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Its deadline passed.
    Deadline,
    /// The overall deadline passed.
    OverallDeadline,
    /// The command exited with another code than 0.
    ExitCode,
    /// The command was ended by a signal.
    Signal,
    /// The command, or what runs the check, could not be started.
    CannotStart,
    /// The unit has failed.
    UnitFailed,
    /// There is no such unit, or it cannot be loaded.
    UnitMissing,
    /// The unit passed, and did not stay so until the commit.
    UnitChanged,
    /// A check that this one comes after has failed (HLT-25).
    After,
    /// Nobody answers at the address or socket (HLT-26).
    CannotConnect,
    /// The answer has another status than the one expected.
    HttpStatus,
    /// The answer is no HTTP, too large, cut or too slow.
    HttpAnswer,
    /// The answer is not JSON, or does not hold what it must.
    Json,
    /// The answer speaks another contract than ours (HLT-4).
    Contract,
    /// No sandbox could be made, or its probe said nothing valid (HLT-27).
    Sandbox,
    /// A wall of the sandbox does not hold.
    SandboxWall,
    /// The trivial command in the sandbox did not do what was expected.
    SandboxCommand,
    /// A file or directory is not as it must be (HLT-28).
    Path,
    /// The configuration holds an error.
    Configuration,
    /// The slot could not be committed.
    Commit,
    /// The system came up in emergency or rescue mode (HLT-64).
    Emergency,
}

impl Reason {
    /// Will the next boot show the same (HLT-34)? Such a failure is not tried again.
    pub fn is_deterministic(self) -> bool {
        matches!(self, Self::Configuration | Self::UnitMissing | Self::CannotStart | Self::Contract)
    }
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `None` if it passed.
    pub failed: Option<Reason>,
    /// One line for people.
    pub detail: String,
    /// The last output of a command.
    pub output: String,
    /// What the answer held at the pointer `record`.
    pub recorded: Option<String>,
    /// The run of a unit that passed.
    pub seen: Option<Seen>,
}

impl Finding {
    fn passed(detail: String) -> Self {
        Self { failed: None, detail, output: String::new(), recorded: None, seen: None }
    }

    fn failed(reason: Reason, detail: String) -> Self {
        Self { failed: Some(reason), ..Self::passed(detail) }
    }
}

/// A check that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// Required or wanted.
    pub level: Level,
    /// Passed or failed.
    #[serde(rename = "verdict", serialize_with = "verdict_word")]
    pub passed: bool,
    /// How long it took.
    pub milliseconds: u64,
    /// How often it was tried: 0 if it never began.
    pub tries: u32,
    /// Why it failed; `None` if it passed.
    pub reason: Option<Reason>,
    /// One line for people.
    pub detail: String,
    /// The last output of a command, at most 2 KiB.
    pub output: String,
    /// What the answer held at the pointer `record` (HLT-26).
    pub recorded: Option<String>,
    /// The run of a unit that passed, to be compared before the commit.
    #[serde(skip)]
    pub seen: Option<Seen>,
}

fn verdict_word<S: Serializer>(passed: &bool, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(if *passed { "passed" } else { "failed" })
}

impl Outcome {
    fn of(check: &Check, took: Duration, tries: u32, finding: Finding) -> Self {
        Self {
            name: check.name.clone(),
            level: check.level,
            passed: finding.failed.is_none(),
            milliseconds: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            tries,
            reason: finding.failed,
            detail: finding.detail,
            output: finding.output,
            recorded: finding.recorded,
            seen: finding.seen,
        }
    }

    /// Is this why a trial fails?
    pub fn fails_the_trial(&self) -> bool {
        self.level == Level::Required && !self.passed
    }

    /// A required check of our own that failed.
    pub fn own_failure(name: &str, reason: Reason, detail: String) -> Self {
        Self {
            name: name.to_owned(),
            level: Level::Required,
            passed: false,
            milliseconds: 0,
            tries: 1,
            reason: Some(reason),
            detail,
            output: String::new(),
            recorded: None,
            seen: None,
        }
    }
}

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
pub fn ask_again(outcomes: &mut [Outcome], systemd: &dyn Systemd, clock: &dyn Clock) {
    let until = clock.monotonic().saturating_add(AGAIN);
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
}

impl Tools {
    /// Those of this machine.
    pub fn of_this_machine() -> Self {
        Self { clock: Arc::new(SystemClock), systemd: Arc::new(Systemctl) }
    }
}

/// Which deadline a check has.
#[derive(Debug, Clone, Copy)]
struct Limit {
    within: Duration,
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
    let (sender, receiver) = mpsc::channel();
    let mut outcomes: Vec<Option<Outcome>> = Vec::new();
    for (index, check) in config.checks.iter().enumerate() {
        let (sender, tools, owned) = (sender.clone(), tools.clone(), check.clone());
        let body = move || {
            let outcome = run_one(&owned, Limit::of(&owned, overall), &tools);
            // Nobody listens any more once the overall deadline has passed.
            let _ = sender.send((index, outcome));
        };
        let started = thread::Builder::new().name(format!("check-{}", check.name)).spawn(body);
        outcomes.push(started.err().map(|error| {
            let detail = format!("cannot start a thread: {error}");
            Outcome::of(check, Duration::ZERO, 0, Finding::failed(Reason::CannotStart, detail))
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

fn run_one(check: &Check, limit: Limit, tools: &Tools) -> Outcome {
    let begin = Instant::now();
    let finding = match &check.kind {
        Kind::Unit { unit, stable_for } => unit::run(unit, stable_for.duration(), limit, tools),
        Kind::Command { program, args } => command::run(program, args, limit),
    };
    Outcome::of(check, begin.elapsed(), 1, finding)
}

#[cfg(test)]
mod tests;
