//! The two copies of the partition table, each looked at by itself, and the one rewritten from the other (`DSK-6`).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use gpt::disk::LogicalBlockSize;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::lock::UpdateLock;
use crate::table::{MAX_ENTRIES, PartitionTable, TableCopy, TableError, read_copy};

/// What is wrong with each copy of a partition table of which at least one is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableHealth {
    /// What is wrong with the copy at the beginning of the disk.
    pub primary: Option<String>,
    /// What is wrong with the copy at the end of the disk.
    pub backup: Option<String>,
    /// Both are whole and do not say the same.
    pub differ: bool,
    /// The primary says that the backup is not in the last sector: the disk has grown since.
    pub misplaced: bool,
}

impl TableHealth {
    /// Looks at both copies. Never writes.
    ///
    /// # Errors
    /// When the disk cannot be read, or neither copy is whole.
    pub fn read(file: &File) -> Result<TableHealth, TableError> {
        let table = PartitionTable::read(file)?;
        let sector = if table.sector_size == 512 { LogicalBlockSize::Lb512 } else { LogicalBlockSize::Lb4096 };
        let [primary, backup] =
            [TableCopy::Primary, TableCopy::Backup].map(|copy| read_copy(file, table.disk_len, sector, copy));
        let mut header = vec![0; HEADER_LEN];
        file.read_exact_at(&mut header, table.sector_size).map_err(TableError::Length)?;
        let last = table.disk_len / table.sector_size - 1;
        Ok(TableHealth {
            differ: match (&primary, &backup) {
                (Ok(primary), Ok(backup)) => {
                    (primary.disk_guid, &primary.partitions) != (backup.disk_guid, &backup.partitions)
                }
                _ => false,
            },
            misplaced: primary.is_ok() && u64_at(&header, ALTERNATE_LBA) != last,
            primary: primary.err().map(|error| error.to_string()),
            backup: backup.err().map(|error| error.to_string()),
        })
    }

    /// The damaged copy, where it can be rewritten from the other.
    pub fn repairable(&self) -> Option<TableCopy> {
        match (&self.primary, &self.backup) {
            (Some(_), None) => Some(TableCopy::Primary),
            (None, Some(_)) if !self.misplaced => Some(TableCopy::Backup),
            _ => None,
        }
    }
}

/// A whole disk, sector by sector. The seam of [`repair_copy`].
pub trait RawDisk {
    /// Bytes.
    fn size(&self) -> u64;

    /// Reads from the medium.
    ///
    /// # Errors
    /// What the system says.
    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;

    /// Writes; durable only after [`RawDisk::flush`].
    ///
    /// # Errors
    /// What the system says.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Everything written is on the medium when this returns.
    ///
    /// # Errors
    /// What the system says.
    fn flush(&mut self) -> io::Result<()>;
}

/// A disk's device, or a disk image file. Not opened exclusively: the running system is on it.
#[derive(Debug)]
pub struct DiskFile {
    file: File,
    len: u64,
}

impl DiskFile {
    /// Opens it for writing.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path) -> io::Result<DiskFile> {
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        let len = io::Seek::seek(&mut file, io::SeekFrom::End(0))?;
        Ok(DiskFile { file, len })
    }
}

impl RawDisk for DiskFile {
    fn size(&self) -> u64 {
        self.len
    }

    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let signed = |n: u64| i64::try_from(n).map_err(io::Error::other);
        // The kernel drops clean pages only: the caller has flushed what it wrote.
        let (from, len) = (signed(offset)?, signed(bytes.len() as u64)?);
        posix_fadvise(&self.file, from, len, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        self.file.read_exact_at(bytes, offset)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// A copy of the table could not be rewritten. The other copy is as it was, whatever this is.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The medium.
    #[error("cannot {what} the partition table")]
    Io {
        /// `read`, `write` or `flush`.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The copy to take it from is not whole either, or asks for a place where it must not be.
    #[error("the partition table cannot be rewritten from its other copy: {0}")]
    Source(&'static str),
    /// What was read back is not what was written.
    #[error("the partition table does not read back as it was written: the disk fails")]
    NotAsWritten,
}

const HEADER_LEN: usize = 92;
const HEADER_CRC: usize = 16;
const MY_LBA: usize = 24;
const ALTERNATE_LBA: usize = 32;
const FIRST_USABLE: usize = 40;
const LAST_USABLE: usize = 48;
const ENTRIES_LBA: usize = 72;

/// Rewrites the damaged copy `which` from the other one, and returns when that is durable and read back.
///
/// The bytes of the entries are copied as they are: no partition gets another number. The entries go first, and the header
/// behind them: it is the header that makes a copy count, so a cut at any instant leaves a damaged copy or a whole one, and
/// the copy that was whole is never touched.
///
/// # Errors
/// [`RepairError`].
pub fn repair_copy(
    _lock: &UpdateLock,
    disk: &mut dyn RawDisk,
    sector_size: u64,
    which: TableCopy,
) -> Result<(), RepairError> {
    let last = disk.size() / sector_size - 1;
    let (from, to) = match which {
        TableCopy::Primary => (last, 1),
        TableCopy::Backup => (1, last),
    };
    let mut header = vec![0; usize::try_from(sector_size).unwrap_or(HEADER_LEN)];
    read(disk, from * sector_size, &mut header)?;
    let entries = whole_entries(disk, &header, from, to, sector_size)?;
    let sectors = (entries.len() as u64).div_ceil(sector_size);
    let place = match which {
        TableCopy::Primary if 2 + sectors <= u64_at(&header, FIRST_USABLE) => 2,
        TableCopy::Backup if last - sectors > u64_at(&header, LAST_USABLE) => last - sectors,
        _ => return Err(RepairError::Source("there is no room for the entries")),
    };

    // Of a copy whose header does not hold nobody reads the entries: they may be cut anywhere.
    write_and_look(disk, place * sector_size, &entries)?;

    put(&mut header, MY_LBA, to);
    put(&mut header, ALTERNATE_LBA, from);
    put(&mut header, ENTRIES_LBA, place);
    let crc = header_crc(&header);
    header[HEADER_CRC..HEADER_CRC + 4].copy_from_slice(&crc.to_le_bytes());
    write_and_look(disk, to * sector_size, &header)
}

/// The entries of a copy, every sum checked.
fn whole_entries(
    disk: &mut dyn RawDisk,
    header: &[u8],
    own: u64,
    other: u64,
    sector_size: u64,
) -> Result<Vec<u8>, RepairError> {
    let source = |what| Err(RepairError::Source(what));
    if &header[..8] != b"EFI PART" || u32_at(header, 12) as usize != HEADER_LEN {
        return source("it has no header");
    }
    if header_crc(header) != u32_at(header, HEADER_CRC) {
        return source("its header's checksum is wrong");
    }
    if u64_at(header, MY_LBA) != own || u64_at(header, ALTERNATE_LBA) != other {
        return source("it belongs elsewhere");
    }
    let (count, size) = (u32_at(header, 80), u32_at(header, 84));
    if count == 0 || count > MAX_ENTRIES || size != 128 {
        return source("the number or size of its entries is out of all bounds");
    }
    let mut entries = vec![0; count as usize * size as usize];
    let at = u64_at(header, ENTRIES_LBA).checked_mul(sector_size);
    let Some(at) = at.filter(|at| at.checked_add(entries.len() as u64).is_some_and(|end| end <= disk.size())) else {
        return source("its entries leave the disk");
    };
    read(disk, at, &mut entries)?;
    if crc32(&entries) != u32_at(header, 88) {
        return source("its entries' checksum is wrong");
    }
    // What is written are whole sectors.
    entries.resize(entries.len().next_multiple_of(usize::try_from(sector_size).unwrap_or(512)), 0);
    Ok(entries)
}

fn read(disk: &mut dyn RawDisk, offset: u64, bytes: &mut [u8]) -> Result<(), RepairError> {
    disk.read(offset, bytes).map_err(|source| RepairError::Io { what: "read", source })
}

fn write_and_look(disk: &mut dyn RawDisk, offset: u64, bytes: &[u8]) -> Result<(), RepairError> {
    disk.write(offset, bytes).map_err(|source| RepairError::Io { what: "write", source })?;
    disk.flush().map_err(|source| RepairError::Io { what: "flush", source })?;
    let mut found = vec![0; bytes.len()];
    read(disk, offset, &mut found)?;
    if found == bytes { Ok(()) } else { Err(RepairError::NotAsWritten) }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

fn put(header: &mut [u8], at: usize, number: u64) {
    header[at..at + 8].copy_from_slice(&number.to_le_bytes());
}

/// The checksum of a header, with its own field as zero.
fn header_crc(header: &[u8]) -> u32 {
    let mut bytes = header[..HEADER_LEN].to_vec();
    bytes[HEADER_CRC..HEADER_CRC + 4].fill(0);
    crc32(&bytes)
}

/// CRC-32 as GPT uses it (that of Ethernet).
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

#[cfg(test)]
#[path = "copies_tests.rs"]
mod tests;
