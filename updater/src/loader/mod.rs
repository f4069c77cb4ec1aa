//! The update of the boot loader (specs/loader-update.md): there is one for both slots, so it is tried by itself, once, on a system
//! that is committed, and becomes the default by a single write when it has started that system.

mod firmware;
mod program;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use boot_entries::fat::ClusterFault;
use boot_entries::kexec::{KexecError, started_by_kexec};
use boot_entries::{Esp, EspError, EspPath, WriteError};
use disk_layout::{Architecture, UpdateLock};

use self::firmware::BootVariables;
pub use self::firmware::VariableFault;
pub use self::program::{LoaderRefused, Program};
use self::program::{MAX_LOADER, check};
use crate::exit::with_source;
use crate::firmware_trust::FirmwareTrust;
use crate::history::EventKind;
use crate::host::{Access, Host, HostError};
use crate::session::{Fencing, Session, SessionError, event, note};

/// Where a system carries its boot loader (LUP-2).
pub const SHIPPED: &str = "/usr/lib/ralph-update/loader.efi";
/// Left free on the EFI partition (UPD-1).
const SPARE: u64 = 1 << 20;

/// A loader that was tried and did not start this system: is it tried once more?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Yes.
    Yes,
    /// No.
    No,
}

/// What there was to do, and was done (LUP-4).
#[derive(Debug, PartialEq, Eq)]
pub enum Done {
    /// The system carries none.
    NotShipped,
    /// It is the default.
    Current(Program),
    /// The default is of a later release.
    Newer {
        /// What the system carries.
        ours: Program,
        /// What is in place.
        default: Program,
    },
    /// The next boot tries it.
    Staged {
        /// What the system carries.
        program: Program,
        /// What did not work and stopped nothing, for a person.
        notes: Vec<String>,
    },
    /// It waits for the next boot.
    Waits(Program),
    /// It has started this system, and is the default from now on; the one before it is kept.
    Promoted {
        /// The default.
        program: Program,
        /// What is kept.
        previous: Program,
        /// What did not work and stopped nothing, for a person.
        notes: Vec<String>,
    },
}

/// Why nothing was done to the loader, or how it failed. Display never repeats the source.
#[derive(Debug, thiserror::Error)]
pub enum LoaderError {
    /// The machine.
    #[error(transparent)]
    Host(#[from] HostError),
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
    /// Another kernel started this one.
    #[error("this kernel was started by another one: what started the machine is not known before its next reboot")]
    Kexec,
    /// That could not be found out.
    #[error("it cannot be told what started this kernel")]
    NotKnown(#[from] KexecError),
    /// Another program than the one that would be updated.
    #[error(
        "the firmware started {}, and not {default}: who put that there has to update it",
        started.as_deref().unwrap_or("a program whose loader does not say which")
    )]
    StartedOther {
        /// What it started.
        started: Option<String>,
        /// Our default.
        default: EspPath,
    },
    /// The default loader is not what starts this machine.
    #[error(
        "the firmware started the kept loader {alternate}, because it cannot start {default}: nothing is changed, because only that one is known to work. Put a loader there that the firmware starts"
    )]
    OnAlternate {
        /// Ours for when the default fails.
        alternate: EspPath,
        /// Our default.
        default: EspPath,
    },
    /// It was tried.
    #[error("{} was tried, and has not become the default: it did not start this system, or could not be put in place then, which is in the journal of that boot. `ralph-update loader --retry` tries it again", .0.name())]
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

/// The two files that are a loader's (LUP-1).
#[derive(Debug, Clone)]
struct Names {
    dir: EspPath,
    default: EspPath,
    alternate: EspPath,
}

impl Names {
    fn of(architecture: Architecture) -> Self {
        let short = match architecture {
            Architecture::X86_64 => "X64",
            Architecture::Aarch64 => "AA64",
        };
        let path = |end: &str| EspPath::literal(&format!("EFI/BOOT{end}"));
        let file = |extension: &str| path(&format!("/BOOT{short}.{extension}"));
        Self { dir: path(""), default: file("EFI"), alternate: file("ALT") }
    }
}

/// As the firmware says it: `\efi\boot\bootx64.efi`, without the first backslash.
fn as_started(path: &EspPath) -> String {
    path.as_str().replace('/', "\\").to_ascii_lowercase()
}

/// What is to be done (LUP-4).
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Current,
    Newer,
    Stage,
    Waits,
    Promote,
    DidNotStart,
    OnAlternate,
}

/// What that depends on.
#[derive(Debug)]
struct Facts<'f> {
    ours: &'f Program,
    default: Option<&'f Program>,
    alternate: Option<&'f Program>,
    /// The alternate one started this boot, and not the default.
    by_alternate: bool,
    /// The firmware has not yet tried what it was asked to.
    pending: bool,
    retry: Retry,
}

fn decide(facts: &Facts<'_>) -> Step {
    let is_ours = |other: Option<&Program>| other.is_some_and(|other| other.sha256 == facts.ours.sha256);
    if is_ours(facts.default) {
        return Step::Current;
    }
    match (is_ours(facts.alternate), facts.by_alternate) {
        (true, true) => return Step::Promote,
        // What started this boot is the only one that is known to start anything.
        (false, true) => return Step::OnAlternate,
        (true, false) if facts.pending => return Step::Waits,
        (true, false) if facts.retry == Retry::No => return Step::DidNotStart,
        (_, false) => {}
    }
    if facts.default.is_some_and(|default| facts.ours.is_older_than(default)) { Step::Newer } else { Step::Stage }
}

/// Brings the loader that the running system carries one step further: stages it for one try, or makes it the default when this
/// boot was that try. `root` is where the system's files are.
pub fn update(host: &dyn Host, lock: &UpdateLock, root: &Path, retry: Retry) -> Result<Done, LoaderError> {
    let Some(bytes) = shipped(root)? else { return Ok(Done::NotShipped) };
    let variables = host.variables().filter(|_| host.booted().is_some()).ok_or(LoaderError::NoFirmware)?;
    let variables = BootVariables::in_dir(variables);
    // What a cut commit left is put right first, and that tells whether this is a trial.
    let session = Session::open(host, lock, Fencing::None)?;
    let running = session.running()?;
    session.close()?;
    if running.is_trial() {
        return Err(LoaderError::OnTrial);
    }
    if started_by_kexec(root)? {
        return Err(LoaderError::Kexec);
    }
    let names = Names::of(host.layout().architecture);
    let started = variables.started();
    let by_alternate = started.as_deref() == Some(&as_started(&names.alternate));
    if !by_alternate && started.as_deref() != Some(&as_started(&names.default)) {
        return Err(LoaderError::StartedOther { started, default: names.default });
    }

    let mut opened = host.open_esp(Access::ReadWrite)?;
    let esp = opened.esp();
    let (default, alternate) = (look(esp, &names.default)?, look(esp, &names.alternate)?);
    let ours = Program::of(&bytes);
    let option = variables.alternate()?;
    let facts = Facts {
        ours: &ours,
        default: default.as_ref(),
        alternate: alternate.as_ref(),
        by_alternate,
        pending: option.is_some() && variables.next()? == option,
        retry,
    };
    let done = match decide(&facts) {
        Step::Current => Done::Current(ours),
        Step::Newer => Done::Newer { ours, default: default.unwrap_or_else(|| Program::of(&[])) },
        Step::Waits => Done::Waits(ours),
        Step::DidNotStart => return Err(LoaderError::DidNotStart(ours)),
        Step::OnAlternate => {
            return Err(LoaderError::OnAlternate { alternate: names.alternate, default: names.default });
        }
        Step::Promote => {
            let previous = default.unwrap_or_else(|| Program::of(&[]));
            promote(esp, &names, &ours)?;
            let detail = format!("{} in place of {}", ours.name(), previous.name());
            let mut notes = Vec::new();
            note(&mut notes, host.records().append(event(EventKind::LoaderUpdated, running.entry(), detail)));
            Done::Promoted { program: ours, previous, notes }
        }
        Step::Stage => {
            let trust = FirmwareTrust::of(host);
            let program = check(&bytes, host.layout().architecture, &trust)
                .map_err(|source| LoaderError::Refused { path: root.join(&SHIPPED[1..]), source })?;
            let option = variables.ensure_alternate(host.layout(), &format!("\\{}", efi_path(&names.alternate)))?;
            let notes = fallback(variables, option).into_iter().collect();
            stage(esp, &names, (&bytes, &program), (variables, option))?;
            Done::Staged { program, notes }
        }
    };
    opened.close()?;
    Ok(done)
}

fn efi_path(path: &EspPath) -> String {
    path.as_str().replace('/', "\\")
}

fn shipped(root: &Path) -> Result<Option<Vec<u8>>, LoaderError> {
    let path = root.join(&SHIPPED[1..]);
    let mut bytes = Vec::new();
    match File::open(&path).and_then(|file| file.take(MAX_LOADER + 1).read_to_end(&mut bytes)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Ok(_) if bytes.len() as u64 <= MAX_LOADER => Ok(Some(bytes)),
        Ok(_) => {
            let source = std::io::Error::new(std::io::ErrorKind::FileTooLarge, "no boot loader has more than 4 MiB");
            Err(LoaderError::Shipped { path, source })
        }
        Err(source) => Err(LoaderError::Shipped { path, source }),
    }
}

/// One that is too long or torn is no loader that the firmware would start, and none that we know.
fn look(esp: &mut dyn Esp, path: &EspPath) -> Result<Option<Program>, EspError> {
    match esp.read(path, MAX_LOADER) {
        Ok(bytes) => Ok(Some(Program::of(&bytes))),
        Err(EspError::Missing { .. }) => Ok(None),
        Err(EspError::TooLong { .. }) => Ok(Some(Program::of(&[]))),
        Err(error) => Err(error),
    }
}

/// A firmware that cannot start the default goes on to the loader that is kept. That it will not is no reason to keep an old loader.
fn fallback(variables: BootVariables<'_>, option: u16) -> Option<String> {
    let why = match variables.append(option) {
        Ok(true) => return None,
        Ok(false) => "its order of boot options does not hold what it started".to_owned(),
        Err(error) => with_source(&error),
    };
    Some(format!("the firmware will not turn to the kept boot loader by itself if it cannot start the default: {why}"))
}

/// ENT-22. What was cut while the alternate loader was written is taken away; anything else is nothing that we have made.
fn mend(esp: &mut dyn Esp, names: &Names) -> Result<(), LoaderError> {
    for fault in esp.cluster_faults(std::slice::from_ref(&names.dir))? {
        match fault {
            ClusterFault::Broken { path } if path == names.alternate => esp.drop_name(&path)?,
            ClusterFault::Broken { path } => return Err(LoaderError::Broken(path)),
            ClusterFault::Shared { first, second, .. } => return Err(LoaderError::Shared { first, second }),
        }
    }
    Ok(())
}

/// Bytes of a file; none where it is not there.
fn size(esp: &mut dyn Esp, names: &Names, path: &EspPath) -> Result<Option<u64>, EspError> {
    let items = esp.list(&names.dir)?;
    Ok(items
        .iter()
        .find(|item| path.as_str().rsplit('/').next().is_some_and(|name| item.name.eq_ignore_ascii_case(name)))
        .map(|item| item.size))
}

/// LUP-6. The default is not touched: whatever is cut here, it starts the machine.
fn stage(
    esp: &mut dyn Esp,
    names: &Names,
    (bytes, program): (&[u8], &Program),
    (variables, option): (BootVariables<'_>, u16),
) -> Result<(), LoaderError> {
    mend(esp, names)?;
    let (space, old) = (esp.space()?, size(esp, names, &names.alternate)?);
    let (needed, free) = (bytes.len() as u64 + SPARE, space.free_clusters + space.clusters(old.unwrap_or(0)));
    if space.clusters(needed) > free {
        return Err(LoaderError::Full { needed, free: free * u64::from(space.cluster_size) });
    }
    if old.is_some() {
        esp.remove(&names.alternate)?;
        esp.flush()?;
    }
    // Before the file: one that is there and that the firmware was not asked to try would count as one that was tried and failed. One
    // that is asked for and not there costs the firmware a look.
    variables.set_next(option)?;
    let written = write(esp, &names.alternate, bytes, program);
    if written.is_err() {
        // The first error is the one to tell.
        let _ = variables.unset_next(option);
        let _ = esp.remove(&names.alternate);
    }
    written
}

/// ENT-24.
fn write(esp: &mut dyn Esp, path: &EspPath, bytes: &[u8], program: &Program) -> Result<(), LoaderError> {
    esp.write_new(path, bytes.len() as u64, &mut &*bytes)?;
    esp.flush()?;
    if esp.hash_file(path)? == (program.sha256, bytes.len() as u64) {
        Ok(())
    } else {
        Err(LoaderError::NotAsWritten(path.clone()))
    }
}

/// LUP-7. One sector: the firmware finds one loader or the other under the default's name, and both are whole.
fn promote(esp: &mut dyn Esp, names: &Names, program: &Program) -> Result<(), LoaderError> {
    mend(esp, names)?;
    esp.swap_contents(&names.default, &names.alternate)?;
    if esp.hash_file(&names.default)?.0 == program.sha256 {
        Ok(())
    } else {
        Err(LoaderError::NotAsWritten(names.default.clone()))
    }
}

#[cfg(test)]
mod tests;
