//! One chunk at a time: encoded bytes in, verified plain bytes out (IMG-53, IMG-73).

use std::io;

use zstd::zstd_safe::{self, DCtx};

use crate::delta::{self, BaseRoot};
use crate::digest::Digest;
use crate::table::{Chunk, Encoding};

/// The largest window a frame may ask for.
const MAX_WINDOW: u64 = 1 << 23;

const FRAME_MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();

/// Why a zstd frame header is refused (IMG-53).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameHeaderError {
    /// Another magic number; a skippable frame is not a chunk either.
    #[error("it does not begin with an ordinary zstd frame")]
    Magic,
    /// The header is not whole.
    #[error("its zstd frame header is cut short")]
    Short,
    /// A reserved bit is set.
    #[error("a reserved bit of its zstd frame header is set")]
    Reserved,
    /// A dictionary is asked for.
    #[error("it asks for a dictionary")]
    Dictionary,
    /// The window is too large.
    #[error("it asks for a window of {0} bytes, more than 2^23")]
    Window(u64),
    /// The header does not say how long the content is.
    #[error("its zstd frame header does not say how long the content is")]
    NoContentSize,
    /// The header says another content size than the table.
    #[error("its zstd frame header says {0} plain bytes, the chunk table something else")]
    ContentSize(u64),
    /// The frame does not end where the chunk ends.
    #[error("it is not exactly one zstd frame")]
    NotOneFrame,
}

/// What is wrong with a chunk; the caller knows its number.
#[derive(Debug)]
pub(crate) enum DecodeError {
    EncodedDigest,
    Header(FrameHeaderError),
    Zstd(&'static str),
    PlainDigest,
    /// The ranges break IMG-72.
    Ranges,
    /// The base cannot be read.
    Base(io::Error),
    /// The base is not the one that the chunk was made for.
    BaseDiffers,
}

/// Decodes chunks whose encoded bytes were found to be the signed ones, reusing its context and, for a delta, up to 4 MiB of memory for
/// what a chunk refers to. One for each worker.
pub(crate) struct ChunkDecoder {
    frames: DCtx<'static>,
    reference: Vec<u8>,
}

impl ChunkDecoder {
    pub(crate) fn new() -> Self {
        Self { frames: DCtx::create(), reference: Vec::new() }
    }

    /// Decodes: all of IMG-53 and IMG-73 that stands between the two digests. `into` is as long as the chunk is plain.
    pub(crate) fn decode(
        &mut self,
        chunk: &Chunk,
        encoded: &[u8],
        base: Option<&dyn BaseRoot>,
        into: &mut [u8],
    ) -> Result<(), DecodeError> {
        match (chunk.encoding, base) {
            (Encoding::Zstd, _) => {
                check_frame(encoded, into.len())?;
                // Decoding in one go writes into this memory only and allocates no window.
                let zstd = |code| DecodeError::Zstd(zstd_safe::get_error_name(code));
                match self.frames.decompress(into, encoded).map_err(zstd)? {
                    written if written == into.len() => Ok(()),
                    _ => Err(DecodeError::PlainDigest),
                }
            }
            (_, None) => Err(DecodeError::Base(io::Error::new(io::ErrorKind::NotFound, "there is none"))),
            (_, Some(base)) => delta::decode(chunk.encoding, encoded, base, &mut self.reference, into),
        }
    }

    /// As [`ChunkDecoder::decode`], and the plain SHA-256.
    pub(crate) fn decode_and_check(
        &mut self,
        chunk: &Chunk,
        encoded: &[u8],
        base: Option<&dyn BaseRoot>,
        into: &mut [u8],
    ) -> Result<(), DecodeError> {
        self.decode(chunk, encoded, base, into)?;
        match chunk.encoding {
            _ if Digest::of(&*into) == chunk.plain_sha256 => Ok(()),
            Encoding::Zstd => Err(DecodeError::PlainDigest),
            // The signed bytes were whole, so it is not they that are wrong.
            Encoding::Patch | Encoding::Copy => Err(DecodeError::BaseDiffers),
        }
    }
}

/// Is this exactly one frame within IMG-53, of so many plain bytes?
pub(crate) fn check_frame(frame: &[u8], plain_len: usize) -> Result<(), DecodeError> {
    check_header(frame, plain_len as u64).map_err(DecodeError::Header)?;
    match zstd_safe::find_frame_compressed_size(frame) {
        Ok(len) if len == frame.len() => Ok(()),
        _ => Err(DecodeError::Header(FrameHeaderError::NotOneFrame)),
    }
}

/// Decodes chunks one after the other, reusing its context and buffer.
pub(crate) struct Decoder {
    chunks: ChunkDecoder,
    plain: Vec<u8>,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self { chunks: ChunkDecoder::new(), plain: Vec::new() }
    }

    /// Checks and decodes one chunk, in the order of IMG-53. The plain bytes are then in [`Decoder::plain`].
    pub(crate) fn decode(
        &mut self,
        chunk: &Chunk,
        encoded: &[u8],
        base: Option<&dyn BaseRoot>,
    ) -> Result<(), DecodeError> {
        authenticate(chunk, encoded)?;
        // The table was checked: at most 4 MiB.
        fit(&mut self.plain, chunk.plain_len as usize);
        self.chunks.decode_and_check(chunk, encoded, base, &mut self.plain)
    }

    /// The plain bytes of the chunk decoded last.
    pub(crate) fn plain(&self) -> &[u8] {
        &self.plain
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}

/// Makes `buffer` exactly `len` bytes long, without the head room that a growing vector gives itself (IMG-60).
pub(crate) fn fit(buffer: &mut Vec<u8>, len: usize) {
    if buffer.capacity() < len {
        // The old bytes are of no use, so they need not be copied.
        buffer.clear();
        buffer.reserve_exact(len);
    }
    buffer.resize(len, 0);
}

/// The first check of IMG-53, which is all that a discarded chunk needs.
pub(crate) fn authenticate(chunk: &Chunk, encoded: &[u8]) -> Result<(), DecodeError> {
    if Digest::of(encoded) == chunk.encoded_sha256 { Ok(()) } else { Err(DecodeError::EncodedDigest) }
}

/// Reads a zstd frame header (RFC 8878, section 3.1.1.1) and holds it against IMG-53. Done here and not by the library, because the
/// library obeys a frame's window and dictionary wishes before anybody can object.
fn check_header(frame: &[u8], plain_len: u64) -> Result<(), FrameHeaderError> {
    let rest = frame.strip_prefix(&FRAME_MAGIC).ok_or(FrameHeaderError::Magic)?;
    let (&descriptor, rest) = rest.split_first().ok_or(FrameHeaderError::Short)?;
    let single_segment = descriptor & 0x20 != 0;
    if descriptor & 0x08 != 0 {
        return Err(FrameHeaderError::Reserved);
    }
    if descriptor & 0x03 != 0 {
        return Err(FrameHeaderError::Dictionary);
    }
    let (window, rest) = if single_segment {
        (None, rest)
    } else {
        let (&byte, rest) = rest.split_first().ok_or(FrameHeaderError::Short)?;
        let base = 1_u64 << (10 + (byte >> 3));
        (Some(base + base / 8 * u64::from(byte & 7)), rest)
    };
    let field = |len: usize| rest.get(..len).ok_or(FrameHeaderError::Short);
    let little_endian = |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    let content = match descriptor >> 6 {
        0 if single_segment => little_endian(field(1)?),
        0 => return Err(FrameHeaderError::NoContentSize),
        1 => little_endian(field(2)?) + 256,
        2 => little_endian(field(4)?),
        _ => little_endian(field(8)?),
    };
    if content != plain_len {
        return Err(FrameHeaderError::ContentSize(content));
    }
    // A single segment's window is its content, which is at most 4 MiB by now.
    match window {
        Some(window) if window > MAX_WINDOW => Err(FrameHeaderError::Window(window)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
