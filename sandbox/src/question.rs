//! What the probe is asked (SBX-11), and how it is run twice (SBX-15).

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Wall;
use crate::host::HostSockets;

/// What a sandbox may use (SBX-3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// `memory.max`, in bytes.
    pub memory: u64,
    /// `pids.max`, processes and threads.
    pub pids: u32,
    /// `cpu.max`, in percent of one CPU.
    pub cpu_percent: u32,
}

impl Limits {
    /// The limits of the smoke test: 64 MiB, 32 processes, half of one CPU (SBX-3).
    pub const SMOKE_TEST: Self = Self { memory: 64 << 20, pids: 32, cpu_percent: 50 };
}

/// What the probe gets on its command line, because it cannot know it (SBX-11).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// 1.
    pub format: u32,
    /// The inode numbers of the host's `/proc/self/ns/*`, by the kernel's names (`user`, `mnt`, …).
    pub host_namespaces: BTreeMap<String, u64>,
    /// The limits that must hold.
    pub limits: Limits,
    /// Mount points that may be there besides those of SBX-2.
    pub mounts: Vec<String>,
    /// A port of the host's 127.0.0.1 on which something listens.
    pub tcp_port: u16,
    /// The name of an abstract socket on which something on the host listens.
    pub abstract_socket: String,
    /// The name of a file to write to `/usr`.
    pub marker: String,
    /// Whether this is the second sandbox, in which the marker must not be there (SBX-15).
    pub marker_must_be_absent: bool,
    /// Whether `/dev/kvm` is declared (SBX-7).
    pub kvm: bool,
}

impl Question {
    /// The question for a sandbox on this host, with a new marker. `sockets` must live as long as the probe runs.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn new(limits: Limits, sockets: &HostSockets, mounts: Vec<String>, kvm: bool) -> io::Result<Self> {
        Ok(Self {
            format: 1,
            host_namespaces: own_namespaces()?,
            limits,
            mounts,
            tcp_port: sockets.port(),
            abstract_socket: sockets.name().to_owned(),
            marker: format!(".ralph-sandbox-{}", unique()?),
            marker_must_be_absent: false,
            kvm,
        })
    }

    /// The command of the first sandbox: every assertion. `program` is the path of `ralph-sandbox` *inside*.
    pub fn first_command(&self, program: &str) -> Vec<String> {
        self.command(program, false)
    }

    /// The command of the second sandbox: the marker must be absent, then the program replaces itself with `command`
    /// (SBX-15).
    pub fn second_command(&self, program: &str, command: &[String]) -> Vec<String> {
        let mut words = self.command(program, true);
        words.push("--".to_owned());
        words.extend_from_slice(command);
        words
    }

    /// Where the marker must not be once the sandboxes are gone: a path of the host (SBX-15).
    pub fn marker_on_host(&self) -> PathBuf {
        Path::new("/usr").join(&self.marker)
    }

    /// What a whole report on this question asserts.
    pub fn expected(&self) -> Vec<Wall> {
        if self.marker_must_be_absent { vec![Wall::Overlay] } else { Wall::expected(self.kvm) }
    }

    fn command(&self, program: &str, marker_must_be_absent: bool) -> Vec<String> {
        let question = Self { marker_must_be_absent, ..self.clone() };
        // Strings, numbers and a map with string keys: this cannot fail.
        let json = serde_json::to_string(&question).unwrap_or_default();
        vec![program.to_owned(), "probe".to_owned(), json]
    }
}

/// The inode numbers of this process's namespaces, by the kernel's names.
///
/// # Errors
/// When `/proc/self/ns` cannot be read.
pub fn own_namespaces() -> io::Result<BTreeMap<String, u64>> {
    Wall::all()
        .filter_map(Wall::namespace)
        .map(|name| Ok((name.to_owned(), std::fs::metadata(Path::new("/proc/self/ns").join(name))?.ino())))
        .collect()
}

/// A name that nobody else uses, from the kernel's random numbers.
pub(crate) fn unique() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> Question {
        let sockets = HostSockets::listen().unwrap();
        Question::new(Limits::SMOKE_TEST, &sockets, vec!["/x".to_owned()], true).unwrap()
    }

    /// SBX-11, SBX-15: the two commands differ in the marker's fate and the trivial command.
    #[test]
    fn commands_carry_the_question() {
        let question = question();
        let first = question.first_command("/usr/bin/ralph-sandbox");
        assert_eq!(first[..2], ["/usr/bin/ralph-sandbox", "probe"]);
        assert_eq!(serde_json::from_str::<Question>(&first[2]).unwrap(), question);
        let second = question.second_command("/p", &["/usr/bin/true".to_owned(), "-x".to_owned()]);
        assert_eq!(second[3..], ["--", "/usr/bin/true", "-x"]);
        let asked: Question = serde_json::from_str(&second[2]).unwrap();
        assert!(asked.marker_must_be_absent);
        assert_eq!((asked.marker.clone(), asked.expected()), (question.marker.clone(), vec![Wall::Overlay]));
    }

    #[test]
    fn markers_are_unique_and_plain_names() {
        let (one, other) = (question(), question());
        assert_ne!(one.marker, other.marker);
        assert!(!one.marker.contains('/'));
        assert_eq!(one.marker_on_host(), Path::new("/usr").join(&one.marker));
    }
}
