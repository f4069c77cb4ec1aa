//! Reading a GUID partition table, whichever of its two copies is whole (`DSK-4`).
//!
//! The `gpt` crate's own way to open a disk trusts a primary header without looking at the other copy when the
//! primary's *entries* are damaged, panics at an entry size other than 128, and lets the header say how much memory to
//! allocate. So the two copies are looked at one by one here, and its parsers see a header only after its numbers
//! were checked.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use gpt::disk::LogicalBlockSize;
use gpt::header::{Header, HeaderError, read_header_from_arbitrary_device};
use gpt::partition::file_read_partitions;
use uuid::Uuid;

use crate::window::FileWindow;

/// More entries than anybody has; the usual number is 128.
pub(crate) const MAX_ENTRIES: u32 = 1024;

/// A partition as the table has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// The partition number, from 1.
    pub number: u32,
    /// The GPT label.
    pub label: String,
    /// What kind of partition it is.
    pub type_guid: Uuid,
    /// The partition's own GUID, "PARTUUID".
    pub unique_guid: Uuid,
    /// Where it begins, in bytes from the beginning of the disk.
    pub start: u64,
    /// Its length in bytes.
    pub len: u64,
    /// The attribute bits.
    pub attributes: u64,
}

impl Partition {
    /// The first byte behind the partition.
    pub fn end(&self) -> u64 {
        self.start + self.len
    }
}

/// Which copy of the partition table was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableCopy {
    /// The one at the beginning of the disk.
    Primary,
    /// The one at the end of the disk: the primary is damaged.
    Backup,
}

/// A whole partition table, without a judgement about what it describes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionTable {
    /// Bytes in a logical sector, 512 or 4096.
    pub sector_size: u64,
    /// Length of the disk in bytes.
    pub disk_len: u64,
    /// The disk's own GUID.
    pub disk_guid: Uuid,
    /// The copy that was read.
    pub copy: TableCopy,
    /// The used entries in the order of their numbers.
    pub partitions: Vec<Partition>,
}

/// A partition table could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The file or device could not be measured.
    #[error("cannot find the disk's length")]
    Length(#[source] io::Error),
    /// The device's sector size could not be found in sysfs.
    #[error("cannot read the device's sector size from {path}")]
    SectorSize {
        /// The file of sysfs.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The sector size is neither 512 nor 4096 (`DSK-1`).
    #[error("logical sectors of {0:?} bytes are not supported: they have 512 or 4096")]
    StrangeSectorSize(String),
    /// There is no table, or both copies are damaged.
    #[error("no whole GPT partition table (first copy: {primary}; last copy: {backup})")]
    NoTable {
        /// What is wrong with the first copy.
        primary: CopyError,
        /// What is wrong with the last copy.
        backup: CopyError,
    },
}

/// What is wrong with one copy of a partition table.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The disk is too short to hold one.
    #[error("the disk is too short")]
    TooShort,
    /// The header is missing or damaged.
    #[error("{0}")]
    Header(HeaderError),
    /// The header says that it belongs elsewhere, or its numbers are out of all bounds.
    #[error("{0}")]
    Numbers(String),
    /// The entries cannot be read or do not match their checksum.
    #[error("{0}")]
    Entries(io::Error),
}

impl PartitionTable {
    /// Reads the table of a disk image or a block device. The kernel is asked for a device's sector size; for a file, where
    /// nobody knows it, 512 is tried before 4096.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn read(file: &File) -> Result<PartitionTable, TableError> {
        let disk_len = length(file).map_err(TableError::Length)?;
        let sizes = match device_sector_size(file)? {
            Some(size) => vec![size],
            None => vec![LogicalBlockSize::Lb512, LogicalBlockSize::Lb4096],
        };
        let read = |copy| sizes.iter().map(move |size| read_copy(file, disk_len, *size, copy));
        let mut first_error = None;
        for copy in [TableCopy::Primary, TableCopy::Backup] {
            let mut errors = Vec::new();
            for result in read(copy) {
                match result {
                    Ok(table) => return Ok(table),
                    Err(error) => errors.push(error),
                }
            }
            // For a file the more telling of the two errors is that of the sector size at which there is a header.
            let telling = errors.iter().position(|e| !is_absent(e)).unwrap_or(0);
            let error = errors.swap_remove(telling);
            match first_error.take() {
                None => first_error = Some(error),
                Some(primary) => return Err(TableError::NoTable { primary, backup: error }),
            }
        }
        unreachable!("two copies were tried")
    }

    /// All partitions with this label (exact, `DSK-2`).
    pub fn labelled<'a>(&'a self, label: &'a str) -> impl Iterator<Item = &'a Partition> {
        self.partitions.iter().filter(move |p| p.label == label)
    }
}

fn is_absent(error: &CopyError) -> bool {
    matches!(error, CopyError::TooShort | CopyError::Header(HeaderError::InvalidGptSignature))
}

fn length(mut file: &File) -> io::Result<u64> {
    // Not `metadata().len()`, which is zero for a block device.
    file.seek(SeekFrom::End(0))
}

fn device_sector_size(file: &File) -> Result<Option<LogicalBlockSize>, TableError> {
    let meta = file.metadata().map_err(TableError::Length)?;
    if !meta.file_type().is_block_device() {
        return Ok(None);
    }
    let (major, minor) = (nix::sys::stat::major(meta.rdev()), nix::sys::stat::minor(meta.rdev()));
    let path = format!("/sys/dev/block/{major}:{minor}/queue/logical_block_size");
    let text = std::fs::read_to_string(&path).map_err(|source| TableError::SectorSize { path, source })?;
    match text.trim_end() {
        "512" => Ok(Some(LogicalBlockSize::Lb512)),
        "4096" => Ok(Some(LogicalBlockSize::Lb4096)),
        other => Err(TableError::StrangeSectorSize(other.to_owned())),
    }
}

pub(crate) fn read_copy(
    file: &File,
    disk_len: u64,
    sector: LogicalBlockSize,
    copy: TableCopy,
) -> Result<PartitionTable, CopyError> {
    let size = sector.as_u64();
    let sectors = disk_len / size;
    if sectors < 6 {
        return Err(CopyError::TooShort);
    }
    let lba = match copy {
        TableCopy::Primary => 1,
        TableCopy::Backup => sectors - 1,
    };
    // The crate reads a header at sector 1 only: it is shown a window that begins one sector before the wanted one.
    let duplicate = file.try_clone().map_err(CopyError::Entries)?;
    let mut window = FileWindow::new(duplicate, (lba - 1) * size, 2 * size).map_err(CopyError::Entries)?;
    let header = read_header_from_arbitrary_device(&mut window, sector).map_err(CopyError::Header)?;
    check_header(&header, lba, sectors, size)?;
    let entries = file_read_partitions(&mut &*file, &header, sector).map_err(CopyError::Entries)?;
    let mut partitions = Vec::with_capacity(entries.len());
    for (number, entry) in entries.into_iter().filter(|(_, entry)| entry.is_used()) {
        let strange = || CopyError::Numbers(format!("partition {number} ends before it begins"));
        let start = entry.bytes_start(sector).map_err(|_| strange())?;
        let len = entry.bytes_len(sector).map_err(|_| strange())?;
        start.checked_add(len).ok_or_else(strange)?;
        partitions.push(Partition {
            number,
            label: entry.name,
            type_guid: entry.part_type_guid.guid,
            unique_guid: entry.part_guid,
            start,
            len,
            attributes: entry.flags,
        });
    }
    Ok(PartitionTable { sector_size: size, disk_len, disk_guid: header.disk_guid, copy, partitions })
}

/// Refuses a header whose numbers would make the crate panic, allocate without bound or read another place's entries.
fn check_header(header: &Header, lba: u64, sectors: u64, sector_size: u64) -> Result<(), CopyError> {
    let refuse = |what: String| Err(CopyError::Numbers(what));
    if header.current_lba != lba {
        return refuse(format!("the header at sector {lba} says that it belongs at {}", header.current_lba));
    }
    if header.part_size != 128 {
        return refuse(format!("partition entries of {} bytes", header.part_size));
    }
    if header.num_parts == 0 || header.num_parts > MAX_ENTRIES {
        return refuse(format!("{} partition entries", header.num_parts));
    }
    let bytes = u64::from(header.num_parts) * u64::from(header.part_size);
    let end = header.part_start.checked_add(bytes.div_ceil(sector_size));
    if header.part_start < 2 || end.is_none_or(|end| end > sectors) {
        return refuse(format!("the partition entries at sector {} leave the disk", header.part_start));
    }
    Ok(())
}
