//! `power-cuts`: checks every disk that a power cut could have left (`specs/power-cuts.md`, CUT-60 to CUT-63).

use std::fs::File;
use std::io::BufWriter;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand};
use power_cuts::disk::{Disk, Layer, State};
use power_cuts::kept::Kept;
use power_cuts::log::Log;
use power_cuts::patch::PatchReader;
use power_cuts::run::{Bounds, run};
use power_cuts::save::{Saver, write_image};
use power_cuts::select::Selection;
use power_cuts::{Flow, Report};

/// Checks every disk that a power cut could have left, from a record of what reached the disk.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes the states of a recorded flow and checks each.
    Check {
        #[command(flatten)]
        source: Source,
        /// Keep states that fail in this folder.
        #[arg(long, value_name = "DIR")]
        save: Option<PathBuf>,
        /// Tell what each interval has, and how much of it was taken.
        #[arg(long)]
        intervals: bool,
    },
    /// Checks a state again that was kept.
    Reproduce {
        /// The file `ID.json`; the disk images lie beside it.
        file: PathBuf,
    },
    /// Makes the disk of one state of a state file.
    Export {
        /// The state file.
        #[arg(long)]
        states: PathBuf,
        /// The state's name.
        #[arg(long)]
        id: String,
        /// The disk before the flow.
        #[arg(long)]
        base: PathBuf,
        /// The disk image to be made; one that is there is not overwritten.
        #[arg(long, short)]
        output: PathBuf,
    },
    /// Writes the states most worth setting up on a real disk.
    Select {
        #[command(flatten)]
        source: Source,
        /// How many states.
        #[arg(long, default_value_t = 40)]
        count: usize,
        /// The state file.
        #[arg(long, short)]
        output: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Source {
    /// The disk before the flow.
    #[arg(long)]
    base: PathBuf,
    /// What reached it, in the dm-log-writes format.
    #[arg(long)]
    log: PathBuf,
    /// What the flow may leave.
    #[arg(long)]
    flow: PathBuf,
    /// What states are chosen with where not all are taken.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// States in all.
    #[arg(long, default_value_t = 20_000)]
    max_states: u64,
    /// Of an interval that is not enumerated whole, all combinations of metadata sectors are taken where they are at most so many.
    #[arg(long, default_value_t = 1024)]
    few: u64,
    /// Write the report to this file, too, as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

struct Opened {
    disk: Disk<File, File>,
    log: Log<File>,
    flow: Flow,
    bounds: Bounds,
}

impl Source {
    fn open(&self) -> Result<Opened> {
        let disk = Disk::new(open(&self.base)?, open(&self.log)?)?;
        let log =
            Log::read(open(&self.log)?, disk.bytes()).with_context(|| format!("cannot use {}", self.log.display()))?;
        let bounds = Bounds { seed: self.seed, max_states: self.max_states, few: self.few };
        Ok(Opened { disk, log, flow: read_flow(&self.flow)?, bounds })
    }
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("cannot open {}", path.display()))
}

fn read_flow(path: &Path) -> Result<Flow> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Flow::parse(&bytes).with_context(|| format!("cannot use {}", path.display()))
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Check { source, save, intervals } => check(&source, save.as_deref(), intervals),
        Command::Reproduce { file } => reproduce(&file),
        Command::Export { states, id, base, output } => export(&states, &id, &base, &output),
        Command::Select { source, count, output } => select(&source, count, &output),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("power-cuts: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Prints the report, and writes it to the file that was asked for (`CUT-60`).
fn tell(source: &Source, flow: &Flow, bounds: Bounds, report: &Report) -> Result<()> {
    print!("{}: seed {}; {report}", flow.name, bounds.seed);
    let Some(path) = &source.report else { return Ok(()) };
    std::fs::write(path, report.json(flow, bounds)).with_context(|| format!("cannot write {}", path.display()))
}

fn check(source: &Source, save: Option<&Path>, intervals: bool) -> Result<bool> {
    let Opened { mut disk, log, flow, bounds } = source.open()?;
    let mut saver = save.map(Saver::new).transpose().context("cannot make the folder for failing states")?;
    let mut failing = Vec::new();
    let report = run(&mut disk, &log, &flow, bounds, &mut |disk, found, _| {
        if let Some(saver) = saver.as_mut().filter(|_| !found.verdict.failures.is_empty()) {
            failing.extend(saver.see(disk, &flow, found)?);
        }
        Ok(())
    })?;
    if intervals {
        report.lines.iter().for_each(|line| println!("{line}"));
    }
    tell(source, &flow, bounds, &report)?;
    for file in failing {
        println!("power-cuts reproduce {}", file.display());
    }
    Ok(report.passed())
}

/// `CUT-61`
fn reproduce(file: &Path) -> Result<bool> {
    let context = || format!("cannot use {}", file.display());
    let kept = Kept::parse(&std::fs::read(file).with_context(context)?).with_context(context)?;
    let verdict = kept.check(file.parent().unwrap_or(Path::new(""))).with_context(context)?;
    match &verdict.boots {
        Some(boots) => println!("{}: {} boots {}", kept.image, boots.file, boots.system),
        None => println!("{}: nothing of ours boots", kept.image),
    }
    for failure in &verdict.failures {
        println!("FAILED {failure}");
    }
    Ok(verdict.failures.is_empty())
}

/// `CUT-63`
fn export(states: &Path, id: &str, base: &Path, output: &Path) -> Result<bool> {
    let mut reader = PatchReader::open(open(states)?).with_context(|| format!("cannot use {}", states.display()))?;
    let number = reader.position(id).with_context(|| format!("{} has no state {id}", states.display()))?;
    let (disk, wanted) = (Disk::new(open(base)?, Vec::new())?, reader.header().disk_bytes);
    ensure!(
        disk.bytes() == wanted,
        "{} has {} bytes, and the states are of a disk of {wanted}",
        base.display(),
        disk.bytes()
    );
    let context = || format!("cannot write {}", output.display());
    let image = File::create_new(output).with_context(context)?;
    write_image(&disk, &State::of(Layer::default().into()), &image).with_context(context)?;
    reader.apply(number, &mut |offset, bytes| image.write_all_at(bytes, offset)).with_context(context)?;
    image.sync_data().with_context(context)?;
    let boots = &reader.header().states[number].boots;
    println!("{}: {} boots {}-g{}", output.display(), boots.file, boots.slot, boots.generation);
    Ok(true)
}

fn select(source: &Source, count: usize, output: &Path) -> Result<bool> {
    let Opened { mut disk, log, flow, bounds } = source.open()?;
    let mut selection = Selection::new(bounds.seed);
    let report = run(&mut disk, &log, &flow, bounds, &mut |_, found, places| {
        let allowed = found
            .verdict
            .system()
            .map_or((false, false), |system| (flow.before.contains(&system), flow.after.contains(&system)));
        selection.see(found, places, allowed);
        Ok(())
    })?;
    tell(source, &flow, bounds, &report)?;
    let file = File::create(output).with_context(|| format!("cannot create {}", output.display()))?;
    let states = selection
        .write(&disk, &flow.name, bounds.seed, count, &mut BufWriter::new(file))
        .with_context(|| format!("cannot write {}", output.display()))?;
    println!("{states} states in {}", output.display());
    if states == 0 {
        bail!("no state of {} is worth setting up: nothing that is read at a boot changes in it", flow.name);
    }
    Ok(report.passed())
}
