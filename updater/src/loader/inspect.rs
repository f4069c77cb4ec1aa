//! What the doctor asks of the loaders (DOC-12): is there something at the default's place that the firmware starts, and did that start
//! this boot?

use boot_entries::{Esp, EspError, EspPath};
use secure_boot::{Pe, PeError, Refused, verdict};

use super::firmware::Standing;
use super::program::is_for;
use super::{Names, efi_path, is_started, look, variables};
use crate::exit::with_source;
use crate::firmware_trust::FirmwareTrust;
use crate::host::Host;

/// The loaders of a machine or a disk.
#[derive(Debug)]
pub(crate) struct Inspected {
    /// Where the default one is.
    pub(crate) default: EspPath,
    /// Why the firmware would not start it.
    pub(crate) fault: Option<LoaderFault>,
    /// The kept one started this boot, by its own word, and that was no try of it (LUP-4).
    pub(crate) kept_started: bool,
}

/// What is wrong with the default loader.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LoaderFault {
    /// No firmware starts it; else some may, or this machine may be started some other way.
    pub(crate) certain: bool,
    /// What follows its name.
    pub(crate) why: String,
}

/// Which of the two started this boot, by the loader's own word.
fn started(host: &dyn Host, names: &Names) -> Started {
    match variables(host).and_then(|variables| variables.started()) {
        None => Started::Unknown,
        Some(path) if is_started(&names.default, Some(&path)) => Started::Default,
        Some(path) if is_started(&names.alternate, Some(&path)) => Started::Alternate,
        Some(_) => Started::Another,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Started {
    Default,
    Alternate,
    /// One that is for whoever put it there.
    Another,
    Unknown,
}

/// Looks at the loaders; none where the firmware started another one.
pub(crate) fn inspect(host: &dyn Host, esp: &mut dyn Esp, trust: &FirmwareTrust) -> Option<Inspected> {
    let names = Names::of(host.layout().architecture);
    let started = started(host, &names);
    if started == Started::Another {
        return None;
    }
    let mut fault = fault(host, esp, &names.default, trust);
    // A machine that does not say what started it may have been started by another file.
    if let Some(fault) = fault.as_mut().filter(|_| host.booted().is_some() && started == Started::Unknown) {
        fault.certain = false;
    }
    let kept_started = started == Started::Alternate && is_tried(host, esp, &names.alternate) == Some(false);
    Some(Inspected { default: names.default, fault, kept_started })
}

/// What is wrong with the default loader, if that started this boot.
pub(crate) fn starter_fault(host: &dyn Host, esp: &mut dyn Esp) -> Option<(EspPath, LoaderFault)> {
    let names = Names::of(host.layout().architecture);
    let fault = (started(host, &names) == Started::Default)
        .then(|| fault(host, esp, &names.default, &FirmwareTrust::of(host)))??;
    Some((names.default, fault))
}

/// Was the firmware asked to try the alternate? None: what stands there cannot be told.
fn is_tried(host: &dyn Host, esp: &mut dyn Esp, alternate: &EspPath) -> Option<bool> {
    let (option, program) = (variables(host)?.option().ok()?, look(esp, alternate).ok()?);
    let standing = option
        .zip(program)
        .and_then(|(option, program)| option.standing(host.layout(), &efi_path(alternate), &program.sha256));
    Some(matches!(standing, Some(Standing::FirstTry | Standing::SecondTry | Standing::Proven)))
}

fn fault(host: &dyn Host, esp: &mut dyn Esp, default: &EspPath, trust: &FirmwareTrust) -> Option<LoaderFault> {
    let architecture = host.layout().architecture;
    let mut judged = Ok(());
    let looked = esp.examine(default, &mut |file| {
        judged = Pe::open(file).map_err(Refused::from).and_then(|mut program| {
            if !is_for(program.machine(), architecture) {
                return Err(PeError::OtherMachine("it is for another architecture").into());
            }
            match trust {
                FirmwareTrust::Enforcing(stores) => verdict(&mut program, stores).map(drop),
                FirmwareTrust::Open | FirmwareTrust::Unclear(_) => Ok(()),
            }
        });
    });
    let fault = |certain, why| Some(LoaderFault { certain, why });
    match (looked, judged) {
        (Err(EspError::Missing { .. }), _) => fault(true, "is not there".to_owned()),
        (Err(error), _) => fault(true, format!("cannot be read: {}", with_source(&error))),
        (Ok(()), Ok(())) => None,
        (Ok(()), Err(Refused::Program(why @ PeError::Read(_)))) => {
            fault(true, format!("cannot be read: {}", with_source(&why)))
        }
        (Ok(()), Err(Refused::Program(why @ (PeError::NotPe(_) | PeError::OtherMachine(_))))) => {
            fault(true, format!("is not what the firmware can start: {}", with_source(&why)))
        }
        // What some firmware takes amiss matters where it is asked for signatures.
        (Ok(()), Err(why)) => match trust {
            FirmwareTrust::Enforcing(stores) => {
                let certain = why.is_certain(stores);
                let would = if certain { "would not start" } else { "may not start" };
                fault(certain, format!("is one that this machine's firmware {would}: {}", with_source(&why)))
            }
            FirmwareTrust::Open | FirmwareTrust::Unclear(_) => None,
        },
    }
}
