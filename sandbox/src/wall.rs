//! The walls of a sandbox: one name each, the same for the assertion that proves it and for `--without` (SBX-12).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A wall of the sandbox, named as in SBX-12. The order is the order of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wall {
    /// A user namespace of its own.
    UserNamespace,
    /// A mount namespace of its own.
    MountNamespace,
    /// A pid namespace of its own.
    PidNamespace,
    /// An ipc namespace of its own.
    IpcNamespace,
    /// A uts namespace of its own.
    UtsNamespace,
    /// A network namespace of its own.
    NetNamespace,
    /// A cgroup namespace of its own.
    CgroupNamespace,
    /// One unprivileged user and group, and no other.
    UserMapping,
    /// No processes of others.
    Processes,
    /// No mounts but those of SBX-2.
    Mounts,
    /// The base cannot be written to.
    BaseReadOnly,
    /// What is written to `/usr` is private.
    Overlay,
    /// `memory.max`.
    MemoryLimit,
    /// `pids.max`.
    PidsLimit,
    /// `cpu.max`.
    CpuLimit,
    /// No interface but loopback.
    NetworkInterfaces,
    /// No way out.
    NetworkEgress,
    /// No socket of the host.
    HostSockets,
    /// `no_new_privs`.
    NoNewPrivileges,
    /// The seccomp filter.
    Seccomp,
    /// No capability in any set.
    Capabilities,
    /// No descriptors but 0, 1 and 2.
    OpenFiles,
    /// `/dev/kvm`, where it is declared (SBX-7).
    Kvm,
}

/// Each wall with its name.
const NAMES: [(Wall, &str); 23] = [
    (Wall::UserNamespace, "user-namespace"),
    (Wall::MountNamespace, "mount-namespace"),
    (Wall::PidNamespace, "pid-namespace"),
    (Wall::IpcNamespace, "ipc-namespace"),
    (Wall::UtsNamespace, "uts-namespace"),
    (Wall::NetNamespace, "net-namespace"),
    (Wall::CgroupNamespace, "cgroup-namespace"),
    (Wall::UserMapping, "user-mapping"),
    (Wall::Processes, "processes"),
    (Wall::Mounts, "mounts"),
    (Wall::BaseReadOnly, "base-read-only"),
    (Wall::Overlay, "overlay"),
    (Wall::MemoryLimit, "memory-limit"),
    (Wall::PidsLimit, "pids-limit"),
    (Wall::CpuLimit, "cpu-limit"),
    (Wall::NetworkInterfaces, "network-interfaces"),
    (Wall::NetworkEgress, "network-egress"),
    (Wall::HostSockets, "host-sockets"),
    (Wall::NoNewPrivileges, "no-new-privileges"),
    (Wall::Seccomp, "seccomp"),
    (Wall::Capabilities, "capabilities"),
    (Wall::OpenFiles, "open-files"),
    (Wall::Kvm, "kvm"),
];

impl Wall {
    /// Every wall there is, in the order of SBX-12.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.into_iter().map(|(wall, _)| wall)
    }

    /// What a whole report asserts: every wall, `kvm` only where it is declared (SBX-7).
    pub fn expected(kvm: bool) -> Vec<Self> {
        Self::all().filter(|wall| kvm || *wall != Self::Kvm).collect()
    }

    /// The name, as in SBX-12.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(wall, _)| *wall == self).map_or("", |(_, name)| name)
    }

    /// The kernel's name in `/proc/self/ns`, for a wall that is a namespace.
    pub fn namespace(self) -> Option<&'static str> {
        match self {
            Self::UserNamespace => Some("user"),
            Self::MountNamespace => Some("mnt"),
            Self::PidNamespace => Some("pid"),
            Self::IpcNamespace => Some("ipc"),
            Self::UtsNamespace => Some("uts"),
            Self::NetNamespace => Some("net"),
            Self::CgroupNamespace => Some("cgroup"),
            _ => None,
        }
    }

    /// Walls that may fall with this one, because they stand on it or because there is no finer way to leave it
    /// out (SBX-22).
    pub fn stands_with(self) -> &'static [Self] {
        match self {
            Self::UserNamespace => &[Self::UserMapping],
            // Without it the host's files are seen, its /proc and its /sys/fs/cgroup among them.
            Self::MountNamespace => &[
                Self::Processes,
                Self::Mounts,
                Self::BaseReadOnly,
                Self::Overlay,
                Self::MemoryLimit,
                Self::PidsLimit,
                Self::CpuLimit,
                Self::Kvm,
            ],
            Self::PidNamespace => &[Self::Processes],
            // The hole is a mount that is not to be there; without the overlay, that mount is missing.
            Self::BaseReadOnly | Self::Overlay => &[Self::Mounts],
            Self::NetNamespace | Self::NetworkInterfaces | Self::HostSockets => {
                &[Self::NetNamespace, Self::NetworkInterfaces, Self::NetworkEgress, Self::HostSockets]
            }
            // The library that loads the filter sets it in any case.
            Self::NoNewPrivileges => &[Self::Seccomp],
            _ => &[],
        }
    }
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no wall has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no wall {0:?}; there are: {all}", all = NAMES.map(|(_, name)| name).join(" "))]
pub struct NoSuchWall(String);

impl FromStr for Wall {
    type Err = NoSuchWall;

    fn from_str(text: &str) -> Result<Self, NoSuchWall> {
        let found = NAMES.iter().find(|(_, name)| *name == text);
        found.map(|(wall, _)| *wall).ok_or_else(|| NoSuchWall(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SBX-12: names go both ways, in JSON too.
    #[test]
    fn names_round_trip() {
        for (wall, name) in NAMES {
            assert_eq!(name.parse(), Ok(wall));
            assert_eq!(wall.to_string(), name);
            assert_eq!(serde_json::to_string(&wall).unwrap(), format!("{name:?}"));
        }
        assert!("walls".parse::<Wall>().unwrap_err().to_string().contains("open-files"));
    }

    /// SBX-12: `kvm` only where it is declared.
    #[test]
    fn kvm_is_expected_only_where_declared() {
        assert_eq!(Wall::expected(true).len(), 23);
        assert!(!Wall::expected(false).contains(&Wall::Kvm));
    }
}
