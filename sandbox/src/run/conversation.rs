//! What supervisor and first process say to each other until the command runs: one line at a time.
//!
//! | first process | supervisor |
//! |---|---|
//! | | the plan, as JSON |
//! | `map`: is in its user namespace | wrote the maps: `mapped` |
//! | `ready`: has its ids, dies with the supervisor | `go` |
//! | `started` | |
//! | or, at any time, `error WHY` | |

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;

use crate::Wall;
use crate::error::{Error, Explain};
use crate::plan::{HOST_ID, Plan};

/// The supervisor's end.
#[derive(Debug)]
pub(super) struct Supervisor {
    stream: BufReader<UnixStream>,
    until: Instant,
}

impl Supervisor {
    /// Both ends; the other one is to be the standard input of the first process.
    pub fn new(until: Instant) -> Result<(Self, std::os::fd::OwnedFd), Error> {
        let (ours, theirs) = UnixStream::pair().step("make a pair of sockets")?;
        Ok((Self { stream: BufReader::new(ours), until }, theirs.into()))
    }

    /// Talks until the command runs, or until a signal asks for the end: then gives the exit code. `pid` is the first
    /// process.
    pub fn until_started(&mut self, plan: &Plan, pid: u32, signals: &SignalFd) -> Result<Option<u8>, Error> {
        let json = serde_json::to_string(plan).map_err(std::io::Error::from).step("write the plan")?;
        self.say(&json)?;
        loop {
            if let Some(code) = self.wait(signals)? {
                return Ok(Some(code));
            }
            match self.hear()?.as_str() {
                "map" => {
                    write_maps(plan, pid)?;
                    self.say("mapped")?;
                }
                "ready" => self.say("go")?,
                "started" => return Ok(None),
                other => {
                    let why = other.strip_prefix("error ").unwrap_or("it said what nobody understands");
                    return Err(Error::Stage(why.to_owned()));
                }
            }
        }
    }

    fn say(&mut self, line: &str) -> Result<(), Error> {
        writeln!(self.stream.get_mut(), "{line}").map_err(|e| Error::StageEnded(e.to_string()))
    }

    /// Waits for something to be heard, for a signal (gives the exit code), or for the deadline, which `hear` meets.
    fn wait(&self, signals: &SignalFd) -> Result<Option<u8>, Error> {
        while self.stream.buffer().is_empty() {
            let left = self.until.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let both = [self.stream.get_ref().as_fd(), signals.as_fd()];
            let mut both = both.map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN));
            match poll(&mut both, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                other => drop(other.step("wait for the first process")?),
            }
            if let Some(code) = super::asked_to_end(signals)? {
                return Ok(Some(code));
            }
            if both[0].any().unwrap_or(true) || left.is_zero() {
                break;
            }
        }
        Ok(None)
    }

    fn hear(&mut self) -> Result<String, Error> {
        let left = self.until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.stream.get_ref().set_read_timeout(Some(left)).step("set a deadline on the socket")?;
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(0) => Err(Error::StageEnded("it said nothing; the kernel's log may tell".to_owned())),
            Ok(_) => Ok(line.trim_end().to_owned()),
            Err(e) => Err(Error::StageEnded(e.to_string())),
        }
    }
}

/// One user and one group, and `setgroups` denied (SBX-1). Only a privileged process outside may map ids that are not
/// its own.
fn write_maps(plan: &Plan, pid: u32) -> Result<(), Error> {
    debug_assert!(plan.has(Wall::UserNamespace));
    let map = format!("{} {HOST_ID} 1\n", plan.inside_id());
    for (file, content) in [("setgroups", "deny\n"), ("uid_map", &map), ("gid_map", &map)] {
        let path = format!("/proc/{pid}/{file}");
        std::fs::write(&path, content).at("write", &path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{SigSet, Signal, raise};
    use std::collections::BTreeSet;

    /// SBX-21: SIGTERM ends it while the first process says nothing yet, long before the deadline.
    #[test]
    fn signals_are_heard_during_set_up() {
        let mut set = SigSet::empty();
        [Signal::SIGTERM, Signal::SIGCHLD].into_iter().for_each(|signal| set.add(signal));
        set.thread_block().unwrap();
        let signals = SignalFd::with_flags(&set, nix::sys::signalfd::SfdFlags::SFD_NONBLOCK).unwrap();
        let start = Instant::now();
        let (mut supervisor, theirs) = Supervisor::new(start + Duration::from_secs(60)).unwrap();
        // To this thread, as both are blocked in no other.
        raise(Signal::SIGCHLD).unwrap();
        raise(Signal::SIGTERM).unwrap();
        let plan = Plan {
            without: BTreeSet::new(),
            binds: Vec::new(),
            kvm: false,
            cgroup: None,
            layer: 0,
            command: Vec::new(),
        };
        assert_eq!(supervisor.until_started(&plan, 0, &signals).unwrap(), Some(128 + 15));
        assert!(start.elapsed() < Duration::from_secs(30));
        // Without one, what is said is heard, in one piece or more, and so is silence.
        writeln!(UnixStream::from(theirs), "ready\nstarted").unwrap();
        assert_eq!(supervisor.until_started(&plan, 0, &signals).ok(), None, "it hung up");
        let (mut supervisor, theirs) = Supervisor::new(Instant::now() + Duration::from_millis(50)).unwrap();
        assert!(supervisor.until_started(&plan, 0, &signals).is_err());
        let mut theirs = UnixStream::from(theirs);
        writeln!(theirs, "ready\nstarted").unwrap();
        assert_eq!(supervisor.until_started(&plan, 0, &signals).unwrap(), None);
    }
}
