//! What the firmware asks of a kernel before it starts it (`specs/secure-boot.md`): found out before anything is changed, and asked of the
//! very file that would be started before it is staged.

use boot_entries::esp::{Op, ReadSeek};
use boot_entries::{Esp, EspError, OurEntry};
use image_format::Manifest;
use secure_boot::{Pe, PeError, Refused, State, Stores, verdict};

use crate::exit::with_source;
use crate::host::Host;
use crate::kernel_refusal::KernelRefusal;
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

/// Why the firmware would not start what is installed; none if it would, and where it is not known what it enforces.
///
/// # Errors
/// When the file cannot be read.
pub fn refusal(trust: &FirmwareTrust, esp: &mut dyn Esp, ours: &OurEntry) -> Result<Option<KernelRefusal>, EspError> {
    let (FirmwareTrust::Enforcing(stores), Ok(entry)) = (trust, &ours.entry) else { return Ok(None) };
    let path = entry.kernel_path();
    let mut judged = Ok(());
    esp.examine(&path, &mut |file| {
        judged = Pe::open(file).map_err(Refused::from).and_then(|mut program| verdict(&mut program, stores).map(drop));
    })?;
    match judged {
        Ok(()) => Ok(None),
        Err(Refused::Program(PeError::Read(source))) => {
            Err(EspError::Io { op: Op::Read, path: path.to_string(), source })
        }
        Err(refused) => Ok(Some(KernelRefusal { certain: refused.is_certain(stores), why: with_source(&refused) })),
    }
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::testing::{FakeHost, enrol_digest, installed_kernel, under_secure_boot};

    /// What is known of the installed 1.0.0, once the firmware's lists were changed.
    fn asked(change: impl FnOnce(&Path)) -> Option<KernelRefusal> {
        let (host, variables) = under_secure_boot(FakeHost::new());
        change(variables.path());
        let trust = FirmwareTrust::of(&host);
        host.with_esp(|esp| {
            let state = boot_entries::EspState::read(esp).unwrap();
            refusal(&trust, esp, state.live(disk_layout::Slot::A).unwrap()).unwrap()
        })
    }

    #[test]
    fn upd_51_what_the_lists_say_decides() {
        let kernel = installed_kernel("1.0.0");
        assert!(asked(|_| ()).unwrap().certain, "nobody signed it");
        assert_eq!(asked(|dir| enrol_digest(dir, "db", &kernel)), None);
        let revoked = asked(|dir| {
            enrol_digest(dir, "db", &kernel);
            enrol_digest(dir, "dbx", &kernel);
        });
        assert!(revoked.is_some_and(|refusal| refusal.certain && refusal.why.contains("revoked")));
        assert!(asked(|dir| enrol_digest(dir, "db", &installed_kernel("2.0.0"))).is_some());
    }

    #[test]
    fn upd_51_what_cannot_be_told_is_no_refusal() {
        let host = FakeHost::new();
        let (open, unclear) = (FirmwareTrust::Open, FirmwareTrust::Unclear("shim".to_owned()));
        host.with_esp(|esp| {
            let state = boot_entries::EspState::read(esp).unwrap();
            let ours = state.live(disk_layout::Slot::A).unwrap();
            assert_eq!(refusal(&open, esp, ours).unwrap(), None);
            assert_eq!(refusal(&unclear, esp, ours).unwrap(), None);
            // No program, or a damaged one: some firmware may take it for one.
            esp.put("ralphos/a/g1-linux", b"no program");
            let damaged = refusal(&FirmwareTrust::Enforcing(Box::default()), esp, ours).unwrap();
            assert!(damaged.is_some_and(|refusal| !refusal.certain));
        });
    }
}
