//! UPD-3: the bytes of root, from wherever they come, onto the target slot; flushed.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use disk_layout::{AlignedBuf, ChangeWriter, Changed, SlotError, SlotIo};
use image_format::{ChunkSource, Reuse, SharedRoot, Taken, VerifiedImage, Verity};

use super::handles::{Handle, Handles};
use super::{How, MEMORY, MEMORY_FOR_DELTA, SlotContentError, on_threads};

/// Proof that every byte of root was authenticated and written, and flushed. Whether the medium holds the signed root is not known yet.
#[derive(Debug)]
#[must_use]
pub struct Written {
    pub(super) verity: Verity,
    /// Where the bytes came from.
    pub taken: Taken,
    /// What had to be written.
    pub changed: Changed,
}

/// How far the work is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Done {
    /// Bytes of root dealt with.
    pub bytes: u64,
    /// Everything before this byte of root is.
    pub through: u64,
}

/// Writes the root payload of an image of which nothing was read yet, and flushes. Leaves the image at the payload behind root.
///
/// Each worker takes a run of chunks, authenticates and decodes it into memory of its own, and writes it to its place: the order in
/// which runs reach the slot is nobody's business, because no entry starts it.
///
/// # Errors
/// The first in chunk order; then nothing is known of the slot.
pub fn write<S: ChunkSource + Send>(
    image: &mut VerifiedImage<S>,
    reuse: &dyn Reuse,
    slot: &mut dyn SlotIo,
    how: &How<'_>,
    done: &mut dyn FnMut(Done),
) -> Result<Written, SlotContentError> {
    let verity = image.manifest().root().1.clone();
    let memory = if image.base().is_some() { MEMORY_FOR_DELTA } else { MEMORY };
    let handles = Handles::new(slot);
    let shared = image.share_root(reuse).map_err(|source| SlotContentError::Image { source })?;
    let tally = Tally::default();
    let work = |told: &mut dyn FnMut(Done)| Worker { shared: &shared, tally: &tally, how }.run(handles.handle(), told);
    on_threads(how.workers(memory, shared.worker_memory() + how.look.memory()), || work(&mut |_| {}), || work(done));
    let state = tally.0.into_inner().unwrap_or_else(PoisonError::into_inner);
    done(state.done);
    let read = shared.finish();
    let slot_failed = |source| Err(SlotContentError::Slot { source });
    let taken = match (read, state.failed) {
        (Err(error), Some((chunk, slot))) if error.chunk().is_none_or(|number| number >= chunk) => {
            return slot_failed(slot);
        }
        (Err(source), _) if !state.interrupted || source.chunk().is_some() => {
            return Err(SlotContentError::Image { source });
        }
        (Err(_), _) => return Err(SlotContentError::Interrupted),
        (Ok(_), Some((_, slot))) => return slot_failed(slot),
        (Ok(taken), None) => taken,
    };
    handles.handle().flush().map_err(|source| SlotContentError::Slot { source })?;
    Ok(Written { verity, taken, changed: state.changed })
}

struct Worker<'w, 'a, S> {
    shared: &'w SharedRoot<'a, S>,
    tally: &'w Tally,
    how: &'w How<'w>,
}

impl<S: ChunkSource> Worker<'_, '_, S> {
    fn run(self, mut slot: Handle<'_, '_>, told: &mut dyn FnMut(Done)) {
        let mut chunks = self.shared.worker();
        let mut memory = AlignedBuf::new(self.shared.longest_run());
        let mut changes = ChangeWriter::new(self.how.look);
        loop {
            if self.how.stop.is_asked() {
                self.tally.lock().interrupted = true;
                return self.shared.stop();
            }
            let mut in_place = |at, into: &mut [u8]| slot.read_at_uncached(at, into).map_err(io::Error::other);
            let Some(run) = chunks.next(&mut memory, &mut in_place) else { return };
            let put = match run.is_in_place() {
                true => Ok(Changed { equal: run.bytes().len() as u64, ..Changed::default() }),
                false => changes.put(&mut slot, run.offset(), run.bytes()),
            };
            match put {
                Ok(changed) => told(self.tally.count(run.offset(), run.bytes().len() as u64, changed)),
                Err(error) => {
                    self.tally.fail(run.first_chunk(), error);
                    return self.shared.stop();
                }
            }
        }
    }
}

/// What all workers together have done.
#[derive(Default)]
struct Tally(Mutex<State>);

#[derive(Default)]
struct State {
    done: Done,
    changed: Changed,
    /// Runs behind `done.through`, by their beginning, with their end.
    ahead: BTreeMap<u64, u64>,
    /// The first failure of the slot, in chunk order.
    failed: Option<(usize, SlotError)>,
    interrupted: bool,
}

impl Tally {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, offset: u64, len: u64, changed: Changed) -> Done {
        let mut state = self.lock();
        state.changed += changed;
        state.done.bytes += len;
        state.ahead.insert(offset, offset + len);
        while let Some((from, to)) = state.ahead.pop_first() {
            if from > state.done.through {
                state.ahead.insert(from, to);
                break;
            }
            state.done.through = to;
        }
        state.done
    }

    fn fail(&self, chunk: usize, error: SlotError) {
        let mut state = self.lock();
        if state.failed.as_ref().is_none_or(|(first, _)| chunk < *first) {
            state.failed = Some((chunk, error));
        }
    }
}
