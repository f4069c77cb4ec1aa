//! The partition table (`CUT-30`).

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use disk_layout::{DiskLayout, LayoutError, PartitionTable};

use super::{Failure, Name, sectors};
use crate::SECTOR;
use crate::disk::{Disk, Fingerprint, State};
use crate::places::Places;
use crate::store::ReadAt;

/// What is known of partition tables.
#[derive(Debug)]
pub(super) struct Tables {
    /// The sectors in front of and behind the partitions.
    ranges: [Range<u64>; 2],
    layout: DiskLayout,
    known: HashMap<[Fingerprint; 2], Result<(), Failure>>,
}

impl Tables {
    pub(super) fn new(places: &Places, layout: &DiskLayout) -> Tables {
        let ranges = places.tables().map(|range| sectors(&range));
        Tables { ranges, layout: layout.clone(), known: HashMap::new() }
    }

    /// The failure inside, an error of the medium outside.
    pub(super) fn check<B: ReadAt, L: ReadAt>(
        &mut self,
        disk: &Disk<B, L>,
        state: &State,
    ) -> io::Result<Result<(), Failure>> {
        let key = [0, 1].map(|part| state.fingerprint_of(disk, self.ranges[part].clone()));
        if let Some(known) = self.known.get(&key) {
            return Ok(known.clone());
        }
        let file = table_of(disk, state, &self.ranges)?;
        let found = match DiskLayout::read(&file) {
            Ok(mut found) => {
                // Which copy was read is of no matter.
                found.copy = self.layout.copy;
                let same = found == self.layout;
                same.then_some(()).ok_or_else(|| Failure::new(Name::Gpt, "the partitions are not those of the base"))
            }
            Err(error) => Err(Failure::error(Name::Gpt, &error)),
        };
        self.known.insert(key, found.clone());
        Ok(found)
    }
}

/// The layout of a state, its partition table looked for in the first and the last MiB.
pub(super) fn layout_of<B: ReadAt, L: ReadAt>(disk: &Disk<B, L>, state: &State) -> Result<DiskLayout, LayoutError> {
    let mib = 1 << 20;
    let ends = [0..mib.min(disk.bytes()), disk.bytes().saturating_sub(mib)..disk.bytes()].map(|range| sectors(&range));
    let file = table_of(disk, state, &ends).map_err(|source| {
        let path = "the base".into();
        LayoutError::Open { path, source }
    })?;
    DiskLayout::from_table(PartitionTable::read(&file)?)
}

/// A disk image that has these sectors and nothing else.
fn table_of<B: ReadAt, L: ReadAt>(disk: &Disk<B, L>, state: &State, ranges: &[Range<u64>; 2]) -> io::Result<File> {
    let file = tempfile::tempfile()?;
    file.set_len(disk.bytes())?;
    let mut content = [0; SECTOR];
    for sector in ranges.iter().flat_map(Clone::clone) {
        disk.read(sector, state.get(sector), &mut content)?;
        if content != [0; SECTOR] {
            file.write_all_at(&content, sector * SECTOR as u64)?;
        }
    }
    Ok(file)
}
