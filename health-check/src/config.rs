//! What is to be checked: the configuration (HLT-10 … HLT-13).
//!
//! [`source`] reads files and lays `/etc` over `/usr/lib`, [`raw`] turns the text of one file into checks, [`mod@kinds`] what each kind needs;
//! here they become one [`Config`].

mod error;
mod kind;
mod kinds;
mod order;
mod problem;
mod raw;
pub mod source;
#[cfg(test)]
mod tests;
mod url;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::clock::Clock;
use crate::span::Span;
pub use error::{ConfigError, ConfigErrors};
#[cfg(test)]
pub use kind::Size;
pub use kind::{Expectation, FileType, Http, Kind, PathCheck, RunnerChoice, Sandbox, Server};
pub use problem::Problem;
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

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// `[a-z0-9-]{1,64}`, once over all files.
    pub name: String,
    /// Required or wanted.
    pub level: Level,
    /// When this has passed since the check began, it has failed.
    pub deadline: Span,
    /// How often it is tried; `None`: as often as the deadline allows (HLT-24).
    pub tries: Option<u32>,
    /// Between two tries.
    pub interval: Span,
    /// Names of the checks that must have passed before it begins (HLT-25).
    pub after: Vec<String>,
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

/// How often the files are read, if the machine could not read them (HLT-13).
const TRIES: u32 = 3;
/// Between two of these tries.
const PAUSE: Duration = Duration::from_secs(1);

/// Reads all places and makes one configuration of them.
pub fn load(places: &[Place], clock: &dyn Clock) -> Result<Config, ConfigErrors> {
    for _ in 1..TRIES {
        match load_once(places) {
            Err(errors) if errors.may_pass() => clock.sleep(PAUSE),
            loaded => return loaded,
        }
    }
    load_once(places)
}

fn load_once(places: &[Place]) -> Result<Config, ConfigErrors> {
    let (texts, unread) = source::read(places);
    join(places, &texts, unread)
}

/// Makes one configuration of texts that were read elsewhere.
pub fn of_texts(texts: &[Text]) -> Result<Config, ConfigErrors> {
    join(&[], texts, Vec::new())
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
            _ => None,
        }));
        errors.extend(order::problems(&checks, &owners));
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
