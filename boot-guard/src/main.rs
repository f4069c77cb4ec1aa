//! `ralph-boot-guard`, for the initrd: see the library.

use std::process::ExitCode;

use boot_guard::{launch, machine, start, wait};
use clap::{Parser, Subcommand};

/// Counts the boots of a RalphOS machine and ends trials that hang. Runs in the initrd, before the root is opened.
#[derive(Debug, Parser)]
#[command(name = "ralph-boot-guard", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Count this boot; on a trial, leave a process behind that restarts the machine at the deadline. Always exits 0
    Start,
    /// Give this boot up: remember why, and restart if another system would boot. Exits 1 if not
    Failed {
        /// Why, in a few words
        reason: String,
    },
    /// Print what is remembered; change nothing
    Show,
    /// The process that waits for the deadline
    #[command(hide = true)]
    Wait {
        /// What `start` found
        trial: String,
    },
    /// The part of `start` that may hang
    #[command(hide = true)]
    WorkStart,
    /// The part of `failed` that may hang
    #[command(hide = true)]
    WorkFailed {
        /// Why
        reason: String,
    },
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Start => launch::start(),
        Command::WorkStart => start::start(&mut machine::RealMachine::default()),
        Command::Wait { trial } => wait::wait(&trial),
        Command::Failed { reason } => {
            launch::failed(&reason);
            return ExitCode::FAILURE;
        }
        Command::WorkFailed { reason } => start::failed(&mut machine::RealMachine::default(), &reason),
        Command::Show => match machine::show() {
            Ok(text) => launch::print(&text),
            Err(error) => {
                eprintln!("ralph-boot-guard: {error}");
                return ExitCode::FAILURE;
            }
        },
    }
    ExitCode::SUCCESS
}
