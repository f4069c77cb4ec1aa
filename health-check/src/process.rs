//! Running a program for a limited time, and ending it whole.
//!
//! A program has its own process group, and its end never depends on the end of what it started: we wait for the program, kill the
//! group, and take what the pipe holds by then. Waiting for the pipe's end instead would wait for the last process that
//! inherited it, however far it moved away.

mod strays;
mod tail;
#[cfg(test)]
mod tests;

use std::io::{ErrorKind, PipeReader, PipeWriter, Read};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

pub use strays::{adopt_strays, kill_strays};
use tail::Tail;

/// Bytes of output that are kept, the last ones (HLT-21).
pub const KEPT: usize = 2048;
/// Bytes of output that are whole when it is kept apart (SBX-20).
pub const LARGEST: usize = 64 * 1024;
/// HLT-21.
const PATH: &str = "/usr/bin:/usr/sbin:/bin:/sbin";
/// How long a killed program may take to be gone; one stuck in the kernel is left behind.
const REAP: Duration = Duration::from_secs(2);
/// Longest pause between two looks at the program.
const LONGEST_TICK: Duration = Duration::from_millis(100);
/// Output taken in one go, in bytes, so that a program that never stops writing cannot hold us past its deadline.
const ONE_GO: usize = 1 << 20;

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// The time was over and it was killed.
    Deadline,
}

/// A program that has ended.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub end: End,
    /// The last [`KEPT`] bytes of standard output and standard error together; what is not UTF-8 is replaced.
    pub output: String,
}

/// A program that has ended, with its output and its complaints apart.
#[derive(Debug)]
pub struct EndedApart {
    /// How.
    pub end: End,
    /// The last bytes of standard output, [`LARGEST`] and one: longer output is never mistaken for a whole one.
    pub stdout: Vec<u8>,
    /// The last bytes of standard error, as many.
    pub stderr: Vec<u8>,
}

/// Why a program did not run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No pipe for its output.
    #[error("cannot make a pipe for its output")]
    Pipe(#[source] std::io::Error),
    /// The pipe cannot be read without blocking.
    #[error("cannot make the pipe of its output non-blocking")]
    NonBlocking(#[source] nix::Error),
    /// It cannot be executed.
    #[error("cannot start {program}")]
    Spawn {
        /// The program.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl StartError {
    /// Will it be so again? A program that does not exist or cannot be executed stays so; that the machine has no room for one more may
    /// pass.
    pub fn is_lasting(&self) -> bool {
        let Self::Spawn { source, .. } = self else { return false };
        let lasting = [Errno::ENOENT, Errno::EACCES, Errno::ENOEXEC, Errno::ENOTDIR, Errno::ELOOP, Errno::ENAMETOOLONG];
        // Without a number of the system it is the standard library that refuses the words.
        source.raw_os_error().is_none_or(|number| lasting.contains(&Errno::from_raw(number)))
    }
}

/// Runs a program with the environment of HLT-21 for no longer than `within`; when this returns, its process group is dead.
pub fn run(program: &Path, args: &[String], within: Duration) -> Result<Ended, StartError> {
    let (output, writer) = Output::pipe(KEPT)?;
    let second = writer.try_clone().map_err(StartError::Pipe)?;
    let (end, [output]) = limited(program, args, within, [writer, second], [output])?;
    Ok(Ended { end, output: output.tail.text() })
}

/// The same, with standard output and standard error apart.
pub fn run_apart(program: &Path, args: &[String], within: Duration) -> Result<EndedApart, StartError> {
    let (stdout, first) = Output::pipe(LARGEST + 1)?;
    let (stderr, second) = Output::pipe(LARGEST + 1)?;
    let (end, [stdout, stderr]) = limited(program, args, within, [first, second], [stdout, stderr])?;
    Ok(EndedApart { end, stdout: stdout.tail.into_bytes(), stderr: stderr.tail.into_bytes() })
}

/// The end of a text, as much as is kept of an output.
pub fn tail(text: &str) -> String {
    let mut tail = Tail::new(KEPT);
    tail.push(text.as_bytes());
    tail.text()
}

/// Runs a program that writes to `writers` (standard output, standard error), and reads `outputs` meanwhile.
fn limited<const N: usize>(
    program: &Path,
    args: &[String],
    within: Duration,
    writers: [PipeWriter; 2],
    mut outputs: [Output; N],
) -> Result<(End, [Output; N]), StartError> {
    let deadline = Instant::now() + within;
    let mut group = Group::of(start(program, args, writers)?);
    let mut tick = Duration::from_millis(2);

    let in_time = loop {
        outputs.iter_mut().for_each(Output::take);
        if group.leader_has_exited() {
            break true;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break false;
        }
        wait(&outputs, tick.min(left));
        tick = (tick * 2).min(LONGEST_TICK);
    };
    let status = group.kill();
    // What the program wrote before it ended, and no more: others may hold the pipe open for ever.
    outputs.iter_mut().for_each(Output::take);

    let end = match status {
        Some(status) if in_time => match (status.code(), status.signal()) {
            (Some(code), _) => End::Code(code),
            (None, signal) => End::Signal(signal.unwrap_or(0)),
        },
        _ => End::Deadline,
    };
    Ok((end, outputs))
}

fn start(program: &Path, args: &[String], [stdout, stderr]: [PipeWriter; 2]) -> Result<Child, StartError> {
    Command::new(program)
        .args(args)
        .env_clear()
        .env("PATH", PATH)
        .env("LANG", "C.UTF-8")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .process_group(0)
        .spawn()
        .map_err(|source| StartError::Spawn { program: program.display().to_string(), source })
}

/// A program and the process group it leads. The leader is not reaped before the group is killed, so that the group's number cannot
/// belong to somebody else by then.
struct Group {
    leader: Child,
    id: Pid,
}

impl Group {
    fn of(leader: Child) -> Self {
        // Process numbers are positive and fit: the kernel's own type is an i32.
        let id = Pid::from_raw(i32::try_from(leader.id()).unwrap_or(i32::MAX));
        Self { leader, id }
    }

    /// Looks without reaping.
    fn leader_has_exited(&self) -> bool {
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(self.id), look) {
            Ok(WaitStatus::StillAlive) | Err(nix::Error::EINTR) => false,
            // Also EINVAL: ended by a signal that has no name, a real-time one.
            Ok(_) | Err(_) => true,
        }
    }

    /// Kills the whole group, then reaps its leader. `None` if the leader does not go away.
    fn kill(&mut self) -> Option<ExitStatus> {
        // It fails when everybody is gone, which is what is wanted.
        let _ = killpg(self.id, Signal::SIGKILL);
        let until = Instant::now() + REAP;
        loop {
            match self.leader.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(2)),
                Ok(None) | Err(_) => return None,
            }
        }
    }
}

/// The reading end of a pipe, and what came through it.
struct Output {
    reader: PipeReader,
    tail: Tail,
    /// Nobody holds the writing end any more.
    ended: bool,
}

impl Output {
    /// A new pipe, of which the last `most` bytes are kept.
    fn pipe(most: usize) -> Result<(Self, PipeWriter), StartError> {
        let (reader, writer) = std::io::pipe().map_err(StartError::Pipe)?;
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(StartError::NonBlocking)?;
        Ok((Self { reader, tail: Tail::new(most), ended: false }, writer))
    }

    /// Takes what is there.
    fn take(&mut self) {
        let mut buffer = [0; 8192];
        let mut taken = 0;
        while !self.ended && taken < ONE_GO {
            match self.reader.read(&mut buffer) {
                Ok(0) => self.ended = true,
                Ok(n) => {
                    self.tail.push(&buffer[..n]);
                    taken += n;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.ended = true,
            }
        }
    }
}

/// Waits for output, or for the time.
fn wait(outputs: &[Output], how_long: Duration) {
    let mut open: Vec<PollFd<'_>> = outputs
        .iter()
        .filter(|output| !output.ended)
        .map(|output| PollFd::new(output.reader.as_fd(), PollFlags::POLLIN))
        .collect();
    if open.is_empty() {
        return std::thread::sleep(how_long);
    }
    // Rounded up: a poll of 0 ms would spin.
    let timeout = PollTimeout::try_from(how_long.as_millis() + 1).unwrap_or(PollTimeout::MAX);
    // An interrupted poll is an early look, no more.
    let _ = poll(&mut open, timeout);
}
