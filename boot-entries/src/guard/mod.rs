//! The boot guard's record on the ESP (`GRD-1` to `GRD-3`): how often this entry was booted since a health check last
//! spoke, and what ended the last boot that did not come up.
//!
//! [`GuardRecord`] is what it says, [`GuardFile`] finds the file's place on the raw partition and reads and writes it
//! there, [`GuardDevice`] does so on a block device or a disk image, and [`ensure`] makes the file where there is none.

mod device;
mod ensure;
mod file;
mod names;
mod record;

use std::io;
use std::path::PathBuf;

pub use device::GuardDevice;
pub use ensure::{Ensured, ensure, make};
pub use file::GuardFile;
pub use names::is_committed;
pub use record::{GuardDamage, GuardEvent, GuardRecord, GuardText, NotGuardText};

use crate::esp::EspPath;
use crate::fat::FatError;

/// Bytes in the record's file. A disk with 4096-byte sectors writes all of it at once.
pub const GUARD_SIZE: u32 = 4096;
/// Bytes that mean something, at the beginning of the file: one sector of any disk holds them.
pub const RECORD_SIZE: usize = 512;

/// In `ralph.failed`, in the record and in events: the guard gave the entry up (`GRD-12`). That says nothing against the system
/// (`UPD-42`).
pub const GIVEN_UP: &str = "guard";

/// The file, `ralphos/guard`.
pub fn guard_path() -> EspPath {
    EspPath::literal("ralphos/guard")
}

/// The record cannot be found, read or written: there is no guard, and that is all (`GRD-14`).
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The ESP could not be opened.
    #[error("cannot open {} for the boot guard's record", path.display())]
    Open {
        /// The partition or disk image.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The ESP's file system cannot be read.
    #[error("the boot guard's record cannot be looked for on the EFI system partition")]
    Fat(#[from] FatError),
    /// No such file.
    #[error(
        "there is no file ralphos/guard on the EFI system partition; the next run of ralph-update that writes makes it"
    )]
    Missing,
    /// The file is not one that can be written in place.
    #[error(
        "ralphos/guard on the EFI system partition is not used, because {0}; the next run of ralph-update that writes makes it anew"
    )]
    Unusable(&'static str),
    /// The record's sector could not be read.
    #[error("cannot read the boot guard's record")]
    Read(#[source] io::Error),
    /// The record's sector could not be written or flushed.
    #[error("cannot write the boot guard's record")]
    Write(#[source] io::Error),
}

#[cfg(test)]
mod tests;
