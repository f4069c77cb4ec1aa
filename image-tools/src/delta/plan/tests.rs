use file_map::Extent;
use proptest::prelude::*;

use super::*;

const BLOCK: u32 = 4096;

/// Chunks of so many blocks, each named; those named 0 are zeros.
fn chunks(list: &[(u32, u32)]) -> Vec<Chunk> {
    let mut at = 0;
    list.iter()
        .map(|(name, blocks)| {
            let plain_len = blocks * BLOCK;
            let digest = match *name {
                0 => Digest::of(vec![0; plain_len as usize]),
                name => Digest::of(name.to_le_bytes()),
            };
            at += u64::from(plain_len);
            Chunk {
                payload: 0,
                encoding: image_format::Encoding::Zstd,
                plain_len,
                plain_offset: at - u64::from(plain_len),
                encoded_offset: 0,
                encoded_len: 1,
                plain_sha256: digest,
                encoded_sha256: digest,
            }
        })
        .collect()
}

fn file(path: &str, first: u64, len: u64) -> MappedFile {
    let extents = vec![Extent { file_offset: 0, image_offset: first * u64::from(BLOCK), len }];
    MappedFile { path: path.into(), size: len, extents }
}

fn planned(old: (&[(u32, u32)], &[MappedFile]), new: (&[(u32, u32)], &[MappedFile])) -> Vec<DeltaPiece> {
    let (old_chunks, new_chunks) = (chunks(old.0), chunks(new.0));
    plan(&Root { chunks: &old_chunks, files: old.1 }, &Root { chunks: &new_chunks, files: new.1 })
}

fn piece(blocks: u32, ranges: &[(u64, u32)]) -> DeltaPiece {
    let range = |(first, blocks): &(u64, u32)| BaseRange { offset: first * u64::from(BLOCK), len: blocks * BLOCK };
    DeltaPiece { len: blocks * BLOCK, ranges: ranges.iter().map(range).collect() }
}

#[test]
fn chk_20_copies_that_follow_each_other_are_one() {
    // In another order: two ranges, the second of two chunks that are neighbours in both.
    let found = planned((&[(1, 20), (2, 20), (3, 20)], &[]), (&[(3, 20), (1, 20), (2, 20)], &[]));
    assert_eq!(found, [piece(60, &[(40, 20), (0, 40)])]);
    let large = [(1, 1000), (2, 1000), (3, 1000)];
    let found = planned((&large, &[]), (&large, &[]));
    assert_eq!(found, [piece(1000, &[(0, 1000)]), piece(1000, &[(1000, 1000)]), piece(1000, &[(2000, 1000)])]);
}

#[test]
fn chk_20_zeros_are_read_from_nowhere() {
    let old = [(1, 20), (0, 500), (2, 20), (0, 2)];
    let found = planned((&old, &[]), (&[(1, 20), (0, 500), (0, 500), (0, 500), (2, 20), (0, 2)], &[]));
    // A few blocks are no reason for a chunk of their own.
    assert_eq!(found, [piece(20, &[(0, 20)]), piece(1000, &[]), piece(500, &[]), piece(22, &[(520, 22)])]);
    // Beside a change they stay what they are.
    let found = planned((&old, &[]), (&[(9, 20), (0, 500), (9, 20)], &[]));
    assert_eq!(found[1], piece(500, &[]));
    assert_eq!(found.len(), 3);
}

#[test]
fn chk_20_a_short_copy_beside_a_change_joins_it() {
    let files = [file("a", 20, 4 * 4096)];
    let found = planned((&[(1, 20), (2, 4), (3, 5), (4, 100)], &files), (&[(1, 20), (9, 4), (3, 5), (4, 100)], &files));
    // The long copies stand alone; what is between is one patch of the old file and the short copy.
    assert_eq!(found, [piece(20, &[(0, 20)]), piece(9, &[(20, 9)]), piece(100, &[(29, 100)])]);
}

#[test]
fn chk_21_a_changed_file_refers_to_the_old_one_by_path_or_shape() {
    let old = [file("lib/libx.so.1.2", 10, 5 * 4096), file("bin/tool", 50, 3 * 4096)];
    let new = [file("lib/libx.so.1.3", 0, 5 * 4096), file("bin/tool", 30, 4 * 4096), file("bin/new", 40, 4096)];
    let (old_chunks, new_chunks) = (chunks(&[(1, 60)]), chunks(&[(2, 60)]));
    let (old, new) = (Root { chunks: &old_chunks, files: &old }, Root { chunks: &new_chunks, files: &new });
    let likely = Likely::new(&old, &new);
    let of = |first: u64, blocks: u64| likely.ranges(first * 4096, (first + blocks) * 4096);
    assert_eq!(of(0, 5), piece(5, &[(10, 5)]).ranges);
    assert_eq!(of(31, 2), piece(2, &[(50, 3)]).ranges);
    assert_eq!(of(40, 1), []);
    // No file's: the same place and a little around it.
    assert_eq!(of(20, 2), piece(2, &[(4, 34)]).ranges);
}

#[test]
fn chk_21_of_a_huge_file_the_part_that_corresponds() {
    let mebibyte = 1 << 20;
    // The whole of a file that fits; around the middle of one that is twice as long as before.
    assert_eq!(window(5000, 9000, 4096, 8192, 4 * mebibyte), (0, 5000));
    assert_eq!(
        window(100 * mebibyte, 200 * mebibyte, 100 * mebibyte, 102 * mebibyte, 4 * mebibyte),
        (50 * mebibyte - (3 << 19), 51 * mebibyte + (3 << 19))
    );
    assert_eq!(window(100 * mebibyte, 100 * mebibyte, 0, mebibyte, 4 * mebibyte), (0, mebibyte + (3 << 19)));
    assert_eq!(window(8 * mebibyte, 0, 0, 0, mebibyte), (0, mebibyte / 2));
}

proptest! {
    #[test]
    fn img_72_every_plan_is_within_the_bounds(
        old in proptest::collection::vec((0_u32..40, 1_u32..513), 1..60),
        new in proptest::collection::vec((0_u32..60, 1_u32..513), 1..60),
        files in proptest::collection::vec((0_u64..9000, 1_u64..3_000_000, 0_u64..9000, 1_u64..3_000_000), 0..30),
    ) {
        let total = |list: &[(u32, u32)]| list.iter().map(|(_, blocks)| u64::from(*blocks) * 4096).sum::<u64>();
        let of = |list: &[(u32, u32)], new: bool| -> Vec<MappedFile> {
            let places = files.iter().map(|f| if new { (f.2, f.3) } else { (f.0, f.1) }).enumerate();
            places
                .filter(|(_, (first, len))| first * 4096 + len <= total(list))
                .map(|(number, (first, len))| file(&number.to_string(), first, len))
                .collect()
        };
        let (old_files, new_files) = (of(&old, false), of(&new, true));
        let pieces = planned((&old, &old_files), (&new, &new_files));
        prop_assert_eq!(pieces.iter().map(|piece| u64::from(piece.len)).sum::<u64>(), total(&new));
        for piece in &pieces {
            prop_assert!(piece.len > 0 && piece.len <= 4 << 20 && piece.len.is_multiple_of(4096));
            prop_assert!(piece.ranges.len() <= MAX_RANGES);
            let sum: u64 = piece.ranges.iter().map(|range| u64::from(range.len)).sum();
            prop_assert!(sum <= MAX_REFERENCE.into());
            for range in &piece.ranges {
                prop_assert!(range.len > 0 && range.offset + u64::from(range.len) <= total(&old));
            }
        }
    }
}
