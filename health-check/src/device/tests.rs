//! Whole runs against real boot entries, on an ESP in memory that records what is done to it.

mod bad;
mod cut;
mod history;

use std::cell::RefCell;
use std::rc::Rc;

use boot_entries::guard::{GuardError, GuardEvent, GuardRecord, GuardText};
use boot_entries::{
    BootOptions, Entry as BootEntry, EntryArchitecture, EntryName, Esp, FakeEsp, Liveness, PayloadKind, PayloadName,
    Payloads, read_vars,
};
use disk_layout::{Architecture, DiskLayout, NewDisk, Seed, Slot, SlotError, SlotIo};
use updater::history::Records;
use updater::host::TargetSlot;

use super::*;
use crate::act::World;
use crate::check::{Outcome, Reason};
use crate::config::Policy;
use crate::fakes::{FakeClock, FakeGuard, FakeRecords, FakeSurroundings, FakeSystemd, Log};
use crate::policy::Verdict;
use crate::run::{Ran, run};

const PARTUUID: &str = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";

fn options(slot: Slot, generation: u32) -> BootOptions {
    let text = format!(
        "root=/dev/mapper/root ro roothash={hash} systemd.verity_root_data=PARTUUID={PARTUUID} \
         systemd.verity_root_hash=PARTUUID={PARTUUID} systemd.verity_root_options=hash-offset=1048576 ralph.slot={slot} \
         ralph.generation={generation} ralph.system={system} ralph.epoch=3 ralph.version=1.2.0",
        hash = "11".repeat(32),
        system = "22".repeat(32),
    );
    BootOptions::parse(&text).unwrap()
}

/// Puts a whole, live system on the ESP; its entry has this name.
fn put(esp: &mut FakeEsp, name: &str, failed: Option<&str>) {
    let name: EntryName = name.parse().unwrap();
    let sha256 = |esp: &mut FakeEsp, kind| {
        let path = PayloadName { slot: name.slot, generation: name.generation, kind }.path();
        esp.put(path.as_str(), format!("{kind} of {name}").as_bytes());
        esp.hash_file(&path).unwrap().0
    };
    let mut options = options(name.slot, name.generation.get());
    options.failed = failed.map(str::to_owned);
    let entry = BootEntry {
        title: "RalphOS".into(),
        architecture: EntryArchitecture::X64,
        options,
        payloads: Payloads::Kernel { linux: sha256(esp, PayloadKind::Linux), initrd: sha256(esp, PayloadKind::Initrd) },
    };
    esp.put(name.path().as_str(), &entry.render(Liveness::Live));
    esp.take_events();
}

/// A machine with an ESP in memory, booted with these options.
struct TestMachine {
    esp: Rc<RefCell<FakeEsp>>,
    booted: BootOptions,
    layout: DiskLayout,
    records: Records,
    folder: tempfile::TempDir,
    read_only: bool,
    busy: bool,
    /// Where the loader's variables are, if there are any.
    efivars: Option<std::path::PathBuf>,
    /// Why the check fails, if it does.
    reason: Reason,
    /// What the machine's owner wants.
    policy: Policy,
    /// The boot guard's record.
    guard: RefCell<GuardRecord>,
    /// For writing or not, in order.
    opened: RefCell<Vec<Access>>,
}

impl TestMachine {
    fn new(entries: &[&str], slot: Slot, generation: u32) -> Self {
        let mut esp = FakeEsp::new();
        esp.put("loader/loader.conf", b"timeout 0\neditor no\n");
        // As on every disk; a writing run makes it otherwise (GRD-1).
        esp.put("ralphos/guard", &[0; 4096]);
        for name in entries {
            put(&mut esp, name, None);
        }
        let disk = NewDisk {
            architecture: Architecture::X86_64,
            sector_size: 512,
            esp_len: 64 << 20,
            slot_len: 64 << 20,
            var_len: 1 << 20,
            seed: Seed::Fixed(1),
        };
        let folder = tempfile::tempdir().unwrap();
        Self {
            esp: Rc::new(RefCell::new(esp)),
            booted: options(slot, generation),
            layout: disk.plan().unwrap().layout().clone(),
            records: Records::in_dir(folder.path().join("ralph-update"), "boot").taken_for_lasting(),
            folder,
            read_only: false,
            busy: false,
            efivars: None,
            reason: Reason::Deadline,
            policy: Policy::default(),
            guard: RefCell::default(),
            opened: RefCell::default(),
        }
    }

    /// Names in `loader/entries`.
    fn entries(&self) -> Vec<String> {
        let esp = self.esp.borrow();
        let names = esp.files().into_iter().filter_map(|path| path.strip_prefix("loader/entries/"));
        names.map(str::to_owned).collect()
    }

    /// What was changed on the ESP.
    fn changes(&self) -> Vec<String> {
        self.esp
            .borrow_mut()
            .take_events()
            .into_iter()
            .filter(|event| !event.starts_with("read ") && !event.starts_with("check "))
            .collect()
    }

    fn history(&self) -> Vec<(EventKind, u32, String)> {
        let events = self.records.events().unwrap();
        events.into_iter().map(|event| (event.event, event.generation, event.detail)).collect()
    }

    fn run(&self, healthy: bool) -> Ran {
        self.run_with(&Log::default(), healthy, || {})
    }

    /// A run with one required check, beside which something happens.
    fn run_with(&self, log: &Log, healthy: bool, meanwhile: impl Fn()) -> Ran {
        let mut outcome = Outcome::own_failure("ralphd", self.reason, "too late".into());
        (outcome.passed, outcome.recorded) = (healthy, Some("sha256:5e".into()));
        let world = World {
            clock: &FakeClock::logging(log),
            records: &FakeRecords::new(log),
            systemd: &FakeSystemd::telling([None]),
            guard: &FakeGuard::new(log),
            surroundings: &FakeSurroundings::default(),
            policy: self.policy,
        };
        run(self, world, &mut |_| {
            meanwhile();
            vec![outcome.clone()]
        })
    }
}

impl Machine for TestMachine {
    fn session(&self, work: &mut dyn FnMut(&mut dyn Session)) -> Result<Option<Fault>, OpenError> {
        super::session(self, work)
    }

    fn glance(&self) -> Result<Booted, OpenError> {
        super::glance(self)
    }
}

impl Host for TestMachine {
    fn lock(&self) -> Result<UpdateLock, LockError> {
        match self.busy {
            true => Err(LockError::Busy { path: "/run/lock".into(), holder: Some(99) }),
            false => Ok(UpdateLock::for_tests()),
        }
    }

    fn layout(&self) -> &DiskLayout {
        &self.layout
    }

    fn booted(&self) -> Option<&BootOptions> {
        Some(&self.booted)
    }

    fn loader_vars(&self) -> FoundVars {
        self.efivars.as_deref().map(read_vars).unwrap_or_default()
    }

    fn records(&self) -> &Records {
        &self.records
    }

    fn refuse_lookalikes(&self) -> Result<(), HostError> {
        unreachable!("a commit is not kept from a machine that has found its slot")
    }

    fn open_esp(&self, access: Access) -> Result<Box<dyn OpenEsp>, HostError> {
        self.opened.borrow_mut().push(access);
        if self.read_only && access == Access::ReadWrite {
            return Err(HostError::ReadOnly("/efi".into()));
        }
        let esp = self.esp.borrow().clone();
        Ok(Box::new(OpenFake { esp, home: self.esp.clone() }))
    }

    fn open_slot(&self, _slot: TargetSlot) -> Result<Box<dyn SlotIo>, SlotError> {
        unreachable!("the health check touches no slot")
    }

    fn read_guard(&self) -> Result<GuardRecord, GuardError> {
        Ok(self.guard.borrow().clone())
    }

    fn write_guard(&self, _lock: &UpdateLock, record: &GuardRecord) -> Result<(), GuardError> {
        self.guard.replace(record.clone());
        Ok(())
    }

    fn is_blank(&self, _slot: Slot) -> Option<bool> {
        unreachable!("the health check looks into no slot")
    }
}

/// Works on a copy that goes back when it is closed or dropped.
struct OpenFake {
    esp: FakeEsp,
    home: Rc<RefCell<FakeEsp>>,
}

impl OpenEsp for OpenFake {
    fn esp(&mut self) -> &mut dyn Esp {
        &mut self.esp
    }

    fn close(self: Box<Self>) -> Result<(), HostError> {
        Ok(())
    }
}

impl Drop for OpenFake {
    fn drop(&mut self) {
        self.home.replace(self.esp.clone());
    }
}

#[test]
fn a_trial_that_passes_loses_its_counter_upd_21() {
    let machine = TestMachine::new(&["ralphos-a-g6.conf", "ralphos-b-g7+2-1.conf"], Slot::B, 7);
    let ran = machine.run(true);
    assert!(ran.settled.done, "{:?}", ran.notes);
    assert_eq!(ran.settled.verdict, Verdict::Commit);
    let Booted::Trial { entry, attempt: 1 } = &ran.settled.booted else { panic!("{:?}", ran.settled.booted) };
    assert_eq!((entry.slot.as_str(), entry.generation, entry.system.as_str()), ("b", 7, &*"22".repeat(32)));
    assert_eq!(entry.version, "1.2.0");
    assert_eq!(machine.entries(), ["ralphos-a-g6.conf", "ralphos-b-g7.conf"]);
    assert_eq!(machine.history(), [(EventKind::Committed, 7, "ralphd sha256:5e".into())]);
    assert_eq!(machine.records.floor(), 3, "UPD-40");
    // The next run finds it committed and leaves everything as it is.
    machine.changes();
    machine.opened.borrow_mut().clear();
    let ran = machine.run(true);
    assert_eq!((ran.settled.verdict, ran.settled.done), (Verdict::Healthy, true));
    assert_eq!(machine.changes(), [""; 0]);
    assert_eq!(*machine.opened.borrow(), [Access::ReadOnly], "a committed boot does not open the ESP for writing");
}

#[test]
fn a_trial_that_fails_is_in_the_history_and_its_counter_is_left_alone_hlt_32() {
    let entries = ["ralphos-a-g6.conf", "ralphos-b-g7+2-1.conf"];
    let machine = TestMachine::new(&entries, Slot::B, 7);
    let ran = machine.run(false);
    assert_eq!(ran.settled.verdict, Verdict::RecordAndReboot, "{:?}", ran.notes);
    assert_eq!(machine.history(), [(EventKind::TrialFailed, 7, "ralphd: too late".into())]);
    assert_eq!(machine.entries(), entries);
    assert_eq!(machine.changes(), [""; 0]);
}

#[test]
fn a_variable_of_the_loader_that_cannot_be_read_is_told_and_changes_no_verdict_upd_50() {
    let mut machine = TestMachine::new(&["ralphos-a-g6.conf", "ralphos-b-g7+2-1.conf"], Slot::B, 7);
    let folder = machine.folder.path().join("efivars");
    std::fs::create_dir_all(folder.join("LoaderEntryOneShot-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f")).unwrap();
    machine.efivars = Some(folder);
    let ran = machine.run(false);
    assert_eq!(ran.settled.verdict, Verdict::RecordAndReboot, "{:?}", ran.notes);
    let told = |note: &String| note.contains("will boot: ralphos-a-g6.conf; ") && note.contains("LoaderEntryOneShot-");
    assert!(ran.notes.iter().any(told), "{:?}", ran.notes);
}

#[test]
fn what_the_guard_left_over_is_in_the_history_once_upd_44() {
    let event = GuardEvent {
        slot: Slot::B,
        generation: "ralphos-b-g7.conf".parse::<EntryName>().unwrap().generation,
        attempt: Some(1),
        text: GuardText::sanitised("deadline"),
    };
    let machine = TestMachine::new(&["ralphos-a-g6.conf", "ralphos-b-g7+1-2.conf"], Slot::B, 7);
    for _ in 0..2 {
        machine.guard.replace(GuardRecord::default().with_event(event.clone()));
        let ran = machine.run(false);
        assert_eq!(ran.settled.verdict, Verdict::RecordAndReboot, "{:?}", ran.notes);
        assert_eq!(*machine.guard.borrow(), GuardRecord::default(), "taken out when it is recorded");
    }
    let deadlines = machine.history().into_iter().filter(|(.., detail)| detail == "deadline").count();
    assert_eq!(deadlines, 1, "{:?}", machine.history());
    // Without a history it stays.
    let machine = TestMachine::new(&["ralphos-a-g6.conf", "ralphos-b-g7+1-2.conf"], Slot::B, 7);
    std::fs::write(machine.folder.path().join("ralph-update"), "").unwrap();
    machine.guard.replace(GuardRecord::default().with_event(event.clone()));
    machine.run(false);
    assert_eq!(machine.guard.borrow().event, Some(event));
}

#[test]
fn a_committed_boot_is_known_without_the_lock_and_without_a_write_hlt_39() {
    let mut machine = TestMachine::new(&["ralphos-a-g6.conf"], Slot::A, 6);
    machine.busy = true;
    let log = Log::default();
    let ran = machine.run_with(&log, true, || assert!(log.events().contains(&"tell ralphd".to_owned())));
    assert_eq!((ran.settled.verdict, ran.settled.done), (Verdict::Healthy, true));
    assert_eq!(*machine.opened.borrow(), [Access::ReadOnly]);
    assert_eq!(machine.changes(), [""; 0]);
}

#[test]
fn a_trial_that_the_loader_did_not_count_is_committed_when_it_passes() {
    let machine = TestMachine::new(&["ralphos-a-g6.conf", "ralphos-b-g7+3-0.conf"], Slot::B, 7);
    assert_eq!(machine.run(true).settled.verdict, Verdict::Commit);
    assert_eq!(machine.entries(), ["ralphos-a-g6.conf", "ralphos-b-g7.conf"]);
}

#[test]
fn the_last_try_is_still_a_trial_ent_2() {
    let machine = TestMachine::new(&["ralphos-a-g6.conf", "ralphos-b-g7+0-3.conf"], Slot::B, 7);
    assert_eq!(machine.run(false).settled.verdict, Verdict::RecordAndReboot);
    assert_eq!(machine.run(true).settled.verdict, Verdict::Commit);
    assert_eq!(machine.entries(), ["ralphos-a-g6.conf", "ralphos-b-g7.conf"]);
}

#[test]
fn an_esp_that_cannot_be_written_fails_the_trial_and_is_still_asked_hlt_31() {
    let mut machine = TestMachine::new(&["ralphos-a-g6.conf", "ralphos-b-g7+2-1.conf"], Slot::B, 7);
    machine.read_only = true;
    let ran = machine.run(true);
    assert_eq!(ran.settled.verdict, Verdict::RecordAndReboot, "{:?}", ran.notes);
    assert_eq!(ran.outcomes.last().unwrap().name, "commit");
    let (kind, _, detail) = &machine.history()[0];
    assert_eq!(*kind, EventKind::TrialFailed);
    assert!(detail.starts_with("commit: the EFI partition is mounted read-only"), "{detail}");
}

#[test]
fn a_fallback_is_noticed_once_upd_43() {
    let machine = TestMachine::new(&["ralphos-a-g6.conf", "ralphos-b-g7+0-3.conf"], Slot::A, 6);
    let ran = machine.run(true);
    assert_eq!(ran.settled.verdict, Verdict::Healthy);
    let history = machine.history();
    assert_eq!(history.len(), 1);
    assert_eq!((history[0].0, history[0].1), (EventKind::FellBack, 7));
    assert!(ran.notes.iter().any(|note| note.starts_with("generation 7 in slot b fell back: ")), "{:?}", ran.notes);
    machine.run(false);
    assert_eq!(machine.history().len(), 1);
}

#[test]
fn a_history_that_cannot_be_written_stops_nothing_hlt_40() {
    for (slot, generation, healthy, verdict) in [
        (Slot::A, 6, true, Verdict::Healthy),
        (Slot::B, 7, false, Verdict::RecordAndReboot),
        (Slot::B, 7, true, Verdict::Commit),
    ] {
        let machine = TestMachine::new(&["ralphos-a-g6.conf", "ralphos-b-g7+0-3.conf"], slot, generation);
        // A file where the folder should be.
        std::fs::write(machine.folder.path().join("ralph-update"), "").unwrap();
        let ran = machine.run(healthy);
        assert_eq!((ran.settled.verdict, ran.settled.done), (verdict, true), "{:?}", ran.notes);
        assert!(ran.notes.iter().any(|note| note.contains("ralph-update")), "{:?}", ran.notes);
    }
}

#[test]
fn an_unknown_boot_changes_nothing_not_even_what_should_be_tidied() {
    let no_entry = TestMachine::new(&["ralphos-a-g6.conf", "ralphos-b-g7+2-1.conf"], Slot::B, 8);
    let mut other_system = TestMachine::new(&["ralphos-a-g6.conf", "ralphos-b-g7+2-1.conf"], Slot::B, 7);
    other_system.booted.root_hash = [0x33; 32];
    let given_up = TestMachine::new(&["ralphos-a-g6.conf"], Slot::B, 7);
    put(&mut given_up.esp.borrow_mut(), "ralphos-b-g7+0-1.conf", Some("rolled-back"));
    for (machine, why) in
        [(no_entry, "generation 8"), (other_system, "root hash"), (given_up, "marked bad while it ran (rolled-back)")]
    {
        // An inert entry: what a cut left.
        machine.esp.borrow_mut().put("loader/entries/ralphos-b-g9+3-0.conf", b"#linux /ralphos/b/g9-linux\n");
        let before = machine.entries();
        for healthy in [true, false] {
            let ran = machine.run(healthy);
            assert_eq!(ran.settled.verdict, Verdict::Unknown);
            let Booted::Unknown(told) = &ran.settled.booted else { panic!("{:?}", ran.settled.booted) };
            assert!(told.contains(why), "{told}");
        }
        assert_eq!(machine.entries(), before);
        assert_eq!(machine.changes(), [""; 0]);
        assert_eq!(machine.history(), []);
    }
}

#[test]
fn a_lock_that_is_held_is_busy_and_nothing_else_is() {
    let mut machine = TestMachine::new(&["ralphos-a-g6.conf"], Slot::A, 6);
    machine.busy = true;
    let opened = machine.session(&mut |_| panic!("without the lock nothing is read"));
    assert!(matches!(opened, Err(OpenError::Busy(_))), "{opened:?}");
}

#[test]
fn what_contradicts_itself_is_unknown_and_what_cannot_be_read_is_tried_again_hlt_31() {
    let disk = || "/dev/sda".into();
    let layout = |source| BootedError::Layout { disk: disk(), source };
    let guid = PARTUUID.parse().unwrap();
    let read =
        || disk_layout::SysError::Read { path: "/proc/x".into(), source: std::io::ErrorKind::Interrupted.into() };
    let open = LayoutError::Open { path: disk(), source: std::io::ErrorKind::Interrupted.into() };
    let short = disk_layout::TableError::Length(std::io::ErrorKind::Interrupted.into());
    for error in [
        BootedError::NoVerityRoot,
        BootedError::NotVerity { device: disk(), uuid: "LVM-1".into() },
        BootedError::NotOnePartition { device: disk(), under: Vec::new() },
        BootedError::TableChanged { disk: disk(), number: 2 },
        BootedError::NotASlot { disk: disk(), number: 4 },
        BootedError::CommandLine { named: Slot::A, guid, booted: Slot::B, booted_guid: guid },
        BootedError::OtherEsp { loader: guid, esp: guid },
        layout(LayoutError::Missing("SYSTEM_A")),
    ] {
        let mut booted = None;
        let opened = found(Err(error.into()), &mut |session| booted = Some(session.booted()));
        assert!(matches!(opened, Ok(None)), "{opened:?}");
        assert!(matches!(booted, Some(Booted::Unknown(_))), "{booted:?}");
    }
    assert!(disagrees(&HostError::CommandLine(BootOptions::parse("quiet").unwrap_err().into())));
    for error in [
        HostError::Sys(read()),
        BootedError::Sys(read()).into(),
        BootedError::NoRoot.into(),
        BootedError::NoDisk { partition: disk() }.into(),
        layout(open).into(),
        layout(LayoutError::Table(short)).into(),
    ] {
        let opened = found(Err(error), &mut |_| panic!("nothing is known that could be worked on"));
        assert!(matches!(opened, Err(OpenError::Other(_))), "{opened:?}");
    }
    // A machine whose /proc cannot be read.
    let empty = tempfile::tempdir().unwrap();
    let opened = found(host::Device::find(SysRoot::at(empty.path())), &mut |_| panic!("nothing was read"));
    assert!(matches!(opened, Err(OpenError::Other(_))), "{opened:?}");
}

#[test]
fn every_failure_while_committing_is_survived() {
    // Wherever the ESP fails, the run goes on to its second attempt, and ends committed.
    for at in 0.. {
        let machine = TestMachine::new(&["ralphos-a-g6.conf", "ralphos-b-g7+2-1.conf"], Slot::B, 7);
        let mut failed = false;
        // The first look is done before the failure is armed: it belongs to the commit.
        let log = Log::default();
        let ran = machine.run_with(&log, true, || {
            let mut esp = machine.esp.borrow_mut();
            esp.take_events();
            esp.fail_at(at);
        });
        failed |= machine.esp.borrow_mut().take_events().iter().any(|event| event.starts_with("FAILED"));
        assert!(ran.settled.done, "failure at event {at}: {:?}", ran.notes);
        assert!(
            matches!(ran.settled.verdict, Verdict::Commit | Verdict::Healthy),
            "failure at event {at}: {:?}",
            ran.notes
        );
        assert_eq!(machine.entries(), ["ralphos-a-g6.conf", "ralphos-b-g7.conf"], "failure at event {at}");
        assert!(log.events().contains(&"tell ralphd".to_owned()));
        // Whichever attempt got through: its evidence once, and in the history what the checks recorded (HLT-31, HLT-40).
        assert_eq!(log.events().iter().filter(|event| *event == "evidence").count(), 1, "failure at event {at}");
        assert_eq!(machine.history(), [(EventKind::Committed, 7, "ralphd sha256:5e".into())], "failure at event {at}");
        if !failed {
            assert!(at > 10, "only {at} events in a commit?");
            return;
        }
    }
}
