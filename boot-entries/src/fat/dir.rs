//! Directories of a raw FAT volume.

use std::io::{Read, Seek};

use super::{FatError, Root, Volume};

const SLOT: usize = 32;
/// A directory cannot have more slots than this (FAT specification).
pub(super) const SLOTS_MAX: usize = 65536;

const ATTR_VOLUME: u8 = 0x08;
const ATTR_DIRECTORY: u8 = 0x10;
const ATTR_LONG_NAME: u8 = 0x0f;
/// A long name has at most 255 units.
const PARTS_MAX: u8 = 20;

/// One name in a directory, `.` and `..` and volume labels left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawItem {
    /// The long name, or the short one when there is none.
    pub name: String,
    /// A directory.
    pub is_dir: bool,
    /// Where its chain begins; 0 when it has none.
    pub first_cluster: u32,
    /// Length in bytes; 0 for directories.
    pub size: u32,
    /// Where its directory slots lie, in bytes from the start of the volume; the short name is the last.
    pub slots: Vec<u64>,
    /// The short name, which finds the file too.
    pub short_name: String,
}

impl RawItem {
    fn is_named(&self, name: &str) -> bool {
        let same = |own: &str| own.to_lowercase() == name.to_lowercase();
        same(&self.name) || same(&self.short_name)
    }
}

impl<T: Read + Seek> Volume<T> {
    /// The names of a directory, or None when it is missing or a file. The empty path is the root.
    ///
    /// # Errors
    /// When it cannot be read or its chain is broken.
    pub fn list(&mut self, path: &str) -> Result<Option<Vec<RawItem>>, FatError> {
        if path.is_empty() {
            return self.root_items().map(Some);
        }
        match self.find(path)? {
            Some(item) if item.is_dir => self.items_at(item.first_cluster, path).map(Some),
            _ => Ok(None),
        }
    }

    /// Looks a path up, without regard to case.
    ///
    /// # Errors
    /// When a directory cannot be read or its chain is broken.
    pub fn find(&mut self, path: &str) -> Result<Option<RawItem>, FatError> {
        let mut items = self.root_items()?;
        let mut parts = path.split('/').peekable();
        let mut walked = String::new();
        while let Some(part) = parts.next() {
            let Some(item) = items.into_iter().find(|item| item.is_named(part)) else { return Ok(None) };
            if parts.peek().is_none() {
                return Ok(Some(item));
            }
            if !item.is_dir {
                return Ok(None);
            }
            walked = format!("{walked}/{part}");
            items = self.items_at(item.first_cluster, &walked)?;
        }
        Ok(None)
    }

    pub(super) fn root_items(&mut self) -> Result<Vec<RawItem>, FatError> {
        match self.geometry.root {
            Root::Cluster(first) => self.items_at(first, "/"),
            Root::Region { start, len } => {
                let bytes = self.read_at(start, usize::try_from(len).unwrap_or(0))?;
                Ok(items(slots(start, &bytes)))
            }
        }
    }

    pub(super) fn items_at(&mut self, first: u32, path: &str) -> Result<Vec<RawItem>, FatError> {
        let chain = self.chain(first)?;
        let size = self.geometry.cluster_size as usize;
        if !chain.whole || chain.clusters.len() * size > SLOTS_MAX * SLOT {
            return Err(FatError::Directory(path.to_owned()));
        }
        let mut all = Vec::new();
        for cluster in chain.clusters {
            let offset = self.geometry.offset(cluster);
            let bytes = self.read_at(offset, size)?;
            all.extend(slots(offset, &bytes));
        }
        Ok(items(all))
    }
}

fn slots(offset: u64, bytes: &[u8]) -> Vec<(u64, [u8; SLOT])> {
    bytes
        .chunks_exact(SLOT)
        .enumerate()
        .map(|(i, chunk)| {
            let mut slot = [0; SLOT];
            slot.copy_from_slice(chunk);
            (offset + (i * SLOT) as u64, slot)
        })
        .collect()
}

/// Puts the slots of a directory together to names.
fn items(slots: impl IntoIterator<Item = (u64, [u8; SLOT])>) -> Vec<RawItem> {
    let mut found = Vec::new();
    let mut long = LongName::default();
    for (offset, slot) in slots {
        match slot[0] {
            // As the firmware and the kernel do it: the volume bit hides a slot, and exactly these attributes make it a part
            // of a long name.
            0 if slot[11] & ATTR_VOLUME == 0 => break,
            0xe5 => long = LongName::default(),
            _ if slot[11] == ATTR_LONG_NAME => long.add(offset, &slot),
            _ => {
                let long = std::mem::take(&mut long);
                let dots = slot[0] == b'.';
                if slot[11] & ATTR_VOLUME == 0 && !dots {
                    found.push(item(offset, &slot, long));
                }
            }
        }
    }
    found
}

fn item(offset: u64, slot: &[u8; SLOT], long: LongName) -> RawItem {
    let short_name = short_name(slot);
    let (name, mut slots) = long.finish(checksum(slot)).unwrap_or_else(|| (short_name.clone(), Vec::new()));
    slots.push(offset);
    let is_dir = slot[11] & ATTR_DIRECTORY != 0;
    let cluster =
        u32::from(u16::from_le_bytes([slot[20], slot[21]])) << 16 | u32::from(u16::from_le_bytes([slot[26], slot[27]]));
    let size = u32::from_le_bytes([slot[28], slot[29], slot[30], slot[31]]);
    RawItem { name, is_dir, first_cluster: cluster, size: if is_dir { 0 } else { size }, slots, short_name }
}

/// `NAME.EXT` out of eleven padded bytes, with the flags that say which half is in lower case.
fn short_name(slot: &[u8; SLOT]) -> String {
    let half = |bytes: &[u8], lower: bool| {
        let text: String = bytes
            .iter()
            .map(|b| if b.is_ascii() { char::from(*b) } else { '\u{fffd}' })
            .collect::<String>()
            .trim_end_matches(' ')
            .to_owned();
        if lower { text.to_ascii_lowercase() } else { text }
    };
    let (base, extension) = (half(&slot[..8], slot[12] & 0x08 != 0), half(&slot[8..11], slot[12] & 0x10 != 0));
    if extension.is_empty() { base } else { format!("{base}.{extension}") }
}

fn checksum(slot: &[u8; SLOT]) -> u8 {
    slot[..11].iter().fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte))
}

/// The slots of a long name, which stand in front of its short one, the last part first.
#[derive(Debug, Default)]
struct LongName {
    slots: Vec<u64>,
    /// Parts in the order of the slots.
    parts: Vec<[u16; 13]>,
    checksum: u8,
    /// Number of the next slot; 1 is the last to come.
    awaited: u8,
}

impl LongName {
    fn add(&mut self, offset: u64, slot: &[u8; SLOT]) {
        let number = slot[0] & 0x3f;
        if slot[0] & 0x40 != 0 {
            *self = LongName { checksum: slot[13], awaited: number, ..LongName::default() };
        }
        let strange = number == 0 || number > PARTS_MAX || slot[26..28] != [0, 0];
        if strange || number != self.awaited || slot[13] != self.checksum {
            *self = LongName::default();
            return;
        }
        let mut part = [0; 13];
        let units = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
        for (unit, at) in part.iter_mut().zip(units) {
            *unit = u16::from_le_bytes([slot[at], slot[at + 1]]);
        }
        self.parts.push(part);
        self.slots.push(offset);
        self.awaited -= 1;
    }

    /// Name and slots, when the parts are complete and belong to the short name with this checksum.
    fn finish(self, checksum: u8) -> Option<(String, Vec<u64>)> {
        if self.parts.is_empty() || self.awaited != 0 || self.checksum != checksum {
            return None;
        }
        let units: Vec<u16> = self.parts.into_iter().rev().flatten().take_while(|unit| *unit != 0).collect();
        Some((String::from_utf16_lossy(&units), self.slots))
    }
}
