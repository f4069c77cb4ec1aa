//! One look at the machine's boot state, under the lock, and the acts on entries that follow from it: commit, rollback,
//! reject (specs/boot-entries.md sections 6 to 9). `apply` has phases of its own, in [`crate::apply`].

pub use boot_entries::options::hex;
pub use boot_entries::state::{because_text, reason_text};
use boot_entries::vars::Unreadable;
use boot_entries::{
    BootOptions, ChangeError, Counter, Entry, EntryArchitecture, EntryName, Esp, EspState, Fallback, FoundVars,
    Generation, LoaderVars, OurEntry, Prediction, another_whole_entry_boots, commit, guard, mark_bad, tidy,
};
use disk_layout::{Slot, UpdateLock};

use crate::exit::with_source;
use crate::history::{Event, EventKind, HistoryError, Records};
use crate::host::{Access, Host, OpenEsp, TargetSlot};
use crate::inhibit::Inhibitor;
use crate::kernel_refusal::{AskFirmware, KernelRefusal};
pub use crate::session_error::SessionError;

/// The system that runs: on a device what is booted; of a disk image the committed system that boots when no entry is on
/// trial (UPD-60).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    ours: OurEntry,
    entry: Entry,
}

impl Running {
    /// Its entry's name; a counter means that it is on trial (ENT-2).
    pub fn name(&self) -> EntryName {
        self.ours.name
    }

    /// Is it on trial?
    pub fn is_trial(&self) -> bool {
        self.ours.name.counter.is_some()
    }

    /// What its entry says.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// The entry with its file name.
    pub fn ours(&self) -> &OurEntry {
        &self.ours
    }

    /// The other slot.
    pub fn target(&self) -> TargetSlot {
        TargetSlot::beside(self.entry.slot())
    }
}

/// What a commit did.
#[derive(Debug)]
pub struct CommitOutcome {
    /// The entry, now without a counter.
    pub name: EntryName,
    /// It was committed before.
    pub already: bool,
    /// What could not be recorded, for a person.
    pub notes: Vec<String>,
}

/// An entry that is committed, and not yet recorded to be.
#[derive(Debug, Clone)]
#[must_use = "the commit is to be recorded"]
pub struct CommittedEntry {
    /// Its name, now without a counter.
    pub name: EntryName,
    /// Did this commit change it?
    pub changed: bool,
    /// What it says.
    pub entry: Entry,
}

/// What marking bad did.
#[derive(Debug)]
pub struct GivenUp {
    /// The entry that is bad now.
    pub name: EntryName,
    /// What boots instead.
    pub fallback: Fallback,
    /// What could not be recorded, for a person.
    pub notes: Vec<String>,
}

/// The boot state, read under the lock, with the ESP open.
pub struct Session<'h> {
    host: &'h dyn Host,
    lock: &'h UpdateLock,
    esp: Box<dyn OpenEsp>,
    state: EspState,
    vars: LoaderVars,
    notes: Vec<String>,
}

impl std::fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("state", &self.state).field("vars", &self.vars).finish_non_exhaustive()
    }
}

impl<'h> Session<'h> {
    /// Opens the ESP for writing, puts right what a cut left (UPD-24), and reads the state. Live entries of an older
    /// generation are an error unless they lie in the slot that `fenced` names, which the caller is going to fence.
    pub fn open(host: &'h dyn Host, lock: &'h UpdateLock, fenced: Fencing) -> Result<Self, SessionError> {
        let mut esp = host.open_esp(Access::ReadWrite)?;
        let tidied = tidy(lock, esp.esp())?;
        // Without its file there is no boot guard (GRD-1); nothing else depends on it.
        let mut notes = Vec::new();
        if let Err(error) = guard::ensure(lock, esp.esp()) {
            notes.push(format!("there is no record for the boot guard: {}", with_source(&error)));
        }
        let state = EspState::read(esp.esp()).map_err(SessionError::State)?;
        let FoundVars { vars, unreadable } = host.loader_vars();
        notes.extend(unreadable.iter().map(unread));
        let session = Session { host, lock, esp, state, vars, notes };
        let excepted = match fenced {
            Fencing::None => None,
            Fencing::Target => session.running().ok().map(|running| running.target().slot()),
        };
        tidied.refuse_older(excepted)?;
        // Power may have been lost between a commit and its record. The floor must not stay behind for ever.
        if let Ok(running) = session.running()
            && host.booted().is_some()
            && !running.is_trial()
        {
            let _ = host.records().raise_floor(running.entry().options.epoch);
        }
        Ok(session)
    }

    /// The running system (see [`Running`]).
    pub fn running(&self) -> Result<Running, SessionError> {
        running(&self.state, self.host.booted())
    }

    /// The state as it was read.
    pub fn state(&self) -> &EspState {
        &self.state
    }

    /// The loader's variables as they were read.
    pub fn vars(&self) -> &LoaderVars {
        &self.vars
    }

    /// What did not work and stopped nothing, for a person.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The open ESP.
    pub fn esp(&mut self) -> &mut dyn Esp {
        self.esp.esp()
    }

    /// The ESP and the state read from it.
    pub fn esp_and_state(&mut self) -> (&mut dyn Esp, &EspState) {
        (self.esp.esp(), &self.state)
    }

    /// What the loader would do next.
    pub fn prediction(&self) -> Prediction {
        self.state.predict(&self.vars, self.architecture())
    }

    /// The machine, as entries call it.
    pub fn architecture(&self) -> EntryArchitecture {
        self.host.layout().architecture.into()
    }

    fn fallback_if_bad(&mut self, name: EntryName) -> Result<Fallback, SessionError> {
        let architecture = self.architecture();
        another_whole_entry_boots(self.esp.esp(), &self.state, name, &self.vars, architecture)
            .map_err(|source| SessionError::NoFallback { slot: name.slot, source })
    }

    /// Commits the running system: takes its counter away (UPD-21), raises the floor (UPD-40), records it. What cannot be
    /// recorded is a note, not a failure: `/var` may be lost.
    pub fn commit(&mut self) -> Result<CommitOutcome, SessionError> {
        let done = self.commit_entry()?;
        let mut notes = self.notes.clone();
        notes.extend(record_commit(self.host.records(), &done, String::new()));
        Ok(CommitOutcome { name: done.name, already: !done.changed, notes })
    }

    /// The part of [`Session::commit`] that changes the ESP, and touches nothing else: a `/var` that hangs must not keep
    /// anybody from learning of the commit. [`record_commit`] is the rest.
    pub fn commit_entry(&mut self) -> Result<CommittedEntry, SessionError> {
        let subject = self.subject()?;
        let _inhibitor = self.inhibitor("committing the boot slot");
        let done = commit(self.lock, self.esp.esp(), &subject.ours)?;
        self.reread()?;
        Ok(CommittedEntry { name: done.name, changed: done.changed, entry: subject.entry })
    }

    /// Marks the running system bad, so that the other slot boots next (UPD-23).
    pub fn rollback(&mut self, firmware: AskFirmware<'_>) -> Result<GivenUp, SessionError> {
        let subject = self.subject()?;
        self.give_up(&subject, EventKind::RolledBack, "rolled-back", firmware)
    }

    /// Marks a slot's entry bad (UPD-23). `None`: it has no entry, or one that is bad already.
    pub fn reject(&mut self, slot: Slot, firmware: AskFirmware<'_>) -> Result<Option<GivenUp>, SessionError> {
        let Some(ours) = self.state.live(slot).cloned() else { return Ok(None) };
        let running = self.running().is_ok_and(|running| running.name().same_system(ours.name));
        if ours.name.is_exhausted() && !running {
            return Ok(None);
        }
        let subject = readable(&ours)?;
        self.give_up(&subject, EventKind::Rejected, "rejected", firmware).map(Some)
    }

    fn give_up(
        &mut self,
        subject: &Running,
        kind: EventKind,
        reason: &str,
        firmware: AskFirmware<'_>,
    ) -> Result<GivenUp, SessionError> {
        let fallback = self.fallback_if_bad(subject.name())?;
        // A proven system is not thrown away for one that was never tried: if that failed, nothing good would be left.
        if fallback.name.counter.is_some() {
            return Err(SessionError::UnprovenFallback { slot: subject.name().slot, fallback: fallback.file_name });
        }
        let doubt = self.doubt(subject.name().slot, &fallback.file_name, firmware)?;
        let _inhibitor = self.inhibitor("marking a boot slot bad");
        let marked = mark_bad(self.lock, self.esp.esp(), &subject.ours, Some(reason))?;
        self.reread()?;
        let detail = format!("{} boots instead", fallback.file_name);
        let mut notes = self.notes.clone();
        notes.extend(doubt);
        note(&mut notes, self.host.records().append(event(kind, &subject.entry, detail)));
        Ok(GivenUp { name: marked.name, fallback, notes })
    }

    /// UPD-51: what is certain is an error, and what is not a note.
    fn doubt(&mut self, slot: Slot, file: &str, firmware: AskFirmware<'_>) -> Result<Option<String>, SessionError> {
        let Some(ours) = self.state.ours.iter().find(|ours| ours.file_name == file) else { return Ok(None) };
        match firmware(self.esp.esp(), ours).map_err(SessionError::State)? {
            Some(KernelRefusal { certain: true, why }) => {
                Err(SessionError::RefusedFallback { slot, fallback: file.to_owned(), why })
            }
            Some(KernelRefusal { certain: false, why }) => {
                Ok(Some(format!("it is not certain that this machine's firmware starts {file}: {why}")))
            }
            None => Ok(None),
        }
    }

    /// Closes the ESP.
    pub fn close(self) -> Result<(), SessionError> {
        Ok(self.esp.close()?)
    }

    /// What commit and rollback are about: the booted system, or with a disk image the one that would boot next (UPD-60).
    fn subject(&self) -> Result<Running, SessionError> {
        if self.host.booted().is_some() {
            return self.running();
        }
        match self.prediction() {
            Prediction::Boots { file_name, entry: Some(_), .. } => {
                let ours = self.state.ours.iter().find(|ours| ours.file_name == file_name);
                readable(ours.ok_or(SessionError::NothingCommitted)?)
            }
            other => Err(SessionError::NothingBoots(describe(&other))),
        }
    }

    fn reread(&mut self) -> Result<(), SessionError> {
        self.state = EspState::read(self.esp.esp()).map_err(SessionError::State)?;
        Ok(())
    }

    fn inhibitor(&self, why: &str) -> Option<Inhibitor> {
        self.host.booted().map(|_| Inhibitor::take(why))
    }
}

/// Raises the floor (UPD-40) and appends `committed` with this detail (UPD-41). Returns what could not be recorded, for a person.
pub fn record_commit(records: &Records, committed: &CommittedEntry, detail: String) -> Vec<String> {
    let mut notes = Vec::new();
    note(&mut notes, records.raise_floor(committed.entry.options.epoch));
    if committed.changed {
        note(&mut notes, records.append(event(EventKind::Committed, &committed.entry, detail)));
    }
    told_once(notes)
}

/// Which slot's leftovers a writing run is going to remove anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fencing {
    /// None.
    None,
    /// Those of the slot that does not run.
    Target,
}

/// Finds the running system's entry in a state.
pub fn running(state: &EspState, booted: Option<&BootOptions>) -> Result<Running, SessionError> {
    let Some(options) = booted else {
        let committed = Slot::ALL.into_iter().filter_map(|slot| state.live(slot)).filter(|e| e.name.counter.is_none());
        let newest = committed.max_by_key(|ours| ours.name.generation).ok_or(SessionError::NothingCommitted)?;
        return readable(newest);
    };
    let same = |ours: &&OurEntry| (ours.name.slot, ours.name.generation) == (options.slot, options.generation);
    let ours = state.live(options.slot).filter(same);
    let ours = ours.ok_or(SessionError::NoEntry { slot: options.slot, generation: options.generation })?;
    let found = readable(ours)?;
    // Slot and generation name the entry; a system that was started by other means must not be committed by it.
    let theirs = &found.entry.options;
    for (what, same) in [
        ("root hash", theirs.root_hash == options.root_hash),
        ("partition", theirs.partuuid == options.partuuid),
        ("system id", theirs.system == options.system),
    ] {
        if !same {
            return Err(SessionError::OtherSystem { file_name: ours.file_name.clone(), what });
        }
    }
    Ok(found)
}

fn readable(ours: &OurEntry) -> Result<Running, SessionError> {
    match &ours.entry {
        Ok(entry) => Ok(Running { ours: ours.clone(), entry: entry.clone() }),
        Err(source) => Err(SessionError::Change(ChangeError::Unreadable {
            file_name: ours.file_name.clone(),
            source: source.clone(),
        })),
    }
}

/// Records fallbacks that happened while nobody looked (UPD-43), and returns them. `running` is the booted entry's name.
pub fn note_fallbacks(
    state: &EspState,
    running: Option<EntryName>,
    records: &Records,
) -> Result<Vec<Event>, HistoryError> {
    let past = records.events()?;
    let mut found = Vec::new();
    for slot in Slot::ALL {
        let Some(ours) = state.live(slot) else { continue };
        let (Some(counter), Ok(entry)) = (ours.name.counter, &ours.entry) else { continue };
        let runs = running.is_some_and(|name| name.same_system(ours.name));
        let known = past.iter().any(|event| closes(event, ours.name));
        if runs || known || !counter.is_exhausted() || entry.options.failed.is_some() {
            continue;
        }
        let detail = format!("no try of {} was committed; the other slot runs", counter.done());
        let event = Event { attempt: Some(counter.done()), ..event(EventKind::FellBack, entry, detail) };
        records.append(event.clone())?;
        found.push(event);
    }
    Ok(found)
}

/// Power may have been lost between a commit and its record: then the history holds that this generation was applied, and
/// perhaps that a try of it failed, and not that it proved itself (UPD-46). Records it, and returns it. `own`: the caller has begun the commit in
/// this boot, which then is recorded with this detail, also of a system of which the history does not know where it came from.
pub fn note_commit(running: &Running, records: &Records, own: Option<String>) -> Result<Option<Event>, HistoryError> {
    let name = running.name();
    let past = records.events()?;
    let has =
        |kind| past.iter().any(|e| e.event == kind && (e.slot, e.generation) == (name.slot, name.generation.get()));
    let ours = own.is_some() || has(EventKind::Applied);
    if running.is_trial() || !ours || has(EventKind::Committed) {
        return Ok(None);
    }
    let detail = own.unwrap_or_else(|| "found committed: the record of it was cut".to_owned());
    let event = event(EventKind::Committed, running.entry(), detail);
    records.append(event.clone())?;
    Ok(Some(event))
}

/// The floor: what this machine accepts at least (UPD-40).
pub fn floor(state: &EspState, records: &Records) -> u32 {
    let committed = Slot::ALL.into_iter().filter_map(|slot| state.live(slot)).filter(|e| e.name.counter.is_none());
    let epochs = committed.filter_map(|ours| Some(ours.entry.as_ref().ok()?.options.epoch));
    epochs.chain([records.floor()]).max().unwrap_or(0)
}

/// The generation for a new entry (ENT-4).
pub fn next_generation(state: &EspState, booted: Option<&BootOptions>, past: &[Event]) -> Option<Generation> {
    let history = past.iter().filter_map(|event| Generation::new(event.generation));
    let booted = booted.map(|options| options.generation);
    match history.chain(booted).chain(state.highest_generation()).max() {
        None => Some(Generation::FIRST),
        Some(highest) => highest.next(),
    }
}

/// A sentence about a variable that the model goes without (UPD-50).
pub fn unread(variable: &Unreadable) -> String {
    format!("{}; what boots next is told as if it were not there", with_source(variable))
}

/// A sentence about what the loader will do.
pub fn describe(prediction: &Prediction) -> String {
    match prediction {
        Prediction::Boots { file_name, reason, .. } => format!("{file_name} ({})", reason_text(*reason)),
        Prediction::Nothing => "it finds nothing to boot and waits for a person".to_owned(),
        Prediction::Unknown { because } => {
            format!("what it does cannot be predicted because of {}", because_text(because))
        }
    }
}

/// An event about the system of an entry.
pub fn event(kind: EventKind, entry: &Entry, detail: String) -> Event {
    Event {
        time: 0,
        boot_id: String::new(),
        event: kind,
        slot: entry.slot(),
        generation: entry.generation().get(),
        version: entry.os_version().to_owned(),
        system: hex(&entry.options.system),
        detail,
        attempt: None,
    }
}

pub(crate) fn note(notes: &mut Vec<String>, result: Result<(), HistoryError>) {
    if let Err(error) = result {
        notes.push(with_source(&error));
    }
}

fn told_once(mut notes: Vec<String>) -> Vec<String> {
    notes.dedup();
    notes
}

fn closes(event: &Event, name: EntryName) -> bool {
    let kind = matches!(event.event, EventKind::FellBack | EventKind::RolledBack | EventKind::Rejected);
    kind && event.slot == name.slot && event.generation == name.generation.get()
}

/// Has the entry been tried, or is it still as it was staged?
pub fn is_untried(counter: Counter) -> bool {
    counter.done() == 0 && !counter.is_exhausted()
}

#[cfg(all(test, feature = "apply"))]
#[path = "session_tests.rs"]
mod tests;
