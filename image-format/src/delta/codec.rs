//! One chunk of a delta: encoded bytes and a base root in, plain bytes out (IMG-73).

use std::io;

use zstd::zstd_safe::DCtx;

use crate::codec::{ChunkDecoder, DecodeError, authenticate, check_frame, fit};
use crate::reader::ChunkError;
use crate::table::{Chunk, Encoding};

use super::{BaseRange, ranges};

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

/// Decodes a chunk that refers to a base, in the order of IMG-73; its plain SHA-256 is the caller's to check. `reference` is memory to
/// work in, `into` as long as the chunk is plain.
pub(crate) fn decode(
    encoding: Encoding,
    encoded: &[u8],
    base: &dyn BaseRoot,
    reference: &mut Vec<u8>,
    into: &mut [u8],
) -> Result<(), DecodeError> {
    let (ranges, len, frame) = ranges::parse(encoded).ok_or(DecodeError::Ranges)?;
    if encoding == Encoding::Copy {
        return match len == into.len() && frame.is_empty() {
            true => read(base, &ranges, into).map_err(DecodeError::Base),
            false => Err(DecodeError::Ranges),
        };
    }
    check_frame(frame, into.len())?;
    fit(reference, len);
    read(base, &ranges, reference).map_err(DecodeError::Base)?;
    let differs = |_| DecodeError::BaseDiffers;
    let mut context = DCtx::create();
    context.ref_prefix(reference).map_err(differs)?;
    match context.decompress(into, frame).map_err(differs)? {
        written if written == into.len() => Ok(()),
        _ => Err(DecodeError::BaseDiffers),
    }
}

/// Decodes chunks of an authentic table one by one, as a worker does; for who tries the decoder with bytes of his own.
#[derive(Debug, Default)]
pub struct DeltaChunkDecoder {
    plain: Vec<u8>,
}

impl DeltaChunkDecoder {
    /// Checks and decodes chunk `number`, in the order of IMG-73, and gives its plain bytes.
    ///
    /// # Errors
    /// What makes the chunk unusable, with its number.
    pub fn decode(
        &mut self,
        number: usize,
        chunk: &Chunk,
        encoded: &[u8],
        base: &dyn BaseRoot,
    ) -> Result<&[u8], ChunkError> {
        let failed = |error| ChunkError::from_decode(number, error);
        authenticate(chunk, encoded).map_err(failed)?;
        fit(&mut self.plain, chunk.plain_len as usize);
        ChunkDecoder::new().decode_and_check(chunk, encoded, Some(base), &mut self.plain).map_err(failed)?;
        Ok(&self.plain)
    }
}

/// Fills `into` with ranges whose lengths were found to sum up to its length.
pub(super) fn read(base: &dyn BaseRoot, ranges: &[BaseRange], mut into: &mut [u8]) -> io::Result<()> {
    for range in ranges {
        let (piece, behind) = into.split_at_mut(range.len as usize);
        base.read(range.offset, piece)?;
        into = behind;
    }
    Ok(())
}
