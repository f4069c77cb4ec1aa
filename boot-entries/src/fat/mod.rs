//! A small reader of raw FAT12, FAT16 and FAT32 volumes: directories, chains of clusters, free clusters.
//!
//! Neither the kernel nor the `fatfs` library tells which clusters a name stands for, and that is what must be known
//! before a name is removed (`ENT-22`). What is changed here: the first byte of directory slots (`ENT-22`), and the end of a
//! directory, where it is made longer (`ENT-28`).

mod dir;
mod extents;
mod faults;
mod format;
mod health;
mod room;
mod swap;

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;

pub use dir::RawItem;
pub use extents::Extents;
pub use faults::{ClusterFault, cluster_faults};
pub(crate) use format::tidy_new_directory;
pub use format::{FormatError, FormatOptions, format_esp};
pub use health::VolumeHealth;

/// A FAT volume cannot be read, or its structures are broken.
#[derive(Debug, thiserror::Error)]
pub enum FatError {
    /// The medium.
    #[error("cannot {what} the FAT volume")]
    Io {
        /// `read` or `write`.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The boot sector is not that of a FAT volume.
    #[error("the boot sector is not that of a FAT file system: {0}")]
    BootSector(&'static str),
    /// A directory's chain of clusters leads nowhere or in a circle.
    #[error("the clusters of the directory {0} do not form a chain")]
    Directory(String),
    /// No free clusters.
    #[error("the FAT volume is full")]
    Full,
    /// No such name.
    #[error("there is no {0}")]
    Missing(String),
    /// Two files cannot change places by one write.
    #[error("their directory entries do not lie in one sector")]
    Apart,
}

fn reading(source: io::Error) -> FatError {
    FatError::Io { what: "read", source }
}

fn writing(source: io::Error) -> FatError {
    FatError::Io { what: "write", source }
}

/// How wide the FAT's entries are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FatKind {
    /// 12 bits.
    Fat12,
    /// 16 bits.
    Fat16,
    /// 28 bits.
    Fat32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Root {
    /// FAT32: a directory like every other.
    Cluster(u32),
    /// FAT12, FAT16: a region of its own, in bytes.
    Region { start: u64, len: u64 },
}

/// Where things lie on a volume, from its boot sector. Offsets are bytes from the start of the volume.
#[derive(Debug, Clone)]
pub struct Geometry {
    /// Width of the FAT's entries.
    pub kind: FatKind,
    /// Bytes in a cluster.
    pub cluster_size: u32,
    /// Data clusters; they are numbered from 2.
    pub clusters: u32,
    /// The FAT that counts.
    fat_start: u64,
    /// Bytes of one FAT.
    fat_len: u64,
    /// All of them, one behind the other.
    fats: Range<u64>,
    /// All of them are kept equal, and not only the one that counts.
    mirrored: bool,
    data_start: u64,
    root: Root,
    /// The FAT32 information sector.
    info: Option<u64>,
}

impl Geometry {
    /// Reads the first 512 bytes of a volume.
    ///
    /// # Errors
    /// [`FatError::BootSector`] when they are not those of a FAT volume.
    pub fn parse(sector: &[u8; 512]) -> Result<Geometry, FatError> {
        let u16_at = |at: usize| u16::from_le_bytes([sector[at], sector[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes([sector[at], sector[at + 1], sector[at + 2], sector[at + 3]]);
        let bad = |what| Err(FatError::BootSector(what));
        if sector[510..] != [0x55, 0xaa] {
            return bad("no signature");
        }
        let bytes_per_sector = u16_at(11);
        if ![512, 1024, 2048, 4096].contains(&bytes_per_sector) {
            return bad("sector size");
        }
        let sectors_per_cluster = sector[13];
        if !sectors_per_cluster.is_power_of_two() {
            return bad("cluster size");
        }
        let (reserved, fats, root_entries) = (u16_at(14), sector[16], u16_at(17));
        let small = |small: u16, large: u32| if small == 0 { large } else { u32::from(small) };
        let (sectors, fat_sectors) = (small(u16_at(19), u32_at(32)), small(u16_at(22), u32_at(36)));
        if reserved == 0 || fats == 0 || fat_sectors == 0 {
            return bad("no FAT");
        }
        let bytes = |sectors: u64| sectors * u64::from(bytes_per_sector);
        let root_sectors = (u64::from(root_entries) * 32).div_ceil(u64::from(bytes_per_sector));
        let first_fat = u64::from(reserved);
        let root_start = first_fat + u64::from(fats) * u64::from(fat_sectors);
        let data_start = root_start + root_sectors;
        let Some(data) = u64::from(sectors).checked_sub(data_start) else { return bad("no data area") };
        // The number of clusters, and nothing else, decides the kind.
        let clusters = u32::try_from(data / u64::from(sectors_per_cluster)).unwrap_or(u32::MAX);
        let kind = match clusters {
            0..4085 => FatKind::Fat12,
            4085..65525 => FatKind::Fat16,
            65525..0x0fff_fff5 => FatKind::Fat32,
            _ => return bad("too many clusters"),
        };
        let fat32 = kind == FatKind::Fat32;
        if fat32 != (root_entries == 0) {
            return bad("root directory");
        }
        let bits = match kind {
            FatKind::Fat12 => 12,
            FatKind::Fat16 => 16,
            FatKind::Fat32 => 32,
        };
        if bytes(u64::from(fat_sectors)) * 8 < (u64::from(clusters) + 2) * bits {
            return bad("the FAT is too small");
        }
        // FAT32 may keep only one of its FATs up to date.
        let flags = u16_at(40);
        let active = if fat32 && flags & 0x80 != 0 { u64::from(flags & 0x0f) } else { 0 };
        if active >= u64::from(fats) {
            return bad("active FAT");
        }
        let info = u16_at(48);
        let mirrored = !fat32 || flags & 0x80 == 0;
        Ok(Geometry {
            kind,
            cluster_size: u32::from(bytes_per_sector) * u32::from(sectors_per_cluster),
            clusters,
            fat_start: bytes(first_fat + active * u64::from(fat_sectors)),
            fat_len: bytes(u64::from(fat_sectors)),
            fats: bytes(first_fat)..bytes(root_start),
            mirrored,
            data_start: bytes(data_start),
            root: if fat32 {
                Root::Cluster(u32_at(44))
            } else {
                Root::Region { start: bytes(root_start), len: u64::from(root_entries) * 32 }
            },
            // Elsewhere than in front of the FATs it would lie in somebody's data, and it is written.
            info: (fat32 && info != 0 && info < reserved).then(|| bytes(u64::from(info))),
        })
    }

    /// Where the FATs begin that are kept equal; one only, where only one is kept.
    fn copies(&self) -> Vec<u64> {
        let all = self.fats.clone().step_by(usize::try_from(self.fat_len).unwrap_or(usize::MAX));
        all.filter(|start| self.mirrored || *start == self.fat_start).collect()
    }

    fn is_cluster(&self, number: u32) -> bool {
        number >= 2 && number - 2 < self.clusters
    }

    /// Where a cluster's bytes lie.
    fn offset(&self, cluster: u32) -> u64 {
        self.data_start + u64::from(cluster - 2) * u64::from(self.cluster_size)
    }
}

/// What the FAT says follows a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Cluster(u32),
    End,
    Free,
    /// Marked bad, reserved, or outside the volume.
    Nonsense,
}

/// The clusters of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    pub clusters: Vec<u32>,
    /// It ends with an end mark.
    pub whole: bool,
}

/// A FAT volume that is being read.
#[derive(Debug)]
pub struct Volume<T> {
    pub(crate) storage: T,
    geometry: Geometry,
    /// A piece of the FAT and where it begins: chains mostly run forwards.
    window: (u64, Vec<u8>),
}

const WINDOW: usize = 64 * 1024;

impl<T: Read + Seek> Volume<T> {
    /// Reads the boot sector.
    ///
    /// # Errors
    /// When it cannot be read or is not that of a FAT volume.
    pub fn open(mut storage: T) -> Result<Volume<T>, FatError> {
        let mut sector = [0; 512];
        storage.seek(SeekFrom::Start(0)).map_err(reading)?;
        storage.read_exact(&mut sector).map_err(reading)?;
        Ok(Volume { storage, geometry: Geometry::parse(&sector)?, window: (0, Vec::new()) })
    }

    /// Where things lie.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Counts the clusters that the FAT calls free; the number in the information sector is only a hint.
    ///
    /// # Errors
    /// When the FAT cannot be read.
    pub fn free_clusters(&mut self) -> Result<u64, FatError> {
        let mut free = 0;
        for cluster in 2..self.geometry.clusters + 2 {
            free += u64::from(self.next(cluster)? == Next::Free);
        }
        Ok(free)
    }

    /// Where a cluster's bytes lie; None when the volume has no such cluster.
    pub(crate) fn cluster_offset(&self, cluster: u32) -> Option<u64> {
        self.geometry.is_cluster(cluster).then(|| self.geometry.offset(cluster))
    }

    fn read_at(&mut self, offset: u64, len: usize) -> Result<Vec<u8>, FatError> {
        let mut bytes = vec![0; len];
        self.storage.seek(SeekFrom::Start(offset)).map_err(reading)?;
        self.storage.read_exact(&mut bytes).map_err(reading)?;
        Ok(bytes)
    }

    /// Up to four bytes of the FAT.
    fn fat_bytes<const N: usize>(&mut self, offset: u64) -> Result<[u8; N], FatError> {
        let inside = |window: &(u64, Vec<u8>)| {
            let start = usize::try_from(offset.checked_sub(window.0)?).ok()?;
            window.1.get(start..start + N)?.try_into().ok()
        };
        if let Some(bytes) = inside(&self.window) {
            return Ok(bytes);
        }
        let start = offset - offset % 4096;
        self.storage.seek(SeekFrom::Start(start)).map_err(reading)?;
        let mut bytes = Vec::with_capacity(WINDOW);
        (&mut self.storage).take(WINDOW as u64).read_to_end(&mut bytes).map_err(reading)?;
        self.window = (start, bytes);
        inside(&self.window).ok_or_else(|| reading(io::Error::from(io::ErrorKind::UnexpectedEof)))
    }

    fn next(&mut self, cluster: u32) -> Result<Next, FatError> {
        let start = self.geometry.fat_start;
        let number = u64::from(cluster);
        let (value, end) = match self.geometry.kind {
            FatKind::Fat12 => {
                let pair = u16::from_le_bytes(self.fat_bytes(start + number + number / 2)?);
                (u32::from(if cluster.is_multiple_of(2) { pair & 0xfff } else { pair >> 4 }), 0xff8)
            }
            FatKind::Fat16 => (u32::from(u16::from_le_bytes(self.fat_bytes(start + number * 2)?)), 0xfff8),
            FatKind::Fat32 => (u32::from_le_bytes(self.fat_bytes(start + number * 4)?) & 0x0fff_ffff, 0x0fff_fff8),
        };
        Ok(match value {
            0 => Next::Free,
            value if value >= end => Next::End,
            value if self.geometry.is_cluster(value) => Next::Cluster(value),
            _ => Next::Nonsense,
        })
    }

    /// Follows a chain. A chain that is not whole holds the clusters up to where it breaks, or, where it runs in a circle, all
    /// of them, some more than once.
    ///
    /// A circle is noticed within a few times its length (after Brent), however many clusters the boot sector claims: to hold
    /// them all would take a gigabyte (THR-11).
    pub(crate) fn chain(&mut self, first: u32) -> Result<Chain, FatError> {
        let mut clusters = Vec::new();
        let mut at = first;
        let (mut marked, mut steps, mut patience) = (first, 0_u32, 1_u32);
        loop {
            if !self.geometry.is_cluster(at) {
                return Ok(Chain { clusters, whole: false });
            }
            clusters.push(at);
            match self.next(at)? {
                Next::Cluster(next) if next == marked => return Ok(Chain { clusters, whole: false }),
                Next::Cluster(next) => {
                    at = next;
                    steps += 1;
                    if steps == patience {
                        (marked, steps, patience) = (next, 0, patience * 2);
                    }
                }
                Next::End => return Ok(Chain { clusters, whole: true }),
                Next::Free | Next::Nonsense => return Ok(Chain { clusters, whole: false }),
            }
        }
    }
}

impl<T: Read + Write + Seek> Volume<T> {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), FatError> {
        self.storage.seek(SeekFrom::Start(offset)).map_err(writing)?;
        self.storage.write_all(bytes).map_err(writing)?;
        self.storage.flush().map_err(writing)
    }

    /// Marks the directory slots of `path` as deleted and changes nothing else: its clusters stay as they are, because
    /// another name uses them or because they cannot be trusted (`ENT-22`). The caller makes it durable.
    ///
    /// # Errors
    /// [`FatError::Missing`], or when the volume cannot be read or written.
    pub fn drop_name(&mut self, path: &str) -> Result<(), FatError> {
        let item = self.find(path)?.ok_or_else(|| FatError::Missing(path.to_owned()))?;
        // The last slot is the name itself; the others are parts of its long form, meaningless without it.
        for offset in item.slots.iter().rev() {
            self.write_at(*offset, &[0xe5])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
