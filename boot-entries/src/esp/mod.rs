//! The seam to the EFI system partition, and its back ends.
//!
//! Everything this crate does to an ESP goes through [`Esp`]. [`KernelEsp`] is the kernel's vfat on a device,
//! [`ImageEsp`] the `fatfs` library inside a disk image file, [`RawEsp`] a raw volume that is only read, [`FakeEsp`] a file
//! system in memory that records every event in order, can fail at any of them, and knows what a power cut may leave.

mod fake;
mod image;
mod kernel;
mod path;
mod raw;
mod uncached;

use std::fmt;
use std::io::{self, Read, Seek};

pub use fake::{Event, FakeEsp};
pub use image::{EspStorage, ImageEsp};
pub use kernel::{KernelEsp, Remount};
pub use path::{EspPath, NotAPath};
pub use raw::RawEsp;

use crate::fat::{ClusterFault, FatError};

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirItem {
    /// The name as it is stored; long names keep their case.
    pub name: String,
    /// Length in bytes; 0 for a directory.
    pub size: u64,
    /// A directory and not a file.
    pub is_dir: bool,
}

/// Room on the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes in a cluster, the unit in which files take room.
    pub cluster_size: u32,
    /// Clusters that no file uses.
    pub free_clusters: u64,
}

impl Space {
    /// Clusters that a file of `bytes` takes.
    pub fn clusters(&self, bytes: u64) -> u64 {
        bytes.div_ceil(u64::from(self.cluster_size.max(1)))
    }
}

/// A file that is read from any place in it.
pub trait ReadSeek: Read + Seek {}

impl<T: Read + Seek> ReadSeek for T {}

/// The ESP as this crate uses it. Paths are those of an [`EspPath`]; a missing directory is an empty one.
///
/// Nothing is durable before [`Esp::flush`] (`ENT-23`).
pub trait Esp {
    /// The names in a directory, without `.` and `..`, in no particular order; none when the directory is missing.
    ///
    /// # Errors
    /// When the directory cannot be read, or is a file.
    fn list(&mut self, dir: &EspPath) -> Result<Vec<DirItem>, EspError>;

    /// True when there is a file or directory of this name.
    ///
    /// # Errors
    /// When that cannot be found out.
    fn exists(&mut self, path: &EspPath) -> Result<bool, EspError>;

    /// The content of a file, read past the page cache where the back end can (`ENT-24`); nothing of a torn one (`ENT-27`).
    ///
    /// # Errors
    /// [`EspError::Missing`], and [`EspError::TooLong`] when the file has more than `limit` bytes.
    fn read(&mut self, path: &EspPath, limit: u64) -> Result<Vec<u8>, EspError>;

    /// The first `length` bytes of a file, or all of a shorter one.
    ///
    /// # Errors
    /// [`EspError::Missing`], or when the file cannot be read.
    fn read_head(&mut self, path: &EspPath, length: usize) -> Result<Vec<u8>, EspError>;

    /// Lets `look` read a file from any place in it. What it reads need not come from the medium: [`Esp::hash_file`] has told before
    /// that what is there is what was written.
    ///
    /// # Errors
    /// [`EspError::Missing`], or when the file cannot be opened. A back end that only some read from has no such thing.
    fn examine(&mut self, path: &EspPath, _look: &mut dyn FnMut(&mut dyn ReadSeek)) -> Result<(), EspError> {
        Err(EspError::io(Op::Read, path, io::ErrorKind::Unsupported.into()))
    }

    /// Makes a new file of exactly `size` bytes from `content`. When that fails the partial file is removed.
    ///
    /// # Errors
    /// [`EspError::Exists`] when the name is taken; [`WriteError::Source`] when `content` fails or ends early.
    fn write_new(&mut self, path: &EspPath, size: u64, content: &mut dyn Read) -> Result<(), WriteError>;

    /// Overwrites one byte of a file in place: one sector of data changes, no size and no chain (`ENT-21`).
    ///
    /// # Errors
    /// [`EspError::OtherByte`] when the byte there is not `from`; then nothing is changed.
    fn overwrite_byte(&mut self, path: &EspPath, offset: u64, from: u8, to: u8) -> Result<(), EspError>;

    /// Removes a file. Never before a look at [`Esp::cluster_faults`] (`ENT-22`).
    ///
    /// # Errors
    /// [`EspError::Missing`], or when it cannot be removed.
    fn remove(&mut self, path: &EspPath) -> Result<(), EspError>;

    /// Makes a directory, and those above it; one that is there already is kept.
    ///
    /// # Errors
    /// When it cannot be made.
    fn make_dir(&mut self, path: &EspPath) -> Result<(), EspError>;

    /// Everything done so far is on the medium when this returns (`ENT-23`).
    ///
    /// # Errors
    /// When the medium does not take it: nothing is then known about what it holds.
    fn flush(&mut self) -> Result<(), EspError>;

    /// SHA-256 and length of a file, read past the page cache where the back end can (`ENT-24`).
    ///
    /// # Errors
    /// [`EspError::Missing`], or when the file cannot be read.
    fn hash_file(&mut self, path: &EspPath) -> Result<([u8; 32], u64), EspError>;

    /// The room that is left.
    ///
    /// # Errors
    /// When the volume cannot be asked.
    fn space(&mut self) -> Result<Space, EspError>;

    /// What is wrong with the clusters of names in `dirs`, read from the raw FAT (`ENT-22`).
    ///
    /// # Errors
    /// When the volume cannot be read or its structures are broken.
    fn cluster_faults(&mut self, dirs: &[EspPath]) -> Result<Vec<ClusterFault>, EspError>;

    /// Takes the directory slots of `path` away and keeps its clusters, on the unmounted volume, and durable when it returns (`ENT-22`).
    ///
    /// # Errors
    /// [`EspError::Busy`] when the volume cannot be unmounted; [`EspError::Missing`].
    fn drop_name(&mut self, path: &EspPath) -> Result<(), EspError>;

    /// Could [`Esp::swap_contents`] do that? Changes nothing.
    ///
    /// # Errors
    /// As there, and [`EspError::Busy`] where the volume is somebody else's mount.
    fn can_swap(&mut self, a: &EspPath, b: &EspPath) -> Result<(), EspError>;

    /// What stands under `a` stands under `b` afterwards, and the other way round: by one sector, on the unmounted volume, and durable
    /// when this returns (`ENT-29`). Never before a look at [`Esp::cluster_faults`].
    ///
    /// # Errors
    /// [`EspError::Busy`] when the volume cannot be unmounted; [`EspError::Missing`]; [`EspError::Apart`] when it takes more than a sector.
    fn swap_contents(&mut self, a: &EspPath, b: &EspPath) -> Result<(), EspError>;

    /// Makes sure that a directory has at least `slots` behind its end mark (`ENT-28`). Where it has fewer, it is made longer, so
    /// that it has twice as many: on the unmounted volume, and durable when this returns. Without a FAT there is nothing to do.
    ///
    /// # Errors
    /// [`EspError::Busy`] when the volume cannot be unmounted; [`EspError::Io`] when it is full or cannot be mounted again;
    /// [`EspError::Fat`] when it is broken.
    fn make_room(&mut self, dir: &EspPath, slots: usize) -> Result<(), EspError>;
}

/// What was being done to the ESP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// [`Esp::list`]
    List,
    /// [`Esp::read`], [`Esp::read_head`] and [`Esp::examine`]
    Read,
    /// [`Esp::write_new`]
    Write,
    /// [`Esp::overwrite_byte`]
    Overwrite,
    /// [`Esp::remove`]
    Remove,
    /// [`Esp::make_dir`]
    MakeDir,
    /// [`Esp::flush`]
    Flush,
    /// [`Esp::space`]
    Space,
    /// [`Esp::cluster_faults`]
    CheckClusters,
    /// [`Esp::drop_name`]
    DropName,
    /// [`Esp::swap_contents`]
    Swap,
    /// [`Esp::make_room`]
    MakeRoom,
    /// Opening the volume
    Open,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Op::List => "list",
            Op::Read => "read",
            Op::Write => "write",
            Op::Overwrite => "overwrite a byte of",
            Op::Remove => "remove",
            Op::MakeDir => "make the directory",
            Op::Flush => "flush",
            Op::Space => "find the free space of",
            Op::CheckClusters => "check the clusters of",
            Op::DropName => "take the second name away from",
            Op::Swap => "exchange the content of",
            Op::MakeRoom => "make room in",
            Op::Open => "open",
        })
    }
}

/// Something could not be done to the ESP.
#[derive(Debug, thiserror::Error)]
pub enum EspError {
    /// The system, or the FAT library, refused.
    #[error("cannot {op} {path} on the EFI system partition")]
    Io {
        /// What was tried.
        op: Op,
        /// On which path; `/` is the volume.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// No such file.
    #[error("cannot {op} {path} on the EFI system partition: there is no such file")]
    Missing {
        /// What was tried.
        op: Op,
        /// The path.
        path: EspPath,
    },
    /// The name is taken.
    #[error("{path} is on the EFI system partition already and is not overwritten")]
    Exists {
        /// The path.
        path: EspPath,
    },
    /// The file is longer than the reader accepts.
    #[error("{path} on the EFI system partition has {size} bytes, more than the {limit} it may have")]
    TooLong {
        /// The path.
        path: EspPath,
        /// Its length.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The byte to be overwritten is not the expected one.
    #[error(
        "byte {offset} of {path} on the EFI system partition is {found:#04x} and not {expected:#04x}: left as it is"
    )]
    OtherByte {
        /// The path.
        path: EspPath,
        /// Where in the file.
        offset: u64,
        /// What should have been there.
        expected: u8,
        /// What is there.
        found: u8,
    },
    /// The structures of the FAT file system are broken.
    #[error("the FAT file system of the EFI system partition is broken; check it with fsck.vfat")]
    Fat {
        /// How.
        source: FatError,
    },
    /// Two files cannot change places by one write (`ENT-29`).
    #[error(
        "{a} and {b} on the EFI system partition cannot change places by one write: remove what else is in their folder"
    )]
    Apart {
        /// The one.
        a: EspPath,
        /// The other.
        b: EspPath,
    },
    /// What is done needs the volume unmounted and that failed.
    #[error(
        "cannot unmount the EFI system partition, as changing {path} needs; end what uses it, or unmount it by hand"
    )]
    Busy {
        /// What was to be repaired.
        path: EspPath,
        /// What the kernel said.
        source: io::Error,
    },
    /// This back end cannot repair.
    #[error("{path} must be repaired on the unmounted volume, which is not possible from here")]
    CannotRepair {
        /// What was to be repaired.
        path: EspPath,
    },
}

impl EspError {
    pub(crate) fn io(op: Op, path: &EspPath, source: io::Error) -> EspError {
        match source.kind() {
            io::ErrorKind::NotFound => EspError::Missing { op, path: path.clone() },
            io::ErrorKind::AlreadyExists => EspError::Exists { path: path.clone() },
            _ => EspError::Io { op, path: path.to_string(), source },
        }
    }

    /// For [`Esp::make_room`]: a volume that is full is not broken.
    pub(crate) fn no_room(dir: &EspPath, source: FatError) -> EspError {
        match source {
            FatError::Full => EspError::io(Op::MakeRoom, dir, io::ErrorKind::StorageFull.into()),
            source => EspError::Fat { source },
        }
    }

    /// For [`Esp::drop_name`]: a name that is not there is no broken volume.
    pub(crate) fn not_dropped(path: &EspPath, source: FatError) -> EspError {
        match source {
            FatError::Missing(_) => EspError::Missing { op: Op::DropName, path: path.clone() },
            source => EspError::Fat { source },
        }
    }

    /// For [`Esp::swap_contents`].
    pub(crate) fn not_swapped(a: &EspPath, b: &EspPath, source: FatError) -> EspError {
        match source {
            FatError::Missing(which) => {
                let path = if which == b.as_str() { b } else { a };
                EspError::Missing { op: Op::Swap, path: path.clone() }
            }
            FatError::Apart => EspError::Apart { a: a.clone(), b: b.clone() },
            source => EspError::Fat { source },
        }
    }

    pub(crate) fn volume(op: Op, source: io::Error) -> EspError {
        EspError::Io { op, path: "/".to_owned(), source }
    }
}

/// A file could not be written: either its content did not come, or the ESP did not take it.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The reader of the content failed, ended early ([`io::ErrorKind::UnexpectedEof`]) or had more than promised
    /// ([`io::ErrorKind::InvalidData`]).
    #[error("the content for {path} did not come")]
    Source {
        /// The file.
        path: EspPath,
        /// What the reader said.
        source: io::Error,
    },
    /// The ESP.
    #[error(transparent)]
    Esp(#[from] EspError),
}

/// Copies exactly `size` bytes, telling the reader's failures from the writer's.
pub(crate) fn copy_exactly(
    path: &EspPath,
    size: u64,
    content: &mut dyn Read,
    write: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), WriteError> {
    let from_source = |source| WriteError::Source { path: path.clone(), source };
    let mut buffer = vec![0; 64 * 1024];
    let mut left = size;
    while left > 0 {
        let wanted = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let got = match content.read(&mut buffer[..wanted]) {
            Ok(0) => return Err(from_source(io::Error::from(io::ErrorKind::UnexpectedEof))),
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(from_source(error)),
        };
        write(&buffer[..got]).map_err(|error| EspError::io(Op::Write, path, error))?;
        left -= got as u64;
    }
    loop {
        match content.read(&mut buffer[..1]) {
            Ok(0) => return Ok(()),
            Ok(_) => return Err(from_source(io::Error::new(io::ErrorKind::InvalidData, "more bytes than announced"))),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(from_source(error)),
        }
    }
}
