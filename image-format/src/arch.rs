//! Architectures, and reading one off a kernel's PE header (IMG-13, IMG-15).

use std::fmt;
use std::str::FromStr;

/// A machine architecture that images exist for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Architecture {
    /// `x86_64`, PE machine 0x8664.
    X86_64,
    /// `aarch64`, PE machine 0xAA64.
    Aarch64,
}

impl Architecture {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// The name in manifests and on command lines.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// The machine type in a PE header.
    pub const fn pe_number(self) -> u16 {
        match self {
            Self::X86_64 => 0x8664,
            Self::Aarch64 => 0xAA64,
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A name that is no known architecture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown architecture {0:?}; known are x86_64 and aarch64")]
pub struct UnknownArchitecture(pub String);

impl FromStr for Architecture {
    type Err = UnknownArchitecture;

    fn from_str(text: &str) -> Result<Self, UnknownArchitecture> {
        Self::ALL.into_iter().find(|known| known.as_str() == text).ok_or_else(|| UnknownArchitecture(text.to_owned()))
    }
}

/// How many bytes of a kernel [`pe_machine`] looks at.
pub const PE_HEAD_LEN: usize = 4096;

/// Why a file is not a kernel that UEFI firmware of a known architecture can start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeError {
    /// No `MZ` at the beginning.
    #[error("not a PE file: it does not begin with \"MZ\"")]
    NoMz,
    /// The headers do not end within the first 4096 bytes, or within the file.
    #[error("the PE headers do not lie within the first 4096 bytes of the file")]
    OutOfReach,
    /// No `PE\0\0` where the DOS header points.
    #[error("not a PE file: no \"PE\" signature where the DOS header points")]
    NoSignature,
    /// A machine type that is not known here.
    #[error("PE machine type {0:#06x} is neither x86_64 (0x8664) nor aarch64 (0xaa64)")]
    Machine(u16),
    /// Not PE32+.
    #[error("PE optional header magic {0:#06x} instead of PE32+ (0x020b)")]
    Magic(u16),
    /// Not an EFI application.
    #[error("PE subsystem {0} instead of an EFI application (10)")]
    Subsystem(u16),
}

/// The architecture of a kernel, read from its first [`PE_HEAD_LEN`] bytes; more may be given and is not looked at.
///
/// # Errors
/// Refuses what UEFI firmware could not start: no DOS or PE header, another machine, not PE32+, not an EFI application.
pub fn pe_machine(head: &[u8]) -> Result<Architecture, PeError> {
    const SIGNATURE_AT: usize = 0x3C;
    const COFF_LEN: usize = 20;
    const SUBSYSTEM_AT: usize = 68;

    let head = &head[..head.len().min(PE_HEAD_LEN)];
    if !head.starts_with(b"MZ") {
        return Err(PeError::NoMz);
    }
    let pe = u32_at(head, SIGNATURE_AT).ok_or(PeError::OutOfReach)? as usize;
    // The DOS header itself has 64 bytes; a pointer into it is an overlap trick, not a kernel.
    if pe < 64 {
        return Err(PeError::NoSignature);
    }
    let signature = pe.checked_add(4).and_then(|end| head.get(pe..end)).ok_or(PeError::OutOfReach)?;
    if signature != b"PE\0\0" {
        return Err(PeError::NoSignature);
    }
    let number = u16_at(head, pe + 4).ok_or(PeError::OutOfReach)?;
    let optional = pe + 4 + COFF_LEN;
    let magic = u16_at(head, optional).ok_or(PeError::OutOfReach)?;
    let subsystem = u16_at(head, optional + SUBSYSTEM_AT).ok_or(PeError::OutOfReach)?;

    let architecture =
        Architecture::ALL.into_iter().find(|known| known.pe_number() == number).ok_or(PeError::Machine(number))?;
    if magic != 0x020B {
        return Err(PeError::Magic(magic));
    }
    if subsystem != 10 {
        return Err(PeError::Subsystem(subsystem));
    }
    Ok(architecture)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The smallest head that [`pe_machine`] accepts, for the fixtures of other modules too.
    pub(crate) fn pe_head(architecture: Architecture) -> Vec<u8> {
        let mut head = vec![0; 256];
        head[..2].copy_from_slice(b"MZ");
        head[0x3C..0x40].copy_from_slice(&64_u32.to_le_bytes());
        head[64..68].copy_from_slice(b"PE\0\0");
        head[68..70].copy_from_slice(&architecture.pe_number().to_le_bytes());
        head[88..90].copy_from_slice(&0x020B_u16.to_le_bytes());
        head[156..158].copy_from_slice(&10_u16.to_le_bytes());
        head
    }

    #[test]
    fn names_round_trip() {
        for architecture in Architecture::ALL {
            assert_eq!(architecture.to_string().parse(), Ok(architecture));
            assert_eq!(pe_machine(&pe_head(architecture)), Ok(architecture));
        }
        assert!("amd64".parse::<Architecture>().is_err());
        assert!("X86_64".parse::<Architecture>().is_err());
    }

    #[test]
    fn img_13_refuses_what_firmware_could_not_start() {
        let patched = |at: usize, bytes: &[u8]| {
            let mut head = pe_head(Architecture::X86_64);
            head[at..at + bytes.len()].copy_from_slice(bytes);
            pe_machine(&head)
        };
        assert_eq!(pe_machine(b""), Err(PeError::NoMz));
        assert_eq!(pe_machine(b"\x1f\x8b\x08 a gzip file"), Err(PeError::NoMz));
        assert_eq!(pe_machine(b"MZ"), Err(PeError::OutOfReach));
        assert_eq!(patched(0x3C, &2_u32.to_le_bytes()), Err(PeError::NoSignature));
        assert_eq!(patched(0x3C, &u32::MAX.to_le_bytes()), Err(PeError::OutOfReach));
        assert_eq!(patched(0x3C, &253_u32.to_le_bytes()), Err(PeError::OutOfReach));
        assert_eq!(patched(64, b"NE\0\0"), Err(PeError::NoSignature));
        assert_eq!(patched(68, &0x014C_u16.to_le_bytes()), Err(PeError::Machine(0x014C)));
        assert_eq!(patched(88, &0x010B_u16.to_le_bytes()), Err(PeError::Magic(0x010B)));
        assert_eq!(patched(156, &3_u16.to_le_bytes()), Err(PeError::Subsystem(3)));
        let head = pe_head(Architecture::Aarch64);
        for len in 2..158 {
            assert_eq!(pe_machine(&head[..len]), Err(PeError::OutOfReach), "cut to {len} bytes");
        }
    }

    #[test]
    fn headers_beyond_4096_bytes_are_out_of_reach() {
        let mut head = vec![0; 8192];
        head[..2].copy_from_slice(b"MZ");
        head[0x3C..0x40].copy_from_slice(&4096_u32.to_le_bytes());
        head[4096..4100].copy_from_slice(b"PE\0\0");
        assert_eq!(pe_machine(&head), Err(PeError::OutOfReach));
    }
}
