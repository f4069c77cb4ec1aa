//! `ralph-sandbox run`: makes a sandbox, watches over it, takes it away (SBX-21).
//!
//! This process stays in the host's namespaces with root's privileges. Its child is the first process of the sandbox
//! ([`crate::stage`]); the two talk over a socket until the command runs. The order matters: the child is put into
//! its cgroup before it does anything, and it gives its privileges away before it starts the command.

mod conversation;

use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::getppid;

use crate::Wall;
use crate::cgroup::Cgroup;
use crate::error::{Error, Explain};
use crate::plan::{Bind, Options, Plan};
use conversation::Supervisor;

/// The exit code of `run` when the deadline passed.
pub const EXIT_DEADLINE: u8 = 124;

/// The exit code of `run` when there was no sandbox.
pub const EXIT_NO_SANDBOX: u8 = 125;

/// How long making the sandbox may take when the command has no deadline.
const SETUP: Duration = Duration::from_secs(60);

/// Ends the sandbox.
const SIGNALS: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];

/// Runs the command in a sandbox and gives the exit code that `run` ends with.
///
/// # Errors
/// When the sandbox could not be made, or not be taken away.
pub fn run(options: &Options) -> Result<u8, Error> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    for wall in &options.without {
        eprintln!("ralph-sandbox: warning: made without {wall}");
    }
    let deadline = options.deadline.map(|time| Instant::now() + time);
    let plan = Plan { binds: resolve(&options.binds)?, ..plan(options) };
    let (signals, orphaned) = watch_signals()?;
    if orphaned {
        return Ok(ended_by(Signal::SIGTERM as u32));
    }
    let cgroup = options.cgroup.then(|| Cgroup::create(&options.limits, &options.without)).transpose()?;
    let plan = Plan { cgroup: cgroup.as_ref().map(|cgroup| cgroup.dir().to_owned()), ..plan };

    let result = supervise(&plan, cgroup.as_ref(), &signals, deadline);
    let removed = cgroup.map_or(Ok(()), Cgroup::remove);
    let code = result?;
    removed.map(|()| code)
}

fn plan(options: &Options) -> Plan {
    Plan {
        without: options.without.clone(),
        binds: Vec::new(),
        kvm: options.kvm,
        cgroup: None,
        layer: options.limits.memory,
        command: options.command.clone(),
    }
}

/// Follows links now: inside, they would lead elsewhere.
fn resolve(binds: &[Bind]) -> Result<Vec<Bind>, Error> {
    let resolve = |bind: &Bind| {
        let host = bind.host.canonicalize().at("find what is to be bound,", &bind.host)?;
        Ok(Bind { host, inside: bind.inside.clone() })
    };
    binds.iter().map(resolve).collect()
}

/// SIGTERM and its like, the end of a child, and (as SIGTERM) the death of the parent arrive on a descriptor.
/// Says, too, whether the parent has died before it was asked for that: then nothing arrives.
fn watch_signals() -> Result<(SignalFd, bool), Error> {
    let parent = getppid();
    let mut set = SigSet::empty();
    set.add(Signal::SIGCHLD);
    SIGNALS.iter().for_each(|signal| set.add(*signal));
    set.thread_block().step("block signals")?;
    prctl::set_pdeathsig(Signal::SIGTERM).step("ask for a signal when the parent dies")?;
    let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).step("watch signals")?;
    Ok((signals, getppid() != parent))
}

/// The exit code of what a signal has ended.
fn ended_by(signal: u32) -> u8 {
    128u8.saturating_add(u8::try_from(signal).unwrap_or(u8::MAX))
}

/// The signal that asks for the end, if one has arrived. The end of a child is only a reason to look again.
fn asked_to_end(signals: &SignalFd) -> Result<Option<u8>, Error> {
    while let Some(info) = signals.read_signal().step("read a signal")? {
        if info.ssi_signo != Signal::SIGCHLD as u32 {
            return Ok(Some(ended_by(info.ssi_signo)));
        }
    }
    Ok(None)
}

fn supervise(plan: &Plan, cgroup: Option<&Cgroup>, signals: &SignalFd, deadline: Option<Instant>) -> Result<u8, Error> {
    if plan.has(Wall::PidNamespace) {
        unshare(CloneFlags::CLONE_NEWPID).namespace("pid")?;
    }
    let (mut supervisor, theirs) = Supervisor::new(deadline.unwrap_or_else(|| Instant::now() + SETUP))?;
    let child = Command::new("/proc/self/exe")
        .arg("stage")
        .env_clear()
        .envs([("PATH", "/usr/bin:/usr/sbin:/bin:/sbin"), ("LANG", "C.UTF-8")])
        .current_dir("/")
        .stdin(Stdio::from(theirs))
        .spawn()
        .step("start the first process of the sandbox")?;
    let mut sandbox = Sandbox { child, cgroup };
    if let Some(cgroup) = cgroup {
        cgroup.add(sandbox.child.id())?;
    }
    match supervisor.until_started(plan, sandbox.child.id(), signals) {
        Ok(Some(code)) => Ok(code),
        Ok(None) => sandbox.watch(signals, deadline),
        Err(_) if deadline.is_some_and(|deadline| Instant::now() >= deadline) => Ok(EXIT_DEADLINE),
        Err(error) => Err(error),
    }
}

/// A sandbox with something in it. Dropping it kills everything inside and reaps the first process.
#[derive(Debug)]
struct Sandbox<'a> {
    child: Child,
    cgroup: Option<&'a Cgroup>,
}

impl Sandbox<'_> {
    /// Waits for the end: its own, the deadline's, or ours.
    fn watch(&mut self, signals: &SignalFd, deadline: Option<Instant>) -> Result<u8, Error> {
        loop {
            if let Some(status) = self.child.try_wait().step("wait for the sandbox")? {
                return Ok(exit_code(status));
            }
            let timeout = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => PollTimeout::NONE,
                Some(Duration::ZERO) => return Ok(EXIT_DEADLINE),
                // Rounded up, or it would spin through the last millisecond.
                Some(left) => PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX),
            };
            match poll(&mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                other => drop(other.step("wait for signals")?),
            }
            if let Some(code) = asked_to_end(signals)? {
                return Ok(code);
            }
        }
    }
}

impl Drop for Sandbox<'_> {
    fn drop(&mut self) {
        // The cgroup has them all, even without a pid namespace. The kill of the first process is for the time before
        // it is in there, and where there is no cgroup: with it goes its pid namespace.
        if let Some(cgroup) = self.cgroup {
            let _ = cgroup.kill();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    u8::try_from(code).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SBX-21: its code, or 128+signal.
    #[test]
    fn exit_codes() {
        assert_eq!(exit_code(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(exit_code(ExitStatus::from_raw(9)), 137);
    }
}
