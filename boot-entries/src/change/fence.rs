//! The fence: from here on only the other slot can boot (`UPD-2`).

use disk_layout::{Slot, UpdateLock};

use super::ChangeError;
use super::remove::remove;
use crate::esp::{Esp, EspError, EspPath};
use crate::names::{EntryName, entries_dir, payload_dir};

/// Slots that must be free behind the end mark of `loader/entries` before a trial begins (`ENT-28`): 8 KiB, some eighty names.
/// Where they are not, twice as many are made, so that it is not done again for dozens of boots.
pub(crate) const ENTRIES_ROOM: usize = 256;

/// Proof that no entry starts this slot: it may be written to. [`super::stage`] takes it back.
#[derive(Debug)]
#[must_use = "a fenced slot does not boot until it is staged"]
pub struct Fenced {
    slot: Slot,
    crowded: Option<EspError>,
}

impl Fenced {
    /// The slot.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// Why `loader/entries` has too little room and could get no more (`ENT-28`): it may grow while somebody boots from it, and
    /// a power cut at that instant leaves nothing that boots.
    pub fn crowded(&self) -> Option<&EspError> {
        self.crowded.as_ref()
    }
}

/// Takes every entry of `slot` away, then its payload files.
///
/// In this order, because the loader looks only whether a kernel exists: an entry whose initrd is gone parks the
/// machine (`LDR-6`). Each step is durable before the next, because FAT itself promises no order. After an error the slot
/// may be fenced in part: its entries may be there or not, and every entry that is there has its payloads, or the kernel is
/// never reached; the other slot is untouched in any case.
///
/// # Errors
/// When the ESP cannot be changed, or other names share clusters (`ENT-22`). That the volume cannot be unmounted to make room is
/// none; [`Fenced::crowded`] tells it.
pub fn fence(_lock: &UpdateLock, esp: &mut dyn Esp, slot: Slot) -> Result<Fenced, ChangeError> {
    let payloads = payload_dir(slot);
    // Power lost while the slot is half written must find no entry that starts it.
    let dir = entries_dir();
    let ours = |name: &str| matches!(name.parse(), Ok(EntryName { slot: own, .. }) if own == slot);
    let entries = files(esp, &dir, &ours)?;
    if !entries.is_empty() {
        remove(esp, &entries, Some(&payloads))?;
    }
    // Nothing refers to them any more.
    let files = files(esp, &payloads, &|_| true)?;
    if !files.is_empty() {
        remove(esp, &files, None)?;
    }
    // What is staged next needs them.
    for missing in [&dir, &payloads] {
        if !esp.exists(missing)? {
            esp.make_dir(missing)?;
            esp.flush()?;
        }
    }
    let crowded = match esp.make_room(&dir, ENTRIES_ROOM) {
        Ok(()) => None,
        // Where the system has the volume mounted for itself (ENT-25) that cannot be, and is no reason not to update.
        Err(error @ (EspError::Busy { .. } | EspError::CannotRepair { .. })) => Some(error),
        Err(error) => return Err(error.into()),
    };
    Ok(Fenced { slot, crowded })
}

fn files(esp: &mut dyn Esp, dir: &EspPath, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<EspPath>, ChangeError> {
    let items = esp.list(dir)?.into_iter().filter(|item| !item.is_dir && wanted(&item.name));
    // A name that is no path to us stays; nothing refers to it and it harms nobody but by its room.
    let mut files: Vec<EspPath> = items.filter_map(|item| dir.join(&item.name).ok()).collect();
    files.sort();
    Ok(files)
}
