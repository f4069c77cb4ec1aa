//! Writes only what the slot does not hold yet.

use std::ops::{AddAssign, Range};

use crate::aligned::{AlignedBuf, BLOCK};
use crate::device::{SlotError, SlotIo, check_access};

/// How much is looked at, and then written, at once.
const STRETCH: usize = 1 << 20;

/// So much is looked at in vain before only the beginning of each stretch is: a slot that holds something else altogether, or the like of
/// it elsewhere, is not read from end to end for nothing.
const IN_VAIN: usize = 16 << 20;

/// How much of a stretch is looked at then.
const TRIED: usize = 64 * 1024;

/// A shorter run of zeros is sent like other bytes: a request of its own costs more than it spares.
const ZERO_RUN: usize = 128 * 1024;

/// Does a writer look at what is there before it writes?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// It reads first, and leaves blocks alone that hold what they should.
    First,
    /// It writes everything: the slot is known to hold nothing of use.
    Never,
}

impl Look {
    /// Bytes that a writer needs for it.
    pub fn memory(self) -> usize {
        match self {
            Look::Never => 0,
            Look::First => STRETCH,
        }
    }
}

/// What became of bytes that were to be in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changed {
    /// Sent to the medium.
    pub written: u64,
    /// Made zero by the medium itself, or sent where it cannot.
    pub zeroed: u64,
    /// Found to be there.
    pub equal: u64,
}

impl AddAssign for Changed {
    fn add_assign(&mut self, other: Changed) {
        self.written += other.written;
        self.zeroed += other.zeroed;
        self.equal += other.equal;
    }
}

/// Brings bytes to a slot with as few writes as it takes (`DSK-44`): a block that holds what it should is not written, and a long run of zeros
/// is made by the medium. What was found equal was read from the medium, past the page cache, but proves nothing for later: the
/// read-back does.
#[derive(Debug)]
pub struct ChangeWriter {
    look: Look,
    /// What is there.
    found: Option<AlignedBuf>,
    /// Bytes since the last block that was equal.
    in_vain: usize,
}

impl ChangeWriter {
    /// A writer. Its memory, 1 MiB, is taken when it looks.
    pub fn new(look: Look) -> ChangeWriter {
        ChangeWriter { look, found: None, in_vain: 0 }
    }

    /// Makes `bytes` be at `offset` of the slot.
    ///
    /// # Errors
    /// [`SlotError`], of a write; what cannot be read is written.
    pub fn put(&mut self, slot: &mut dyn SlotIo, offset: u64, bytes: &[u8]) -> Result<Changed, SlotError> {
        check_access(offset, bytes.len(), slot.len())?;
        let mut changed = Changed::default();
        match self.look {
            Look::Never => write_run(slot, offset, bytes, &mut changed)?,
            Look::First => {
                for (index, stretch) in bytes.chunks(STRETCH).enumerate() {
                    self.put_stretch(slot, offset + (index * STRETCH) as u64, stretch, &mut changed)?;
                }
            }
        }
        Ok(changed)
    }

    fn put_stretch(
        &mut self,
        slot: &mut dyn SlotIo,
        offset: u64,
        bytes: &[u8],
        changed: &mut Changed,
    ) -> Result<(), SlotError> {
        let found = &mut self.found.get_or_insert_with(|| AlignedBuf::new(STRETCH))[..bytes.len()];
        let tried = if self.in_vain < IN_VAIN { 0 } else { TRIED.min(bytes.len()) };
        let is_equal = |found: &[u8], block: Range<usize>| bytes[block.clone()] == found[block];
        let mut read = |found: &mut [u8], range: Range<usize>| {
            match slot.read_at_uncached(offset + range.start as u64, &mut found[range]) {
                // A block that can no longer be read may well be cured by writing it.
                Err(SlotError::Read { .. }) => Ok(false),
                read => read.map(|()| true),
            }
        };
        let of_use =
            tried == 0 || read(found, 0..tried)? && runs(tried, |block| is_equal(found, block)).any(|(equal, _)| equal);
        if !(of_use && read(found, tried..bytes.len())?) {
            return write_run(slot, offset, bytes, changed);
        }
        self.in_vain += bytes.len();
        for (equal, range) in runs(bytes.len(), |block| is_equal(found, block)) {
            if equal {
                changed.equal += range.len() as u64;
                self.in_vain = 0;
            } else {
                write_run(slot, offset + range.start as u64, &bytes[range], changed)?;
            }
        }
        Ok(())
    }
}

/// Writes bytes, long runs of zeros as such.
fn write_run(slot: &mut dyn SlotIo, offset: u64, bytes: &[u8], changed: &mut Changed) -> Result<(), SlotError> {
    let mut sent = 0;
    let mut send = |slot: &mut dyn SlotIo, range: Range<usize>| {
        changed.written += range.len() as u64;
        if range.is_empty() { Ok(()) } else { slot.write_at(offset + range.start as u64, &bytes[range]) }
    };
    for (zero, range) in runs(bytes.len(), |block| is_zero(&bytes[block])) {
        if zero && range.len() >= ZERO_RUN {
            send(slot, sent..range.start)?;
            sent = range.end;
            slot.zero_at(offset + range.start as u64, range.len() as u64)?;
            changed.zeroed += range.len() as u64;
        }
    }
    send(slot, sent..bytes.len())
}

fn is_zero(block: &[u8]) -> bool {
    static ZEROS: [u8; BLOCK] = [0; BLOCK];
    ZEROS.get(..block.len()) == Some(block)
}

/// The runs of adjacent blocks that are alike in a property, with that property.
fn runs(len: usize, property: impl Fn(Range<usize>) -> bool) -> impl Iterator<Item = (bool, Range<usize>)> {
    let block = move |start: usize| start..(start + BLOCK).min(len);
    let mut start = 0;
    let mut next = (len > 0).then(|| property(block(0)));
    std::iter::from_fn(move || {
        let kind = next?;
        let from = start;
        next = None;
        start += BLOCK;
        while start < len {
            let other = property(block(start));
            if other != kind {
                next = Some(other);
                break;
            }
            start += BLOCK;
        }
        Some((kind, from..start.min(len)))
    })
}

#[cfg(test)]
#[path = "changes_tests.rs"]
mod tests;
