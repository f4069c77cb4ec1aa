//! What a sector of the disk is for (`CUT-14`).

use std::collections::HashSet;
use std::fmt;
use std::io::{Read, Seek};
use std::iter;
use std::ops::Range;

use boot_entries::fat::{FatError, Volume};
use disk_layout::{DiskLayout, Slot};

use crate::SECTOR;

/// What a sector holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The ESP's boot sector and its copy, and what else stands in front of the FATs.
    Boot,
    /// The information sector of the ESP.
    Info,
    /// A FAT.
    Fat,
    /// A directory of the ESP.
    Directory,
    /// The first sector of a file in `loader/entries`, or `loader/loader.conf`.
    Entry,
    /// Other data of the ESP.
    Data,
    /// The partition table.
    Gpt,
    /// A slot.
    Slot,
    /// Anything else: `VAR`, gaps.
    Other,
}

impl Kind {
    /// Small, and decides what is seen (`CUT-14`).
    pub fn is_metadata(self) -> bool {
        !matches!(self, Kind::Data | Kind::Slot | Kind::Other)
    }

    /// What names, chains and entries are made of: it decides what boots. Boot and information sector hold marks and hints
    /// (`CUT-27`).
    pub fn decides(self) -> bool {
        matches!(self, Kind::Fat | Kind::Directory | Kind::Entry | Kind::Gpt)
    }

    /// The word in the state file.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Boot => "boot",
            Kind::Info => "info",
            Kind::Fat => "fat",
            Kind::Directory => "directory",
            Kind::Entry => "entry",
            Kind::Data => "data",
            Kind::Gpt => "gpt",
            Kind::Slot => "slot",
            Kind::Other => "other",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where everything lies. Directories and entries move: they are learned from states, and never forgotten.
#[derive(Debug)]
pub struct Places {
    disk: Range<u64>,
    first_partition: u64,
    last_partition: u64,
    esp: Range<u64>,
    slots: [Range<u64>; 2],
    fats: Range<u64>,
    info: Option<u64>,
    directories: HashSet<u64>,
    entries: HashSet<u64>,
}

impl Places {
    /// What does not move.
    ///
    /// # Errors
    /// When the ESP's boot sector cannot be read.
    pub fn new<T: Read + Seek>(layout: &DiskLayout, esp: T) -> Result<Places, FatError> {
        let volume = Volume::open(esp)?;
        let geometry = volume.geometry();
        let slots = Slot::ALL.map(|slot| layout.slot(slot).start..layout.slot(slot).end());
        let parts = || slots.iter().cloned().chain(iter::once(layout.esp.start..layout.esp.end())).chain(var(layout));
        let start = layout.esp.start;
        Ok(Places {
            disk: 0..layout.disk_len,
            first_partition: parts().map(|part| part.start).min().unwrap_or(0),
            last_partition: parts().map(|part| part.end).max().unwrap_or(0),
            fats: start + geometry.fats().start..start + geometry.fats().end,
            info: geometry.information_sector().map(|info| start + info),
            esp: start..layout.esp.end(),
            slots,
            directories: HashSet::new(),
            entries: HashSet::new(),
        })
    }

    /// The bytes of the ESP on the disk.
    pub fn esp(&self) -> Range<u64> {
        self.esp.clone()
    }

    /// The bytes of the FATs on the disk.
    pub fn fats(&self) -> Range<u64> {
        self.fats.clone()
    }

    /// The bytes in front of and behind all partitions, where the partition table lies.
    pub fn tables(&self) -> [Range<u64>; 2] {
        [0..self.first_partition, self.last_partition..self.disk.end]
    }

    /// Learns where directories and entries lie in a state. What cannot be read is left out: it stays what it was before.
    pub fn learn<T: Read + Seek>(&mut self, esp: T) {
        let Ok(mut volume) = Volume::open(esp) else { return };
        if let Ok(root) = volume.root_extents() {
            self.add_directory(&root.ranges);
        }
        let mut open = vec![String::new()];
        while let Some(dir) = open.pop() {
            let Ok(Some(items)) = volume.list(&dir) else { continue };
            for item in items {
                let path = if dir.is_empty() { item.name.clone() } else { format!("{dir}/{}", item.name) };
                let lower = path.to_ascii_lowercase();
                let entry = lower.starts_with("loader/entries/") || lower == "loader/loader.conf";
                if !item.is_dir && !entry {
                    continue;
                }
                let Ok(extents) = volume.extents(item.first_cluster) else { continue };
                if !item.is_dir {
                    let first = extents.ranges.first().map(|range| (self.esp.start + range.start) / SECTOR as u64);
                    self.entries.extend(first);
                    continue;
                }
                self.add_directory(&extents.ranges);
                // Deeper than any directory of ours: a circle.
                if path.split('/').count() < 8 {
                    open.push(path);
                }
            }
        }
    }

    fn add_directory(&mut self, ranges: &[Range<u64>]) {
        for range in ranges {
            let sectors = (self.esp.start + range.start) / SECTOR as u64..(self.esp.start + range.end) / SECTOR as u64;
            self.directories.extend(sectors);
        }
    }

    /// What a sector is for.
    pub fn kind(&self, sector: u64) -> Kind {
        let at = sector * SECTOR as u64;
        if self.slots.iter().any(|slot| slot.contains(&at)) {
            Kind::Slot
        } else if self.esp.contains(&at) {
            self.kind_in_esp(sector, at)
        } else if at < self.first_partition || at >= self.last_partition {
            Kind::Gpt
        } else {
            Kind::Other
        }
    }

    fn kind_in_esp(&self, sector: u64, at: u64) -> Kind {
        if self.fats.contains(&at) {
            Kind::Fat
        } else if self.info == Some(at) {
            Kind::Info
        } else if at < self.fats.start {
            Kind::Boot
        } else if self.directories.contains(&sector) {
            Kind::Directory
        } else if self.entries.contains(&sector) {
            Kind::Entry
        } else {
            Kind::Data
        }
    }
}

fn var(layout: &DiskLayout) -> Option<Range<u64>> {
    layout.var.as_ref().map(|var| var.start..var.end())
}
