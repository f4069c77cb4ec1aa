//! `ralph-sandbox probe`: tries every wall from inside, whoever built it (SBX-10 to SBX-15).

mod files;
pub mod helper;
mod kvm;
mod limits;
mod mounts;
mod network;
mod process;
mod refused;

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::question::Question;
use crate::report::{Assertion, Report};
use crate::wall::Wall;

pub(crate) use mounts::BASE_FILES;

/// The exit code when an assertion does not hold.
pub const EXIT_NOT_HELD: u8 = 1;

/// The exit code when the probe could not run.
pub const EXIT_NOT_RUN: u8 = 2;

/// What trying a wall found: `Ok` if it stands, `Err` with what was found and expected (SBX-14).
type Found = Result<String, String>;

/// Tries the walls of the question and prints the report. With a command, prints the report only if a wall is
/// missing, and otherwise becomes the command (SBX-15). Gives the exit code.
pub fn probe(json: &str, command: &[String]) -> u8 {
    let question = match serde_json::from_str::<Question>(json) {
        Ok(question) if question.format == 1 => question,
        Ok(question) => return cannot(&format!("the question has format {}, expected 1", question.format)),
        Err(error) => return cannot(&format!("the question is not what this probe understands: {error}")),
    };
    let report = try_walls(&question);
    let held = report.failed().next().is_none();
    if let (true, Some((program, arguments))) = (held, command.split_first()) {
        let error = Command::new(program).args(arguments).exec();
        return cannot(&format!("cannot run {program}: {error}"));
    }
    match serde_json::to_string(&report) {
        Ok(text) => println!("{text}"),
        Err(error) => return cannot(&format!("cannot write the report: {error}")),
    }
    if held { 0 } else { EXIT_NOT_HELD }
}

fn cannot(why: &str) -> u8 {
    eprintln!("ralph-sandbox probe: {why}");
    EXIT_NOT_RUN
}

fn try_walls(question: &Question) -> Report {
    // Before anything opens more.
    let open_files = process::open_files();
    let try_wall = |name: Wall| {
        let found = match name {
            Wall::OpenFiles => open_files.clone(),
            _ => try_wall(name, question),
        };
        let held = found.is_ok();
        let (Ok(mut detail) | Err(mut detail)) = found;
        // A report of more than 64 KiB proves nothing (SBX-13).
        if detail.len() > MAX_DETAIL {
            detail = detail.chars().take(MAX_DETAIL / 4).chain(['…']).collect();
        }
        Assertion { name, held, detail }
    };
    Report { format: 1, assertions: question.expected().into_iter().map(try_wall).collect() }
}

/// Bytes of one detail; a longer one is cut to a quarter as many characters.
const MAX_DETAIL: usize = 1000;

fn try_wall(wall: Wall, question: &Question) -> Found {
    match wall {
        Wall::UserNamespace
        | Wall::MountNamespace
        | Wall::PidNamespace
        | Wall::IpcNamespace
        | Wall::UtsNamespace
        | Wall::NetNamespace
        | Wall::CgroupNamespace => process::namespace(wall, question),
        Wall::UserMapping => process::user_mapping(),
        Wall::Processes => process::processes(),
        Wall::Mounts => mounts::mounts(question),
        Wall::BaseReadOnly => mounts::base_read_only(),
        Wall::Overlay if question.marker_must_be_absent => files::marker_absent(question),
        Wall::Overlay => files::marker_written(question),
        Wall::MemoryLimit => limits::memory(question.limits.memory),
        Wall::PidsLimit => limits::pids(question.limits.pids),
        Wall::CpuLimit => limits::cpu(question.limits.cpu_percent),
        Wall::NetworkInterfaces => network::interfaces(),
        Wall::NetworkEgress => network::egress(),
        Wall::HostSockets => network::host_sockets(question),
        Wall::NoNewPrivileges => process::no_new_privileges(),
        Wall::Seccomp => refused::seccomp(),
        Wall::Capabilities => process::capabilities(),
        Wall::OpenFiles => process::open_files(),
        Wall::Kvm => kvm::create_machine(),
    }
}

/// Reads a file; not being able to is an assertion that does not hold (SBX-14).
fn read(path: &str) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("cannot read {path}: {e}"))
}
