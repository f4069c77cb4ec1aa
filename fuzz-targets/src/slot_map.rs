//! What a machine remembers of its slots, on a file system that nobody verifies.

use image_format::Digest;

use crate::Seed;

/// SLM-1, SLM-2: any bytes as a map, with the digest that they should have: what is read of them is written the same way again.
pub fn slot_map(data: &[u8]) {
    let _ = again(data);
    let mut bytes = data.to_vec();
    if bytes.len() >= 96 {
        let digest = Digest::of(&bytes[64..]);
        bytes[32..64].copy_from_slice(digest.as_bytes());
    }
    let Some(written) = again(&bytes) else { return };
    assert_eq!(written.len(), bytes.len());
    assert_eq!((&written[..12], &written[32..]), (&bytes[..12], &bytes[32..]));
    for piece in written[96..].chunks_exact(48) {
        let len = u32::from_le_bytes(piece[8..12].try_into().expect("4 bytes"));
        assert!((1..=4 << 20).contains(&len) && piece[12..16] == [0; 4]);
    }
    let offsets =
        written[96..].chunks_exact(48).map(|piece| u64::from_le_bytes(piece[..8].try_into().expect("8 bytes")));
    assert!(offsets.is_sorted());
}

/// As it would be written again; doing that once more changes nothing.
fn again(bytes: &[u8]) -> Option<Vec<u8>> {
    let written = updater::parsers::slot_map(bytes)?;
    assert_eq!(updater::parsers::slot_map(&written).as_ref(), Some(&written));
    Some(written)
}

pub fn map_seeds() -> Vec<Seed> {
    // The layout, from the specification and not from the code under test.
    let map = |state: u16, through: u64, pieces: &[(u64, u32)]| {
        let mut rest = vec![5; 32];
        for (offset, len) in pieces {
            rest.extend(offset.to_le_bytes());
            rest.extend(len.to_le_bytes());
            rest.extend([0; 4]);
            rest.extend([*len as u8; 32]);
        }
        let mut bytes = b"RALPHMAP\x01\0".to_vec();
        bytes.extend(state.to_le_bytes());
        bytes.extend((pieces.len() as u32).to_le_bytes());
        bytes.extend(through.to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend(Digest::of(&rest).as_bytes());
        [bytes, rest].concat()
    };
    vec![
        ("whole", map(2, 0, &[(0, 4096), (4096, 4 << 20)])),
        ("being-written", map(1, 1 << 20, &[(0, 1 << 20), (1 << 20, 512), (2 << 20, 4096)])),
        ("empty", map(2, 0, &[])),
    ]
}
