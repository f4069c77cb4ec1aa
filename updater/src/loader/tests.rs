use std::fs;

use tempfile::TempDir;

use super::*;
use crate::session::hex;
use crate::testing::{FakeHost, started_by};
use crate::uki::tests::program;

const DEFAULT: &str = "EFI/BOOT/BOOTX64.EFI";
const ALTERNATE: &str = "EFI/BOOT/BOOTX64.ALT";
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// The number of our option, as it stands in an order.
const OURS: [u8; 2] = [0xff, 0x0f];
const X86_64: u16 = 0x8664;
const LOADER: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// A small program that says that it is systemd-boot of this release.
fn loader(version: &str) -> Vec<u8> {
    program_of(X86_64, version, b"")
}

fn program_of(machine: u16, version: &str, more: &[u8]) -> Vec<u8> {
    let info = format!("#### LoaderInfo: systemd-boot {version} ####");
    program(machine, &[(".sdmagic", info.as_bytes()), (".more", more)])
}

/// A machine whose default loader is 252, and whose running system carries another one.
struct Machine {
    host: FakeHost,
    root: TempDir,
    vars: TempDir,
}

impl Machine {
    fn new(carried: &[u8]) -> Self {
        let (root, vars) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        for (path, content) in
            [(&SHIPPED[1..], carried), ("proc/sys/kernel/bootloader_type", b"176\n"), ("run/ralphos/committed", b"")]
        {
            fs::create_dir_all(root.path().join(path).parent().unwrap()).unwrap();
            fs::write(root.path().join(path), content).unwrap();
        }
        let mut host = FakeHost::new();
        host.efivars = Some(vars.path().to_owned());
        let machine = Self { host, root, vars };
        machine.put(DEFAULT, &loader("252.39"));
        machine.set(GLOBAL, "BootOrder", &[3, 0, 1, 0]);
        machine.set(GLOBAL, "BootCurrent", &[1, 0]);
        machine.set(GLOBAL, "Boot0001", b"\x01\0\0\0\0\0x\0\0\0");
        machine.set(GLOBAL, "Boot0003", b"\x01\0\0\0\0\0y\0\0\0");
        machine.started_by("\\EFI\\BOOT\\BOOTX64.EFI");
        machine
    }

    fn put(&self, path: &str, bytes: &[u8]) {
        self.host.with_esp(|esp| esp.put(path, bytes));
    }

    fn content(&self, path: &str) -> Option<Vec<u8>> {
        self.host.with_esp(|esp| esp.content(path).map(<[u8]>::to_vec))
    }

    fn set(&self, guid: &str, name: &str, value: &[u8]) {
        fs::write(self.vars.path().join(format!("{name}-{guid}")), [&[7, 0, 0, 0], value].concat()).unwrap();
    }

    fn get(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.vars.path().join(format!("{name}-{GLOBAL}"))).ok().map(|bytes| bytes[4..].to_vec())
    }

    fn started_by(&self, path: &str) {
        started_by(self.vars.path(), path);
    }

    fn forget_next(&self) {
        let _ = fs::remove_file(self.vars.path().join(format!("BootNext-{GLOBAL}")));
    }

    /// What our option says of the alternate loader.
    fn standing(&self) -> Option<String> {
        let option = self.get("Boot0FFF")?;
        let units: Vec<u16> = option[6..].chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect();
        let text = String::from_utf16_lossy(units.split(|unit| *unit == 0).next()?);
        let inside = text.strip_prefix("RalphOS alternate boot loader (")?.strip_suffix(")")?;
        let (standing, digest) = inside.split_once(", ")?;
        let of = |path| self.content(path).map(|bytes| hex(&Program::of(&bytes).sha256[..4]));
        assert!([of(ALTERNATE), of(DEFAULT)].contains(&Some(digest.to_owned())), "of another file");
        Some(standing.to_owned())
    }

    /// What the alternate is said to be.
    fn stands(&self, standing: Standing) {
        let variables = BootVariables::in_dir(self.vars.path());
        let sha256 = Program::of(&self.content(ALTERNATE).unwrap()).sha256;
        variables.set_option(&self.host.layout, "\\EFI\\BOOT\\BOOTX64.ALT", standing, &sha256).unwrap();
    }

    /// What the firmware does at the next boot: it forgets `BootNext`, and starts what stands there if it can.
    fn reboot(&self) {
        let next = self.get("BootNext");
        self.forget_next();
        let _ = fs::remove_file(self.root.path().join(LOADERS_SWAPPED));
        let alternate = next.is_some() && self.content(ALTERNATE).is_some();
        self.set(GLOBAL, "BootCurrent", if alternate { next.as_deref().unwrap() } else { &[1, 0] });
        self.started_by(if alternate { "\\EFI\\BOOT\\BOOTX64.ALT" } else { "\\EFI\\BOOT\\BOOTX64.EFI" });
    }

    fn update(&self, retry: Retry) -> Result<Done, LoaderError> {
        update(&self.host, self.root.path(), retry)
    }
}

#[test]
fn lup_4_a_loader_is_staged_tried_and_promoted_and_the_one_before_it_kept() {
    let (old, new) = (loader("252.39"), loader("257.13"));
    let machine = Machine::new(&new);
    assert!(matches!(machine.update(Retry::No).unwrap(), Done::Staged(_)));
    assert_eq!((machine.content(DEFAULT), machine.content(ALTERNATE)), (Some(old.clone()), Some(new.clone())));
    assert_eq!((machine.get("BootNext"), machine.standing().as_deref()), (Some(OURS.to_vec()), Some("try 1")));
    assert_eq!(machine.get("BootOrder"), Some(vec![3, 0, 1, 0]), "not in the order while it is not proven");
    assert!(matches!(machine.update(Retry::No).unwrap(), Done::Waits(_)));

    machine.reboot();
    let Done::Promoted { program, previous, notes } = machine.update(Retry::No).unwrap() else {
        panic!("not promoted")
    };
    assert_eq!((program.version.as_deref(), previous.version.as_deref()), (Some("257.13"), Some("252.39")));
    assert_eq!(notes.iter().filter(|note| !note.contains("history")).count(), 0, "{notes:?}");
    assert_eq!((machine.content(DEFAULT), machine.content(ALTERNATE)), (Some(new), Some(old)));
    assert_eq!(machine.standing().as_deref(), Some("previous"));
    // In this boot, whose loader has another name by now.
    assert!(matches!(machine.update(Retry::No).unwrap(), Done::Current { .. }));
    assert_eq!(machine.get("BootOrder"), Some(vec![3, 0, 1, 0]));
    // And in the next one, from its own place: now the one before it stands behind all others.
    machine.reboot();
    let Done::Current { notes, .. } = machine.update(Retry::No).unwrap() else { panic!("not current") };
    assert_eq!((notes, machine.get("BootOrder")), (vec![], Some(vec![3, 0, 1, 0, OURS[0], OURS[1]])));
    // Where somebody has put it first, too.
    machine.set(GLOBAL, "BootOrder", &[OURS[0], OURS[1], 3, 0, 1, 0]);
    machine.update(Retry::No).unwrap();
    assert_eq!(machine.get("BootOrder"), Some(vec![3, 0, 1, 0, OURS[0], OURS[1]]));
}

#[test]
fn lup_6_the_default_is_not_touched_and_the_firmware_is_asked_when_the_file_is_whole() {
    let machine = Machine::new(&loader("257.13"));
    machine.put(ALTERNATE, b"the one before 252");
    machine.stands(Standing::Previous);
    machine.set(GLOBAL, "BootOrder", &[3, 0, 1, 0, OURS[0], OURS[1]]);
    machine.host.take_log();
    machine.update(Retry::No).unwrap();
    let log = machine.host.take_log();
    let wrote: Vec<&str> =
        log.iter().map(String::as_str).filter(|event| event.contains("EFI/BOOT") && !event.contains("read")).collect();
    let (remove, write) = (format!("esp remove {ALTERNATE}"), format!("esp write {ALTERNATE}"));
    assert_eq!(wrote, [remove.as_str(), write.as_str()]);
    let at = |wanted: &str| log.iter().position(|event| event == wanted).unwrap();
    assert!(log[at(&remove) + 1..at(&write)].contains(&"esp flush".to_owned()), "{log:?}");
    assert!(log[at(&write) + 1..].contains(&"esp flush".to_owned()), "{log:?}");
    assert_eq!(machine.get("BootOrder"), Some(vec![3, 0, 1, 0]));

    // Whatever of the files fails, nobody was asked for it.
    for failing in 0..60 {
        let machine = Machine::new(&loader("257.13"));
        machine.host.with_esp(|esp| {
            esp.take_events();
            esp.fail_at(failing);
        });
        let failed = machine.update(Retry::No).is_err();
        assert_eq!(machine.get("BootNext").is_none(), failed, "{failing}");
    }
}

#[test]
fn lup_4_what_was_tried_twice_and_did_not_start_the_system_is_not_tried_again() {
    let machine = Machine::new(&loader("257.13"));
    for standing in ["try 1", "try 2"] {
        assert!(matches!(machine.update(Retry::No).unwrap(), Done::Staged(_)));
        assert_eq!((machine.get("BootNext"), machine.standing().as_deref()), (Some(OURS.to_vec()), Some(standing)));
        // The firmware could not start it.
        machine.forget_next();
    }
    assert!(matches!(machine.update(Retry::No), Err(LoaderError::DidNotStart(_))));
    assert!(matches!(machine.update(Retry::Yes).unwrap(), Done::Staged(_)));
    assert_eq!(machine.get("BootNext"), Some(OURS.to_vec()));
    // Nobody knows any more what was asked: it is not asked for again and again.
    machine.forget_next();
    fs::remove_file(machine.vars.path().join(format!("Boot0FFF-{GLOBAL}"))).unwrap();
    assert!(matches!(machine.update(Retry::No), Err(LoaderError::DidNotStart(_))));
}

#[test]
fn lup_7_a_loader_that_has_started_the_system_is_put_in_place_by_a_later_boot_if_not_by_this_one() {
    let machine = Machine::new(&loader("257.13"));
    machine.update(Retry::No).unwrap();
    machine.reboot();
    machine.host.with_esp(|esp| esp.set_busy(true));
    assert!(machine.update(Retry::No).is_err());
    assert_eq!(machine.content(DEFAULT), Some(loader("252.39")));
    machine.reboot();
    machine.host.with_esp(|esp| esp.set_busy(false));
    assert!(matches!(machine.update(Retry::No).unwrap(), Done::Promoted { .. }));
    assert_eq!(machine.content(DEFAULT), Some(loader("257.13")));
}

#[test]
fn lup_6_where_the_system_has_the_volume_mounted_nothing_is_written() {
    let machine = Machine::new(&loader("257.13"));
    machine.host.with_esp(|esp| esp.set_busy(true));
    assert!(matches!(machine.update(Retry::No), Err(LoaderError::Esp(EspError::Busy { .. }))));
    assert_eq!((machine.content(ALTERNATE), machine.get("BootNext")), (None, None));
}

#[test]
fn lup_4_a_slot_that_is_gone_back_to_takes_no_loader_along() {
    let machine = Machine::new(&loader("257.13"));
    machine.update(Retry::No).unwrap();
    machine.reboot();
    machine.update(Retry::No).unwrap();
    // The other slot carries what is the alternate now.
    fs::write(machine.root.path().join(&SHIPPED[1..]), loader("252.39")).unwrap();
    machine.reboot();
    assert!(matches!(machine.update(Retry::No).unwrap(), Done::Newer { .. }));
    // Even where that is what has started it.
    machine.started_by("\\EFI\\BOOT\\BOOTX64.ALT");
    assert!(matches!(machine.update(Retry::Yes), Err(LoaderError::OnAlternate { .. })));
    assert_eq!(machine.content(DEFAULT), Some(loader("257.13")));
}

#[test]
fn lup_4_a_machine_that_runs_on_the_alternate_is_not_current() {
    let machine = Machine::new(&loader("257.13"));
    machine.put(DEFAULT, &loader("257.13"));
    machine.put(ALTERNATE, &loader("252.39"));
    machine.started_by("\\EFI\\BOOT\\BOOTX64.ALT");
    assert!(matches!(machine.update(Retry::No), Err(LoaderError::OnAlternate { .. })));
}

#[test]
fn lup_3_no_loader_is_tried_by_the_trial_of_a_slot() {
    let mut machine = Machine::new(&loader("257.13"));
    machine.update(Retry::No).unwrap();
    let notes = stand_back(&machine.host);
    assert!(notes[0].contains("waits"), "{notes:?}");
    assert_eq!((machine.get("BootNext"), machine.standing().as_deref()), (None, Some("waits")));
    assert!(stand_back(&machine.host).is_empty());
    machine.host.put_system("ralphos-b-g2+3-0.conf", "2.0.0");
    assert!(matches!(machine.update(Retry::No).unwrap(), Done::NotNow("update-staged", _)));
    // The trial is over, and the loader's own first try begins.
    machine.host.with_esp(|esp| esp.take("loader/entries/ralphos-b-g2+3-0.conf"));
    assert!(matches!(machine.update(Retry::No).unwrap(), Done::Staged(_)));
    assert_eq!(machine.standing().as_deref(), Some("try 1"));
    // Of a slot that carries what is in place already it is not asked either.
    fs::write(machine.root.path().join(&SHIPPED[1..]), loader("252.39")).unwrap();
    assert!(matches!(machine.update(Retry::No).unwrap(), Done::Current { .. }));
    assert_eq!(machine.get("BootNext"), None);
}

#[test]
fn lup_4_the_only_loader_that_works_is_not_overwritten() {
    let machine = Machine::new(&loader("257.13"));
    machine.put(DEFAULT, b"no program");
    machine.put(ALTERNATE, &loader("251"));
    machine.started_by("\\EFI\\BOOT\\BOOTX64.ALT");
    assert!(matches!(machine.update(Retry::Yes), Err(LoaderError::OnAlternate { .. })));
    assert_eq!(machine.content(ALTERNATE), Some(loader("251")));
    // Unless it is the very one: then it is put in the default's place.
    machine.put(ALTERNATE, &loader("257.13"));
    assert!(matches!(machine.update(Retry::No).unwrap(), Done::Promoted { .. }));
    assert_eq!(machine.content(DEFAULT), Some(loader("257.13")));
}

#[test]
fn lup_4_an_older_loader_is_left_where_it_is_and_one_signed_anew_is_not() {
    let machine = Machine::new(&loader("251.9"));
    assert!(matches!(machine.update(Retry::No).unwrap(), Done::Newer { .. }));
    let anew = program_of(X86_64, "252.39", b"signed by another key");
    let machine = Machine::new(&anew);
    assert!(matches!(machine.update(Retry::No).unwrap(), Done::Staged(_)));
}

#[test]
fn lup_2_lup_3_where_nothing_is_done() {
    let machine = Machine::new(&loader("257.13"));
    fs::remove_file(machine.root.path().join(&SHIPPED[1..])).unwrap();
    assert_eq!(machine.update(Retry::No).unwrap(), Done::NotShipped);

    for (bytes, refused) in [
        (b"no program".to_vec(), "program"),
        (program(X86_64, &[(".text", b"x")]), "which release"),
        (program_of(0xaa64, "257.13", b""), "another architecture"),
    ] {
        let machine = Machine::new(&bytes);
        let error = machine.update(Retry::No).unwrap_err();
        assert!(with_source(&error).contains(refused), "{}", with_source(&error));
        assert_eq!((machine.content(ALTERNATE), machine.get("BootNext")), (None, None));
    }

    let machine = Machine::new(&loader("257.13"));
    machine.started_by("\\EFI\\systemd\\systemd-bootx64.efi");
    assert!(matches!(machine.update(Retry::No).unwrap(), Done::NotNow("other-loader", _)));
    let path: Vec<u8> = "\\EFI\\BOOT\\BOOTX64.ALT\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let kept = [&[7, 0, 0, 0], &path[..]].concat();
    fs::write(machine.vars.path().join(format!("LoaderImageIdentifier-{LOADER}")), kept).unwrap();
    assert!(matches!(machine.update(Retry::No).unwrap(), Done::NotNow("other-loader", _)), "somebody else's word");
    let machine = Machine::new(&loader("257.13"));
    fs::write(machine.root.path().join("proc/sys/kernel/bootloader_type"), "208\n").unwrap();
    assert!(matches!(machine.update(Retry::No).unwrap(), Done::NotNow("kexec", _)));
    let mut machine = Machine::new(&loader("257.13"));
    machine.host.efivars = None;
    assert!(matches!(machine.update(Retry::No), Err(LoaderError::NoFirmware)));
    let mut machine = Machine::new(&loader("257.13"));
    machine.host.put_system("ralphos-b-g2+2-1.conf", "2.0.0");
    machine.host.boot("ralphos-b-g2+2-1.conf", "2.0.0");
    assert!(matches!(machine.update(Retry::No), Err(LoaderError::OnTrial)));
    assert_eq!(machine.content(ALTERNATE), None);
}

#[test]
fn lup_5_what_is_known_is_known_of_one_file_on_one_disk() {
    // Another file than the one that the firmware's option is about: it may hang.
    let machine = Machine::new(&loader("252.39"));
    machine.put(ALTERNATE, &loader("251"));
    machine.stands(Standing::Previous);
    machine.put(ALTERNATE, &loader("258"));
    machine.update(Retry::No).unwrap();
    assert_eq!(machine.get("BootOrder"), Some(vec![3, 0, 1, 0]));
    fs::write(machine.root.path().join(&SHIPPED[1..]), loader("258")).unwrap();
    assert!(matches!(machine.update(Retry::No), Err(LoaderError::DidNotStart(_))));
    // Proven in a slot that was left before it could be put in place: no kept loader, and promoted when that slot is back.
    machine.stands(Standing::Proven);
    fs::write(machine.root.path().join(&SHIPPED[1..]), loader("252.39")).unwrap();
    machine.update(Retry::No).unwrap();
    assert_eq!((machine.get("BootOrder"), machine.standing().as_deref()), (Some(vec![3, 0, 1, 0]), Some("proven")));
    fs::write(machine.root.path().join(&SHIPPED[1..]), loader("258")).unwrap();
    assert!(matches!(machine.update(Retry::No).unwrap(), Done::Promoted { .. }));
}

#[test]
fn lup_3_taking_a_choice_back_forgets_no_try() {
    let machine = Machine::new(&loader("257.13"));
    machine.update(Retry::No).unwrap();
    machine.forget_next();
    machine.update(Retry::No).unwrap();
    assert_eq!(machine.standing().as_deref(), Some("try 2"));
    stand_back(&machine.host);
    assert_eq!((machine.get("BootNext"), machine.standing().as_deref()), (None, Some("try 1")));
}

#[test]
fn lup_7_what_has_proved_itself_is_put_in_place_though_an_update_is_staged() {
    let mut machine = Machine::new(&loader("257.13"));
    machine.update(Retry::No).unwrap();
    machine.reboot();
    machine.host.put_system("ralphos-b-g2+3-0.conf", "2.0.0");
    assert!(matches!(machine.update(Retry::No).unwrap(), Done::Promoted { .. }));
}

#[test]
fn lup_4_somebody_s_own_choice_of_a_loader_that_is_proven_is_his_but_for_an_apply() {
    let machine = Machine::new(&loader("252.39"));
    machine.put(ALTERNATE, &loader("251"));
    machine.stands(Standing::Previous);
    machine.set(GLOBAL, "BootNext", &OURS);
    machine.update(Retry::No).unwrap();
    assert_eq!(machine.get("BootNext"), Some(OURS.to_vec()));
    stand_back(&machine.host);
    assert_eq!((machine.get("BootNext"), machine.standing().as_deref()), (None, Some("previous")));
}

#[test]
fn lup_5_an_order_that_does_not_hold_what_was_started_is_left_without_it() {
    let machine = Machine::new(&loader("257.13"));
    machine.put(DEFAULT, &loader("257.13"));
    machine.put(ALTERNATE, &loader("252.39"));
    machine.stands(Standing::Previous);
    machine.set(GLOBAL, "BootOrder", &[OURS[0], OURS[1], 3, 0]);
    let Done::Current { notes, .. } = machine.update(Retry::No).unwrap() else { panic!("not current") };
    assert!(notes[0].contains("order of boot options"), "{notes:?}");
    assert_eq!(machine.get("BootOrder"), Some(vec![3, 0]));
}

#[test]
fn lup_5_the_option_is_the_short_path_of_uefi() {
    let machine = Machine::new(&loader("257.13"));
    machine.update(Retry::No).unwrap();
    let option = machine.get("Boot0FFF").unwrap();
    let esp = &machine.host.layout.esp;
    let at = 6 + 2 * ("RalphOS alternate boot loader (try 1, 01234567)".len() + 1);
    assert_eq!(option[..4], [1, 0, 0, 0]);
    assert_eq!(usize::from(u16::from_le_bytes([option[4], option[5]])), option.len() - at);
    assert_eq!(option[at..at + 8], [4, 1, 42, 0, 1, 0, 0, 0]);
    assert_eq!(option[at + 8..at + 16], (esp.start / 512).to_le_bytes());
    assert_eq!(option[at + 16..at + 24], (esp.len / 512).to_le_bytes());
    assert_eq!(option[at + 24..at + 40], esp.unique_guid.to_bytes_le());
    assert_eq!(option[at + 40..at + 44], [2, 2, 4, 4]);
    let file: Vec<u8> = "\\EFI\\BOOT\\BOOTX64.ALT\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(option[at + 46..option.len() - 4], file);
    assert_eq!(option[option.len() - 4..], [0x7F, 0xFF, 4, 0]);
}

#[test]
fn lup_6_a_loader_that_was_cut_is_taken_away_and_a_folder_that_is_broken_is_left() {
    let path = |text: &str| EspPath::literal(text);
    let machine = Machine::new(&loader("257.13"));
    machine.put(ALTERNATE, b"");
    machine.host.with_esp(|esp| esp.set_faults(vec![ClusterFault::Broken { path: path(ALTERNATE) }]));
    assert!(matches!(machine.update(Retry::No).unwrap(), Done::Staged(_)));
    for fault in [
        ClusterFault::Broken { path: path(DEFAULT) },
        ClusterFault::Shared { first: path(DEFAULT), second: path(ALTERNATE), same_start: true },
    ] {
        let machine = Machine::new(&loader("257.13"));
        machine.put(ALTERNATE, &loader("251"));
        machine.host.with_esp(|esp| esp.set_faults(vec![fault]));
        assert!(machine.update(Retry::No).is_err());
        assert_eq!((machine.content(ALTERNATE), machine.get("BootNext")), (Some(loader("251")), None));
    }
}

#[test]
fn lup_7_a_default_that_is_damaged_or_gone_is_replaced_by_what_has_started_the_system() {
    for broken in [true, false] {
        let machine = Machine::new(&loader("257.13"));
        machine.put(DEFAULT, b"torn");
        machine.put(ALTERNATE, &loader("257.13"));
        machine.started_by("\\EFI\\BOOT\\BOOTX64.ALT");
        machine.host.with_esp(|esp| {
            let path = EspPath::literal(DEFAULT);
            if broken { esp.set_faults(vec![ClusterFault::Broken { path }]) } else { esp.take(DEFAULT) }
        });
        assert!(matches!(machine.update(Retry::No).unwrap(), Done::Promoted { .. }), "{broken}");
        assert_eq!(machine.content(DEFAULT), Some(loader("257.13")));
    }
}

#[test]
fn lup_6_lup_7_what_fails_anywhere_leaves_a_whole_default_and_comes_to_the_same_end() {
    let (old, new) = (loader("252.39"), loader("257.13"));
    for promoting in [false, true] {
        for failing in 0..60 {
            let machine = Machine::new(&new);
            if promoting {
                machine.update(Retry::No).unwrap();
                machine.reboot();
            }
            machine.host.with_esp(|esp| {
                esp.take_events();
                esp.fail_at(failing);
            });
            let _ = machine.update(Retry::No);
            machine.host.with_esp(|esp| {
                for cut in esp.after_power_cut() {
                    let default = cut.content(DEFAULT);
                    assert!([&old, &new].iter().any(|whole| Some(&whole[..]) == default), "{failing}");
                }
                esp.fail_at(usize::MAX);
            });
            for _ in 0..3 {
                machine.reboot();
                // One that did not read back in its place is for a person to try again.
                match machine.update(Retry::No) {
                    Err(LoaderError::DidNotStart(_)) => drop(machine.update(Retry::Yes).unwrap()),
                    done => drop(done.unwrap()),
                }
            }
            assert_eq!(
                (machine.content(DEFAULT), machine.content(ALTERNATE)),
                (Some(new.clone()), Some(old.clone())),
                "{failing}"
            );
        }
    }
}

#[test]
fn doc_12_a_try_of_the_alternate_is_no_fallback_to_it() {
    let machine = Machine::new(&loader("257.9"));
    machine.put(ALTERNATE, &loader("257.9"));
    machine.started_by("\\EFI\\BOOT\\BOOTX64.ALT");
    for (standing, kept_started) in [(Standing::FirstTry, false), (Standing::Proven, false), (Standing::Previous, true)]
    {
        machine.stands(standing);
        let found = machine.host.with_esp(|esp| inspect(&machine.host, esp, &FirmwareTrust::Open)).unwrap();
        assert_eq!((found.kept_started, found.fault), (kept_started, None), "{standing:?}");
    }
}
