//! The bytes of a slot map (SLM-1).

use image_format::{Chunk, Digest, MAX_CHUNK_LEN, SystemId};

const MAGIC: &[u8; 8] = b"RALPHMAP";
const VERSION: u16 = 1;

/// As many as an image has chunks at most (IMG-2).
pub(super) const MAX_PIECES: usize = 174_762;

const HEAD: usize = 96;
const PIECE: usize = 48;

/// The longest map.
pub(super) const MAX_LEN: u64 = (HEAD + MAX_PIECES * PIECE) as u64;

/// Where the state stands in the file; it is changed in place and no part of the digest.
pub(super) const STATE_AT: u64 = 10;
/// Where the journal's last word stands.
pub(super) const THROUGH_AT: u64 = 16;

/// How far the slot was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// To this byte of root, at least.
    Writing { through: u64 },
    /// All of it, and proven.
    Whole,
}

impl State {
    pub(super) fn to_bytes(self) -> [u8; 2] {
        match self {
            State::Writing { .. } => 1_u16,
            State::Whole => 2,
        }
        .to_le_bytes()
    }
}

/// Bytes that a slot should hold at an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) offset: u64,
    pub(super) len: u32,
    pub(super) sha256: Digest,
}

impl Piece {
    pub(super) fn of_chunk(chunk: &Chunk) -> Self {
        Piece { offset: chunk.plain_offset, len: chunk.plain_len, sha256: chunk.plain_sha256 }
    }

    fn to_bytes(self) -> [u8; PIECE] {
        let mut bytes = [0; PIECE];
        bytes[..8].copy_from_slice(&self.offset.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[16..].copy_from_slice(self.sha256.as_bytes());
        bytes
    }

    fn parse(bytes: &[u8; PIECE]) -> Option<Self> {
        let sha256: [u8; 32] = bytes[16..].try_into().ok()?;
        let piece = Piece { offset: u64_at(bytes, 0)?, len: u32_at(bytes, 8)?, sha256: sha256.into() };
        let is_sound = (1..=MAX_CHUNK_LEN).contains(&piece.len) && u32_at(bytes, 12)? == 0 && piece.offset < 1 << 48;
        is_sound.then_some(piece)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Map {
    pub(super) state: State,
    pub(super) system: SystemId,
    /// By offset, ascending.
    pub(super) pieces: Vec<Piece>,
}

impl Map {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEAD];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.state.to_bytes());
        // The limit of pieces is far below 2^32.
        bytes[12..16].copy_from_slice(&(self.pieces.len() as u32).to_le_bytes());
        if let State::Writing { through } = self.state {
            bytes[16..24].copy_from_slice(&through.to_le_bytes());
        }
        bytes[64..HEAD].copy_from_slice(self.system.as_bytes());
        bytes.extend(self.pieces.iter().flat_map(|piece| piece.to_bytes()));
        let digest = Digest::of(&bytes[64..]);
        bytes[32..64].copy_from_slice(digest.as_bytes());
        bytes
    }

    /// A map as [`Map::to_bytes`] writes it; `None` for anything else, a torn one included.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_at_checked(HEAD)?;
        let (pieces, torn) = rest.as_chunks::<PIECE>();
        let count = u32_at(head, 12)? as usize;
        if !head.starts_with(MAGIC) || u16_at(head, 8)? != VERSION || !torn.is_empty() {
            return None;
        }
        if count != pieces.len() || count > MAX_PIECES || Digest::of(&bytes[64..]).as_bytes() != &head[32..64] {
            return None;
        }
        let state = match u16_at(head, 10)? {
            1 => State::Writing { through: u64_at(head, 16)? },
            2 => State::Whole,
            _ => return None,
        };
        let pieces: Vec<Piece> = pieces.iter().map(Piece::parse).collect::<Option<_>>()?;
        let system: [u8; 32] = head[64..].try_into().ok()?;
        let ascending = pieces.is_sorted_by_key(|piece| piece.offset);
        ascending.then_some(Map { state, system: system.into(), pieces })
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
