//! What can go wrong with a look at the machine's boot state, and with the acts that follow from it.

use boot_entries::{ChangeError, Generation, NoFallback};
use disk_layout::Slot;

use crate::host::HostError;

/// Why something could not be found out or done. Display never repeats the source.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The machine or the disk.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The ESP cannot be read.
    #[error("the boot state cannot be read")]
    State(#[source] boot_entries::EspError),
    /// The ESP cannot be changed.
    #[error("the boot entries cannot be changed")]
    Change(#[from] ChangeError),
    /// No live entry is the running system's.
    #[error(
        "no boot entry is that of the running system (slot {slot}, generation {generation}): nothing is written; it may have been removed by hand"
    )]
    NoEntry {
        /// The booted slot.
        slot: Slot,
        /// The booted generation.
        generation: Generation,
    },
    /// The entry of the booted slot and generation describes another system.
    #[error("{file_name} is not the entry this system was started from: its {what} differs; nothing is written")]
    OtherSystem {
        /// The entry's file.
        file_name: String,
        /// What differs.
        what: &'static str,
    },
    /// A disk image without a committed system.
    #[error("no slot of this disk is committed: boot it, or make it anew with `ralph-image disk`")]
    NothingCommitted,
    /// Nothing would boot, or nothing of ours.
    #[error("the boot loader would boot no entry of ours: {0}")]
    NothingBoots(String),
    /// What would boot instead has never been proven (UPD-23).
    #[error("slot {slot} is not given up: {fallback} would boot instead, which is only on trial; boot it and let it be committed first, or `ralph-update reject {}` to drop it", !*slot)]
    UnprovenFallback {
        /// The slot.
        slot: Slot,
        /// The entry that would boot.
        fallback: String,
    },
    /// What would boot instead would not (UPD-51).
    #[error(
        "slot {slot} is not given up: {fallback} would boot instead, and this machine's firmware would not start its kernel: {why}"
    )]
    RefusedFallback {
        /// The slot.
        slot: Slot,
        /// The entry that would boot.
        fallback: String,
        /// Why the firmware would not, for a person.
        why: String,
    },
    /// Marking the entry bad would leave nothing to boot (UPD-23).
    #[error("slot {slot} is not given up: no other whole system would boot")]
    NoFallback {
        /// The slot.
        slot: Slot,
        /// What would happen instead.
        source: NoFallback,
    },
}
