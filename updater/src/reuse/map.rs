//! A slot map: which plain bytes stand where in a slot, as far as anybody knows (FET-10). Bytes in, bytes out; files are `journal`'s.

use image_format::{Chunk, Digest};

const MAGIC: &[u8; 8] = b"RALPHMAP";
const VERSION: u16 = 1;
pub(super) const HEADER: usize = 128;
const RECORD: usize = 48;
pub(super) const NOTE: usize = 16;
/// As many chunks as a table can have (IMG-2).
const MOST_PIECES: usize = 174_762;
/// Notes of the journal behind the records.
pub(super) const MOST_NOTES: usize = 4096;
/// The longest file that is read.
pub(super) const LONGEST: u64 = (HEADER + 2 * MOST_PIECES * RECORD + MOST_NOTES * NOTE) as u64;
/// How far behind the last flush bytes may have reached the slot: a chunk there is worth a look.
pub const UNFLUSHED: u64 = 64 << 20;

/// Bytes of root that stand somewhere in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Where in the slot.
    pub offset: u64,
    /// How many.
    pub len: u32,
    /// Their SHA-256.
    pub sha256: [u8; 32],
}

impl Piece {
    /// Of a chunk of root.
    pub fn of(chunk: &Chunk) -> Self {
        Piece { offset: chunk.plain_offset, len: chunk.plain_len, sha256: *chunk.plain_sha256.as_bytes() }
    }

    /// Behind its last byte.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.len))
    }
}

/// What is thought to stand in a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotMap {
    /// The system last written there, or being written.
    pub system: [u8; 32],
    /// The SHA-256 of its image's chunk table: two images of one system may be cut differently.
    pub table: [u8; 32],
    /// Its root, in order.
    pub pieces: Vec<Piece>,
    /// So much of root, from its beginning, was written and flushed.
    pub flushed: u64,
    /// What stood there before and has not been overwritten, if it lies at `flushed` or behind.
    pub older: Vec<Piece>,
}

/// Not a slot map, or a damaged one. Nobody needs to know more: it is as if there were none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the slot map is damaged: {0}")]
pub struct BadMap(pub &'static str);

impl SlotMap {
    /// Of a slot to which an image with these root chunks is going to be written, where `before` was.
    pub fn begin(system: [u8; 32], table: [u8; 32], root: &[Chunk], before: Option<SlotMap>) -> Self {
        let pieces = root.iter().map(Piece::of).collect();
        let mut older = before.map(|map| map.present().copied().collect::<Vec<_>>()).unwrap_or_default();
        older.truncate(MOST_PIECES);
        SlotMap { system, table, pieces, flushed: 0, older }
    }

    /// Every piece that may be there.
    pub fn present(&self) -> impl Iterator<Item = &Piece> {
        let new = self.pieces.iter().filter(|piece| piece.end() <= self.flushed.saturating_add(UNFLUSHED));
        new.chain(self.older.iter().filter(|piece| piece.offset >= self.flushed))
    }

    /// Is it the map of this very image?
    pub fn is_of(&self, system: &[u8; 32], table: &[u8; 32]) -> bool {
        (&self.system, &self.table) == (system, table)
    }

    /// The file without its journal.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + (self.pieces.len() + self.older.len()) * RECORD + NOTE);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 6]);
        bytes.extend_from_slice(&(self.pieces.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(self.older.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&self.system);
        bytes.extend_from_slice(&self.table);
        bytes.extend_from_slice(&[0; 32]);
        for piece in self.pieces.iter().chain(&self.older) {
            bytes.extend_from_slice(&piece.offset.to_le_bytes());
            bytes.extend_from_slice(&piece.len.to_le_bytes());
            bytes.extend_from_slice(&[0; 4]);
            bytes.extend_from_slice(&piece.sha256);
        }
        let digest = Digest::of(&bytes);
        bytes[HEADER - 32..HEADER].copy_from_slice(digest.as_bytes());
        bytes
    }

    /// Reads a file, journal included: of its notes the last whole one counts.
    ///
    /// # Errors
    /// It is not one that we wrote, whole.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadMap> {
        let header: &[u8; HEADER] = bytes.first_chunk().ok_or(BadMap("it is shorter than its header"))?;
        if &header[..8] != MAGIC || header[8..10] != VERSION.to_le_bytes() {
            return Err(BadMap("it is none of this version"));
        }
        let count =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize;
        let (pieces, older) = (count(16), count(20));
        if pieces > MOST_PIECES || older > MOST_PIECES {
            return Err(BadMap("it has more pieces than a table can have"));
        }
        let end = HEADER + (pieces + older) * RECORD;
        let mut signed = bytes.get(..end).ok_or(BadMap("it is cut short"))?.to_vec();
        signed[HEADER - 32..HEADER].fill(0);
        if Digest::of(&signed).as_bytes() != &header[HEADER - 32..] {
            return Err(BadMap("its digest is wrong"));
        }
        let (records, _) = signed[HEADER..].as_chunks::<RECORD>();
        let piece = |record: &[u8; RECORD]| Piece {
            offset: u64::from_le_bytes(record[..8].try_into().expect("8 bytes")),
            len: u32::from_le_bytes(record[8..12].try_into().expect("4 bytes")),
            sha256: record[16..].try_into().expect("32 bytes"),
        };
        let mut all: Vec<Piece> = records.iter().map(piece).collect();
        let older = all.split_off(pieces);
        let (system, table) = (header[32..64].try_into().expect("32"), header[64..96].try_into().expect("32"));
        Ok(SlotMap { system, table, pieces: all, flushed: last_note(&bytes[end..]), older })
    }
}

/// A note of the journal: so much is flushed.
pub(super) fn note(flushed: u64) -> [u8; NOTE] {
    let mut note = [0; NOTE];
    note[..8].copy_from_slice(&flushed.to_le_bytes());
    note[8..].copy_from_slice(&(!flushed).to_le_bytes());
    note
}

/// The highest of the notes that hold; a torn one counts for nothing.
fn last_note(bytes: &[u8]) -> u64 {
    let (notes, _) = bytes.as_chunks::<NOTE>();
    let half = |note: &[u8; NOTE], at: usize| u64::from_le_bytes(note[at..at + 8].try_into().expect("8 bytes"));
    let holding =
        notes.iter().take(MOST_NOTES).map(|note| (half(note, 0), half(note, 8))).filter(|(at, check)| *at == !*check);
    holding.map(|(at, _)| at).max().unwrap_or(0)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A piece of so many blocks at this block; `what` makes its digest.
    pub(in crate::reuse) fn piece(block: u64, blocks: u32, what: u8) -> Piece {
        Piece { offset: block * 4096, len: blocks * 4096, sha256: [what; 32] }
    }

    fn arbitrary() -> impl Strategy<Value = SlotMap> {
        let pieces = || prop::collection::vec((0_u64..1 << 30, 1_u32..64, any::<u8>()), 0..20);
        (any::<[u8; 32]>(), any::<[u8; 32]>(), pieces(), pieces()).prop_map(|(system, table, new, old)| {
            let make =
                |list: Vec<(u64, u32, u8)>| list.into_iter().map(|(at, len, what)| piece(at, len, what)).collect();
            SlotMap { system, table, pieces: make(new), flushed: 0, older: make(old) }
        })
    }

    #[test]
    fn fet_10_the_bytes_are_those_of_the_rule() {
        let map = SlotMap { system: [1; 32], table: [2; 32], pieces: vec![piece(1, 2, 3)], flushed: 0, older: vec![] };
        let bytes = map.to_bytes();
        assert_eq!(bytes.len(), 128 + 48);
        assert_eq!(&bytes[..8], b"RALPHMAP");
        assert_eq!(bytes[8..32], [1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!((&bytes[32..64], &bytes[64..96]), (&[1; 32][..], &[2; 32][..]));
        assert_eq!(bytes[128..144], [0, 16, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[144..], [3; 32]);
    }

    #[test]
    fn fet_13_the_journal_says_how_far_and_a_torn_note_says_nothing() {
        let map = SlotMap { system: [1; 32], table: [2; 32], pieces: vec![piece(0, 1, 3)], flushed: 0, older: vec![] };
        let mut bytes = map.to_bytes();
        bytes.extend(note(4096));
        bytes.extend(note(8192));
        bytes.extend(&note(1 << 40)[..15]);
        assert_eq!(SlotMap::parse(&bytes).unwrap().flushed, 8192);
        let len = bytes.len();
        bytes[len - 20] ^= 1;
        assert_eq!(SlotMap::parse(&bytes).unwrap().flushed, 4096);
    }

    #[test]
    fn fet_14_behind_the_flush_old_and_new_may_both_be_there() {
        let far = UNFLUSHED / 4096;
        let map = SlotMap {
            system: [0; 32],
            table: [0; 32],
            pieces: vec![piece(0, 4, 1), piece(4, 4, 2), piece(10 + far, 4, 3)],
            flushed: 4 * 4096,
            older: vec![piece(0, 2, 8), piece(4, 2, 9)],
        };
        let digests: Vec<u8> = map.present().map(|piece| piece.sha256[0]).collect();
        assert_eq!(digests, [1, 2, 9]);
        // Then another image comes: what may be there is what was there before.
        let next = SlotMap::begin([7; 32], [7; 32], &[], Some(map));
        assert_eq!(next.older.iter().map(|piece| piece.sha256[0]).collect::<Vec<_>>(), [1, 2, 9]);
        assert_eq!(next.flushed, 0);
    }

    proptest! {
        #[test]
        fn fet_10_what_is_written_is_read(map in arbitrary(), flushed: u64) {
            let bytes = [map.to_bytes(), note(flushed).to_vec()].concat();
            prop_assert!(bytes.len() as u64 <= LONGEST);
            prop_assert_eq!(SlotMap::parse(&bytes).unwrap(), SlotMap { flushed, ..map });
        }

        #[test]
        fn fet_12_a_damaged_map_is_none(map in arbitrary(), at: prop::sample::Index, bit in 0_u8..8, cut: prop::sample::Index) {
            let mut bytes = map.to_bytes();
            prop_assert!(SlotMap::parse(&bytes[..cut.index(bytes.len())]).is_err());
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(SlotMap::parse(&bytes).is_err());
        }

        #[test]
        fn fet_12_garbage_is_none(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(SlotMap::parse(&bytes).is_err());
        }
    }
}
