//! The boot guard's evidence, from its record on the ESP into the history (UPD-44).

use boot_entries::EspState;
use boot_entries::guard::{GuardError, GuardEvent};
use disk_layout::UpdateLock;

use crate::history::{Event, EventKind, HistoryError};
use crate::host::Host;
use crate::session;

/// Why the guard's evidence stays where it is, for the next run to take over.
#[derive(Debug, thiserror::Error)]
pub enum TakeOverError {
    /// The record.
    #[error("the boot guard's evidence is not taken over into the history")]
    Guard(#[from] GuardError),
    /// The history.
    #[error("the boot guard's evidence stays in its record")]
    History(#[from] HistoryError),
}

/// Appends the guard's event to the history, unless that holds it, and then takes it out of the record (UPD-44). Returns
/// what was appended. A cut in between costs nothing: the event is found again, and the history holds it.
pub fn take_over_guard_event(
    host: &dyn Host,
    lock: &UpdateLock,
    state: &EspState,
) -> Result<Option<Event>, TakeOverError> {
    let Some(found) = host.read_guard()?.event else { return Ok(None) };
    if !host.records().available() {
        return Ok(None);
    }
    let event = event_to_record(&found, state, &host.records().events()?);
    if let Some(event) = &event {
        host.records().append(event.clone())?;
    }
    // What is in memory ends with the boot; the record does not.
    if host.records().in_memory() {
        return Ok(event);
    }
    // A deadline may have passed meanwhile: a newer event stays.
    let record = host.read_guard()?;
    if record.event.as_ref() == Some(&found) {
        host.write_guard(lock, &record.without_event())?;
    }
    Ok(event)
}

/// The history's event for the guard's; `None` when the history holds it.
pub fn event_to_record(found: &GuardEvent, state: &EspState, past: &[Event]) -> Option<Event> {
    let generation = found.generation.get();
    let same_entry = |event: &&Event| event.slot == found.slot && event.generation == generation;
    if past.iter().filter(same_entry).any(|event| tells(event, found)) {
        return None;
    }
    let kind = if found.attempt.is_some() { EventKind::TrialFailed } else { EventKind::BootFailed };
    let detail = found.text.to_string();
    let entry = state.live(found.slot).filter(|ours| ours.name.generation == found.generation);
    let known = entry.and_then(|ours| ours.entry.as_ref().ok());
    let event = match (known, past.iter().rfind(same_entry)) {
        (Some(entry), _) => session::event(kind, entry, detail),
        (None, last) => Event {
            time: 0,
            boot_id: String::new(),
            event: kind,
            slot: found.slot,
            generation,
            version: last.map(|event| event.version.clone()).unwrap_or_default(),
            system: last.map(|event| event.system.clone()).unwrap_or_default(),
            detail,
            attempt: None,
        },
    };
    Some(Event { attempt: found.attempt, ..event })
}

/// Does this event of the same entry say what the guard's does? The health check writes `check: NAME` into the record beside
/// an event of its own, which names the check, too (HLT-40).
fn tells(event: &Event, found: &GuardEvent) -> bool {
    let kind = if found.attempt.is_some() { EventKind::TrialFailed } else { EventKind::BootFailed };
    if event.event != kind {
        return false;
    }
    let text = found.text.as_str();
    let said = event.detail == text || text.strip_prefix("check: ").is_some_and(|check| event.detail.contains(check));
    said && (event.attempt == found.attempt || event.attempt.is_none())
}
