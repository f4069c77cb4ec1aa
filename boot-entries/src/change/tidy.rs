//! Putting right what a cut left (`UPD-24`).

use disk_layout::{Slot, UpdateLock};

use super::ChangeError;
use super::remove::remove;
use crate::entry::Liveness;
use crate::esp::Esp;
use crate::state::{EspState, OurEntry, survivor};

/// What tidy did and found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "live entries of older generations must stop every run but the apply that fences them"]
pub struct Tidied {
    /// Files that were removed.
    pub removed: Vec<String>,
    /// Live entries that are older than another live one of their slot. No cut can leave them.
    pub older: Vec<(Slot, String)>,
}

impl Tidied {
    /// Refuses when there are live entries of older generations, but for those in the slot that will be fenced.
    ///
    /// # Errors
    /// [`ChangeError::OlderEntries`].
    pub fn refuse_older(&self, fenced: Option<Slot>) -> Result<(), ChangeError> {
        for slot in Slot::ALL.into_iter().filter(|slot| Some(*slot) != fenced) {
            let files: Vec<String> =
                self.older.iter().filter(|(own, _)| *own == slot).map(|(_, file)| file.clone()).collect();
            if !files.is_empty() {
                return Err(ChangeError::OlderEntries { slot, files });
            }
        }
        Ok(())
    }
}

/// Finishes what a cut interrupted; the first thing under the lock in every writing run.
///
/// Removed are: inert entries, because nothing was promised; of live names of one slot and generation all but the one
/// that the interrupted change was to leave; and an unreadable file beside a readable live name of the same slot and
/// generation, which is a new name whose content did not reach the disk. At every instant at least one live name of every
/// system that had one is left.
///
/// # Errors
/// When the ESP cannot be read or changed, or names share clusters (`ENT-22`).
pub fn tidy(_lock: &UpdateLock, esp: &mut dyn Esp) -> Result<Tidied, ChangeError> {
    let state = EspState::read(esp)?;
    let goes = |entry: &&OurEntry| {
        let twins = || state.ours.iter().filter(|other| other.is_live() && other.name.same_system(entry.name));
        match (&entry.entry, entry.liveness) {
            (Ok(_), Liveness::Inert) => true,
            (Ok(_), Liveness::Live) => survivor(twins()).is_some_and(|keep| keep.file_name != entry.file_name),
            (Err(_), _) => twins().any(|twin| twin.entry.is_ok()),
        }
    };
    let (gone, kept): (Vec<&OurEntry>, Vec<&OurEntry>) = state.ours.iter().partition(goes);
    if !gone.is_empty() {
        let paths: Vec<_> = gone.iter().map(|entry| entry.path()).collect();
        remove(esp, &paths, None)?;
    }
    let older = |entry: &&&OurEntry| {
        let newer = |other: &&OurEntry| {
            other.is_live() && other.name.slot == entry.name.slot && other.name.generation > entry.name.generation
        };
        entry.is_live() && kept.iter().any(newer)
    };
    Ok(Tidied {
        removed: gone.iter().map(|entry| entry.file_name.clone()).collect(),
        older: kept.iter().filter(older).map(|entry| (entry.name.slot, entry.file_name.clone())).collect(),
    })
}
