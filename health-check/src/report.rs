//! What people and programs are told (HLT-52).

#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::check::Outcome;
use crate::config::{Config, ConfigErrors};
use crate::machine::{Booted, Entry};
use crate::policy::Verdict;
use crate::run::{Ran, WARNING};

const FORMAT: u32 = 1;

/// The document of `run --json` and `check --json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report<'a> {
    /// Fields are added, never renamed or removed, within a format.
    format: u32,
    /// `None` for `check`, which gives no verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<Verdict>,
    #[serde(skip_serializing_if = "Option::is_none")]
    booted: Option<BootedReport<'a>>,
    /// Is all well (exit code 0)?
    healthy: bool,
    checks: &'a [Outcome],
    notes: &'a [String],
}

#[derive(Debug, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
enum BootedReport<'a> {
    Trial {
        #[serde(flatten)]
        entry: &'a Entry,
        attempt: u32,
    },
    Committed {
        #[serde(flatten)]
        entry: &'a Entry,
    },
    Unknown {
        why: &'a str,
    },
}

impl<'a> Report<'a> {
    /// Of `run`.
    pub fn of_run(ran: &'a Ran, healthy: bool) -> Self {
        let booted = match &ran.settled.booted {
            Booted::Trial { entry, attempt } => BootedReport::Trial { entry, attempt: *attempt },
            Booted::Committed(entry) => BootedReport::Committed { entry },
            Booted::Unknown(why) => BootedReport::Unknown { why },
        };
        Self {
            format: FORMAT,
            verdict: Some(ran.settled.verdict),
            booted: Some(booted),
            healthy,
            checks: &ran.outcomes,
            notes: &ran.notes,
        }
    }

    /// Of `check`.
    pub fn of_check(outcomes: &'a [Outcome], healthy: bool) -> Self {
        Self { format: FORMAT, verdict: None, booted: None, healthy, checks: outcomes, notes: &[] }
    }

    /// One JSON document.
    pub fn json(&self) -> String {
        document(self)
    }

    /// One line a check, a line for each note, and one for the verdict.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for check in self.checks {
            check_lines(&mut text, check);
        }
        for note in self.notes {
            // A warning is not to be overlooked among the notes (HLT-38).
            let head = if note.starts_with(WARNING) { "" } else { "note: " };
            line(&mut text, &format!("{head}{note}"));
        }
        if let (Some(verdict), Some(booted)) = (self.verdict, &self.booted) {
            line(&mut text, &format!("verdict: {}", sentence(verdict, booted, self.healthy)));
        }
        text
    }
}

/// The document of `validate --json`.
#[derive(Debug, Serialize)]
struct Validation {
    format: u32,
    valid: bool,
    errors: Vec<String>,
    checks: Vec<String>,
}

/// What `validate --json` prints.
pub fn validation(config: &Result<Config, ConfigErrors>) -> String {
    let (errors, checks) = match config {
        Ok(config) => (Vec::new(), config.checks.iter().map(|check| check.name.clone()).collect()),
        Err(errors) => (errors.0.iter().map(|error| crate::chain(error)).collect(), Vec::new()),
    };
    document(&Validation { format: FORMAT, valid: config.is_ok(), errors, checks })
}

/// What the guard's default deadline leaves for checks and soak (GRD-21, HLT-36).
const GUARDS_TIME: Duration = Duration::from_secs(540);

/// What `validate` prints of a valid configuration.
pub fn summary(config: &Config) -> String {
    let mut text = String::new();
    for check in &config.checks {
        line(&mut text, &format!("{} ({}, deadline {}): {}", check.name, check.level, check.deadline, check.kind));
    }
    let policy = &config.policy;
    line(&mut text, &format!("valid; overall deadline {}", policy.overall_deadline));
    if policy.soak.duration() + policy.overall_deadline.duration() > GUARDS_TIME {
        let (soak, all) = (policy.soak, policy.overall_deadline);
        line(
            &mut text,
            &format!(
                "{WARNING}: soak {soak} and overall deadline {all} exceed the 540 s that the boot guard gives by default: \
             they are cut unless the image has a longer ralph.deadline="
            ),
        );
    }
    text
}

/// Our documents hold strings, numbers and lists alone; serde_json refuses none of these.
fn document<T: Serialize>(of: &T) -> String {
    serde_json::to_string_pretty(of).unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}")) + "\n"
}

fn check_lines(text: &mut String, check: &Outcome) {
    let word = if check.passed { "pass" } else { "FAIL" };
    let reason = match check.reason {
        Some(reason) => crate::word(reason) + ": ",
        None => String::new(),
    };
    let tries = if check.tries > 1 { format!(", {} tries", check.tries) } else { String::new() };
    let (name, level, took, detail) = (&check.name, check.level, check.milliseconds, &check.detail);
    let recorded = check.recorded.as_ref().map(|what| format!(", recorded {what}")).unwrap_or_default();
    let head = format!("{word} {name} ({level}, {took} ms{tries}): {reason}{detail}{recorded}");
    line(text, &head);
    if !check.passed {
        for output in check.output.lines() {
            line(text, &format!("     | {output}"));
        }
    }
}

fn sentence(verdict: Verdict, booted: &BootedReport<'_>, healthy: bool) -> String {
    let what = match booted {
        BootedReport::Trial { entry, attempt } => {
            format!("generation {} in slot {}, attempt {attempt}", entry.generation, entry.slot)
        }
        BootedReport::Committed { entry } => format!("generation {} in slot {}", entry.generation, entry.slot),
        BootedReport::Unknown { why } => (*why).to_owned(),
    };
    match verdict {
        Verdict::KeepTrying => format!("none yet ({what})"),
        Verdict::Commit if healthy => format!("commit: the trial passed and is committed ({what})"),
        Verdict::Commit => {
            format!("commit: the trial passed and is committed, but not all is done, see the notes ({what})")
        }
        Verdict::RecordAndReboot => format!("reboot: the trial failed and something better will boot ({what})"),
        Verdict::MarkBadAndReboot => {
            format!("reboot: the trial failed and is marked bad; something better will boot ({what})")
        }
        Verdict::RecordAndStay => {
            format!("stay up: the trial failed, and a reboot leads to nothing better or is not wanted ({what})")
        }
        Verdict::Healthy if healthy => format!("healthy ({what})"),
        Verdict::Healthy => format!("healthy, but not all is done, see the notes ({what})"),
        Verdict::Report if matches!(booted, BootedReport::Trial { .. }) => {
            format!("open: the firmware did not boot this trial, so the next reboot will tell ({what})")
        }
        Verdict::Report => format!("unhealthy, and committed: nothing is changed ({what})"),
        Verdict::Unknown => format!("unknown: nothing is changed, because it is not known what is booted ({what})"),
    }
}

/// One line whatever it holds: the output of a check may hold anything, and a terminal obeys control characters.
fn line(text: &mut String, content: &str) {
    for c in content.chars() {
        if c.is_control() {
            // Writing to a String does not fail.
            let _ = write!(text, "{}", c.escape_default());
        } else {
            text.push(c);
        }
    }
    text.push('\n');
}
