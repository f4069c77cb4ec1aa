//! The slots as places to take chunks from (FET-2, FET-3).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use image_format::{Chunk, Digest, Place, Reuse};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::map::SlotMap;
use super::plan::{decide, thinned};

/// How many pieces are looked at before a map is believed.
const SAMPLES: usize = 8;

/// The slot that runs, for reading only.
#[derive(Debug)]
pub struct BootedSlot {
    file: File,
    start: u64,
    len: u64,
}

impl BootedSlot {
    /// A slot of `len` bytes at `start` of an open device or disk image.
    pub fn new(file: File, start: u64, len: u64) -> Self {
        BootedSlot { file, start, len }
    }

    /// Through the page cache of the device, which dm-verity does not use: what is read is not kept, or an update would push the running
    /// system's own pages out.
    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let len = into.len() as u64;
        if at.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.file.read_exact_at(into, self.start + at)?;
        let (from, len) = (i64::try_from(self.start + at), i64::try_from(len));
        if let (Ok(from), Ok(len)) = (from, len) {
            // Advice: a file system that does not take it loses nothing.
            let _ = posix_fadvise(&self.file, from, len, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        }
        Ok(())
    }

    /// Does it hold what its map says? Most of a few samples must: a slot that was written by other means holds none of them.
    fn bears_out(&self, map: &SlotMap) -> bool {
        let samples = thinned(map, SAMPLES);
        let holds = |piece: &super::Piece| {
            let mut bytes = vec![0; piece.len as usize];
            self.read(piece.offset, &mut bytes).is_ok() && Digest::of(&bytes).as_bytes() == &piece.sha256
        };
        let good = samples.iter().filter(|piece| piece.len <= image_format::MAX_CHUNK_LEN && holds(piece)).count();
        good * 2 > samples.len()
    }
}

/// Where the chunks of one image's root are, by what the maps say.
#[derive(Debug, Default)]
pub struct SlotReuse {
    places: Vec<Option<Place>>,
    booted: Option<BootedSlot>,
}

impl SlotReuse {
    /// Decides for every chunk of root. `target`: the map of the slot that is written. `booted`: the running slot, its map and the id of
    /// the system that runs; a map of another system is not asked, nor one that the slot does not bear out.
    pub fn new(
        root: &[Chunk],
        target: Option<&SlotMap>,
        booted: Option<(BootedSlot, SlotMap)>,
        running: Option<&[u8; 32]>,
    ) -> Self {
        let booted = booted.filter(|(slot, map)| running == Some(&map.system) && slot.bears_out(map));
        let places = decide(root, target, booted.as_ref().map(|(_, map)| map));
        SlotReuse { places, booted: booted.map(|(slot, _)| slot) }
    }
}

impl Reuse for SlotReuse {
    fn claims(&self, number: usize, _: &Chunk) -> Option<Place> {
        // Root is the first payload (IMG-14): its chunks have the first numbers.
        self.places.get(number).copied().flatten()
    }

    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.booted.as_ref().ok_or(io::ErrorKind::NotFound)?.read(at, into)
    }
}

#[cfg(test)]
mod tests {
    use super::super::map::Piece;
    use super::*;

    const BLOCK: usize = 4096;

    /// A slot of these blocks behind a MiB of something else, and its map.
    fn slot(blocks: &[u8], system: [u8; 32]) -> (tempfile::TempDir, BootedSlot, SlotMap) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.raw");
        let mut bytes = vec![0xEE; 1 << 20];
        bytes.extend(blocks.iter().flat_map(|what| [*what; BLOCK]));
        std::fs::write(&path, &bytes).unwrap();
        let len = (blocks.len() * BLOCK) as u64;
        let piece = |(at, what): (usize, &u8)| Piece {
            offset: (at * BLOCK) as u64,
            len: BLOCK as u32,
            sha256: *Digest::of(&[*what; BLOCK]).as_bytes(),
        };
        let pieces = blocks.iter().enumerate().map(piece).collect();
        let map = SlotMap { system, table: [0; 32], pieces, flushed: len, older: Vec::new() };
        (dir, BootedSlot::new(File::open(path).unwrap(), 1 << 20, len), map)
    }

    fn wanted(what: u8) -> Chunk {
        Chunk {
            payload: 0,
            plain_len: BLOCK as u32,
            plain_offset: 0,
            encoded_offset: 0,
            encoded_len: 1,
            plain_sha256: Digest::of(&[what; BLOCK]),
            encoded_sha256: Digest::of(b""),
        }
    }

    #[test]
    fn fet_2_a_chunk_is_read_from_where_the_running_slot_has_it() {
        let (_dir, slot, map) = slot(&[1, 2, 3], [5; 32]);
        let root = [wanted(3), wanted(9)];
        let reuse = SlotReuse::new(&root, None, Some((slot, map)), Some(&[5; 32]));
        let Some(Place::At(at)) = reuse.claims(0, &root[0]) else { panic!("it is there") };
        let mut bytes = vec![0; BLOCK];
        reuse.read(at, &mut bytes).unwrap();
        assert_eq!(bytes, [3; BLOCK]);
        assert_eq!(reuse.claims(1, &root[1]), None);
        assert_eq!(reuse.claims(2, &root[1]), None);
        assert!(reuse.read(3 * BLOCK as u64, &mut bytes).is_err(), "what lies behind the slot is not the slot's");
        assert!(reuse.read(u64::MAX - 10, &mut bytes).is_err());
    }

    #[test]
    fn fet_3_a_map_that_the_slot_does_not_bear_out_is_not_asked() {
        let root = [wanted(3)];
        // Another system runs than the map says.
        let (_dir, of_another, map) = slot(&[1, 2, 3], [5; 32]);
        assert_eq!(SlotReuse::new(&root, None, Some((of_another, map)), Some(&[6; 32])).claims(0, &root[0]), None);
        // The slot was written by other means.
        let (_dir, overwritten, _) = slot(&[8, 8, 3], [5; 32]);
        let (_dir2, _, map) = slot(&[1, 2, 3], [5; 32]);
        assert_eq!(SlotReuse::new(&root, None, Some((overwritten, map)), Some(&[5; 32])).claims(0, &root[0]), None);
        // One bad block of three is no reason to fetch all.
        let (_dir, scratched, _) = slot(&[1, 8, 3], [5; 32]);
        let (_dir2, _, map) = slot(&[1, 2, 3], [5; 32]);
        assert!(SlotReuse::new(&root, None, Some((scratched, map)), Some(&[5; 32])).claims(0, &root[0]).is_some());
    }

    #[test]
    fn fet_1_in_place_needs_no_running_slot() {
        let (_dir, _, map) = slot(&[1], [5; 32]);
        let root = [wanted(1)];
        let reuse = SlotReuse::new(&root, Some(&map), None, None);
        assert_eq!(reuse.claims(0, &root[0]), Some(Place::InPlace));
        assert!(reuse.read(0, &mut [0; BLOCK]).is_err());
    }
}
