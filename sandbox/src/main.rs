//! `ralph-sandbox`: makes a sandbox, and proves its walls from inside (`specs/sandbox.md`).

use std::error::Error as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use sandbox::probe::{self, helper};
use sandbox::{Bind, Limits, Options, Wall, run, self_test, stage};

#[derive(Debug, Parser)]
#[command(name = "ralph-sandbox", version, about = "Makes a sandbox, and proves its walls from inside")]
struct Cli {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Debug, Subcommand)]
enum Sub {
    /// Runs a command in a fresh sandbox. Exits with its code; 124: the deadline passed, 125: no sandbox.
    Run(Run),
    /// Tries every wall of the sandbox it runs in; prints a report as JSON.
    Probe {
        /// The question (JSON).
        question: String,
        /// What to become if every wall stands.
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Shows that the probe holds in a sandbox, and notices each wall that is left out.
    SelfTest(SelfTest),
    #[command(hide = true)]
    Stage,
    #[command(hide = true)]
    Helper {
        #[command(subcommand)]
        helper: helper::Helper,
    },
}

#[derive(Debug, Args)]
struct Run {
    /// Memory, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = Limits::SMOKE_TEST.memory, value_parser = clap::value_parser!(u64).range(1 << 20..))]
    memory: u64,
    /// Processes and threads.
    #[arg(long, value_name = "N", default_value_t = Limits::SMOKE_TEST.pids, value_parser = clap::value_parser!(u32).range(2..))]
    pids: u32,
    /// CPU time, in percent of one CPU.
    #[arg(long, value_name = "PERCENT", default_value_t = Limits::SMOKE_TEST.cpu_percent, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    cpu: u32,
    /// A file or folder of the host to be read inside.
    #[arg(long, value_name = "HOST:INSIDE")]
    bind: Vec<Bind>,
    /// With /dev/kvm.
    #[arg(long)]
    kvm: bool,
    /// Ends it after so many milliseconds.
    #[arg(long, value_name = "MS")]
    deadline: Option<u64>,
    /// Leaves a wall out: for tests.
    #[arg(long, value_name = "WALL")]
    without: Vec<Wall>,
    /// Without a cgroup, so without limits: for tests.
    #[arg(long, hide = true)]
    no_cgroup: bool,
    /// The command, by its path inside.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

#[derive(Debug, Args)]
struct SelfTest {
    /// Prints one JSON document instead of lines.
    #[arg(long)]
    json: bool,
    /// /dev/kvm is declared.
    #[arg(long)]
    kvm: bool,
    /// Without a cgroup: leaves out the walls that need one.
    #[arg(long, hide = true)]
    no_cgroup: bool,
}

fn main() -> ExitCode {
    ExitCode::from(match Cli::parse().command {
        Sub::Run(run) => sandboxed(run),
        Sub::Probe { question, command } => probe::probe(&question, &command),
        Sub::SelfTest(SelfTest { json, kvm, no_cgroup }) => self_test::self_test(json, kvm, !no_cgroup),
        Sub::Stage => stage::stage(),
        Sub::Helper { helper } => helper::help(helper),
    })
}

fn sandboxed(run: Run) -> u8 {
    let options = Options {
        limits: Limits { memory: run.memory, pids: run.pids, cpu_percent: run.cpu },
        binds: run.bind,
        kvm: run.kvm,
        deadline: run.deadline.map(Duration::from_millis),
        without: run.without.into_iter().collect(),
        cgroup: !run.no_cgroup,
        command: run.command,
    };
    run::run(&options).unwrap_or_else(|error| {
        eprint!("ralph-sandbox: {error}");
        let mut cause = error.source();
        while let Some(error) = cause {
            eprint!(": {error}");
            cause = error.source();
        }
        eprintln!();
        run::EXIT_NO_SANDBOX
    })
}
