use std::collections::HashSet;

use file_map::Extent;
use proptest::prelude::*;

use super::*;

/// Blocks with the hashes of blocks of random bytes; 0 is a block of zeros.
fn blocks(seeds: impl IntoIterator<Item = u64>) -> Blocks {
    let of = |seed: u64| if seed == 0 { ZERO } else { hash(&seed.to_le_bytes()).max(ZERO + 1) };
    Blocks { hashes: seeds.into_iter().map(of).collect() }
}

/// A file of `len` bytes that begins with this block of the image.
fn file(path: &str, first: u64, len: u64) -> MappedFile {
    let extents = vec![Extent { file_offset: 0, image_offset: first * BLOCK as u64, len }];
    MappedFile { path: path.into(), size: len, extents }
}

fn in_blocks(lens: &[u32]) -> Vec<usize> {
    lens.iter().map(|len| *len as usize / BLOCK).collect()
}

/// Each chunk as the blocks in it.
fn chunks(seeds: &[u64], files: &[MappedFile]) -> Vec<Vec<u64>> {
    let lens = cut(&blocks(seeds.iter().copied()), files, &Rule::default());
    let mut rest = seeds;
    in_blocks(&lens).iter().map(|len| rest.split_off(..*len).unwrap().to_vec()).collect()
}

#[test]
fn chk_3_the_hash_is_what_the_specification_says() {
    assert_eq!(hash(b""), 18_284_041_282_127_212_159);
    assert_eq!(hash(b"usr/bin/git"), 8_108_670_009_594_637_090);
    let mut real = Blocks::default();
    real.push(&[0; BLOCK]);
    real.push(&[7; BLOCK]);
    assert_eq!(real.hashes, [ZERO, hash(&[7; BLOCK])]);
}

#[test]
fn chk_5_a_large_file_has_its_chunks_to_itself() {
    let seeds: Vec<u64> = (1..=40).collect();
    // 32 KiB and a byte: its last block belongs to it.
    let found = chunks(&seeds, &[file("a", 7, 8 * BLOCK as u64 + 1)]);
    assert!(found.contains(&(8..=16).collect::<Vec<u64>>()), "{found:?}");
}

#[test]
fn chk_5_what_stands_before_a_large_file_does_not_move_its_cuts() {
    let own: Vec<u64> = (1000..4000).collect();
    let with = |before: u64| {
        let seeds: Vec<u64> = (1..=before).chain(own.iter().copied()).chain(50_000..50_010).collect();
        let found = chunks(&seeds, &[file("usr/bin/large", before, 3000 * BLOCK as u64)]);
        let inside: Vec<_> = found.into_iter().filter(|chunk| own.contains(&chunk[0])).collect();
        assert!(inside.iter().all(|chunk| chunk.len() <= 512), "at most 2 MiB");
        assert!(inside.len() > 4, "cut within, too: {}", inside.len());
        inside
    };
    assert_eq!(with(3), with(17));
}

#[test]
fn chk_6_small_files_are_grouped_by_their_paths_alone() {
    let files = |shift: u64| -> Vec<MappedFile> {
        (0..200).map(|n| file(&format!("usr/share/{n}"), shift + 2 * n, 5000)).collect()
    };
    let of = |shift: u64, seed: u64| {
        let seeds: Vec<u64> = (1..=shift).chain((0..400).map(|n| seed + n)).collect();
        let lens = in_blocks(&cut(&blocks(seeds), &files(shift), &Rule::default()));
        let mut at = 0;
        let ends: Vec<u64> = lens
            .iter()
            .map(|len| {
                at += *len as u64;
                at
            })
            .collect();
        ends.into_iter().filter(|end| *end >= shift).map(|end| end - shift).collect::<Vec<_>>()
    };
    // Other content at another place, the same groups.
    assert_eq!(of(1, 1000), of(9, 7000));
    assert!((15..40).contains(&of(1, 1000).len()), "{}", of(1, 1000).len());
}

#[test]
fn chk_4_long_runs_of_zeros_stand_alone_unless_a_file_wrote_them() {
    let seeds: Vec<u64> = [1, 2].into_iter().chain([0; 2000]).chain([3, 0, 0, 4]).collect();
    let found = chunks(&seeds, &[]);
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [2, 512, 512, 512, 464, 4]);
    let of_a_file = chunks(&seeds, &[file("sparse", 2, 2000 * BLOCK as u64)]);
    assert!(of_a_file.iter().all(|chunk| chunk.len() <= 512));
}

#[test]
fn chk_4_a_tail_among_inodes_is_nobodys() {
    let tail = Extent { file_offset: 0, image_offset: 5 * BLOCK as u64 + 96, len: 100 };
    let with_tail = MappedFile { path: b"tail".to_vec(), size: 100, extents: vec![tail] };
    let seeds: Vec<u64> = (1..=10).collect();
    assert_eq!(chunks(&seeds, &[with_tail]), chunks(&seeds, &[]));
}

#[test]
fn chk_9_a_rule_that_gives_too_many_chunks_is_made_coarser() {
    let many = MOST_CHUNKS as u64 * 2;
    // Every second block of a directory, every second of a small file: nothing can be grouped.
    let files: Vec<MappedFile> = (0..many).map(|n| file(&n.to_string(), 2 * n, 1)).collect();
    let all = Blocks { hashes: (1..=2 * many).map(|n| n | 1).collect() };
    assert_eq!(within_table(&all, Some(&files), Rule::default()), None);
    let (first, groups) = (files.len() as u64, cut(&all, &[], &Rule::default()).len());
    assert!(groups < first as usize);
    // Small files side by side can.
    let files: Vec<MappedFile> = (0..2 * many).map(|n| file(&n.to_string(), n, 1)).collect();
    let lens = within_table(&all, Some(&files), Rule { small_mean: 1, ..Rule::default() }).unwrap();
    assert!(lens.len() <= MOST_CHUNKS && lens.len() > MOST_CHUNKS / 8, "{}", lens.len());
}

proptest! {
    #[test]
    fn chk_1_the_chunks_cover_root_and_fit(
        seeds in proptest::collection::vec(0_u64..6, 1..3000),
        files in proptest::collection::vec((0_u64..3200, 1_u64..800_000), 0..20),
    ) {
        let files: Vec<MappedFile> = files.iter().map(|(first, len)| file(&format!("{first}"), *first, *len)).collect();
        let all = blocks(seeds.iter().copied());
        let lens = cut(&all, &files, &Rule::default());
        prop_assert_eq!(lens.iter().map(|len| *len as usize).sum::<usize>(), seeds.len() * BLOCK);
        let whole = lens.iter().all(|len| *len > 0 && (*len as usize).is_multiple_of(BLOCK) && *len <= 4 << 20);
        prop_assert!(whole);
        // The same again (IMG-55).
        prop_assert_eq!(cut(&all, &files, &Rule::default()), lens);
    }

    #[test]
    fn chk_7_content_finds_its_cuts_again_behind_an_insertion(insert in 1_usize..40, at in 0_usize..500) {
        let old: Vec<u64> = (1..=4000).collect();
        let mut new = old.clone();
        new.splice(at..at, (0..insert as u64).map(|n| 100_000 + n));
        let before: HashSet<Vec<u64>> = chunks(&old, &[]).into_iter().collect();
        let kept: usize = chunks(&new, &[]).iter().filter(|chunk| before.contains(*chunk)).map(Vec::len).sum();
        prop_assert!(kept > 3000, "{kept}");
    }
}
