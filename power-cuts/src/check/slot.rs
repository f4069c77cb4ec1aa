//! The blocks of a slot (`CUT-35`).

use std::collections::HashMap;
use std::io::{self, Read};
use std::ops::Range;

use image_format::{BLOCK, Uuid, Verity, VerityBuilder, slot_bytes, verity_superblock};

use super::sectors;
use crate::disk::{Disk, Fingerprint, State};
use crate::store::ReadAt;
use crate::view::View;

/// Where a slot lies, what was written to it, and the root hash and hash offset that an entry names.
type Key = (u64, Fingerprint, [u8; 32], u64);

/// What is known of slots.
#[derive(Debug, Default)]
pub(super) struct Slots {
    known: HashMap<Key, Result<(), String>>,
}

impl Slots {
    /// Whether data, superblock and tree of the slot at `place` are what the root hash stands for. The reason inside, an error
    /// of the medium outside.
    pub(super) fn check<B: ReadAt, L: ReadAt>(
        &mut self,
        disk: &Disk<B, L>,
        state: &State,
        place: Range<u64>,
        root_hash: &[u8; 32],
        hash_offset: u64,
    ) -> io::Result<Result<(), String>> {
        let key = (place.start, state.fingerprint_of(disk, sectors(&place)), *root_hash, hash_offset);
        if let Some(known) = self.known.get(&key) {
            return Ok(known.clone());
        }
        let found = verify(disk, state, place, root_hash, hash_offset)?;
        self.known.insert(key, found.clone());
        Ok(found)
    }
}

fn verify<B: ReadAt, L: ReadAt>(
    disk: &Disk<B, L>,
    state: &State,
    place: Range<u64>,
    root_hash: &[u8; 32],
    hash_offset: u64,
) -> io::Result<Result<(), String>> {
    let len = place.end - place.start;
    if hash_offset == 0 || !hash_offset.is_multiple_of(BLOCK) || hash_offset > len || slot_bytes(hash_offset) > len {
        return Ok(Err(format!("the slot of {len} bytes has no room for a tree at {hash_offset}")));
    }
    let part = |range: Range<u64>| View::new(disk, state, place.start + range.start..place.start + range.end);
    let mut stored = vec![0; BLOCK as usize];
    part(hash_offset..hash_offset + BLOCK).read_exact(&mut stored)?;
    let array = |at: usize| -> [u8; 32] { std::array::from_fn(|i| stored[at + i]) };
    let verity = Verity {
        root_hash: image_format::Digest::from(*root_hash),
        salt: array(88),
        uuid: Uuid(std::array::from_fn(|i| stored[16 + i])),
        data_blocks: hash_offset / BLOCK,
        hash_offset,
    };
    if verity_superblock(&verity)[..] != stored[..] {
        return Ok(Err("the stored superblock is none of ours for this data".to_owned()));
    }
    // Every block of the tree is compared with what is stored, as it is computed.
    let mut differs = None;
    let mut compare = |offset: u64, computed: &[u8]| -> io::Result<()> {
        let mut stored = vec![0; computed.len()];
        part(offset..offset + computed.len() as u64).read_exact(&mut stored)?;
        if stored != computed {
            differs.get_or_insert(offset);
        }
        Ok(())
    };
    let mut builder = VerityBuilder::new(hash_offset, &verity.salt).map_err(io::Error::other)?;
    let mut data = part(0..hash_offset);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let got = data.read(&mut buffer)?;
        if got == 0 {
            break;
        }
        builder.update(&buffer[..got], &mut compare).map_err(io::Error::other)?;
    }
    let root = builder.finish(&mut compare).map_err(io::Error::other)?;
    Ok(match differs {
        _ if root.as_bytes() != root_hash => Err("its data has another root hash than its entry".to_owned()),
        Some(offset) => Err(format!("the stored hash blocks at {offset} are not those of the data")),
        None => Ok(()),
    })
}
