//! UPD-3 and UPD-4: the root and its verity tree onto the target slot, and back from it past the page cache.

use std::io;

use disk_layout::{AlignedBuf, CoalescingWriter, SlotError, SlotIo};
use image_format::{
    BLOCK, ChunkError, Digest, PayloadReader, Verity, VerityBuilder, VerityError, slot_bytes, verity_superblock,
};

/// Bytes read back at a time.
const READ: usize = 1 << 20;

/// Why a slot does not hold what it should.
#[derive(Debug, thiserror::Error)]
pub enum SlotContentError {
    /// The image ended, or is not what was signed.
    #[error("the image cannot be used")]
    Image {
        /// Which chunk, and why.
        source: ChunkError,
    },
    /// The slot cannot be written or read.
    #[error("the slot does not take the image")]
    Slot {
        /// Where, and why.
        source: SlotError,
    },
    /// The verity tree cannot be built: a size that does not fit, which the manifest's checks exclude.
    #[error("cannot compute the verity tree")]
    Verity {
        /// Why.
        source: VerityError,
    },
    /// The bytes of the image give another root hash than the signed one.
    #[error(
        "the root computed from the image has the verity root hash {computed}, signed is {signed}: the image was built wrongly"
    )]
    RootHash {
        /// Of the bytes.
        computed: Digest,
        /// In the manifest.
        signed: Digest,
    },
    /// The medium gave back other bytes than were written.
    #[error(
        "read back from the medium, the {what} of the slot is not what was written: the disk is failing, or another program writes to it"
    )]
    ReadBack {
        /// `data` or `hash tree`.
        what: &'static str,
    },
}

/// Proof that a slot's content was written and flushed, its root hash the signed one. Not yet read back.
#[derive(Debug)]
#[must_use]
pub struct Written {
    verity: Verity,
}

/// Writes a root payload, the superblock and the hash tree, and flushes (UPD-3). `done` hears of bytes of root.
pub fn write(
    root: &mut PayloadReader<'_, impl io::Read>,
    verity: &Verity,
    slot: &mut dyn SlotIo,
    mut done: impl FnMut(u64),
) -> Result<Written, SlotContentError> {
    let image = |source| SlotContentError::Image { source };
    let full = |source| SlotContentError::Slot { source };
    let mut tree = Sinking::new(VerityBuilder::new(verity.hash_offset, &verity.salt))?;
    let mut out = CoalescingWriter::new(slot);
    while let Some(chunk) = root.next_chunk().map_err(image)? {
        out.write_at(chunk.offset, chunk.bytes).map_err(full)?;
        tree.update(chunk.bytes, |offset, bytes| out.write_at(offset, bytes))?;
        done(chunk.offset + chunk.bytes.len() as u64);
    }
    out.write_at(verity.hash_offset, &verity_superblock(verity)).map_err(full)?;
    let computed = tree.finish(|offset, bytes| out.write_at(offset, bytes))?;
    out.finish().map_err(full)?;
    if computed != verity.root_hash {
        return Err(SlotContentError::RootHash { computed, signed: verity.root_hash });
    }
    Ok(Written { verity: verity.clone() })
}

impl Written {
    /// Reads data, superblock and tree back past the page cache: the data must give the signed root hash, and what is stored
    /// must be the tree that the data gives (UPD-4).
    pub fn read_back(self, slot: &mut dyn SlotIo, mut done: impl FnMut(u64)) -> Result<Proven, SlotContentError> {
        let verity = self.verity;
        let full = |source| SlotContentError::Slot { source };
        let end = slot_bytes(verity.hash_offset);
        // Two readers of one slot: the data from its beginning, and beside it the tree at the places the data leads to.
        let mut stored = Stored { slot, buffer: AlignedBuf::new(READ), differs: false };
        let mut tree = Sinking::new(VerityBuilder::new(verity.hash_offset, &verity.salt))?;
        let mut data = AlignedBuf::new(READ);
        let mut offset = 0;
        while offset < verity.hash_offset {
            let len = usize::try_from(verity.hash_offset - offset).map_or(READ, |left| left.min(READ));
            stored.slot.read_at_uncached(offset, &mut data[..len]).map_err(full)?;
            tree.update(&data[..len], |at, bytes| stored.compare(at, bytes))?;
            offset += len as u64;
            done(offset);
        }
        let computed = tree.finish(|at, bytes| stored.compare(at, bytes))?;
        stored.compare(verity.hash_offset, &verity_superblock(&verity)).map_err(full)?;
        done(end);
        if computed != verity.root_hash {
            return Err(SlotContentError::ReadBack { what: "data" });
        }
        if stored.differs {
            return Err(SlotContentError::ReadBack { what: "hash tree" });
        }
        Ok(Proven(()))
    }
}

/// Proof that the slot was read back from the medium and holds the signed root and its tree.
#[derive(Debug)]
#[must_use]
pub struct Proven(());

struct Stored<'s> {
    slot: &'s mut dyn SlotIo,
    buffer: AlignedBuf,
    differs: bool,
}

impl Stored<'_> {
    fn compare(&mut self, offset: u64, expected: &[u8]) -> Result<(), SlotError> {
        for (index, piece) in expected.chunks(READ).enumerate() {
            let found = &mut self.buffer[..piece.len()];
            self.slot.read_at_uncached(offset + (index * READ) as u64, found)?;
            self.differs |= found != piece;
        }
        Ok(())
    }
}

/// A tree builder whose sink may fail with a [`SlotError`], which would lose its kind inside an `io::Error`.
struct Sinking {
    builder: VerityBuilder,
}

impl Sinking {
    fn new(builder: Result<VerityBuilder, VerityError>) -> Result<Self, SlotContentError> {
        builder.map(|builder| Sinking { builder }).map_err(|source| SlotContentError::Verity { source })
    }

    fn update(
        &mut self,
        data: &[u8],
        mut put: impl FnMut(u64, &[u8]) -> Result<(), SlotError>,
    ) -> Result<(), SlotContentError> {
        let mut failed = None;
        let result = self.builder.update(data, &mut |offset, bytes: &[u8]| kept(put(offset, bytes), &mut failed));
        told(result, failed)
    }

    fn finish(self, mut put: impl FnMut(u64, &[u8]) -> Result<(), SlotError>) -> Result<Digest, SlotContentError> {
        let mut failed = None;
        let result = self.builder.finish(&mut |offset, bytes: &[u8]| kept(put(offset, bytes), &mut failed));
        told(result, failed)
    }
}

fn kept(result: Result<(), SlotError>, failed: &mut Option<SlotError>) -> io::Result<()> {
    result.map_err(|error| {
        *failed = Some(error);
        io::Error::other("the slot failed")
    })
}

fn told<T>(result: Result<T, VerityError>, failed: Option<SlotError>) -> Result<T, SlotContentError> {
    match (result, failed) {
        (_, Some(source)) => Err(SlotContentError::Slot { source }),
        (Err(source), None) => Err(SlotContentError::Verity { source }),
        (Ok(value), None) => Ok(value),
    }
}

const _: () = assert!(READ.is_multiple_of(BLOCK as usize));
