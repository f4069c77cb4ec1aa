//! Seeds, replays and blind mutation of the fuzz targets; the coverage-guided fuzzer is in `../fuzz`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, io};

use clap::{Parser, Subcommand};
use fuzz_targets::{TARGETS, Target, mutate};

/// Runs the fuzz targets without a fuzzer.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Names targets, with the longest input of each
    List {
        /// The targets; none: all
        targets: Vec<String>,
    },
    /// Writes the seeds that the builders give to fuzz/seeds; keeps what else is there
    Seeds,
    /// Runs a target on files
    Replay {
        /// The target
        target: String,
        /// The inputs
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Runs targets on blind mutations of their seeds
    Shake {
        /// The targets; none: all
        targets: Vec<String>,
        /// How long for each
        #[arg(long, default_value = "60")]
        seconds: u64,
        /// To repeat a run
        #[arg(long)]
        seed: Option<u64>,
    },
}

fn main() -> ExitCode {
    mutate::save_failures();
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fuzz-targets: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), String> {
    match command {
        Command::List { targets } => {
            mutate::named(&targets)?.iter().for_each(|target| println!("{} {}", target.name, target.max_len));
        }
        Command::Seeds => TARGETS.iter().try_for_each(write_seeds).map_err(|error| error.to_string())?,
        Command::Replay { target, files } => {
            let [target] = mutate::named(&[target])?[..] else { return Err("one target".to_owned()) };
            for file in files {
                let input = fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
                mutate::run(&target, &input);
                println!("{}: {} holds", file.display(), target.name);
            }
        }
        Command::Shake { targets, seconds, seed } => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            let seed = seed.unwrap_or(now);
            println!("--seed {seed}");
            for target in mutate::named(&targets)? {
                let runs = mutate::shake(&target, seed, Duration::from_secs(seconds), 0..u64::MAX);
                println!("{}: {runs} runs, {} in a second", target.name, runs / seconds.max(1));
            }
        }
    }
    Ok(())
}

fn write_seeds(target: &Target) -> io::Result<()> {
    let folder = mutate::kept(target);
    fs::create_dir_all(&folder)?;
    (target.seeds)().into_iter().try_for_each(|(name, bytes)| fs::write(folder.join(name), bytes))
}
