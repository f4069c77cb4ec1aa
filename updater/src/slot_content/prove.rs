//! UPD-4: back from the medium, past the page cache. The tree is what the medium's bytes give.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use disk_layout::{AlignedBuf, SlotIo};
use image_format::{BLOCK, Chunk, Digest, LeafHasher, Leaves, Verity, slot_bytes};
use sha2::Digest as _;

use super::handles::{Handle, Handles};
use super::tree::{Tree, TreeOut, builder};
use super::write::Written;
use super::{How, MEMORY, SlotContentError, on_threads};

/// Bytes read back at a time.
const READ: u64 = 1 << 20;

/// How many pieces may wait for an earlier one: digests, 8 KiB for each.
const AHEAD: u64 = 32;

/// Proof that the medium holds the signed root and its tree.
#[derive(Debug)]
#[must_use]
pub struct Proven(());

impl Written {
    /// Reads the data back past the page cache. They must give the signed root hash; the tree they give is written with its superblock,
    /// flushed, and read back as well. `chunks` are those of root: they tell who is to blame when the hash is another.
    ///
    /// # Errors
    /// The medium's, or that it does not hold what was signed.
    pub fn prove(
        self,
        chunks: &[Chunk],
        slot: &mut dyn SlotIo,
        how: &How<'_>,
        done: &mut dyn FnMut(u64),
    ) -> Result<Proven, SlotContentError> {
        let verity = self.verity;
        let handles = Handles::new(slot);
        let mut out = TreeOut::new(handles.handle(), how.look);
        let readers = Readers {
            end: verity.hash_offset,
            hasher: LeafHasher::new(&verity.salt),
            how,
            ordered: Mutex::new(Ordered {
                tree: Tree::new(&verity, &mut out)?,
                handed_out: 0,
                taken_in: 0,
                waiting: BTreeMap::new(),
                failed: None,
            }),
            moved: Condvar::new(),
        };
        let read = |told: &mut dyn FnMut(u64)| readers.read(handles.handle(), told);
        on_threads(how.workers(MEMORY, READ as usize), || read(&mut |_| {}), || read(done));
        let ordered = readers.ordered.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = ordered.failed {
            return Err(error);
        }
        let computed = ordered.tree.finish(&verity)?;
        if computed != verity.root_hash {
            return Err(blame(computed, &verity, chunks, handles.handle()));
        }
        let there = out.was_kept().map_err(|source| SlotContentError::Slot { source })?;
        done(slot_bytes(verity.hash_offset));
        if there { Ok(Proven(())) } else { Err(SlotContentError::ReadBack { what: "hash tree" }) }
    }
}

struct Readers<'r, 'o, 'h, 's> {
    end: u64,
    hasher: LeafHasher,
    how: &'r How<'r>,
    ordered: Mutex<Ordered<'o, 'h, 's>>,
    moved: Condvar,
}

/// Readers finish in any order; the tree grows in one.
struct Ordered<'o, 'h, 's> {
    tree: Tree<'o, 'h, 's>,
    /// Where the next reader begins.
    handed_out: u64,
    /// What the tree has, in bytes of data.
    taken_in: u64,
    waiting: BTreeMap<u64, Leaves>,
    failed: Option<SlotContentError>,
}

impl<'o, 'h, 's> Readers<'_, 'o, 'h, 's> {
    fn read(&self, mut slot: Handle<'_, '_>, told: &mut dyn FnMut(u64)) {
        let mut memory = AlignedBuf::new(READ as usize);
        while let Some(offset) = self.next() {
            let data = &mut memory[..READ.min(self.end - offset) as usize];
            let leaves = match slot.read_at_uncached(offset, data) {
                Ok(()) => Ok(self.hasher.leaves(data)),
                Err(source) => Err(SlotContentError::Slot { source }),
            };
            told(self.take_in(offset, leaves));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ordered<'o, 'h, 's>> {
        self.ordered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<u64> {
        let mut ordered = self.lock();
        loop {
            if self.how.stop.is_asked() {
                ordered.failed.get_or_insert(SlotContentError::Interrupted);
                self.moved.notify_all();
            }
            let offset = ordered.handed_out;
            if ordered.failed.is_some() || offset >= self.end {
                return None;
            }
            if offset - ordered.taken_in <= AHEAD * READ {
                ordered.handed_out += READ;
                return Some(offset);
            }
            ordered = self.moved.wait(ordered).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn take_in(&self, offset: u64, leaves: Result<Leaves, SlotContentError>) -> u64 {
        let mut guard = self.lock();
        let ordered = &mut *guard;
        let taken = match leaves {
            Ok(leaves) => {
                ordered.waiting.insert(offset, leaves);
                ordered.push_ready()
            }
            Err(error) => Err(error),
        };
        if let Err(error) = taken {
            ordered.failed.get_or_insert(error);
        }
        self.moved.notify_all();
        ordered.taken_in
    }
}

impl Ordered<'_, '_, '_> {
    fn push_ready(&mut self) -> Result<(), SlotContentError> {
        while let Some(leaves) = self.waiting.remove(&self.taken_in) {
            self.tree.push(&leaves)?;
            self.taken_in += leaves.data_len();
        }
        Ok(())
    }
}

/// The data gave another root hash than the signed one. Does the medium give what was written, so that the image is to blame?
///
/// Everything is read once more. The table's plain digests, which are signed, tell whether the bytes are the image's; and bytes that now give
/// another root hash than before are those of a medium that gives what it likes.
fn blame(computed: Digest, verity: &Verity, chunks: &[Chunk], slot: Handle<'_, '_>) -> SlotContentError {
    match compare_with_table(verity, chunks, slot) {
        Ok(Compared::Same(again)) if again == computed => {
            SlotContentError::RootHash { computed, signed: verity.root_hash }
        }
        Ok(Compared::Same(_)) => SlotContentError::ReadBack { what: "data" },
        Ok(Compared::Differs { chunk }) => SlotContentError::Differs { chunk },
        Err(error) => error,
    }
}

/// What the slot's bytes are to the chunk table.
enum Compared {
    /// Those of the table, with this root hash.
    Same(Digest),
    /// This chunk, counted from 0, is the first that is another.
    Differs { chunk: usize },
}

fn compare_with_table(
    verity: &Verity,
    chunks: &[Chunk],
    mut slot: Handle<'_, '_>,
) -> Result<Compared, SlotContentError> {
    let verity_error = |source| SlotContentError::Verity { source };
    let mut tree = builder(verity)?;
    let mut nowhere = |_: u64, _: &[u8]| Ok(());
    let mut memory = AlignedBuf::new(READ as usize);
    for (number, chunk) in chunks.iter().enumerate() {
        let mut hasher = sha2::Sha256::new();
        let end = chunk.plain_offset + u64::from(chunk.plain_len);
        let mut at = chunk.plain_offset;
        while at < end {
            let data = &mut memory[..READ.min(end - at) as usize];
            slot.read_at_uncached(at, data).map_err(|source| SlotContentError::Slot { source })?;
            hasher.update(&*data);
            tree.update(data, &mut nowhere).map_err(verity_error)?;
            at += data.len() as u64;
        }
        if Digest::from(<[u8; 32]>::from(hasher.finalize())) != chunk.plain_sha256 {
            return Ok(Compared::Differs { chunk: number });
        }
    }
    tree.finish(&mut nowhere).map(Compared::Same).map_err(verity_error)
}

const _: () = assert!(READ.is_multiple_of(BLOCK));
