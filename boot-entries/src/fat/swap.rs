//! Two files change places by one sector (`ENT-29`).

use std::io::{Read, Seek, Write};
use std::ops::Range;

use super::dir::RawItem;
use super::{FatError, Volume};

/// The least that a medium writes at once.
const SECTOR: u64 = 512;
/// What of a directory slot belongs to the content and not to the name: first cluster, date and time of the last write, length.
const CONTENT: Range<usize> = 20..32;

impl<T: Read + Write + Seek> Volume<T> {
    /// What `a` holds is what `b` holds afterwards, and the other way round. Their names stay where they are, and one sector is written:
    /// a power cut leaves both as before or both as after. The caller makes it durable.
    ///
    /// # Errors
    /// [`FatError::Missing`]; [`FatError::Apart`] when it takes more than a sector; or when the volume cannot be read or written.
    pub fn swap_contents(&mut self, a: &str, b: &str) -> Result<(), FatError> {
        let (at_a, at_b) = (self.slot_of(a)?, self.slot_of(b)?);
        let sector = at_a - at_a % SECTOR;
        if at_b - at_b % SECTOR != sector {
            return Err(FatError::Apart);
        }
        let mut bytes = [0; SECTOR as usize];
        bytes.copy_from_slice(&self.read_at(sector, SECTOR as usize)?);
        // Both are below 512.
        let (in_a, in_b) = ((at_a - sector) as usize, (at_b - sector) as usize);
        for at in CONTENT {
            bytes.swap(in_a + at, in_b + at);
        }
        self.write_at(sector, &bytes)
    }

    /// Where the slot with a file's clusters lies.
    fn slot_of(&mut self, path: &str) -> Result<u64, FatError> {
        let missing = || FatError::Missing(path.to_owned());
        let item: RawItem = self.find(path)?.filter(|item| !item.is_dir).ok_or_else(missing)?;
        // The short name is the last of them.
        item.slots.last().copied().ok_or_else(missing)
    }
}
