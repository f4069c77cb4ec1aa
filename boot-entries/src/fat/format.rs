//! Making an ESP (`DSK-10`), reproducible: no clock, no chance.

use std::io::{self, Read, Seek, SeekFrom, Write};

use super::{FatError, FatKind, Volume};
use crate::change::ENTRIES_ROOM;
use crate::esp::{Esp, EspError, EspStorage, ImageEsp};
use crate::names::{entries_dir, loader_dir, payload_dir};
use disk_layout::Slot;

/// How the file system of an ESP is made.
#[derive(Debug, Clone, Copy)]
pub struct FormatOptions {
    /// The volume label, at most 11 characters, upper-case ASCII.
    pub label: &'static str,
    /// The volume's serial number.
    pub serial: u32,
    /// Logical sector size of the disk, 512 or 4096 bytes.
    pub sector_size: u16,
}

/// An ESP could not be made.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The label is too long or not upper-case ASCII.
    #[error("{0:?} is not a FAT volume label of at most 11 upper-case characters")]
    Label(&'static str),
    /// The FAT library refused.
    #[error("cannot make a FAT file system")]
    Format(#[source] io::Error),
    /// FAT32 needs at least 65525 clusters.
    #[error("the EFI system partition is too small for FAT32: it would have {0} clusters, and 65525 are needed")]
    TooSmall(u32),
    /// The result could not be read back or completed.
    #[error("cannot complete the FAT file system")]
    Fat(#[from] FatError),
    /// The directories could not be made.
    #[error("cannot make the directories of the EFI system partition")]
    Directories(#[from] EspError),
}

/// Makes a FAT32 file system that fills `storage` and has the directories of `DSK-10`, empty.
///
/// The same size and options give the same bytes, as far as they are written; clear the storage first where all of it matters.
///
/// # Errors
/// When the storage is too small, the label is none, or the storage cannot be written.
pub fn format_esp<T: EspStorage>(storage: &mut T, options: FormatOptions) -> Result<(), FormatError> {
    let mut label = [b' '; 11];
    let legal = |b: u8| b == b' ' || b == b'_' || b == b'-' || b.is_ascii_uppercase() || b.is_ascii_digit();
    if options.label.is_empty() || options.label.len() > label.len() || !options.label.bytes().all(legal) {
        return Err(FormatError::Label(options.label));
    }
    label[..options.label.len()].copy_from_slice(options.label.as_bytes());

    storage.seek(SeekFrom::Start(0)).map_err(FormatError::Format)?;
    let fat = fatfs::FormatVolumeOptions::new()
        .fat_type(fatfs::FatType::Fat32)
        .bytes_per_sector(options.sector_size)
        .volume_id(options.serial)
        .volume_label(label);
    fatfs::format_volume(&mut *storage, fat).map_err(FormatError::Format)?;

    let mut volume = Volume::open(&mut *storage)?;
    if volume.geometry.kind != FatKind::Fat32 {
        return Err(FormatError::TooSmall(volume.geometry.clusters));
    }
    // The library leaves the number of free clusters unknown, which costs the kernel a scan and makes fsck speak.
    let free = u32::try_from(volume.free_clusters()?).unwrap_or(u32::MAX);
    if let Some(info) = volume.geometry.info {
        volume.write_at(info + 488, &free.to_le_bytes())?;
        volume.write_at(info + 492, &3u32.to_le_bytes())?;
    }
    let mut esp = ImageEsp::new(&mut *storage);
    for dir in [loader_dir(), entries_dir(), payload_dir(Slot::A), payload_dir(Slot::B)] {
        esp.make_dir(&dir)?;
    }
    // A directory that never grows cannot be cut while it does.
    esp.make_room(&entries_dir(), ENTRIES_ROOM)?;
    Ok(())
}

/// Rewrites a directory that the `fatfs` library has just made, which puts long names in front of `.` and `..`: those
/// two must be the first slots, and fsck.vfat calls the directory broken otherwise.
pub(crate) fn tidy_new_directory<T: Read + Write + Seek>(storage: T, path: &str) -> Result<(), FatError> {
    let mut volume = Volume::open(storage)?;
    let item = volume.find(path)?.ok_or_else(|| FatError::Missing(path.to_owned()))?;
    if !volume.geometry.is_cluster(item.first_cluster) {
        return Err(FatError::Directory(path.to_owned()));
    }
    let offset = volume.geometry.offset(item.first_cluster);
    let old = volume.read_at(offset, volume.geometry.cluster_size as usize)?;
    let mut new = vec![0; old.len()];
    for (to, name) in [(0, b".          "), (32, b"..         ")] {
        let slot = old.chunks_exact(32).find(|slot| slot[..11] == name[..] && slot[11] == 0x10);
        let slot = slot.ok_or_else(|| FatError::Directory(path.to_owned()))?;
        new[to..to + 32].copy_from_slice(slot);
    }
    if !path.contains('/') {
        // The root directory is named by cluster 0 here, whatever cluster it lies in; the library writes the latter.
        new[32 + 20..32 + 22].fill(0);
        new[32 + 26..32 + 28].fill(0);
    }
    volume.write_at(offset, &new)
}
