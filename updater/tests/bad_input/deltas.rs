//! Deltas that are signed as they should be, and must be refused all the same (IMG-70 to IMG-73).

use image_format::{Digest, UnverifiedImage};

use crate::attacks::good;
use crate::lab::running_image;
use crate::parts::Parts;
use crate::table::Attack;

const COPY: u8 = 3;

/// The good image as a delta from this system: every chunk stands by itself, as a chunk of a delta may.
fn delta_from(base: &[u8; 32], edit: impl FnOnce(&mut Parts)) -> Vec<u8> {
    let mut parts = good();
    parts.transport[68] = 1;
    parts.transport[70] = 1;
    parts.transport.extend(base);
    edit(&mut parts);
    parts.resign()
}

/// From the system that runs.
fn delta(edit: impl FnOnce(&mut Parts)) -> Vec<u8> {
    let running = UnverifiedImage::read_head(&running_image()[..]).unwrap().claimed_system_id();
    delta_from(running.as_bytes(), edit)
}

/// A delta that goes well: what makes the attacks is what was changed of it.
pub fn good_delta() -> Vec<u8> {
    delta(|_| {})
}

/// A chunk of root that copies these ranges.
fn copying(ranges: &[(u64, u32)]) -> Vec<u8> {
    let mut encoded = (ranges.len() as u16).to_le_bytes().to_vec();
    for (offset, len) in ranges {
        encoded.extend(offset.to_le_bytes());
        encoded.extend(len.to_le_bytes());
    }
    delta(|parts| {
        parts.record(0)[2] = COPY;
        parts.replace_encoded(0, &encoded);
    })
}

pub fn all() -> Vec<Attack> {
    let len = u32::from_le_bytes(good().record(0)[4..8].try_into().unwrap());
    let of_linux = |encoding: u8| {
        delta(|parts| {
            let linux = (0..).find(|at| parts.record(*at)[0] == 1).unwrap();
            parts.record(linux)[2] = encoding;
        })
    };
    let without = {
        let mut parts = good();
        parts.transport[68] = 1;
        parts.resign()
    };
    vec![
        Attack::file("a delta without a base", "untrusted/transport-encoding", without),
        Attack::file("a delta from another system", "delta-base", delta_from(Digest::of([9]).as_bytes(), |_| {})),
        Attack::files(
            "a delta whose kernel refers to a base",
            "untrusted/chunk-encoding",
            vec![("patch".to_owned(), of_linux(2)), ("copy".to_owned(), of_linux(3))],
        ),
        Attack::files(
            "ranges of a base out of their bounds",
            "fenced/delta-ranges",
            vec![
                ("none".to_owned(), copying(&[])),
                ("empty".to_owned(), copying(&[(0, 0), (0, len)])),
                ("too long".to_owned(), copying(&[(0, len), (0, 1)])),
                ("around the end of numbers".to_owned(), copying(&[(u64::MAX, len)])),
            ],
        ),
        Attack::file("ranges behind the end of the base", "fenced/delta-base-unread", copying(&[(1 << 40, len)])),
        Attack::file("a copy of other bytes of the base", "fenced/delta-base-differs", copying(&[(4096, len)])),
    ]
}
