//! Exit codes of `ralph-update`, few and stable.

/// How a run ended, as the process exit code tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Success = 0,
    /// Something failed; the message says what and what to do.
    Failure = 1,
    /// The command line is wrong (clap's own code).
    Usage = 2,
    /// Refused by a rule (signature, version, epoch, space, health of the fallback …); nothing was changed.
    Refused = 3,
    /// What was asked for is the case already.
    NothingToDo = 4,
    /// Another program holds the update lock.
    Busy = 5,
    /// The doctor found what endangers the next boot or update.
    Endangered = 6,
}

/// A message with its causes, on one line.
pub(crate) fn with_source(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        std::process::ExitCode::from(exit as u8)
    }
}
