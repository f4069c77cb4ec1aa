//! What can be wrong with a configuration as a whole.

use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

use super::{Problem, source};
use crate::span::Span;

/// One thing that is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A directory cannot be listed.
    #[error("cannot list the directory {}", path.display())]
    List {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Reading it could take for ever.
    #[error("{} is neither a file nor a link to /dev/null", path.display())]
    NotAFile {
        /// What stands there.
        path: PathBuf,
    },
    /// Larger than any configuration.
    #[error("{} is larger than {} bytes", path.display(), source::LARGEST)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Not text.
    #[error("{} is not UTF-8", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// The text of a file is wrong.
    #[error("{} is not a valid configuration", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        source: Problem,
    },
    /// A name stands twice.
    #[error("the check `{name}` stands in {} and in {}: a name may stand once over all files", first.display(), second.display())]
    Duplicate {
        /// The name.
        name: String,
        /// Where it stood first.
        first: PathBuf,
        /// And where again.
        second: PathBuf,
    },
    /// Two files hold `[policy]`.
    #[error("both {} and {} hold [policy]: one file may", first.display(), second.display())]
    SecondPolicy {
        /// The first of them.
        first: PathBuf,
        /// The second.
        second: PathBuf,
    },
    /// The unit could never pass before everything ends (HLT-12).
    #[error(
        "check `{check}` in {}: stable-for {stable_for} is not less than the overall deadline {overall}, so it could never pass",
        path.display()
    )]
    NeverStable {
        /// Name of the check.
        check: String,
        /// Its file.
        path: PathBuf,
        /// What stands there.
        stable_for: Span,
        /// The overall deadline it meets.
        overall: Span,
    },
    /// A check waits for one that is nowhere (HLT-12).
    #[error("check `{check}` in {}: after: there is no check `{after}`", path.display())]
    AfterUnknown {
        /// Name of the check.
        check: String,
        /// Its file.
        path: PathBuf,
        /// What it waits for.
        after: String,
    },
    /// A wanted check would change the verdict (HLT-12, HLT-33).
    #[error(
        "check `{check}` in {}: after: it is required and `{after}` is wanted, which must not change a verdict",
        path.display()
    )]
    AfterWanted {
        /// Name of the check.
        check: String,
        /// Its file.
        path: PathBuf,
        /// What it waits for.
        after: String,
    },
    /// Checks that wait for each other (HLT-12).
    #[error("check `{check}` in {}: after: it waits for itself: {circle}", path.display())]
    AfterCircle {
        /// Name of the check.
        check: String,
        /// Its file.
        path: PathBuf,
        /// All of them, like `a after b after a`.
        circle: String,
    },
    /// Nothing would be proven (HLT-10).
    #[error("no required check in {0}: that would commit whatever boots")]
    NothingRequired(String),
}

impl ConfigError {
    /// Could the same files be read at another time? What is wrong in them, and what stands where a file should be, stays as it is.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::List { source, .. } | Self::Read { source, .. } => !stays(source),
            _ => false,
        }
    }
}

/// Does the error say what stands at the path? Then the next boot shows it again. Any other (`EIO`, `ENOMEM`, `EMFILE` …) says what the machine
/// could not do at that moment.
fn stays(error: &io::Error) -> bool {
    error.raw_os_error().map(Errno::from_raw).is_some_and(|errno| {
        use Errno::{EACCES, EISDIR, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, ENXIO, EPERM};
        // ENXIO: a socket stands there.
        matches!(errno, ENOENT | ENOTDIR | EISDIR | ELOOP | ENAMETOOLONG | ENXIO | EACCES | EPERM)
    })
}

/// Everything that is wrong with a configuration, so that it can be mended at once. Never empty.
#[derive(Debug, thiserror::Error)]
#[error("{}", lines(.0))]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl ConfigErrors {
    /// Was something not read that another try may read (HLT-13)? What else is wrong is then not certain, either: a file that was not read may
    /// stand over it.
    pub fn may_pass(&self) -> bool {
        self.0.iter().any(ConfigError::may_pass)
    }
}

fn lines(errors: &[ConfigError]) -> String {
    let lines: Vec<String> = errors.iter().map(|error| crate::chain(error)).collect();
    lines.join("\n")
}
