//! The check kind `command` (HLT-21).

use std::path::Path;

use super::{Finding, Limit, Reason};
use crate::process::{self, End};

/// Runs the command; it passes when it exits 0.
pub fn run(program: &Path, args: &[String], limit: Limit) -> Finding {
    let ended = match process::run(program, args, limit.within) {
        Ok(ended) => ended,
        Err(error) => return Finding::failed(Reason::CannotStart, crate::chain(&error)),
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
