//! `ralph-image`: builds, signs, inspects and verifies images, and makes bootable disks of them.
//!
//! Nothing here needs root, loop devices or mounts.

mod against;
mod build;
mod cut;
mod delta;
mod disk;
mod exit;
mod extract;
mod inspect;
mod interrupt;
mod keygen;
mod keys;
mod output;
mod progress;
mod remarks;
mod sign;
mod source;
mod uki;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Build, sign, inspect and verify RalphOS images, and make bootable disks of them.
#[derive(Debug, Parser)]
#[command(name = "ralph-image", version, after_help = exit::HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Keygen(keygen::Args),
    // By far the longest of them.
    Build(Box<build::Args>),
    Sign(sign::Args),
    Inspect(inspect::Args),
    Verify(verify::Args),
    Extract(extract::Args),
    Disk(disk::Args),
    Delta(delta::Args),
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let result = interrupt::watch().and_then(|()| run(&command));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ralph-image: {error:#}");
            exit::code(&error)
        }
    }
}

fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Keygen(args) => keygen::run(args),
        Command::Build(args) => build::run(args),
        Command::Sign(args) => sign::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Extract(args) => extract::run(args),
        Command::Disk(args) => disk::run(args),
        Command::Delta(args) => delta::run(args),
    }
}
