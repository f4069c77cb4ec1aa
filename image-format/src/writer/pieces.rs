//! A payload, piece by piece.

use std::io::Read as _;

use super::{BLOCK, BuildError, Source};

/// Reads a source from its beginning in pieces, and insists on the size it had.
pub(super) struct Pieces<'a> {
    payload: &'static str,
    from: &'a mut dyn Source,
    left: u64,
    /// Lengths of the next pieces, and of those behind them.
    lens: std::slice::Iter<'a, u32>,
    piece_len: u32,
}

impl<'a> Pieces<'a> {
    pub(super) fn new(
        payload: &'static str,
        from: &'a mut dyn Source,
        size: u64,
        lens: &'a [u32],
        piece_len: u32,
    ) -> Result<Self, BuildError> {
        from.rewind().map_err(|source| BuildError::Read { payload, source })?;
        Ok(Self { payload, from, left: size, lens: lens.iter(), piece_len })
    }

    /// The next piece. `left` counts the padding of root, too: what is missing in its last block is zeros, what is missing elsewhere means
    /// that somebody truncated the file.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, BuildError> {
        if self.left == 0 {
            return Ok(None);
        }
        let piece_len = self.lens.next().copied().unwrap_or(self.piece_len);
        let len = self.left.min(piece_len.into()) as usize;
        let mut piece = Vec::with_capacity(len);
        let read = (&mut *self.from).take(len as u64).read_to_end(&mut piece);
        read.map_err(|source| BuildError::Read { payload: self.payload, source })?;
        self.left -= len as u64;
        let missing = len - piece.len();
        let padding = self.payload == "root" && self.left == 0 && (missing as u64) < BLOCK;
        if missing > 0 && !padding {
            return Err(BuildError::Changed(self.payload));
        }
        piece.resize(len, 0);
        Ok(Some(piece))
    }
}
