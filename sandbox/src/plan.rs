//! What the sandbox is to be: from the command line to the first process inside.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::{Limits, Wall};

/// A folder or file of the host that can be read inside (SBX-2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Its path on the host.
    pub host: PathBuf,
    /// Its path in the sandbox.
    pub inside: PathBuf,
}

impl FromStr for Bind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::Bind(text.to_owned());
        let (host, inside) = text.split_once(':').ok_or_else(bad)?;
        let inside_path = Path::new(inside);
        let mut parts = inside_path.components();
        let plain = parts.next() == Some(Component::RootDir) && parts.all(|part| matches!(part, Component::Normal(_)));
        // `components` leaves `.` out silently.
        let dots = inside.split('/').any(|part| part == "." || part == "..");
        if host.is_empty() || !plain || dots || inside_path.parent().is_none() {
            return Err(bad());
        }
        Ok(Self { host: host.into(), inside: inside_path.to_owned() })
    }
}

/// What `run` was told (SBX-21).
#[derive(Clone, Debug)]
pub struct Options {
    /// The limits (SBX-3).
    pub limits: Limits,
    /// What to bind (SBX-2).
    pub binds: Vec<Bind>,
    /// Whether `/dev/kvm` is there (SBX-7).
    pub kvm: bool,
    /// When to end it; `None` is never.
    pub deadline: Option<Duration>,
    /// Walls to leave out (SBX-22).
    pub without: BTreeSet<Wall>,
    /// Whether it gets a cgroup. Without one it has no limits: for tests where there is no cgroup v2.
    pub cgroup: bool,
    /// The command.
    pub command: Vec<String>,
}

/// What the first process of the sandbox has to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub without: BTreeSet<Wall>,
    pub binds: Vec<Bind>,
    pub kvm: bool,
    /// The folder of its cgroup on the host.
    pub cgroup: Option<PathBuf>,
    /// The size of the private layer over `/usr`, in bytes.
    pub layer: u64,
    pub command: Vec<String>,
}

impl Plan {
    /// Whether this wall is to be built.
    pub fn has(&self, wall: Wall) -> bool {
        !self.without.contains(&wall)
    }

    /// Whether it gets a network namespace. There is no finer way to leave the other two walls out (SBX-22).
    pub fn own_network(&self) -> bool {
        [Wall::NetNamespace, Wall::NetworkInterfaces, Wall::HostSockets].into_iter().all(|wall| self.has(wall))
    }

    /// The user and group inside.
    pub fn inside_id(&self) -> u32 {
        match (self.has(Wall::UserNamespace), self.has(Wall::UserMapping)) {
            (false, _) => HOST_ID,
            (true, true) => INSIDE_ID,
            (true, false) => 0,
        }
    }
}

/// User and group inside (SBX-1).
const INSIDE_ID: u32 = 1000;

/// User and group on the host (SBX-1).
pub(crate) const HOST_ID: u32 = 61000;

#[cfg(test)]
mod tests {
    use super::*;

    /// SBX-21: HOST:INSIDE.
    #[test]
    fn binds_are_parsed() {
        let bind: Bind = "/a/b:/c/d".parse().unwrap();
        assert_eq!(bind, Bind { host: "/a/b".into(), inside: "/c/d".into() });
        for text in ["", "/a", "/a:", ":/a", "/a:b", "/a:/", "/a:/b/../c", "/a:/./b", "/a:/..", "/a://"] {
            assert!(text.parse::<Bind>().is_err(), "{text}");
        }
    }
}
