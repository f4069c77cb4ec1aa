//! The four skippable frames at the front of the file (IMG-2).

use std::fmt;
use std::io::{self, Read};
use std::ops::RangeInclusive;

/// The longest manifest body.
pub const MAX_MANIFEST: usize = 1 << 20;

/// The longest chunk table body.
pub const MAX_TABLE: usize = 16_777_152;

/// zstd's magic number for the skippable frames that are ours.
const SKIPPABLE_MAGIC: u32 = 0x184D_2A5A;

const OUR_MAGIC: [u8; 8] = *b"RALPHIMG";
const FORMAT_VERSION: u16 = 1;
const PREFIX_LEN: usize = 16;

/// Bytes in front of a body: zstd's magic and length, then our prefix.
pub(crate) const HEADER_LEN: usize = 8 + PREFIX_LEN;

/// Which of the four frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// Kind 1.
    Manifest,
    /// Kind 2.
    Signatures,
    /// Kind 3.
    Transport,
    /// Kind 4.
    Table,
}

impl FrameKind {
    const fn number(self) -> u16 {
        match self {
            Self::Manifest => 1,
            Self::Signatures => 2,
            Self::Transport => 3,
            Self::Table => 4,
        }
    }

    /// The body lengths that IMG-2 allows.
    pub(crate) const fn body_lengths(self) -> RangeInclusive<usize> {
        match self {
            Self::Manifest => 1..=MAX_MANIFEST,
            Self::Signatures => crate::signatures::BODY_LEN..=crate::signatures::BODY_LEN,
            Self::Transport => crate::transport::BASE_LEN..=crate::transport::BASE_LEN + 16 * 32,
            Self::Table => crate::table::RECORD_LEN..=MAX_TABLE,
        }
    }
}

impl fmt::Display for FrameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Manifest => "manifest",
            Self::Signatures => "signature",
            Self::Transport => "transport",
            Self::Table => "chunk table",
        })
    }
}

/// Why the head of a file is refused (IMG-2, IMG-3).
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// The source failed.
    #[error("cannot read the {frame} frame of the image")]
    Io {
        /// Which frame.
        frame: FrameKind,
        /// What the source said.
        source: io::Error,
    },
    /// The source ended within a frame.
    #[error("the image is truncated: it ends within the {frame} frame (IMG-3)")]
    Truncated {
        /// Which frame.
        frame: FrameKind,
    },
    /// Another file altogether.
    #[error("this is not a RalphOS image: no {frame} frame where one must be (IMG-2)")]
    NotOurs {
        /// Which frame was expected.
        frame: FrameKind,
    },
    /// Written by a newer builder.
    #[error(
        "the image has format version {found}, only 1 is supported: a newer version of this program is needed (IMG-2)"
    )]
    Version {
        /// The version in the file.
        found: u16,
    },
    /// The frames are not in the one order that is allowed.
    #[error("frame kind {found} stands where the {frame} frame must be (IMG-2)")]
    Kind {
        /// Which frame was expected.
        frame: FrameKind,
        /// The kind in the file.
        found: u16,
    },
    /// Reserved bytes carry something.
    #[error("the reserved field of the {frame} frame is not zero (IMG-2)")]
    Reserved {
        /// Which frame.
        frame: FrameKind,
    },
    /// A length out of bounds.
    #[error("the {frame} frame says that its body has {found} bytes, which is out of bounds (IMG-2)")]
    Length {
        /// Which frame.
        frame: FrameKind,
        /// The body length in the file.
        found: u64,
    },
    /// The signature body breaks its layout.
    #[error("the signature frame is malformed")]
    Signatures(#[from] crate::signatures::SignatureBlockError),
}

/// The 24 bytes in front of a body of `body_len` bytes, which must be within the limits of `kind`.
pub(crate) fn header(kind: FrameKind, body_len: usize) -> [u8; HEADER_LEN] {
    debug_assert!(kind.body_lengths().contains(&body_len));
    let mut header = [0; HEADER_LEN];
    header[..4].copy_from_slice(&SKIPPABLE_MAGIC.to_le_bytes());
    header[4..8].copy_from_slice(&((PREFIX_LEN + body_len) as u32).to_le_bytes());
    header[8..16].copy_from_slice(&OUR_MAGIC);
    header[16..18].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    header[18..20].copy_from_slice(&kind.number().to_le_bytes());
    header
}

/// The four frames of IMG-2.
pub(crate) fn head(manifest: &[u8], signatures: &[u8], transport: &[u8], table: &[u8]) -> Vec<u8> {
    let bodies = [
        (FrameKind::Manifest, manifest),
        (FrameKind::Signatures, signatures),
        (FrameKind::Transport, transport),
        (FrameKind::Table, table),
    ];
    bodies.into_iter().flat_map(|(kind, body)| [&header(kind, body.len())[..], body].concat()).collect()
}

/// Reads the frame of `kind` and returns its body, which is opaque until something vouches for it (IMG-4).
pub(crate) fn read(from: &mut impl Read, kind: FrameKind) -> Result<Vec<u8>, HeadError> {
    let mut header = [0; HEADER_LEN];
    from.read_exact(&mut header).map_err(|source| read_error(kind, source))?;
    let len = body_len(&header, kind)?;
    read_body(from, len).map_err(|source| read_error(kind, source))
}

fn read_error(frame: FrameKind, source: io::Error) -> HeadError {
    if source.kind() == io::ErrorKind::UnexpectedEof {
        HeadError::Truncated { frame }
    } else {
        HeadError::Io { frame, source }
    }
}

/// Checks a header and returns the length of the body that follows.
fn body_len(header: &[u8; HEADER_LEN], frame: FrameKind) -> Result<usize, HeadError> {
    let u32_at = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let u16_at = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    if u32_at(0) != SKIPPABLE_MAGIC || header[8..16] != OUR_MAGIC {
        return Err(HeadError::NotOurs { frame });
    }
    if u16_at(16) != FORMAT_VERSION {
        return Err(HeadError::Version { found: u16_at(16) });
    }
    if u16_at(18) != frame.number() {
        return Err(HeadError::Kind { frame, found: u16_at(18) });
    }
    if u32_at(20) != 0 {
        return Err(HeadError::Reserved { frame });
    }
    let in_bounds = (u32_at(4) as usize)
        .checked_sub(PREFIX_LEN)
        .filter(|len| frame.body_lengths().contains(len))
        .filter(|len| frame != FrameKind::Table || len.is_multiple_of(crate::table::RECORD_LEN));
    in_bounds.ok_or(HeadError::Length { frame, found: u64::from(u32_at(4)).saturating_sub(PREFIX_LEN as u64) })
}

/// Reads exactly `len` bytes. Memory grows with what has really arrived, never with what a length field claims (IMG-60).
fn read_body(from: &mut impl Read, len: usize) -> io::Result<Vec<u8>> {
    const FIRST_STEP: usize = 64 * 1024;
    let mut body = Vec::new();
    while body.len() < len {
        let have = body.len();
        let step = (len - have).min(have.max(FIRST_STEP));
        body.reserve_exact(step);
        body.resize(have + step, 0);
        from.read_exact(&mut body[have..])?;
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn img_2_bounds_are_those_of_the_table() {
        assert_eq!(FrameKind::Manifest.body_lengths(), 1..=1_048_576);
        assert_eq!(FrameKind::Signatures.body_lengths(), 4120..=4120);
        assert_eq!(FrameKind::Transport.body_lengths(), 80..=592);
        assert_eq!(FrameKind::Table.body_lengths(), 96..=174_762 * 96);
        assert_eq!(MAX_TABLE, 174_762 * 96);
        assert_eq!(HEADER_LEN + 4120, 4144);
    }

    #[test]
    fn img_2_header_bytes() {
        let expected = b"\x5A\x2A\x4D\x18\x60\x00\x00\x00RALPHIMG\x01\x00\x03\x00\x00\x00\x00\x00";
        assert_eq!(&header(FrameKind::Transport, 80), expected);
    }

    #[test]
    fn img_60_a_lying_length_allocates_only_what_arrives() {
        let mut bytes = header(FrameKind::Table, MAX_TABLE).to_vec();
        bytes.extend_from_slice(&[0; 100]);
        struct Watched<'a>(&'a [u8], usize);
        impl Read for Watched<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.1 = self.1.max(buffer.len());
                self.0.read(buffer)
            }
        }
        let mut source = Watched(&bytes, 0);
        assert!(matches!(read(&mut source, FrameKind::Table), Err(HeadError::Truncated { .. })));
        assert!(source.1 <= 64 * 1024, "a buffer of {} bytes was offered", source.1);
    }

    #[test]
    fn bodies_longer_than_a_step_arrive_whole() {
        let body: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
        assert_eq!(read_body(&mut body.as_slice(), body.len()).unwrap(), body);
    }
}
