//! Where the record lies on the partition, and reading and writing it there (`GRD-1`).

use std::io::{Read, Seek, SeekFrom};

use disk_layout::AlignedBuf;

use super::{GUARD_SIZE, GuardError, GuardRecord, RECORD_SIZE, guard_path};
use crate::esp::{EspPath, EspStorage};
use crate::fat::{Volume, cluster_faults};

/// The place of the record: the first sector of the file's first cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuardFile {
    offset: u64,
    /// What the disk writes at once.
    sector: usize,
}

impl GuardFile {
    /// Looks for `ralphos/guard` in the raw file system that begins at byte 0 of `window`; `sector_size` is that of the disk.
    ///
    /// # Errors
    /// [`GuardError::Missing`]; [`GuardError::Unusable`] when writing in place might hit something else than the file;
    /// [`GuardError::Fat`] when the file system cannot be read.
    pub fn locate<T: Read + Seek>(window: &mut T, sector_size: u64) -> Result<GuardFile, GuardError> {
        let unusable = |why| Err(GuardError::Unusable(why));
        let sector = match sector_size {
            512 => 512,
            4096 => 4096,
            _ => return unusable("the disk's sectors have neither 512 nor 4096 bytes"),
        };
        let path = guard_path();
        let mut volume = Volume::open(window)?;
        let item = volume.find(path.as_str())?.ok_or(GuardError::Missing)?;
        if item.is_dir || item.size != GUARD_SIZE {
            return unusable("it is not a file of 4096 bytes");
        }
        let dirs: Vec<EspPath> = path.split().0.into_iter().collect();
        if cluster_faults(&mut volume, &dirs)?.iter().any(|fault| fault.concerns(&path)) {
            return unusable("its clusters are no chain, or another name uses them too");
        }
        let Some(offset) = volume.cluster_offset(item.first_cluster) else {
            return unusable("it has no cluster");
        };
        // Then the sector lies within the first cluster, whatever follows it.
        if u64::from(volume.geometry().cluster_size) < sector_size || !offset.is_multiple_of(sector_size) {
            return unusable("its first sector is not one of the disk's");
        }
        Ok(GuardFile { offset, sector })
    }

    /// Where the record lies, in bytes from the start of the partition.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What the record says; a damaged one is empty (`GRD-2`).
    ///
    /// # Errors
    /// [`GuardError::Read`].
    pub fn read<T: Read + Seek>(&self, storage: &mut T) -> Result<GuardRecord, GuardError> {
        Ok(GuardRecord::decode(&self.read_sector(storage)?).unwrap_or_default())
    }

    /// The record's bytes, for who wants to tell a damaged one from an empty one.
    ///
    /// # Errors
    /// [`GuardError::Read`].
    pub fn read_sector<T: Read + Seek>(&self, storage: &mut T) -> Result<[u8; RECORD_SIZE], GuardError> {
        let mut buffer = AlignedBuf::new(self.sector);
        storage.seek(SeekFrom::Start(self.offset)).map_err(GuardError::Read)?;
        storage.read_exact(&mut buffer).map_err(GuardError::Read)?;
        let mut record = [0; RECORD_SIZE];
        record.copy_from_slice(&buffer[..RECORD_SIZE]);
        Ok(record)
    }

    /// Writes the record in place, one sector, and returns when it is on the medium.
    ///
    /// # Errors
    /// [`GuardError::Write`]: the medium holds the old record or the new one.
    pub fn write<T: EspStorage>(&self, storage: &mut T, record: &GuardRecord) -> Result<(), GuardError> {
        // The rest of the file is zero, so there is nothing to read before a larger sector is written.
        let mut buffer = AlignedBuf::new(self.sector);
        buffer[..RECORD_SIZE].copy_from_slice(&record.encode());
        storage.seek(SeekFrom::Start(self.offset)).map_err(GuardError::Write)?;
        storage.write_all(&buffer).map_err(GuardError::Write)?;
        storage.sync().map_err(GuardError::Write)
    }
}
