//! What only hostile signers would write; the rest is in `tests/delta.rs`.

use std::io;

use proptest::prelude::*;

use super::*;
use crate::codec::FrameHeaderError;
use crate::compress;
use crate::digest::Digest;
use crate::reader::ChunkError;
use crate::table::{Chunk, Encoding};

/// A base that has everything, zeros.
struct Zeros;

impl BaseRoot for Zeros {
    fn read(&self, _: u64, into: &mut [u8]) -> io::Result<()> {
        into.fill(0);
        Ok(())
    }
}

fn decode(encoding: Encoding, plain: &[u8], encoded: &[u8]) -> Result<(), ChunkError> {
    let chunk = Chunk {
        payload: 0,
        encoding,
        plain_len: plain.len() as u32,
        plain_offset: 0,
        encoded_offset: 0,
        encoded_len: encoded.len() as u32,
        plain_sha256: Digest::of(plain),
        encoded_sha256: Digest::of(encoded),
    };
    let mut decoder = DeltaChunkDecoder::default();
    assert_eq!(decoder.decode(5, &chunk, encoded, &Zeros)?, plain);
    Ok(())
}

/// Bytes that do not compress.
fn noise(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn range(offset: u64, len: u32) -> BaseRange {
    BaseRange { offset, len }
}

#[test]
fn img_72_ranges_within_their_bounds() {
    let good = |ranges: &[BaseRange]| ranges::parse(&ranges::to_bytes(ranges)).is_some();
    assert!(good(&[range(0, MAX_REFERENCE)]));
    assert!(good(&[range(7, 1); MAX_RANGES]));
    assert!(good(&[range(u64::MAX - 1, 1)]));
    assert!(!good(&[]));
    assert!(!good(&[range(7, 1); MAX_RANGES + 1]));
    assert!(!good(&[range(0, MAX_REFERENCE + 1)]));
    assert!(!good(&[range(0, MAX_REFERENCE), range(0, 1)]));
    assert!(!good(&[range(0, u32::MAX), range(0, 2)]));
    assert!(!good(&[range(0, 0)]));
    assert!(!good(&[range(u64::MAX, 1)]));
    // Cut short.
    assert!(ranges::parse(&ranges::to_bytes(&[range(0, 1)])[..13]).is_none());
    assert!(ranges::parse(&[1]).is_none());
}

#[test]
fn img_72_a_copy_is_its_ranges_and_nothing_else() {
    let copy = |ranges: &[BaseRange], behind: &[u8]| {
        decode(Encoding::Copy, &[0; 8192], &[&ranges::to_bytes(ranges), behind].concat())
    };
    copy(&[range(0, 4096), range(1 << 30, 4096)], &[]).unwrap();
    assert!(matches!(copy(&[range(0, 8191)], &[]), Err(ChunkError::Ranges { chunk: 5 })));
    assert!(matches!(copy(&[range(0, 8192)], &[0]), Err(ChunkError::Ranges { chunk: 5 })));
    assert!(matches!(copy(&[], &[]), Err(ChunkError::Ranges { chunk: 5 })));
}

#[test]
fn img_73_the_frame_of_a_patch_is_held_against_img_53() {
    let plain = [0; 8192];
    let ranges = ranges::to_bytes(&[range(0, 8192)]);
    let frame = compress::compress_after(&plain, &plain, 3).unwrap().encoded;
    let patch = |frame: &[u8]| decode(Encoding::Patch, &plain, &[&ranges, frame].concat());
    patch(&frame).unwrap();
    let header = |result| match result {
        Err(ChunkError::FrameHeader { chunk: 5, source }) => source,
        other => panic!("{other:?}"),
    };
    assert_eq!(header(patch(&[])), FrameHeaderError::Magic);
    assert_eq!(header(patch(&[&frame[..], &frame].concat())), FrameHeaderError::NotOneFrame);
    let longer = compress::compress_after(&plain, &[0; 8193], 3).unwrap().encoded;
    assert_eq!(header(patch(&longer)), FrameHeaderError::ContentSize(8193));
    // Asks for a dictionary by number.
    let mut named = frame.clone();
    named[4] |= 1;
    assert_eq!(header(patch(&named)), FrameHeaderError::Dictionary);
    // A frame that refers to what is not in its ranges.
    let noise = noise(8192, 1);
    // Not the same memory, or zstd takes none of it for the prefix.
    let refers = compress::compress_after(&noise.clone(), &noise, 3).unwrap().encoded;
    assert!(refers.len() < 200, "{}", refers.len());
    let beyond = [&ranges::to_bytes(&[range(0, 1)])[..], &refers].concat();
    assert!(matches!(decode(Encoding::Patch, &noise, &beyond), Err(ChunkError::BaseDiffers { chunk: 5 })));
}

#[test]
fn img_72_four_mebibytes_of_both_fit() {
    struct Noise(Vec<u8>);
    impl BaseRoot for Noise {
        fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
            into.copy_from_slice(&self.0[at as usize..at as usize + into.len()]);
            Ok(())
        }
    }
    let base = noise(4 << 20, 1);
    // The far end of the reference and of the chunk.
    let plain = [&noise(4096, 2), &base[..(4 << 20) - 8192], &base[..4096]].concat();
    for level in [1, 3, 12] {
        let frame = compress::compress_after(&base, &plain, level).unwrap().encoded;
        assert!(frame.len() < 16 << 10, "level {level}: {}", frame.len());
        let encoded = [&ranges::to_bytes(&[range(0, 4 << 20)])[..], &frame].concat();
        let chunk = Chunk {
            payload: 0,
            encoding: Encoding::Patch,
            plain_len: plain.len() as u32,
            plain_offset: 0,
            encoded_offset: 0,
            encoded_len: encoded.len() as u32,
            plain_sha256: Digest::of(&plain),
            encoded_sha256: Digest::of(&encoded),
        };
        let mut decoder = DeltaChunkDecoder::default();
        decoder.decode(0, &chunk, &encoded, &Noise(base.clone())).unwrap();
    }
}

proptest! {
    #[test]
    fn whatever_the_signed_bytes_are_nothing_breaks(
        encoding in prop_oneof![Just(Encoding::Zstd), Just(Encoding::Patch), Just(Encoding::Copy)],
        plain_len in 1_usize..20_000,
        ranges in proptest::collection::vec((any::<u64>(), 0_u32..9000), 0..5),
        behind in proptest::collection::vec(any::<u8>(), 0..300),
        cut in 0_usize..400,
    ) {
        let ranges: Vec<BaseRange> = ranges.into_iter().map(|(offset, len)| range(offset, len)).collect();
        let mut encoded = [&ranges::to_bytes(&ranges)[..], &behind].concat();
        encoded.truncate(cut.max(1));
        let _ = decode(encoding, &vec![0; plain_len], &encoded);
    }

    #[test]
    fn img_72_ranges_round_trip(
        ranges in proptest::collection::vec((0..u64::MAX / 2, 1_u32..4096), 1..100),
        rest in proptest::collection::vec(any::<u8>(), 0..50),
    ) {
        let ranges: Vec<BaseRange> = ranges.into_iter().map(|(offset, len)| range(offset, len)).collect();
        let bytes = [&ranges::to_bytes(&ranges)[..], &rest].concat();
        let sum: usize = ranges.iter().map(|range| range.len as usize).sum();
        prop_assert_eq!(ranges::parse(&bytes), Some((ranges, sum, &rest[..])));
    }
}
