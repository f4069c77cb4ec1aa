//! `ralph-update`.

mod cli;
mod commands;
mod report;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let outcome = commands::run(&cli);
    report::tell(cli.json, outcome).into()
}
