//! Deltas: the same system, carried by what a base system holds already (specs/image-format.md, section 9).

mod codec;
mod ranges;
mod writer;

use crate::digest::SystemId;
use crate::manifest::Manifest;
use crate::table::{self, Chunk, RECORD_LEN, TableError, ZSTD, encoded_bound};
use crate::transport::{BASE_LEN, Transport, TransportError};

pub use codec::{BaseRoot, DeltaDecoder, DeltaError};
pub use ranges::{BaseRange, MAX_RANGES, MAX_REFERENCE};
pub use writer::{DeltaBuildError, DeltaPiece, NewSystem, build_delta};

/// Transport encoding of a delta (IMG-70).
const DELTA: u16 = 1;

const PATCH: u16 = 2;
const COPY: u16 = 3;

/// How a chunk of a delta is encoded (IMG-72).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// A zstd frame by itself, as in a full image.
    Zstd,
    /// Ranges of the base root, and a zstd frame that refers to them.
    Patch,
    /// Ranges of the base root: they are the chunk.
    Copy,
}

/// A chunk of a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeltaChunk {
    /// As in a full image.
    pub chunk: Chunk,
    /// What its encoded bytes are.
    pub encoding: Encoding,
}

/// The transport record of a delta (IMG-70).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeltaTransport {
    /// As in a full image.
    pub transport: Transport,
    /// The system whose root the chunks refer to.
    pub base: SystemId,
}

impl DeltaTransport {
    /// Whether a transport body says that it is a delta's; nothing else of it is looked at.
    pub(crate) fn is_one(body: &[u8]) -> bool {
        body.get(68..70) == Some(&DELTA.to_le_bytes()[..])
    }

    /// The body of IMG-40.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut body = self.transport.to_bytes().to_vec();
        body[68..70].copy_from_slice(&DELTA.to_le_bytes());
        body[70..72].copy_from_slice(&1_u16.to_le_bytes());
        body.extend_from_slice(self.base.as_bytes());
        body
    }

    /// Reads a transport body of a delta.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, TransportError> {
        let short = TransportError::Length { found: body.len(), expected: BASE_LEN + 32 };
        let (Some(head), true) = (body.first_chunk::<BASE_LEN>(), Self::is_one(body)) else {
            return Err(short);
        };
        let bases = u16::from_le_bytes([head[70], head[71]]);
        if bases != 1 {
            return Err(TransportError::Bases(bases));
        }
        let base: [u8; 32] = body[BASE_LEN..].try_into().map_err(|_| short)?;
        // What is left is that of a full image.
        let mut full = *head;
        full[68..72].fill(0);
        Ok(Self { transport: Transport::parse(&full)?, base: base.into() })
    }
}

impl DeltaChunk {
    pub(crate) fn to_bytes(self) -> [u8; RECORD_LEN] {
        self.chunk.to_bytes_as(match self.encoding {
            Encoding::Zstd => ZSTD,
            Encoding::Patch => PATCH,
            Encoding::Copy => COPY,
        })
    }
}

/// Reads an authenticated table body of a delta (IMG-51, IMG-72).
pub(crate) fn parse_table(body: &[u8], manifest: &Manifest, data_len: u64) -> Result<Vec<DeltaChunk>, TableError> {
    let mut encodings = Vec::new();
    let chunks = table::parse_any(body, manifest, data_len, &mut |number, chunk, found| {
        // Only root has a base: it is the first payload (IMG-14).
        let (encoding, longest) = match found {
            ZSTD => (Encoding::Zstd, encoded_bound(chunk.plain_len)),
            PATCH if chunk.payload == 0 => (Encoding::Patch, ranges::MAX_LEN + encoded_bound(chunk.plain_len)),
            COPY if chunk.payload == 0 => (Encoding::Copy, ranges::MAX_LEN),
            _ => return Err(TableError::Encoding { chunk: number, found }),
        };
        encodings.push(encoding);
        Ok(longest)
    })?;
    Ok(chunks.into_iter().zip(encodings).map(|(chunk, encoding)| DeltaChunk { chunk, encoding }).collect())
}

#[cfg(test)]
mod tests;
