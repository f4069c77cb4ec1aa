//! The transport record: how this file carries the content (IMG-40).

use crate::digest::{Digest, SystemId};

/// Length of a transport body without base system ids.
pub(crate) const BASE_LEN: usize = 80;

/// The encodings of IMG-40.
const FULL: u16 = 0;
const DELTA: u16 = 1;

/// How this file carries a system.
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
    /// Of a delta: the system whose root the chunks refer to (IMG-70).
    pub base: Option<SystemId>,
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
    /// An encoding that is not known here.
    #[error("transport encoding {0} is not known, only full images (0) and deltas (1) (IMG-40)")]
    Encoding(u16),
    /// A full image that names base systems, or a delta that does not name one.
    #[error("it names {0} base systems; a full image names none, a delta one (IMG-40, IMG-70)")]
    Bases(u16),
}

impl Transport {
    /// The body of IMG-40.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let bases = self.base.as_slice();
        let mut body = Vec::with_capacity(BASE_LEN + 32 * bases.len());
        body.extend_from_slice(self.system_id.as_ref());
        body.extend_from_slice(self.table_sha256.as_ref());
        body.extend_from_slice(&self.table_len.to_le_bytes());
        body.extend_from_slice(&(if bases.is_empty() { FULL } else { DELTA }).to_le_bytes());
        // One at most.
        body.extend_from_slice(&(bases.len() as u16).to_le_bytes());
        body.extend_from_slice(&self.data_len.to_le_bytes());
        bases.iter().for_each(|base| body.extend_from_slice(base.as_ref()));
        body
    }

    /// Reads a transport body.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, TransportError> {
        let Some((head, behind)) = body.split_first_chunk::<BASE_LEN>() else {
            return Err(TransportError::Length { found: body.len(), expected: BASE_LEN });
        };
        let array = |at: usize| -> [u8; 32] { head[at..at + 32].try_into().expect("32 bytes") };
        let encoding = u16::from_le_bytes([head[68], head[69]]);
        let bases = u16::from_le_bytes([head[70], head[71]]);
        let wanted = match encoding {
            FULL => 0,
            DELTA => 1,
            other => return Err(TransportError::Encoding(other)),
        };
        if bases != wanted {
            return Err(TransportError::Bases(bases));
        }
        if behind.len() != 32 * usize::from(bases) {
            return Err(TransportError::Length { found: body.len(), expected: BASE_LEN + 32 * usize::from(bases) });
        }
        Ok(Self {
            system_id: array(0).into(),
            table_sha256: array(32).into(),
            table_len: u32::from_le_bytes(head[64..68].try_into().expect("4 bytes")),
            data_len: u64::from_le_bytes(head[72..].try_into().expect("8 bytes")),
            base: behind.first_chunk::<32>().map(|base| (*base).into()),
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
            base: None,
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
    fn img_70_a_delta_names_one_base() {
        let delta = Transport { base: Some([7; 32].into()), ..transport() };
        let body = delta.to_bytes();
        assert_eq!((body.len(), &body[68..72], &body[80..]), (112, &[1, 0, 1, 0][..], &[7; 32][..]));
        assert_eq!(Transport::parse(&body), Ok(delta));
        let refused = |at: usize, byte: u8, len: usize| {
            let mut body = body.clone();
            body[at] = byte;
            body.resize(len, 0);
            Transport::parse(&body).unwrap_err()
        };
        assert_eq!(refused(70, 0, 112), TransportError::Bases(0));
        assert_eq!(refused(70, 2, 144), TransportError::Bases(2));
        assert_eq!(refused(68, 0, 112), TransportError::Bases(1));
        assert_eq!(refused(68, 1, 80), TransportError::Length { found: 80, expected: 112 });
        assert_eq!(refused(68, 1, 113), TransportError::Length { found: 113, expected: 112 });
    }

    #[test]
    fn img_40_refuses() {
        let patched = |at: usize, byte: u8, extra: usize| {
            let mut body = transport().to_bytes().to_vec();
            body[at] = byte;
            body.resize(BASE_LEN + extra, 0);
            Transport::parse(&body)
        };
        assert_eq!(patched(68, 2, 0), Err(TransportError::Encoding(2)));
        assert_eq!(patched(69, 1, 0), Err(TransportError::Encoding(256)));
        assert_eq!(patched(70, 1, 32), Err(TransportError::Bases(1)));
        assert_eq!(patched(71, 0x10, 0), Err(TransportError::Bases(4096)));
        assert_eq!(patched(71, 0, 1), Err(TransportError::Length { found: 81, expected: 80 }));
        assert_eq!(patched(71, 0, 32), Err(TransportError::Length { found: 112, expected: 80 }));
        assert_eq!(Transport::parse(&[0; 79]), Err(TransportError::Length { found: 79, expected: 80 }));
    }
}
