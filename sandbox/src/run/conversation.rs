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
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

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

    /// Talks until the command runs. `pid` is the first process.
    pub fn until_started(&mut self, plan: &Plan, pid: u32) -> Result<(), Error> {
        let json = serde_json::to_string(plan).map_err(std::io::Error::from).step("write the plan")?;
        self.say(&json)?;
        loop {
            match self.hear()?.as_str() {
                "map" => {
                    write_maps(plan, pid)?;
                    self.say("mapped")?;
                }
                "ready" => self.say("go")?,
                "started" => return Ok(()),
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
