//! Decisions over a real disk image: real partition table, FAT by the FAT library, the real record; a machine that logs.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use boot_entries::fat::{FormatOptions, format_esp};
use boot_entries::guard::guard_path;
use boot_entries::{Entry, Esp, EspPath, Generation, Liveness, OnCorruption, PayloadKind, Payloads, guard, mark_bad};
use disk_layout::{Architecture, DiskLayout, NewDisk, Seed, Slot, UpdateLock};

use super::*;

const MIB: u64 = 1 << 20;

#[derive(Debug)]
struct Fake {
    dir: tempfile::TempDir,
    layout: DiskLayout,
    command_line: String,
    kexec: bool,
    /// What the loader says that it started.
    selected: Option<String>,
    left: Option<String>,
    cannot_mark: bool,
    /// There are EFI variables that cannot be read.
    no_vars: bool,
    counted: Option<Counted>,
    late: bool,
    /// A second disk shows itself once this one was found.
    second: bool,
    /// What was done, with the record as the medium held it then.
    log: Vec<String>,
    said: Vec<String>,
    trials: Vec<Trial>,
}

impl Fake {
    /// A disk with these entries, booted by the first.
    fn new(entries: &[&str]) -> Fake {
        let dir = tempfile::tempdir().unwrap();
        let file = File::options().read(true).write(true).create_new(true).open(dir.path().join("disk")).unwrap();
        let disk = NewDisk {
            architecture: Architecture::X86_64,
            sector_size: 512,
            esp_len: 40 * MIB,
            slot_len: MIB,
            var_len: MIB,
            seed: Seed::Fixed(1),
        };
        let layout = disk.create(&file).unwrap();
        let mut window = FileWindow::new(file, layout.esp.start, layout.esp.len).unwrap();
        format_esp(&mut window, FormatOptions { label: "EFI", serial: 1, sector_size: 512 }).unwrap();
        let mut fake = Fake {
            dir,
            layout,
            command_line: String::new(),
            kexec: false,
            selected: None,
            left: None,
            cannot_mark: false,
            no_vars: false,
            counted: None,
            late: false,
            second: false,
            log: Vec::new(),
            said: Vec::new(),
            trials: Vec::new(),
        };
        guard::make(&mut fake.esp()).unwrap();
        for name in entries {
            fake.put(name.parse().unwrap());
        }
        fake.boot(entries[0]);
        fake
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    fn window(&self, write: bool) -> FileWindow {
        let file = File::options().read(true).write(write).open(self.image()).unwrap();
        FileWindow::new(file, self.layout.esp.start, self.layout.esp.len).unwrap()
    }

    fn esp(&self) -> ImageEsp<FileWindow> {
        ImageEsp::new(self.window(true))
    }

    fn content(&self, name: EntryName) -> Entry {
        let content = |kind: PayloadKind| {
            let text = format!("{} {} {kind}", name.slot, name.generation);
            sha(text.as_bytes())
        };
        Entry {
            title: "RalphOS".into(),
            architecture: EntryArchitecture::X64,
            options: BootOptions {
                root_hash: [1; 32],
                partuuid: self.layout.slot(name.slot).unique_guid,
                hash_offset: 4096,
                on_corruption: OnCorruption::Fail,
                slot: name.slot,
                generation: name.generation,
                system: [2; 32],
                epoch: 1,
                os_version: "1.0".into(),
                failed: None,
                extra: String::new(),
            },
            payloads: Payloads::Kernel { linux: content(PayloadKind::Linux), initrd: content(PayloadKind::Initrd) },
        }
    }

    fn put(&self, name: EntryName) {
        let entry = self.content(name);
        let mut esp = self.esp();
        let mut write = |path: &EspPath, bytes: &[u8]| {
            let mut content = bytes;
            let content: &mut dyn Read = &mut content;
            esp.write_new(path, bytes.len() as u64, content).unwrap();
        };
        for kind in [PayloadKind::Linux, PayloadKind::Initrd] {
            let text = format!("{} {} {kind}", name.slot, name.generation);
            write(&entry.payload(kind).path(), text.as_bytes());
        }
        write(&name.path(), &entry.render(Liveness::Live));
    }

    fn boot(&mut self, name: &str) {
        self.command_line = format!("initrd=x {}", self.content(name.parse().unwrap()).options);
    }

    fn record(&self) -> GuardRecord {
        GuardDevice::open_image(&self.image(), &self.layout).unwrap().read().unwrap()
    }

    fn logged(&mut self, what: &str) {
        let state = match GuardDevice::open_image(&self.image(), &self.layout).and_then(|mut guard| guard.read()) {
            Ok(record) => {
                let event = record.event.map_or_else(String::new, |event| format!(" {}", event.text));
                format!("{}{event}", record.boots)
            }
            Err(_) => "none".to_owned(),
        };
        self.log.push(format!("{what} [{state}]"));
    }

    fn names(&self) -> Vec<String> {
        let dir: EspPath = "loader/entries".parse().unwrap();
        let mut names: Vec<String> = self.esp().list(&dir).unwrap().into_iter().map(|item| item.name).collect();
        names.sort();
        names
    }

    fn said(&self, part: &str) -> bool {
        self.said.iter().any(|text| text.contains(part))
    }
}

/// SHA-256 of a small payload, asked of the code under test's own back end.
fn sha(bytes: &[u8]) -> [u8; 32] {
    let mut esp = boot_entries::FakeEsp::new();
    esp.put("x", bytes);
    esp.hash_file(&"x".parse().unwrap()).unwrap().0
}

impl Machine for Fake {
    fn command_line(&mut self) -> Result<String, Stop> {
        Ok(self.command_line.clone())
    }

    fn selected(&mut self, _wait: Duration) -> Result<Selected, Stop> {
        let entry = self.selected.clone().ok_or(NotSelected::Untold("LoaderEntrySelected"))?;
        Ok(Selected { entry, esp: ImageEsp::new(self.window(false)) })
    }

    fn left_options(&mut self) -> Option<String> {
        self.left.clone()
    }

    fn leave_options(&mut self, options: &BootOptions) {
        self.left = Some(options.to_string());
    }

    fn is_kexec(&mut self) -> bool {
        self.kexec
    }

    fn disk(&mut self, booted: &BootOptions, _wait: Duration) -> Result<OpenDisk, Stop> {
        if self.layout.slot_by_guid(booted.partuuid).is_none() {
            return Err(BootedError::NotThere(booted.partuuid).into());
        }
        Ok(OpenDisk {
            guard: GuardDevice::open_image(Path::new(&self.image()), &self.layout),
            esp: ImageEsp::new(self.window(false)),
            architecture: EntryArchitecture::X64,
        })
    }

    fn loader_vars(&mut self) -> Option<LoaderVars> {
        self.logged("ask");
        (!self.no_vars).then(LoaderVars::default)
    }

    fn counted(&mut self) -> Option<Counted> {
        self.counted
    }

    fn set_counted(&mut self, counted: Counted) {
        self.counted = Some(counted);
    }

    fn in_time(&mut self) -> bool {
        !self.late
    }

    fn look_again(&mut self, booted: &BootOptions) -> Result<(), Stop> {
        let (first, second) = (self.image(), self.image());
        if self.second { Err(BootedError::TwoDisks { guid: booted.partuuid, first, second }.into()) } else { Ok(()) }
    }

    fn say(&mut self, text: &str) {
        self.said.push(text.to_owned());
    }

    fn trial(&mut self, trial: &Trial) {
        self.logged(if trial.another { "trial, another" } else { "trial" });
        self.trials.push(*trial);
    }

    fn mark_bad(&mut self, booted: &BootOptions) -> Result<MarkedBad, MarkError> {
        self.logged("mark bad");
        if self.cannot_mark {
            return Err(Stop::NoEntry(booted.slot, booted.generation).into());
        }
        let asked = (&LoaderVars::default(), EntryArchitecture::X64);
        crate::mark::give_up(&UpdateLock::for_tests(), &mut self.esp(), booted, asked, &mut || true)
    }

    fn reboot(&mut self) {
        self.logged("reboot");
    }
}

impl Fake {
    /// A boot: `/run` is another one.
    fn start(&mut self) {
        (self.counted, self.left) = (None, None);
        start(self);
    }
}

const A: &str = "ralphos-a-g1.conf";
const B: &str = "ralphos-b-g2+2-1.conf";

fn generation(n: u32) -> Generation {
    Generation::new(n).unwrap()
}

#[test]
fn grd10_a_committed_boot_is_counted_and_nothing_else_is_done() {
    let mut fake = Fake::new(&[A]);
    for boots in 1..=3 {
        fake.start();
        let record = GuardRecord { boots, entry: Some((Slot::A, generation(1))), done: None, event: None };
        assert_eq!(fake.record(), record);
    }
    assert_eq!((fake.log.len(), fake.said.len(), fake.trials.len()), (0, 0, 0), "{fake:?}");
}

#[test]
fn grd20_a_trial_is_counted_first_and_handed_on() {
    let mut fake = Fake::new(&[B, A]);
    fake.start();
    // Handed on before the other system is read, which may hang.
    assert_eq!(fake.log, ["trial [1]", "ask [1]", "trial, another [1]"]);
    let trial = Trial { slot: Slot::B, generation: generation(2), attempt: 1, deadline_seconds: 600, another: true };
    assert_eq!(fake.trials.last(), Some(&trial));
    assert_eq!(fake.record().done, Some(1));
    // The other slot afterwards: it begins at 1.
    fake.boot(A);
    fake.start();
    assert_eq!((fake.record().boots, fake.record().entry), (1, Some((Slot::A, generation(1)))));
}

#[test]
fn grd21_upd50_without_another_whole_system_the_deadline_does_nothing() {
    let mut alone = Fake::new(&[B]);
    alone.start();
    assert!(!alone.trials.last().unwrap().another && alone.said("no other system would boot"));
    let mut spoilt = Fake::new(&[B, A]);
    spoilt.esp().overwrite_byte(&"ralphos/a/g1-initrd".parse().unwrap(), 0, b'a', b'x').unwrap();
    spoilt.start();
    assert!(!spoilt.trials.last().unwrap().another && spoilt.said("initrd file is not the one"), "{:?}", spoilt.said);
}

#[test]
fn grd21_the_deadline_on_the_command_line() {
    for (word, seconds) in [("30", 30), ("7200", 7200), ("29", 600), ("7201", 600), ("x", 600), ("", 600)] {
        let mut fake = Fake::new(&[B, A]);
        fake.command_line.push_str(&format!(" quiet ralph.deadline={word}"));
        fake.start();
        assert_eq!(fake.trials[0].deadline_seconds, seconds, "{word}");
        assert_eq!(fake.said("ralph.deadline="), seconds == 600, "{word}");
    }
}

#[test]
fn grd12_the_sixth_boot_without_a_verdict_gives_the_entry_up() {
    let mut fake = Fake::new(&["ralphos-b-g2.conf", A]);
    for _ in 0..5 {
        fake.start();
    }
    assert!(fake.log.is_empty());
    fake.start();
    assert_eq!(fake.log, ["ask [6]", "mark bad [6 guard]", "reboot [6 guard]"]);
    assert_eq!(fake.names(), [A, "ralphos-b-g2+0-0.conf"]);
    let mut esp = fake.esp();
    let state = EspState::read(&mut esp).unwrap();
    assert_eq!(state.live(Slot::B).unwrap().entry.as_ref().unwrap().options.failed.as_deref(), Some("guard"));
}

#[test]
fn grd12_with_nothing_better_or_a_mark_that_fails_the_boot_goes_on() {
    let mut alone = Fake::new(&["ralphos-b-g2.conf"]);
    let mut stuck = Fake::new(&[B, A]);
    stuck.cannot_mark = true;
    for _ in 0..6 {
        alone.start();
        stuck.start();
    }
    assert_eq!((alone.log.as_slice(), alone.record().event), (&["ask [6]".to_owned()][..], None));
    assert!(alone.said("the boot goes on") && stuck.said("the boot goes on"));
    // A trial that goes on is handed on all the same, but a restart would only bring it back; and the event of what did not
    // happen is taken out.
    let expected = ["trial [6]", "ask [6]", "mark bad [6 guard]", "trial [6]"];
    assert_eq!(stuck.log[stuck.log.len() - 4..], expected);
}

#[test]
fn grd11_a_verdict_lets_the_count_begin_again() {
    let mut fake = Fake::new(&["ralphos-b-g2.conf", A]);
    for _ in 0..5 {
        fake.start();
    }
    let mut guard = GuardDevice::open_image(&fake.image(), &fake.layout).unwrap();
    let record = guard.read().unwrap().verdict();
    guard.write(&record).unwrap();
    fake.start();
    assert_eq!((fake.record().boots, fake.log.len()), (1, 0));
}

#[test]
fn grd13_a_kernel_started_by_a_kernel_is_not_counted() {
    let mut fake = Fake::new(&[B, A]);
    fake.kexec = true;
    fake.start();
    assert_eq!((fake.record(), fake.log.len()), (GuardRecord::default(), 0));
}

#[test]
fn grd14_what_cannot_be_counted_is_said_and_the_boot_goes_on() {
    let quiet = |fake: &Fake, said: &str| {
        assert!(fake.said(said), "{said}: {:?}", fake.said);
        assert!(fake.trials.is_empty() && fake.record() == GuardRecord::default());
    };
    let mut other = Fake::new(&[B, A]);
    other.command_line = "quiet root=/dev/sda1".into();
    other.start();
    quiet(&other, "not started from one of our entries");
    let mut other = Fake::new(&[B, A]);
    other.boot("ralphos-b-g3.conf");
    other.start();
    quiet(&other, "no boot entry is that of slot b, generation 3");
    let mut other = Fake::new(&[B, A]);
    other.command_line = other.command_line.replace(&"02".repeat(32), &"03".repeat(32));
    other.start();
    quiet(&other, "is not the entry that this boot was started from");
    let mut other = Fake::new(&[B, A]);
    let guid = other.layout.slot(Slot::B).unique_guid.to_string();
    other.command_line = other.command_line.replace(&guid, &uuid::Uuid::from_u128(1).to_string());
    other.start();
    quiet(&other, "no disk of this machine has the partition");
}

#[test]
fn grd14_a_trial_without_a_record_is_watched_all_the_same() {
    let mut fake = Fake::new(&[B, A]);
    fake.esp().remove(&guard_path()).unwrap();
    fake.start();
    assert!(fake.said("the boot is not counted"), "{:?}", fake.said);
    assert_eq!(fake.log, ["trial [none]", "ask [none]", "trial, another [none]"]);
}

#[test]
fn grd30_the_initrd_gives_up() {
    let mut fake = Fake::new(&[B, A]);
    fake.start();
    fake.log.clear();
    failed(&mut fake, "No Root");
    assert_eq!(fake.log, ["ask [1 initrd: no root]", "reboot [1 initrd: no root]"]);
    let event = fake.record().event.unwrap();
    assert_eq!((event.slot, event.generation, event.attempt), (Slot::B, generation(2), Some(1)));
    // Nothing better: the event is kept, and the initrd may open its shell.
    let mut alone = Fake::new(&[B]);
    failed(&mut alone, "no-root");
    assert_eq!(alone.log, ["ask [1 initrd: no-root]"]);
    assert!(alone.said("stays as it is"));
}

#[test]
fn grd30_a_committed_system_that_nothing_counts_is_not_restarted_for_ever() {
    let mut fake = Fake::new(&["ralphos-b-g2.conf", A]);
    fake.esp().remove(&guard_path()).unwrap();
    failed(&mut fake, "no-root");
    assert_eq!(fake.log, ["ask [none]"]);
    assert!(fake.said("nothing can be remembered"));
    // A trial is counted by the loader.
    let mut fake = Fake::new(&[B, A]);
    fake.esp().remove(&guard_path()).unwrap();
    failed(&mut fake, "no-root");
    assert_eq!(fake.log, ["ask [none]", "reboot [none]"]);
}

#[test]
fn grd21_the_deadline_leaves_its_event_where_the_file_lies_now() {
    let mut fake = Fake::new(&[B, A]);
    fake.start();
    let mut guard = GuardDevice::open_image(&fake.image(), &fake.layout).unwrap();
    // Made anew elsewhere, while the process waited.
    let mut esp = fake.esp();
    esp.remove(&guard_path()).unwrap();
    esp.write_new(&"filler".parse().unwrap(), 4096, &mut &[7; 4096][..]).unwrap();
    guard::make(&mut esp).unwrap();
    crate::wait::write_event(&mut guard, fake.trials.last().unwrap(), "deadline").unwrap();
    assert_eq!(fake.record().event.unwrap().text.as_str(), "deadline");
    assert_eq!(esp.read(&"filler".parse().unwrap(), 4096).unwrap(), [7; 4096]);
    // What this attempt left already says more: the health check asked for a reboot that hangs. Another attempt's goes.
    let mut trial = *fake.trials.last().unwrap();
    crate::wait::write_event(&mut guard, &trial, "later").unwrap();
    assert_eq!(fake.record().event.unwrap().text.as_str(), "deadline");
    trial.attempt += 1;
    crate::wait::write_event(&mut guard, &trial, "later").unwrap();
    assert_eq!(fake.record().event.unwrap().text.as_str(), "later");
}

#[test]
fn grd21_a_commit_is_seen_by_the_names_on_the_partition() {
    let fake = Fake::new(&[B, A]);
    let committed = |slot, n| guard::is_committed(&mut fake.window(false), slot, generation(n)).unwrap();
    assert!(committed(Slot::A, 1) && !committed(Slot::B, 2) && !committed(Slot::A, 2));
    let lock = UpdateLock::for_tests();
    let mut esp = fake.esp();
    let state = EspState::read(&mut esp).unwrap();
    let _ = boot_entries::commit(&lock, &mut esp, state.live(Slot::B).unwrap()).unwrap();
    assert!(committed(Slot::B, 2));
    // A rollback that was cut: both names are there.
    esp.write_new(&"loader/entries/ralphos-a-g1+0-0.conf".parse().unwrap(), 1, &mut &b"x"[..]).unwrap();
    assert!(!committed(Slot::A, 1));
}

#[path = "start_again_tests.rs"]
mod again;

#[path = "selected_tests.rs"]
mod unified;
