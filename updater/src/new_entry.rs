//! The boot entry of an image's system: the same on a machine that is updated and on a disk that is made.

use boot_entries::options::with_default_words;
use boot_entries::{BootOptions, Entry, EntryArchitecture, Generation, OnCorruption, Payloads};
use disk_layout::Slot;
use image_format::{Architecture, Boot, Manifest, Payload, SystemId};
use uuid::Uuid;

/// Where a system goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The slot.
    pub slot: Slot,
    /// Its partition.
    pub partuuid: Uuid,
    /// What its entry and files are called by.
    pub generation: Generation,
}

/// The entry of the system of `manifest`; `Entry::check` says whether it can be written.
pub fn new_entry(manifest: &Manifest, system: SystemId, place: Place, on_corruption: OnCorruption) -> Entry {
    let (_, verity) = manifest.root();
    let sha256 = |payload: &Payload| *payload.sha256.as_bytes();
    Entry {
        title: manifest.title.clone(),
        architecture: match manifest.architecture {
            Architecture::X86_64 => EntryArchitecture::X64,
            Architecture::Aarch64 => EntryArchitecture::Aa64,
        },
        options: BootOptions {
            root_hash: *verity.root_hash.as_bytes(),
            partuuid: place.partuuid,
            hash_offset: verity.hash_offset,
            on_corruption,
            slot: place.slot,
            generation: place.generation,
            system: *system.as_bytes(),
            epoch: manifest.epoch,
            os_version: manifest.version.clone(),
            failed: None,
            extra: with_default_words(&manifest.options),
        },
        payloads: match manifest.boot() {
            Boot::Kernel { linux, initrd } => Payloads::Kernel { linux: sha256(linux), initrd: sha256(initrd) },
            Boot::Uki(uki) => Payloads::Uki(sha256(uki)),
        },
    }
}
