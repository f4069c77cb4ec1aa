//! What the tests of several modules share.

use disk_layout::Slot;
use proptest::prelude::*;
use uuid::Uuid;

use crate::entry::{Entry, EntryArchitecture};
use crate::names::Generation;
use crate::options::BootOptions;

/// Options of a slot and generation; everything else fixed.
pub(crate) fn options(slot: Slot, generation: u32) -> BootOptions {
    BootOptions {
        root_hash: [0x11; 32],
        partuuid: Uuid::from_u128(0x6ba7b810_9dad_11d1_80b4_00c04fd430c8),
        hash_offset: 1_048_576,
        slot,
        generation: Generation::new(generation).unwrap(),
        system: [0x22; 32],
        epoch: 3,
        os_version: "1.2.0".into(),
        failed: None,
        extra: "quiet panic=10".into(),
    }
}

/// An entry of a slot and generation whose payload files hold what [`payload`] says.
pub(crate) fn entry(slot: Slot, generation: u32) -> Entry {
    Entry {
        title: "RalphOS".into(),
        architecture: EntryArchitecture::X64,
        options: options(slot, generation),
        linux_sha256: [0x33; 32],
        initrd_sha256: [0x44; 32],
    }
}

pub(crate) fn any_options() -> impl Strategy<Value = BootOptions> {
    let numbers = (any::<[u8; 32]>(), any::<u128>(), any::<u64>(), any::<bool>(), 1..=u32::MAX);
    let words = proptest::collection::vec("[a-z]{1,8}(=[!#-~]{0,8})?", 0..5);
    let texts = (any::<[u8; 32]>(), any::<u32>(), "[!#-~]{1,20}", proptest::option::of("[a-z-]{1,32}"), words);
    (numbers, texts).prop_map(
        |((root_hash, uuid, hash_offset, a, generation), (system, epoch, os_version, failed, words))| BootOptions {
            root_hash,
            partuuid: Uuid::from_u128(uuid),
            hash_offset,
            slot: if a { Slot::A } else { Slot::B },
            generation: Generation::new(generation).unwrap(),
            system,
            epoch,
            os_version,
            failed,
            extra: words.into_iter().filter(|w| !w.starts_with("root")).collect::<Vec<_>>().join(" "),
        },
    )
}
