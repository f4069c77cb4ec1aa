//! The content of an entry of ours (`ENT-10` to `ENT-13`).

use disk_layout::Slot;

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

/// An entry of ours. Slot, generation and version stand in [`Entry::options`] and nowhere else, so they cannot disagree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What a menu would show: printable ASCII, not empty, no space at either end.
    pub title: String,
    /// The machine.
    pub architecture: EntryArchitecture,
    /// The command line.
    pub options: BootOptions,
    /// SHA-256 of the kernel file.
    pub linux_sha256: [u8; 32],
    /// SHA-256 of the initrd file.
    pub initrd_sha256: [u8; 32],
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

    /// Where its kernel lies.
    pub fn linux_path(&self) -> EspPath {
        self.payload(PayloadKind::Linux).path()
    }

    /// Where its initrd lies.
    pub fn initrd_path(&self) -> EspPath {
        self.payload(PayloadKind::Initrd).path()
    }

    /// The name of one of its payload files.
    pub fn payload(&self, kind: PayloadKind) -> PayloadName {
        PayloadName { slot: self.slot(), generation: self.generation(), kind }
    }

    /// The SHA-256 that the entry records for one of its payload files.
    pub fn sha256(&self, kind: PayloadKind) -> &[u8; 32] {
        match kind {
            PayloadKind::Linux => &self.linux_sha256,
            PayloadKind::Initrd => &self.initrd_sha256,
        }
    }

    /// The file's content.
    pub fn render(&self, liveness: Liveness) -> Vec<u8> {
        let options = &self.options;
        let mut bytes = vec![liveness.byte()];
        bytes.extend_from_slice(
            format!(
                "linux /{}\ninitrd /{}\ntitle {}\nversion {}-{}\nsort-key ralphos\narchitecture {}\noptions {options}\n\
                 # ralphos-entry 1\n# linux-sha256 {}\n# initrd-sha256 {}\n",
                self.linux_path(),
                self.initrd_path(),
                self.title,
                options.generation,
                options.os_version,
                self.architecture.as_str(),
                hex(&self.linux_sha256),
                hex(&self.initrd_sha256),
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
        let initrd = lines.take("initrd /")?;
        let title = lines.take("title ")?.to_owned();
        let version = lines.take("version ")?;
        lines.empty("sort-key ralphos")?;
        let architecture = match lines.take("architecture ")? {
            "x64" => EntryArchitecture::X64,
            "aa64" => EntryArchitecture::Aa64,
            _ => return Err(lines.error("architecture ")),
        };
        let options = BootOptions::parse(lines.take("options ")?)?;
        lines.empty("# ralphos-entry 1")?;
        let linux_sha256 = lines.sha256("# linux-sha256 ")?;
        let initrd_sha256 = lines.sha256("# initrd-sha256 ")?;
        if !lines.rest.is_empty() {
            lines.number += 1;
            return Err(lines.error(""));
        }
        let entry = Entry { title, architecture, options, linux_sha256, initrd_sha256 };
        if linux != entry.linux_path().as_str() {
            return Err(EntryError::Disagrees("linux"));
        }
        if initrd != entry.initrd_path().as_str() {
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{any_options, entry};

    const FILE: &str = " linux /ralphos/b/g7-linux
initrd /ralphos/b/g7-initrd
title RalphOS
version 7-1.2.0
sort-key ralphos
architecture x64
options root=/dev/mapper/root ro roothash=1111111111111111111111111111111111111111111111111111111111111111 systemd.verity_root_data=PARTUUID=6ba7b810-9dad-11d1-80b4-00c04fd430c8 systemd.verity_root_hash=PARTUUID=6ba7b810-9dad-11d1-80b4-00c04fd430c8 systemd.verity_root_options=hash-offset=1048576 ralph.slot=b ralph.generation=7 ralph.system=2222222222222222222222222222222222222222222222222222222222222222 ralph.epoch=3 ralph.version=1.2.0 quiet panic=10
# ralphos-entry 1
# linux-sha256 3333333333333333333333333333333333333333333333333333333333333333
# initrd-sha256 4444444444444444444444444444444444444444444444444444444444444444
";

    fn literal() -> Entry {
        Entry { linux_sha256: [0x33; 32], initrd_sha256: [0x44; 32], ..entry(Slot::B, 7) }
    }

    #[test]
    fn ent10_the_literal_entry_round_trips() {
        assert_eq!(Entry::parse(FILE.as_bytes()), Ok((literal(), Liveness::Live)));
        assert_eq!(String::from_utf8(literal().render(Liveness::Live)).unwrap(), FILE);
        literal().check().unwrap();
    }

    #[test]
    fn ent10_live_and_inert_differ_in_byte_0_alone() {
        let (live, inert) = (literal().render(Liveness::Live), literal().render(Liveness::Inert));
        assert_eq!((live[0], inert[0]), (b' ', b'#'));
        assert_eq!(live[1..], inert[1..]);
        assert_eq!(Entry::parse(&inert), Ok((literal(), Liveness::Inert)));
    }

    #[test]
    fn ent13_a_missing_or_doubled_line_is_refused() {
        let lines: Vec<&str> = FILE.lines().collect();
        for at in 0..lines.len() {
            let mut fewer = lines.clone();
            fewer.remove(at);
            assert!(Entry::parse((fewer.join("\n") + "\n").as_bytes()).is_err(), "without line {at}");
            let mut more = lines.clone();
            more.insert(at, lines[at]);
            assert!(Entry::parse((more.join("\n") + "\n").as_bytes()).is_err(), "line {at} twice");
        }
    }

    #[test]
    fn ent13_places_that_disagree_are_refused() {
        for (from, to, what) in [
            ("linux /ralphos/b/g7", "linux /ralphos/a/g7", "linux"),
            ("linux /ralphos/b/g7-linux", "linux /ralphos/b/g7-initrd", "linux"),
            ("initrd /ralphos/b/g7", "initrd /ralphos/b/g6", "initrd"),
            ("version 7-", "version 8-", "version"),
            ("version 7-1.2.0", "version 7-1.2.1", "version"),
            ("quiet panic", "quiet  panic", "the spelling"),
        ] {
            let text = FILE.replacen(from, to, 1);
            assert_eq!(Entry::parse(text.as_bytes()), Err(EntryError::Disagrees(what)), "{to}");
        }
        let name = "ralphos-b-g8.conf".parse().unwrap();
        assert_eq!(Entry::parse_named(name, FILE.as_bytes()), Err(EntryError::Disagrees("the file name")));
        assert!(Entry::parse_named("ralphos-b-g7+2-1.conf".parse().unwrap(), FILE.as_bytes()).is_ok());
    }

    #[test]
    fn ent10_what_is_no_entry_is_refused() {
        assert_eq!(Entry::parse(b""), Err(EntryError::LiveByte));
        assert_eq!(Entry::parse(&FILE.as_bytes()[1..]), Err(EntryError::LiveByte));
        assert_eq!(Entry::parse(&[b' '; 4097]), Err(EntryError::TooLong(4097)));
        assert_eq!(Entry::parse(FILE.replace("RalphOS", "R\u{e4}lphOS").as_bytes()), Err(EntryError::NotAscii));
        assert_eq!(Entry::parse(FILE.replace('\n', "\r\n").as_bytes()), Err(EntryError::NotAscii));
        assert_eq!(Entry::parse(FILE.replace("title ", "title\t").as_bytes()), Err(EntryError::NotAscii));
        let more = format!("{FILE}efi /shell.efi\n");
        assert_eq!(Entry::parse(more.as_bytes()), Err(EntryError::Line { number: 11, expected: "" }));
        let torn = &FILE[..FILE.len() - 1];
        let last = EntryError::Line { number: 10, expected: "# initrd-sha256 " };
        assert_eq!(Entry::parse(torn.as_bytes()), Err(last));
    }

    #[test]
    fn an_entry_that_would_not_come_back_is_not_written() {
        for title in ["", " x", "x ", "a\nb", "\u{e9}"] {
            assert!(Entry { title: title.into(), ..literal() }.check().is_err(), "{title:?}");
        }
        let mut long = literal();
        long.options.extra = "x".repeat(4000);
        assert!(matches!(long.check(), Err(EntryError::TooLong(_))));
        let mut smuggled = literal();
        smuggled.options.extra = "ralph.epoch=0".into();
        assert!(matches!(smuggled.check(), Err(EntryError::Options(OptionsError::Twice(_)))));
    }

    #[test]
    fn upd22_a_reason_is_added_to_the_options() {
        let failed = literal().failed(Some("health-check"));
        assert_eq!(failed.options.failed.as_deref(), Some("health-check"));
        failed.check().unwrap();
    }

    proptest! {
        #[test]
        fn ent10_every_entry_round_trips(
            options in any_options(), title in "[!-~]([ -~]{0,40}[!-~])?", x64: bool, hashes: [[u8; 32]; 2], live: bool,
        ) {
            let architecture = if x64 { EntryArchitecture::X64 } else { EntryArchitecture::Aa64 };
            let [linux_sha256, initrd_sha256] = hashes;
            let entry = Entry { title, architecture, options, linux_sha256, initrd_sha256 };
            let liveness = if live { Liveness::Live } else { Liveness::Inert };
            prop_assert_eq!(entry.check(), Ok(()));
            prop_assert_eq!(Entry::parse(&entry.render(liveness)), Ok((entry, liveness)));
        }

        #[test]
        fn the_parser_survives_anything(at in 0..FILE.len(), byte: u8, cut in 0..FILE.len()) {
            let mut bytes = FILE.as_bytes().to_vec();
            bytes[at] = byte;
            let _ = Entry::parse(&bytes);
            prop_assert!(Entry::parse(&bytes[..cut]).is_err());
        }
    }
}
