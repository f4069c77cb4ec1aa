//! The text of one configuration file (HLT-11, HLT-12).

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::{Action, Check, Kind, Level, Policy};
use crate::check::{COMMIT, CONFIGURATION, EMERGENCY, SOAK};
use crate::span::{Span, SpanError};

const DEFAULT_DEADLINE: Span = Span::seconds(60);
const DEADLINES: (Span, Span) = (Span::seconds(1), Span::seconds(30 * 60));
const DEFAULT_STABLE_FOR: Span = Span::seconds(5);
/// HLT-12.
const OVERALLS: (Span, Span) = (Span::seconds(1), Span::seconds(60 * 60));
const LONGEST_SOAK: Span = Span::seconds(60 * 60);

/// Names of the checks we report ourselves (HLT-11).
const OUR_NAMES: [&str; 4] = [CONFIGURATION, COMMIT, EMERGENCY, SOAK];

/// Kinds of units; without one of these endings systemctl would guess.
const UNIT_KINDS: [&str; 11] =
    ["service", "socket", "target", "device", "mount", "automount", "swap", "path", "timer", "slice", "scope"];

/// What is wrong in a file.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// Not TOML, a key we do not know, or a value of the wrong type.
    #[error(transparent)]
    Toml(#[from] toml::de::Error),
    /// A name of a check.
    #[error("the name of the check `{0}` is not [a-z0-9-], 1 to 64 characters")]
    Name(String),
    /// A name that we use in reports ourselves.
    #[error("the name `{0}` is taken by a check of our own: choose another")]
    OurName(String),
    /// A length of time.
    #[error("check `{check}`: {key}")]
    CheckSpan {
        /// Name of the check.
        check: String,
        /// The key that holds it.
        key: &'static str,
        /// What is wrong with it.
        source: SpanError,
    },
    /// A deadline nobody means.
    #[error("check `{check}`: deadline {deadline} is not between {} and {}", DEADLINES.0, DEADLINES.1)]
    Deadline {
        /// Name of the check.
        check: String,
        /// What stands there.
        deadline: Span,
    },
    /// The unit could never pass.
    #[error(
        "check `{check}`: stable-for {stable_for} is not less than the deadline {deadline}, so it could never pass"
    )]
    StableFor {
        /// Name of the check.
        check: String,
        /// What stands there.
        stable_for: Span,
        /// The deadline it meets.
        deadline: Span,
    },
    /// A key that belongs to another kind.
    #[error("check `{check}`: `{key}` does not belong to kind = \"{kind}\"")]
    Foreign {
        /// Name of the check.
        check: String,
        /// The key.
        key: &'static str,
        /// The kind it has.
        kind: &'static str,
    },
    /// A key that the kind needs.
    #[error("check `{check}`: kind = \"{kind}\" needs `{key}`")]
    Missing {
        /// Name of the check.
        check: String,
        /// The key.
        key: &'static str,
        /// The kind it has.
        kind: &'static str,
    },
    /// Not the name of a unit.
    #[error("check `{check}`: {unit:?} is not the full name of one systemd unit, like \"ralphd.service\"")]
    Unit {
        /// Name of the check.
        check: String,
        /// What stands there.
        unit: String,
    },
    /// Not a command.
    #[error("check `{check}`: command: {why}")]
    Command {
        /// Name of the check.
        check: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The overall deadline is not a length of time.
    #[error("policy: overall-deadline")]
    OverallSpan(#[source] SpanError),
    /// The overall deadline is out of bounds.
    #[error("policy: overall-deadline {overall} is not between {} and {}", OVERALLS.0, OVERALLS.1)]
    Overall {
        /// What stands there.
        overall: Span,
    },
    /// The soak is not a length of time.
    #[error("policy: soak")]
    SoakSpan(#[source] SpanError),
    /// The soak is out of bounds.
    #[error("policy: soak {soak} is longer than {LONGEST_SOAK}")]
    Soak {
        /// What stands there.
        soak: Span,
    },
}

/// What one file holds.
#[derive(Debug)]
pub struct File {
    /// In the order of their names.
    pub checks: Vec<Check>,
    /// From `[policy]`; `None` when there is no such table.
    pub policy: Option<Policy>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    check: BTreeMap<String, RawCheck>,
    policy: Option<RawPolicy>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawPolicy {
    overall_deadline: Option<String>,
    soak: Option<String>,
    on_failure: Option<Action>,
    on_deterministic_failure: Option<Action>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
enum RawKind {
    Unit,
    Command,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawCheck {
    kind: RawKind,
    level: Option<Level>,
    deadline: Option<String>,
    unit: Option<String>,
    stable_for: Option<String>,
    command: Option<Vec<String>>,
}

/// Reads the text of one file; says everything that is wrong with it.
pub fn parse(text: &str) -> Result<File, Vec<Problem>> {
    let raw: RawFile = toml::from_str(text).map_err(|error| vec![error.into()])?;
    let mut problems = Vec::new();
    let mut checks = Vec::new();
    for (name, check) in raw.check {
        match convert(name, check) {
            Ok(check) => checks.push(check),
            Err(problem) => problems.push(problem),
        }
    }
    let policy = match raw.policy.map(policy).transpose() {
        Ok(policy) => policy,
        Err(problem) => {
            problems.push(problem);
            None
        }
    };
    if problems.is_empty() { Ok(File { checks, policy }) } else { Err(problems) }
}

fn policy(raw: RawPolicy) -> Result<Policy, Problem> {
    let default = Policy::default();
    let overall = match raw.overall_deadline {
        None => default.overall_deadline,
        Some(text) => Span::parse(&text).map_err(Problem::OverallSpan)?,
    };
    if overall < OVERALLS.0 || overall > OVERALLS.1 {
        return Err(Problem::Overall { overall });
    }
    let soak = match raw.soak {
        None => default.soak,
        Some(text) => Span::parse(&text).map_err(Problem::SoakSpan)?,
    };
    if soak > LONGEST_SOAK {
        return Err(Problem::Soak { soak });
    }
    Ok(Policy {
        overall_deadline: overall,
        soak,
        on_failure: raw.on_failure.unwrap_or(default.on_failure),
        on_deterministic_failure: raw.on_deterministic_failure.unwrap_or(default.on_deterministic_failure),
    })
}

fn convert(name: String, raw: RawCheck) -> Result<Check, Problem> {
    let named = (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !named {
        return Err(Problem::Name(name));
    }
    if OUR_NAMES.contains(&name.as_str()) {
        return Err(Problem::OurName(name));
    }
    let span = |key, text: Option<String>, default| match text {
        None => Ok(default),
        Some(text) => Span::parse(&text).map_err(|source| Problem::CheckSpan { check: name.clone(), key, source }),
    };
    let foreign = |key, kind| Problem::Foreign { check: name.clone(), key, kind };
    let missing = |key, kind| Problem::Missing { check: name.clone(), key, kind };

    let deadline = span("deadline", raw.deadline, DEFAULT_DEADLINE)?;
    if deadline < DEADLINES.0 || deadline > DEADLINES.1 {
        return Err(Problem::Deadline { check: name, deadline });
    }
    let kind = match raw.kind {
        RawKind::Unit => {
            if raw.command.is_some() {
                return Err(foreign("command", "unit"));
            }
            let unit = raw.unit.ok_or_else(|| missing("unit", "unit"))?;
            if !is_unit_name(&unit) {
                return Err(Problem::Unit { check: name, unit });
            }
            let stable_for = span("stable-for", raw.stable_for, DEFAULT_STABLE_FOR)?;
            if stable_for >= deadline {
                return Err(Problem::StableFor { check: name, stable_for, deadline });
            }
            Kind::Unit { unit, stable_for }
        }
        RawKind::Command => {
            if raw.unit.is_some() {
                return Err(foreign("unit", "command"));
            }
            if raw.stable_for.is_some() {
                return Err(foreign("stable-for", "command"));
            }
            let words = raw.command.ok_or_else(|| missing("command", "command"))?;
            let (program, args) = command(words).map_err(|why| Problem::Command { check: name.clone(), why })?;
            Kind::Command { program, args }
        }
    };
    Ok(Check { level: raw.level.unwrap_or(Level::Required), name, deadline, kind })
}

fn command(words: Vec<String>) -> Result<(PathBuf, Vec<String>), &'static str> {
    if words.iter().any(|word| word.contains('\0')) {
        return Err("a word holds a NUL byte");
    }
    let mut words = words.into_iter();
    let program = words.next().ok_or("it is empty: the first word is the absolute path of a program")?;
    if !program.starts_with('/') {
        return Err("the program is not an absolute path");
    }
    Ok((PathBuf::from(program), words.collect()))
}

/// One unit, in full: no pattern (systemctl would match several), nothing that looks like an option.
fn is_unit_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
    let Some((stem, kind)) = name.rsplit_once('.') else { return false };
    name.len() <= 255
        && !stem.is_empty()
        && !name.starts_with(['-', '.'])
        && UNIT_KINDS.contains(&kind)
        && name.bytes().all(allowed)
}
