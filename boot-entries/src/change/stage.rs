//! From the fence to the commit point of an update: payload files and entry (`UPD-5`, `UPD-6`).

use std::io::{self, Read};

use disk_layout::{Slot, UpdateLock};
use sha2::{Digest, Sha256};

use super::fence::Fenced;
use super::{ChangeError, write_live};
use crate::entry::Entry;
use crate::esp::Esp;
use crate::names::{EntryName, Generation, PayloadKind, PayloadName};
use crate::options::{OnCorruption, hex};

/// A payload file that is on the medium with the announced content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenPayload {
    name: PayloadName,
    size: u64,
    sha256: [u8; 32],
}

impl WrittenPayload {
    /// Slot, generation and kind.
    pub fn name(&self) -> PayloadName {
        self.name
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// SHA-256 of the file.
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }
}

impl Fenced {
    /// Writes a payload file under its final name, flushes it, reads it back and compares (`UPD-5`).
    ///
    /// Nothing refers to the file yet, so a cut leaves only what the next fence removes. What the loader cannot start
    /// parks the machine (`LDR-6`); whether the kernel is a program for this machine is for the caller to look at, with
    /// [`Esp::read_head`].
    ///
    /// # Errors
    /// [`ChangeError::Source`] when the content does not come, [`ChangeError::Content`] when another came than announced,
    /// [`ChangeError::NotAsWritten`] when the medium holds another. The slot stays fenced.
    #[expect(clippy::too_many_arguments, reason = "each says another thing about the one file")]
    pub fn write_payload(
        &self,
        _lock: &UpdateLock,
        esp: &mut dyn Esp,
        kind: PayloadKind,
        generation: Generation,
        size: u64,
        content: &mut dyn Read,
        sha256: [u8; 32],
    ) -> Result<WrittenPayload, ChangeError> {
        let name = PayloadName { slot: self.slot(), generation, kind };
        let path = name.path();
        let mut hashing = Hashing { inner: content, digest: Sha256::new() };
        esp.write_new(&path, size, &mut hashing).map_err(|error| ChangeError::writing(kind, error))?;
        let found: [u8; 32] = hashing.digest.finalize().into();
        if found != sha256 {
            return Err(ChangeError::Content { kind, expected: hex(&sha256), found: hex(&found) });
        }
        esp.flush()?;
        if esp.hash_file(&path)? != (sha256, size) {
            return Err(ChangeError::NotAsWritten { path });
        }
        Ok(WrittenPayload { name, size, sha256 })
    }
}

struct Hashing<'a> {
    inner: &'a mut dyn Read,
    digest: Sha256,
}

impl Read for Hashing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.digest.update(&buffer[..got]);
        Ok(got)
    }
}

/// A staged system: the next boot tries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Staged {
    /// The name of its entry.
    pub name: EntryName,
}

/// Writes the entry of a system whose slot and payload files are `written`, with all its tries. **The overwriting of its first
/// byte is the commit point of an update**: before it the old system boots, after it the new one on trial (`UPD-6`).
/// Whatever `entry` says of corrupt blocks, on trial the machine restarts for one.
///
/// # Errors
/// When the entry is not valid, does not belong to the fence and the payloads, or the ESP cannot be changed. An error
/// from the last flush leaves it open whether the entry is live; in any other the slot stays fenced.
pub fn stage(
    _lock: &UpdateLock,
    esp: &mut dyn Esp,
    fenced: Fenced,
    written: &[WrittenPayload],
    entry: &Entry,
) -> Result<Staged, ChangeError> {
    let slot: Slot = fenced.slot();
    if entry.slot() != slot {
        return Err(ChangeError::NotTheSame("the slot"));
    }
    for (kind, sha256) in entry.payloads.files() {
        let is_this = |file: &&WrittenPayload| file.name == entry.payload(kind) && file.sha256 == sha256;
        if written.iter().find(is_this).is_none() {
            return Err(ChangeError::NotTheSame(kind.as_str()));
        }
    }
    let name = EntryName::fresh(slot, entry.generation());
    // A corrupt block on trial ends the try, and the loader counts (ENT-11).
    write_live(esp, name, &entry.on_corruption(OnCorruption::Restart))?;
    Ok(Staged { name })
}
