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
mod limit;
mod machine;
mod policy;
mod print;
mod process;
mod reboot;
mod records;
mod report;
mod run;
mod span;
mod systemd;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use check::{CONFIGURATION, Outcome, Reason, Tools};
use clock::SystemClock;
use config::source::Place;
use config::{Config, ConfigErrors};
use policy::{Required, Verdict};
use print::{Patience, complain, out};
use records::FileRecords;
use report::Report;

/// Exit codes (HLT-51); 2 is clap's, for usage.
const HEALTHY: u8 = 0;
const FAILED: u8 = 1;
const INVALID: u8 = 3;

/// Proves that the booted system works, and commits its slot.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 healthy (and committed, if `run`), 1 a required check failed or the verdict \
    could not be carried out, 2 usage, 3 configuration invalid."
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

fn main() -> ExitCode {
    let cli = Cli::parse();
    let code = match cli.command {
        Command::Run => run_service(cli.json),
        Command::Check { config } => run_checks(&places(config), cli.json),
        Command::Validate { config } => validate(&places(config), cli.json),
    };
    ExitCode::from(code)
}

fn run_service(json: bool) -> u8 {
    let root = Path::new("/");
    let config = config::load(&config::installed(root));
    let clock = SystemClock;
    let records = FileRecords::below(root);
    let world = act::World { clock: &clock, records: &records, systemd: &systemd::Systemctl };
    let ran = run::run(&device::Device, world, || outcomes(&config, Patience::Limited));
    let healthy = ran.settled.done && matches!(ran.settled.verdict, Verdict::Commit | Verdict::Healthy);
    say(&Report::of_run(&ran, healthy), json, Patience::Limited);
    if ran.settled.verdict.reboots() {
        act::reboot(&reboot::Systemctl, &mut |text| complain(text, Patience::Limited));
    }
    match config {
        Err(_) => INVALID,
        Ok(_) if healthy => HEALTHY,
        Ok(_) => FAILED,
    }
}

fn run_checks(places: &[Place], json: bool) -> u8 {
    let config = config::load(places);
    let outcomes = outcomes(&config, Patience::Unlimited);
    let healthy = check::required(&outcomes) == Required::AllPassed;
    say(&Report::of_check(&outcomes, healthy), json, Patience::Unlimited);
    match config {
        Err(_) => INVALID,
        Ok(_) if healthy => HEALTHY,
        Ok(_) => FAILED,
    }
}

fn validate(places: &[Place], json: bool) -> u8 {
    let config = config::load(places);
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
fn outcomes(config: &Result<Config, ConfigErrors>, patience: Patience) -> Vec<Outcome> {
    let config = match config {
        Ok(config) => config,
        Err(errors) => return vec![Outcome::own_failure(CONFIGURATION, Reason::Configuration, errors.to_string())],
    };
    let (spared, adopted) = process::adopt_strays();
    if let Err(error) = adopted {
        complain(&format!("processes that leave the group of their check will outlive it: {error}"), patience);
    }
    let outcomes = check::run_all(config, &Tools::of_this_machine(), Duration::MAX);
    let killed = process::kill_strays(&spared);
    if killed > 0 {
        complain(&format!("killed {killed} processes that checks had left behind"), patience);
    }
    outcomes
}

fn places(given: Vec<PathBuf>) -> Vec<Place> {
    if given.is_empty() { config::installed(Path::new("/")) } else { given.into_iter().map(Place::Given).collect() }
}

fn say(report: &Report<'_>, json: bool, patience: Patience) {
    out(&if json { report.json() } else { report.text() }, patience);
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
