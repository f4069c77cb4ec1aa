//! What the firmware asks of a kernel before it starts it (`specs/secure-boot.md`): found out before anything is changed, and asked of the
//! very file that would be started before it is staged.

use boot_entries::esp::ReadSeek;
use boot_entries::{Esp, EspError, OurEntry};
use image_format::Manifest;
use secure_boot::{Pe, PeError, Refused, State, Stores, verdict};

use crate::exit::with_source;
use crate::host::Host;
use crate::uki::{self, Expected, UkiError};

/// What this machine's firmware does with a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirmwareTrust {
    /// It starts any; or nothing is known of it, as of a disk image's.
    Open,
    /// It starts what these lists let it.
    Enforcing(Box<Stores>),
    /// It cannot be told; why, for a person.
    Unclear(String),
}

impl FirmwareTrust {
    /// Asks the firmware's variables.
    pub fn of(host: &dyn Host) -> Self {
        match host.variables().map(State::read) {
            None | Some(Ok(State::Off)) => Self::Open,
            Some(Ok(State::Enforcing(stores))) => Self::Enforcing(stores),
            Some(Ok(State::Unclear(why))) => Self::Unclear(with_source(&why)),
            Some(Err(error)) => Self::Unclear(with_source(&error)),
        }
    }
}

/// Would the firmware start what is installed? Where it cannot be told, it is taken to.
///
/// # Errors
/// When the file cannot be opened.
pub fn starts(trust: &FirmwareTrust, esp: &mut dyn Esp, ours: &OurEntry) -> Result<bool, EspError> {
    let (FirmwareTrust::Enforcing(stores), Ok(entry)) = (trust, &ours.entry) else { return Ok(true) };
    let mut starts = false;
    esp.examine(&entry.kernel_path(), &mut |file| {
        starts = Pe::open(file).is_ok_and(|mut program| verdict(&mut program, stores).is_ok());
    })?;
    Ok(starts)
}

/// A unified kernel image that must not be staged.
#[derive(Debug, thiserror::Error)]
pub enum KernelRefused {
    /// It is not what the loader and the boot guard expect.
    #[error("the unified kernel image cannot be used")]
    Uki(#[from] UkiError),
    /// It is no program.
    #[error("the unified kernel image cannot be used")]
    Program(#[from] PeError),
    /// The firmware would refuse it, and the machine would stay in its firmware (LDR-6).
    #[error("this machine's firmware would not start the kernel")]
    Firmware(#[from] Refused),
    /// The firmware's mind has changed since the start of the apply.
    #[error("it cannot be told whether this machine's firmware would start the kernel: {0}")]
    Unclear(String),
}

/// May the unified kernel image be staged that the loader would start for this image? (UPD-5) Of a kernel and an initrd nothing more is known than that they
/// are what was signed as an image.
pub fn check(manifest: &Manifest, trust: &FirmwareTrust, file: &mut dyn ReadSeek) -> Result<(), KernelRefused> {
    uki::check(&Expected::of(manifest), &mut *file)?;
    match trust {
        FirmwareTrust::Open => Ok(()),
        FirmwareTrust::Enforcing(stores) => Ok(verdict(&mut Pe::open(file)?, stores).map(drop)?),
        FirmwareTrust::Unclear(why) => Err(KernelRefused::Unclear(why.clone())),
    }
}
