//! `ralph-health-check`: proves that the booted system works, and commits its slot (specs/health.md).
//!
//! Facts are gathered by [`check`] and [`machine`], [`policy`] decides purely, [`act`] carries out; [`run`] is the order of it all.

mod act;
mod check;
mod clock;
mod config;
mod device;
#[cfg(test)]
mod fakes;
mod guard;
mod limit;
mod machine;
pub mod parsers;
mod policy;
mod print;
mod process;
mod reboot;
mod records;
mod report;
mod run;
mod span;
mod surroundings;
mod systemd;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use serde::Serialize;

use check::{CONFIGURATION, Outcome, Reason, Tools};
use clock::SystemClock;
use config::source::Place;
use config::{Config, ConfigErrors};
use policy::{Required, Verdict};
use print::{Patience, complain, out};
use records::FileRecords;
use report::Report;
use surroundings::Surroundings;

/// Exit codes (HLT-51); 2 is clap's, for usage.
const HEALTHY: u8 = 0;
const FAILED: u8 = 1;
const INVALID: u8 = 3;

/// Proves that the booted system works, and commits its slot.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 healthy (and committed, if `run`), 1 a required check failed or the verdict \
    could not be carried out, 2 usage, 3 configuration invalid or not to be read."
)]
struct Cli {
    /// Print one JSON document instead of lines
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check, then commit a trial that passes or reboot one that fails; the boot service
    Run,
    /// Judge a system that came up in emergency or rescue mode: its checks have failed
    Emergency {
        /// Which mode: `emergency` or `rescue`
        reason: String,
    },
    /// The same checks; changes nothing
    Check {
        /// Configuration files or directories, instead of the installed ones
        config: Vec<PathBuf>,
    },
    /// Says whether a configuration is valid
    Validate {
        /// Configuration files or directories, instead of the installed ones
        config: Vec<PathBuf>,
    },
}

/// The program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let code = match cli.command {
        Command::Run => run_service(cli.json),
        Command::Emergency { reason } => run_emergency(&reason, cli.json),
        Command::Check { config } => run_checks(&places(config), cli.json),
        Command::Validate { config } => validate(&places(config), cli.json),
    };
    ExitCode::from(code)
}

fn run_service(json: bool) -> u8 {
    let config = config::load(&config::installed(Path::new("/")), &SystemClock);
    let healthy = judge(&config, json, &mut |budget| outcomes(&config, Patience::Limited, budget));
    match config {
        Err(_) => INVALID,
        Ok(_) if healthy => HEALTHY,
        Ok(_) => FAILED,
    }
}

/// The system did not come up. That is a failed check, and goes the way of every other (HLT-64).
fn run_emergency(reason: &str, json: bool) -> u8 {
    let config = config::load(&config::installed(Path::new("/")), &SystemClock);
    let failed = emergency(reason, &surroundings::ThisMachine::below(Path::new("/")));
    judge(&config, json, &mut |_| vec![failed.clone()]);
    FAILED
}

fn emergency(reason: &str, surroundings: &dyn Surroundings) -> Outcome {
    let output = surroundings.failed_units().unwrap_or_else(|fault| format!("not known: {}", chain(fault.as_ref())));
    let detail = format!("the system came up in {reason} mode");
    Outcome { output, ..Outcome::own_failure(check::EMERGENCY, Reason::Emergency, detail) }
}

/// Judges this boot by what the checks say, tells it, and reboots if that is the verdict. Is all well?
fn judge(config: &Result<Config, ConfigErrors>, json: bool, checks: &mut dyn FnMut(Duration) -> Vec<Outcome>) -> bool {
    let root = Path::new("/");
    let (clock, records, guard) = (SystemClock, FileRecords::below(root), guard::BootGuard::of_this_machine());
    let world = act::World {
        clock: &clock,
        records: &records,
        systemd: &systemd::Systemctl,
        guard: &guard,
        surroundings: &surroundings::ThisMachine::below(root),
        // What is wrong with the configuration may be wrong with its policy (HLT-13).
        policy: config.as_ref().map(|config| config.policy).unwrap_or_default(),
    };
    let ran = run::run(&device::Device, world, checks);
    let healthy = ran.settled.done && matches!(ran.settled.verdict, Verdict::Commit | Verdict::Healthy);
    say(&Report::of_run(&ran, healthy), json, Patience::Limited);
    if json {
        // A document has no line that a person at the console would see (HLT-38).
        ran.notes
            .iter()
            .filter(|note| note.starts_with(run::WARNING))
            .for_each(|note| complain(note, Patience::Limited));
    }
    if ran.settled.verdict.reboots() {
        let mut complain = |text: &str| complain(text, Patience::Limited);
        if reboot::begin(&reboot::ThisMachine, &mut complain) {
            // systemd ends this program on the way down, as a rule within a second.
            reboot::outlast(&reboot::ThisMachine, &clock, &mut complain);
        }
    }
    healthy
}

fn run_checks(places: &[Place], json: bool) -> u8 {
    let config = config::load(places, &SystemClock);
    let outcomes = outcomes(&config, Patience::Unlimited, Duration::MAX);
    let healthy = check::required(&outcomes) == Required::AllPassed;
    say(&Report::of_check(&outcomes, healthy), json, Patience::Unlimited);
    match config {
        Err(_) => INVALID,
        Ok(_) if healthy => HEALTHY,
        Ok(_) => FAILED,
    }
}

fn validate(places: &[Place], json: bool) -> u8 {
    let config = config::load(places, &SystemClock);
    if json {
        out(&report::validation(&config), Patience::Unlimited);
    } else {
        match &config {
            Ok(config) => out(&report::summary(config), Patience::Unlimited),
            Err(errors) => complain(&errors.to_string(), Patience::Unlimited),
        }
    }
    if config.is_ok() { HEALTHY } else { INVALID }
}

/// Runs the checks; an invalid configuration is a failed one (HLT-13).
fn outcomes(config: &Result<Config, ConfigErrors>, patience: Patience, budget: Duration) -> Vec<Outcome> {
    let config = match config {
        Ok(config) => config,
        Err(errors) => return vec![not_configured(errors)],
    };
    let (spared, adopted) = process::adopt_strays();
    if let Err(error) = adopted {
        complain(&format!("processes that leave the group of their check will outlive it: {error}"), patience);
    }
    let outcomes = check::run_all(config, &Tools::of_this_machine(), budget);
    let killed = process::kill_strays(&spared);
    if killed > 0 {
        complain(&format!("killed {killed} processes that checks had left behind"), patience);
    }
    outcomes
}

/// The failed check that a configuration without any comes to.
fn not_configured(errors: &ConfigErrors) -> Outcome {
    let reason = if errors.may_pass() { Reason::ConfigurationUnread } else { Reason::Configuration };
    Outcome::own_failure(CONFIGURATION, reason, errors.to_string())
}

fn places(given: Vec<PathBuf>) -> Vec<Place> {
    if given.is_empty() { config::installed(Path::new("/")) } else { given.into_iter().map(Place::Given).collect() }
}

fn say(report: &Report<'_>, json: bool, patience: Patience) {
    out(&if json { report.json() } else { report.text() }, patience);
}

/// The stable spelling of a reason or a verdict, that of JSON.
fn word(of: impl Serialize) -> String {
    match serde_json::to_value(of) {
        Ok(serde_json::Value::String(word)) => word,
        // Words are strings alone.
        Ok(_) | Err(_) => String::new(),
    }
}

/// An error with its causes, in one text.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::FakeSurroundings;

    #[test]
    fn emergency_mode_is_one_failed_required_check_hlt_64() {
        let failed = emergency("rescue", &FakeSurroundings::default());
        assert_eq!((failed.name.as_str(), failed.reason), ("emergency", Some(Reason::Emergency)));
        assert_eq!(failed.detail, "the system came up in rescue mode");
        assert_eq!(failed.output, "var.mount loaded failed failed /var\n");
        assert!(failed.fails_the_trial());
        assert!(!Reason::Emergency.is_deterministic(), "a /var that does not mount may mount at the next boot");
    }

    #[test]
    fn a_configuration_that_was_not_read_is_no_deterministic_failure_hlt_34() {
        let read = |errno: nix::errno::Errno| {
            let unread = config::ConfigError::Read { path: "a.toml".into(), source: errno.into() };
            not_configured(&ConfigErrors(vec![unread]))
        };
        let policy = config::Policy::default();
        let failed = read(nix::errno::Errno::EIO);
        assert_eq!((failed.name.as_str(), word(failed.reason)), ("configuration", "configuration-unread".to_owned()));
        assert!(failed.fails_the_trial(), "it never commits (HLT-13)");
        assert_eq!(act::action(&[failed], &policy), config::Action::Reboot);
        assert_eq!(act::action(&[read(nix::errno::Errno::ENOENT)], &policy), config::Action::MarkBad);
    }

    #[test]
    fn words_are_those_of_the_specification_hlt_52() {
        assert_eq!(word(Verdict::MarkBadAndReboot), "mark-bad-and-reboot");
        assert_eq!(word(Reason::OverallDeadline), "overall-deadline");
    }
}
