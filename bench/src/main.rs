//! `update-bench`: measures `ralph-update` beside its peers on two real Debian roots that it makes itself.
//!
//! - [`debian`] makes the roots, [`lab`] what the contenders need of them;
//! - [`case`] is what is measured, as data, and [`peers`] the list;
//! - [`ours`] has our own cases, for which [`remember`] writes a machine's memory;
//! - [`rounds`] runs them, [`measure`] measures one, [`server`] counts what is fetched, [`device`] has the block devices;
//! - [`table`], [`about`] and [`chart`] tell.

mod about;
mod case;
mod chart;
mod debian;
mod device;
mod fill;
mod lab;
mod made;
mod measure;
mod ours;
mod peers;
mod remember;
mod rounds;
mod server;
mod table;

use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

use case::{Target, Theme};
use debian::Fs;
use lab::{Lab, Size};
use measure::Sample;
use rounds::{Measured, Rounds};
use table::Line;

/// Measures ralph-update beside its peers, on Debian 12 and its security updates.
#[derive(Debug, Parser)]
#[command(name = "update-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make what is needed, measure, and print the table
    Run(Run),
    /// Make what is needed and stop
    Prepare(Pair),
    /// Measure one command; used by `run`
    #[command(hide = true)]
    Measure(measure::Args),
    /// Fill a slot with noise; used by `run`
    #[command(hide = true)]
    Fill(fill::Args),
    /// ralph-update's apply on a machine; used by `run`
    #[command(hide = true)]
    Apply(device::Args),
    /// A machine's memory of its slots; used by `run`
    #[command(hide = true)]
    Remember(remember::Args),
}

/// Which images.
#[derive(Debug, clap::Args)]
struct Pair {
    /// The file system of the roots
    #[arg(long, value_enum, default_value = "ext4")]
    fs: Fs,
    /// An image of 8 GiB in place of the usual one: floor and ours only, to a file
    #[arg(long)]
    large: bool,
    /// Only these contenders: floor, ours, delta, swupdate, rauc, casync, patch-from
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Only to these targets
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["file", "loop"])]
    to: Vec<Target>,
    /// Threads of ralph-update; by the machine where it is not said
    #[arg(long, value_name = "N")]
    workers: Option<NonZeroUsize>,
    /// Only these tables
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["full", "update"])]
    theme: Vec<Theme>,
}

#[derive(Debug, clap::Args)]
struct Run {
    #[command(flatten)]
    pair: Pair,
    /// How often each case runs; the table has medians
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// On one processor core
    #[arg(long)]
    one_core: bool,
    /// Milliseconds that each answer of the server is late by
    #[arg(long, value_name = "MS", default_value_t = 0)]
    latency: u64,
    /// Write the chart here
    #[arg(long, value_name = "FILE.svg")]
    chart: Option<PathBuf>,
    /// Write every sample here, as JSON
    #[arg(long, value_name = "FILE.json")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run(&args),
        Command::Prepare(pair) => prepare(&pair).map(drop),
        Command::Measure(args) => measure::run(&args),
        Command::Fill(args) => fill::run(&args),
        Command::Apply(args) => device::run(&args),
        Command::Remember(args) => remember::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("update-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn prepare(pair: &Pair) -> Result<(Lab, Vec<case::Case>)> {
    let all: Vec<_> = peers::contenders().collect();
    if let Some(unknown) = pair.only.iter().find(|name| !all.contains(&name.as_str())) {
        bail!("no contender is called {unknown}; there are {}", all.join(", "));
    }
    let mut lab = Lab::prepare(pair.fs, if pair.large { Size::Large } else { Size::Real })?;
    lab.workers = pair.workers;
    let mut targets = pair.to.clone();
    if let Err(error) = &lab.loops
        && targets.contains(&Target::Loop)
    {
        eprintln!("bench: no loop devices here, so only files are measured: {error}");
        targets.retain(|target| *target != Target::Loop);
    }
    let large = |name: &str| !pair.large || ["floor", "ours"].contains(&name);
    let wanted = |name: &str| large(name) && (pair.only.is_empty() || pair.only.iter().any(|only| only == name));
    let mut cases = peers::cases(&lab, &targets, &wanted)?;
    // Without its floor an update has nothing to be compared with.
    cases.retain(|case| pair.theme.contains(&case.theme) || case.contender == case::FLOOR);
    Ok((lab, cases))
}

fn run(args: &Run) -> Result<()> {
    let (lab, cases) = prepare(&args.pair)?;
    lab.server.delay(args.latency);
    let workers = args.pair.workers.map(usize::from);
    let how = about::How { rounds: args.rounds, one_core: args.one_core, latency: args.latency, workers };
    // What can fail here must not cost an hour of measuring.
    let mut about = about::about(&lab, &how)?;
    let rounds = Rounds { count: args.rounds, one_core: args.one_core };
    let measured = rounds::run(cases, rounds, &lab.server);
    about.push_str(&format!("load after {}\n", about::load()));
    let lines = table::lines(&measured);
    println!("{}", report(&about, &lines, &measured));
    if let Some(path) = &args.chart {
        let caption = format!("{}; {} rounds; {}", about::processor(), args.rounds, lab.fs.name());
        write(path, &chart::svg(&lines, &caption))?;
    }
    if let Some(path) = &args.json {
        let all: Vec<(String, &[Sample])> = measured.iter().map(|m| (m.case.name(), m.samples.as_slice())).collect();
        write(path, &serde_json::to_string_pretty(&serde_json::json!({ "about": about, "samples": all }))?)?;
    }
    match measured.iter().filter(|measured| measured.failed.is_some()).count() {
        0 => Ok(()),
        failed => bail!("{failed} cases could not be measured, as told above"),
    }
}

fn report(about: &str, lines: &[Line], measured: &[Measured]) -> String {
    let mut text = about.to_owned();
    for (theme, title) in [(Theme::Full, "Full install"), (Theme::Update, "Update from v1")] {
        let chosen: Vec<&Line> = lines.iter().filter(|line| line.theme == theme).collect();
        if !chosen.is_empty() {
            // Writing to a String cannot fail.
            let _ = write!(text, "\n{title}\n\n{}", table::markdown(&chosen));
        }
    }
    let steps = table::steps(lines);
    if !steps.is_empty() {
        let _ = write!(text, "\nSteps\n\n{steps}");
    }
    for failed in measured {
        if let Some(why) = &failed.failed {
            let _ = write!(text, "\nnot measured: {}: {}\n", failed.case.name(), why.trim_end());
        }
    }
    text
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
