//! Why nothing was done to the loader, or how it failed.

use std::path::PathBuf;

use boot_entries::kexec::KexecError;
use boot_entries::{EspError, EspPath, WriteError};
use disk_layout::LockError;

use super::firmware::VariableFault;
use super::program::{LoaderRefused, Program};
use crate::host::HostError;
use crate::session::SessionError;

/// See the module. Display never repeats the source.
#[derive(Debug, thiserror::Error)]
pub enum LoaderError {
    /// The machine.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Another program is at work.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The boot state.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The file in the system.
    #[error("cannot read the boot loader {}", path.display())]
    Shipped {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// No firmware that could be asked to try one.
    #[error("a boot loader is tried by the machine's own firmware, which there is none of for a disk image file")]
    NoFirmware,
    /// The running system is on trial.
    #[error("the running system is on trial: the boot loader is updated when it is committed")]
    OnTrial,
    /// That could not be found out.
    #[error("it cannot be told what started this kernel")]
    NotKnown(#[from] KexecError),
    /// The default loader is not what starts this machine.
    #[error(
        "the firmware started the kept loader {alternate}, and {default} is whole, or not what this system carries: nothing is changed, because only the former is known to work. Put a loader in the latter's place that the firmware starts, or take another choice of the firmware's back"
    )]
    OnAlternate {
        /// Ours for when the default fails.
        alternate: EspPath,
        /// Our default.
        default: EspPath,
    },
    /// It was tried.
    #[error("{} was tried twice, and has not started this system: it stays out of use. `ralph-update loader --retry` tries it again", .0.name())]
    DidNotStart(Program),
    /// It cannot be used.
    #[error("the boot loader {} cannot be used", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: LoaderRefused,
    },
    /// The EFI partition is too full.
    #[error(
        "the EFI partition has too little room for another boot loader: {needed} bytes are needed, {free} are free"
    )]
    Full {
        /// Bytes.
        needed: u64,
        /// Bytes.
        free: u64,
    },
    /// A file beside the loaders is damaged, or the default loader itself.
    #[error(
        "the clusters of {0} on the EFI partition do not form a chain: the boot loader is not touched; repair it with fsck.vfat"
    )]
    Broken(EspPath),
    /// Two files beside the loaders share clusters.
    #[error(
        "{first} and {second} on the EFI partition share clusters: the boot loader is not touched; repair it with fsck.vfat"
    )]
    Shared {
        /// The one.
        first: EspPath,
        /// The other.
        second: EspPath,
    },
    /// The EFI partition.
    #[error("the boot loader cannot be updated")]
    Esp(#[from] EspError),
    /// The EFI partition, while it was written to.
    #[error("the boot loader cannot be written")]
    Write(#[from] WriteError),
    /// Media lie.
    #[error("{0} does not read back as it was written: the medium of the EFI partition may be failing")]
    NotAsWritten(EspPath),
    /// The firmware.
    #[error("the firmware cannot be asked to try the boot loader")]
    Variable(#[from] VariableFault),
}
