//! UPD-3 and UPD-4: the root and its verity tree onto the target slot, and proof that the medium holds them.
//!
//! Data are hashed once: not on their way to the slot, where their encoded bytes were found to be the signed ones, but on their way
//! back from it. The tree that this gives is the slot's tree, its top must be the signed root hash, and it is written, flushed and read back
//! in its turn.

mod base;
mod handles;
mod prove;
mod tree;
mod write;

use std::num::NonZeroUsize;

use disk_layout::{Look, SlotError};
use image_format::{ChunkError, Digest, VerityError};

use crate::stop::Stop;

pub use base::SlotRoot;
pub use prove::Proven;
pub use write::{Done, Written, write};

/// Threads at most.
const MAX_WORKERS: usize = 8;

/// What all workers together may hold (IMG-60).
const MEMORY: usize = 18 << 20;

/// The same with a delta, whose chunks are longer and refer to others.
const MEMORY_FOR_DELTA: usize = 34 << 20;

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
    /// The medium gave back other bytes than the signed table has for a chunk. Their encoded form was authentic, so either the medium
    /// does not keep what it is given, or whoever signed that table was wrong: the chunk tells, if it can be had once more.
    #[error(
        "read back from the medium, chunk {chunk} in the slot is not what the image's signed table says: the disk is failing, another program writes to it, or the image was built wrongly"
    )]
    Differs {
        /// Which chunk, from 0.
        chunk: usize,
    },
    /// Somebody asked for an end.
    #[error("interrupted by a signal")]
    Interrupted,
}

/// How to go about it.
#[derive(Debug, Clone, Copy)]
pub struct How<'a> {
    /// Does the writer look at what is there?
    pub look: Look,
    /// Ends it.
    pub stop: &'a Stop,
    /// Threads; by the machine where it is not said.
    pub workers: Option<NonZeroUsize>,
}

impl How<'_> {
    /// How many threads work, each of which needs so much of `memory`. One more than there are processors: one waits for the medium.
    fn workers(&self, memory: usize, memory_of_one: usize) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get) + 1;
        let wanted = self.workers.map_or_else(cores, NonZeroUsize::get);
        wanted.min(MAX_WORKERS).min(memory / memory_of_one.max(1)).max(1)
    }
}

/// Runs `work` on so many threads, this one among them, which alone is told of progress. Fewer threads than asked for do as well.
fn on_threads<R: Send>(count: usize, others: impl Fn() -> R + Sync, this: impl FnOnce() -> R) {
    std::thread::scope(|scope| {
        for _ in 1..count {
            if std::thread::Builder::new().spawn_scoped(scope, &others).is_err() {
                break;
            }
        }
        this();
    });
}

#[cfg(test)]
mod tests;
