//! The dm-verity tree, computed while the data streams past.

use std::io;

use sha2::{Digest as _, Sha256};

use super::{BLOCK, BLOCK_LEN, level_blocks};
use crate::digest::Digest;

/// How many bytes of finished, adjacent hash blocks are collected before they go to the sink.
const RUN_LEN: usize = 64 * 1024;

/// Takes finished hash blocks.
pub trait HashSink {
    /// Stores `bytes`, one or more whole hash blocks, at `offset` bytes from the beginning of the slot.
    ///
    /// # Errors
    /// Whatever the storage says; the builder stops and hands it on.
    fn put(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
}

impl<F: FnMut(u64, &[u8]) -> io::Result<()>> HashSink for F {
    fn put(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self(offset, bytes)
    }
}

/// Why a tree could not be built.
#[derive(Debug, thiserror::Error)]
pub enum VerityError {
    /// The data is empty or does not consist of whole blocks (IMG-21).
    #[error("cannot build a verity tree over {0} bytes: not a positive multiple of 4096 (IMG-21)")]
    Size(u64),
    /// More or less data came than was announced.
    #[error("{found} bytes were hashed into the verity tree, but {announced} were announced")]
    Length {
        /// How much came; when too much came, how much there was by then.
        found: u64,
        /// What [`VerityBuilder::new`] was told.
        announced: u64,
    },
    /// The sink failed.
    #[error("cannot store hash blocks at byte {offset} of the slot")]
    Sink {
        /// Where in the slot.
        offset: u64,
        /// What the sink said.
        source: io::Error,
    },
}

/// Digests of whole data blocks, in order, as the leaves of a tree hold them. Made by a [`LeafHasher`].
#[derive(Debug, Default)]
pub struct Leaves {
    digests: Vec<u8>,
}

impl Leaves {
    /// How many bytes of data they stand for.
    pub fn data_len(&self) -> u64 {
        (self.digests.len() / Digest::LEN) as u64 * BLOCK
    }
}

static ZEROS: [u8; BLOCK_LEN] = [0; BLOCK_LEN];

/// Computes leaves, on whatever thread: nearly all the work of a tree.
#[derive(Debug, Clone)]
pub struct LeafHasher {
    /// The hasher's state after the salt, copied for each block.
    salted: Sha256,
    /// Of a block of zeros, of which free space has many.
    of_zeros: Digest,
}

impl LeafHasher {
    /// For a tree with this salt.
    pub fn new(salt: &[u8]) -> Self {
        let salted = Sha256::new_with_prefix(salt);
        let of_zeros = Digest::finish(salted.clone().chain_update(ZEROS));
        Self { salted, of_zeros }
    }

    /// The digests of `data`'s blocks. Behind the last whole block nothing is looked at.
    pub fn leaves(&self, data: &[u8]) -> Leaves {
        let mut digests = Vec::with_capacity(data.len() / BLOCK_LEN * Digest::LEN);
        for block in data.chunks_exact(BLOCK_LEN) {
            digests.extend_from_slice(self.block(block).as_ref());
        }
        Leaves { digests }
    }

    fn block(&self, block: &[u8]) -> Digest {
        if block == ZEROS {
            return self.of_zeros;
        }
        Digest::finish(self.salted.clone().chain_update(block))
    }
}

/// Computes the tree of IMG-22 over data that arrives in order, in pieces of any size. Hash blocks go to a [`HashSink`] as they fill, so
/// memory is one block for each level and a run of leaves, however large the data is.
///
/// The sink receives every block of the tree exactly once, each at its place behind `data_size` + 4096; the superblock is not among them.
#[derive(Debug)]
pub struct VerityBuilder {
    data_size: u64,
    seen: u64,
    hasher: LeafHasher,
    /// The data block that has not arrived whole yet.
    partial: Vec<u8>,
    /// Leaves first.
    levels: Vec<Level>,
    /// Digest of the single block at the top, once known.
    top: Option<Digest>,
}

#[derive(Debug)]
struct Level {
    /// Where in the slot the bytes of `run` belong.
    offset: u64,
    /// Bytes of this level that have not gone to the sink.
    run: Vec<u8>,
    /// How long `run` may grow.
    limit: usize,
}

impl VerityBuilder {
    /// A builder for `data_size` bytes.
    ///
    /// # Errors
    /// Refuses a size that is zero or no multiple of 4096.
    pub fn new(data_size: u64, salt: &[u8]) -> Result<Self, VerityError> {
        if data_size == 0 || !data_size.is_multiple_of(BLOCK) {
            return Err(VerityError::Size(data_size));
        }
        let blocks = level_blocks(data_size / BLOCK);
        let mut end = super::slot_bytes(data_size);
        let levels = blocks.iter().enumerate().map(|(index, blocks)| {
            // The leaf level lies last, so the offsets are found from the end.
            end -= blocks * BLOCK;
            Level { offset: end, run: Vec::new(), limit: if index == 0 { RUN_LEN } else { BLOCK_LEN } }
        });
        Ok(Self {
            data_size,
            seen: 0,
            levels: levels.collect(),
            hasher: LeafHasher::new(salt),
            partial: Vec::new(),
            top: None,
        })
    }

    /// Takes the next bytes of the data.
    ///
    /// # Errors
    /// Refuses more data than announced; hands on the sink's error.
    pub fn update(&mut self, mut data: &[u8], sink: &mut impl HashSink) -> Result<(), VerityError> {
        let found = self.seen.saturating_add(data.len() as u64);
        if found > self.data_size {
            return Err(VerityError::Length { found, announced: self.data_size });
        }
        self.seen = found;
        if !self.partial.is_empty() {
            let (head, rest) = data.split_at(data.len().min(BLOCK_LEN - self.partial.len()));
            self.partial.extend_from_slice(head);
            data = rest;
            if self.partial.len() < BLOCK_LEN {
                return Ok(());
            }
            let digest = self.hasher.block(&self.partial);
            self.partial.clear();
            self.push(0, digest, sink)?;
        }
        let mut blocks = data.chunks_exact(BLOCK_LEN);
        for block in &mut blocks {
            let digest = self.hasher.block(block);
            self.push(0, digest, sink)?;
        }
        self.partial.extend_from_slice(blocks.remainder());
        Ok(())
    }

    /// Takes the next blocks of the data by their digests, computed elsewhere.
    ///
    /// # Errors
    /// As [`VerityBuilder::update`]; also when data came before that does not end with a block.
    pub fn push_leaves(&mut self, leaves: &Leaves, sink: &mut impl HashSink) -> Result<(), VerityError> {
        let found = self.seen.saturating_add(leaves.data_len());
        if found > self.data_size || !self.partial.is_empty() {
            return Err(VerityError::Length { found, announced: self.data_size });
        }
        self.seen = found;
        let (digests, _) = leaves.digests.as_chunks::<{ Digest::LEN }>();
        digests.iter().try_for_each(|digest| self.push(0, Digest::from(*digest), sink))
    }

    /// Sends the unfinished blocks, padded with zeros, to the sink and returns the root hash.
    ///
    /// # Errors
    /// Refuses less data than announced; hands on the sink's error.
    pub fn finish(mut self, sink: &mut impl HashSink) -> Result<Digest, VerityError> {
        if self.seen != self.data_size {
            return Err(VerityError::Length { found: self.seen, announced: self.data_size });
        }
        for level in 0..self.levels.len() {
            let run = &mut self.levels[level].run;
            if !run.len().is_multiple_of(BLOCK_LEN) {
                run.resize(run.len().next_multiple_of(BLOCK_LEN), 0);
                // The padded block's own digest goes one level up, which is finished next.
                self.hash_last_block(level, sink)?;
            }
            self.flush(level, sink)?;
        }
        Ok(self.top.expect("all data has been hashed, so the top block is complete"))
    }

    /// Adds a digest to a level; a block that is full by that is hashed into the level above.
    fn push(&mut self, level: usize, digest: Digest, sink: &mut impl HashSink) -> Result<(), VerityError> {
        let Some(this) = self.levels.get_mut(level) else {
            self.top = Some(digest);
            return Ok(());
        };
        this.run.extend_from_slice(digest.as_ref());
        if this.run.len().is_multiple_of(BLOCK_LEN) {
            self.hash_last_block(level, sink)?;
            if self.levels[level].run.len() >= self.levels[level].limit {
                self.flush(level, sink)?;
            }
        }
        Ok(())
    }

    fn hash_last_block(&mut self, level: usize, sink: &mut impl HashSink) -> Result<(), VerityError> {
        let run = &self.levels[level].run;
        let digest = self.hasher.block(&run[run.len() - BLOCK_LEN..]);
        self.push(level + 1, digest, sink)
    }

    fn flush(&mut self, level: usize, sink: &mut impl HashSink) -> Result<(), VerityError> {
        let Level { offset, run, .. } = &mut self.levels[level];
        if run.is_empty() {
            return Ok(());
        }
        sink.put(*offset, run).map_err(|source| VerityError::Sink { offset: *offset, source })?;
        *offset += run.len() as u64;
        run.clear();
        Ok(())
    }
}
