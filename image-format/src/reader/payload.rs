//! One payload of a verified image, chunk by chunk or as a byte stream.

use std::fmt;
use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use crate::chunk_source::ChunkSource;
use crate::digest::Digest;
use crate::manifest::{Payload, PayloadKind};

use super::{ChunkError, VerifiedImage};

/// Reads one payload. Bytes are handed out only after the checks of IMG-53, and those of the last chunk only after the whole payload's
/// SHA-256 was found right, too (IMG-54).
///
/// As a [`Read`], a verification failure is an [`io::Error`] with the [`ChunkError`] inside.
#[must_use]
pub struct PayloadReader<'a, R> {
    image: &'a mut VerifiedImage<R>,
    index: u16,
    /// Of the whole payload; `None` when the caller compares the verity root hash instead.
    hasher: Option<Sha256>,
    /// Where the chunk in the decoder begins in the payload.
    chunk_offset: u64,
    /// How much of the chunk in the decoder has been handed out.
    taken: usize,
    /// How much there is to hand out of it.
    available: usize,
}

/// Verified bytes of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlainChunk<'a> {
    /// Where they begin in the payload.
    pub offset: u64,
    /// The bytes.
    pub bytes: &'a [u8],
}

impl<'a, R: ChunkSource> PayloadReader<'a, R> {
    pub(super) fn new(image: &'a mut VerifiedImage<R>, index: u16) -> Self {
        Self { image, index, hasher: Some(Sha256::new()), chunk_offset: 0, taken: 0, available: 0 }
    }

    /// For `root`: does not hash the whole payload a second time, because the caller computes the verity root hash and compares it, which
    /// binds every byte (IMG-54). Changes nothing for other payloads.
    pub fn leave_digest_to_verity(mut self) -> Self {
        if matches!(self.payload().kind, PayloadKind::Root(_)) {
            self.hasher = None;
        }
        self
    }

    /// Which payload this is.
    pub fn payload(&self) -> &Payload {
        &self.image.manifest().payloads[usize::from(self.index)]
    }

    /// The next verified bytes, or `None` at the end. (After a partial [`Read::read`]: the rest of that chunk.)
    ///
    /// # Errors
    /// The source's, or what makes the chunk or the payload unusable; then the image gives nothing more.
    pub fn next_chunk(&mut self) -> Result<Option<PlainChunk<'_>>, ChunkError> {
        if !self.fill()? {
            return Ok(None);
        }
        let offset = self.chunk_offset + self.taken as u64;
        let bytes = &self.image.decoder.plain()[self.taken..self.available];
        self.taken = self.available;
        Ok(Some(PlainChunk { offset, bytes }))
    }

    /// Passes over the rest of the payload. Its encoded bytes are still read and authenticated (IMG-14), but not decoded.
    ///
    /// # Errors
    /// As [`PayloadReader::next_chunk`].
    pub fn drain(mut self) -> Result<(), ChunkError> {
        while self.has_next()? {
            self.guarded(|this| this.image.discard_next())?;
            self.close_at_end();
        }
        Ok(())
    }

    /// Makes sure that there is something to hand out; false at the end of the payload.
    fn fill(&mut self) -> Result<bool, ChunkError> {
        if self.taken < self.available {
            return Ok(true);
        }
        if !self.has_next()? {
            return Ok(false);
        }
        self.guarded(Self::load)?;
        self.close_at_end();
        Ok(true)
    }

    fn load(&mut self) -> Result<(), ChunkError> {
        (self.taken, self.available) = (0, 0);
        let chunk = self.image.decode_next()?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(self.image.decoder.plain());
        }
        let last = !self.belongs_here(self.image.progress.chunk);
        if last
            && let Some(hasher) = self.hasher.take()
            && Digest::finish(hasher) != self.payload().sha256
        {
            return Err(ChunkError::PayloadDigest {
                payload: self.payload().name.clone(),
                chunk: self.image.progress.chunk - 1,
            });
        }
        self.chunk_offset = chunk.plain_offset;
        self.available = chunk.plain_len as usize;
        Ok(())
    }

    /// Does one step; if it fails, the image is done for.
    fn guarded(&mut self, step: impl FnOnce(&mut Self) -> Result<(), ChunkError>) -> Result<(), ChunkError> {
        // Set before and not after: the mark must also stay if the source panics.
        self.image.progress.failed = true;
        step(self)?;
        self.image.progress.failed = false;
        Ok(())
    }

    fn has_next(&self) -> Result<bool, ChunkError> {
        if self.image.progress.failed {
            return Err(ChunkError::AlreadyFailed);
        }
        Ok(self.belongs_here(self.image.progress.chunk))
    }

    fn belongs_here(&self, chunk: usize) -> bool {
        self.image.chunks().get(chunk).is_some_and(|chunk| chunk.payload == self.index)
    }

    fn close_at_end(&mut self) {
        if !self.belongs_here(self.image.progress.chunk) {
            self.image.progress.open = None;
        }
    }
}

impl<R: ChunkSource> Read for PayloadReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || !self.fill()? {
            return Ok(0);
        }
        let rest = &self.image.decoder.plain()[self.taken..self.available];
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        self.taken += len;
        Ok(len)
    }
}

impl<R> fmt::Debug for PayloadReader<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PayloadReader")
            .field("index", &self.index)
            .field("next_chunk", &self.image.progress.chunk)
            .finish_non_exhaustive()
    }
}
