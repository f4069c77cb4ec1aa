//! A slot that is only read.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;

/// Reads a slot, from any thread, and can do no more than that.
pub trait SlotBytes: Send + Sync {
    /// Fills `into` with what the slot holds at `offset`.
    ///
    /// # Errors
    /// The medium's; also where that is not within the slot.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;
}

/// A slot of a disk, open for reading. Reads past the page cache where that can be done: a whole slot in it would drive out what the
/// machine works with.
#[derive(Debug)]
pub struct SlotReader {
    direct: Option<File>,
    cached: File,
    start: u64,
    len: u64,
}

impl SlotReader {
    /// The slot that lies at `start` of a file or device. Claims nothing: it may be mounted.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path, start: u64, len: u64) -> io::Result<SlotReader> {
        let direct = OpenOptions::new().read(true).custom_flags(OFlag::O_DIRECT.bits()).open(path).ok();
        Ok(SlotReader { direct, cached: File::open(path)?, start, len })
    }
}

impl SlotBytes for SlotReader {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(into.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let at = self.start + offset;
        match &self.direct {
            Some(direct) if direct.read_exact_at(into, at).is_ok() => Ok(()),
            _ => self.cached.read_exact_at(into, at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dsk_42_reads_the_slot_and_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let bytes: Vec<u8> = (0..64 * 1024_u32).map(|n| (n / 512) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let slot = SlotReader::open(&path, 8192, 16384).unwrap();
        let mut aligned = crate::AlignedBuf::new(4096);
        slot.read_at(4096, &mut aligned).unwrap();
        assert_eq!(aligned[..], bytes[12288..16384]);
        // From memory and for a length that O_DIRECT does not take.
        let mut odd = [0; 77];
        slot.read_at(16384 - 77, &mut odd).unwrap();
        assert_eq!(odd, bytes[8192 + 16384 - 77..8192 + 16384]);
        for (offset, len) in [(16384, 1), (16000, 4096), (u64::MAX, 2)] {
            assert!(slot.read_at(offset, &mut vec![0; len]).is_err(), "{offset}");
        }
    }
}
