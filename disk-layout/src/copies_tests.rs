//! Both copies of the table, damaged and repaired, the order of the writes, and a cut or failure at each (`DSK-6`).

use std::process::Command;

use qemu_tests::setup;

use super::*;
use crate::{Architecture, DiskLayout, NewDisk, Seed};

/// A disk in memory that records what is done to it, and can fail at any event.
#[derive(Debug, Clone, Default)]
struct FakeDisk {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    events: Vec<String>,
    fail_at: Option<usize>,
}

impl FakeDisk {
    fn of(file: &File) -> FakeDisk {
        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        FakeDisk { durable: bytes.clone(), bytes, ..FakeDisk::default() }
    }

    fn happens(&mut self, event: String) -> io::Result<()> {
        let fails = self.fail_at == Some(self.events.len());
        self.events.push(event);
        if fails { Err(io::Error::other("injected failure")) } else { Ok(()) }
    }
}

impl RawDisk for FakeDisk {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.happens(format!("read {} {}", offset / 512, bytes.len()))?;
        bytes.copy_from_slice(&self.bytes[offset as usize..][..bytes.len()]);
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.happens(format!("write {} {}", offset / 512, bytes.len()))?;
        self.bytes[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.happens("flush".to_owned())?;
        self.durable.clone_from(&self.bytes);
        Ok(())
    }
}

fn disk(sector_size: u64) -> (File, DiskLayout) {
    let file = tempfile::tempfile().unwrap();
    let disk = NewDisk {
        architecture: Architecture::X86_64,
        sector_size,
        esp_len: 1 << 20,
        slot_len: 1 << 20,
        var_len: 1 << 20,
        seed: Seed::Fixed(3),
    };
    let layout = disk.create(&file).unwrap();
    (file, layout)
}

/// Where each copy's header and first entry lie.
fn places(layout: &DiskLayout, which: TableCopy) -> [u64; 2] {
    let (size, sectors) = (layout.sector_size, layout.disk_len / layout.sector_size);
    match which {
        TableCopy::Primary => [size, 2 * size],
        TableCopy::Backup => [(sectors - 1) * size, (sectors - 1) * size - 128 * 128],
    }
}

fn spoil(file: &File, offset: u64) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset + 20).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], offset + 20).unwrap();
}

fn written(disk: &FakeDisk) -> File {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&disk.bytes, 0).unwrap();
    file
}

#[test]
fn dsk_6_a_whole_table_is_whole_and_each_damage_is_told() {
    for sector_size in [512, 4096] {
        let (file, layout) = disk(sector_size);
        let whole = TableHealth { primary: None, backup: None, differ: false, misplaced: false };
        assert_eq!(TableHealth::read(&file).unwrap(), whole);
        for which in [TableCopy::Primary, TableCopy::Backup] {
            for place in places(&layout, which) {
                let (file, _) = disk(sector_size);
                spoil(&file, place);
                let health = TableHealth::read(&file).unwrap();
                assert_eq!(health.repairable(), Some(which), "{sector_size} {place}: {health:?}");
            }
        }
    }
}

#[test]
fn dsk_6_a_damaged_copy_is_rewritten_byte_for_byte() {
    for sector_size in [512, 4096] {
        for which in [TableCopy::Primary, TableCopy::Backup] {
            for number in 0..2 {
                let (file, layout) = disk(sector_size);
                let before = FakeDisk::of(&file);
                spoil(&file, places(&layout, which)[number]);
                let mut disk = FakeDisk::of(&file);
                repair_copy(&UpdateLock::for_tests(), &mut disk, sector_size, which).unwrap();
                assert!(disk.bytes == before.bytes, "{sector_size} {which:?} {number}: not as it was");
                assert!(disk.durable == disk.bytes);
            }
        }
    }
}

#[test]
fn dsk_6_entries_first_and_a_failure_at_each_event_leaves_the_whole_copy_whole() {
    let (file, layout) = disk(512);
    spoil(&file, places(&layout, TableCopy::Backup)[0]);
    let damaged = FakeDisk::of(&file);
    let last = layout.disk_len / 512 - 1;
    let expected = [
        "read 1 512".to_owned(),
        "read 2 16384".to_owned(),
        format!("write {} 16384", last - 32),
        "flush".to_owned(),
        format!("read {} 16384", last - 32),
        format!("write {last} 512"),
        "flush".to_owned(),
        format!("read {last} 512"),
    ];
    let lock = UpdateLock::for_tests();
    let mut disk = damaged.clone();
    repair_copy(&lock, &mut disk, 512, TableCopy::Backup).unwrap();
    assert_eq!(disk.events, expected);
    for event in 0..expected.len() {
        let mut disk = FakeDisk { fail_at: Some(event), ..damaged.clone() };
        let error = repair_copy(&lock, &mut disk, 512, TableCopy::Backup).unwrap_err();
        assert!(matches!(error, RepairError::Io { .. }), "{error:?}");
        assert_eq!(disk.events, expected[..=event], "nothing comes after what failed");
        let after = written(&disk);
        assert_eq!(DiskLayout::read(&after).unwrap(), layout, "event {event}");
        let health = TableHealth::read(&after).unwrap();
        assert_eq!(health.backup.is_none(), event > 5, "event {event}: {health:?}");
        disk.fail_at = None;
        repair_copy(&lock, &mut disk, 512, TableCopy::Backup).unwrap();
        assert_eq!(TableHealth::read(&written(&disk)).unwrap().repairable(), None, "again, and it ends well");
    }
}

#[test]
fn dsk_6_what_is_not_whole_is_never_copied() {
    let (file, layout) = disk(512);
    for place in places(&layout, TableCopy::Primary) {
        let mut disk = FakeDisk::of(&file);
        disk.bytes[place as usize + 20] ^= 1;
        let before = disk.bytes.clone();
        let error = repair_copy(&UpdateLock::for_tests(), &mut disk, 512, TableCopy::Backup).unwrap_err();
        assert!(matches!(error, RepairError::Source(_)), "{error:?}");
        assert!(disk.bytes == before);
    }
    // A medium that takes nothing, and says it did.
    #[derive(Debug)]
    struct Liar(FakeDisk);
    impl RawDisk for Liar {
        fn size(&self) -> u64 {
            self.0.size()
        }
        fn read(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
            self.0.read(offset, bytes)
        }
        fn write(&mut self, _: u64, _: &[u8]) -> io::Result<()> {
            Ok(())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    spoil(&file, places(&layout, TableCopy::Backup)[1]);
    let error = repair_copy(&UpdateLock::for_tests(), &mut Liar(FakeDisk::of(&file)), 512, TableCopy::Backup);
    assert!(matches!(error.unwrap_err(), RepairError::NotAsWritten));
}

#[test]
fn dsk_6_a_table_with_gaps_keeps_its_numbers_and_a_grown_disk_is_left_alone() {
    setup::ensure_tools().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.raw");
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    file.set_len(8 << 20).unwrap();
    let sgdisk = |args: &[&str]| {
        let out = Command::new("sgdisk").args(args).arg(&path).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    sgdisk(&["-n", "1:2048:4095", "-n", "3:4096:6143", "-n", "5:6144:8191"]);
    let before = PartitionTable::read(&file).unwrap();
    assert_eq!(before.partitions.iter().map(|p| p.number).collect::<Vec<_>>(), [1, 3, 5]);
    let last = (8 << 20) - 512;
    spoil(&file, last);
    let lock = UpdateLock::for_tests();
    repair_copy(&lock, &mut DiskFile::open(&path).unwrap(), 512, TableCopy::Backup).unwrap();
    spoil(&file, 512);
    repair_copy(&lock, &mut DiskFile::open(&path).unwrap(), 512, TableCopy::Primary).unwrap();
    assert_eq!(PartitionTable::read(&file).unwrap(), before);
    assert!(sgdisk(&["-v"]).contains("No problems found"));

    file.set_len(9 << 20).unwrap();
    let grown = TableHealth::read(&file).unwrap();
    assert!(grown.misplaced && grown.backup.is_some() && grown.repairable().is_none(), "{grown:?}");
}
