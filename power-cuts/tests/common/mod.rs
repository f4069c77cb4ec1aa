//! A small disk with whole systems, and flows on it in this process, recorded.

#![allow(dead_code, reason = "each test file uses a part")]

use std::io::{Cursor, Read, Seek, SeekFrom, Write};

use boot_entries::fat::{FormatOptions, Volume, format_esp};
use boot_entries::options::with_default_words;
use boot_entries::{
    BootOptions, Entry, EntryArchitecture, EntryName, Esp, EspState, Generation, ImageEsp, Liveness, OnCorruption,
    OurEntry, PayloadKind, PayloadName, Payloads, commit, fence, mark_bad, stage, tidy,
};
use disk_layout::{Architecture, DiskLayout, NewDisk, Seed, Slot, UpdateLock};
use image_format::{Uuid, Verity, VerityBuilder, verity_superblock};
use power_cuts::disk::Disk;
use power_cuts::log::Log;
use power_cuts::record::{RecordedPart, Recorder};
use power_cuts::{Bounds, Flow, Report, System};
use sha2::{Digest, Sha256};

/// Bytes of root data in a slot.
pub const DATA: u64 = 64 * 1024;
const MIB: usize = 1 << 20;

/// A disk in memory, and where things lie on it.
pub struct Bench {
    pub layout: DiskLayout,
    pub recorder: Recorder,
}

pub fn system(slot: Slot, generation: u32) -> System {
    System { slot, generation: Generation::new(generation).unwrap() }
}

/// The content of a payload file: different for each, and of several clusters.
pub fn payload(slot: Slot, generation: u32, kind: PayloadKind) -> Vec<u8> {
    format!("{kind} of slot {slot}, generation {generation}. ").repeat(60).into_bytes()
}

pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Data, superblock and tree of a slot, and the root hash.
fn slot_content(slot: Slot, generation: u32) -> (Vec<u8>, [u8; 32]) {
    let data: Vec<u8> =
        format!("root of slot {slot}, generation {generation}. ").bytes().cycle().take(DATA as usize).collect();
    let salt = [7; 32];
    let mut content = data.clone();
    content.resize(MIB, 0);
    let mut builder = VerityBuilder::new(DATA, &salt).unwrap();
    let mut put = |offset: u64, bytes: &[u8]| -> std::io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        content[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    };
    builder.update(&data, &mut put).unwrap();
    let root_hash = builder.finish(&mut put).unwrap();
    let verity = Verity { root_hash, salt, uuid: Uuid([9; 16]), data_blocks: DATA / 4096, hash_offset: DATA };
    let at = usize::try_from(DATA).unwrap();
    content[at..at + 4096].copy_from_slice(&verity_superblock(&verity));
    (content, *root_hash.as_bytes())
}

impl Bench {
    /// Slot A holds generation 1, committed; slot B is empty.
    pub fn new() -> Bench {
        let disk = NewDisk {
            architecture: Architecture::X86_64,
            sector_size: 512,
            esp_len: 36 << 20,
            slot_len: MIB as u64,
            var_len: MIB as u64,
            seed: Seed::Fixed(1),
        };
        let mut file = tempfile::tempfile().unwrap();
        let layout = disk.create(&file).unwrap();
        let mut bytes = Vec::new();
        std::io::Seek::rewind(&mut file).unwrap();
        std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
        let mut esp = Cursor::new(vec![0; usize::try_from(layout.esp.len).unwrap()]);
        format_esp(&mut esp, FormatOptions { label: "EFI", serial: 1, sector_size: 512 }).unwrap();
        let start = usize::try_from(layout.esp.start).unwrap();
        bytes[start..start + esp.get_ref().len()].copy_from_slice(esp.get_ref());
        let bench = Bench { layout, recorder: Recorder::new(bytes) };
        let mut esp = bench.esp();
        put(&mut esp, "EFI/BOOT/BOOTX64.EFI", b"the boot loader");
        put(&mut esp, "loader/loader.conf", b"timeout 0\neditor no\n");
        bench.write_slot(Slot::A, 1);
        for kind in [PayloadKind::Linux, PayloadKind::Initrd] {
            let name = PayloadName { slot: Slot::A, generation: Generation::FIRST, kind };
            put(&mut esp, name.path().as_str(), &payload(Slot::A, 1, kind));
        }
        let entry = bench.entry(Slot::A, 1);
        put(&mut esp, entry.name(None).path().as_str(), &entry.render(Liveness::Live));
        bench.again()
    }

    /// The disk as it is now, with nothing recorded.
    pub fn again(&self) -> Bench {
        Bench { layout: self.layout.clone(), recorder: Recorder::new(self.recorder.bytes()) }
    }

    pub fn esp(&self) -> ImageEsp<RecordedPart> {
        ImageEsp::new(self.recorder.part(self.layout.esp.start..self.layout.esp.end()))
    }

    /// Writes a system's root, and flushes.
    pub fn write_slot(&self, slot: Slot, generation: u32) {
        self.write_slot_unflushed(slot, generation);
        self.recorder.flush();
    }

    pub fn write_slot_unflushed(&self, slot: Slot, generation: u32) {
        let (content, _) = slot_content(slot, generation);
        let start = self.layout.slot(slot).start;
        // As a kernel does it, in requests of some size.
        for (number, piece) in content.chunks(16 * 1024).take(6).enumerate() {
            self.recorder.write(start + number as u64 * 16 * 1024, piece);
        }
    }

    pub fn entry(&self, slot: Slot, generation: u32) -> Entry {
        let (_, root_hash) = slot_content(slot, generation);
        Entry {
            title: "RalphOS".into(),
            architecture: EntryArchitecture::X64,
            options: BootOptions {
                root_hash,
                partuuid: self.layout.slot(slot).unique_guid,
                hash_offset: DATA,
                on_corruption: OnCorruption::Fail,
                slot,
                generation: Generation::new(generation).unwrap(),
                system: [0x22; 32],
                epoch: 1,
                os_version: "1.0.0".into(),
                failed: None,
                extra: with_default_words("quiet"),
            },
            payloads: Payloads::Kernel {
                linux: sha256(&payload(slot, generation, PayloadKind::Linux)),
                initrd: sha256(&payload(slot, generation, PayloadKind::Initrd)),
            },
        }
    }

    /// What `apply` does, in its order.
    pub fn apply(&self, slot: Slot, generation: u32) {
        let (lock, mut esp) = (UpdateLock::for_tests(), self.esp());
        let _ = tidy(&lock, &mut esp).unwrap();
        let fenced = fence(&lock, &mut esp, slot).unwrap();
        self.write_slot(slot, generation);
        let mut write = |kind| {
            let content = payload(slot, generation, kind);
            let (size, digest) = (content.len() as u64, sha256(&content));
            let generation = Generation::new(generation).unwrap();
            let mut content = content.as_slice();
            fenced.write_payload(&lock, &mut esp, kind, generation, size, &mut content, digest).unwrap()
        };
        let written = [write(PayloadKind::Linux), write(PayloadKind::Initrd)];
        stage(&lock, &mut esp, fenced, &written, &self.entry(slot, generation)).unwrap();
    }

    fn find(&self, name: &str) -> OurEntry {
        let name: EntryName = name.parse().unwrap();
        let state = EspState::read(&mut self.esp()).unwrap();
        state.ours.into_iter().find(|entry| entry.name == name).unwrap()
    }

    pub fn commit(&self, name: &str) {
        let entry = self.find(name);
        let _ = commit(&UpdateLock::for_tests(), &mut self.esp(), &entry).unwrap();
    }

    pub fn mark_bad(&self, name: &str) {
        let entry = self.find(name);
        let _ = mark_bad(&UpdateLock::for_tests(), &mut self.esp(), &entry, Some("checks")).unwrap();
    }

    /// Runs `act` and checks every state that is taken of what it wrote.
    pub fn check(&self, flow: &Flow, bounds: Bounds, act: &dyn Fn(&Bench)) -> Report {
        let bench = self.again();
        let base = bench.recorder.bytes();
        act(&bench);
        check_log(base, bench.recorder.log(), flow, bounds)
    }
}

/// Checks every state that is taken of a log.
pub fn check_log(base: Vec<u8>, log: Vec<u8>, flow: &Flow, bounds: Bounds) -> Report {
    let mut disk = Disk::new(base, log.clone()).unwrap();
    let log = Log::read(log, disk.bytes()).unwrap();
    power_cuts::run(&mut disk, &log, flow, bounds, &mut |_, _, _| Ok(())).unwrap()
}

/// A log that ends with a flush, or with some, without them.
pub fn without_last_flush(mut log: Vec<u8>) -> Vec<u8> {
    let flush = [[0; 16].as_slice(), &1u64.to_le_bytes(), &[0; 488]].concat();
    let mut requests = u64::from_le_bytes(log[16..24].try_into().unwrap());
    assert!(log.ends_with(&flush));
    while log.ends_with(&flush) {
        log.truncate(log.len() - flush.len());
        requests -= 1;
    }
    log[16..24].copy_from_slice(&requests.to_le_bytes());
    log
}

pub fn put(esp: &mut dyn Esp, path: &str, mut bytes: &[u8]) {
    esp.write_new(&path.parse().unwrap(), bytes.len() as u64, &mut bytes).unwrap();
}

pub fn flow(name: &str, before: &[System], after: &[System]) -> Flow {
    Flow {
        name: name.into(),
        architecture: EntryArchitecture::X64,
        before: before.to_vec(),
        after: after.to_vec(),
        firmware_renames: false,
        loader: None,
        loader_conf: None,
        entries: None,
        fallback: true,
        vars: boot_entries::LoaderVars::default(),
    }
}

pub fn put_payloads(bench: &Bench, slot: Slot, generation: u32) {
    for kind in [PayloadKind::Linux, PayloadKind::Initrd] {
        let name = PayloadName { slot, generation: Generation::new(generation).unwrap(), kind };
        put(&mut bench.esp(), name.path().as_str(), &payload(slot, generation, kind));
    }
}

pub fn put_live_entry(bench: &Bench, slot: Slot, generation: u32) {
    let entry = bench.entry(slot, generation);
    let name = format!("loader/entries/ralphos-{slot}-g{generation}+3-0.conf");
    put(&mut bench.esp(), &name, &entry.render(Liveness::Live));
}

/// What the firmware's counting does to a directory (`ENT-22`): the new name is there before the old one goes.
pub fn count_as_the_firmware_does(bench: &Bench) {
    let (old, new) = ("loader/entries/ralphos-b-g2+3-0.conf", "loader/entries/ralphos-b-g2+2-1.conf");
    put(&mut bench.esp(), new, b"");
    let mut part = bench.recorder.part(bench.layout.esp.start..bench.layout.esp.end());
    let mut volume = Volume::open(&mut part).unwrap();
    let mut slot_of = |path| *volume.find(path).unwrap().unwrap().slots.last().unwrap();
    let (from, to) = (slot_of(old), slot_of(new));
    // The chain and the length.
    for (at, len) in [(20, 2), (26, 6)] {
        let mut bytes = vec![0; len];
        part.seek(SeekFrom::Start(from + at)).unwrap();
        part.read_exact(&mut bytes).unwrap();
        part.seek(SeekFrom::Start(to + at)).unwrap();
        part.write_all(&bytes).unwrap();
    }
    bench.esp().drop_name(&old.parse().unwrap()).unwrap();
}
