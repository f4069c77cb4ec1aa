//! The kernel's command line of an entry (`ENT-11`): what it says about slot, generation and system.

use std::fmt;

use disk_layout::Slot;
use uuid::Uuid;

use crate::names::{Generation, decimal};

/// The options of an entry, or what stands of them on `/proc/cmdline`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootOptions {
    /// The dm-verity root hash (`roothash=`).
    pub root_hash: [u8; 32],
    /// The partition of the slot: it holds both data and hash tree.
    pub partuuid: Uuid,
    /// Where on the partition the dm-verity superblock lies, in bytes.
    pub hash_offset: u64,
    /// What dm-verity does about a block that is not the one that was signed.
    pub on_corruption: OnCorruption,
    /// The slot.
    pub slot: Slot,
    /// The generation.
    pub generation: Generation,
    /// The system id.
    pub system: [u8; 32],
    /// The security epoch.
    pub epoch: u32,
    /// The version of the operating system: printable ASCII without spaces.
    pub os_version: String,
    /// Why the entry was marked bad: `[a-z-]{1,32}`.
    pub failed: Option<String>,
    /// The image's own options, words separated by one space; empty when there are none. In what was read from
    /// `/proc/cmdline` it holds every word that is not ours, those in front too.
    pub extra: String,
}

/// What dm-verity does about a block that is not the one that was signed (`ENT-11`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnCorruption {
    /// The machine restarts at once: an entry on trial. The loader counts, and the fallback's turn comes.
    Restart,
    /// The read fails and the system goes on: an entry without a counter, which would only restart for ever.
    #[default]
    Fail,
}

/// The image's own options, words separated by one space, behind those words that every entry of ours has unless the image
/// says otherwise (`ENT-11`): `panic=10`, so that a kernel that gave up starts again, and `oops=panic`, so that one that
/// has lost its footing gives up. For [`BootOptions::extra`] of a new entry.
pub fn with_default_words(image: &str) -> String {
    // What stands behind `--` is init's and not the kernel's.
    let has = |key: &str| words(image).take_while(|word| *word != "--").any(|word| word.starts_with(key));
    let ours = [("panic=", "panic=10"), ("oops=", "oops=panic")].into_iter().filter(|(key, _)| !has(key));
    // In front, where no `--` can take them from the kernel.
    ours.map(|(_, word)| word).chain(words(image)).collect::<Vec<_>>().join(" ")
}

/// Options that are not those of an entry of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// A word that must be there is not.
    #[error("the options have no {0}")]
    Missing(&'static str),
    /// A word of ours stands twice: someone edited the command line.
    #[error("{0} stands twice in the options")]
    Twice(&'static str),
    /// A word of ours has a value that cannot be.
    #[error("{key}{value} in the options is not valid")]
    Invalid {
        /// The key, `=` included.
        key: &'static str,
        /// What stands behind it.
        value: String,
    },
    /// Data and hash tree are on two partitions.
    #[error("systemd.verity_root_data and systemd.verity_root_hash name two partitions")]
    TwoPartitions,
}

const ROOT: &str = "root=";
const ROOT_HASH: &str = "roothash=";
const DATA: &str = "systemd.verity_root_data=";
const HASH: &str = "systemd.verity_root_hash=";
const VERITY: &str = "systemd.verity_root_options=";
const SLOT: &str = "ralph.slot=";
const GENERATION: &str = "ralph.generation=";
const SYSTEM: &str = "ralph.system=";
const EPOCH: &str = "ralph.epoch=";
const VERSION: &str = "ralph.version=";
const FAILED: &str = "ralph.failed=";
const READ_ONLY: &str = "ro";
const ROOT_DEVICE: &str = "/dev/mapper/root";
const HASH_OFFSET: &str = "hash-offset=";
const RESTART: &str = ",restart-on-corruption";
const KEYS: [&str; 11] = [ROOT, ROOT_HASH, DATA, HASH, VERITY, SLOT, GENERATION, SYSTEM, EPOCH, VERSION, FAILED];

impl BootOptions {
    /// Reads the options of an entry or the whole of `/proc/cmdline`; other words may stand anywhere in the latter.
    ///
    /// # Errors
    /// When a word of ours is missing, stands twice or cannot be.
    pub fn parse(text: &str) -> Result<BootOptions, OptionsError> {
        let mut found = Found::default();
        let mut extra = Vec::new();
        for word in words(text) {
            match KEYS.iter().position(|key| word.starts_with(key)) {
                Some(at) => found.put(at, &word[KEYS[at].len()..])?,
                // A second `ro` changes nothing, so an image may bring its own.
                None if word == READ_ONLY && !found.read_only => found.read_only = true,
                None => extra.push(word),
            }
        }
        found.options(extra.join(" "))
    }

    /// What [`BootOptions::parse`] would accept and give back the same: checked before an entry is written.
    pub(crate) fn is_canonical(&self) -> bool {
        let text = self.to_string();
        printable(&text) && BootOptions::parse(&text).as_ref() == Ok(self)
    }
}

/// The values found, by their place in [`KEYS`].
#[derive(Default)]
struct Found<'a> {
    values: [Option<&'a str>; KEYS.len()],
    read_only: bool,
}

impl<'a> Found<'a> {
    fn put(&mut self, at: usize, value: &'a str) -> Result<(), OptionsError> {
        match self.values[at].replace(value) {
            Some(_) => Err(OptionsError::Twice(KEYS[at])),
            None => Ok(()),
        }
    }

    fn value(&self, key: &'static str) -> Option<&'a str> {
        KEYS.iter().position(|k| *k == key).and_then(|at| self.values[at])
    }

    fn get<T>(&self, key: &'static str, read: impl FnOnce(&'a str) -> Option<T>) -> Result<T, OptionsError> {
        let value = self.value(key).ok_or(OptionsError::Missing(key))?;
        read(value).ok_or_else(|| OptionsError::Invalid { key, value: value.to_owned() })
    }

    fn options(&self, extra: String) -> Result<BootOptions, OptionsError> {
        self.get(ROOT, |v| (v == ROOT_DEVICE).then_some(()))?;
        if !self.read_only {
            return Err(OptionsError::Missing(READ_ONLY));
        }
        let partuuid = self.get(DATA, partuuid)?;
        if self.get(HASH, self::partuuid)? != partuuid {
            return Err(OptionsError::TwoPartitions);
        }
        let failed = match self.value(FAILED) {
            Some(_) => Some(self.get(FAILED, |v| is_reason(v).then(|| v.to_owned()))?),
            None => None,
        };
        let (hash_offset, on_corruption) = self.get(VERITY, verity_options)?;
        Ok(BootOptions {
            root_hash: self.get(ROOT_HASH, parse_hex32)?,
            partuuid,
            hash_offset,
            on_corruption,
            slot: self.get(SLOT, |v| v.parse().ok())?,
            generation: self.get(GENERATION, |v| v.parse().ok())?,
            system: self.get(SYSTEM, parse_hex32)?,
            epoch: self.get(EPOCH, decimal)?,
            os_version: self.get(VERSION, |v| is_version(v).then(|| v.to_owned()))?,
            failed,
            extra,
        })
    }
}

impl fmt::Display for BootOptions {
    /// The options line of `ENT-11`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let partuuid = self.partuuid.hyphenated();
        write!(f, "{ROOT}{ROOT_DEVICE} {READ_ONLY} {ROOT_HASH}{}", hex(&self.root_hash))?;
        write!(f, " {DATA}PARTUUID={partuuid} {HASH}PARTUUID={partuuid}")?;
        let restart = if self.on_corruption == OnCorruption::Restart { RESTART } else { "" };
        write!(f, " {VERITY}{HASH_OFFSET}{}{restart}", self.hash_offset)?;
        write!(f, " {SLOT}{} {GENERATION}{} {SYSTEM}{}", self.slot, self.generation, hex(&self.system))?;
        write!(f, " {EPOCH}{} {VERSION}{}", self.epoch, self.os_version)?;
        if let Some(failed) = &self.failed {
            write!(f, " {FAILED}{failed}")?;
        }
        if !self.extra.is_empty() {
            write!(f, " {}", self.extra)?;
        }
        Ok(())
    }
}

/// A reason that may stand behind `ralph.failed=`.
pub fn is_reason(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
}

/// A version that may stand in an entry: printable ASCII, no space, no quote (which would change the words).
pub(crate) fn is_version(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b'"')
}

pub(crate) fn printable(text: &str) -> bool {
    text.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
}

/// 64 lower-case hexadecimal digits.
pub fn parse_hex32(text: &str) -> Option<[u8; 32]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn verity_options(value: &str) -> Option<(u64, OnCorruption)> {
    let (value, on_corruption) = match value.strip_suffix(RESTART) {
        Some(value) => (value, OnCorruption::Restart),
        None => (value, OnCorruption::Fail),
    };
    Some((value.strip_prefix(HASH_OFFSET).and_then(decimal)?, on_corruption))
}

fn partuuid(value: &str) -> Option<Uuid> {
    let text = value.strip_prefix("PARTUUID=")?;
    // Only the hyphenated form: the tools that read the command line know no other.
    if text.len() == 36 { Uuid::try_parse(text).ok() } else { None }
}

/// The words of a command line. White space inside double quotes does not separate (as in the kernel), so that a quoted
/// value cannot smuggle in a word that looks like ours.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace());
        if rest.is_empty() {
            return None;
        }
        let mut quoted = false;
        let end = rest.find(|c: char| {
            quoted ^= c == '"';
            !quoted && c.is_ascii_whitespace()
        });
        let (word, tail) = rest.split_at(end.unwrap_or(rest.len()));
        rest = tail;
        Some(word)
    })
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
