//! A boot loader as a file (LUP-2).

use std::io::Cursor;

use boot_entries::loader::compare_versions;
use disk_layout::Architecture;
use secure_boot::{Machine, Pe, PeError, Refused, verdict};
use sha2::{Digest, Sha256};

use crate::firmware_trust::FirmwareTrust;

/// Bytes of the longest loader that is taken: systemd-boot has less than a tenth of that.
pub const MAX_LOADER: u64 = 4 << 20;
/// What systemd-boot says of itself, up to [`MAGIC_END`]; `bootctl` goes by that, too.
const MAGIC: &[u8] = b"#### LoaderInfo: ";
const MAGIC_END: &[u8] = b" ####";
const NAME: &str = "systemd-boot ";
/// More than any release has.
const LONGEST_INFO: usize = 128;

/// A loader that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoaderRefused {
    /// It is no program.
    #[error(transparent)]
    Program(#[from] PeError),
    /// It is for other machines.
    #[error("it is a program for another architecture")]
    Architecture,
    /// It does not say that it is systemd-boot, and of which release.
    #[error("it does not say which release of systemd-boot it is")]
    NoVersion,
    /// The firmware would not start it.
    #[error("this machine's firmware would not start it")]
    Firmware(#[from] Refused),
    /// Nobody knows whether it would.
    #[error("it cannot be told whether this machine's firmware would start it: {0}")]
    Unclear(String),
}

/// What a loader is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// SHA-256 of the file.
    pub sha256: [u8; 32],
    /// Such as `257.13-1~deb13u1`; none where it does not say.
    pub version: Option<String>,
}

impl Program {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self { sha256: Sha256::digest(bytes).into(), version: version(bytes) }
    }

    /// Is it of an older release than the other one? Not, where one of them does not say.
    pub fn is_older_than(&self, other: &Self) -> bool {
        let both = self.version.as_deref().zip(other.version.as_deref());
        both.is_some_and(|(ours, theirs)| compare_versions(ours, theirs).is_lt())
    }

    /// For a person.
    pub fn name(&self) -> String {
        self.version
            .as_ref()
            .map_or_else(|| "a loader that does not say what it is".to_owned(), |v| format!("{NAME}{v}"))
    }
}

fn version(bytes: &[u8]) -> Option<String> {
    let find = |inside: &[u8], what: &[u8]| inside.windows(what.len()).position(|window| window == what);
    let info = &bytes[find(bytes, MAGIC)? + MAGIC.len()..];
    let info = &info[..find(&info[..info.len().min(LONGEST_INFO)], MAGIC_END)?];
    let version = std::str::from_utf8(info).ok()?.strip_prefix(NAME)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "~-^.+_".contains(c);
    (version.starts_with(|c: char| c.is_ascii_digit()) && version.chars().all(plain)).then(|| version.to_owned())
}

/// May these bytes become a loader of this machine?
pub fn check(bytes: &[u8], architecture: Architecture, trust: &FirmwareTrust) -> Result<Program, LoaderRefused> {
    let mut pe = Pe::open(Cursor::new(bytes))?;
    if !is_for(pe.machine(), architecture) {
        return Err(LoaderRefused::Architecture);
    }
    let program = Program::of(bytes);
    if program.version.is_none() {
        return Err(LoaderRefused::NoVersion);
    }
    match trust {
        FirmwareTrust::Open => {}
        FirmwareTrust::Enforcing(stores) => drop(verdict(&mut pe, stores)?),
        FirmwareTrust::Unclear(why) => return Err(LoaderRefused::Unclear(why.clone())),
    }
    Ok(program)
}

/// Is a program of this machine type one for this architecture?
pub(super) fn is_for(machine: Machine, architecture: Architecture) -> bool {
    matches!(
        (machine, architecture),
        (Machine::X86_64, Architecture::X86_64) | (Machine::Aarch64, Architecture::Aarch64)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lup_2_a_loader_says_its_release() {
        let says = |text: &str| Program::of(format!("..{text}..").as_bytes()).version;
        assert_eq!(says("#### LoaderInfo: systemd-boot 257.13-1~deb13u1 ####").as_deref(), Some("257.13-1~deb13u1"));
        for other in [
            "#### LoaderInfo: systemd-stub 257 ####",
            "#### LoaderInfo: systemd-boot v257 ####",
            "#### LoaderInfo: systemd-boot 257\u{1b}[1m ####",
            "#### LoaderInfo: systemd-boot 257",
            "",
        ] {
            assert_eq!(says(other), None, "{other}");
        }
        let long = format!("#### LoaderInfo: systemd-boot 2{} ####", "5".repeat(LONGEST_INFO));
        assert_eq!(says(&long), None);
    }

    #[test]
    fn lup_4_what_does_not_say_its_release_is_older_than_nothing() {
        let of = |version: Option<&str>| Program { sha256: [0; 32], version: version.map(str::to_owned) };
        assert!(of(Some("252.39")).is_older_than(&of(Some("257.1"))));
        assert!(!of(Some("257.1")).is_older_than(&of(Some("257.1"))));
        assert!(!of(None).is_older_than(&of(Some("257.1"))) && !of(Some("1")).is_older_than(&of(None)));
    }
}
