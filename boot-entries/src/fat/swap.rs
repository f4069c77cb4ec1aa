//! Two files change places by one sector (`ENT-29`).

use std::io::{Read, Seek, Write};
use std::ops::Range;

use super::{FatError, Volume};

/// The least that a medium writes at once.
const SECTOR: usize = 512;
/// What of a directory slot belongs to the content and not to the name: first cluster, date and time of the last write, length.
const CONTENT: Range<usize> = 20..32;

/// Two files whose slots lie in one sector.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair {
    /// Where the sector begins, in bytes from the start of the volume.
    sector: u64,
    /// Where in it their slots begin.
    slots: [usize; 2],
}

impl<T: Read + Seek> Volume<T> {
    /// Looks for the slots of two files.
    pub(crate) fn find_pair(&mut self, a: &str, b: &str) -> Result<Pair, FatError> {
        let [a, b] = [self.slot_of(a)?, self.slot_of(b)?];
        let split = |at: u64| (at - at % SECTOR as u64, (at % SECTOR as u64) as usize);
        let ((sector, in_a), (other, in_b)) = (split(a), split(b));
        if sector == other { Ok(Pair { sector, slots: [in_a, in_b] }) } else { Err(FatError::Apart) }
    }

    /// Where the slot with a file's clusters lies.
    fn slot_of(&mut self, path: &str) -> Result<u64, FatError> {
        let missing = || FatError::Missing(path.to_owned());
        let item = self.find(path)?.filter(|item| !item.is_dir).ok_or_else(missing)?;
        // The short name is the last of them.
        item.slots.last().copied().ok_or_else(missing)
    }
}

impl<T: Read + Write + Seek> Volume<T> {
    /// What `a` holds is what `b` holds afterwards, and the other way round. Their names stay where they are, and one sector is written:
    /// a power cut leaves both as before or both as after. The caller makes it durable.
    ///
    /// # Errors
    /// [`FatError::Missing`]; [`FatError::Apart`] when it takes more than a sector; or when the volume cannot be read or written.
    pub fn swap_contents(&mut self, a: &str, b: &str) -> Result<(), FatError> {
        let Pair { sector, slots: [in_a, in_b] } = self.find_pair(a, b)?;
        let mut bytes = self.read_at(sector, SECTOR)?;
        for at in CONTENT {
            bytes.swap(in_a + at, in_b + at);
        }
        self.write_at(sector, &bytes)
    }
}
