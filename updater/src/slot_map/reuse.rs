//! Chunks that a slot should hold already.

use std::io;

use disk_layout::{Slot, SlotBytes};
use image_format::{Chunk, Digest, Place, Reuse};

use super::SlotMaps;
use super::format::Piece;

/// What both slots should hold: the target at the very place, the other one anywhere.
pub struct KnownSlots<'s> {
    /// By offset.
    in_place: Vec<Piece>,
    /// By digest.
    elsewhere: Vec<Piece>,
    other: Option<&'s dyn SlotBytes>,
}

impl std::fmt::Debug for KnownSlots<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (in_place, elsewhere) = (self.in_place.len(), self.elsewhere.len());
        f.debug_struct("KnownSlots").field("in_place", &in_place).field("elsewhere", &elsewhere).finish()
    }
}

impl<'s> KnownSlots<'s> {
    /// What `maps` know of the slot `target` and of the other one, which `other` reads.
    pub fn new(maps: &SlotMaps, target: Slot, other: Option<&'s dyn SlotBytes>) -> Self {
        let mut elsewhere = if other.is_some() { maps.known(!target) } else { Vec::new() };
        elsewhere.sort_unstable_by_key(|piece| (piece.sha256, piece.offset));
        elsewhere.dedup_by_key(|piece| piece.sha256);
        KnownSlots { in_place: maps.known(target), elsewhere, other }
    }
}

impl Reuse for KnownSlots<'_> {
    fn claims(&self, _: usize, chunk: &Chunk) -> Option<Place> {
        let wanted = Piece::of_chunk(chunk);
        let from = self.in_place.partition_point(|piece| piece.offset < wanted.offset);
        let mut there = self.in_place[from..].iter().take_while(|piece| piece.offset == wanted.offset);
        if there.any(|piece| *piece == wanted) {
            return Some(Place::InPlace);
        }
        let by_digest = |piece: &Piece| -> std::cmp::Ordering { Digest::cmp(&piece.sha256, &wanted.sha256) };
        let found = self.elsewhere.binary_search_by(by_digest).ok()?;
        let found = self.elsewhere[found];
        (found.len == wanted.len).then_some(Place::At(found.offset))
    }

    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.other.ok_or(io::ErrorKind::NotFound)?.read_at(at, into)
    }
}
