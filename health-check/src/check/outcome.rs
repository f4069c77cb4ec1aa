//! What a check comes to.

use std::time::Duration;

use serde::{Serialize, Serializer};

use super::unit::Seen;
use crate::config::{Check, Level};

/// Why a check failed: stable words, for programs and evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// It was to be marked bad before.
    MarkedBad,
    /// The boot guard was to mark it bad before, which says nothing against the system (UPD-42).
    GivenUp,
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
    /// The machine could not read the configuration; it may hold no error (HLT-13).
    ConfigurationUnread,
    /// The slot could not be committed.
    Commit,
    /// The system came up in emergency or rescue mode (HLT-64).
    Emergency,
}

impl Reason {
    /// Will the next boot show the same (HLT-34)? Such a failure is not tried again.
    pub fn is_deterministic(self) -> bool {
        matches!(
            self,
            Self::Configuration
                | Self::UnitMissing
                | Self::CannotStart
                | Self::Contract
                | Self::MarkedBad
                | Self::GivenUp
        )
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
    pub(super) fn passed(detail: String) -> Self {
        Self { failed: None, detail, output: String::new(), recorded: None, seen: None }
    }

    pub(super) fn failed(reason: Reason, detail: String) -> Self {
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
    pub(super) fn of(check: &Check, took: Duration, tries: u32, finding: Finding) -> Self {
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
