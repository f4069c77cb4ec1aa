//! The sandbox of `ralphd`, asked for over its status socket (HLT-7, HLT-8).

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::clean;
use super::runner::{Ran, Runner, RunnerError, Task};
use crate::check::http::client::{self, Answer, Request};
use crate::check::http::{TRY, speaks_our_contract};
use crate::config::Server;

const OFFER: &str = "/v1/sandbox";
const RUN: &str = "/v1/sandbox/run";
/// The contract we speak (HLT-4).
const CONTRACT: u32 = 1;
/// `ralphd` ends the command itself this long before we stop listening.
const LEEWAY: Duration = Duration::from_secs(3);
/// As SBX-21 has them: the deadline passed; no sandbox could be made.
const EXIT_DEADLINE: i32 = 124;
const EXIT_NO_SANDBOX: i32 = 125;
/// What is told of an answer, in bytes.
const TOLD: usize = 1024;

/// `ralphd`.
#[derive(Debug)]
pub struct Ralphd {
    /// Its status socket.
    pub socket: PathBuf,
}

#[derive(Deserialize)]
struct Offer {
    offered: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Ask<'a> {
    contract: u32,
    command: &'a [String],
    memory: u64,
    pids: u32,
    cpu_percent: u32,
    kvm: bool,
    deadline_ms: u64,
}

#[derive(Deserialize)]
struct Told {
    exit: i32,
    stdout: String,
    stderr: String,
}

#[derive(Deserialize)]
struct Refused {
    error: String,
}

impl Ralphd {
    /// Does it run commands in a sandbox of its own (HLT-7)?
    pub fn offered(&self, within: Duration) -> Result<bool, RunnerError> {
        let limited = within.min(TRY);
        let answer = self.ask(OFFER, None, limited)?;
        match answer.status {
            404 => Ok(false),
            200 => Ok(read::<Offer>(OFFER, &answer)?.offered),
            status => Err(RunnerError::Status { path: OFFER, status, body: clean(&answer.body, TOLD) }),
        }
    }

    fn ask(&self, path: &'static str, body: Option<&[u8]>, within: Duration) -> Result<Answer, RunnerError> {
        let request = Request { path, host: "localhost", body };
        client::ask(&Server::Unix(self.socket.clone()), &request, within)
            .map_err(|source| RunnerError::Ask { path, source })
    }
}

impl Runner for Ralphd {
    fn name(&self) -> &'static str {
        "ralphd"
    }

    fn run(&self, task: &Task, within: Duration) -> Result<Ran, RunnerError> {
        let deadline = within - LEEWAY.min(within / 4);
        let ask = Ask {
            contract: CONTRACT,
            command: &task.command,
            memory: task.limits.memory,
            pids: task.limits.pids,
            cpu_percent: task.limits.cpu_percent,
            kvm: task.kvm,
            deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX).max(1),
        };
        let body = serde_json::to_vec(&ask).map_err(|source| RunnerError::Shape { path: RUN, source })?;
        let answer = match self.ask(RUN, Some(&body), within) {
            Err(RunnerError::Ask { source, .. }) if source.is_timeout() => {
                return Err(RunnerError::Deadline { within });
            }
            answer => answer?,
        };
        match answer.status {
            200 => {
                let told: Told = read(RUN, &answer)?;
                match told.exit {
                    EXIT_DEADLINE => Err(RunnerError::Deadline { within: deadline }),
                    EXIT_NO_SANDBOX => Err(RunnerError::NotMade(clean(told.stderr.as_bytes(), TOLD).trim().to_owned())),
                    exit => Ok(Ran { exit, stdout: told.stdout.into_bytes(), stderr: told.stderr.into_bytes() }),
                }
            }
            500 => {
                let refused: Refused = read(RUN, &answer)?;
                Err(RunnerError::NotMade(clean(refused.error.as_bytes(), TOLD)))
            }
            status => Err(RunnerError::Status { path: RUN, status, body: clean(&answer.body, TOLD) }),
        }
    }
}

/// Reads an answer of our contract; nothing is concluded from another (HLT-4).
fn read<T: for<'a> Deserialize<'a>>(path: &'static str, answer: &Answer) -> Result<T, RunnerError> {
    let shape = |source| RunnerError::Shape { path, source };
    let document: Value = serde_json::from_slice(&answer.body).map_err(shape)?;
    if !speaks_our_contract(&document) {
        return Err(RunnerError::Contract { path, body: clean(&answer.body, TOLD) });
    }
    T::deserialize(document).map_err(shape)
}
