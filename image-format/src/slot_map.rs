//! The bytes of a slot map: what a slot was last written with (SLM-1).

use crate::digest::{Digest, SystemId};
use crate::table::{Chunk, MAX_CHUNK_LEN};

const MAGIC: &[u8; 8] = b"RALPHMAP";
const VERSION: u16 = 1;

/// Pieces of a map at most: as many as an image has chunks (IMG-2).
pub const MAX_PIECES: usize = 174_762;

const HEAD: usize = 96;
const PIECE: usize = 48;

/// Bytes of the longest map.
pub const MAX_MAP_LEN: u64 = (HEAD + MAX_PIECES * PIECE) as u64;

/// Where [`MapState`] stands in the file; it is changed in place and no part of the digest.
pub const STATE_AT: u64 = 10;
/// Where the bytes of [`MapState::Writing`] stand: u64, little endian; changed in place, too.
pub const THROUGH_AT: u64 = 16;

/// How far the slot was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapState {
    /// To this byte of root, at least.
    Writing {
        /// Everything before it is there.
        through: u64,
    },
    /// All of it, and proven.
    Whole,
}

impl MapState {
    /// As it stands at [`STATE_AT`].
    pub fn to_bytes(self) -> [u8; 2] {
        match self {
            MapState::Writing { .. } => 1_u16,
            MapState::Whole => 2,
        }
        .to_le_bytes()
    }
}

/// Bytes that a slot should hold at an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// In the slot.
    pub offset: u64,
    /// Bytes, 1 to [`MAX_CHUNK_LEN`].
    pub len: u32,
    /// Of the bytes.
    pub sha256: Digest,
}

impl Piece {
    /// What the slot holds where this chunk of root was written.
    pub fn of_chunk(chunk: &Chunk) -> Self {
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

/// What a slot was last written with, as far as its machine remembers: a hint, which nobody has signed (SLM-2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotMap {
    /// How far it is.
    pub state: MapState,
    /// What is written.
    pub system: SystemId,
    /// By offset, ascending.
    pub pieces: Vec<Piece>,
}

impl SlotMap {
    /// Of a slot that holds the root of this system, whole and proven; of its chunks those of root are taken.
    pub fn whole(system: SystemId, chunks: &[Chunk]) -> Self {
        let root = chunks.iter().filter(|chunk| chunk.payload == 0);
        SlotMap { state: MapState::Whole, system, pieces: root.map(Piece::of_chunk).collect() }
    }

    /// The file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEAD];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.state.to_bytes());
        // The limit of pieces is far below 2^32.
        bytes[12..16].copy_from_slice(&(self.pieces.len() as u32).to_le_bytes());
        if let MapState::Writing { through } = self.state {
            bytes[16..24].copy_from_slice(&through.to_le_bytes());
        }
        bytes[64..HEAD].copy_from_slice(self.system.as_bytes());
        bytes.extend(self.pieces.iter().flat_map(|piece| piece.to_bytes()));
        let digest = Digest::of(&bytes[64..]);
        bytes[32..64].copy_from_slice(digest.as_bytes());
        bytes
    }

    /// A map as [`SlotMap::to_bytes`] writes it; `None` for anything else, a torn one included.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_at_checked(HEAD)?;
        let (pieces, torn) = rest.as_chunks::<PIECE>();
        let count = u32_at(head, 12)? as usize;
        if !head.starts_with(MAGIC) || u64_at(head, 24)? != 0 || u16_at(head, 8)? != VERSION || !torn.is_empty() {
            return None;
        }
        if count != pieces.len() || count > MAX_PIECES || Digest::of(&bytes[64..]).as_bytes() != &head[32..64] {
            return None;
        }
        let state = match u16_at(head, 10)? {
            1 => MapState::Writing { through: u64_at(head, 16)? },
            2 => MapState::Whole,
            _ => return None,
        };
        let mut found = Vec::with_capacity(count);
        for piece in pieces {
            found.push(Piece::parse(piece)?);
        }
        let pieces = found;
        let system: [u8; 32] = head[64..].try_into().ok()?;
        let ascending = pieces.is_sorted_by_key(|piece| piece.offset);
        ascending.then_some(SlotMap { state, system: system.into(), pieces })
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
