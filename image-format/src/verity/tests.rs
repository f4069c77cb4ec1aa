use std::collections::BTreeMap;

use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::*;

const SALT: [u8; 32] = [0x5A; 32];

fn block(bytes: &[u8]) -> Digest {
    Digest::finish(Sha256::new_with_prefix(SALT).chain_update(bytes))
}

/// The tree the slow way: whole levels in memory, leaves first.
fn reference(data: &[u8]) -> (Digest, Vec<u8>) {
    let mut level: Vec<Digest> = data.chunks(BLOCK_LEN).map(block).collect();
    let mut tree = Vec::new();
    while level.len() > 1 {
        let mut bytes: Vec<u8> = level.iter().flat_map(|digest| *digest.as_bytes()).collect();
        bytes.resize(bytes.len().next_multiple_of(BLOCK_LEN), 0);
        level = bytes.chunks(BLOCK_LEN).map(block).collect();
        tree = [bytes, tree].concat();
    }
    (level[0], tree)
}

/// The tree by the builder, fed in pieces of the given lengths, and checked to arrive as it should.
fn built(data: &[u8], pieces: &[usize]) -> (Digest, Vec<u8>) {
    let size = data.len() as u64;
    let mut stored = BTreeMap::new();
    let mut sink = |offset: u64, bytes: &[u8]| {
        assert!(bytes.len() <= 64 * 1024 && bytes.len().is_multiple_of(BLOCK_LEN), "a run of {}", bytes.len());
        assert!(stored.insert(offset, bytes.to_vec()).is_none(), "offset {offset} twice");
        Ok(())
    };
    let mut builder = VerityBuilder::new(size, &SALT).unwrap();
    let (mut rest, mut lengths) = (data, pieces.iter().cycle());
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(rest.len().min(*lengths.next().unwrap()));
        builder.update(piece, &mut sink).unwrap();
        rest = behind;
    }
    let root = builder.finish(&mut sink).unwrap();
    let mut tree = Vec::new();
    for (offset, bytes) in stored {
        assert_eq!(offset, size + BLOCK + tree.len() as u64, "a gap or an overlap");
        tree.extend(bytes);
    }
    assert_eq!(slot_bytes(size), size + BLOCK + tree.len() as u64);
    (root, tree)
}

fn data(blocks: usize) -> Vec<u8> {
    (0..blocks * BLOCK_LEN).map(|at| (at / BLOCK_LEN * 31 + at) as u8).collect()
}

#[test]
fn img_22_the_streamed_tree_is_the_tree() {
    for blocks in [1, 2, 127, 128, 129, 255, 256, 257, 2047, 2048, 2049, 16384, 16385] {
        let data = data(blocks);
        assert_eq!(built(&data, &[1 << 20]), reference(&data), "{blocks} blocks");
    }
}

#[test]
fn img_22_leaves_computed_elsewhere_give_the_same_tree() {
    for blocks in [1, 2, 129, 300, 2049] {
        let data = data(blocks);
        let (hasher, mut tree) = (LeafHasher::new(&SALT), BTreeMap::new());
        let mut sink = |offset: u64, bytes: &[u8]| {
            tree.insert(offset, bytes.to_vec());
            Ok(())
        };
        let mut builder = VerityBuilder::new(data.len() as u64, &SALT).unwrap();
        for (index, piece) in data.chunks(7 * BLOCK_LEN).enumerate() {
            match index % 3 {
                0 => builder.update(piece, &mut sink).unwrap(),
                _ => builder.push_leaves(&hasher.leaves(piece), &mut sink).unwrap(),
            }
        }
        let more = hasher.leaves(&data[..BLOCK_LEN]);
        assert!(matches!(builder.push_leaves(&more, &mut sink), Err(VerityError::Length { .. })));
        let root = builder.finish(&mut sink).unwrap();
        assert_eq!((root, tree.into_values().flatten().collect()), reference(&data), "{blocks} blocks");
    }
    // Leaves stand for whole blocks: there is no place for them within one.
    let mut builder = VerityBuilder::new(2 * BLOCK, &SALT).unwrap();
    let mut nowhere = |_: u64, _: &[u8]| Ok(());
    builder.update(&[0; 100], &mut nowhere).unwrap();
    let leaves = LeafHasher::new(&SALT).leaves(&[0; BLOCK_LEN]);
    assert!(matches!(builder.push_leaves(&leaves, &mut nowhere), Err(VerityError::Length { .. })));
}

#[test]
fn img_22_geometry() {
    let tree = |blocks: u64| tree_blocks(blocks * BLOCK);
    // One block: its digest is the root hash, there is no tree.
    assert_eq!(tree(1), 0);
    assert_eq!([tree(2), tree(128), tree(129), tree(128 * 128)], [1, 1, 3, 129]);
    assert_eq!(tree(128 * 128 + 1), 129 + 2 + 1);
    assert_eq!(slot_bytes(12288), 20480);
    // The largest payload there can be does not overflow anything.
    assert!(slot_bytes(1 << 48) > 1 << 48);
}

#[test]
fn sizes_that_are_no_blocks_are_refused() {
    for size in [0, 1, 4095, 4097] {
        assert!(matches!(VerityBuilder::new(size, &SALT), Err(VerityError::Size(found)) if found == size));
    }
}

#[test]
fn img_23_more_or_less_data_than_announced_is_refused() {
    let mut sink = |_: u64, _: &[u8]| Ok(());
    let mut builder = VerityBuilder::new(8192, &SALT).unwrap();
    builder.update(&[0; 8000], &mut sink).unwrap();
    assert!(matches!(builder.update(&[0; 193], &mut sink), Err(VerityError::Length { found: 8193, announced: 8192 })));
    let mut builder = VerityBuilder::new(8192, &SALT).unwrap();
    builder.update(&[0; 8191], &mut sink).unwrap();
    assert!(matches!(builder.finish(&mut sink), Err(VerityError::Length { found: 8191, announced: 8192 })));
}

#[test]
fn a_failing_sink_is_reported_with_its_place() {
    let mut sink = |_: u64, _: &[u8]| Err(std::io::Error::other("disk full"));
    let mut builder = VerityBuilder::new(8192, &SALT).unwrap();
    builder.update(&data(2), &mut sink).unwrap();
    assert!(matches!(builder.finish(&mut sink), Err(VerityError::Sink { offset: 12288, .. })));
}

#[test]
fn img_22_superblock_bytes() {
    let verity = Verity {
        root_hash: Digest::of([]),
        salt: SALT,
        uuid: "00112233-4455-8677-8899-aabbccddeeff".parse().unwrap(),
        data_blocks: 0x0102,
        hash_offset: 0x0010_2000,
    };
    let block = verity_superblock(&verity);
    assert_eq!(block[..16], *b"verity\0\0\x01\0\0\0\x01\0\0\0");
    assert_eq!(block[16..32], 0x0011_2233_4455_8677_8899_AABB_CCDD_EEFF_u128.to_be_bytes());
    assert_eq!(block[32..64], *b"sha256\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(block[64..88], *b"\0\x10\0\0\0\x10\0\0\x02\x01\0\0\0\0\0\0\x20\0\0\0\0\0\0\0");
    assert_eq!(block[88..120], SALT);
    assert!(block[120..].iter().all(|byte| *byte == 0));
}

#[test]
fn img_24_salt_and_uuid_follow_from_the_root() {
    let sha256 = Digest::of(b"root");
    let verity = Verity::derive(8192, &sha256, Digest::of([]));
    let of = |label: &str| Sha256::new_with_prefix(label).chain_update([0]).chain_update(sha256).finalize();
    assert_eq!(verity.salt, *of("ralphos verity salt v1"));
    let text = verity.uuid.to_string();
    assert_eq!(text.len(), 36);
    assert_eq!(text.as_bytes()[14], b'8', "version nibble of {text}");
    assert!(b"89ab".contains(&text.as_bytes()[19]), "variant of {text}");
    assert_eq!(verity.uuid.0[..6], of("ralphos verity uuid v1")[..6]);
}

#[test]
fn uuid_text_has_one_spelling() {
    let text = "00112233-4455-8677-8899-aabbccddeeff";
    assert_eq!(text.parse::<Uuid>().unwrap().to_string(), text);
    for bad in [
        "",
        &text.to_uppercase(),
        &text[1..],
        &text.replace('-', ""),
        &format!("{{{text}}}"),
        "0-0112233-4455-8677-8899-aabbccddeef",
    ] {
        assert!(bad.parse::<Uuid>().is_err(), "{bad:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn the_tree_does_not_depend_on_how_the_data_arrives(
        blocks in 1_usize..300,
        pieces in prop::collection::vec(1_usize..20_000, 1..6),
    ) {
        let data = data(blocks);
        prop_assert_eq!(built(&data, &pieces), reference(&data));
    }
}
