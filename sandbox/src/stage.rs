//! `ralph-sandbox stage`: the first process of the sandbox. It builds the walls around itself, starts the command,
//! and stays as its init: it reaps, and ends with the command's exit code.
//!
//! It has to stay, for a command that is pid 1 itself is a special one: signals that it does not handle do not reach
//! it, and nobody reaps what it leaves.

pub(crate) use files::{DEVICES, LINKS};

mod files;
mod filter;
mod network;
mod privileges;

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::Wall;
use crate::error::{Error, Explain, chain};
use crate::plan::Plan;
use crate::run::EXIT_NO_SANDBOX;

/// Does all of it. Gives the exit code.
pub fn stage() -> u8 {
    match close_descriptors().and_then(|()| Control::new()) {
        Ok(control) => talk(control),
        Err(error) => {
            eprintln!("ralph-sandbox: {}", chain(&error));
            EXIT_NO_SANDBOX
        }
    }
}

fn talk(mut control: Control) -> u8 {
    let started = build(&mut control).and_then(|(plan, held)| {
        let child = start(&plan)?;
        control.say("started")?;
        Ok((child, held))
    });
    match started {
        Ok((child, held)) => {
            // The command must find no way to the supervisor.
            drop(control);
            let code = reap(child);
            drop(held);
            code
        }
        Err(error) => {
            // If nobody hears it, the supervisor is gone, and so is the sandbox.
            let _ = control.say(&format!("error {}", chain(&error)));
            EXIT_NO_SANDBOX
        }
    }
}

/// All walls, from outside to inside. A descriptor that is to stay open is given back (only without `open-files`).
fn build(control: &mut Control) -> Result<(Plan, Option<std::os::fd::OwnedFd>), Error> {
    let plan: Plan = serde_json::from_str(&control.hear()?).map_err(std::io::Error::from).step("read the plan")?;
    SigSet::empty().thread_set_mask().step("unblock signals")?;
    umask(Mode::from_bits_truncate(0o022));
    nix::unistd::setsid().step("make a session")?;
    unshare_all(&plan)?;
    if plan.has(Wall::UtsNamespace) {
        nix::unistd::sethostname("sandbox").step("set the hostname")?;
    }
    if !plan.has(Wall::NetworkEgress) && plan.own_network() {
        network::open_route()?;
    }
    if plan.has(Wall::MountNamespace) {
        files::build(&plan)?;
    }
    let null = std::fs::File::open("/dev/null").at("open", "/dev/null")?;
    nix::unistd::dup2_stdin(&null).step("make /dev/null the standard input")?;
    // Made by `dup`, so it survives `exec`.
    let held = if plan.has(Wall::OpenFiles) { None } else { Some(nix::unistd::dup(&null).step("hold a file open")?) };

    privileges::drop_groups()?;
    if plan.has(Wall::UserNamespace) {
        unshare(CloneFlags::CLONE_NEWUSER).namespace("user")?;
        control.ask("map", "mapped")?;
    }
    privileges::become_unprivileged(&plan)?;
    // Changes of ids undo it, so it comes after them; if the supervisor has died before, the next answer is missing.
    prctl::set_pdeathsig(Signal::SIGKILL).step("tie this process to the supervisor")?;
    control.ask("ready", "go")?;
    privileges::lock(&plan)?;
    Ok((plan, held))
}

fn unshare_all(plan: &Plan) -> Result<(), Error> {
    let kinds = [
        (Wall::MountNamespace, CloneFlags::CLONE_NEWNS, "mnt"),
        (Wall::IpcNamespace, CloneFlags::CLONE_NEWIPC, "ipc"),
        (Wall::UtsNamespace, CloneFlags::CLONE_NEWUTS, "uts"),
        (Wall::NetNamespace, CloneFlags::CLONE_NEWNET, "net"),
        (Wall::CgroupNamespace, CloneFlags::CLONE_NEWCGROUP, "cgroup"),
    ];
    for (wall, flag, name) in kinds {
        if plan.has(wall) && (wall != Wall::NetNamespace || plan.own_network()) {
            unshare(flag).namespace(name)?;
        }
    }
    Ok(())
}

fn start(plan: &Plan) -> Result<Pid, Error> {
    let (program, arguments) = plan.command.split_first().ok_or(Errno::EINVAL).step("find the command")?;
    let child = Command::new(program).args(arguments).stdin(Stdio::null()).spawn();
    let child = child.step(format!("run {program} in the sandbox (it must be there, below /usr or bound)"))?;
    Ok(Pid::from_raw(i32::try_from(child.id()).unwrap_or_default()))
}

/// Reaps whatever ends, until the command does. When this process ends, the kernel kills the rest.
fn reap(command: Pid) -> u8 {
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid == command => return u8::try_from(code).unwrap_or(u8::MAX),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == command => {
                return 128u8.saturating_add(u8::try_from(signal as i32).unwrap_or(u8::MAX));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => {
                eprintln!("ralph-sandbox: cannot wait for the command: {error}");
                return EXIT_NO_SANDBOX;
            }
        }
    }
}

/// What the caller of `run` had open without close-on-exec must not reach the sandbox (SBX-5).
fn close_descriptors() -> Result<(), Error> {
    let entries = std::fs::read_dir("/proc/self/fd").at("read", "/proc/self/fd")?;
    let open: Vec<i32> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for descriptor in open.into_iter().filter(|descriptor| *descriptor > 2) {
        // Nothing in this process owns one yet. The one that listed them is closed already.
        let _ = nix::unistd::close(descriptor);
    }
    Ok(())
}

/// The first process's end of the conversation ([`crate::run`]).
#[derive(Debug)]
struct Control {
    stream: BufReader<UnixStream>,
}

impl Control {
    /// It comes as the standard input.
    fn new() -> Result<Self, Error> {
        let socket = std::io::stdin().as_fd().try_clone_to_owned().step("find the supervisor")?;
        Ok(Self { stream: BufReader::new(UnixStream::from(socket)) })
    }

    fn say(&mut self, line: &str) -> Result<(), Error> {
        writeln!(self.stream.get_mut(), "{line}").step("talk to the supervisor")
    }

    fn hear(&mut self) -> Result<String, Error> {
        let mut line = String::new();
        self.stream.read_line(&mut line).step("listen to the supervisor")?;
        Ok(line.trim_end().to_owned())
    }

    fn ask(&mut self, question: &str, answer: &str) -> Result<(), Error> {
        self.say(question)?;
        let heard = self.hear()?;
        if heard == answer { Ok(()) } else { Err(Error::Stage(format!("the supervisor is gone ({heard:?})"))) }
    }
}
