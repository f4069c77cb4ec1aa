//! Our own sandbox: the program `ralph-sandbox` (SBX-21).

use std::path::PathBuf;
use std::time::Duration;

use super::clean;
use super::runner::{Ran, Runner, RunnerError, Task};
use crate::process::{self, End};

/// It ends the command itself this long before we would end it, and takes the sandbox's cgroup away.
const LEEWAY: Duration = Duration::from_secs(3);
/// The deadline passed (SBX-21).
const EXIT_DEADLINE: i32 = 124;
/// No sandbox could be made (SBX-21).
const EXIT_NO_SANDBOX: i32 = 125;
/// What is told of why not, in bytes.
const TOLD: usize = 1024;

/// `ralph-sandbox run`.
#[derive(Debug)]
pub struct Own {
    /// The program.
    pub program: PathBuf,
}

impl Runner for Own {
    fn name(&self) -> &'static str {
        "ralph-sandbox"
    }

    fn run(&self, task: &Task, within: Duration) -> Result<Ran, RunnerError> {
        let deadline = within - LEEWAY.min(within / 4);
        let ended = process::run_apart(&self.program, &arguments(task, deadline), within)?;
        match ended.end {
            End::Deadline | End::Code(EXIT_DEADLINE) => Err(RunnerError::Deadline { within: deadline }),
            End::Code(EXIT_NO_SANDBOX) => Err(RunnerError::NotMade(clean(&ended.stderr, TOLD).trim().to_owned())),
            End::Code(exit) => Ok(Ran { exit, stdout: ended.stdout, stderr: ended.stderr }),
            End::Signal(signal) => Err(RunnerError::Died(signal)),
        }
    }
}

fn arguments(task: &Task, deadline: Duration) -> Vec<String> {
    let limits = task.limits;
    let mut words = vec!["run".to_owned()];
    for (option, value) in [
        ("--memory", limits.memory.to_string()),
        ("--pids", limits.pids.to_string()),
        ("--cpu", limits.cpu_percent.to_string()),
        ("--deadline", deadline.as_millis().max(1).to_string()),
    ] {
        words.extend([option.to_owned(), value]);
    }
    if task.kvm {
        words.push("--kvm".to_owned());
    }
    words.push("--".to_owned());
    words.extend_from_slice(&task.command);
    words
}
