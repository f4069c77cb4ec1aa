//! The update of the boot loader (specs/loader-update.md): there is one for both slots, so it is tried by itself, on a system that is
//! committed, and becomes the default by a single write when it has started that system.

mod decide;
mod error;
mod firmware;
mod inspect;
mod program;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use boot_entries::fat::ClusterFault;
use boot_entries::kexec::started_by_kexec;
use boot_entries::names::{alternate_loader, default_loader, loader_dir};
use boot_entries::{Esp, EspError, EspPath, EspState};
use disk_layout::{Architecture, UpdateLock};

use self::decide::{Facts, Step, decide};
pub use self::error::LoaderError;
pub use self::firmware::VariableFault;
use self::firmware::{BootVariables, OurOption, Standing};
pub(crate) use self::inspect::{Inspected, LoaderFault, inspect, starter_fault};
pub use self::program::{LoaderRefused, Program};
use self::program::{MAX_LOADER, check};
use crate::exit::with_source;
use crate::firmware_trust::FirmwareTrust;
use crate::history::EventKind;
use crate::host::{Access, Host};
use crate::inhibit::Inhibitor;
use crate::session::{Fencing, Running, Session, SessionError, event, note, running};
use crate::vitals::LOADERS_SWAPPED;

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
    Current {
        /// What the system carries.
        program: Program,
        /// What did not work and stopped nothing, for a person.
        notes: Vec<String>,
    },
    /// The default is of a later release.
    Newer {
        /// What the system carries.
        ours: Program,
        /// What is in place.
        default: Program,
    },
    /// Not in this boot: the reason as a stable word, and for a person.
    NotNow(&'static str, String),
    /// The next boot tries it.
    Staged(Program),
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

/// The two files that are a loader's (LUP-1).
#[derive(Debug, Clone)]
struct Names {
    dir: EspPath,
    default: EspPath,
    alternate: EspPath,
}

impl Names {
    fn of(architecture: Architecture) -> Self {
        let of = architecture.into();
        Self { dir: loader_dir(), default: default_loader(of), alternate: alternate_loader(of) }
    }
}

/// As the firmware writes it.
fn efi_path(path: &EspPath) -> String {
    format!("\\{}", path.as_str().replace('/', "\\"))
}

/// Is it this that the firmware says it started?
fn is_started(path: &EspPath, started: Option<&str>) -> bool {
    started.is_some_and(|started| efi_path(path)[1..].eq_ignore_ascii_case(started))
}

/// Brings the loader that the running system carries one step further: stages it for a try, or makes it the default when this boot was
/// that try. `root` is where the system's files are. Takes the update lock once it is known what is to be done.
pub fn update(host: &dyn Host, root: &Path, retry: Retry) -> Result<Done, LoaderError> {
    let Some(bytes) = shipped(root)? else { return Ok(Done::NotShipped) };
    let variables = variables(host).ok_or(LoaderError::NoFirmware)?;
    if started_by_kexec(root)? {
        let text = "this kernel was started by another one: what started the machine is told by its next boot";
        return Ok(Done::NotNow("kexec", text.to_owned()));
    }
    let names = Names::of(host.layout().architecture);
    let started = variables.started();
    let by_alternate = is_started(&names.alternate, started.as_deref());
    if !by_alternate && !is_started(&names.default, started.as_deref()) {
        let started = started.unwrap_or_else(|| "a program that does not say its name".to_owned());
        let text =
            format!("the firmware started {started}, and not {}: who put that there has to update it", names.default);
        return Ok(Done::NotNow("other-loader", text));
    }

    // Looked at before anything is opened for writing: on most boots there is nothing to do.
    let mut opened = host.open_esp(Access::ReadOnly)?;
    let state = EspState::read(opened.esp()).map_err(SessionError::State)?;
    let (default, alternate) = (look(opened.esp(), &names.default)?, look(opened.esp(), &names.alternate)?);
    opened.close()?;
    let running = running(&state, host.booted())?;
    if running.is_trial() {
        return Err(LoaderError::OnTrial);
    }
    let ours = Program::of(&bytes);
    let (option, file) = (variables.option()?, efi_path(&names.alternate));
    let pending = option.is_some() && variables.next()? == option.as_ref().map(|option| option.number);
    let stands = |program: &Program| option.as_ref()?.standing(host.layout(), &file, &program.sha256);
    let facts = Facts {
        ours: &ours,
        default: default.as_ref(),
        alternate: alternate.as_ref(),
        by_alternate,
        promoted: root.join(LOADERS_SWAPPED).exists(),
        standing: alternate.as_ref().and_then(stands),
        pending,
        retry,
    };
    let step = decide(&facts);
    let machine = Machine { host, root, variables, names: &names, running: &running };
    if step == Step::Promote {
        // It has started this system. A later boot knows that, too, if this one comes to no more: this needs no lock.
        machine.stand(Standing::Proven, &ours)?;
    }
    let other = state.live(running.target().slot()).and_then(|other| other.name.counter);
    if other.is_some_and(|counter| counter.left() > 0) && matches!(step, Step::Stage | Step::Ask(_) | Step::Waits) {
        let text = "an update waits for its trial: the boot loader is not tried with it";
        return Ok(Done::NotNow("update-staged", text.to_owned()));
    }
    let lock = host.lock()?;
    let previous = default.clone().unwrap_or_else(|| Program::of(&[]));
    // What another slot's system carries and has asked for is that one's to try. What is proven was somebody's own choice.
    let candidate = !matches!(facts.standing, Some(Standing::Proven | Standing::Previous));
    let others = match step {
        Step::Current | Step::Newer if pending && candidate => stand_back(host),
        _ => Vec::new(),
    };
    Ok(match step {
        Step::Current => {
            // By the swap: cut behind it.
            let swapped = stands(&ours) == Some(Standing::Proven);
            let notes = [others, machine.keep_the_previous(&facts, swapped)].concat();
            Done::Current { program: ours, notes }
        }
        Step::Newer => Done::Newer { ours, default: previous },
        Step::Waits => Done::Waits(ours),
        Step::DidNotStart => return Err(LoaderError::DidNotStart(ours)),
        Step::OnAlternate => {
            return Err(LoaderError::OnAlternate { alternate: names.alternate, default: names.default });
        }
        Step::Promote => {
            let mut notes = machine.promote(&lock, &bytes, &ours, default.as_ref())?;
            notes.extend(machine.record(&ours));
            Done::Promoted { program: ours, previous, notes }
        }
        Step::Stage | Step::Ask(_) => {
            let trust = FirmwareTrust::of(host);
            check(&bytes, host.layout().architecture, &trust)
                .map_err(|source| LoaderError::Refused { path: root.join(&SHIPPED[1..]), source })?;
            match step {
                Step::Ask(standing) => machine.ask(standing, &ours)?,
                _ => machine.stage(&lock, &bytes, &ours)?,
            }
            Done::Staged(ours)
        }
    })
}

/// Before a slot's trial, or on the way back to another slot: a boot that fails must have one cause, so the loader is not tried by it
/// (LUP-3). Tells what was done, for a person.
pub fn stand_back(host: &dyn Host) -> Vec<String> {
    let Some(variables) = variables(host) else { return Vec::new() };
    match (variables.option(), variables.next()) {
        (Ok(Some(option)), Ok(Some(next))) if next == option.number => {
            vec![match take_back(host, variables, &option) {
                Ok(()) => "the boot loader that the next boot would have tried waits for a later one".to_owned(),
                Err(error) => format!("the next boot also tries another boot loader: {}", with_source(&error)),
            }]
        }
        (Err(error), _) | (_, Err(error)) => {
            vec![format!("it is not known whether the next boot tries another boot loader: {}", with_source(&error))]
        }
        _ => Vec::new(),
    }
}

/// Takes the firmware's next choice back; it does not count as a try, and those before it do.
fn take_back(host: &dyn Host, variables: BootVariables<'_>, option: &OurOption) -> Result<(), LoaderError> {
    let (layout, alternate) = (host.layout(), Names::of(host.layout().architecture).alternate);
    let mut opened = host.open_esp(Access::ReadOnly)?;
    let program = look(opened.esp(), &alternate)?;
    opened.close()?;
    if let Some(Program { sha256, .. }) = program {
        let standing = match option.standing(layout, &efi_path(&alternate), &sha256) {
            Some(proven @ (Standing::Proven | Standing::Previous)) => proven,
            Some(Standing::Waits | Standing::FirstTry) => Standing::Waits,
            Some(Standing::SecondTry) => Standing::FirstTry,
            None => Standing::SecondTry,
        };
        // In this order: a cut in between leaves it asked for, and not counted.
        variables.set_option(layout, &efi_path(&alternate), standing, &sha256)?;
    }
    Ok(variables.unset_next(option.number)?)
}

/// Of the machine that runs, and of no disk image.
fn variables(host: &dyn Host) -> Option<BootVariables<'_>> {
    host.booted()?;
    host.variables().map(BootVariables::in_dir)
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

/// What the steps need.
#[derive(Clone, Copy)]
struct Machine<'m> {
    host: &'m dyn Host,
    root: &'m Path,
    variables: BootVariables<'m>,
    names: &'m Names,
    running: &'m Running,
}

impl Machine<'_> {
    fn stand(&self, standing: Standing, program: &Program) -> Result<u16, VariableFault> {
        let file = efi_path(&self.names.alternate);
        self.variables.set_option(self.host.layout(), &file, standing, &program.sha256)
    }

    /// LUP-6: in this order, because a try that the firmware was not asked for costs nothing, and one that it was not known to be asked
    /// for would be repeated for ever.
    fn ask(&self, standing: Standing, program: &Program) -> Result<(), LoaderError> {
        // While it is not proven the firmware must not turn to it by itself.
        self.variables.leave_order()?;
        let option = self.stand(standing, program)?;
        Ok(self.variables.set_next(option)?)
    }

    /// LUP-6. The default is not touched: whatever is cut here, it starts the machine.
    fn stage(&self, lock: &UpdateLock, bytes: &[u8], program: &Program) -> Result<(), LoaderError> {
        let _inhibitor = Inhibitor::take("writing a boot loader");
        // What a cut update left is put right first (UPD-24).
        let mut session = Session::open(self.host, lock, Fencing::None)?;
        let (names, esp) = (self.names, session.esp());
        mend(esp, names, DefaultLoader::MustBeWhole)?;
        esp.can_swap(&names.default, &names.default)?;
        let (space, old) = (esp.space()?, size(esp, names, &names.alternate)?);
        let (needed, free) = (bytes.len() as u64 + SPARE, space.free_clusters + space.clusters(old.unwrap_or(0)));
        if space.clusters(needed) > free {
            return Err(LoaderError::Full { needed, free: free * u64::from(space.cluster_size) });
        }
        // The firmware must turn to what is written now neither by itself nor by an earlier choice.
        self.variables.leave_order()?;
        let option = self.stand(Standing::Waits, program)?;
        self.variables.unset_next(option)?;
        if old.is_some() {
            esp.remove(&names.alternate)?;
            esp.flush()?;
        }
        let written = write(esp, &names.alternate, bytes, program);
        // Known before it is tried that it can be put in place.
        let written = written.and_then(|()| Ok(esp.can_swap(&names.default, &names.alternate)?));
        if let Err(error) = written {
            // The first error is the one to tell.
            let _ = esp.remove(&names.alternate).and_then(|()| esp.flush());
            return Err(error);
        }
        session.close()?;
        self.ask(Standing::FirstTry, program)
    }

    /// LUP-7. One sector: the firmware finds one loader or the other under the default's name, and both are whole.
    fn promote(
        &self,
        lock: &UpdateLock,
        bytes: &[u8],
        program: &Program,
        previous: Option<&Program>,
    ) -> Result<Vec<String>, LoaderError> {
        let _inhibitor = Inhibitor::take("putting a boot loader in place");
        let mut session = Session::open(self.host, lock, Fencing::None)?;
        let (names, esp) = (self.names, session.esp());
        mend(esp, names, DefaultLoader::MayBeBroken)?;
        if previous.is_some() {
            esp.swap_contents(&names.default, &names.alternate)?;
            let whole = matches!(esp.hash_file(&names.default), Ok((sha256, _)) if sha256 == program.sha256);
            if !whole {
                // What was there before has started this machine for long. And this is not tried again on each boot.
                esp.swap_contents(&names.default, &names.alternate)?;
                self.stand(Standing::SecondTry, program)?;
                return Err(LoaderError::NotAsWritten(names.default.clone()));
            }
        } else {
            // Somebody has removed it: nothing is lost by a file that is cut.
            write(esp, &names.default, bytes, program)?;
        }
        let mut notes = Vec::new();
        // Before anything else can fail: whoever asks in this boot would take it for one that runs on the kept loader.
        if let Err(error) = remember(&self.root.join(LOADERS_SWAPPED)) {
            notes.push(format!("this boot does not remember that the loaders have changed places: {error}"));
        }
        session.close()?;
        if let Err(error) = self.stand(Standing::Previous, previous.unwrap_or(program)) {
            notes.push(with_source(&error));
        }
        Ok(notes)
    }

    /// LUP-5, on a boot that the default has started: the loader before it stands last.
    fn keep_the_previous(&self, facts: &Facts<'_>, swapped: bool) -> Vec<String> {
        let mut notes = Vec::new();
        let Some(alternate) = facts.alternate.filter(|_| !facts.by_alternate) else { return notes };
        if swapped {
            notes.extend(self.record(facts.ours));
        } else if facts.standing != Some(Standing::Previous) {
            return notes;
        }
        let last = self.stand(Standing::Previous, alternate).and_then(|option| self.variables.stand_last(option));
        let why = match last {
            Ok(true) => return notes,
            Ok(false) => "its order of boot options does not hold what it started".to_owned(),
            Err(error) => with_source(&error),
        };
        notes.push(format!(
            "the firmware will not turn to the kept boot loader by itself if it cannot start the default: {why}"
        ));
        notes
    }

    fn record(&self, program: &Program) -> Vec<String> {
        let mut notes = Vec::new();
        let told = event(EventKind::LoaderUpdated, self.running.entry(), program.name());
        note(&mut notes, self.host.records().append(told));
        notes
    }
}

fn remember(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
    std::fs::write(path, "")
}

/// May the default loader's clusters be damaged?
#[derive(Clone, Copy, PartialEq, Eq)]
enum DefaultLoader {
    MustBeWhole,
    /// It is about to be replaced, by a write that frees none of them.
    MayBeBroken,
}

/// ENT-22. What was cut while the alternate loader was written is taken away; anything else is nothing that we have made.
fn mend(esp: &mut dyn Esp, names: &Names, default: DefaultLoader) -> Result<(), LoaderError> {
    for fault in esp.cluster_faults(std::slice::from_ref(&names.dir))? {
        match fault {
            ClusterFault::Broken { .. } if default == DefaultLoader::MayBeBroken && fault.concerns(&names.default) => {}
            ClusterFault::Broken { .. } if fault.concerns(&names.alternate) => esp.drop_name(&names.alternate)?,
            ClusterFault::Broken { path } => return Err(LoaderError::Broken(path)),
            ClusterFault::Shared { first, second, .. } => return Err(LoaderError::Shared { first, second }),
        }
    }
    Ok(())
}

/// Bytes of a file; none where it is not there.
fn size(esp: &mut dyn Esp, names: &Names, path: &EspPath) -> Result<Option<u64>, EspError> {
    let name = path.as_str().rsplit('/').next().unwrap_or_default();
    let items = esp.list(&names.dir)?;
    Ok(items.iter().find(|item| item.name.eq_ignore_ascii_case(name)).map(|item| item.size))
}

/// ENT-24.
fn write(esp: &mut dyn Esp, path: &EspPath, bytes: &[u8], program: &Program) -> Result<(), LoaderError> {
    esp.write_new(path, bytes.len() as u64, &mut &*bytes)?;
    esp.flush()?;
    let whole = esp.hash_file(path)? == (program.sha256, bytes.len() as u64);
    if whole { Ok(()) } else { Err(LoaderError::NotAsWritten(path.clone())) }
}

#[cfg(test)]
mod tests;
