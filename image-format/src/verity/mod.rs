//! dm-verity as images use it (IMG-20 to IMG-24): superblock version 1, hash type 1, SHA-256, blocks of 4096 bytes, the superblock and
//! tree right behind the data.

mod builder;

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;

pub use builder::{HashSink, LeafHasher, Leaves, VerityBuilder, VerityError};

/// Size of a data block and of a hash block.
pub const BLOCK: u64 = 4096;

/// [`BLOCK`] for lengths in memory.
pub(crate) const BLOCK_LEN: usize = 4096;

/// Digests in one hash block.
const FANOUT: u64 = 128;

/// The dm-verity parameters of a root payload (IMG-20).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verity {
    /// Digest of the top block.
    pub root_hash: Digest,
    /// Salt, hashed in front of every block.
    pub salt: [u8; 32],
    /// UUID in the superblock.
    pub uuid: Uuid,
    /// Data blocks of 4096 bytes.
    pub data_blocks: u64,
    /// Byte offset of the superblock in the slot; equals the size of the data.
    pub hash_offset: u64,
}

impl Verity {
    /// The parameters the builder derives, so that the same root gives the same tree (IMG-24). `data_size` is a multiple of 4096.
    pub(crate) fn derive(data_size: u64, root_sha256: &Digest, root_hash: Digest) -> Self {
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&derived(b"ralphos verity uuid v1\0", root_sha256).as_bytes()[..16]);
        uuid[6] = uuid[6] & 0x0F | 0x80;
        uuid[8] = uuid[8] & 0x3F | 0x80;
        Self {
            root_hash,
            salt: derived_salt(root_sha256),
            uuid: Uuid(uuid),
            data_blocks: data_size / BLOCK,
            hash_offset: data_size,
        }
    }
}

/// The salt of IMG-24.
pub(crate) fn derived_salt(root_sha256: &Digest) -> [u8; 32] {
    *derived(b"ralphos verity salt v1\0", root_sha256).as_bytes()
}

fn derived(label: &[u8], root_sha256: &Digest) -> Digest {
    Digest::of([label, root_sha256.as_ref()].concat())
}

/// A UUID; displayed and parsed as lower-case text with hyphens.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Uuid(pub [u8; 16]);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uuid({self})")
    }
}

/// Text that is not a lower-case UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a lower-case UUID")]
pub struct BadUuid(pub String);

impl FromStr for Uuid {
    type Err = BadUuid;

    fn from_str(text: &str) -> Result<Self, BadUuid> {
        let bad = || BadUuid(text.to_owned());
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        if digits.len() != 32 {
            return Err(bad());
        }
        // Parsed as a digest whose second half is zero, then compared: exactly one spelling is accepted.
        let bytes = crate::digest::hex32(&format!("{digits}{}", "0".repeat(32))).map_err(|_| bad())?;
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&bytes[..16]);
        let uuid = Self(uuid);
        if uuid.to_string() == text { Ok(uuid) } else { Err(bad()) }
    }
}

/// Hash blocks on each level, the leaves first, the top (one block) last. Empty for a single data block, whose digest is the root hash.
fn level_blocks(data_blocks: u64) -> Vec<u64> {
    let mut levels = Vec::new();
    let mut below = data_blocks;
    while below > 1 {
        below = below.div_ceil(FANOUT);
        levels.push(below);
    }
    levels
}

/// Hash blocks of the tree over `data_size` bytes.
pub fn tree_blocks(data_size: u64) -> u64 {
    level_blocks(data_size.div_ceil(BLOCK)).iter().sum()
}

/// Bytes of slot used by a root of `data_size` bytes: data, superblock and tree (IMG-22). `data_size` is at most 2^48.
pub fn slot_bytes(data_size: u64) -> u64 {
    data_size + BLOCK + BLOCK * tree_blocks(data_size)
}

/// The block at `hash-offset`: the superblock's 512 bytes and zeros (IMG-22).
pub fn verity_superblock(verity: &Verity) -> [u8; BLOCK as usize] {
    let mut block = [0; BLOCK_LEN];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"verity\0\0");
    put(8, &1_u32.to_le_bytes()); // superblock version
    put(12, &1_u32.to_le_bytes()); // hash type: salt in front, digests padded to a power of two
    put(16, &verity.uuid.0);
    put(32, b"sha256");
    put(64, &(BLOCK as u32).to_le_bytes()); // data block size
    put(68, &(BLOCK as u32).to_le_bytes()); // hash block size
    put(72, &verity.data_blocks.to_le_bytes());
    put(80, &(verity.salt.len() as u16).to_le_bytes());
    put(88, &verity.salt);
    block
}

#[cfg(test)]
mod tests;
