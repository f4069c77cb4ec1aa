//! The transport record: how this file carries the content (IMG-40).

use crate::digest::{Digest, SystemId};

/// Length of a transport body without base system ids.
pub(crate) const BASE_LEN: usize = 80;

/// How this file carries a system. Version 1 knows full images only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transport {
    /// The system that is carried.
    pub system_id: SystemId,
    /// SHA-256 of the chunk table body.
    pub table_sha256: Digest,
    /// Length of the chunk table body in bytes.
    pub table_len: u32,
    /// Bytes of the file from the first chunk to its end.
    pub data_len: u64,
}

/// Why a transport body is refused (IMG-40).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The length does not fit the count of base system ids.
    #[error("the transport body has {found} bytes but its fields give {expected} (IMG-40)")]
    Length {
        /// In the file.
        found: usize,
        /// By its own count.
        expected: usize,
    },
    /// An encoding that is not known here, such as a delta.
    #[error("transport encoding {0} is not supported, only full images (0) (IMG-40)")]
    Encoding(u16),
    /// A full image that names base systems, or a delta that does not name one.
    #[error("it names {0} base systems; a full image names none, a delta one (IMG-40, IMG-70)")]
    Bases(u16),
}

impl Transport {
    /// The body of IMG-40.
    pub(crate) fn to_bytes(&self) -> [u8; BASE_LEN] {
        let mut body = [0; BASE_LEN];
        body[..32].copy_from_slice(self.system_id.as_ref());
        body[32..64].copy_from_slice(self.table_sha256.as_ref());
        body[64..68].copy_from_slice(&self.table_len.to_le_bytes());
        // Encoding 0 and no bases: bytes 68 to 72 stay zero.
        body[72..].copy_from_slice(&self.data_len.to_le_bytes());
        body
    }

    /// Reads a transport body of a full image.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, TransportError> {
        let Some(base) = body.first_chunk::<BASE_LEN>() else {
            return Err(TransportError::Length { found: body.len(), expected: BASE_LEN });
        };
        let array = |at: usize| -> [u8; 32] { base[at..at + 32].try_into().expect("32 bytes") };
        let encoding = u16::from_le_bytes([base[68], base[69]]);
        let bases = u16::from_le_bytes([base[70], base[71]]);
        if encoding != 0 {
            return Err(TransportError::Encoding(encoding));
        }
        if bases != 0 {
            return Err(TransportError::Bases(bases));
        }
        if body.len() != BASE_LEN {
            return Err(TransportError::Length { found: body.len(), expected: BASE_LEN });
        }
        Ok(Self {
            system_id: array(0).into(),
            table_sha256: array(32).into(),
            table_len: u32::from_le_bytes(base[64..68].try_into().expect("4 bytes")),
            data_len: u64::from_le_bytes(base[72..].try_into().expect("8 bytes")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transport() -> Transport {
        Transport {
            system_id: SystemId::of_manifest(b"m"),
            table_sha256: Digest::of(b"t"),
            table_len: 0x0102_0304,
            data_len: 0x1112_1314_1516_1718,
        }
    }

    #[test]
    fn img_40_layout() {
        let body = transport().to_bytes();
        assert_eq!(body[..32], *SystemId::of_manifest(b"m").as_bytes());
        assert_eq!(body[32..64], *Digest::of(b"t").as_bytes());
        assert_eq!(body[64..], [4, 3, 2, 1, 0, 0, 0, 0, 0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11]);
        assert_eq!(Transport::parse(&body), Ok(transport()));
    }

    #[test]
    fn img_40_refuses() {
        let patched = |at: usize, byte: u8, extra: usize| {
            let mut body = transport().to_bytes().to_vec();
            body[at] = byte;
            body.resize(BASE_LEN + extra, 0);
            Transport::parse(&body)
        };
        assert_eq!(patched(68, 1, 0), Err(TransportError::Encoding(1)));
        assert_eq!(patched(69, 1, 0), Err(TransportError::Encoding(256)));
        assert_eq!(patched(70, 1, 32), Err(TransportError::Bases(1)));
        assert_eq!(patched(71, 0x10, 0), Err(TransportError::Bases(4096)));
        assert_eq!(patched(71, 0, 1), Err(TransportError::Length { found: 81, expected: 80 }));
        assert_eq!(patched(71, 0, 32), Err(TransportError::Length { found: 112, expected: 80 }));
        assert_eq!(Transport::parse(&[0; 79]), Err(TransportError::Length { found: 79, expected: 80 }));
    }
}
