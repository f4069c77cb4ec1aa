//! Room at the end of a directory, and making more of it so that no cut can break the directory's chain (`ENT-28`).

use std::io::{self, Read, Seek, Write};

use super::dir::SLOTS_MAX;
use super::{FatError, FatKind, Next, Volume, writing};

const SLOT: usize = 32;
/// FAT32 keeps four bits of each entry for itself.
const RESERVED_BITS: u32 = 0xf000_0000;
const END: u32 = 0x0fff_ffff;
/// Where the information sector tells the number of free clusters, and what stands there when it does not.
const FREE_COUNT: u64 = 488;
const UNKNOWN: u32 = 0xffff_ffff;

impl<T: Read + Seek> Volume<T> {
    /// Directory slots behind the end mark of a directory; None when it is missing.
    ///
    /// The firmware puts every new name there (CUT-26 of `specs/power-cuts.md`).
    ///
    /// # Errors
    /// When it cannot be read or its chain is broken.
    pub fn room(&mut self, path: &str) -> Result<Option<usize>, FatError> {
        let Some(item) = self.find(path)?.filter(|item| item.is_dir) else { return Ok(None) };
        let chain = self.chain(item.first_cluster)?;
        if !chain.whole {
            return Err(FatError::Directory(path.to_owned()));
        }
        let size = self.geometry.cluster_size as usize;
        let (mut slots, mut used) = (0, None);
        for cluster in chain.clusters {
            let bytes = self.read_at(self.geometry.offset(cluster), size)?;
            let end = bytes.chunks_exact(SLOT).position(|slot| slot[0] == 0 && slot[11] & 0x08 == 0);
            used = used.or(end.map(|end| slots + end));
            slots += size / SLOT;
        }
        Ok(Some(slots - used.unwrap_or(slots)))
    }
}

impl<T: Read + Write + Seek> Volume<T> {
    /// Makes a directory longer where fewer than `slots` lie behind its end mark: then twice as many do, so that it is not
    /// done again soon. True when that changed it.
    ///
    /// *Story:* a directory gets another cluster by two entries of the FAT, the end mark of the new cluster and the link to it.
    /// With the link and without the end mark the firmware takes the whole directory for an empty one, and nothing
    /// boots. So the new clusters are cleared and chained to each other first, where no name leads to them, and that is made
    /// durable; then one sector is written, the link. A cut before it leaves lost clusters, which harm nobody.
    ///
    /// `sync` is called with the storage when what was written must be durable. Only FAT32 is changed, as every ESP of ours is
    /// (`DSK-10`).
    ///
    /// # Errors
    /// [`FatError::Missing`]; [`FatError::Full`]; when the volume cannot be read or written, or the chain is broken.
    pub fn make_room(
        &mut self,
        path: &str,
        slots: usize,
        sync: &mut dyn FnMut(&mut T) -> io::Result<()>,
    ) -> Result<bool, FatError> {
        let there = self.room(path)?.ok_or_else(|| FatError::Missing(path.to_owned()))?;
        if there >= slots || self.geometry.kind != FatKind::Fat32 {
            return Ok(false);
        }
        let size = self.geometry.cluster_size as usize;
        let wanted = ((2 * slots - there) * SLOT).div_ceil(size);
        let first = self.find(path)?.ok_or_else(|| FatError::Missing(path.to_owned()))?.first_cluster;
        let chain = self.chain(first)?.clusters;
        // A directory that is as long as FAT allows cannot grow, and then the firmware uses deleted slots again (CUT-26).
        let wanted = wanted.min((SLOTS_MAX * SLOT).saturating_sub(chain.len() * size) / size);
        if wanted == 0 {
            return Ok(false);
        }
        let last = chain.last().copied();
        let last = last.ok_or_else(|| FatError::Directory(path.to_owned()))?;
        let new = self.free_after(last, wanted)?.ok_or(FatError::Full)?;
        for cluster in &new {
            self.write_at(self.geometry.offset(*cluster), &vec![0; size])?;
        }
        for (index, cluster) in new.iter().enumerate() {
            self.set_next(*cluster, new.get(index + 1).copied().unwrap_or(END))?;
        }
        sync(&mut self.storage).map_err(writing)?;
        // The one write that counts.
        self.set_next(last, new[0])?;
        sync(&mut self.storage).map_err(writing)?;
        // A hint to the kernel; wrong until here, it was too large by a little.
        self.count_down(new.len())?;
        sync(&mut self.storage).map_err(writing)?;
        Ok(true)
    }

    /// `wanted` free clusters, those behind `last` first; None when there are not so many.
    fn free_after(&mut self, last: u32, wanted: usize) -> Result<Option<Vec<u32>>, FatError> {
        let end = self.geometry.clusters + 2;
        let mut found = Vec::with_capacity(wanted);
        for cluster in (last..end).chain(2..last) {
            if self.next(cluster)? == Next::Free {
                found.push(cluster);
            }
            if found.len() == wanted {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Writes an entry of the FAT into all copies that the volume keeps, that which counts first.
    fn set_next(&mut self, cluster: u32, next: u32) -> Result<(), FatError> {
        for start in self.geometry.copies() {
            let at = start + u64::from(cluster) * 4;
            let old = self.read_at(at, 4)?;
            let old = u32::from_le_bytes([old[0], old[1], old[2], old[3]]);
            self.write_at(at, &(old & RESERVED_BITS | next & !RESERVED_BITS).to_le_bytes())?;
        }
        // What was read of the FAT is not what it holds now.
        self.window = (0, Vec::new());
        Ok(())
    }

    fn count_down(&mut self, clusters: usize) -> Result<(), FatError> {
        let Some(info) = self.geometry.info else { return Ok(()) };
        let at = info + FREE_COUNT;
        let old = self.read_at(at, 4)?;
        let old = u32::from_le_bytes([old[0], old[1], old[2], old[3]]);
        let new = old.checked_sub(u32::try_from(clusters).unwrap_or(UNKNOWN)).unwrap_or(UNKNOWN);
        if old == UNKNOWN { Ok(()) } else { self.write_at(at, &new.to_le_bytes()) }
    }
}

#[cfg(test)]
mod tests;
