//! Memory that `O_DIRECT` can take.

use std::fmt;
use std::ops::{Deref, DerefMut};

/// Slots are read and written in whole blocks of this many bytes, at multiples of it: a block of the hash tree, a page,
/// and no less than a sector of any disk we know.
pub const BLOCK: usize = 4096;

/// A buffer of fixed length whose first byte lies at a multiple of [`BLOCK`] in memory.
///
/// Who hands such a buffer to [`SlotIo`](crate::SlotIo) spares it a copy.
pub struct AlignedBuf {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuf {
    /// `len` zero bytes.
    pub fn new(len: usize) -> AlignedBuf {
        // One block more than asked for, so that an aligned byte is among the first. The vector never grows: it stays in place.
        let memory = vec![0; len + BLOCK];
        let start = memory.as_ptr().align_offset(BLOCK);
        assert!(start <= BLOCK, "an aligned address lies within one block");
        AlignedBuf { memory, start, len }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuf({} bytes)", self.len)
    }
}

/// True where `O_DIRECT` can use this memory as it is.
pub(crate) fn is_aligned(bytes: &[u8]) -> bool {
    bytes.as_ptr().align_offset(BLOCK) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_aligned_and_writable() {
        for len in [0, 1, 4095, 4096, 4097, 1 << 20] {
            let mut buf = AlignedBuf::new(len);
            assert_eq!(buf.len(), len);
            assert!(is_aligned(&buf));
            buf.fill(7);
            // Moving the buffer does not move its memory.
            let moved = Box::new(buf);
            assert!(is_aligned(&moved));
            assert!(moved.iter().all(|b| *b == 7));
        }
    }
}
