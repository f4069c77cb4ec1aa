//! The check kind `sandbox`: the smoke test (HLT-27, SBX-15). Who makes the sandboxes is a [`Runner`]; what is proven is the same.

mod own;
mod ralphd;
mod runner;
#[cfg(test)]
mod tests;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sandbox::{HostSockets, Limits, Question, Report};

use super::http::clean;
use super::{Finding, Limit, Reason};
use crate::config::{RunnerChoice, Sandbox};
use crate::process::{KEPT, tail};
use own::Own;
use ralphd::Ralphd;
use runner::{Ran, Runner, RunnerError, Task};

/// The program below `/usr`, outside and inside (SBX-10).
const PROGRAM: &str = "/usr/bin/ralph-sandbox";
/// HLT-4.
const STATUS_SOCKET: &str = "/run/ralphd/status.sock";

/// What is told of the detail of an assertion that held, in bytes: the whole list has to fit.
const HELD: usize = 60;

/// Where the makers of sandboxes are.
#[derive(Debug, Clone)]
pub struct Sandboxes {
    /// Our own program.
    pub program: PathBuf,
    /// The status socket of `ralphd`.
    pub socket: PathBuf,
}

impl Default for Sandboxes {
    fn default() -> Self {
        Self { program: PROGRAM.into(), socket: STATUS_SOCKET.into() }
    }
}

/// One smoke test.
pub fn run(check: &Sandbox, sandboxes: &Sandboxes, limit: Limit) -> Finding {
    let until = Instant::now() + limit.within;
    let own = Own { program: sandboxes.program.clone() };
    let ralphd = Ralphd { socket: sandboxes.socket.clone() };
    let offered = match check.runner {
        RunnerChoice::Own => Ok(false),
        RunnerChoice::Ralphd | RunnerChoice::Auto => ralphd.offered(limit.within),
    };
    let told = match (check.runner, offered) {
        (_, Err(error)) => Err(Failed::Runner(error)),
        (RunnerChoice::Ralphd, Ok(false)) => {
            Err(Failed::NoSandbox("ralphd offers no sandbox, and the check wants its".to_owned()))
        }
        (_, Ok(true)) => Smoke { check, runner: &ralphd, until }.run(Path::new("/")),
        (_, Ok(false)) => Smoke { check, runner: &own, until }.run(Path::new("/")),
    };
    told.unwrap_or_else(|failed| failed.finding(limit))
}

/// Why the smoke test fails.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Runner(#[from] RunnerError),
    #[error("{0}")]
    NoSandbox(String),
    #[error("cannot prepare the question for the probe")]
    Prepare(#[source] std::io::Error),
    #[error("{0}")]
    Wall(String, String),
    #[error("{0}")]
    Command(String, String),
}

impl Failed {
    fn finding(self, limit: Limit) -> Finding {
        let detail = crate::chain(&self);
        let (reason, output) = match self {
            Self::Runner(error) => (error.reason(limit), String::new()),
            Self::NoSandbox(_) | Self::Prepare(_) => (Reason::Sandbox, String::new()),
            Self::Wall(_, output) => (Reason::SandboxWall, output),
            Self::Command(_, output) => (Reason::SandboxCommand, output),
        };
        Finding { output, ..Finding::failed(reason, detail) }
    }
}

struct Smoke<'a> {
    check: &'a Sandbox,
    runner: &'a dyn Runner,
    until: Instant,
}

impl Smoke<'_> {
    /// Both sandboxes, then a look at the host below `root`.
    fn run(&self, root: &Path) -> Result<Finding, Failed> {
        // They listen until both sandboxes are gone.
        let sockets = HostSockets::listen().map_err(Failed::Prepare)?;
        let question =
            Question::new(Limits::SMOKE_TEST, &sockets, Vec::new(), self.check.kvm).map_err(Failed::Prepare)?;
        let list = self.both(&question);
        // Whatever else was found: the host is looked at.
        let marker = question.marker_on_host();
        let marker = root.join(marker.strip_prefix("/").unwrap_or(&marker));
        let outside = outside(&marker);
        let list = list?;
        outside.map_err(|why| Failed::Wall(format!("overlay: {why}"), list.clone()))?;
        let detail = format!("every wall holds, and the command ran as expected ({})", self.runner.name());
        Ok(Finding { output: list, ..Finding::passed(detail) })
    }

    /// The list of assertions, if they hold and the command did what was expected.
    fn both(&self, question: &Question) -> Result<String, Failed> {
        let ran = self.sandboxed(question.first_command(PROGRAM))?;
        let report = report(&ran, question)?;
        let list = list(&report);
        walls(&report, &list)?;

        let ran = self.sandboxed(question.second_command(PROGRAM, &self.check.command))?;
        // The probe speaks only if the marker is there; otherwise it has become the command.
        let second = Question { marker_must_be_absent: true, ..question.clone() };
        if let Ok(report) = Report::parse(&ran.stdout, &second.expected()) {
            walls(&report, &list)?;
        }
        let output = format!("{}{}", clean(&ran.stdout, KEPT / 2), clean(&ran.stderr, KEPT / 2));
        if ran.exit != self.check.exit {
            let why = format!("the command in the sandbox ended with {}, expected {}", ran.exit, self.check.exit);
            return Err(Failed::Command(why, output));
        }
        if self.check.output.as_ref().is_some_and(|expected| expected.as_bytes() != ran.stdout) {
            let expected = self.check.output.as_deref().unwrap_or_default();
            let why = format!(
                "the command in the sandbox printed {:?}, expected {:?}",
                clean(&ran.stdout, 200),
                clean(expected.as_bytes(), 200)
            );
            return Err(Failed::Command(why, output));
        }
        Ok(list)
    }

    fn sandboxed(&self, command: Vec<String>) -> Result<Ran, RunnerError> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left < Duration::from_millis(1) {
            return Err(RunnerError::Deadline { within: Duration::ZERO });
        }
        self.runner.run(&Task { command, limits: Limits::SMOKE_TEST, kvm: self.check.kvm }, left)
    }
}

/// The probe's report, if it proves something (SBX-13) and the exit code says the same (SBX-10).
fn report(ran: &Ran, question: &Question) -> Result<Report, Failed> {
    let said = clean(&ran.stderr, KEPT / 4);
    let invalid =
        |why: String| Failed::NoSandbox(format!("the probe said nothing valid: {why} {said}").trim().to_owned());
    let report = Report::parse(&ran.stdout, &question.expected())
        .map_err(|error| invalid(format!("it exited with {}; {}", ran.exit, crate::chain(&error))))?;
    let expected = i32::from(report.failed().next().is_some());
    if ran.exit != expected {
        return Err(invalid(format!("it exited with {}, and its report says {expected}", ran.exit)));
    }
    Ok(report)
}

fn walls(report: &Report, list: &str) -> Result<(), Failed> {
    let failed: Vec<String> =
        report.failed().map(|one| format!("{}: {}", one.name, clean(one.detail.as_bytes(), KEPT / 8))).collect();
    if failed.is_empty() { Ok(()) } else { Err(Failed::Wall(failed.join("; "), list.to_owned())) }
}

/// The assertions, a line each; those that do not hold last, where nothing is cut away.
fn list(report: &Report) -> String {
    let line = |held: bool, word: &str, most| -> String {
        let of = report.assertions.iter().filter(|one| one.held == held);
        of.map(|one| format!("{word} {}: {}\n", one.name, clean(one.detail.as_bytes(), most))).collect()
    };
    tail(&(line(true, "held", HELD) + &line(false, "NOT HELD", KEPT / 8)))
}

/// Is the marker outside? Then what a sandbox writes to `/usr` reaches the host; it is removed.
fn outside(marker: &Path) -> Result<(), String> {
    match marker.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(format!("whether {} is on the host is not known: {error}", marker.display())),
        Ok(_) => {
            let removed = std::fs::remove_file(marker).map_or_else(|error| error.to_string(), |()| "removed".into());
            Err(format!("{}, written in a sandbox, is on the host ({removed})", marker.display()))
        }
    }
}
