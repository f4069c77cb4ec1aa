//! Slot maps on disk, and how far the one that is being written got (FET-11 to FET-14).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use disk_layout::Slot;
use image_format::Chunk;

use super::map::{LONGEST, MOST_NOTES, SlotMap, note};

/// Where maps are kept, under the folder of the history.
const DIR: &str = "slots";

/// Why a map could not be kept. An update goes on without: the next one fetches more.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: an update that is cut off will fetch more than it needs", path.display())]
pub struct MapError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// The maps of a machine's slots.
#[derive(Debug, Clone)]
pub struct SlotMaps {
    dir: Option<PathBuf>,
}

impl SlotMaps {
    /// Kept beside the history in `records`; `None`: nowhere, as with a disk image file.
    pub fn beside(records: Option<&Path>) -> Self {
        SlotMaps { dir: records.map(|dir| dir.join(DIR)) }
    }

    /// What a slot is thought to hold. A map that is not there, cannot be read or is damaged is none.
    pub fn read(&self, slot: Slot) -> Option<SlotMap> {
        let mut bytes = Vec::new();
        let file = File::open(self.path(slot)?).ok()?;
        file.take(LONGEST + 1).read_to_end(&mut bytes).ok()?;
        (bytes.len() as u64 <= LONGEST).then(|| SlotMap::parse(&bytes).ok())?
    }

    /// An image with these root chunks is going to be written to the slot. If it is the one of the slot's map, that one goes on: what was
    /// flushed stays where it is. Else a new map takes its place, durably, with what the old one knew.
    ///
    /// # Errors
    /// The map could not be written; there is none then.
    pub fn begin(&self, slot: Slot, system: &[u8; 32], table: &[u8; 32], root: &[Chunk]) -> Result<Journal, MapError> {
        let Some(path) = self.path(slot) else { return Ok(Journal::nowhere()) };
        let before = self.read(slot);
        let map = match before {
            Some(map) if map.is_of(system, table) => map,
            before => SlotMap::begin(*system, *table, root, before),
        };
        let flushed = map.flushed;
        let mut bytes = map.to_bytes();
        // Of all the notes of attempts before one is left.
        bytes.extend(note(flushed));
        if let Err(error) = replace(&path, &bytes) {
            // The old one would be believed, and is about to become wrong.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        let open = OpenOptions::new().append(true).open(&path);
        let file = open.map_err(|source| MapError { action: "open", path: path.clone(), source })?;
        Ok(Journal { file: Some((file, path)), flushed, notes: 1 })
    }

    fn path(&self, slot: Slot) -> Option<PathBuf> {
        self.dir.as_ref().map(|dir| dir.join(format!("{slot}.map")))
    }
}

/// Writes a file whole under a name of its own, and gives it its name when it is durable.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), MapError> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| MapError { action, path, source }
    };
    let dir = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(dir).map_err(failed("create", dir))?;
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh).map_err(failed("create", &fresh))?;
    file.write_all(bytes).map_err(failed("write", &fresh))?;
    file.sync_all().map_err(failed("flush", &fresh))?;
    fs::rename(&fresh, path).map_err(failed("rename", &fresh))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("flush", dir))
}

/// Writes down how far a slot was written *and flushed*.
#[derive(Debug)]
pub struct Journal {
    file: Option<(File, PathBuf)>,
    flushed: u64,
    notes: usize,
}

impl Journal {
    /// Writes nothing.
    pub fn nowhere() -> Self {
        Journal { file: None, flushed: 0, notes: 0 }
    }

    /// The slot holds root up to this byte, durably. Only what is new is noted, durably, too; say it when the slot was flushed, and not
    /// before. After an error nothing more is noted.
    ///
    /// # Errors
    /// It could not be noted.
    pub fn flushed(&mut self, up_to: u64) -> Result<(), MapError> {
        if up_to <= self.flushed || self.notes >= MOST_NOTES {
            return Ok(());
        }
        let Some((file, path)) = &mut self.file else { return Ok(()) };
        self.flushed = up_to;
        self.notes += 1;
        let noted = file.write_all(&note(up_to)).and_then(|()| file.sync_data());
        let failed = noted.map_err(|source| MapError { action: "write", path: path.clone(), source });
        if failed.is_err() {
            self.file = None;
        }
        failed
    }
}

#[cfg(test)]
mod tests {
    use super::super::map::tests::piece;
    use super::*;
    use image_format::Digest;

    fn chunk(block: u64, blocks: u32, what: u8) -> Chunk {
        Chunk {
            payload: 0,
            plain_len: blocks * 4096,
            plain_offset: block * 4096,
            encoded_offset: 0,
            encoded_len: 1,
            plain_sha256: [what; 32].into(),
            encoded_sha256: Digest::of(b""),
        }
    }

    fn maps() -> (tempfile::TempDir, SlotMaps) {
        let dir = tempfile::tempdir().unwrap();
        let maps = SlotMaps::beside(Some(dir.path()));
        (dir, maps)
    }

    const V1: [u8; 32] = [1; 32];
    const V2: [u8; 32] = [2; 32];

    #[test]
    fn fet_14_the_second_attempt_knows_how_far_the_first_got() {
        let (_dir, maps) = maps();
        let root = [chunk(0, 4, 1), chunk(4, 4, 2)];
        assert_eq!(maps.read(Slot::B), None);
        let mut journal = maps.begin(Slot::B, &V1, &V1, &root).unwrap();
        journal.flushed(4096 * 4).unwrap();
        drop(journal);
        assert_eq!(maps.read(Slot::B).unwrap().flushed, 4096 * 4);
        assert_eq!(maps.read(Slot::A), None);
        // Again, from whatever address: nothing is forgotten, and less is never noted.
        let mut journal = maps.begin(Slot::B, &V1, &V1, &root).unwrap();
        journal.flushed(4096).unwrap();
        assert_eq!(maps.read(Slot::B).unwrap().flushed, 4096 * 4);
        journal.flushed(4096 * 8).unwrap();
        assert_eq!(maps.read(Slot::B).unwrap().flushed, 4096 * 8);
    }

    #[test]
    fn fet_14_another_image_begins_anew_and_knows_what_is_left_of_the_old_one() {
        let (_dir, maps) = maps();
        let mut journal = maps.begin(Slot::A, &V1, &V1, &[chunk(0, 4, 1), chunk(4, 4, 2)]).unwrap();
        journal.flushed(4096 * 8).unwrap();
        let mut journal = maps.begin(Slot::A, &V2, &V2, &[chunk(0, 2, 3), chunk(2, 6, 4)]).unwrap();
        let map = maps.read(Slot::A).unwrap();
        assert_eq!((map.flushed, &map.older[..]), (0, &[piece(0, 4, 1), piece(4, 4, 2)][..]));
        journal.flushed(2 * 4096).unwrap();
        // The same system, cut differently, is another table.
        maps.begin(Slot::A, &V2, &V1, &[chunk(0, 8, 5)]).unwrap();
        let map = maps.read(Slot::A).unwrap();
        assert!(map.older.contains(&piece(0, 2, 3)) && map.older.contains(&piece(4, 4, 2)), "{map:?}");
        assert!(!map.older.contains(&piece(0, 4, 1)), "overwritten");
    }

    #[test]
    fn fet_12_a_damaged_map_is_replaced() {
        let (dir, maps) = maps();
        let path = dir.path().join("slots/b.map");
        maps.begin(Slot::B, &V1, &V1, &[chunk(0, 4, 1)]).unwrap().flushed(4096 * 4).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[130] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(maps.read(Slot::B), None);
        maps.begin(Slot::B, &V1, &V1, &[chunk(0, 4, 1)]).unwrap();
        assert_eq!(maps.read(Slot::B).unwrap().flushed, 0);
        // A cut while it was replaced leaves the file of the other name, which nobody reads.
        fs::write(path.with_extension("new"), b"half").unwrap();
        assert!(maps.read(Slot::B).is_some());
        maps.begin(Slot::B, &V2, &V2, &[]).unwrap();
        assert_eq!(maps.read(Slot::B).unwrap().system, V2);
    }

    #[test]
    fn fet_11_a_file_without_end_is_not_read() {
        let (dir, maps) = maps();
        fs::create_dir_all(dir.path().join("slots")).unwrap();
        let file = File::create(dir.path().join("slots/a.map")).unwrap();
        file.set_len(1 << 40).unwrap();
        assert_eq!(maps.read(Slot::A), None);
    }

    #[test]
    fn fet_12_without_a_place_nothing_is_kept_and_nothing_fails() {
        let maps = SlotMaps::beside(None);
        maps.begin(Slot::A, &V1, &V1, &[]).unwrap().flushed(1).unwrap();
        assert_eq!(maps.read(Slot::A), None);
        // Where a file is in the way it is said, and that is all.
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("slots"), b"").unwrap();
        let error = SlotMaps::beside(Some(dir.path())).begin(Slot::A, &V1, &V1, &[]).unwrap_err();
        assert!(error.to_string().contains("slots"), "{error}");
    }

    #[test]
    fn fet_13_the_journal_is_bounded() {
        let (dir, maps) = maps();
        let mut journal = maps.begin(Slot::A, &V1, &V1, &[]).unwrap();
        journal.notes = MOST_NOTES - 1;
        journal.flushed(1).unwrap();
        journal.flushed(2).unwrap();
        assert_eq!(maps.read(Slot::A).unwrap().flushed, 1);
        assert_eq!(fs::metadata(dir.path().join("slots/a.map")).unwrap().len(), 128 + 2 * 16);
    }
}
