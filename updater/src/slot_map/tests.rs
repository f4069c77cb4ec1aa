use std::collections::BTreeMap;

use disk_layout::fake::FakeSlot;
use disk_layout::{SlotBytes, SlotError, SlotIo};
use image_format::{Digest, Place, Reuse};
use proptest::prelude::*;

use super::*;

/// `content`, again and again.
fn fill(content: &str, into: &mut [u8]) {
    into.iter_mut().zip(content.bytes().cycle()).for_each(|(to, from)| *to = from);
}

fn chunk(offset: u64, len: u32, content: &str) -> Chunk {
    let mut plain = vec![0; len as usize];
    fill(content, &mut plain);
    Chunk {
        payload: 0,
        encoding: image_format::Encoding::Zstd,
        plain_len: len,
        plain_offset: offset,
        encoded_offset: 0,
        encoded_len: 1,
        plain_sha256: Digest::of(plain),
        encoded_sha256: Digest::of("encoded"),
    }
}

/// A slot by what stands at an offset, however much of it is read.
#[derive(Default)]
struct Holding(BTreeMap<u64, String>);

impl Holding {
    fn new(content: impl IntoIterator<Item = (u64, String)>) -> Self {
        Holding(content.into_iter().collect())
    }
}

impl SlotBytes for Holding {
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        fill(self.0.get(&at).ok_or(io::ErrorKind::NotFound)?, into);
        Ok(())
    }
}

impl SlotIo for Holding {
    fn len(&self) -> u64 {
        1 << 40
    }

    fn write_at(&mut self, _: u64, _: &[u8]) -> Result<(), SlotError> {
        unreachable!("nobody writes here")
    }

    fn flush(&mut self) -> Result<(), SlotError> {
        unreachable!("nobody writes here")
    }

    fn read_at_uncached(&mut self, offset: u64, into: &mut [u8]) -> Result<(), SlotError> {
        let read = SlotBytes::read_at(self, offset, into);
        let bytes = into.len() as u64;
        read.map_err(|source| SlotError::Read { path: "slot".into(), offset, bytes, source })
    }
}

fn maps() -> (tempfile::TempDir, SlotMaps) {
    let dir = tempfile::tempdir().unwrap();
    let maps = SlotMaps::in_dir(dir.path().join("slots"));
    (dir, maps)
}

fn system(n: u8) -> SystemId {
    SystemId::from([n; 32])
}

/// Begins to write slot, which holds what `holds` says.
fn begin(maps: &SlotMaps, slot: Slot, holds: &mut Holding, id: u8, root: &[Chunk]) -> Journal {
    let known = KnownSlots::new(maps, slot, holds, None);
    maps.begin(slot, &known, system(id), root).unwrap()
}

fn in_place(maps: &SlotMaps, slot: Slot, holds: &mut Holding, chunk: &Chunk) -> bool {
    KnownSlots::new(maps, slot, holds, None).claims(0, chunk) == Some(Place::InPlace)
}

/// Where the other slot, which runs system `id`, has the chunk.
fn elsewhere(maps: &SlotMaps, running: Slot, id: u8, holds: &Holding, chunk: &Chunk) -> Option<Place> {
    let running_slot = Running { system: system(id), slot: holds };
    KnownSlots::new(maps, !running, &mut Holding::default(), Some(running_slot)).claims(0, chunk)
}

const MIB: u64 = 1 << 20;

#[test]
fn slm_3_a_slot_that_was_proven_is_known_in_place_and_from_the_other_one() {
    let (_dir, maps) = maps();
    let (first, second) = (chunk(0, 4096, "one"), chunk(4096, 8192, "two"));
    let mut slot = Holding::new([(0, "one".to_owned()), (4096, "two".to_owned())]);
    assert!(!in_place(&maps, Slot::B, &mut slot, &first), "nothing is known yet");
    begin(&maps, Slot::B, &mut slot, 1, &[first, second]).finish();
    assert!(in_place(&maps, Slot::B, &mut slot, &second));
    assert_eq!(elsewhere(&maps, Slot::B, 1, &slot, &second), Some(Place::At(4096)));
    // The same bytes at another place, other bytes at the same place, other lengths.
    assert!(!in_place(&maps, Slot::B, &mut slot, &chunk(12288, 8192, "two")));
    assert_eq!(elsewhere(&maps, Slot::B, 1, &slot, &chunk(12288, 8192, "two")), Some(Place::At(4096)));
    assert!(!in_place(&maps, Slot::B, &mut slot, &chunk(4096, 8192, "three")));
    assert_eq!(elsewhere(&maps, Slot::B, 1, &slot, &chunk(4096, 4096, "two")), None);
}

#[test]
fn slm_2_a_map_of_another_system_than_runs_is_not_asked() {
    let (_dir, maps) = maps();
    let one = chunk(0, 4096, "one");
    let mut slot = Holding::new([(0, "one".to_owned())]);
    let journal = begin(&maps, Slot::A, &mut slot, 1, &[one]);
    assert_eq!(elsewhere(&maps, Slot::A, 1, &slot, &one), None, "it was not proven");
    journal.finish();
    assert_eq!(elsewhere(&maps, Slot::A, 1, &slot, &one), Some(Place::At(0)));
    assert_eq!(elsewhere(&maps, Slot::A, 2, &slot, &one), None);
}

#[test]
fn slm_2_a_map_of_which_nothing_holds_is_not_believed() {
    let (_dir, maps) = maps();
    let root: Vec<Chunk> = (0..50).map(|n| chunk(n * MIB, 4096, &format!("old {n}"))).collect();
    let whole = |prefix: &'static str| Holding::new((0..50).map(move |n| (n * MIB, format!("{prefix} {n}"))));
    begin(&maps, Slot::A, &mut whole("old"), 1, &root).finish();
    // Another tool wrote all of it, or the medium is gone.
    for mut slot in [whole("other"), Holding::default()] {
        assert!(root.iter().all(|chunk| !in_place(&maps, Slot::A, &mut slot, chunk)));
        assert!(root.iter().all(|chunk| elsewhere(&maps, Slot::A, 1, &slot, chunk).is_none()));
    }
    assert!(root.iter().all(|chunk| in_place(&maps, Slot::A, &mut whole("old"), chunk)));
}

#[test]
fn slm_3_a_write_that_was_cut_leaves_what_is_new_before_it_and_what_is_old_behind() {
    let (_dir, maps) = maps();
    let root = |prefix: &str| (0..200).map(|n| chunk(n * MIB, 4096, &format!("{prefix} {n}"))).collect::<Vec<_>>();
    let (old, new, third) = (root("old"), root("new"), root("third"));
    let cut_at = |end: u64, before: &str, behind: &str| {
        Holding::new((0..200).map(|n| (n * MIB, format!("{} {n}", if n < end { before } else { behind }))))
    };
    begin(&maps, Slot::A, &mut cut_at(0, "", "old"), 1, &old).finish();
    let mut journal = begin(&maps, Slot::A, &mut cut_at(0, "", "old"), 2, &new);
    journal.through(40 * MIB, || Ok(())).unwrap();
    journal.through(41 * MIB, || Ok(())).unwrap();
    drop(journal);
    let mut slot = cut_at(41, "new", "old");
    let mut known = |chunk: &Chunk| in_place(&maps, Slot::A, &mut slot, chunk);
    assert!(known(&new[0]) && known(&new[39]) && !known(&old[39]));
    // The journal may be late, so for a while both are thinkable.
    assert!(known(&new[50]) && known(&old[50]));
    assert!(!known(&new[150]) && known(&old[150]));
    // Another one begins on top of that: all of it is what was there.
    let mut journal = begin(&maps, Slot::A, &mut slot, 3, &third);
    journal.leave(3 * MIB);
    let mut slot = cut_at(3, "third", "old");
    let mut known = |chunk: &Chunk| in_place(&maps, Slot::A, &mut slot, chunk);
    assert!(known(&third[2]) && known(&new[39]) && known(&old[150]) && !known(&new[2]));
}

#[test]
fn slm_3_the_slot_is_flushed_before_the_journal_and_a_flush_that_fails_is_told() {
    let (_dir, maps) = maps();
    let root = [chunk(0, 4096, "one")];
    let mut journal = begin(&maps, Slot::A, &mut Holding::default(), 1, &root);
    let on_disk = || match read(&maps.path(Slot::A, "map")).unwrap().state {
        MapState::Writing { through } => through,
        MapState::Whole => panic!("nobody said so"),
    };
    let mut slot = FakeSlot::new(4096);
    journal.through(20 * MIB, || slot.flush()).unwrap();
    assert_eq!((slot.events().len(), on_disk()), (0, 20 * MIB), "noted; a second has not passed");
    journal.synced -= SYNC;
    journal.through(30 * MIB, || slot.flush()).unwrap();
    assert_eq!((slot.events().len(), on_disk()), (0, 20 * MIB), "not far enough");
    journal.through(40 * MIB, || slot.flush()).unwrap();
    assert_eq!((slot.events().len(), on_disk()), (1, 40 * MIB));
    journal.synced -= SYNC;
    let mut failing = FakeSlot::new(4096).fail_at(0);
    assert!(journal.through(60 * MIB, || failing.flush()).is_err());
    assert_eq!(on_disk(), 40 * MIB);
}

#[test]
fn slm_3_a_map_that_cannot_be_replaced_is_taken_away() {
    let (_dir, maps) = maps();
    let one = chunk(0, 4096, "one");
    let mut slot = Holding::new([(0, "one".to_owned())]);
    begin(&maps, Slot::A, &mut slot, 1, &[one]).finish();
    std::fs::create_dir(maps.path(Slot::A, "new")).unwrap();
    let known = KnownSlots::new(&maps, Slot::A, &mut slot, None);
    assert!(maps.begin(Slot::A, &known, system(2), &[one]).is_err());
    assert!(!maps.path(Slot::A, "map").exists());
    assert!(!in_place(&maps, Slot::A, &mut slot, &one));
}

/// Whoever can write there could have it written anywhere, or keep an update waiting.
#[test]
fn slm_2_links_and_pipes_are_no_maps() {
    let (dir, maps) = maps();
    let one = chunk(0, 4096, "one");
    let mut slot = Holding::new([(0, "one".to_owned())]);
    begin(&maps, Slot::A, &mut slot, 1, &[one]).finish();
    let (path, elsewhere) = (maps.path(Slot::A, "map"), dir.path().join("elsewhere"));
    std::fs::rename(&path, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    assert!(!in_place(&maps, Slot::A, &mut slot, &one));
    std::fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(!in_place(&maps, Slot::A, &mut slot, &one));
    // What is written goes nowhere else, either.
    std::os::unix::fs::symlink(&elsewhere, maps.path(Slot::A, "new")).unwrap();
    let before = std::fs::read(&elsewhere).unwrap();
    begin(&maps, Slot::A, &mut slot, 2, &[one]).finish();
    assert_eq!(std::fs::read(&elsewhere).unwrap(), before);
    assert!(in_place(&maps, Slot::A, &mut slot, &one));
}

#[test]
fn slm_2_a_damaged_map_is_no_map() {
    let (_dir, maps) = maps();
    let wanted = chunk(0, 4096, "one");
    let mut slot = Holding::new([(0, "one".to_owned())]);
    begin(&maps, Slot::A, &mut slot, 1, &[wanted]).finish();
    let path = maps.path(Slot::A, "map");
    let good = std::fs::read(&path).unwrap();
    assert_eq!(good.len(), 96 + 48);
    let mut bad: Vec<Vec<u8>> = vec![Vec::new(), good[..95].to_vec(), good[..100].to_vec(), [&good[..], &[0]].concat()];
    for at in [0, 8, 10, 12, 24, 32, 64, 96, 104, 108, 112, 143] {
        let mut flipped = good.clone();
        flipped[at] ^= 0x40;
        bad.push(flipped);
    }
    for bytes in bad {
        std::fs::write(&path, &bytes).unwrap();
        assert!(!in_place(&maps, Slot::A, &mut slot, &wanted), "{bytes:?}");
    }
    std::fs::write(&path, good).unwrap();
    assert!(in_place(&maps, Slot::A, &mut slot, &wanted));
}

proptest! {
    #[test]
    fn slm_1_maps_round_trip(offsets in prop::collection::btree_set(0_u64..1 << 48, 0..40), whole: bool, through: u64) {
        let pieces = offsets.iter().map(|at| Piece::of_chunk(&chunk(*at, 4096, &at.to_string()))).collect();
        let state = if whole { MapState::Whole } else { MapState::Writing { through } };
        let map = SlotMap { state, system: system(4), pieces };
        prop_assert_eq!(SlotMap::parse(&map.to_bytes()), Some(map));
    }

    #[test]
    fn slm_2_any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert_eq!(SlotMap::parse(&bytes), None);
    }
}
