//! One chunk of a delta: encoded bytes and a base root in, verified plain bytes out (IMG-73).

use std::io;

use zstd::zstd_safe::{self, DCtx};

use crate::codec::{FrameHeaderError, authenticate, check_header, fit};
use crate::digest::Digest;

use super::{DeltaChunk, Encoding, ranges};

/// The root that a delta refers to. Nothing that it gives is trusted: a chunk that comes out wrong is refused.
pub trait BaseRoot {
    /// Fills `into` from `at` on.
    ///
    /// # Errors
    /// When it cannot be filled, beyond the end above all.
    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()>;
}

impl BaseRoot for std::fs::File {
    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, into, at)
    }
}

/// Why a chunk of a delta cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeltaError {
    /// The source failed.
    #[error("cannot read chunk {chunk} of the delta")]
    Io {
        /// Which chunk, from 0.
        chunk: usize,
        /// What the source said.
        source: io::Error,
    },
    /// The encoded bytes are not the signed ones.
    #[error("chunk {chunk} of the delta is damaged: the SHA-256 of its encoded bytes is wrong (IMG-73)")]
    EncodedDigest {
        /// Which chunk, from 0.
        chunk: usize,
    },
    /// The ranges break their bounds.
    #[error("chunk {chunk} of the delta is refused: its ranges of the base root break their bounds (IMG-72)")]
    Ranges {
        /// Which chunk, from 0.
        chunk: usize,
    },
    /// The frame header breaks a rule.
    #[error("chunk {chunk} of the delta is refused (IMG-53)")]
    FrameHeader {
        /// Which chunk, from 0.
        chunk: usize,
        /// Why.
        source: FrameHeaderError,
    },
    /// The base could not be read.
    #[error("cannot read the base root for chunk {chunk} of the delta")]
    Base {
        /// Which chunk, from 0.
        chunk: usize,
        /// What it said.
        source: io::Error,
    },
    /// What comes out is not the signed content, though the delta itself is whole.
    #[error(
        "chunk {chunk} of the delta does not fit the base root: that is damaged, or not the one that the delta was made for (IMG-73)"
    )]
    BaseDiffers {
        /// Which chunk, from 0.
        chunk: usize,
    },
    /// All chunks hold but the payload does not.
    #[error("payload {payload:?} is wrong: its SHA-256 is not that of the manifest, found with chunk {chunk} (IMG-54)")]
    PayloadDigest {
        /// The payload's name.
        payload: String,
        /// Its last chunk, from 0.
        chunk: usize,
    },
}

/// Decodes chunks, reusing its buffers: at most 4 MiB of reference and 4 MiB of plain bytes. One for each worker.
#[derive(Debug, Default)]
pub struct DeltaDecoder {
    reference: Vec<u8>,
    plain: Vec<u8>,
}

impl DeltaDecoder {
    /// Checks and decodes chunk `number` of an authentic table, in the order of IMG-73, and gives its plain bytes.
    ///
    /// # Errors
    /// What makes the chunk unusable, with its number.
    pub fn decode(
        &mut self,
        number: usize,
        item: &DeltaChunk,
        encoded: &[u8],
        base: &dyn BaseRoot,
    ) -> Result<&[u8], DeltaError> {
        let DeltaChunk { chunk, encoding } = item;
        authenticate(chunk, encoded).map_err(|_| DeltaError::EncodedDigest { chunk: number })?;
        let plain_len = chunk.plain_len as usize;
        let in_bounds = || ranges::parse(encoded).ok_or(DeltaError::Ranges { chunk: number });
        match encoding {
            Encoding::Zstd => {
                self.reference.clear();
                self.decompress(number, encoded, plain_len)?;
            }
            Encoding::Patch => {
                let (ranges, len, frame) = in_bounds()?;
                read(base, &ranges, len, &mut self.reference).map_err(|source| base_error(number, source))?;
                self.decompress(number, frame, plain_len)?;
            }
            Encoding::Copy => {
                let (ranges, len, rest) = in_bounds()?;
                if len != plain_len || !rest.is_empty() {
                    return Err(DeltaError::Ranges { chunk: number });
                }
                read(base, &ranges, len, &mut self.plain).map_err(|source| base_error(number, source))?;
            }
        }
        if Digest::of(&self.plain) == chunk.plain_sha256 {
            Ok(&self.plain)
        } else {
            Err(DeltaError::BaseDiffers { chunk: number })
        }
    }

    /// Decompresses exactly one frame, which may refer to the reference, into exactly `plain_len` bytes.
    fn decompress(&mut self, number: usize, frame: &[u8], plain_len: usize) -> Result<(), DeltaError> {
        let refused = |source| DeltaError::FrameHeader { chunk: number, source };
        check_header(frame, plain_len as u64).map_err(refused)?;
        if zstd_safe::find_frame_compressed_size(frame) != Ok(frame.len()) {
            return Err(refused(FrameHeaderError::NotOneFrame));
        }
        fit(&mut self.plain, plain_len);
        let differs = |_| DeltaError::BaseDiffers { chunk: number };
        let mut context = DCtx::create();
        if !self.reference.is_empty() {
            context.ref_prefix(&self.reference).map_err(differs)?;
        }
        match context.decompress(self.plain.as_mut_slice(), frame).map_err(differs)? {
            written if written == plain_len => Ok(()),
            _ => Err(DeltaError::BaseDiffers { chunk: number }),
        }
    }
}

fn base_error(chunk: usize, source: io::Error) -> DeltaError {
    DeltaError::Base { chunk, source }
}

/// Reads ranges whose lengths were found to sum up to `len`, at most 4 MiB.
pub(super) fn read(base: &dyn BaseRoot, ranges: &[super::BaseRange], len: usize, into: &mut Vec<u8>) -> io::Result<()> {
    fit(into, len);
    let mut rest = into.as_mut_slice();
    for range in ranges {
        let (piece, behind) = rest.split_at_mut(range.len as usize);
        base.read(range.offset, piece)?;
        rest = behind;
    }
    Ok(())
}
