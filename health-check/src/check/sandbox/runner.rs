//! What runs a command in a fresh sandbox (SBX-20).

use std::time::Duration;

use sandbox::Limits;

use crate::check::http::client::AskError;
use crate::check::{Limit, Reason};
use crate::process::StartError;

/// What is to run in a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The command, by its path inside.
    pub command: Vec<String>,
    /// What it may use.
    pub limits: Limits,
    /// With `/dev/kvm`?
    pub kvm: bool,
}

/// A command that ran in a sandbox to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Its exit code; 128 and the signal if one ended it.
    pub exit: i32,
    /// What it printed; more than 64 KiB are never whole.
    pub stdout: Vec<u8>,
    /// What it complained of.
    pub stderr: Vec<u8>,
}

/// Why nothing ran, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The program that makes the sandbox does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// No sandbox could be made.
    #[error("no sandbox could be made: {0}")]
    NotMade(String),
    /// The runner itself died.
    #[error("what makes the sandbox was ended by signal {0}")]
    Died(i32),
    /// The time was over.
    #[error("not done within {} ms", within.as_millis())]
    Deadline {
        /// How long it had.
        within: Duration,
    },
    /// `ralphd` did not answer.
    #[error("asking ralphd for {path}")]
    Ask {
        /// What was asked for.
        path: &'static str,
        /// Why not.
        source: AskError,
    },
    /// `ralphd` answered with another status than it may.
    #[error("ralphd answered {path} with status {status}: {body}")]
    Status {
        /// What was asked for.
        path: &'static str,
        /// The status.
        status: u16,
        /// What it said, cleaned.
        body: String,
    },
    /// `ralphd` speaks another contract (HLT-4).
    #[error("ralphd's answer to {path} is not of contract 1: {body}")]
    Contract {
        /// What was asked for.
        path: &'static str,
        /// What it said, cleaned.
        body: String,
    },
    /// The answer is not what HLT-7 or HLT-8 say.
    #[error("ralphd's answer to {path} is not of the shape it must have")]
    Shape {
        /// What was asked for.
        path: &'static str,
        /// Why not.
        source: serde_json::Error,
    },
}

impl RunnerError {
    /// The reason of the check (HLT-27).
    pub fn reason(&self, limit: Limit) -> Reason {
        match self {
            Self::Start(error) if error.is_lasting() => Reason::CannotStart,
            Self::Deadline { .. } => limit.reason,
            Self::Contract { .. } => Reason::Contract,
            _ => Reason::Sandbox,
        }
    }
}

/// Makes sandboxes.
pub trait Runner {
    /// Who it is, for people.
    fn name(&self) -> &'static str;

    /// Runs the command in a fresh sandbox, and gives up after `within`; nothing of it is left then.
    fn run(&self, task: &Task, within: Duration) -> Result<Ran, RunnerError>;
}
