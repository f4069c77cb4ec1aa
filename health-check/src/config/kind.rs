//! What a check does, as types that hold nothing a check could not do.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use crate::span::Span;

/// What a check does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A systemd unit is active and has been so for a while (HLT-22).
    Unit {
        /// Full name of the unit, like `ralphd.service`.
        unit: String,
        /// How long it must have been active without a restart.
        stable_for: Span,
    },
    /// A command exits 0 (HLT-21).
    Command {
        /// Absolute path of the program.
        program: PathBuf,
        /// Its arguments; there is no shell.
        args: Vec<String>,
    },
    /// A server answers as expected (HLT-26).
    Http(Http),
    /// A sandbox can be made and its walls hold (HLT-27).
    Sandbox(Sandbox),
    /// A file or directory is as it must be (HLT-28).
    Path(PathCheck),
}

/// Who is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// An address; no name is ever looked up.
    Tcp(SocketAddr),
    /// A unix stream socket.
    Unix(PathBuf),
}

/// What is asked of a server, and what it must answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// Who is asked.
    pub server: Server,
    /// The value of `Host`.
    pub host: String,
    /// Begins with `/`; printable ASCII without spaces.
    pub path: String,
    /// The status expected.
    pub status: u16,
    /// What the answer must hold.
    pub json: Vec<Expectation>,
    /// JSON pointer to what is recorded.
    pub record: Option<String>,
}

/// A place in a JSON document and what must stand there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    /// A JSON pointer (RFC 6901).
    pub pointer: String,
    /// One of these; never empty. Strings, integers and booleans alone.
    pub one_of: Vec<Value>,
}

/// The smoke test of the sandbox (SBX-15).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// The trivial command; the first word is an absolute path.
    pub command: Vec<String>,
    /// What it must print; `None`: not looked at.
    pub output: Option<String>,
    /// Its exit code.
    pub exit: i32,
    /// Who makes the sandbox.
    pub runner: RunnerChoice,
    /// Is `/dev/kvm` part of it (SBX-7)?
    pub kvm: bool,
}

/// Who makes the sandbox (SBX-20).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunnerChoice {
    /// `ralph-sandbox run`.
    Own,
    /// `ralphd` (HLT-8).
    Ralphd,
    /// `ralphd` if it offers it, else our own (HLT-7).
    Auto,
}

/// How a file or directory must be (HLT-28).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathCheck {
    /// Absolute; links are followed.
    pub path: PathBuf,
    /// What it must be; `None`: a file or a directory or anything else.
    pub file_type: Option<FileType>,
    /// Must it take a new file, or be opened for writing?
    pub writable: bool,
    /// Bytes that must be free for unprivileged users.
    pub free: Option<Size>,
}

/// What a path can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileType {
    /// A directory.
    Directory,
    /// A regular file.
    File,
}

/// A number of bytes. Its text is a decimal number and a unit, `KiB`, `MiB` or `GiB`, with nothing between or around them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl Size {
    /// Reads the text of the configuration; `None` if it is not the text of a size, or of one with more than nine digits.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, scale) = UNITS.iter().find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, scale)))?;
        if !(1..=9).contains(&number.len()) || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        Some(Self(number.parse::<u64>().ok()? * scale))
    }

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, scale) = UNITS.iter().find(|(_, scale)| self.0.is_multiple_of(*scale)).unwrap_or(&UNITS[2]);
        write!(f, "{}{unit}", self.0 / scale)
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl fmt::Display for Kind {
    /// One line for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unit { unit, stable_for } => write!(f, "{unit} active for {stable_for}"),
            Self::Command { program, args } => {
                write!(f, "{}", program.display())?;
                args.iter().try_for_each(|arg| write!(f, " {arg}"))
            }
            Self::Http(http) => write!(f, "GET {} of {} answers {}", http.path, http.server, http.status),
            Self::Sandbox(sandbox) => write!(f, "{} in a sandbox", sandbox.command.join(" ")),
            Self::Path(path) => {
                write!(f, "{}", path.path.display())?;
                if path.writable {
                    write!(f, " writable")?;
                }
                path.free.map_or(Ok(()), |free| write!(f, " with {free} free"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_hlt_11() {
        assert_eq!(Size::parse("64MiB").unwrap().bytes(), 64 << 20);
        assert_eq!(Size::parse("0KiB").unwrap().bytes(), 0);
        assert_eq!(Size::parse("999999999GiB").unwrap().bytes(), 999_999_999 << 30);
        for text in ["", "MiB", "64", "64M", "64MB", "64 MiB", "-1MiB", "+1MiB", "1.5MiB", "1000000000KiB", "64mib"] {
            assert_eq!(Size::parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(number in 0u64..1_000_000, unit in 0usize..3) {
            let size = Size::parse(&format!("{number}{}", UNITS[unit].0)).unwrap();
            prop_assert_eq!(Size::parse(&size.to_string()), Some(size));
        }

        #[test]
        fn no_text_breaks_the_parser(text in any::<String>()) {
            let _ = Size::parse(&text);
        }
    }
}
