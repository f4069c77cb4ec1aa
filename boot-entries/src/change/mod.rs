//! The acts: everything that changes an ESP, in the order that a power cut at any instant forces (`UPD-2` to `UPD-24`).
//!
//! Each function takes the update lock and returns when what it did is durable. The order of effects is the design:
//! the comment above each step tells which cut it is there for. Entries are never renamed (`ENT-20`): a new name is
//! written inert, made live by one byte in place, and only then does the old name go.

mod fence;
mod remove;
mod rename;
mod stage;
mod tidy;

use std::io;

use disk_layout::Slot;

use crate::entry::{ENTRY_MAX, Entry, EntryError, Liveness};
use crate::esp::{Esp, EspError, EspPath, WriteError};
use crate::names::{EntryName, PayloadKind};

pub(crate) use fence::ENTRIES_ROOM;
pub use fence::{Fenced, fence};
pub use rename::{Committed, MarkedBad, commit, mark_bad};
pub use stage::{Staged, WrittenPayload, stage};
pub use tidy::{Tidied, tidy};

/// The ESP could not be changed as it should be. What was done before the error is durable and described at the
/// function; nothing is undone.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The ESP.
    #[error(transparent)]
    Esp(#[from] EspError),
    /// The content of a payload did not come.
    #[error("the {kind} could not be read while it was written to the EFI system partition")]
    Source {
        /// Which payload.
        kind: PayloadKind,
        /// What its reader said.
        source: io::Error,
    },
    /// The content that came is not the one announced.
    #[error("the {kind} that came is not the one announced: its SHA-256 is {found} and not {expected}")]
    Content {
        /// Which payload.
        kind: PayloadKind,
        /// What was announced, in hexadecimal.
        expected: String,
        /// What came, in hexadecimal.
        found: String,
    },
    /// What was read back is not what was written (`ENT-24`).
    #[error("{path} on the EFI system partition does not hold what was written to it: the disk fails")]
    NotAsWritten {
        /// The file.
        path: EspPath,
    },
    /// Two names share clusters and neither may go (`ENT-22`).
    #[error(
        "{first} and {second} on the EFI system partition share clusters, so that removing a file might destroy another; \
         repair it with fsck.vfat"
    )]
    SharedClusters {
        /// The one.
        first: EspPath,
        /// The other.
        second: EspPath,
    },
    /// The entry would be refused when read back.
    #[error("the new boot entry is not valid and was not written")]
    Entry(#[source] EntryError),
    /// The entry names another slot than the one that was fenced, or other payloads than were written.
    #[error("the new boot entry does not belong to what was written: {0} differs")]
    NotTheSame(&'static str),
    /// The entry cannot be read, so it cannot be written under another name.
    #[error("{file_name} cannot be read, so its name cannot be changed")]
    Unreadable {
        /// The file.
        file_name: String,
        /// Why.
        source: EntryError,
    },
    /// The entry is inert: it was never promised.
    #[error("{file_name} is not live, so its name cannot be changed")]
    Inert {
        /// The file.
        file_name: String,
    },
    /// The directory changed since it was read.
    #[error("{file_name} is not what it was when the boot entries were read; try again")]
    Changed {
        /// The file.
        file_name: String,
    },
    /// After a commit there is not exactly one live, uncounted name (`UPD-21`).
    #[error("after the commit the boot entries of slot {slot} are {}, and only {expected} should be there", found.join(", "))]
    NotCommitted {
        /// The slot.
        slot: Slot,
        /// The only name that should be there.
        expected: EntryName,
        /// Those that are.
        found: Vec<String>,
    },
    /// Live entries of an older generation of the same slot (`UPD-24`).
    #[error("slot {slot} has boot entries of older generations, which should not be: {}; the next apply to it removes them", files.join(", "))]
    OlderEntries {
        /// The slot.
        slot: Slot,
        /// Their files.
        files: Vec<String>,
    },
    /// A reason that cannot stand in an entry.
    #[error("{0:?} cannot stand as a reason: 1 to 32 lower-case letters and dashes")]
    Reason(String),
}

impl ChangeError {
    fn writing(kind: PayloadKind, error: WriteError) -> ChangeError {
        match error {
            WriteError::Source { source, .. } => ChangeError::Source { kind, source },
            WriteError::Esp(error) => ChangeError::Esp(error),
        }
    }
}

/// Writes an entry that is not there yet, and makes it live (`UPD-6`, `UPD-20`).
///
/// The file is written whole but inert, flushed and read back: a cut until here leaves a file that the loader skips,
/// whatever of it reached the disk. Then one byte is overwritten in place, which is one sector and cannot be torn:
/// before it the entry does not exist for the loader, after it all of it does. That byte is read back, too: a rename takes
/// the old name away next, and a medium that lost the byte would be left with nothing to boot.
fn write_live(esp: &mut dyn Esp, name: EntryName, entry: &Entry) -> Result<(), ChangeError> {
    entry.check().map_err(ChangeError::Entry)?;
    let path = name.path();
    let inert = entry.render(Liveness::Inert);
    esp.write_new(&path, inert.len() as u64, &mut inert.as_slice()).map_err(|error| match error {
        WriteError::Esp(error) => error,
        WriteError::Source { path, source } => EspError::io(crate::esp::Op::Write, &path, source),
    })?;
    esp.flush()?;
    if esp.read(&path, ENTRY_MAX)? != inert {
        return Err(ChangeError::NotAsWritten { path });
    }
    esp.overwrite_byte(&path, 0, Liveness::Inert.byte(), Liveness::Live.byte())?;
    esp.flush()?;
    if esp.read(&path, ENTRY_MAX)? != entry.render(Liveness::Live) {
        return Err(ChangeError::NotAsWritten { path });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
