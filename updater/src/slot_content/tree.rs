//! The hash tree on its way to the slot.

use std::io;

use disk_layout::{AlignedBuf, ChangeWriter, CoalescingWriter, Look, SlotError, SlotIo};
use image_format::{Digest, Leaves, Verity, VerityBuilder, VerityError, verity_superblock};

use super::SlotContentError;
use super::handles::Handle;

/// Writes the tree and remembers what it wrote, by digests: a tree is a hundredth of the data, and so are its pieces' digests a trifle.
pub(super) struct TreeOut<'h, 's> {
    slot: Handle<'h, 's>,
    changes: ChangeWriter,
    pieces: Vec<Piece>,
}

struct Piece {
    offset: u64,
    len: usize,
    digest: Digest,
}

impl<'h, 's> TreeOut<'h, 's> {
    pub(super) fn new(slot: Handle<'h, 's>, look: Look) -> Self {
        TreeOut { slot, changes: ChangeWriter::new(look), pieces: Vec::new() }
    }

    /// Does the medium hold what was written?
    pub(super) fn was_kept(mut self) -> Result<bool, SlotError> {
        let longest = self.pieces.iter().map(|piece| piece.len).max().unwrap_or(0);
        let mut found = AlignedBuf::new(longest);
        for piece in &self.pieces {
            self.slot.read_at_uncached(piece.offset, &mut found[..piece.len])?;
            if Digest::of(&found[..piece.len]) != piece.digest {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl SlotIo for TreeOut<'_, '_> {
    fn len(&self) -> u64 {
        self.slot.len()
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), SlotError> {
        self.pieces.push(Piece { offset, len: bytes.len(), digest: Digest::of(bytes) });
        self.changes.put(&mut self.slot, offset, bytes).map(drop)
    }

    fn flush(&mut self) -> Result<(), SlotError> {
        self.slot.flush()
    }

    fn read_at_uncached(&mut self, offset: u64, bytes: &mut [u8]) -> Result<(), SlotError> {
        self.slot.read_at_uncached(offset, bytes)
    }
}

/// A tree that grows at its place in the slot.
pub(super) struct Tree<'o, 'h, 's> {
    builder: VerityBuilder,
    out: CoalescingWriter<'o, TreeOut<'h, 's>>,
}

impl<'o, 'h, 's> Tree<'o, 'h, 's> {
    pub(super) fn new(verity: &Verity, out: &'o mut TreeOut<'h, 's>) -> Result<Self, SlotContentError> {
        let builder = builder(verity)?;
        Ok(Tree { builder, out: CoalescingWriter::new(out) })
    }

    pub(super) fn push(&mut self, leaves: &Leaves) -> Result<(), SlotContentError> {
        let Tree { builder, out } = self;
        sinking(|mut sink| builder.push_leaves(leaves, &mut sink), |offset, bytes| out.write_at(offset, bytes))
    }

    /// The rest of the tree and the superblock go to the slot, which is flushed.
    pub(super) fn finish(self, verity: &Verity) -> Result<Digest, SlotContentError> {
        let Tree { builder, mut out } = self;
        let superblock = verity_superblock(verity);
        out.write_at(verity.hash_offset, &superblock).map_err(|source| SlotContentError::Slot { source })?;
        // The top of the tree is right behind it, and goes out with it.
        let computed = sinking(|mut sink| builder.finish(&mut sink), |offset, bytes| out.write_at(offset, bytes))?;
        out.finish().map_err(|source| SlotContentError::Slot { source })?;
        Ok(computed)
    }
}

pub(super) fn builder(verity: &Verity) -> Result<VerityBuilder, SlotContentError> {
    VerityBuilder::new(verity.hash_offset, &verity.salt).map_err(|source| SlotContentError::Verity { source })
}

/// A builder's sink knows `io::Error` alone, in which a [`SlotError`] would lose its kind.
fn sinking<T>(
    build: impl FnOnce(&mut dyn FnMut(u64, &[u8]) -> io::Result<()>) -> Result<T, VerityError>,
    mut put: impl FnMut(u64, &[u8]) -> Result<(), SlotError>,
) -> Result<T, SlotContentError> {
    let mut failed = None;
    let built = build(&mut |offset, bytes| {
        put(offset, bytes).map_err(|error| {
            failed = Some(error);
            io::Error::other("the slot failed")
        })
    });
    match (built, failed) {
        (_, Some(source)) => Err(SlotContentError::Slot { source }),
        (Err(source), None) => Err(SlotContentError::Verity { source }),
        (Ok(value), None) => Ok(value),
    }
}
