//! The seam to the medium of a slot.

use std::io;
use std::path::PathBuf;

use crate::aligned::BLOCK;
use crate::window::{OutsideWindow, check_range};

/// What [`SlotIo::zero_at`] writes at once.
const ZEROS: usize = 256 * 1024;

/// Reading and writing one slot, and nothing but that slot (`DSK-41`, `DSK-42`).
///
/// Offsets and lengths are in bytes, count from the slot's beginning, and are multiples of [`BLOCK`].
pub trait SlotIo: Send {
    /// Bytes in the slot.
    fn len(&self) -> u64;

    /// True for a slot of no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes all of `bytes`. They are durable after the next [`flush`](SlotIo::flush), not before.
    ///
    /// # Errors
    /// [`SlotError`]; then any part of the bytes may have been written.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), SlotError>;

    /// Makes everything written so far durable, the device's own cache included (`fdatasync`).
    ///
    /// # Errors
    /// [`SlotError::Flush`]; then nothing since the last flush may be taken for durable, also not after another try.
    fn flush(&mut self) -> Result<(), SlotError>;

    /// Fills `bytes` with what the *medium* holds, past the page cache.
    ///
    /// # Errors
    /// [`SlotError`].
    fn read_at_uncached(&mut self, offset: u64, bytes: &mut [u8]) -> Result<(), SlotError>;

    /// Makes `bytes` bytes from `offset` on read as zeros, as [`write_at`](SlotIo::write_at) of zeros would; where the medium can do that
    /// by itself, nothing is sent (`DSK-44`).
    ///
    /// # Errors
    /// As [`write_at`](SlotIo::write_at).
    fn zero_at(&mut self, offset: u64, bytes: u64) -> Result<(), SlotError> {
        let zeros = crate::AlignedBuf::new(ZEROS);
        let end = offset.saturating_add(bytes);
        let mut at = offset;
        while at < end {
            let len = usize::try_from(end - at).map_or(ZEROS, |left| left.min(ZEROS));
            self.write_at(at, &zeros[..len])?;
            at += len as u64;
        }
        Ok(())
    }

    /// Another handle on the same slot, for another thread; a flush of one is a flush of all. `None` where there is only one, which threads
    /// then use in turn.
    fn another(&self) -> Option<Box<dyn SlotIo>> {
        None
    }

    /// True when the slot's first block holds only zeros: no image was ever written to it. (A slot that was fenced keeps its
    /// bytes; whether it can boot is the entries' business.)
    ///
    /// # Errors
    /// [`SlotError`].
    fn is_blank(&mut self) -> Result<bool, SlotError> {
        let mut first = crate::AlignedBuf::new(BLOCK);
        self.read_at_uncached(0, &mut first)?;
        Ok(first.iter().all(|byte| *byte == 0))
    }
}

/// A slot could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// The partition or image file could not be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The partition's device or the image file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The partition is mounted or mapped (`DSK-43`).
    #[error("{} is in use: it is mounted, or lies under a device mapper device; it is not the slot to write to", path.display())]
    InUse {
        /// The partition's device.
        path: PathBuf,
    },
    /// The partition's device has another length than the partition table says.
    #[error("{} has {actual} bytes but {expected} by the partition table; reboot so that the kernel reads the table again", path.display())]
    Length {
        /// The partition's device.
        path: PathBuf,
        /// Bytes by the partition table.
        expected: u64,
        /// Bytes by the kernel.
        actual: u64,
    },
    /// Offset or length is not a multiple of [`BLOCK`]: a fault of the program.
    #[error("{bytes} bytes at {offset} of a slot are not whole blocks of {BLOCK}")]
    Misaligned {
        /// Where in the slot.
        offset: u64,
        /// How many bytes.
        bytes: u64,
    },
    /// The access would leave the slot (`DSK-42`).
    #[error("access outside the slot refused")]
    Outside(#[from] OutsideWindow),
    /// Reading failed.
    #[error("cannot read {bytes} bytes at {offset} of {}", path.display())]
    Read {
        /// The partition's device or the image file.
        path: PathBuf,
        /// Where in the slot.
        offset: u64,
        /// How many bytes.
        bytes: u64,
        /// What the kernel said.
        source: io::Error,
    },
    /// Writing failed.
    #[error("cannot write {bytes} bytes at {offset} of {}", path.display())]
    Write {
        /// The partition's device or the image file.
        path: PathBuf,
        /// Where in the slot.
        offset: u64,
        /// How many bytes.
        bytes: u64,
        /// What the kernel said.
        source: io::Error,
    },
    /// What was written could not be made durable.
    #[error("cannot flush {}", path.display())]
    Flush {
        /// The partition's device or the image file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The checks that every access passes before anything else happens.
pub(crate) fn check_access(offset: u64, bytes: usize, len: u64) -> Result<(), SlotError> {
    let bytes = bytes as u64;
    let block = BLOCK as u64;
    if !offset.is_multiple_of(block) || !bytes.is_multiple_of(block) {
        return Err(SlotError::Misaligned { offset, bytes });
    }
    Ok(check_range(offset, bytes, len)?)
}
