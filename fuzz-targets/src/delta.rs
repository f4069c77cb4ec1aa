//! Deltas: the chunk table and one chunk, as only their signer could write them, and the list of deltas, which nobody signs.

use std::io;
use std::sync::LazyLock;

use image_format::{BaseRoot, Chunk, ChunkError, DeltaChunkDecoder, Digest, Encoding};
use updater::fetch::{cheapest, parse_list};

use crate::Seed;
use crate::image::claims_of_table;
use crate::parts::Parts;

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

/// The head of the small image, as that of a delta (IMG-70).
static SMALL: LazyLock<Parts> = LazyLock::new(|| {
    let mut parts = Parts::small();
    parts.transport[68..70].copy_from_slice(&1_u16.to_le_bytes());
    parts.transport[70..72].copy_from_slice(&1_u16.to_le_bytes());
    parts.transport.extend([9; 32]);
    parts
});

/// IMG-51, IMG-72: any bytes as the table of a delta whose transport names it; before them eight of the data's length.
pub fn delta_table(data: &[u8]) {
    let Some(claims) = claims_of_table(&SMALL, data) else { return };
    assert_eq!(claims.transport.base, Some([9; 32].into()));
    for chunk in claims.chunks {
        assert!(chunk.payload == 0 || chunk.encoding == Encoding::Zstd);
        let bound = zstd::zstd_safe::compress_bound(chunk.plain_len as usize);
        let longest = match chunk.encoding {
            Encoding::Zstd => bound,
            Encoding::Patch => 12_290 + bound,
            Encoding::Copy => 12_290,
        };
        assert!((1..=longest).contains(&(chunk.encoded_len as usize)), "{chunk:?}");
    }
}

pub fn table_seeds() -> Vec<Seed> {
    let parts = Parts::small();
    let plain = [&parts.transport[72..80], &parts.table].concat();
    // Root's first chunk as a patch, its second as a copy.
    let mut mixed = plain.clone();
    mixed[8 + 2] = 2;
    mixed[8 + 96 + 2] = 3;
    vec![("plain", plain), ("mixed", mixed)]
}

/// FET-60, FET-61: any bytes as a list of deltas. An address that comes of it lies beside the image, or is a whole one.
pub fn delta_list(data: &[u8]) {
    const FOLDER: &str = "https://me:pw@updates.example/x/";
    let image = format!("{FOLDER}v3.zst?token=1");
    let Ok(list) = parse_list(data, &image) else { return };
    assert!(data.len() <= 64 << 10 && list.len() <= data.len() / 68);
    let mut again = "ralph-deltas 1\n".to_owned();
    for delta in &list {
        assert!(delta.url.bytes().all(|byte| byte.is_ascii_graphic()), "{delta:?}");
        assert!(delta.url.starts_with("http://") || delta.url.starts_with("https://"), "{delta:?}");
        if let Some(path) = delta.url.strip_prefix(FOLDER) {
            let whole = data.windows(FOLDER.len()).any(|window| window == FOLDER.as_bytes());
            assert!(whole || !path.split('/').any(|part| part.is_empty() || part == ".."), "{delta:?}");
        }
        again.push_str(&format!("{} {} {}\n", Digest::from(delta.from), delta.bytes, delta.url));
    }
    // One more address may be too long now: the folder stands in it.
    if let Ok(same) = parse_list(again.as_bytes(), &image) {
        assert_eq!(same, list);
    }
    let here: Vec<[u8; 32]> = list.iter().map(|delta| delta.from).collect();
    let least = list.iter().map(|delta| delta.bytes).min();
    assert_eq!(cheapest(&list, &here, u64::MAX).map(|delta| delta.bytes), least.filter(|bytes| *bytes < u64::MAX));
    assert_eq!(cheapest(&list, &here, least.unwrap_or(0)), None);
    assert_eq!(cheapest(&list, &[], u64::MAX), None);
}

pub fn list_seeds() -> Vec<Seed> {
    let line = |digit: &str, rest: &str| format!("{} {rest}\n", digit.repeat(64));
    let two = [line("a", "1000 v2-v3.delta"), line("0", "18446744073709551615 http://other.example/d?x=1")].concat();
    let list = |lines: &str| format!("ralph-deltas 1\n{lines}").into_bytes();
    vec![("empty", list("")), ("two", list(&two)), ("up", list(&line("b", "7 deltas/../../v2.delta")))]
}
