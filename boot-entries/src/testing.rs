//! What the tests of several modules share.

use disk_layout::Slot;
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::entry::{Entry, EntryArchitecture, Liveness, Payloads};
use crate::esp::FakeEsp;
use crate::loader::LoaderVars;
use crate::names::{EntryName, Generation, PayloadKind, PayloadName};
use crate::options::{BootOptions, OnCorruption};
use crate::state::{EspState, Prediction};

/// Options of a slot and generation; everything else fixed.
pub(crate) fn options(slot: Slot, generation: u32) -> BootOptions {
    BootOptions {
        root_hash: [0x11; 32],
        partuuid: Uuid::from_u128(0x6ba7b810_9dad_11d1_80b4_00c04fd430c8),
        hash_offset: 1_048_576,
        on_corruption: OnCorruption::Fail,
        slot,
        generation: Generation::new(generation).unwrap(),
        system: [0x22; 32],
        epoch: 3,
        os_version: "1.2.0".into(),
        failed: None,
        extra: "quiet panic=10".into(),
    }
}

/// Every fifth generation is a unified kernel image.
fn is_unified(generation: u32) -> bool {
    generation.is_multiple_of(5)
}

/// An entry of a slot and generation whose payload files hold what [`payload`] says.
pub(crate) fn entry(slot: Slot, generation: u32) -> Entry {
    let of = |kind| sha256(&payload(slot, generation, kind));
    Entry {
        title: "RalphOS".into(),
        architecture: EntryArchitecture::X64,
        options: options(slot, generation),
        payloads: match is_unified(generation) {
            false => Payloads::Kernel { linux: of(PayloadKind::Linux), initrd: of(PayloadKind::Initrd) },
            true => Payloads::Uki(of(PayloadKind::Uki)),
        },
    }
}

/// The content of a payload file: different for each, and longer than a cluster of the fake.
pub(crate) fn payload(slot: Slot, generation: u32, kind: PayloadKind) -> Vec<u8> {
    format!("{kind} of slot {slot}, generation {generation}. ").repeat(200).into_bytes()
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Puts a system there, whole and live, its entry under this name.
pub(crate) fn put_system(esp: &mut FakeEsp, name: &str) {
    put_payloads(esp, name);
    let name: EntryName = name.parse().unwrap();
    let content = entry(name.slot, name.generation.get()).render(Liveness::Live);
    esp.put(name.path().as_str(), &content);
}

/// Puts the payload files of a system there.
pub(crate) fn put_payloads(esp: &mut FakeEsp, name: &str) {
    let EntryName { slot, generation, .. } = name.parse().unwrap();
    for (kind, _) in entry(slot, generation.get()).payloads.files() {
        let path = PayloadName { slot, generation, kind }.path();
        esp.put(path.as_str(), &payload(slot, generation.get(), kind));
    }
}

/// An ESP with these systems, whole and live.
pub(crate) fn machine(names: &[&str]) -> FakeEsp {
    let mut esp = FakeEsp::new();
    esp.put("loader/loader.conf", b"timeout 0\neditor no\n");
    for name in names {
        put_system(&mut esp, name);
    }
    esp
}

/// Slot and generation of what the loader boots, from the *content* of the file it takes; None when nothing boots, or
/// what boots is not whole: then the machine does not come back.
pub(crate) fn boots(esp: &FakeEsp) -> Option<(Slot, u32)> {
    let mut esp = esp.clone();
    let state = EspState::read(&mut esp).unwrap();
    let Prediction::Boots { file_name, .. } = state.predict(&LoaderVars::default(), EntryArchitecture::X64) else {
        return None;
    };
    let content = esp.content(&format!("loader/entries/{file_name}")).unwrap();
    // As the loader reads it and not as we do: what stands in a file whose own content did not reach the disk may be followed by
    // zeros, or end within the comments that only we read.
    let end = content.iter().position(|b| *b == 0).unwrap_or(content.len());
    let text = std::str::from_utf8(&content[..end]).ok()?;
    let value = |key: &str| text.lines().filter_map(|line| line.trim_start().strip_prefix(key)).next_back();
    // A unified image has them inside; the guard reads them where the loader does not.
    let options = value("options ").or_else(|| value("# options "));
    let options = BootOptions::parse(options?).ok()?;
    let (slot, generation) = (options.slot, options.generation);
    for (kind, _) in entry(slot, generation.get()).payloads.files() {
        let key = if kind == PayloadKind::Initrd { "initrd /" } else { "linux /" };
        let path = PayloadName { slot, generation, kind }.path();
        let whole =
            value(key)? == path.as_str() && esp.content(path.as_str())? == payload(slot, generation.get(), kind);
        whole.then_some(())?;
    }
    Some((slot, generation.get()))
}

pub(crate) fn any_options() -> impl Strategy<Value = BootOptions> {
    let numbers = (any::<[u8; 32]>(), any::<u128>(), any::<u64>(), any::<[bool; 2]>(), 1..=u32::MAX);
    let words = proptest::collection::vec("[a-z]{1,8}(=[!#-~]{0,8})?", 0..5);
    let texts = (any::<[u8; 32]>(), any::<u32>(), "[!#-~]{1,20}", proptest::option::of("[a-z-]{1,32}"), words);
    (numbers, texts).prop_map(
        |((root_hash, uuid, hash_offset, [a, restart], generation), (system, epoch, os_version, failed, words))| {
            BootOptions {
                root_hash,
                partuuid: Uuid::from_u128(uuid),
                hash_offset,
                on_corruption: if restart { OnCorruption::Restart } else { OnCorruption::Fail },
                slot: if a { Slot::A } else { Slot::B },
                generation: Generation::new(generation).unwrap(),
                system,
                epoch,
                os_version,
                failed,
                extra: words.into_iter().filter(|w| !w.starts_with("root")).collect::<Vec<_>>().join(" "),
            }
        },
    )
}
