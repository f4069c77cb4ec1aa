//! What became of a trial, by the names on the raw partition alone (`GRD-21`).

use std::io::{Read, Seek};

use disk_layout::Slot;

use crate::fat::{FatError, Volume};
use crate::names::{Counter, EntryName, Generation, entries_dir};

/// Whether this slot and generation has a name without a counter in the raw file system that begins at byte 0 of `window`,
/// and none that a rollback gives it (`UPD-24`). A commit that is under way counts as one: its verdict is there.
///
/// Names alone, because the kernel's vfat keeps directories in the partition's page cache, but not what lies in files.
///
/// # Errors
/// When the file system cannot be read.
pub fn is_committed<T: Read + Seek>(window: &mut T, slot: Slot, generation: Generation) -> Result<bool, FatError> {
    let items = Volume::open(window)?.list(entries_dir().as_str())?.unwrap_or_default();
    let names = items.iter().filter_map(|item| item.name.parse::<EntryName>().ok());
    let ours: Vec<EntryName> = names.filter(|name| (name.slot, name.generation) == (slot, generation)).collect();
    let has = |counter| ours.iter().any(|name| name.counter == counter);
    Ok(has(None) && !has(Some(Counter::bad())))
}
