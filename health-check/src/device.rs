//! The machine we run on, by the library of the updater.
//!
//! The ESP is opened for reading; only what writes opens it for writing, and tidies first (UPD-24). So an ordinary committed boot leaves it
//! untouched, an unknown one is not even tidied, and an ESP that cannot be written can still be asked what would boot (HLT-31).

#[cfg(test)]
mod tests;

use std::time::Duration;

use boot_entries::{
    BootOptions, Counter, EntryName, EspState, FoundVars, NoFallback, another_whole_entry_boots, mark_bad,
};
use disk_layout::{BootedError, LayoutError, LockError, SysRoot, UpdateLock};
use updater::guard::event_to_record;
use updater::history::{Event, EventKind, HistoryError};
use updater::host::{self, Access, Host, HostError, OpenEsp};
use updater::session::{self, CommittedEntry, Fencing, Running, SessionError};

use crate::act::HISTORY;
use crate::limit;
use crate::machine::{Bad, Booted, Entry, Fault, Machine, NoOther, OpenError, Session};

/// This machine.
#[derive(Debug)]
pub struct Device;

impl Machine for Device {
    fn session(&self, work: &mut dyn FnMut(&mut dyn Session)) -> Result<Option<Fault>, OpenError> {
        found(host::Device::find(SysRoot::real()), work)
    }

    fn glance(&self) -> Result<Booted, OpenError> {
        match host::Device::find(SysRoot::real()) {
            Ok(host) => glance(&host),
            Err(error) if disagrees(&error) => Ok(Booted::Unknown(crate::chain(&error))),
            Err(error) => Err(OpenError::Other(error.into())),
        }
    }
}

/// Looks at the ESP without the lock (HLT-39).
fn glance(host: &dyn Host) -> Result<Booted, OpenError> {
    let view = View::open(host).map_err(OpenError::Other)?;
    let running = session::running(&view.state, host.booted());
    let cut = running.as_ref().ok().and_then(|running| cut_mark(&view.state, running));
    Ok(booted(&running, host.booted(), cut.as_ref()))
}

fn found(
    host: Result<host::Device, HostError>,
    work: &mut dyn FnMut(&mut dyn Session),
) -> Result<Option<Fault>, OpenError> {
    match host {
        Ok(host) => session(&host, work),
        Err(error) if disagrees(&error) => {
            work(&mut Nothing { why: crate::chain(&error) });
            Ok(None)
        }
        // Whatever could not be read may be read at the next attempt (HLT-31).
        Err(error) => Err(OpenError::Other(error.into())),
    }
}

/// Has everything been read, and disk, command line and loader do not agree (DSK-30 to DSK-32)? Then nothing can be opened, however often it
/// is tried. Anything else was an error while reading.
fn disagrees(error: &HostError) -> bool {
    let HostError::Booted(error) = error else { return matches!(error, HostError::CommandLine(_)) };
    match error {
        BootedError::NoVerityRoot
        | BootedError::NotVerity { .. }
        | BootedError::NotOnePartition { .. }
        | BootedError::TableChanged { .. }
        | BootedError::NotASlot { .. }
        | BootedError::CommandLine { .. }
        | BootedError::OtherEsp { .. } => true,
        BootedError::Layout { source, .. } => !matches!(source, LayoutError::Open { .. } | LayoutError::Table(_)),
        _ => false,
    }
}

/// Works on `host` under its lock.
fn session(host: &dyn Host, work: &mut dyn FnMut(&mut dyn Session)) -> Result<Option<Fault>, OpenError> {
    let lock = host.lock().map_err(|error| match error {
        LockError::Busy { .. } => OpenError::Busy(error.into()),
        _ => OpenError::Other(error.into()),
    })?;
    let view = View::open(host).map_err(OpenError::Other)?;
    let running = session::running(&view.state, host.booted());
    let cut = running.as_ref().ok().and_then(|running| cut_mark(&view.state, running));
    let mut open = Open { host, lock: &lock, running, cut, view: Some(view), committed: None };
    work(&mut open);
    Ok(open.close().err())
}

/// The ESP, opened for reading, and what it says.
struct View {
    esp: Box<dyn OpenEsp>,
    state: EspState,
    vars: FoundVars,
}

impl View {
    fn open(host: &dyn Host) -> Result<Self, Fault> {
        let mut esp = host.open_esp(Access::ReadOnly)?;
        let state = EspState::read(esp.esp())?;
        Ok(Self { esp, state, vars: host.loader_vars() })
    }
}

struct Open<'h> {
    host: &'h dyn Host,
    lock: &'h UpdateLock,
    /// As it was when the lock had been taken.
    running: Result<Running, session::SessionError>,
    cut: Option<CutMark>,
    /// `None` once something was written: what was read is not true any more.
    view: Option<View>,
    /// What is committed and not yet recorded.
    committed: Option<CommittedEntry>,
}

/// What was found to be unrecorded: fallbacks, and the commit.
type Unrecorded = (Result<Vec<Event>, HistoryError>, Result<Option<Event>, HistoryError>);

impl Open<'_> {
    fn close(&mut self) -> Result<(), Fault> {
        match self.view.take() {
            Some(view) => Ok(view.esp.close()?),
            None => Ok(()),
        }
    }

    /// The ESP as it is now.
    fn view(&mut self) -> Result<&mut View, Fault> {
        let view = match self.view.take() {
            Some(view) => view,
            None => View::open(self.host)?,
        };
        Ok(self.view.insert(view))
    }

    /// Records fallbacks and the commit, each whatever becomes of the other.
    fn unrecorded(&mut self, own: Option<&str>) -> Result<Unrecorded, Fault> {
        let running = self.running()?.clone();
        let (records, own) = (self.host.records().clone(), own.map(str::to_owned));
        let state = self.view()?.state.clone();
        Ok(limit::within(HISTORY, move || {
            let fallbacks = session::note_fallbacks(&state, Some(running.name()), &records);
            (fallbacks, session::note_commit(&running, &records, own))
        })?)
    }

    /// The name that the loader took.
    fn booted_name(&self, running: &Running) -> EntryName {
        taken(running, self.host.booted(), self.cut.as_ref())
    }

    fn running(&self) -> Result<&Running, Fault> {
        // Only asked of a machine that was reported to run an entry of ours.
        self.running.as_ref().map_err(|error| crate::chain(error).into())
    }

    /// Opens the ESP for writing, and closes it whatever the work came to; that closing failed is a note.
    fn write<T>(
        &mut self,
        work: impl FnOnce(&mut session::Session<'_>) -> Result<(T, Vec<String>), Fault>,
    ) -> Result<(T, Vec<String>), Fault> {
        self.close()?;
        let mut session = session::Session::open(self.host, self.lock, Fencing::None)?;
        let worked = work(&mut session);
        let closed = session.close();
        let (done, mut notes) = worked?;
        if let Err(error) = closed {
            notes.push(format!("closing the ESP: {}", crate::chain(&error)));
        }
        Ok((done, notes))
    }
}

impl Session for Open<'_> {
    fn booted(&self) -> Booted {
        booted(&self.running, self.host.booted(), self.cut.as_ref())
    }

    fn cut_mark(&self) -> Option<String> {
        // What was started with the mark was given up by a whole mark.
        let started_bad = self.host.booted().is_some_and(|booted| booted.failed.is_some());
        let trial = self.cut.as_ref().filter(|cut| cut.name.counter.is_some());
        trial.filter(|_| !started_bad).map(|cut| cut.reason.clone())
    }

    fn commit_entry(&mut self) -> Result<Vec<String>, Fault> {
        let (committed, notes) = self.write(|session| Ok((session.commit_entry()?, Vec::new())))?;
        let mut told = vec![format!("the entry is now {}", committed.name)];
        told.extend(notes);
        self.committed = Some(committed);
        Ok(told)
    }

    fn record_commit(&mut self, detail: &str, within: Duration) -> Vec<String> {
        let Some(committed) = self.committed.take() else { return Vec::new() };
        let (records, detail) = (self.host.records().clone(), detail.to_owned());
        limit::within(within, move || session::record_commit(&records, &committed, detail))
            .unwrap_or_else(|error| vec![format!("the commit is not recorded: {error}")])
    }

    fn finish_commit(&mut self) -> Result<Vec<String>, Fault> {
        let name = self.running()?.name();
        let live = |view: &View| view.state.ours.iter().filter(|o| o.is_live() && o.name.same_system(name)).count();
        // Committing again tidies first, and then makes sure that one name is left (UPD-21).
        if self.view.as_ref().is_none_or(|view| live(view) <= 1) {
            return Ok(Vec::new());
        }
        self.commit_entry()
    }

    fn another(&mut self) -> Result<String, NoOther> {
        let name = self.running().map_err(NoOther::NotKnown)?.name();
        let architecture = self.host.layout().architecture.into();
        let view = self.view().map_err(NoOther::NotKnown)?;
        match another_whole_entry_boots(view.esp.esp(), &view.state, name, &view.vars.vars, architecture) {
            Ok(fallback) => {
                let unread = view.vars.unreadable.iter().map(session::unread);
                Ok([fallback.file_name].into_iter().chain(unread).collect::<Vec<_>>().join("; "))
            }
            Err(error @ NoFallback::Esp(_)) => Err(NoOther::NotKnown(error.into())),
            Err(error) => Err(NoOther::None(error.into())),
        }
    }

    fn mark_bad(&mut self, why: Bad) -> Result<Vec<String>, Fault> {
        let (lock, cut) = (self.lock, self.cut_mark().is_some());
        let (name, notes) = self.write(|session| {
            let running = session.running()?;
            let name = running.name();
            // The mark of one that was cut is no try that ran out: tidying has ended it, and it was not booted yet.
            if why == Bad::NotCounted && name.is_exhausted() && !cut {
                return Err(format!("{name} has no tries left and was booted all the same").into());
            }
            // Asked again: tidying may have changed what it was asked of before.
            let (architecture, vars) = (session.architecture(), session.vars().clone());
            let (esp, state) = session.esp_and_state();
            another_whole_entry_boots(esp, state, name, &vars, architecture)?;
            Ok((mark_bad(lock, session.esp(), running.ours(), Some(why.word()))?.name, Vec::new()))
        })?;
        let mut told = vec![format!("the entry is marked bad ({}) and now {name}", why.word())];
        told.extend(notes);
        Ok(told)
    }

    fn note_unrecorded(&mut self, own: Option<&str>) -> Vec<String> {
        let commit = match own {
            Some(_) => "the commit of this boot is not recorded",
            None => "whether the commit is recorded is not known",
        };
        let chain = crate::chain;
        let (fallbacks, committed) = match self.unrecorded(own) {
            Ok(found) => found,
            Err(fault) => return vec![format!("fallbacks are not recorded, and {commit}: {}", chain(fault.as_ref()))],
        };
        let fell_back = |e: &Event| format!("generation {} in slot {} fell back: {}", e.generation, e.slot, e.detail);
        let mut told = match fallbacks {
            Ok(found) => found.iter().map(fell_back).collect(),
            Err(error) => vec![format!("fallbacks are not recorded: {}", chain(&error))],
        };
        told.extend(match committed {
            Ok(event) => event.map(|e| format!("generation {} in slot {}: {}", e.generation, e.slot, e.detail)),
            Err(error) => Some(format!("{commit}: {}", chain(&error))),
        });
        told
    }

    fn take_over_guard_event(&mut self) -> Result<Vec<String>, Fault> {
        let found = match self.host.read_guard() {
            Ok(record) => record.event,
            // Said by the verdict, which writes to it.
            Err(_) => None,
        };
        let Some(found) = found else { return Ok(Vec::new()) };
        let (records, state) = (self.host.records().clone(), self.view()?.state.clone());
        if !records.available() {
            return Ok(Vec::new());
        }
        let event = found.clone();
        let recorded = limit::within(HISTORY, move || {
            let event = event_to_record(&event, &state, &records.events()?);
            let told = event.map(|event| records.append(event.clone()).map(|()| event)).transpose()?;
            Ok::<_, HistoryError>((told, !records.in_memory()))
        })??;
        let (recorded, lasting) = recorded;
        // A deadline may have passed meanwhile: a newer event stays. So does one whose record ends with the boot.
        let record = self.host.read_guard()?;
        if lasting && record.event.as_ref() == Some(&found) {
            self.host.write_guard(self.lock, &record.without_event())?;
        }
        let told = |event: Event| {
            format!(
                "the boot guard ended a boot of generation {} in slot {}: {}",
                event.generation, event.slot, event.detail
            )
        };
        Ok(recorded.into_iter().map(told).collect())
    }

    fn record_trial_failed(&mut self, detail: &str, within: Duration) -> Result<(), Fault> {
        let running = self.running()?;
        let attempt = self.booted_name(running).counter.map(Counter::done);
        let event = session::event(EventKind::TrialFailed, running.entry(), detail.to_owned());
        let event = Event { attempt, ..event };
        let records = self.host.records().clone();
        Ok(limit::within(within, move || records.append(event))??)
    }
}

/// What was to be marked bad, and both of whose names are live.
struct CutMark {
    /// The name that the loader takes.
    name: EntryName,
    /// What the other one says.
    reason: String,
}

/// `running` is the name that tidying keeps: of names with counters a marked one, and `+0-0` beside one without (UPD-24).
fn cut_mark(state: &EspState, running: &Running) -> Option<CutMark> {
    let reason = running.entry().options.failed.clone()?;
    let twins =
        state.entries(running.name().slot).filter(|ours| ours.is_live() && ours.name.same_system(running.name()));
    let unmarked = twins.filter(|ours| ours.entry.as_ref().is_ok_and(|entry| entry.options.failed.is_none()));
    unmarked.map(|ours| CutMark { name: ours.name, reason: reason.clone() }).next()
}

/// The name that the loader took: what was started with the mark was started by the marked name.
fn taken(running: &Running, started: Option<&BootOptions>, cut: Option<&CutMark>) -> EntryName {
    let started_bad = started.is_some_and(|booted| booted.failed.is_some());
    cut.filter(|_| !started_bad).map_or(running.name(), |cut| cut.name)
}

/// How the machine was booted, by what is on the ESP and what the kernel was started with.
fn booted(running: &Result<Running, SessionError>, started: Option<&BootOptions>, cut: Option<&CutMark>) -> Booted {
    let running = match running {
        Ok(running) => running,
        Err(error) => return Booted::Unknown(crate::chain(error)),
    };
    let options = &running.entry().options;
    let started_bad = started.is_some_and(|booted| booted.failed.is_some());
    if let (Some(reason), false) = (&options.failed, started_bad) {
        match cut {
            // Somebody gave it up while it ran. A commit would undo that.
            None => return Booted::Unknown(format!("its entry was marked bad while it ran ({reason})")),
            // Whether it is given up is for whoever began it: what is committed is never ended from here.
            Some(cut) if cut.name.counter.is_none() => {
                return Booted::Unknown(format!(
                    "it was committed, and its marking bad ({reason}) was cut: {} and {} are there; repeat `ralph-update rollback`",
                    cut.name,
                    running.name()
                ));
            }
            Some(_) => {}
        }
    }
    let entry = Entry {
        slot: options.slot.to_string(),
        generation: options.generation.get(),
        system: session::hex(&options.system),
        version: running.entry().os_version().to_owned(),
    };
    match taken(running, started, cut).counter {
        Some(counter) => Booted::Trial { entry, attempt: counter.done() },
        None => Booted::Committed(entry),
    }
}

/// A machine of which it is not known what it runs from.
struct Nothing {
    why: String,
}

impl Nothing {
    fn refuse<T>(&self) -> Result<T, Fault> {
        Err(self.why.clone().into())
    }
}

impl Session for Nothing {
    fn booted(&self) -> Booted {
        Booted::Unknown(self.why.clone())
    }

    fn cut_mark(&self) -> Option<String> {
        None
    }

    fn commit_entry(&mut self) -> Result<Vec<String>, Fault> {
        self.refuse()
    }

    fn record_commit(&mut self, _detail: &str, _within: Duration) -> Vec<String> {
        Vec::new()
    }

    fn finish_commit(&mut self) -> Result<Vec<String>, Fault> {
        self.refuse()
    }

    fn another(&mut self) -> Result<String, NoOther> {
        self.refuse().map_err(NoOther::NotKnown)
    }

    fn mark_bad(&mut self, _why: Bad) -> Result<Vec<String>, Fault> {
        self.refuse()
    }

    fn note_unrecorded(&mut self, _own: Option<&str>) -> Vec<String> {
        vec![format!("neither fallbacks nor a commit could be recorded: {}", self.why)]
    }

    fn take_over_guard_event(&mut self) -> Result<Vec<String>, Fault> {
        self.refuse()
    }

    fn record_trial_failed(&mut self, _detail: &str, _within: Duration) -> Result<(), Fault> {
        self.refuse()
    }
}
