//! The text of one configuration file (HLT-11, HLT-12).

use std::collections::BTreeMap;

use serde::Deserialize;

use super::kind::{FileType, RunnerChoice};
use super::kinds;
use super::problem::{CheckProblem, Problem};
use super::{Action, Check, Level, Policy};
use crate::check::{COMMIT, CONFIGURATION, EMERGENCY, MARKED, SOAK};
use crate::span::Span;

const DEFAULT_DEADLINE: Span = Span::seconds(60);
/// HLT-11.
pub const DEADLINES: (Span, Span) = (Span::seconds(1), Span::seconds(30 * 60));
const DEFAULT_INTERVAL: Span = Span::seconds(1);
const INTERVALS: (Span, Span) = (Span::milliseconds(100), Span::seconds(5 * 60));
const TRIES: std::ops::RangeInclusive<i64> = 1..=100;
/// HLT-12.
pub const OVERALLS: (Span, Span) = (Span::seconds(1), Span::seconds(60 * 60));
/// HLT-12.
pub const LONGEST_SOAK: Span = Span::seconds(60 * 60);

/// Names of the checks we report ourselves (HLT-11).
const OUR_NAMES: [&str; 5] = [CONFIGURATION, COMMIT, EMERGENCY, MARKED, SOAK];

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

/// The kinds there are.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum RawKind {
    /// HLT-22.
    Unit,
    /// HLT-21.
    Command,
    /// HLT-26.
    Http,
    /// HLT-27.
    Sandbox,
    /// HLT-28.
    Path,
}

/// A check with the keys of all kinds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawCheck {
    pub kind: RawKind,
    level: Option<Level>,
    deadline: Option<String>,
    pub tries: Option<i64>,
    pub interval: Option<String>,
    after: Option<Vec<String>>,
    pub unit: Option<String>,
    pub stable_for: Option<String>,
    pub command: Option<Vec<String>>,
    pub url: Option<String>,
    pub socket: Option<String>,
    pub path: Option<String>,
    pub status: Option<i64>,
    pub json: Option<BTreeMap<String, toml::Value>>,
    pub record: Option<String>,
    pub output: Option<String>,
    pub exit: Option<i64>,
    pub runner: Option<RunnerChoice>,
    pub kvm: Option<bool>,
    #[serde(rename = "type")]
    pub file_type: Option<FileType>,
    pub writable: Option<bool>,
    pub free: Option<String>,
}

/// Reads the text of one file; says everything that is wrong with it.
pub fn parse(text: &str) -> Result<File, Vec<Problem>> {
    let raw: RawFile = toml::from_str(text).map_err(|error| vec![error.into()])?;
    let mut problems = Vec::new();
    let mut checks = Vec::new();
    for (name, check) in raw.check {
        match named(&name)
            .and_then(|()| convert(&name, check).map_err(|source| Problem::Check { check: name.clone(), source }))
        {
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

fn named(name: &str) -> Result<(), Problem> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !(1..=64).contains(&name.len()) || !name.bytes().all(allowed) {
        return Err(Problem::Name(name.to_owned()));
    }
    if OUR_NAMES.contains(&name) {
        return Err(Problem::OurName(name.to_owned()));
    }
    Ok(())
}

fn convert(name: &str, raw: RawCheck) -> Result<Check, CheckProblem> {
    kinds::no_foreign_key(&raw)?;
    let deadline = span("deadline", raw.deadline.as_deref(), DEFAULT_DEADLINE)?;
    if deadline < DEADLINES.0 || deadline > DEADLINES.1 {
        return Err(CheckProblem::Deadline { deadline });
    }
    let interval = span("interval", raw.interval.as_deref(), DEFAULT_INTERVAL)?;
    if interval < INTERVALS.0 || interval > INTERVALS.1 {
        let why = format!("{interval} is not between {} and {}", INTERVALS.0, INTERVALS.1);
        return Err(CheckProblem::Value { key: "interval", why });
    }
    let tries = match raw.tries {
        Some(tries) => Some(u32::try_from(tries).ok().filter(|_| TRIES.contains(&tries)).ok_or_else(|| {
            let why = format!("{tries} is not between {} and {}", TRIES.start(), TRIES.end());
            CheckProblem::Value { key: "tries", why }
        })?),
        None => match raw.kind {
            RawKind::Unit | RawKind::Command | RawKind::Sandbox => Some(1),
            RawKind::Http | RawKind::Path => None,
        },
    };
    Ok(Check {
        name: name.to_owned(),
        level: raw.level.unwrap_or(Level::Required),
        deadline,
        tries,
        interval,
        after: raw.after.clone().unwrap_or_default(),
        kind: kinds::kind(raw, deadline)?,
    })
}

/// The length of time that stands at a key.
pub fn span(key: &'static str, text: Option<&str>, default: Span) -> Result<Span, CheckProblem> {
    text.map_or(Ok(default), |text| Span::parse(text).map_err(|source| CheckProblem::Span { key, source }))
}
