//! One chunk of a delta, as only its signer could write it.

use std::io;

use image_format::{BaseRoot, Chunk, ChunkError, DeltaChunkDecoder, Digest, Encoding};

use crate::Seed;

/// Beyond it the base ends.
const BASE: u64 = 64 << 10;

/// A base root of which every byte is known, and which counts what is read of it.
struct Base(std::cell::Cell<u64>);

fn byte(at: u64) -> u8 {
    (at ^ at >> 7) as u8
}

impl BaseRoot for Base {
    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let len = into.len() as u64;
        self.0.set(self.0.get() + len);
        if at.checked_add(len).is_none_or(|end| end > BASE) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        (at..).zip(into).for_each(|(at, place)| *place = byte(at));
        Ok(())
    }
}

/// IMG-72, IMG-73: a byte of encoding, three of plain length, then the encoded bytes. Nothing is read beyond the limits, and nothing but the
/// signed plain bytes comes out.
pub fn delta_chunk(data: &[u8]) {
    let Some((&[flags, a, b, c], encoded)) = data.split_first_chunk::<4>() else { return };
    let encoding = [Encoding::Zstd, Encoding::Patch, Encoding::Copy][usize::from(flags % 3)];
    let plain_len = u32::from_le_bytes([a, b, c, 0]).clamp(1, 4 << 20);
    let decode = |sha256: Digest, base: &Base| {
        let chunk = Chunk {
            payload: 0,
            encoding,
            plain_len,
            plain_offset: 0,
            encoded_offset: 0,
            encoded_len: encoded.len() as u32,
            plain_sha256: sha256,
            encoded_sha256: Digest::of(encoded),
        };
        let mut decoder = DeltaChunkDecoder::default();
        decoder.decode(1, &chunk, encoded, base).map(<[u8]>::to_vec)
    };
    let base = Base(std::cell::Cell::new(0));
    let refused = decode(Digest::of([]), &base).expect_err("other bytes than the signed ones");
    assert!(base.0.get() <= 4 << 20, "{} bytes of the base", base.0.get());
    // What the ranges of a copy are is known without the decoder.
    if encoding == Encoding::Copy && matches!(refused, ChunkError::BaseDiffers { .. }) {
        let plain: Vec<u8> = encoded[2..]
            .chunks_exact(12)
            .flat_map(|range| {
                let at = u64::from_le_bytes(range[..8].try_into().expect("8 bytes"));
                (at..at + u64::from(u32::from_le_bytes(range[8..].try_into().expect("4 bytes")))).map(byte)
            })
            .collect();
        assert_eq!(decode(Digest::of(&plain), &base).expect("the signed bytes"), plain);
    }
}

pub fn delta_seeds() -> Vec<Seed> {
    let ranges = |list: &[(u64, u32)]| {
        let mut bytes = (list.len() as u16).to_le_bytes().to_vec();
        for (offset, len) in list {
            bytes.extend_from_slice(&offset.to_le_bytes());
            bytes.extend_from_slice(&len.to_le_bytes());
        }
        bytes
    };
    let frame = zstd::bulk::compress(&[7; 5000], 3).expect("memory");
    let with = |flags: u8, len: u32, encoded: &[&[u8]]| {
        let len = len.to_le_bytes();
        [&[flags, len[0], len[1], len[2]], &encoded.concat()[..]].concat()
    };
    let two = ranges(&[(100, 4096), (9000, 4096)]);
    vec![
        ("whole", with(0, 5000, &[&frame])),
        ("patch", with(1, 5000, &[&two, &frame])),
        ("copy", with(2, 8192, &[&two])),
    ]
}
