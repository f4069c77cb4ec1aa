use proptest::prelude::*;

use super::*;
use crate::manifest::tests::good;

/// The table of the manifest fixture (root 12288, linux 1000, initrd 24), root cut in two.
fn chunks() -> Vec<Chunk> {
    let mut encoded_offset = 0;
    let mut chunk = |payload, plain_offset, plain_len, encoded_len| {
        let chunk = Chunk {
            payload,
            encoding: Encoding::Zstd,
            plain_len,
            plain_offset,
            encoded_offset,
            encoded_len,
            plain_sha256: Digest::of([1]),
            encoded_sha256: Digest::of([2]),
        };
        encoded_offset += u64::from(encoded_len);
        chunk
    };
    vec![chunk(0, 0, 8192, 100), chunk(0, 8192, 4096, 50), chunk(1, 0, 1000, 30), chunk(2, 0, 24, 20)]
}

fn bytes(chunks: &[Chunk]) -> Vec<u8> {
    chunks.iter().flat_map(|chunk| chunk.to_bytes()).collect()
}

fn edited(edit: impl FnOnce(&mut Vec<Chunk>)) -> Result<Vec<Chunk>, TableError> {
    let mut chunks = chunks();
    edit(&mut chunks);
    parse(&bytes(&chunks), &good(), 200, None)
}

#[test]
fn img_50_layout() {
    let chunk = Chunk {
        payload: 0x0201,
        encoding: Encoding::Zstd,
        plain_len: 0x0605_0403,
        plain_offset: 0x0E0D_0C0B_0A09_0807,
        encoded_offset: 0x1615_1413_1211_100F,
        encoded_len: 0x1A19_1817,
        plain_sha256: [0xAA; 32].into(),
        encoded_sha256: [0xBB; 32].into(),
    };
    let mut expected = vec![1, 2, 1, 0];
    expected.extend(3..=0x1A);
    expected.extend([0; 4]);
    expected.extend([0xAA; 32]);
    expected.extend([0xBB; 32]);
    assert_eq!(chunk.to_bytes().to_vec(), expected);
    assert_eq!(Chunk::parse(&chunk.to_bytes(), 0), Ok(chunk));
}

#[test]
fn img_51_a_complete_table_is_accepted() {
    assert_eq!(edited(|_| {}), Ok(chunks()));
}

#[test]
fn img_50_reserved_encodings_and_fields() {
    for encoding in [0, 2, 3, 256] {
        let mut table = bytes(&chunks());
        table[96 + 2..96 + 4].copy_from_slice(&u16::to_le_bytes(encoding));
        assert_eq!(parse(&table, &good(), 200, None), Err(TableError::Encoding { chunk: 1, found: encoding }));
    }
    for at in 28..32 {
        let mut table = bytes(&chunks());
        table[2 * 96 + at] = 1;
        assert_eq!(parse(&table, &good(), 200, None), Err(TableError::Reserved { chunk: 2 }));
    }
}

#[test]
fn img_51_gaps_overlaps_and_order() {
    use TableError as E;
    let swapped = |a: usize, b: usize| edited(|chunks| chunks.swap(a, b));
    assert_eq!(swapped(0, 1), Err(E::PlainOffset { chunk: 0, found: 8192, expected: 0 }));
    assert_eq!(swapped(1, 2), Err(E::Payload { chunk: 1, found: 1, expected: 0 }));
    assert_eq!(swapped(2, 3), Err(E::Payload { chunk: 2, found: 2, expected: 1 }));

    let gap = edited(|chunks| chunks[0].plain_len = 4096);
    assert_eq!(gap, Err(E::PlainOffset { chunk: 1, found: 8192, expected: 4096 }));
    let overlap = edited(|chunks| chunks[1].plain_offset = 4096);
    assert_eq!(overlap, Err(E::PlainOffset { chunk: 1, found: 4096, expected: 8192 }));
    let encoded_gap = edited(|chunks| chunks[2].encoded_offset += 1);
    assert_eq!(encoded_gap, Err(E::EncodedOffset { chunk: 2, found: 151, expected: 150 }));
    let shared = edited(|chunks| chunks[1].encoded_offset = 0);
    assert_eq!(shared, Err(E::EncodedOffset { chunk: 1, found: 0, expected: 100 }));

    let without = |number: usize| {
        edited(|chunks| {
            chunks.remove(number);
        })
    };
    assert_eq!(without(0), Err(E::PlainOffset { chunk: 0, found: 8192, expected: 0 }));
    assert_eq!(without(2), Err(E::Payload { chunk: 2, found: 2, expected: 1 }));
    assert_eq!(edited(|chunks| chunks.truncate(3)), Err(E::Uncovered { payload: 2 }));
    assert_eq!(edited(|chunks| chunks.truncate(1)), Err(E::Uncovered { payload: 0 }));
    assert_eq!(edited(|chunks| chunks.push(chunks[3])), Err(E::Payload { chunk: 4, found: 2, expected: 3 }));
    assert_eq!(edited(|chunks| chunks.clear()), Err(E::Length(0)));
    let phantom = edited(|chunks| chunks[3].payload = 3);
    assert_eq!(phantom, Err(E::Payload { chunk: 3, found: 3, expected: 2 }));
}

#[test]
fn img_52_lengths() {
    use TableError as E;
    for found in [0, 8193, 12289, MAX_CHUNK_LEN + 1, u32::MAX] {
        let expected = match found {
            8193 => E::Unaligned { chunk: 0, found },
            _ => E::PlainLength { chunk: 0, found },
        };
        assert_eq!(edited(|chunks| chunks[0].plain_len = found), Err(expected));
    }
    let bound = zstd::zstd_safe::compress_bound(24) as u32;
    for found in [0, bound + 1, u32::MAX] {
        assert_eq!(edited(|chunks| chunks[3].encoded_len = found), Err(E::EncodedLength { chunk: 3, found }));
    }
    assert_eq!(
        edited(|chunks| chunks[3].encoded_len = bound),
        Err(E::DataLength { found: 180 + u64::from(bound), expected: 200 })
    );
}

#[test]
fn img_51_the_data_ends_where_the_transport_says() {
    for data_len in [0, 199, 201, u64::MAX] {
        let expected = TableError::DataLength { found: 200, expected: data_len };
        assert_eq!(parse(&bytes(&chunks()), &good(), data_len, None), Err(expected));
    }
}

#[test]
fn img_2_whole_records_only() {
    let table = bytes(&chunks());
    assert_eq!(parse(&table[..table.len() - 1], &good(), 200, None), Err(TableError::Length(383)));
}

proptest! {
    /// Whatever single field is damaged, the result covers every payload, or is refused.
    #[test]
    fn an_accepted_table_always_covers(at in 0_usize..4 * 96, byte in any::<u8>()) {
        let mut table = bytes(&chunks());
        table[at] = byte;
        if let Ok(chunks) = parse(&table, &good(), 200, None) {
            let plain: u64 = chunks.iter().map(|chunk| u64::from(chunk.plain_len)).sum();
            let encoded: u64 = chunks.iter().map(|chunk| u64::from(chunk.encoded_len)).sum();
            prop_assert_eq!((plain, encoded), (12288 + 1000 + 24, 200));
        }
    }
}
