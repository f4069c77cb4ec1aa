//! The chunk table (IMG-50 to IMG-52): which bytes of the file give which bytes of which payload.

use crate::delta::MAX_RANGES_LEN;
use crate::digest::{Digest, SystemId};
use crate::manifest::{Manifest, PayloadKind};
use crate::verity::BLOCK;

/// The longest plain chunk.
pub const MAX_CHUNK_LEN: u32 = 4 << 20;

/// Length of a record.
pub(crate) const RECORD_LEN: usize = 96;

/// How the bytes of a chunk are encoded (IMG-50, IMG-72).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// A zstd frame by itself. In a full image all are.
    Zstd,
    /// Ranges of the base root, and a zstd frame that refers to them.
    Patch,
    /// Ranges of the base root: they are the chunk.
    Copy,
}

impl Encoding {
    fn number(self) -> u16 {
        match self {
            Self::Zstd => 1,
            Self::Patch => 2,
            Self::Copy => 3,
        }
    }

    fn of(number: u16) -> Option<Self> {
        [Self::Zstd, Self::Patch, Self::Copy].into_iter().find(|encoding| encoding.number() == number)
    }
}

/// One independently encoded and authenticated piece of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Index into the manifest's payloads.
    pub payload: u16,
    /// What its encoded bytes are.
    pub encoding: Encoding,
    /// Length of the plain bytes.
    pub plain_len: u32,
    /// Where the plain bytes begin in the payload.
    pub plain_offset: u64,
    /// Where the encoded bytes begin, counted from the start of the data.
    pub encoded_offset: u64,
    /// Length of the encoded bytes.
    pub encoded_len: u32,
    /// SHA-256 of the plain bytes.
    pub plain_sha256: Digest,
    /// SHA-256 of the encoded bytes.
    pub encoded_sha256: Digest,
}

/// Why a chunk table is refused. All of this is found before the first chunk is read (IMG-51).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Not a positive number of whole records.
    #[error("the chunk table has {0} bytes, not a positive multiple of 96 (IMG-2)")]
    Length(usize),
    /// An encoding that is not known, or that this chunk cannot have.
    #[error(
        "chunk {chunk} has encoding {found}; known are zstd (1), and for the root of a delta patch (2) and copy (3) (IMG-50)"
    )]
    Encoding {
        /// Which chunk, from 0.
        chunk: usize,
        /// The encoding in the table.
        found: u16,
    },
    /// Reserved bytes carry something.
    #[error("the reserved field of chunk {chunk} is not zero (IMG-50)")]
    Reserved {
        /// Which chunk, from 0.
        chunk: usize,
    },
    /// A chunk of a payload that it cannot belong to.
    #[error(
        "chunk {chunk} belongs to payload {found} but payload {expected} is not covered yet, or there are no more (IMG-51)"
    )]
    Payload {
        /// Which chunk, from 0.
        chunk: usize,
        /// The payload in the table.
        found: u16,
        /// The payload that must come here.
        expected: u16,
    },
    /// A gap or an overlap in the plain bytes.
    #[error("chunk {chunk} begins at byte {found} of its payload instead of {expected}: a gap or an overlap (IMG-51)")]
    PlainOffset {
        /// Which chunk, from 0.
        chunk: usize,
        /// The offset in the table.
        found: u64,
        /// Where the chunk before it ends.
        expected: u64,
    },
    /// A plain length out of bounds.
    #[error("chunk {chunk} has a plain length of {found}, not 1 to 4 MiB within its payload (IMG-51, IMG-52)")]
    PlainLength {
        /// Which chunk, from 0.
        chunk: usize,
        /// The length in the table.
        found: u32,
    },
    /// A chunk of root that is not made of whole blocks.
    #[error("chunk {chunk} of root has a plain length of {found}, not a multiple of 4096 (IMG-21)")]
    Unaligned {
        /// Which chunk, from 0.
        chunk: usize,
        /// The length in the table.
        found: u32,
    },
    /// A gap or an overlap in the encoded bytes.
    #[error("the encoded bytes of chunk {chunk} begin at {found} instead of {expected}: a gap or an overlap (IMG-51)")]
    EncodedOffset {
        /// Which chunk, from 0.
        chunk: usize,
        /// The offset in the table.
        found: u64,
        /// Where the chunk before it ends.
        expected: u64,
    },
    /// An encoded length out of bounds.
    #[error("chunk {chunk} has an encoded length of {found}, which no chunk of its plain length can have (IMG-52)")]
    EncodedLength {
        /// Which chunk, from 0.
        chunk: usize,
        /// The length in the table.
        found: u32,
    },
    /// A payload without all its chunks.
    #[error("the chunk table ends before payload {payload} is covered (IMG-51)")]
    Uncovered {
        /// Which payload, from 0.
        payload: u16,
    },
    /// The data does not end where the transport record says.
    #[error("the chunks end at byte {found} of the data but the transport record says {expected} (IMG-51)")]
    DataLength {
        /// The end of the last chunk.
        found: u64,
        /// In the transport record.
        expected: u64,
    },
}

impl Chunk {
    /// The 96 bytes of IMG-50.
    pub(crate) fn to_bytes(self) -> [u8; RECORD_LEN] {
        let mut bytes = [0; RECORD_LEN];
        bytes[..2].copy_from_slice(&self.payload.to_le_bytes());
        bytes[2..4].copy_from_slice(&self.encoding.number().to_le_bytes());
        bytes[4..8].copy_from_slice(&self.plain_len.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.plain_offset.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.encoded_offset.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.encoded_len.to_le_bytes());
        bytes[32..64].copy_from_slice(self.plain_sha256.as_ref());
        bytes[64..].copy_from_slice(self.encoded_sha256.as_ref());
        bytes
    }

    fn parse(bytes: &[u8; RECORD_LEN], chunk: usize) -> Result<Self, TableError> {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let array = |at: usize| -> [u8; 32] { bytes[at..at + 32].try_into().expect("32 bytes") };
        if u32_at(28) != 0 {
            return Err(TableError::Reserved { chunk });
        }
        let encoding = u16_at(2);
        let encoding = Encoding::of(encoding).ok_or(TableError::Encoding { chunk, found: encoding })?;
        Ok(Self {
            payload: u16_at(0),
            encoding,
            plain_len: u32_at(4),
            plain_offset: u64_at(8),
            encoded_offset: u64_at(16),
            encoded_len: u32_at(24),
            plain_sha256: array(32).into(),
            encoded_sha256: array(64).into(),
        })
    }
}

/// Reads an authenticated table body and holds it against the manifest and the length of the data (IMG-51); `base`: that of the delta it is of.
pub(crate) fn parse(
    body: &[u8],
    manifest: &Manifest,
    data_len: u64,
    base: Option<SystemId>,
) -> Result<Vec<Chunk>, TableError> {
    let (records, rest) = body.as_chunks::<RECORD_LEN>();
    if records.is_empty() || !rest.is_empty() {
        return Err(TableError::Length(body.len()));
    }
    let mut cover = Cover::new(manifest);
    let mut chunks = Vec::with_capacity(records.len());
    for (number, record) in records.iter().enumerate() {
        let chunk = Chunk::parse(record, number)?;
        // Only the root of a delta has a base: it is the first payload (IMG-14).
        if chunk.encoding != Encoding::Zstd && (base.is_none() || chunk.payload != 0) {
            return Err(TableError::Encoding { chunk: number, found: chunk.encoding.number() });
        }
        cover.take(number, &chunk)?;
        chunks.push(chunk);
    }
    cover.finish(data_len)?;
    Ok(chunks)
}

/// Walks the table and knows what the next chunk must be.
struct Cover<'a> {
    manifest: &'a Manifest,
    payload: u16,
    plain: u64,
    encoded: u64,
}

impl<'a> Cover<'a> {
    fn new(manifest: &'a Manifest) -> Self {
        Self { manifest, payload: 0, plain: 0, encoded: 0 }
    }

    fn take(&mut self, number: usize, chunk: &Chunk) -> Result<(), TableError> {
        let payload = self
            .manifest
            .payloads
            .get(usize::from(self.payload))
            .filter(|_| chunk.payload == self.payload)
            .ok_or(TableError::Payload { chunk: number, found: chunk.payload, expected: self.payload })?;
        if chunk.plain_offset != self.plain {
            return Err(TableError::PlainOffset { chunk: number, found: chunk.plain_offset, expected: self.plain });
        }
        let left = payload.size - self.plain;
        if !(1..=MAX_CHUNK_LEN).contains(&chunk.plain_len) || u64::from(chunk.plain_len) > left {
            return Err(TableError::PlainLength { chunk: number, found: chunk.plain_len });
        }
        let whole_blocks = u64::from(chunk.plain_len).is_multiple_of(BLOCK);
        if matches!(payload.kind, PayloadKind::Root(_)) && !whole_blocks {
            return Err(TableError::Unaligned { chunk: number, found: chunk.plain_len });
        }
        if chunk.encoded_offset != self.encoded {
            return Err(TableError::EncodedOffset {
                chunk: number,
                found: chunk.encoded_offset,
                expected: self.encoded,
            });
        }
        if !(1..=longest(chunk)).contains(&(chunk.encoded_len as usize)) {
            return Err(TableError::EncodedLength { chunk: number, found: chunk.encoded_len });
        }
        // Neither sum can overflow: at most 174,762 chunks of a little over 4 MiB.
        self.plain += u64::from(chunk.plain_len);
        self.encoded += u64::from(chunk.encoded_len);
        if self.plain == payload.size {
            self.payload += 1;
            self.plain = 0;
        }
        Ok(())
    }

    fn finish(self, data_len: u64) -> Result<(), TableError> {
        if usize::from(self.payload) != self.manifest.payloads.len() {
            return Err(TableError::Uncovered { payload: self.payload });
        }
        if self.encoded != data_len {
            return Err(TableError::DataLength { found: self.encoded, expected: data_len });
        }
        Ok(())
    }
}

/// The longest that a chunk's encoded bytes can be (IMG-52, IMG-72).
fn longest(chunk: &Chunk) -> usize {
    let frame = zstd::zstd_safe::compress_bound(chunk.plain_len as usize);
    match chunk.encoding {
        Encoding::Zstd => frame,
        Encoding::Patch => MAX_RANGES_LEN + frame,
        Encoding::Copy => MAX_RANGES_LEN,
    }
}

#[cfg(test)]
mod tests;
