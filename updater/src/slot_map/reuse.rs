//! Chunks that a slot should hold already.

use std::io;

use disk_layout::{AlignedBuf, Slot, SlotBytes, SlotIo};
use image_format::{Chunk, Digest, MAX_CHUNK_LEN, Piece, Place, Reuse, SystemId};

use super::SlotMaps;

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

/// The slot that runs.
#[derive(Clone, Copy)]
pub struct Running<'s> {
    /// What it was started as.
    pub system: SystemId,
    /// Reads it.
    pub slot: &'s dyn SlotBytes,
}

impl<'s> KnownSlots<'s> {
    /// What `maps` know of the slot `target` and of the other one, if that runs. A map of which nothing holds is not believed (SLM-2).
    pub fn new(maps: &SlotMaps, target: Slot, slot: &mut dyn SlotIo, running: Option<Running<'s>>) -> Self {
        Self::by_reading(maps, target, |at, into| slot.read_at_uncached(at, into).is_ok(), running)
    }

    /// As [`KnownSlots::new`], of a target that is open for reading alone; `read` says whether it could.
    pub fn by_reading(
        maps: &SlotMaps,
        target: Slot,
        read: impl FnMut(u64, &mut [u8]) -> bool,
        running: Option<Running<'s>>,
    ) -> Self {
        let in_place = if_any_holds(maps.known(target), read);
        let mut elsewhere = running.map_or_else(Vec::new, |running| {
            let pieces = maps.of_running(!target, running.system);
            if_any_holds(pieces, |at, into| running.slot.read_at(at, into).is_ok())
        });
        elsewhere.sort_unstable_by_key(|piece| (piece.sha256, piece.offset));
        elsewhere.dedup_by_key(|piece| piece.sha256);
        KnownSlots { in_place, elsewhere, other: running.map(|running| running.slot) }
    }

    /// What the target should hold, by offset.
    pub(super) fn in_place(&self) -> &[Piece] {
        &self.in_place
    }
}

/// How many pieces are looked at before a map is believed.
const SAMPLES: usize = 8;

/// The pieces, if one of a few of them is there: a slot that another tool has written since would cost a look, and then a request, for each.
fn if_any_holds(pieces: Vec<Piece>, mut read: impl FnMut(u64, &mut [u8]) -> bool) -> Vec<Piece> {
    let mut memory = AlignedBuf::new(MAX_CHUNK_LEN as usize);
    let every = pieces.len().div_ceil(SAMPLES).max(1);
    let holds = pieces.iter().step_by(every).any(|piece| {
        let into = &mut memory[..piece.len as usize];
        read(piece.offset, into) && Digest::of(&*into) == piece.sha256
    });
    if holds { pieces } else { Vec::new() }
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
