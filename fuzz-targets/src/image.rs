//! The image file: head, chunk table, chunks, manifest.

use std::sync::LazyLock;

use boot_entries::{Entry, Generation, Liveness, OnCorruption};
use disk_layout::Slot;
use image_format::{
    Claims, Digest, Manifest, SystemId, TrustPolicy, UnverifiedImage, VerifyError, check_options, unknown_fields,
};
use updater::new_entry::{Place, new_entry};

use crate::Seed;
use crate::parts::{Parts, Plain, Stop, read_all, small_image, trust};

/// Key 1, which signs whatever is made here.
static TRUST: LazyLock<TrustPolicy> = LazyLock::new(|| trust(&[1], 1));
static SMALL: LazyLock<Parts> = LazyLock::new(Parts::small);

/// IMG-2, IMG-31, IMG-40: the head of a file, unsigned.
pub fn image_head(data: &[u8]) {
    let Ok(head) = UnverifiedImage::read_head(data) else { return };
    assert!(head.data_start() <= data.len() as u64, "more was read than there is");
    assert!(head.signatures().records().len() <= 32);
    let system = head.claimed_system_id();
    if let Ok(claims) = head.claims() {
        assert_eq!(claims.system_id, system);
        assert_eq!(claims.manifest, head.claimed_manifest().expect("it was parsed before"));
        covered(&claims.manifest, &claims.chunks, claims.transport.data_len);
    }
    // Nobody signed it: whoever got as far as here has forged a signature.
    match head.verify(&TRUST) {
        Err(VerifyError::Threshold { .. }) => {}
        Err(_) => assert!(is_signed(data), "something was looked at before the signatures"),
        Ok(image) => assert_eq!(image.manifest_bytes(), SMALL.manifest),
    }
}

/// Manifest and transport of the seed still stand there with their signatures.
fn is_signed(data: &[u8]) -> bool {
    let found = |part: &[u8]| data.windows(part.len()).any(|window| window == part);
    found(&SMALL.manifest) && found(&SMALL.transport)
}

/// IMG-51.
fn covered(manifest: &Manifest, chunks: &[image_format::Chunk], data_len: u64) {
    let (mut encoded, mut sizes) = (0, vec![0; manifest.payloads.len()]);
    for chunk in chunks {
        let payload = usize::from(chunk.payload);
        assert_eq!((chunk.encoded_offset, chunk.plain_offset), (encoded, sizes[payload]));
        assert!((1..=image_format::MAX_CHUNK_LEN).contains(&chunk.plain_len));
        encoded += u64::from(chunk.encoded_len);
        sizes[payload] += u64::from(chunk.plain_len);
    }
    assert_eq!(encoded, data_len);
    assert!(manifest.payloads.iter().map(|payload| payload.size).eq(sizes));
}

/// IMG-50 to IMG-52: any bytes as the table of an image whose transport names it.
pub fn chunk_table(data: &[u8]) {
    claims_of_table(&SMALL, data);
}

/// Eight bytes of the data's length and any bytes as the table, in a head whose transport names them. What a reader makes of it, if it
/// takes it: then it covers the payloads.
pub(crate) fn claims_of_table(head: &Parts, data: &[u8]) -> Option<Claims> {
    let (data_len, table) = data.split_first_chunk()?;
    let mut parts = head.clone();
    parts.table = table.to_vec();
    parts.transport[32..64].copy_from_slice(Digest::of(table).as_ref());
    parts.transport[64..68].copy_from_slice(&(table.len() as u32).to_le_bytes());
    parts.transport[72..80].copy_from_slice(data_len);
    parts.data = Vec::new();
    let Ok(head) = UnverifiedImage::read_head(parts.join().as_slice()).map(|head| head.claims()) else {
        assert!(table.is_empty() || !table.len().is_multiple_of(96));
        return None;
    };
    match head {
        Ok(claims) => {
            covered(&claims.manifest, &claims.chunks, u64::from_le_bytes(*data_len));
            Some(claims)
        }
        Err(VerifyError::Table(_)) => None,
        Err(error) => panic!("the head was good: {error}"),
    }
}

/// IMG-53: any bytes as a chunk that the table describes as well as it can be described.
pub fn chunk_stream(data: &[u8]) {
    /// Plain bytes of the chunk that is replaced.
    const LEN: usize = 8192;
    if data.is_empty() {
        return;
    }
    let plain = zstd::bulk::decompress(data, LEN).ok().filter(|plain| plain.len() == LEN);
    let mut parts = SMALL.clone();
    parts.replace_encoded(1, data);
    if let Some(plain) = &plain {
        parts.record(1)[32..64].copy_from_slice(Digest::of(plain).as_ref());
    }
    let file = parts.resign();
    let head = UnverifiedImage::read_head(file.as_slice()).expect("only a chunk is odd");
    // Longer than any encoding of its plain bytes (IMG-52).
    let Ok(mut image) = head.verify(&TRUST) else {
        assert!(data.len() > zstd::zstd_safe::compress_bound(LEN));
        return;
    };
    let mut root = image.next_payload().expect("nothing was read").expect("the root").leave_digest_to_verity();
    assert!(root.next_chunk().expect("the first chunk is good").is_some());
    match root.next_chunk() {
        Ok(Some(chunk)) => {
            assert_eq!(chunk.offset, LEN as u64);
            assert_eq!(Some(chunk.bytes), plain.as_deref(), "zstd and we read something else");
            assert!(window(data) <= 1 << 23);
        }
        Ok(None) => panic!("the root has three chunks"),
        Err(_) => assert!(root.next_chunk().is_err(), "an image that failed gives nothing more"),
    }
    // As the root's SHA-256 is another now, the whole is refused; by the file's end at the latest.
    if plain.is_some_and(|plain| plain != Plain::small().root[LEN..2 * LEN]) {
        assert!(matches!(read_all(&file, &TRUST), Err(Stop::Chunk(_))));
    }
}

/// What the frame's header asks for, read a second time (RFC 8878, 3.1.1.1.2).
fn window(frame: &[u8]) -> u64 {
    if frame[4] & 0x20 != 0 {
        return 0;
    }
    let base = 1_u64 << (10 + (frame[5] >> 3));
    base + base / 8 * u64::from(frame[5] & 7)
}

/// IMG-10 to IMG-22: any bytes as a manifest.
pub fn manifest(data: &[u8]) {
    let _ = unknown_fields(data);
    let Ok(manifest) = Manifest::parse(data) else { return };
    assert!(data.len() <= 1 << 20 && std::str::from_utf8(data).is_ok());
    assert_eq!(Manifest::parse(&manifest.to_json()).expect("our own form is read"), manifest);
    assert!(manifest.title.bytes().chain(manifest.options.bytes()).all(|byte| (0x20..0x7F).contains(&byte)));
    check_options(&manifest.options).expect("they were checked");
    let (root, verity) = manifest.root();
    assert_eq!((verity.hash_offset, verity.data_blocks), (root.size, root.size / 4096));
    assert_eq!(manifest.slot_bytes, image_format::slot_bytes(root.size));
    assert_eq!(manifest.esp_bytes, manifest.boot().sizes().iter().sum::<u64>());
    // What is accepted here can be staged: no manifest gives an entry that nobody can read back (ENT-10).
    let place = Place { slot: Slot::B, partuuid: uuid::Uuid::from_u128(1), generation: Generation::FIRST };
    let entry = new_entry(&manifest, SystemId::of_manifest(&[]), place, OnCorruption::Restart);
    entry.check().expect("an entry of a checked manifest");
    assert_eq!(Entry::parse(&entry.render(Liveness::Live)), Ok((entry, Liveness::Live)));
}

pub fn head_seeds() -> Vec<Seed> {
    let mut unsigned = SMALL.clone();
    unsigned.sign_as(&[]);
    unsigned.data.clear();
    vec![("signed", small_image()[..SMALL.join().len() - SMALL.data.len()].to_vec()), ("unsigned", unsigned.join())]
}

pub fn table_seeds() -> Vec<Seed> {
    let with_len = |parts: &Parts| [&parts.transport[72..80], &parts.table].concat();
    let mut one = SMALL.clone();
    one.table.truncate(96);
    vec![("small", with_len(&SMALL)), ("one-record", with_len(&one))]
}

pub fn stream_seeds() -> Vec<Seed> {
    let plain = &Plain::small().root[8192..16384];
    let compress = |level| zstd::bulk::compress(plain, level).expect("zstd compresses");
    let zeros = zstd::bulk::compress(&[0; 8192], 3).expect("zstd compresses");
    vec![("level-1", compress(1)), ("level-3", compress(3)), ("level-19", compress(19)), ("zeros", zeros)]
}

pub fn manifest_seeds() -> Vec<Seed> {
    let text = String::from_utf8(SMALL.manifest.clone()).expect("JSON");
    let critical = text.replacen('{', "{ \"critical\": [], \"extra\": [null, true, {\"a\": \"\\u00e9\"}],", 1);
    vec![("small", SMALL.manifest.clone()), ("with-unknown-fields", critical.into_bytes())]
}
