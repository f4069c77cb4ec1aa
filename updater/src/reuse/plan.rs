//! From where each chunk of root is taken: a pure function of the authenticated table and of what the slots are thought to hold (FET-1).

use std::collections::HashSet;

use image_format::{Chunk, Place};

use super::map::{Piece, SlotMap};

/// For each of these chunks of root, in order: in place, from the booted slot at an offset, or (`None`) from the source.
///
/// `target` and `booted` are what the maps say; from the target slot only what stands in its very place is taken, because everything else
/// there is about to be overwritten.
pub fn decide(root: &[Chunk], target: Option<&SlotMap>, booted: Option<&SlotMap>) -> Vec<Option<Place>> {
    let in_place: HashSet<(u64, u32, &[u8; 32])> =
        target.into_iter().flat_map(SlotMap::present).map(|piece| (piece.offset, piece.len, &piece.sha256)).collect();
    let booted = by_digest(booted);
    let place = |chunk: &Chunk| {
        if in_place.contains(&(chunk.plain_offset, chunk.plain_len, chunk.plain_sha256.as_bytes())) {
            return Some(Place::InPlace);
        }
        let key = (chunk.plain_sha256.as_bytes(), chunk.plain_len);
        let found = booted.binary_search_by_key(&key, |piece| (&piece.sha256, piece.len)).ok()?;
        Some(Place::At(booted[found].offset))
    };
    root.iter().map(place).collect()
}

/// What of a map was surely written, ordered to be searched.
fn by_digest(map: Option<&SlotMap>) -> Vec<&Piece> {
    let mut pieces: Vec<&Piece> =
        map.map(|map| map.pieces.iter().filter(|piece| piece.end() <= map.flushed).collect()).unwrap_or_default();
    pieces.sort_unstable_by_key(|piece| (&piece.sha256, piece.len, piece.offset));
    pieces
}

/// A few pieces from all over a map, to see whether the slot holds them at all.
pub fn thinned(map: &SlotMap, most: usize) -> Vec<Piece> {
    let whole: Vec<&Piece> = map.pieces.iter().filter(|piece| piece.end() <= map.flushed).collect();
    let step = whole.len().div_ceil(most.max(1)).max(1);
    whole.into_iter().step_by(step).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::super::map::tests::piece;
    use super::*;
    use image_format::Digest;
    use proptest::prelude::*;

    fn chunk(piece: Piece) -> Chunk {
        Chunk {
            payload: 0,
            plain_len: piece.len,
            plain_offset: piece.offset,
            encoded_offset: 0,
            encoded_len: 1,
            plain_sha256: piece.sha256.into(),
            encoded_sha256: Digest::of(b""),
        }
    }

    /// Pieces one behind the other, of these digests.
    fn row(digests: &[u8]) -> Vec<Piece> {
        digests.iter().enumerate().map(|(at, what)| piece(at as u64 * 4, 4, *what)).collect()
    }

    fn map(digests: &[u8]) -> SlotMap {
        let pieces = row(digests);
        let flushed = pieces.last().map_or(0, Piece::end);
        SlotMap { system: [0; 32], table: [0; 32], pieces, flushed, older: Vec::new() }
    }

    fn places(new: &[u8], target: &[u8], booted: &[u8]) -> Vec<Option<Place>> {
        let root: Vec<Chunk> = row(new).into_iter().map(chunk).collect();
        decide(&root, Some(&map(target)), Some(&map(booted)))
    }

    #[test]
    fn fet_1_the_cheapest_place_first() {
        let (here, from) = (Some(Place::InPlace), |block: u64| Some(Place::At(block * 4096)));
        assert_eq!(places(&[1, 2, 3, 4], &[1, 9, 4], &[3, 1, 2]), [here, from(8), from(0), None]);
        // Of the target slot only what is in its place.
        assert_eq!(places(&[1, 2], &[2, 1], &[]), [None, None]);
        // The first of several.
        assert_eq!(places(&[7, 7], &[], &[5, 7, 7]), [from(4), from(4)]);
        assert_eq!(decide(&[chunk(piece(0, 4, 1))], None, None), [None]);
    }

    #[test]
    fn fet_1_the_same_digest_of_another_length_is_another_piece() {
        let root = [chunk(piece(0, 8, 1))];
        assert_eq!(decide(&root, Some(&map(&[1])), Some(&map(&[1]))), [None]);
    }

    #[test]
    fn fet_1_a_booted_slot_whose_write_never_ended_gives_what_was_flushed() {
        let mut booted = map(&[1, 2, 3]);
        booted.flushed = 8 * 4096;
        booted.older = vec![piece(8, 4, 9)];
        let root: Vec<Chunk> = row(&[3, 2, 9]).into_iter().map(chunk).collect();
        assert_eq!(decide(&root, None, Some(&booted)), [None, Some(Place::At(4 * 4096)), None]);
    }

    #[test]
    fn fet_3_samples_are_few_and_from_everywhere() {
        let many = map(&(0..=255).collect::<Vec<u8>>());
        let samples = thinned(&many, 8);
        assert_eq!(samples.len(), 8);
        assert!(samples[7].offset > many.flushed * 3 / 4);
        assert_eq!(thinned(&map(&[1, 2]), 8).len(), 2);
        assert_eq!(thinned(&map(&[]), 8), []);
    }

    proptest! {
        /// Whatever the maps say: a place is named only where a map holds these bytes, and it is the cheapest.
        #[test]
        fn fet_1_a_place_holds_what_the_chunk_is(
            new in prop::collection::vec(0_u8..12, 0..30), target in prop::collection::vec(0_u8..12, 0..30),
            booted in prop::collection::vec(0_u8..12, 0..30),
        ) {
            for (at, place) in places(&new, &target, &booted).into_iter().enumerate() {
                let in_place = target.get(at) == Some(&new[at]);
                match place {
                    Some(Place::InPlace) => prop_assert!(in_place),
                    Some(Place::At(offset)) => {
                        prop_assert!(!in_place);
                        prop_assert_eq!(booted[(offset / 4096 / 4) as usize], new[at]);
                    }
                    None => prop_assert!(!in_place && !booted.contains(&new[at])),
                }
            }
        }
    }
}
