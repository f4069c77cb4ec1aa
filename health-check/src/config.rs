//! What is to be checked: the configuration (HLT-10 … HLT-13).
//!
//! [`source`] reads files and lays `/etc` over `/usr/lib`, [`raw`] turns the text of one file into checks; here they become one [`Config`].

mod raw;
pub mod source;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::span::Span;
pub use raw::Problem;
use source::{Place, Text};

/// Directories of the installed configuration; a later one lies over an earlier one (HLT-10).
pub const INSTALLED: [&str; 2] = ["/usr/lib/ralph-health-check/checks.d", "/etc/ralph-health-check/checks.d"];

/// Does a check that fails change the verdict?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// It must pass before a slot is committed.
    Required,
    /// It is reported and changes no verdict (HLT-33).
    Wanted,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Required => "required",
            Self::Wanted => "wanted",
        })
    }
}

/// What a check does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A systemd unit is active and has been so for a while (HLT-22).
    Unit {
        /// Full name of the unit, like `ralphd.service`.
        unit: String,
        /// How long it must have been active without a restart.
        stable_for: Span,
    },
    /// A command exits 0 (HLT-21).
    Command {
        /// Absolute path of the program.
        program: PathBuf,
        /// Its arguments; there is no shell.
        args: Vec<String>,
    },
}

impl fmt::Display for Kind {
    /// One line for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unit { unit, stable_for } => write!(f, "{unit} active for {stable_for}"),
            Self::Command { program, args } => {
                write!(f, "{}", program.display())?;
                args.iter().try_for_each(|arg| write!(f, " {arg}"))
            }
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// `[a-z0-9-]{1,64}`, once over all files.
    pub name: String,
    /// Required or wanted.
    pub level: Level,
    /// When this has passed, the check has failed.
    pub deadline: Span,
    /// What it does.
    pub kind: Kind,
}

/// A whole configuration that holds no error and at least one required check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// In the order of the files, and of the names in a file.
    pub checks: Vec<Check>,
    /// What is done about them.
    pub policy: Policy,
}

/// The table `[policy]` (HLT-12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// When this has passed, every check still running has failed.
    pub overall_deadline: Span,
    /// How long the required checks must hold before a commit (HLT-35).
    pub soak: Span,
    /// What is done with a trial that failed.
    pub on_failure: Action,
    /// The same, if the next boot will show every failure again (HLT-34).
    pub on_deterministic_failure: Action,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            overall_deadline: Span::seconds(5 * 60),
            soak: Span::seconds(0),
            on_failure: Action::Reboot,
            on_deterministic_failure: Action::MarkBad,
        }
    }
}

/// What is done with a trial that failed (HLT-30).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Reboot: the counter runs down.
    Reboot,
    /// Mark the entry bad, then reboot.
    MarkBad,
    /// Stay up and report.
    Stay,
}

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
    /// Nothing would be proven (HLT-10).
    #[error("no required check in {0}: that would commit whatever boots")]
    NothingRequired(String),
}

/// Everything that is wrong with a configuration, so that it can be mended at once. Never empty.
#[derive(Debug, thiserror::Error)]
#[error("{}", lines(.0))]
pub struct ConfigErrors(pub Vec<ConfigError>);

fn lines(errors: &[ConfigError]) -> String {
    let lines: Vec<String> = errors.iter().map(|error| crate::chain(error)).collect();
    lines.join("\n")
}

/// Reads all places and makes one configuration of them.
pub fn load(places: &[Place]) -> Result<Config, ConfigErrors> {
    let (texts, unread) = source::read(places);
    join(places, &texts, unread)
}

/// The places of the installed configuration below `root`.
pub fn installed(root: &Path) -> Vec<Place> {
    INSTALLED.iter().map(|place| Place::Installed(root.join(place.trim_start_matches('/')))).collect()
}

/// Makes one configuration of the texts of all files, in their order.
fn join(places: &[Place], texts: &[Text], unread: Vec<ConfigError>) -> Result<Config, ConfigErrors> {
    let mut errors = unread;
    let mut checks = Vec::new();
    let mut owners: BTreeMap<String, &Path> = BTreeMap::new();
    let mut policy: Option<(&Path, Policy)> = None;
    for Text { path, text } in texts {
        let file = match raw::parse(text) {
            Ok(file) => file,
            Err(problems) => {
                errors.extend(problems.into_iter().map(|source| ConfigError::File { path: path.clone(), source }));
                continue;
            }
        };
        for check in file.checks {
            if let Some(first) = owners.insert(check.name.clone(), path) {
                errors.push(ConfigError::Duplicate { name: check.name, first: first.to_owned(), second: path.clone() });
            } else {
                checks.push(check);
            }
        }
        if let Some(found) = file.policy
            && let Some((first, _)) = policy.replace((path, found))
        {
            errors.push(ConfigError::SecondPolicy { first: first.to_owned(), second: path.clone() });
        }
    }
    let policy = policy.map_or_else(Policy::default, |(_, found)| found);
    let overall_deadline = policy.overall_deadline;
    // Said only when nothing else is wrong: a file that was refused may have held the policy.
    if errors.is_empty() {
        errors.extend(checks.iter().filter_map(|check: &Check| match &check.kind {
            Kind::Unit { stable_for, .. } if *stable_for >= overall_deadline => Some(ConfigError::NeverStable {
                check: check.name.clone(),
                path: owners.get(&check.name).map_or_else(PathBuf::new, |path| path.to_path_buf()),
                stable_for: *stable_for,
                overall: overall_deadline,
            }),
            Kind::Unit { .. } | Kind::Command { .. } => None,
        }));
    }
    // Said only when nothing else is wrong: a file that was refused may have held the required check.
    if errors.is_empty() && !checks.iter().any(|check| check.level == Level::Required) {
        let places: Vec<String> = places.iter().map(|place| place.path().display().to_string()).collect();
        errors.push(ConfigError::NothingRequired(places.join(" or ")));
    }
    if !errors.is_empty() {
        return Err(ConfigErrors(errors));
    }
    Ok(Config { checks, policy })
}
