//! Another name for an entry: commit, and marking bad (`UPD-20` to `UPD-23`).

use disk_layout::UpdateLock;

use super::remove::{can_remove, remove};
use super::{ChangeError, write_live};
use crate::entry::{Entry, Liveness};
use crate::esp::Esp;
use crate::names::{EntryName, entries_dir};
use crate::options::{OnCorruption, is_reason};
use crate::state::{EspState, OurEntry};

/// A committed entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "it says whether anything was changed"]
pub struct Committed {
    /// Its name now.
    pub name: EntryName,
    /// False when it was committed already.
    pub changed: bool,
}

/// An entry without tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "it says whether anything was changed"]
pub struct MarkedBad {
    /// Its name now.
    pub name: EntryName,
    /// False when it had no tries left already.
    pub changed: bool,
}

/// Takes the counter of the booted entry away (`UPD-21`). An entry that has none is left as it is.
///
/// `booted` must be the entry of the booted slot and generation, from a state read under this lock and after
/// [`super::tidy`]. A cut leaves the old name, or both names live, which start the same system and of which tidy keeps the
/// new one.
///
/// # Errors
/// When the entry cannot be read, is inert, or is not there any more; when the ESP cannot be changed; and
/// [`ChangeError::NotCommitted`] when afterwards another name of it is there.
pub fn commit(_lock: &UpdateLock, esp: &mut dyn Esp, booted: &OurEntry) -> Result<Committed, ChangeError> {
    let name = booted.name.committed();
    let entry = readable(booted)?;
    let changed = booted.name != name;
    if changed {
        // Whatever was held against it before is answered by the commit.
        let mut entry = entry.on_corruption(OnCorruption::Fail);
        entry.options.failed = None;
        rename(esp, booted, name, &entry)?;
    }
    let now = EspState::read(esp)?;
    let same: Vec<&OurEntry> = now.ours.iter().filter(|other| other.name.same_system(name)).collect();
    match same.as_slice() {
        [one] if one.name == name && one.is_live() && one.entry.is_ok() => Ok(Committed { name, changed }),
        others => Err(ChangeError::NotCommitted {
            slot: name.slot,
            expected: name,
            found: others.iter().map(|other| other.file_name.clone()).collect(),
        }),
    }
}

/// Takes an entry's tries away, and writes into it why, where there is a reason (`UPD-22`). An entry that has none left
/// stays as it is when there is no reason, or stands one in it already. Else it gets a name with one more try done, so that
/// the reason is kept: an entry that is given up in its last try must not be committed by the health check afterwards.
///
/// The caller has asked first whether another whole entry will boot (`UPD-23`, `UPD-50`), read `entry` under this lock and
/// tidied. A cut leaves the old name, or both live. Of those tidy keeps the new one: where it has a reason by that, else by its
/// LEFT of 0; but a name with a counter that has no reason is lost to the old one if the loader takes that for its last try.
///
/// # Errors
/// When the reason cannot stand in an entry, when the entry cannot be read, is inert, or is not there any more, and when
/// the ESP cannot be changed.
pub fn mark_bad(
    _lock: &UpdateLock,
    esp: &mut dyn Esp,
    entry: &OurEntry,
    failed: Option<&str>,
) -> Result<MarkedBad, ChangeError> {
    if let Some(reason) = failed.filter(|reason| !is_reason(reason)) {
        return Err(ChangeError::Reason(reason.to_owned()));
    }
    let mut name = entry.name.marked_bad();
    if let Some(counter) = entry.name.counter.filter(|counter| counter.is_exhausted()) {
        let said = entry.entry.as_ref().is_ok_and(|content| content.options.failed.is_some());
        if failed.is_none() || said {
            return Ok(MarkedBad { name: entry.name, changed: false });
        }
        // What the loader would make of it, were it booted once more: no name that its counting could run into (LDR-7).
        name.counter = Some(counter.counted());
    }
    let content = readable(entry)?.failed(failed);
    rename(esp, entry, name, &content)?;
    Ok(MarkedBad { name, changed: true })
}

fn readable(entry: &OurEntry) -> Result<&Entry, ChangeError> {
    let file_name = || entry.file_name.clone();
    if !entry.is_live() {
        return Err(ChangeError::Inert { file_name: file_name() });
    }
    entry.entry.as_ref().map_err(|source| ChangeError::Unreadable { file_name: file_name(), source: source.clone() })
}

/// `UPD-20`: the new name, live and durable, before the old one goes. At every instant at least one live name starts the
/// slot; for the moments with two, tidy knows which was meant to stay.
fn rename(esp: &mut dyn Esp, old: &OurEntry, new: EntryName, entry: &Entry) -> Result<(), ChangeError> {
    // The caller's knowledge may be older than the lock: then the name would come back from the dead.
    let there = esp.list(&entries_dir())?.into_iter().any(|item| item.name == old.file_name);
    let path = old.path();
    let same = there
        && Entry::parse(&esp.read(&path, crate::entry::ENTRY_MAX)?)
            .is_ok_and(|(now, liveness)| Ok(&now) == old.entry.as_ref() && liveness == Liveness::Live);
    if !same {
        return Err(ChangeError::Changed { file_name: old.file_name.clone() });
    }
    can_remove(esp, &path)?;
    write_live(esp, new, entry)?;
    remove(esp, &[path], None)
}
