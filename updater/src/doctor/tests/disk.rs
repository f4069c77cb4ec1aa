//! DOC-12 and DOC-13: the EFI partition and the disk.

use std::path::PathBuf;

use boot_entries::Space;
use boot_entries::fat::VolumeHealth;
use disk_layout::{LayoutError, TableHealth};

use super::*;
use crate::history::Records;
use crate::vitals::{EspVolume, NoVolume, WriteProtection};

fn with_volume(volume: Result<VolumeHealth, NoVolume>) -> FakeHost {
    let host = two_systems();
    host.vitals.borrow_mut().volume = Some(volume.map(|health| EspVolume { health, entries_room: None }));
    host.vitals.borrow_mut().esp_device = Some("/dev/vda1".into());
    host
}

#[test]
fn doc_12_a_volume_that_was_left_dirty_differs_or_is_none() {
    let health = VolumeHealth::default();
    let dirty = look(&with_volume(Ok(VolumeHealth { dirty: true, ..health })));
    assert_eq!(ids(&dirty), ["esp-dirty"]);
    assert_eq!(dirty.findings[0].command.as_deref(), Some("fsck.vfat -a /dev/vda1"));
    let failing = VolumeHealth { dirty: true, medium_failed: true, ..health };
    assert_eq!(ids(&look(&with_volume(Ok(failing)))), ["esp-dirty!"]);
    let differ = VolumeHealth { copies_differ: true, ..health };
    assert_eq!(ids(&look(&with_volume(Ok(differ)))), ["fat-copies-differ~"]);
    let none = look(&with_volume(Err(NoVolume::NotFat("no signature".into()))));
    assert_eq!(ids(&none), ["esp-not-fat!"]);
    assert!(none.findings[0].remedy.contains("erases /var"), "{none:?}");
    let failing = look(&with_volume(Err(NoVolume::Unreadable("bad sector".into()))));
    assert_eq!(ids(&failing), ["esp-unreadable!"], "a medium that fails is not one without a file system");
    assert!(failing.next_boot.is_some() && failing.findings[0].what.ends_with("bad sector"), "{failing:?}");
}

#[test]
fn doc_12_a_directory_of_entries_that_must_grow_soon() {
    let with_room = |mut host: FakeHost, free: usize, staged: bool| {
        if staged {
            host.put_system("ralphos-a-g3+3-0.conf", "3.0.0");
        }
        let room = EspVolume { health: VolumeHealth::default(), entries_room: Some(free) };
        host.vitals.borrow_mut().volume = Some(Ok(room));
        let found = ids(&look(&host));
        found.into_iter().filter(|id| id.starts_with("entries-room")).collect::<Vec<_>>()
    };
    assert_eq!(with_room(two_systems(), 31, false), ["entries-room"]);
    assert_eq!(with_room(two_systems(), 31, true), ["entries-room~"]);
    assert_eq!(with_room(two_systems(), 32, true), Vec::<String>::new());
}

#[test]
fn doc_12_an_esp_that_takes_no_writes_is_a_danger_and_nothing_on_it_is_called_repairable() {
    for protection in [WriteProtection::Mounted("/boot".into()), WriteProtection::Medium("/dev/vda1".into())] {
        let host = two_systems();
        host.with_esp(|esp| esp.put("loader/loader.conf", b"default ralphos-b*\n"));
        host.vitals.borrow_mut().esp_device = Some("/dev/vda1".into());
        host.vitals.borrow_mut().write_protection = Some(protection.clone());
        *host.guard.borrow_mut() = None;
        let diagnosis = look(&host);
        assert_eq!(ids(&diagnosis), ["esp-read-only!", "default-in-conf!", "guard-missing~"]);
        let command = diagnosis.findings[0].command.as_deref();
        let mounted = matches!(protection, WriteProtection::Mounted(_));
        assert_eq!(command, mounted.then_some("umount /boot && fsck.vfat -a /dev/vda1"));
    }
}

#[test]
fn doc_12_room_for_an_image_like_the_largest_one_and_for_a_larger_one() {
    let full = |clusters: u64, payload: usize| {
        let host = two_systems();
        host.with_esp(|esp| {
            esp.put("ralphos/b/g2-linux", &vec![1; payload]);
            esp.set_space(Space { cluster_size: 4096, free_clusters: clusters });
        });
        let found = look(&host).findings;
        found.into_iter().find(|finding| finding.id == "esp-full").map(|finding| finding.severity)
    };
    // 8 MiB of kernel, 1 MiB to spare, a few clusters; the fence of A frees three.
    assert_eq!(full(2000, 8 << 20), Some(Severity::Danger));
    assert_eq!(full(2048 + 256 + 10, 8 << 20), Some(Severity::Warning));
    assert_eq!(full(2048 + 205 + 256 + 10, 8 << 20), None);
}

#[test]
fn doc_13_a_slot_that_is_too_small_for_a_likely_next_image() {
    let small = |root: u64| {
        let host = two_systems();
        let mut entry = host.entry("ralphos-b-g2.conf".parse().unwrap(), "2.0.0");
        entry.options.hash_offset = root;
        host.with_esp(|esp| esp.put("loader/entries/ralphos-b-g2.conf", &entry.render(boot_entries::Liveness::Live)));
        ids(&look(&host))
    };
    // The slots have 2 MiB, and the tree takes a little.
    assert_eq!(small(1 << 20), Vec::<String>::new());
    assert_eq!(small(480 * 4096), ["slot-too-small~"]);
    assert_eq!(small(512 * 4096), ["slot-too-small!"]);
}

#[test]
fn doc_13_each_damage_of_the_partition_table() {
    let whole = TableHealth { primary: None, backup: None, differ: false, misplaced: false };
    let damage = || Some("bad checksum".to_owned());
    for (table, found) in [
        (TableHealth { primary: damage(), ..whole.clone() }, "gpt-primary-damaged!+"),
        (TableHealth { backup: damage(), ..whole.clone() }, "gpt-backup-damaged~+"),
        (TableHealth { backup: damage(), misplaced: true, ..whole.clone() }, "gpt-backup-misplaced"),
        (TableHealth { differ: true, ..whole.clone() }, "gpt-copies-differ!"),
    ] {
        let host = two_systems();
        host.vitals.borrow_mut().table = Some(table);
        host.vitals.borrow_mut().disk = Some("/dev/vda".into());
        assert_eq!(ids(&look(&host)), [found]);
        host.vitals.borrow_mut().clashes = vec!["/dev/vdb has partitions labelled SYSTEM_A and SYSTEM_B too".into()];
        let clash = look(&host);
        assert!(ids(&clash).contains(&"second-disk!".to_owned()));
        assert!(clash.findings.iter().all(|finding| !finding.fixable), "nothing is written while two disks look alike");
    }
    // The line to copy names the disk; where there is none, there is no line.
    for (disk, command) in [
        (Some("/dev/vda"), Some("sgdisk -e /dev/vda")),
        (Some("my disk.raw"), Some("sgdisk -e 'my disk.raw'")),
        (None, None),
    ] {
        let host = two_systems();
        host.vitals.borrow_mut().table = Some(TableHealth { backup: damage(), misplaced: true, ..whole.clone() });
        host.vitals.borrow_mut().disk = disk.map(PathBuf::from);
        assert_eq!(look(&host).findings[0].command.as_deref(), command);
    }
}

#[test]
fn doc_12_and_14_no_guard_and_no_history() {
    let mut host = two_systems();
    *host.guard.borrow_mut() = None;
    assert_eq!(ids(&look(&host)), ["guard-missing~+"]);
    *host.guard.borrow_mut() = Some(Default::default());
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("floor"), "many").unwrap();
    host.records = Records::in_dir(dir.path(), "boot");
    assert_eq!(ids(&look(&host)), ["records-unreadable~"]);
}

#[test]
fn doc_1_what_keeps_the_disk_from_being_opened_is_a_finding_too() {
    let image = |source| HostError::Image { path: PathBuf::from("disk.raw"), source };
    let guid = Default::default();
    for (error, id) in [
        (image(LayoutError::Xbootldr(5)), "xbootldr"),
        (image(LayoutError::Twice { label: "EFI", first: 1, second: 5 }), "same-partitions"),
        (image(LayoutError::SameGuid { first: 1, second: 5, guid }), "same-partitions"),
        (
            HostError::Booted(disk_layout::BootedError::TableChanged { disk: "/dev/vda".into(), number: 2 }),
            "table-changed",
        ),
        (HostError::Booted(disk_layout::BootedError::OtherEsp { loader: guid, esp: guid }), "other-esp"),
        (
            HostError::Booted(disk_layout::BootedError::Layout {
                disk: "/dev/vda".into(),
                source: LayoutError::Missing("SYSTEM_B"),
            }),
            "disk-unclear",
        ),
    ] {
        let diagnosis = diagnose_unopened(&error).unwrap();
        assert_eq!(ids(&diagnosis), [format!("{id}!")]);
        assert!(SPEC.contains(&format!("`{id}`")));
        assert!(diagnosis.next_boot.is_none() && diagnosis.left_out.len() == 1);
    }
    assert_eq!(diagnose_unopened(&image(LayoutError::Missing("EFI"))), None, "no disk of ours is no patient");
}
