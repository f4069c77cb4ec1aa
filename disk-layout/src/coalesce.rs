//! Many small writes to a slot become few large ones.

use crate::aligned::{AlignedBuf, BLOCK};
use crate::device::{SlotError, SlotIo, check_access};

/// How much is gathered before it is written.
const RUN: usize = 1 << 20;

/// How many places are written to in turn: the data, and the two lowest levels of the hash tree.
const RUNS: usize = 3;

/// Gathers adjacent writes, in up to three places at once, and hands them on in pieces of up to 1 MiB.
///
/// An image is written to a slot as data that advances by a chunk at a time while, far behind it, the hash tree advances
/// by a block for every 512 KiB of data. Written one by one past the page cache, each such block costs a whole trip
/// to the device.
///
/// Only [`finish`](CoalescingWriter::finish) tells that everything has reached the slot. A writer that is dropped
/// loses what it still holds, as is right for a write that was given up.
#[derive(Debug)]
#[must_use = "what was gathered is written by `finish`"]
pub struct CoalescingWriter<'a, S: SlotIo + ?Sized> {
    slot: &'a mut S,
    runs: Vec<Run>,
    /// Counts writes, to tell which run was used last.
    clock: u64,
}

#[derive(Debug)]
struct Run {
    offset: u64,
    filled: usize,
    used: u64,
    bytes: AlignedBuf,
}

impl Run {
    fn end(&self) -> u64 {
        self.offset + self.filled as u64
    }

    fn drain<S: SlotIo + ?Sized>(&mut self, slot: &mut S) -> Result<(), SlotError> {
        if self.filled > 0 {
            slot.write_at(self.offset, &self.bytes[..self.filled])?;
            self.offset = self.end();
            self.filled = 0;
        }
        Ok(())
    }
}

impl<'a, S: SlotIo + ?Sized> CoalescingWriter<'a, S> {
    /// A writer to `slot`. Its memory, three times 1 MiB, is taken when it is first needed.
    pub fn new(slot: &'a mut S) -> Self {
        CoalescingWriter { slot, runs: Vec::with_capacity(RUNS), clock: 0 }
    }

    /// Takes `bytes` for `offset`. Both are multiples of [`BLOCK`] and lie in the slot. Of two writes to one place the later one wins.
    ///
    /// # Errors
    /// [`SlotError`], of this or of earlier bytes.
    pub fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), SlotError> {
        check_access(offset, bytes.len(), self.slot.len())?;
        self.clock += 1;
        self.drain_overlapping(offset, bytes.len() as u64)?;
        let (mut offset, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let index = self.run_for(offset)?;
            let run = &mut self.runs[index];
            run.used = self.clock;
            if run.filled == 0 && rest.len() >= RUN {
                // Enough for a write of its own: a copy would gain nothing.
                let (now, later) = rest.split_at(rest.len() - rest.len() % RUN);
                self.slot.write_at(offset, now)?;
                offset += now.len() as u64;
                run.offset = offset;
                rest = later;
                continue;
            }
            let (now, later) = rest.split_at(rest.len().min(RUN - run.filled));
            run.bytes[run.filled..run.filled + now.len()].copy_from_slice(now);
            run.filled += now.len();
            offset += now.len() as u64;
            rest = later;
            if run.filled == RUN {
                run.drain(self.slot)?;
            }
        }
        Ok(())
    }

    /// Writes what is still held and flushes the slot.
    ///
    /// # Errors
    /// [`SlotError`]; then the slot's content is unknown.
    pub fn finish(mut self) -> Result<(), SlotError> {
        for run in &mut self.runs {
            run.drain(self.slot)?;
        }
        self.slot.flush()
    }

    /// Keeps the order of writes to one place: a run that a new write touches goes out first.
    fn drain_overlapping(&mut self, offset: u64, bytes: u64) -> Result<(), SlotError> {
        for run in &mut self.runs {
            if run.filled > 0 && run.offset < offset + bytes && offset < run.end() {
                run.drain(self.slot)?;
            }
        }
        Ok(())
    }

    /// The run that ends where the write begins, else an unused one, else the one that was used longest ago, written out.
    fn run_for(&mut self, offset: u64) -> Result<usize, SlotError> {
        if let Some(index) = self.runs.iter().position(|run| run.end() == offset) {
            return Ok(index);
        }
        if self.runs.len() < RUNS {
            self.runs.push(Run { offset, filled: 0, used: self.clock, bytes: AlignedBuf::new(RUN) });
            return Ok(self.runs.len() - 1);
        }
        let oldest = (0..RUNS).min_by_key(|index| self.runs[*index].used).unwrap_or(0);
        let run = &mut self.runs[oldest];
        run.drain(self.slot)?;
        run.offset = offset;
        Ok(oldest)
    }
}

const _: () = assert!(RUN.is_multiple_of(BLOCK));

#[cfg(test)]
#[path = "coalesce_tests.rs"]
mod tests;
