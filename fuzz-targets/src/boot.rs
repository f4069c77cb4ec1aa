//! What lies on the EFI partition: names, entries, loader.conf, the guard's record.

use std::cmp::Ordering;

use boot_entries::guard::{GuardRecord, RECORD_SIZE};
use boot_entries::loader::{
    EntryFile, Outcome, Release, candidates, choose, compare_versions, is_entry_name, parse_efi_string,
};
use boot_entries::{
    BootOptions, Counter, Entry, EntryArchitecture, EntryName, EspPath, Generation, Liveness, LoaderConf, LoaderVars,
    OnCorruption, PayloadName, Payloads,
};
use disk_layout::Slot;

use crate::Seed;

/// ENT-1 to ENT-3: any text as a file name.
pub fn entry_names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(name) = text.parse::<EntryName>() {
        let shown = name.to_string();
        assert_eq!(shown.parse(), Ok(name));
        // `+LEFT` alone is the one other spelling.
        let lower = text.to_ascii_lowercase();
        assert!(shown == lower || shown.replace("-0.conf", ".conf") == lower, "{text} is read as {shown}");
        assert!(is_entry_name(&shown), "the loader would not see it");
        assert_eq!(name.path().as_str(), format!("loader/entries/{shown}"));
        // Whatever happens to an entry, its name stays one of ours and of the same system.
        for next in [name.committed(), name.marked_bad()] {
            assert!(next.same_system(name));
            assert_eq!(next.to_string().parse(), Ok(next));
        }
        assert!(name.marked_bad().is_exhausted() && name.committed().counter.is_none());
    }
    if let Ok(counter) = text.parse::<Counter>() {
        assert_eq!(counter.to_string().parse(), Ok(counter));
        let counted = counter.counted();
        assert_eq!(counted.left(), counter.left().saturating_sub(1));
        assert!(counted.done() >= counter.done());
        assert_eq!(Counter::new(counted.left(), counted.done()), Some(counted));
    }
    if let Ok(generation) = text.parse::<Generation>() {
        assert_eq!(generation.to_string(), text);
        assert!(generation.next().is_none_or(|next| next > generation));
    }
    for slot in Slot::ALL {
        if let Ok(name) = PayloadName::parse(slot, text) {
            let path = name.path();
            let (_, file) = path.as_str().rsplit_once('/').expect("a path in a folder");
            assert_eq!(PayloadName::parse(slot, file), Ok(name));
            assert!(file.eq_ignore_ascii_case(text));
        }
    }
    if let Ok(path) = text.parse::<EspPath>() {
        assert_eq!(path.as_str(), text);
        assert!(!text.starts_with('/') && text.split('/').all(|part| !part.is_empty() && part != "." && part != ".."));
    }
}

/// ENT-10 to ENT-13: any bytes as the content of an entry.
pub fn boot_entry(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(options) = BootOptions::parse(text)
    {
        assert_eq!(BootOptions::parse(&options.to_string()), Ok(options));
    }
    let Ok((entry, liveness)) = Entry::parse(data) else { return };
    assert_eq!(entry.render(liveness), data, "there is one spelling");
    entry.check().expect("what was read can be written");
    // The loader sees what we see: the same kernel, once it is live, and nothing while it is inert.
    let name = entry.name(Some(Counter::fresh()));
    let file = EntryFile { name: name.to_string(), content: data.to_vec() };
    for release in Release::ALL {
        let found = candidates(release, std::slice::from_ref(&file), &|_| true, entry.architecture);
        match liveness {
            Liveness::Inert => assert!(found.is_empty(), "{release} would boot an inert entry"),
            Liveness::Live => {
                assert_eq!(found.len(), 1, "{release} does not see a live entry");
                assert_eq!(found[0].kernel, format!("/{}", entry.kernel_path()));
                assert_eq!(found[0].sort_key.as_deref(), Some("ralphos"));
                assert_eq!(found[0].counter, Some((3, 0)));
                let version = format!("{}-{}", entry.generation(), entry.os_version());
                assert_eq!(found[0].version.as_deref(), Some(version.as_str()));
            }
        }
    }
}

/// LDR-1 to LDR-4: loader.conf, a variable, then names and contents of entries, each ended by a byte 0xFF.
pub fn loader(data: &[u8]) {
    let mut parts = data.split(|byte| *byte == 0xFF);
    let conf = LoaderConf::parse(parts.next().unwrap_or_default());
    let default = parse_efi_string(parts.next().unwrap_or_default()).ok();
    let mut files: Vec<EntryFile> = Vec::new();
    while let (Some(name), Some(content)) = (parts.next(), parts.next()) {
        let name = String::from_utf8_lossy(name).into_owned();
        // A FAT directory holds no two names that differ in case only.
        if files.iter().all(|file| !file.name.eq_ignore_ascii_case(&name)) {
            files.push(EntryFile { name, content: content.to_vec() });
        }
    }
    let vars = LoaderVars { default, ..LoaderVars::default() };
    let kernels = |kernel: &str| !kernel.contains("missing");
    for release in Release::ALL {
        let found = candidates(release, &files, &kernels, EntryArchitecture::X64);
        let choice = choose(release, &files, &kernels, &conf, &vars, EntryArchitecture::X64);
        assert!(choice != Outcome::Nothing || found.is_empty(), "the first is chosen when nothing else is");
        if let Outcome::Boots(choice) = choice {
            assert_eq!(files[choice.index].name, choice.name);
            assert!(is_entry_name(&choice.name) && found.iter().any(|candidate| candidate.index == choice.index));
        }
        let bad = |at: usize| matches!(found[at].counter, Some((0, _)));
        assert!((1..found.len()).all(|at| bad(at) || !bad(at - 1)), "bad ones come last");
    }
    versions(&files);
}

/// No total order (LDR-3), but one that does not depend on who is asked first.
fn versions(files: &[EntryFile]) {
    let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).take(4).collect();
    for a in &names {
        assert_eq!(compare_versions(a, a), Ordering::Equal);
        for b in &names {
            assert_eq!(compare_versions(a, b), compare_versions(b, a).reverse(), "{a:?} {b:?}");
        }
    }
}

/// GRD-2: any sector as the guard's record, also with its digest put right.
pub fn guard_record(data: &[u8]) {
    let mut sector = [0; RECORD_SIZE];
    let len = data.len().min(RECORD_SIZE);
    sector[..len].copy_from_slice(&data[..len]);
    let mut right = sector;
    let digest = RECORD_SIZE - 32;
    right[digest..].copy_from_slice(image_format::Digest::of(&sector[..digest]).as_ref());
    for bytes in [sector, right] {
        if let Ok(record) = GuardRecord::decode(&bytes) {
            assert!(bytes == [0; RECORD_SIZE] || record.encode() == bytes, "there is one spelling");
            assert_eq!(GuardRecord::decode(&record.encode()), Ok(record.clone()));
            let counted = record.counted(Slot::A, Generation::FIRST, Some(1));
            assert_eq!(GuardRecord::decode(&counted.encode()), Ok(counted));
        }
    }
}

pub fn entry() -> Entry {
    Entry {
        title: "RalphOS 1.2.0".into(),
        architecture: EntryArchitecture::X64,
        options: BootOptions {
            root_hash: [0x11; 32],
            partuuid: uuid::Uuid::from_u128(7),
            hash_offset: 1 << 20,
            on_corruption: OnCorruption::Restart,
            slot: Slot::B,
            generation: Generation::FIRST,
            system: [0x22; 32],
            epoch: 3,
            os_version: "1.2.0".into(),
            failed: None,
            extra: "quiet panic=10".into(),
        },
        payloads: Payloads::Kernel { linux: [0x33; 32], initrd: [0x44; 32] },
    }
}

pub fn name_seeds() -> Vec<Seed> {
    let seeds: [(&str, &str); 10] = [
        ("fresh", "ralphos-b-g12+3-0.conf"),
        ("committed", "ralphos-a-g4294967295.conf"),
        ("bad", "RALPHOS-A-G7+0-2147483647.CONF"),
        ("short-counter", "ralphos-b-g1+2.conf"),
        ("foreign", "fedora-6.1.0+1-0.conf"),
        ("counter", "+2-1"),
        ("generation", "4294967295"),
        ("linux", "g12-linux"),
        ("initrd", "G4294967295-INITRD"),
        ("path", "EFI/BOOT/BOOTX64.EFI"),
    ];
    seeds.map(|(name, text)| (name, text.as_bytes().to_vec())).to_vec()
}

pub fn entry_seeds() -> Vec<Seed> {
    let mut bad = entry();
    bad.options.failed = Some("health-check".into());
    bad.options.on_corruption = OnCorruption::Fail;
    let unified = Entry { payloads: Payloads::Uki([0x55; 32]), ..entry() };
    vec![
        ("live", entry().render(Liveness::Live)),
        ("inert", entry().render(Liveness::Inert)),
        ("failed", bad.render(Liveness::Live)),
        ("unified", unified.render(Liveness::Live)),
        ("options", entry().options.to_string().into_bytes()),
    ]
}

pub fn loader_seeds() -> Vec<Seed> {
    let live = entry().render(Liveness::Live);
    let variable: Vec<u8> = [7, 0, 0, 0].into_iter().chain("@saved".bytes().flat_map(|byte| [byte, 0])).collect();
    let join = |parts: &[&[u8]]| parts.iter().flat_map(|part| [part, &[0xFF][..]].concat()).collect::<Vec<u8>>();
    let foreign = b"title x\nversion 6.1~rc2\nsort-key debian\nmachine-id 0123\nlinux /vmlinuz\n";
    vec![
        (
            "two-of-ours",
            join(&[b"timeout 0\neditor no\n", b"", b"ralphos-a-g1.conf", &live, b"ralphos-b-g2+3-0.conf", &live]),
        ),
        (
            "foreign",
            join(&[b"default debian*\n", &variable, b"debian-6.1+1-0.conf", foreign, b"a.conf", b"efi /missing\n"]),
        ),
        ("versions", join(&[b"", b"", b"1.0~rc1.conf", foreign, b"1.0-2.conf", foreign, b"01.0^p.conf", foreign])),
    ]
}

pub fn guard_seeds() -> Vec<Seed> {
    let counted = GuardRecord::default().counted(Slot::B, Generation::FIRST, Some(2));
    let event = boot_entries::guard::GuardEvent {
        slot: Slot::A,
        generation: Generation::FIRST,
        attempt: Some(1),
        text: "check: ralphd".parse().expect("a text that fits"),
    };
    vec![
        ("empty", vec![0; RECORD_SIZE]),
        ("counted", counted.encode().to_vec()),
        ("event", counted.with_event(event).encode().to_vec()),
    ]
}
