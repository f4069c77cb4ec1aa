//! `ralph-update status` (specs/interface.md section 3).

use std::fmt::Write as _;

use boot_entries::{EntryName, EspState, OurEntry, Prediction};
use disk_layout::Slot;
use serde::Serialize;

use crate::exit::with_source;
use crate::guard::event_to_record;
use crate::history::{Event, EventKind};
use crate::host::{Access, Host};
use crate::memory;
use crate::session::{self, SessionError, describe, hex, is_untried, reason_text};

/// The state of a slot (IFC-21).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SlotState {
    /// No entry, never written.
    Empty,
    /// No live entry, something in it.
    Fenced,
    /// Waits for its first try.
    Staged,
    /// Its tries are being used.
    Trial,
    /// For good.
    Committed,
    /// No tries left, not booted.
    Bad,
}

impl SlotState {
    /// The word in messages and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            SlotState::Empty => "empty",
            SlotState::Fenced => "fenced",
            SlotState::Staged => "staged",
            SlotState::Trial => "trial",
            SlotState::Committed => "committed",
            SlotState::Bad => "bad",
        }
    }
}

/// A slot (IFC-21).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SlotStatus {
    /// What it is in.
    pub state: SlotState,
    /// OS version.
    pub version: Option<String>,
    /// System id, hex.
    pub system_id: Option<String>,
    /// Generation.
    pub generation: Option<u32>,
    /// Security epoch.
    pub epoch: Option<u32>,
    /// dm-verity root hash, hex.
    pub root_hash: Option<String>,
    /// Name of the entry's file.
    pub entry: Option<String>,
    /// Tries left.
    pub tries_left: Option<u32>,
    /// Tries done.
    pub tries_done: Option<u32>,
    /// Why it was marked bad.
    pub failed: Option<String>,
}

/// Both slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Slots {
    /// Slot A.
    pub a: SlotStatus,
    /// Slot B.
    pub b: SlotStatus,
}

/// What boots next (IFC-22).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NextBoot {
    /// Its slot; none for an entry that is not ours.
    #[serde(serialize_with = "slot_or_null")]
    pub slot: Option<Slot>,
    /// Its generation.
    pub generation: Option<u32>,
    /// The entry's file.
    pub entry: String,
    /// Why.
    pub reason: String,
}

/// The whole answer (IFC-20).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// 1.
    pub format: u32,
    /// The booted slot.
    #[serde(serialize_with = "slot_or_null")]
    pub booted: Option<Slot>,
    /// The booted entry has a counter.
    pub on_trial: bool,
    /// Both slots.
    pub slots: Slots,
    /// What boots next.
    pub next_boot: Option<NextBoot>,
    /// Least epoch accepted.
    pub floor: u32,
    /// What endangers the plan.
    pub problems: Vec<String>,
}

fn slot_or_null<S: serde::Serializer>(slot: &Option<Slot>, serializer: S) -> Result<S::Ok, S::Error> {
    match slot {
        Some(slot) => serializer.collect_str(slot),
        None => serializer.serialize_none(),
    }
}

/// Looks at the machine; changes nothing, and so takes no lock.
pub fn gather(host: &dyn Host) -> Result<Status, SessionError> {
    let mut esp = host.open_esp(Access::ReadOnly)?;
    let state = EspState::read(esp.esp()).map_err(SessionError::State)?;
    esp.close()?;
    let running = session::running(&state, host.booted());
    let name = running.as_ref().ok().filter(|_| host.booted().is_some()).map(|running| running.name());
    let found = host.loader_vars();
    let prediction = state.predict(&found.vars, host.layout().architecture.into());
    let slot = |slot| slot_status(host, &state, slot, name.is_some_and(|n| n.slot == slot));
    let mut problems = problems(&state, &prediction);
    problems.extend(found.unreadable.iter().map(session::unread));
    if let Err(error) = &running {
        problems.push(with_source(error));
    }
    problems.extend(host.records().problem());
    problems.extend(guard_problems(host, &state));
    problems.extend(system_problems(host, &state, name));
    Ok(Status {
        format: 1,
        booted: host.booted().map(|options| options.slot),
        on_trial: name.is_some_and(|name| name.counter.is_some()),
        slots: Slots { a: slot(Slot::A), b: slot(Slot::B) },
        next_boot: next_boot(&prediction),
        floor: session::floor(&state, host.records()),
        problems,
    })
}

fn slot_status(host: &dyn Host, state: &EspState, slot: Slot, booted: bool) -> SlotStatus {
    let Some(ours) = state.live(slot) else {
        let blank = host.is_blank(slot).unwrap_or(false) && state.entries(slot).next().is_none();
        return without_entry(if blank { SlotState::Empty } else { SlotState::Fenced });
    };
    let entry = ours.entry.as_ref().ok();
    SlotStatus {
        state: state_of(ours, booted),
        version: entry.map(|e| e.os_version().to_owned()),
        system_id: entry.map(|e| hex(&e.options.system)),
        generation: Some(ours.name.generation.get()),
        epoch: entry.map(|e| e.options.epoch),
        root_hash: entry.map(|e| hex(&e.options.root_hash)),
        entry: Some(ours.file_name.clone()),
        tries_left: ours.name.counter.map(|c| c.left()),
        tries_done: ours.name.counter.map(|c| c.done()),
        failed: entry.and_then(|e| e.options.failed.clone()),
    }
}

pub(crate) fn without_entry(state: SlotState) -> SlotStatus {
    SlotStatus {
        state,
        version: None,
        system_id: None,
        generation: None,
        epoch: None,
        root_hash: None,
        entry: None,
        tries_left: None,
        tries_done: None,
        failed: None,
    }
}

fn state_of(ours: &OurEntry, booted: bool) -> SlotState {
    match ours.name.counter {
        None => SlotState::Committed,
        Some(_) if booted => SlotState::Trial,
        Some(counter) if counter.is_exhausted() => SlotState::Bad,
        Some(counter) if is_untried(counter) => SlotState::Staged,
        Some(_) => SlotState::Trial,
    }
}

pub(crate) fn next_boot(prediction: &Prediction) -> Option<NextBoot> {
    let Prediction::Boots { file_name, entry, reason } = prediction else { return None };
    Some(NextBoot {
        slot: entry.map(|name| name.slot),
        generation: entry.map(|name| name.generation.get()),
        entry: file_name.clone(),
        reason: reason_text(*reason).to_owned(),
    })
}

fn problems(state: &EspState, prediction: &Prediction) -> Vec<String> {
    let mut found = Vec::new();
    if !matches!(prediction, Prediction::Boots { entry: Some(_), .. }) {
        found.push(format!("the boot loader would boot no entry of ours: {}", describe(prediction)));
    }
    for ours in &state.ours {
        if let Err(error) = &ours.entry {
            found.push(format!("{} cannot be read: {error}", ours.file_name));
        }
    }
    found.extend(state.foreign.iter().map(|name| format!("{name} is a boot entry that is not ours")));
    found
}

/// What is amiss with the boot guard's record, and what it holds that the history does not (UPD-44).
fn guard_problems(host: &dyn Host, state: &EspState) -> Option<String> {
    let event = match host.read_guard() {
        Ok(record) => record.event?,
        Err(error) => return Some(format!("there is no boot guard: {}", with_source(&error))),
    };
    let past = host.records().events().unwrap_or_default();
    event_to_record(&event, state, &past)?;
    let attempt = event.attempt.map(|attempt| format!(", boot {attempt}")).unwrap_or_default();
    let (slot, generation) = (event.slot, event.generation);
    Some(format!(
        "the boot guard ended a boot of slot {slot}, generation {generation}{attempt} ({}), and the history does not hold it yet: the next run of the health check or of apply takes it over",
        event.text
    ))
}

/// Systems that fell back without evidence (UPD-45), and a machine without any good one. `running` is the booted entry.
fn system_problems(host: &dyn Host, state: &EspState, running: Option<EntryName>) -> Vec<String> {
    let mut found = Vec::new();
    let past = host.records().events().unwrap_or_default();
    let guard = host.read_guard().ok().and_then(|record| record.event);
    let mut bad = 0;
    for slot in Slot::ALL {
        let Some(ours) = state.live(slot).filter(|ours| ours.name.is_exhausted()) else { continue };
        let in_its_last_try = running.is_some_and(|name| name.same_system(ours.name))
            && ours.name.counter.is_some_and(|counter| counter.done() <= LAST_TRY)
            && ours.entry.as_ref().is_ok_and(|entry| entry.options.failed.is_none());
        if in_its_last_try {
            continue;
        }
        bad += 1;
        let Ok(entry) = &ours.entry else { continue };
        let generation = ours.name.generation.get();
        let system = hex(&entry.options.system);
        let same = |e: &&Event| (e.slot, e.generation) == (slot, generation);
        let explained = past.iter().filter(same).any(|e| memory::is_evidence(e.event))
            || guard.as_ref().is_some_and(|e| (e.slot, e.generation) == (slot, ours.name.generation));
        let recorded = past.iter().filter(same).any(|e| e.event == EventKind::FellBack);
        if entry.options.failed.is_none() && !explained && host.records().available() {
            let times = memory::inconclusive(&past, &system) + usize::from(!recorded);
            let refused = if times >= memory::INCONCLUSIVE_MAX { ", and is refused until --retry-failed" } else { "" };
            found.push(format!(
                "version {} in slot {slot} fell back without evidence ({times} of {}){refused}: `ralph-update explain` tells more",
                entry.os_version(),
                memory::INCONCLUSIVE_MAX
            ));
        }
    }
    if bad == 2 {
        found.push(
            "both slots are bad; an update is accepted all the same: apply an image that is known to work".to_owned(),
        );
    }
    found
}

/// DONE in the last try of a new entry (ENT-2).
const LAST_TRY: u32 = 3;

/// For a person.
pub fn text(status: &Status) -> String {
    let mut out = String::new();
    for (slot, s) in [(Slot::A, &status.slots.a), (Slot::B, &status.slots.b)] {
        let booted = if status.booted == Some(slot) { ", booted" } else { "" };
        let _ = write!(out, "slot {slot}: {}{booted}", s.state.as_str());
        if let (Some(version), Some(generation)) = (&s.version, s.generation) {
            let _ = write!(out, ", version {version}, generation {generation}");
        }
        if let (Some(left), Some(done)) = (s.tries_left, s.tries_done) {
            let _ = write!(out, ", {left} tries left, {done} done");
        }
        if let Some(failed) = &s.failed {
            let _ = write!(out, ", marked bad: {failed}");
        }
        if let Some(id) = &s.system_id {
            let _ = write!(out, "\n        system {id}");
        }
        out.push('\n');
    }
    match &status.next_boot {
        Some(next) => {
            let slot = next.slot.map_or("an entry that is not ours".to_owned(), |slot| format!("slot {slot}"));
            let _ = writeln!(out, "next boot: {slot}, {}: {}", next.entry, next.reason);
        }
        None => out.push_str("next boot: unknown\n"),
    }
    let _ = writeln!(out, "security floor: epoch {}", status.floor);
    for problem in &status.problems {
        let _ = writeln!(out, "problem: {problem}");
    }
    out
}
