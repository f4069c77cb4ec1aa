use disk_layout::SlotBytes;
use image_format::{Digest, Place, Reuse};
use proptest::prelude::*;

use super::*;

fn chunk(offset: u64, len: u32, content: &str) -> Chunk {
    Chunk {
        payload: 0,
        encoding: image_format::Encoding::Zstd,
        plain_len: len,
        plain_offset: offset,
        encoded_offset: 0,
        encoded_len: 1,
        plain_sha256: Digest::of(content),
        encoded_sha256: Digest::of("encoded"),
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

struct Nothing;

impl SlotBytes for Nothing {
    fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }
}

fn claim(maps: &SlotMaps, target: Slot, chunk: &Chunk) -> Option<Place> {
    KnownSlots::new(maps, target, Some(&Nothing)).claims(0, chunk)
}

const MIB: u64 = 1 << 20;

#[test]
fn slm_3_a_slot_that_was_proven_is_known_in_place_and_from_the_other_one() {
    let (_dir, maps) = maps();
    let (first, second) = (chunk(0, 4096, "one"), chunk(4096, 8192, "two"));
    assert_eq!(claim(&maps, Slot::B, &first), None, "nothing is known yet");
    maps.begin(Slot::B, system(1), &[first, second]).unwrap().finish();
    assert_eq!(claim(&maps, Slot::B, &second), Some(Place::InPlace));
    assert_eq!(claim(&maps, Slot::A, &second), Some(Place::At(4096)));
    // The same bytes at another place, other bytes at the same place, other lengths.
    assert_eq!(claim(&maps, Slot::B, &chunk(12288, 8192, "two")), None);
    assert_eq!(claim(&maps, Slot::A, &chunk(12288, 8192, "two")), Some(Place::At(4096)));
    assert_eq!(claim(&maps, Slot::B, &chunk(4096, 8192, "three")), None);
    assert_eq!(claim(&maps, Slot::A, &chunk(4096, 4096, "two")), None);
}

#[test]
fn slm_3_a_write_that_was_cut_leaves_what_is_new_before_it_and_what_is_old_behind() {
    let (_dir, maps) = maps();
    let old: Vec<Chunk> = (0..200).map(|n| chunk(n * MIB, 1 << 20, &format!("old {n}"))).collect();
    let new: Vec<Chunk> = (0..200).map(|n| chunk(n * MIB, 1 << 20, &format!("new {n}"))).collect();
    maps.begin(Slot::A, system(1), &old).unwrap().finish();
    let mut journal = maps.begin(Slot::A, system(2), &new).unwrap();
    journal.through(40 * MIB);
    journal.through(41 * MIB);
    drop(journal);
    let known = |chunk: &Chunk| claim(&maps, Slot::A, chunk) == Some(Place::InPlace);
    assert!(known(&new[0]) && known(&new[39]) && !known(&old[39]));
    // The journal may be late, so for a while both are thinkable.
    assert!(known(&new[50]) && known(&old[50]));
    assert!(!known(&new[150]) && known(&old[150]));
    // Another one begins on top of that: all of it is what was there.
    let third: Vec<Chunk> = (0..200).map(|n| chunk(n * MIB, 1 << 20, &format!("third {n}"))).collect();
    let mut journal = maps.begin(Slot::A, system(3), &third).unwrap();
    journal.leave(3 * MIB);
    let known = |chunk: &Chunk| claim(&maps, Slot::A, chunk) == Some(Place::InPlace);
    assert!(known(&third[2]) && known(&new[39]) && known(&old[150]) && !known(&new[2]));
}

#[test]
fn slm_2_a_damaged_map_is_no_map() {
    let (_dir, maps) = maps();
    let wanted = chunk(0, 4096, "one");
    maps.begin(Slot::A, system(1), &[wanted]).unwrap().finish();
    let path = maps.path(Slot::A, "map");
    let good = std::fs::read(&path).unwrap();
    assert_eq!(good.len(), 96 + 48);
    let mut bad: Vec<Vec<u8>> = vec![Vec::new(), good[..95].to_vec(), good[..100].to_vec(), [&good[..], &[0]].concat()];
    for at in [0, 8, 10, 12, 32, 64, 96, 104, 108, 112, 143] {
        let mut flipped = good.clone();
        flipped[at] ^= 0x40;
        bad.push(flipped);
    }
    for bytes in bad {
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(claim(&maps, Slot::A, &wanted), None, "{bytes:?}");
    }
    std::fs::write(&path, good).unwrap();
    assert_eq!(claim(&maps, Slot::A, &wanted), Some(Place::InPlace));
}

proptest! {
    #[test]
    fn slm_1_maps_round_trip(offsets in prop::collection::btree_set(0_u64..1 << 48, 0..40), whole: bool, through: u64) {
        let pieces = offsets.iter().map(|at| Piece::of_chunk(&chunk(*at, 4096, &at.to_string()))).collect();
        let state = if whole { State::Whole } else { State::Writing { through } };
        let map = Map { state, system: system(4), pieces };
        prop_assert_eq!(Map::parse(&map.to_bytes()), Some(map));
    }

    #[test]
    fn slm_2_any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert_eq!(Map::parse(&bytes), None);
    }
}
