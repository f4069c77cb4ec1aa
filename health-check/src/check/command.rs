//! The check kind `command` (HLT-21).

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::{Finding, Limit, Reason};
use crate::process::{self, End, StartError};

/// Pause before a program is started again for which the machine had no room.
const PAUSE: Duration = Duration::from_millis(500);

/// Runs the command; it passes when it exits 0.
pub fn run(program: &Path, args: &[String], limit: Limit) -> Finding {
    let ended = match start(limit, |within| process::run(program, args, within)) {
        Ok(ended) => ended,
        Err(finding) => return *finding,
    };
    let (failed, detail) = match ended.end {
        End::Code(0) => (None, "exited with code 0".to_owned()),
        End::Code(code) => (Some(Reason::ExitCode), format!("exited with code {code}")),
        End::Signal(signal) => (Some(Reason::Signal), format!("ended by signal {signal}")),
        End::Deadline => {
            (Some(limit.reason), format!("still ran after {} ms and was killed", limit.within.as_millis()))
        }
    };
    Finding { failed, output: ended.output, ..Finding::passed(detail) }
}

/// Runs a program. That it does not exist or cannot be executed will not change (HLT-34); that the machine has no room for it just now may,
/// and is waited for.
pub fn start<T>(limit: Limit, run: impl Fn(Duration) -> Result<T, StartError>) -> Result<T, Box<Finding>> {
    let until = Instant::now() + limit.within;
    let mut left = limit.within;
    loop {
        match run(left) {
            Ok(ended) => return Ok(ended),
            Err(error) if error.is_lasting() => {
                return Err(Box::new(Finding::failed(Reason::CannotStart, crate::chain(&error))));
            }
            Err(error) if left <= PAUSE => return Err(Box::new(Finding::failed(limit.reason, crate::chain(&error)))),
            Err(_) => thread::sleep(PAUSE),
        }
        left = until.saturating_duration_since(Instant::now());
    }
}
