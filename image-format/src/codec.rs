//! One chunk at a time: a zstd frame in, verified plain bytes out (IMG-53).

use zstd::zstd_safe::{self, DCtx};

use crate::digest::Digest;
use crate::table::Chunk;

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DecodeError {
    EncodedDigest,
    Header(FrameHeaderError),
    Zstd(&'static str),
    PlainDigest,
}

/// Decodes chunks whose encoded bytes were found to be the signed ones, reusing its context.
pub(crate) struct FrameDecoder(DCtx<'static>);

impl FrameDecoder {
    pub(crate) fn new() -> Self {
        Self(DCtx::create())
    }

    /// Checks the header and decodes: the second and third step of IMG-53. `into` is as long as the chunk is plain.
    pub(crate) fn decode(&mut self, chunk: &Chunk, encoded: &[u8], into: &mut [u8]) -> Result<(), DecodeError> {
        check_header(encoded, chunk.plain_len.into()).map_err(DecodeError::Header)?;
        let one_frame = zstd_safe::find_frame_compressed_size(encoded) == Ok(encoded.len());
        if !one_frame {
            return Err(DecodeError::Header(FrameHeaderError::NotOneFrame));
        }
        // Decoding in one go writes into this memory only and allocates no window.
        let len = into.len();
        let written =
            self.0.decompress(into, encoded).map_err(|code| DecodeError::Zstd(zstd_safe::get_error_name(code)))?;
        if written == len { Ok(()) } else { Err(DecodeError::PlainDigest) }
    }
}

/// Decodes chunks one after the other, reusing its context and buffer.
pub(crate) struct Decoder {
    frames: FrameDecoder,
    plain: Vec<u8>,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self { frames: FrameDecoder::new(), plain: Vec::new() }
    }

    /// Checks and decodes one chunk, in the order of IMG-53. The plain bytes are then in [`Decoder::plain`].
    pub(crate) fn decode(&mut self, chunk: &Chunk, encoded: &[u8]) -> Result<(), DecodeError> {
        authenticate(chunk, encoded)?;
        // The table was checked: at most 4 MiB.
        fit(&mut self.plain, chunk.plain_len as usize);
        self.frames.decode(chunk, encoded, &mut self.plain)?;
        if Digest::of(&self.plain) == chunk.plain_sha256 { Ok(()) } else { Err(DecodeError::PlainDigest) }
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
pub(crate) fn check_header(frame: &[u8], plain_len: u64) -> Result<(), FrameHeaderError> {
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
