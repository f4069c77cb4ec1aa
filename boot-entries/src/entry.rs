//! The content of an entry of ours (`ENT-10` to `ENT-13`).

use disk_layout::{Architecture, Slot};

use crate::esp::EspPath;
use crate::names::{Counter, EntryName, Generation, PayloadKind, PayloadName};
use crate::options::{BootOptions, OnCorruption, OptionsError, hex, is_reason, parse_hex32, printable};

/// The longest an entry may be, in bytes (`ENT-10`).
pub const ENTRY_MAX: u64 = 4096;

const LIVE: u8 = b' ';
const INERT: u8 = b'#';

/// Whether the loader sees the entry (`ENT-10`): byte 0 of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Liveness {
    /// It does.
    Live,
    /// Its `linux` line is commented out: the loader skips it.
    Inert,
}

impl Liveness {
    /// The live byte.
    pub const fn byte(self) -> u8 {
        match self {
            Liveness::Live => LIVE,
            Liveness::Inert => INERT,
        }
    }
}

/// The machine an entry is for, as the Boot Loader Specification calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryArchitecture {
    /// x86_64
    X64,
    /// aarch64
    Aa64,
}

impl EntryArchitecture {
    /// The word in the entry, which the loader compares with its own.
    pub const fn as_str(self) -> &'static str {
        match self {
            EntryArchitecture::X64 => "x64",
            EntryArchitecture::Aa64 => "aa64",
        }
    }
}

impl From<Architecture> for EntryArchitecture {
    fn from(architecture: Architecture) -> Self {
        match architecture {
            Architecture::X86_64 => EntryArchitecture::X64,
            Architecture::Aarch64 => EntryArchitecture::Aa64,
        }
    }
}

/// The payload files of an entry, by the SHA-256 that each must have (`ENT-14`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payloads {
    /// Kernel and initrd: an entry of form 1.
    Kernel {
        /// Of the kernel.
        linux: [u8; 32],
        /// Of the initial RAM disk.
        initrd: [u8; 32],
    },
    /// A unified kernel image: an entry of form 2.
    Uki(
        /// Of the image.
        [u8; 32],
    ),
}

impl Payloads {
    /// What the loader starts.
    pub fn kernel(&self) -> PayloadKind {
        match self {
            Payloads::Kernel { .. } => PayloadKind::Linux,
            Payloads::Uki(_) => PayloadKind::Uki,
        }
    }

    /// All of them, the one that the loader starts first.
    pub fn files(&self) -> Vec<(PayloadKind, [u8; 32])> {
        match self {
            Payloads::Kernel { linux, initrd } => vec![(PayloadKind::Linux, *linux), (PayloadKind::Initrd, *initrd)],
            Payloads::Uki(sha256) => vec![(PayloadKind::Uki, *sha256)],
        }
    }
}

/// An entry of ours. Slot, generation and version stand in [`Entry::options`] and nowhere else, so they cannot disagree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What a menu would show: printable ASCII, not empty, no space at either end.
    pub title: String,
    /// The machine.
    pub architecture: EntryArchitecture,
    /// The command line.
    pub options: BootOptions,
    /// Its payload files.
    pub payloads: Payloads,
}

/// The bytes are not an entry of ours (`ENT-13`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// More than 4096 bytes.
    #[error("the entry has {0} bytes, more than 4096")]
    TooLong(u64),
    /// A byte that is neither printable ASCII nor LF.
    #[error("the entry holds a byte that is neither printable ASCII nor a line feed")]
    NotAscii,
    /// Byte 0 is neither space nor `#`.
    #[error("the entry begins neither with a space nor with #")]
    LiveByte,
    /// A line is missing, stands twice, in another place or in another form.
    #[error("line {number} of the entry is not of the form {expected:?}")]
    Line {
        /// From 1.
        number: usize,
        /// How the line begins.
        expected: &'static str,
    },
    /// The options are not ours.
    #[error("the options line of the entry is not valid")]
    Options(#[from] OptionsError),
    /// Two places name different slots, generations or versions.
    #[error("the entry disagrees with itself: {0} is not what its options say")]
    Disagrees(&'static str),
}

impl Entry {
    /// The slot it starts.
    pub fn slot(&self) -> Slot {
        self.options.slot
    }

    /// Its generation.
    pub fn generation(&self) -> Generation {
        self.options.generation
    }

    /// The version of the operating system.
    pub fn os_version(&self) -> &str {
        &self.options.os_version
    }

    /// The name of its file.
    pub fn name(&self, counter: Option<Counter>) -> EntryName {
        EntryName { slot: self.slot(), generation: self.generation(), counter }
    }

    /// Where what the loader starts lies.
    pub fn kernel_path(&self) -> EspPath {
        self.payload(self.payloads.kernel()).path()
    }

    /// The name of one of its payload files.
    pub fn payload(&self, kind: PayloadKind) -> PayloadName {
        PayloadName { slot: self.slot(), generation: self.generation(), kind }
    }

    /// The file's content.
    pub fn render(&self, liveness: Liveness) -> Vec<u8> {
        let options = &self.options;
        let initrd = match self.payloads {
            Payloads::Kernel { .. } => format!("initrd /{}\n", self.payload(PayloadKind::Initrd).path()),
            Payloads::Uki(_) => String::new(),
        };
        let last = match &self.payloads {
            Payloads::Kernel { linux, initrd } => format!(
                "options {options}\n# ralphos-entry 1\n# linux-sha256 {}\n# initrd-sha256 {}\n",
                hex(linux),
                hex(initrd)
            ),
            Payloads::Uki(sha256) => format!("# ralphos-entry 2\n# options {options}\n# uki-sha256 {}\n", hex(sha256)),
        };
        let mut bytes = vec![liveness.byte()];
        bytes.extend_from_slice(
            format!(
                "linux /{}\n{initrd}title {}\nversion {}-{}\nsort-key ralphos\narchitecture {}\n{last}",
                self.kernel_path(),
                self.title,
                options.generation,
                options.os_version,
                self.architecture.as_str(),
            )
            .as_bytes(),
        );
        bytes
    }

    /// Reads a file's content. Only the exact form of `ENT-10` is accepted: a line that we do not know could mean
    /// something to the loader.
    ///
    /// # Errors
    /// When it is not that; see [`EntryError`].
    pub fn parse(bytes: &[u8]) -> Result<(Entry, Liveness), EntryError> {
        if bytes.len() as u64 > ENTRY_MAX {
            return Err(EntryError::TooLong(bytes.len() as u64));
        }
        let (liveness, rest) = match bytes.split_first() {
            Some((&LIVE, rest)) => (Liveness::Live, rest),
            Some((&INERT, rest)) => (Liveness::Inert, rest),
            _ => return Err(EntryError::LiveByte),
        };
        let text = std::str::from_utf8(rest).map_err(|_| EntryError::NotAscii)?;
        let mut lines = Lines { rest: text, number: 0 };
        let linux = lines.take("linux /")?;
        let initrd = lines.is_next("initrd ").then(|| lines.take("initrd /")).transpose()?;
        let title = lines.take("title ")?.to_owned();
        let version = lines.take("version ")?;
        lines.empty("sort-key ralphos")?;
        let architecture = match lines.take("architecture ")? {
            "x64" => EntryArchitecture::X64,
            "aa64" => EntryArchitecture::Aa64,
            _ => return Err(lines.error("architecture ")),
        };
        let (options, payloads) = match initrd {
            Some(_) => {
                let options = BootOptions::parse(lines.take("options ")?)?;
                lines.empty("# ralphos-entry 1")?;
                let (linux, initrd) = (lines.sha256("# linux-sha256 ")?, lines.sha256("# initrd-sha256 ")?);
                (options, Payloads::Kernel { linux, initrd })
            }
            None => {
                lines.empty("# ralphos-entry 2")?;
                let options = BootOptions::parse(lines.take("# options ")?)?;
                (options, Payloads::Uki(lines.sha256("# uki-sha256 ")?))
            }
        };
        if !lines.rest.is_empty() {
            lines.number += 1;
            return Err(lines.error(""));
        }
        let entry = Entry { title, architecture, options, payloads };
        if linux != entry.kernel_path().as_str() {
            return Err(EntryError::Disagrees("linux"));
        }
        if initrd.is_some_and(|path| path != entry.payload(PayloadKind::Initrd).path().as_str()) {
            return Err(EntryError::Disagrees("initrd"));
        }
        if version != format!("{}-{}", entry.generation(), entry.os_version()) {
            return Err(EntryError::Disagrees("version"));
        }
        // What is left are spellings that mean the same, such as two spaces between options.
        if entry.render(liveness) != bytes || entry.title.trim() != entry.title || entry.title.is_empty() {
            return Err(EntryError::Disagrees("the spelling"));
        }
        Ok((entry, liveness))
    }

    /// As [`Entry::parse`], and the file's name must agree (`ENT-13`).
    ///
    /// # Errors
    /// As there.
    pub fn parse_named(name: EntryName, bytes: &[u8]) -> Result<(Entry, Liveness), EntryError> {
        let (entry, liveness) = Entry::parse(bytes)?;
        if name.same_system(entry.name(None)) {
            Ok((entry, liveness))
        } else {
            Err(EntryError::Disagrees("the file name"))
        }
    }

    /// What would be refused when read back; checked before an entry is written.
    ///
    /// # Errors
    /// The error its reader would give.
    pub fn check(&self) -> Result<(), EntryError> {
        if !self.options.is_canonical() {
            // Say precisely what is wrong where the parser can.
            BootOptions::parse(&self.options.to_string())?;
            return Err(EntryError::Disagrees("the options"));
        }
        let (parsed, _) = Entry::parse(&self.render(Liveness::Inert))?;
        if parsed == *self { Ok(()) } else { Err(EntryError::Disagrees("the title")) }
    }

    /// The same entry, with this done about a corrupt block.
    pub(crate) fn on_corruption(&self, on_corruption: OnCorruption) -> Entry {
        let mut entry = self.clone();
        entry.options.on_corruption = on_corruption;
        entry
    }

    /// The same entry with a reason why it was marked bad.
    pub(crate) fn failed(&self, reason: Option<&str>) -> Entry {
        let mut entry = self.clone();
        if let Some(reason) = reason.filter(|reason| is_reason(reason)) {
            entry.options.failed = Some(reason.to_owned());
        }
        entry
    }
}

struct Lines<'a> {
    rest: &'a str,
    number: usize,
}

impl<'a> Lines<'a> {
    /// The next line's text behind `prefix`.
    fn take(&mut self, prefix: &'static str) -> Result<&'a str, EntryError> {
        self.number += 1;
        let (line, rest) = self.rest.split_once('\n').ok_or_else(|| self.error(prefix))?;
        self.rest = rest;
        if !printable(line) {
            return Err(EntryError::NotAscii);
        }
        line.strip_prefix(prefix).ok_or_else(|| self.error(prefix))
    }

    fn is_next(&self, prefix: &str) -> bool {
        self.rest.starts_with(prefix)
    }

    fn empty(&mut self, line: &'static str) -> Result<(), EntryError> {
        let tail = self.take(line)?;
        if tail.is_empty() { Ok(()) } else { Err(self.error(line)) }
    }

    fn sha256(&mut self, prefix: &'static str) -> Result<[u8; 32], EntryError> {
        let text = self.take(prefix)?;
        parse_hex32(text).ok_or_else(|| self.error(prefix))
    }

    fn error(&self, expected: &'static str) -> EntryError {
        EntryError::Line { number: self.number, expected }
    }
}

#[cfg(test)]
#[path = "entry_tests.rs"]
mod tests;
