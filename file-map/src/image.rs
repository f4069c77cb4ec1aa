//! Reading an image within bounds.

use std::io;

/// Something that can be read anywhere.
pub trait ReadAt {
    /// Fills `into` from `offset` on.
    ///
    /// # Errors
    /// When it cannot be filled.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for std::fs::File {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, into, offset)
    }
}

impl ReadAt for &[u8] {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset).ok().and_then(|start| self.get(start..)?.get(..into.len()));
        into.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        ReadAt::read_at(&self.as_slice(), into, offset)
    }
}

/// Why there is no map of an image.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// Neither of the file systems.
    #[error("neither an ext4 nor an erofs file system")]
    Unknown,
    /// A feature that this reader does not know.
    #[error("{what} is not supported")]
    Unsupported {
        /// The feature.
        what: String,
    },
    /// The image contradicts itself.
    #[error("the file system is damaged: {0}")]
    Damaged(Damage),
    /// The image could not be read.
    #[error("cannot read {len} bytes at {offset}")]
    Read {
        /// Where.
        offset: u64,
        /// How many.
        len: usize,
        /// What the system said.
        source: io::Error,
    },
}

impl MapError {
    pub(crate) fn damaged(damage: Damage) -> Self {
        Self::Damaged(damage)
    }

    pub(crate) fn unsupported(what: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into() }
    }
}

/// How an image contradicts itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// A place that the image does not have.
    #[error("something lies outside of the image")]
    Outside,
    /// More is referred to than the image can hold.
    #[error("it refers to more than it can hold")]
    Endless,
    /// A number in the superblock that cannot be.
    #[error("a superblock that cannot be")]
    Superblock,
    /// An inode number or an inode that cannot be.
    #[error("an inode that cannot be")]
    Inode,
    /// A directory entry that cannot be.
    #[error("a directory entry that cannot be")]
    Entry,
    /// A tree of extents that cannot be.
    #[error("an extent that cannot be")]
    Extent,
    /// A path longer than 4096 bytes.
    #[error("a path of more than 4096 bytes")]
    Path,
}

/// An image of known length, of which only so much is read.
pub(crate) struct Image<'a> {
    from: &'a dyn ReadAt,
    len: u64,
    /// Bytes that may still be read.
    left: u64,
}

impl<'a> Image<'a> {
    pub(crate) fn new(from: &'a dyn ReadAt, len: u64) -> Self {
        // A sound image is read once at most, and of that only inodes, directories and trees; small images, some blocks twice.
        Self { from, len, left: len.saturating_mul(2).saturating_add(1 << 20) }
    }

    /// `len` bytes from `offset` on.
    pub(crate) fn bytes(&mut self, offset: u64, len: usize) -> Result<Vec<u8>, MapError> {
        self.check(offset, len as u64)?;
        self.left = self.left.checked_sub(len as u64).ok_or(MapError::damaged(Damage::Endless))?;
        let mut bytes = vec![0; len];
        self.from.read_at(&mut bytes, offset).map_err(|source| MapError::Read { offset, len, source })?;
        Ok(bytes)
    }

    /// A place that must lie in the image.
    pub(crate) fn check(&self, offset: u64, len: u64) -> Result<(), MapError> {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len);
        inside.then_some(()).ok_or(MapError::damaged(Damage::Outside))
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }
}

/// Little-endian numbers; the caller has made sure that they are there.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
