//! The record's file on real FAT volumes, made by the FAT library.

use std::io::Cursor;
use std::os::unix::fs::FileExt;

use disk_layout::{Architecture, NewDisk, Seed, Slot, UpdateLock};

use super::*;
use crate::esp::{Esp, FakeEsp, ImageEsp};
use crate::fat::{ClusterFault, FormatOptions, Volume, format_esp};
use crate::names::Generation;

type Memory = Cursor<Vec<u8>>;

fn path(text: &str) -> EspPath {
    text.parse().unwrap()
}

/// An ESP with the directories of one, 512-byte sectors.
fn volume() -> ImageEsp<Memory> {
    let mut memory = Cursor::new(vec![0; 40 << 20]);
    format_esp(&mut memory, FormatOptions { label: "EFI", serial: 1, sector_size: 512 }).unwrap();
    ImageEsp::new(memory)
}

fn put(esp: &mut ImageEsp<Memory>, name: &str, content: &[u8]) {
    esp.write_new(&path(name), content.len() as u64, &mut &content[..]).unwrap();
}

fn lock() -> UpdateLock {
    UpdateLock::for_tests()
}

fn record(boots: u32) -> GuardRecord {
    let generation = Generation::new(7).unwrap();
    let text = GuardText::sanitised("deadline");
    let event = GuardEvent { slot: Slot::B, generation, attempt: Some(1), text };
    GuardRecord { boots, entry: Some((Slot::B, generation)), done: Some(1), event: Some(event) }
}

#[test]
fn grd1_the_record_is_written_in_place_and_nothing_else_changes() {
    let mut esp = volume();
    put(&mut esp, "ralphos/a/g1-linux", &[0x5a; 3000]);
    assert_eq!(ensure(&lock(), &mut esp).unwrap(), Ensured::Made);
    put(&mut esp, "ralphos/a/g1-initrd", &[0xa5; 3000]);
    assert_eq!(ensure(&lock(), &mut esp).unwrap(), Ensured::Present);

    let mut memory = esp.into_inner();
    let before = memory.clone().into_inner();
    let file = GuardFile::locate(&mut memory, 512).unwrap();
    assert_eq!(file.read(&mut memory).unwrap(), GuardRecord::default());
    file.write(&mut memory, &record(3)).unwrap();
    assert_eq!(file.read(&mut memory).unwrap(), record(3));
    let offset = usize::try_from(file.offset()).unwrap();
    let after = memory.get_ref();
    assert_eq!(after[..offset], before[..offset]);
    assert_eq!(after[offset + 512..], before[offset + 512..]);

    // And it is the file's beginning.
    let mut esp = ImageEsp::new(memory);
    let bytes = esp.read(&guard_path(), 4096).unwrap();
    assert_eq!(GuardRecord::decode(&bytes), Ok(record(3)));
    assert_eq!(ensure(&lock(), &mut esp).unwrap(), Ensured::Present, "whatever it holds");
    assert_eq!(esp.read(&guard_path(), 4096).unwrap(), bytes);
}

#[test]
fn grd2_a_damaged_sector_reads_as_an_empty_record_and_can_be_written() {
    let mut esp = volume();
    ensure(&lock(), &mut esp).unwrap();
    let mut memory = esp.into_inner();
    let file = GuardFile::locate(&mut memory, 512).unwrap();
    file.write(&mut memory, &record(3)).unwrap();
    let offset = usize::try_from(file.offset()).unwrap();
    memory.get_mut()[offset + 12] ^= 1;
    assert!(GuardRecord::decode(&file.read_sector(&mut memory).unwrap()).is_err());
    assert_eq!(file.read(&mut memory).unwrap(), GuardRecord::default());
    file.write(&mut memory, &record(1)).unwrap();
    assert_eq!(file.read(&mut memory).unwrap(), record(1));
}

#[test]
fn grd1_what_cannot_be_written_in_place_is_no_guard() {
    let locate = |esp: ImageEsp<Memory>| GuardFile::locate(&mut esp.into_inner(), 512);
    assert!(matches!(locate(volume()), Err(GuardError::Missing)));
    for size in [0, 1, 4095, 4097] {
        let mut esp = volume();
        put(&mut esp, "ralphos/guard", &vec![0; size]);
        assert!(matches!(locate(esp), Err(GuardError::Unusable(_))), "{size}");
    }
    let mut esp = volume();
    esp.make_dir(&path("ralphos/guard")).unwrap();
    assert!(matches!(locate(esp), Err(GuardError::Unusable(_))));
    // Clusters smaller than what the disk writes at once.
    let mut esp = volume();
    ensure(&lock(), &mut esp).unwrap();
    let found = GuardFile::locate(&mut esp.into_inner(), 4096);
    assert!(matches!(found, Err(GuardError::Unusable(_))), "{found:?}");
    assert!(matches!(GuardFile::locate(&mut Cursor::new(vec![0; 4096]), 512), Err(GuardError::Fat(_))));
}

/// Gives the name `to` the first cluster and size of `from`.
fn link(esp: ImageEsp<Memory>, from: &str, to: &str) -> ImageEsp<Memory> {
    let mut memory = esp.into_inner();
    let mut volume = Volume::open(&mut memory).unwrap();
    let mut slot = |name: &str| *volume.find(name).unwrap().unwrap().slots.last().unwrap() as usize;
    let (from, to) = (slot(from), slot(to));
    let bytes = memory.get_mut();
    for range in [20..22, 26..32] {
        bytes.copy_within(from + range.start..from + range.end, to + range.start);
    }
    ImageEsp::new(memory)
}

#[test]
fn grd1_ent22_shared_clusters_are_no_guard_and_ensure_makes_another() {
    let mut esp = volume();
    put(&mut esp, "ralphos/a/g1-linux", &[0x5a; 4096]);
    put(&mut esp, "ralphos/guard", &[0; 4096]);
    let mut memory = link(esp, "ralphos/a/g1-linux", "ralphos/guard").into_inner();
    assert!(matches!(GuardFile::locate(&mut memory, 512), Err(GuardError::Unusable(_))));

    let mut esp = ImageEsp::new(memory);
    assert_eq!(ensure(&lock(), &mut esp).unwrap(), Ensured::MadeAnew);
    assert_eq!(esp.read(&path("ralphos/a/g1-linux"), 4096).unwrap(), [0x5a; 4096], "nothing of it was freed");
    let mut memory = esp.into_inner();
    let file = GuardFile::locate(&mut memory, 512).unwrap();
    file.write(&mut memory, &record(1)).unwrap();
    assert_eq!(ImageEsp::new(memory).read(&path("ralphos/a/g1-linux"), 4096).unwrap(), [0x5a; 4096]);
}

#[test]
fn grd1_ensure_writes_flushes_and_reads_back() {
    let mut esp = FakeEsp::new();
    esp.put("ralphos/a/g1-linux", b"x");
    assert_eq!(ensure(&lock(), &mut esp).unwrap(), Ensured::Made);
    assert_eq!(esp.take_events(), ["write ralphos/guard", "flush", "read ralphos/guard"]);
    assert_eq!(ensure(&lock(), &mut esp).unwrap(), Ensured::Present);
    assert_eq!(esp.take_events(), ["check clusters"]);

    // Left by a cut while it was made.
    let mut esp = FakeEsp::new();
    esp.put("ralphos/guard", b"");
    assert_eq!(ensure(&lock(), &mut esp).unwrap(), Ensured::MadeAnew);
    let events =
        ["check clusters", "remove ralphos/guard", "flush", "write ralphos/guard", "flush", "read ralphos/guard"];
    assert_eq!(esp.take_events(), events);
    esp.set_faults(vec![ClusterFault::Broken { path: guard_path() }]);
    assert_eq!(ensure(&lock(), &mut esp).unwrap(), Ensured::MadeAnew);
    let events = ["check clusters", "drop ralphos/guard", "write ralphos/guard", "flush", "read ralphos/guard"];
    assert_eq!(esp.take_events(), events);
}

/// The file in `ralphos/` is nobody's payload: fence and tidy leave it, and the check of clusters does not mind it.
#[test]
fn grd1_ent22_a_fence_and_a_tidy_leave_the_record() {
    let mut esp = volume();
    ensure(&lock(), &mut esp).unwrap();
    put(&mut esp, "ralphos/b/g2-linux", &[1; 600]);
    let _ = crate::tidy(&lock(), &mut esp).unwrap();
    let _ = crate::fence(&lock(), &mut esp, Slot::B).unwrap();
    assert!(!esp.exists(&path("ralphos/b/g2-linux")).unwrap());
    assert_eq!(ensure(&lock(), &mut esp).unwrap(), Ensured::Present);
}

#[test]
fn grd1_in_a_disk_image_of_either_sector_size_the_record_stays_inside_its_file() {
    for sector_size in [512, 4096] {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("disk.img");
        let file = std::fs::File::options().read(true).write(true).create_new(true).open(&image).unwrap();
        let disk = NewDisk {
            architecture: Architecture::X86_64,
            sector_size,
            esp_len: 300 << 20,
            slot_len: 1 << 20,
            var_len: 1 << 20,
            seed: Seed::Fixed(1),
        };
        let layout = disk.create(&file).unwrap();
        let window = disk_layout::FileWindow::new(file, layout.esp.start, layout.esp.len).unwrap();
        let mut window = window;
        let sector = u16::try_from(sector_size).unwrap();
        format_esp(&mut window, FormatOptions { label: "EFI", serial: 1, sector_size: sector }).unwrap();
        let mut esp = ImageEsp::new(window);
        ensure(&lock(), &mut esp).unwrap();
        let mut guard = GuardDevice::open_image(&image, &layout).unwrap();
        guard.write(&record(4)).unwrap();
        guard.look_again().unwrap();
        assert_eq!(guard.read().unwrap(), record(4));
        drop(guard);
        assert_eq!(GuardDevice::open_image(&image, &layout).unwrap().read().unwrap(), record(4));

        // As a device: the partition's bytes alone, through the path that a block device takes.
        let partition = dir.path().join("partition");
        let whole = std::fs::File::open(&image).unwrap();
        let mut bytes = vec![0; usize::try_from(layout.esp.len).unwrap()];
        whole.read_exact_at(&mut bytes, layout.esp.start).unwrap();
        std::fs::write(&partition, bytes).unwrap();
        let mut guard = GuardDevice::open_partition(&partition, &layout).unwrap();
        assert_eq!(guard.read().unwrap(), record(4));
        guard.write(&record(5)).unwrap();
        assert_eq!(GuardDevice::open_partition(&partition, &layout).unwrap().read().unwrap(), record(5));
        let mut esp = ImageEsp::new(std::fs::File::options().read(true).write(true).open(&partition).unwrap());
        assert_eq!(GuardRecord::decode(&esp.read(&guard_path(), 4096).unwrap()), Ok(record(5)));
    }
}
