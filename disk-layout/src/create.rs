//! Making a new disk's partition table (`DSK-1`, `DSK-2`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io;

use gpt::GptConfig;
use gpt::disk::LogicalBlockSize;
use gpt::mbr::ProtectiveMBR;

use crate::layout::{
    ATTRIBUTE_NO_AUTO, ATTRIBUTE_READ_ONLY, Architecture, DiskLayout, LABEL_ESP, LABEL_VAR, LayoutError, TYPE_ESP,
    TYPE_VAR,
};
use crate::table::{Partition, PartitionTable, TableCopy};
use crate::{Seed, Slot};

/// Partitions begin and end at multiples of this (`DSK-1`).
pub const ALIGNMENT: u64 = 1 << 20;

/// What a new disk shall be. Lengths are in bytes and rounded up to [`ALIGNMENT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewDisk {
    /// What the slots are for.
    pub architecture: Architecture,
    /// Bytes in a logical sector, 512 or 4096.
    pub sector_size: u64,
    /// Length of the EFI system partition.
    pub esp_len: u64,
    /// Length of each of the two slots.
    pub slot_len: u64,
    /// Length of the partition for `/var`.
    pub var_len: u64,
    /// Where the GUIDs come from.
    pub seed: Seed,
}

/// A new disk's partition table could not be made or written.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The sector size is neither 512 nor 4096.
    #[error("logical sectors of {0} bytes are not supported: they have 512 or 4096")]
    SectorSize(u64),
    /// A partition of no bytes.
    #[error("the partition {0} must not be empty")]
    Empty(&'static str),
    /// The lengths add up to more than a file can have.
    #[error("the partitions are too long for one disk")]
    TooLong,
    /// The disk image could not be given its length.
    #[error("cannot set the disk image's length to {len} bytes")]
    SetLength {
        /// The length.
        len: u64,
        /// What the kernel said.
        source: io::Error,
    },
    /// The protective MBR could not be written.
    #[error("cannot write the protective MBR")]
    Mbr(#[source] gpt::mbr::MBRError),
    /// The partition table could not be written.
    #[error("cannot write the partition table")]
    Table(#[source] gpt::GptError),
    /// The partition table could not be brought to the medium.
    #[error("cannot flush the partition table")]
    Flush(#[source] io::Error),
    /// What was written is not what was meant.
    #[error("the partition table reads back wrong")]
    ReadBack(#[source] LayoutError),
    /// What was written reads back as another layout.
    #[error("the partition table reads back as another one")]
    Differs,
}

impl NewDisk {
    /// Decides where everything will lie, and every GUID. Writes nothing.
    ///
    /// # Errors
    /// [`CreateError`] for a strange sector size or length.
    pub fn plan(&self) -> Result<PlannedDisk, CreateError> {
        if ![512, 4096].contains(&self.sector_size) {
            return Err(CreateError::SectorSize(self.sector_size));
        }
        let root = self.architecture.root_type();
        let slot_bits = ATTRIBUTE_READ_ONLY | ATTRIBUTE_NO_AUTO;
        let wanted = [
            (LABEL_ESP, TYPE_ESP, 0, self.esp_len),
            (Slot::A.label(), root, slot_bits, self.slot_len),
            (Slot::B.label(), root, slot_bits, self.slot_len),
            (LABEL_VAR, TYPE_VAR, ATTRIBUTE_NO_AUTO, self.var_len),
        ];
        let mut partitions = Vec::with_capacity(wanted.len());
        // The first MiB holds the MBR and the first copy of the table, the last one the backup.
        let mut start = ALIGNMENT;
        for (number, (label, type_guid, attributes, len)) in (1..).zip(wanted) {
            if len == 0 {
                return Err(CreateError::Empty(label));
            }
            let len = len.checked_next_multiple_of(ALIGNMENT).ok_or(CreateError::TooLong)?;
            let unique_guid = self.seed.guid(label);
            partitions.push(Partition {
                number,
                label: label.to_owned(),
                type_guid,
                unique_guid,
                start,
                len,
                attributes,
            });
            start = start.checked_add(len).ok_or(CreateError::TooLong)?;
        }
        let disk_len = start.checked_add(ALIGNMENT).ok_or(CreateError::TooLong)?;
        if i64::try_from(disk_len).is_err() {
            return Err(CreateError::TooLong);
        }
        let table = PartitionTable {
            sector_size: self.sector_size,
            disk_len,
            disk_guid: self.seed.guid("disk"),
            copy: TableCopy::Primary,
            partitions: partitions.clone(),
        };
        let layout = DiskLayout::from_table(table).map_err(CreateError::ReadBack)?;
        Ok(PlannedDisk { layout, partitions })
    }

    /// Gives the file the disk's length and writes the partition table into it. Everything else stays as it was: in a new
    /// file, a hole.
    ///
    /// # Errors
    /// [`CreateError`].
    pub fn create(&self, file: &File) -> Result<DiskLayout, CreateError> {
        let planned = self.plan()?;
        planned.set_len(file)?;
        planned.write_table(file)?;
        Ok(planned.layout)
    }
}

/// A disk of which only the partition table is still to be written: the contents come first, so that a disk that was
/// cut short has no table and cannot be mistaken for a whole one.
#[derive(Debug, Clone)]
pub struct PlannedDisk {
    layout: DiskLayout,
    partitions: Vec<Partition>,
}

impl PlannedDisk {
    /// Where everything will lie.
    pub fn layout(&self) -> &DiskLayout {
        &self.layout
    }

    /// Gives the image file the disk's length; what was not written stays a hole.
    ///
    /// # Errors
    /// [`CreateError::SetLength`].
    pub fn set_len(&self, file: &File) -> Result<(), CreateError> {
        let len = self.layout.disk_len;
        file.set_len(len).map_err(|source| CreateError::SetLength { len, source })
    }

    /// Writes protective MBR and both copies of the table, flushes, and reads them back.
    ///
    /// # Errors
    /// [`CreateError`].
    pub fn write_table(&self, file: &File) -> Result<(), CreateError> {
        let size = self.layout.sector_size;
        let sector = if size == 512 { LogicalBlockSize::Lb512 } else { LogicalBlockSize::Lb4096 };
        let mut device = file;
        // As UEFI asks: all sectors but the first, or the largest number where they do not fit.
        let protected = u32::try_from(self.layout.disk_len / size - 1).unwrap_or(u32::MAX);
        ProtectiveMBR::with_lb_size(protected).overwrite_lba0(&mut device).map_err(CreateError::Mbr)?;
        let config = GptConfig::new().writable(true).logical_block_size(sector);
        let mut disk = config.create_from_device(device, Some(self.layout.disk_guid)).map_err(CreateError::Table)?;
        disk.update_partitions(self.entries(size)).map_err(CreateError::Table)?;
        disk.write().map_err(CreateError::Table)?;
        file.sync_all().map_err(CreateError::Flush)?;
        let written = DiskLayout::read(file).map_err(CreateError::ReadBack)?;
        if written != self.layout {
            return Err(CreateError::Differs);
        }
        Ok(())
    }

    fn entries(&self, sector_size: u64) -> BTreeMap<u32, gpt::partition::Partition> {
        let entry = |p: &Partition| gpt::partition::Partition {
            part_type_guid: p.type_guid.into(),
            part_guid: p.unique_guid,
            first_lba: p.start / sector_size,
            last_lba: p.end() / sector_size - 1,
            flags: p.attributes,
            name: p.label.clone(),
        };
        self.partitions.iter().map(|p| (p.number, entry(p))).collect()
    }
}
