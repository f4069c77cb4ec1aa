//! Partition tables in real files, judged by `sgdisk` and by our own reader.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use disk_layout::{
    ALIGNMENT, ATTRIBUTE_NO_AUTO, ATTRIBUTE_READ_ONLY, Architecture, CopyError, CreateError, DiskLayout, LayoutError,
    NewDisk, PartitionTable, Seed, Slot, TYPE_ESP, TYPE_VAR, TableCopy, TableError,
};
use gpt::disk::LogicalBlockSize;
use qemu_tests::setup;
use uuid::Uuid;

const MIB: u64 = 1 << 20;

fn new_disk() -> NewDisk {
    NewDisk {
        architecture: Architecture::X86_64,
        sector_size: 512,
        esp_len: 34 * MIB,
        slot_len: 8 * MIB,
        var_len: 16 * MIB,
        seed: Seed::Fixed(1),
    }
}

fn image(disk: &NewDisk) -> (tempfile::NamedTempFile, DiskLayout) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let layout = disk.create(file.as_file()).unwrap();
    (file, layout)
}

/// The output of `sgdisk`: a table that only we can read is worth nothing.
fn sgdisk(arguments: &[&str], file: &tempfile::NamedTempFile) -> String {
    setup::ensure_tools().unwrap();
    let output = setup::run(setup::command("sgdisk").args(arguments).arg(file.path())).unwrap();
    String::from_utf8_lossy(&output).into_owned()
}

/// What of a partition a test wants to say: label, type, first and last sector.
type Entry<'a> = (&'a str, Uuid, u64, u64);

/// Writes any table at all, however wrong, to a file of 64 MiB.
fn table_of(entries: &[Entry<'_>]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(64 * MIB).unwrap();
    let config = gpt::GptConfig::new().writable(true).logical_block_size(LogicalBlockSize::Lb512);
    let mut disk = config.create_from_device(file.as_file(), None).unwrap();
    let partitions: BTreeMap<u32, gpt::partition::Partition> = (1..)
        .zip(entries)
        .map(|(number, (label, type_guid, first_lba, last_lba))| {
            let partition = gpt::partition::Partition {
                part_type_guid: (*type_guid).into(),
                part_guid: Uuid::from_u128(u128::from(number)),
                first_lba: *first_lba,
                last_lba: *last_lba,
                flags: 0,
                name: (*label).to_owned(),
            };
            (number, partition)
        })
        .collect();
    disk.update_partitions(partitions).unwrap();
    disk.write().unwrap();
    file
}

fn good_entries() -> Vec<Entry<'static>> {
    let root = Architecture::X86_64.root_type();
    vec![
        ("EFI", TYPE_ESP, 2048, 4095),
        ("SYSTEM_A", root, 4096, 6143),
        ("SYSTEM_B", root, 6144, 8191),
        ("VAR", TYPE_VAR, 8192, 10239),
    ]
}

fn read(entries: &[Entry<'_>]) -> Result<DiskLayout, LayoutError> {
    DiskLayout::read(table_of(entries).as_file())
}

#[test]
fn dsk1_dsk2_a_new_disk_passes_sgdisk_and_reads_back() {
    for (architecture, code) in [(Architecture::X86_64, "8304"), (Architecture::Aarch64, "8305")] {
        let (file, layout) = image(&NewDisk { architecture, ..new_disk() });
        let text = sgdisk(&["-v"], &file);
        assert!(text.contains("No problems found"), "{text}");
        let text = sgdisk(&["-p"], &file);
        let rows: Vec<Vec<&str>> = text
            .lines()
            .skip_while(|l| !l.starts_with("Number"))
            .skip(1)
            .map(|l| l.split_ascii_whitespace().collect())
            .collect();
        let codes_and_labels: Vec<(&str, &str)> = rows.iter().map(|r| (r[5], r[6])).collect();
        assert_eq!(codes_and_labels, [("EF00", "EFI"), (code, "SYSTEM_A"), (code, "SYSTEM_B"), ("8310", "VAR")]);
        let text = sgdisk(&["-i", "2"], &file);
        assert!(text.contains("Attribute flags: 9000000000000000"), "{text}");

        assert_eq!(DiskLayout::read(file.as_file()).unwrap(), layout);
        assert_eq!(layout.architecture, architecture);
        assert_eq!(layout.slot(Slot::A).attributes, ATTRIBUTE_READ_ONLY | ATTRIBUTE_NO_AUTO);
        assert_eq!(layout.esp.attributes, 0);
        let var = layout.var.clone().unwrap();
        assert_eq!(var.attributes, ATTRIBUTE_NO_AUTO);
        for partition in [&layout.esp, layout.slot(Slot::A), layout.slot(Slot::B), &var] {
            assert_eq!((partition.start % ALIGNMENT, partition.len % ALIGNMENT), (0, 0));
        }
        assert_eq!(layout.slot_of(3), Some(Slot::B));
        assert_eq!(layout.slot_of(4), None);
        assert_eq!(layout.slot_by_guid(layout.slot(Slot::A).unique_guid), Some(Slot::A));
    }
}

#[test]
fn dsk1_sectors_of_4096_bytes() {
    let (file, layout) = image(&NewDisk { sector_size: 4096, ..new_disk() });
    assert_eq!(layout.sector_size, 4096);
    assert_eq!(DiskLayout::open(file.path()).unwrap(), layout);
    let error = NewDisk { sector_size: 1024, ..new_disk() }.plan().unwrap_err();
    assert!(matches!(error, CreateError::SectorSize(1024)));
}

#[test]
fn dsk5_a_seed_gives_the_same_bytes_and_none_gives_others() {
    let bytes = |seed| std::fs::read(image(&NewDisk { seed, ..new_disk() }).0.path()).unwrap();
    assert_eq!(bytes(Seed::Fixed(5)), bytes(Seed::Fixed(5)));
    assert_ne!(bytes(Seed::Fixed(5)), bytes(Seed::Fixed(6)));
    assert_ne!(bytes(Seed::Random), bytes(Seed::Random));
}

#[test]
fn lengths_that_make_no_disk_are_refused() {
    let plan = |esp_len, slot_len| NewDisk { esp_len, slot_len, ..new_disk() }.plan();
    assert!(matches!(plan(0, MIB), Err(CreateError::Empty("EFI"))));
    assert!(matches!(plan(MIB, u64::MAX), Err(CreateError::TooLong)));
    assert!(matches!(plan(MIB, u64::MAX / 2), Err(CreateError::TooLong)));
    assert!(matches!(plan(MIB, 1 << 62), Err(CreateError::TooLong)));
    // Odd lengths are rounded up.
    assert_eq!(plan(1, MIB + 1).unwrap().layout().slot(Slot::B).len, 2 * MIB);
}

#[test]
fn dsk4_any_damage_to_one_copy_is_survived() {
    for sector_size in [512, 4096] {
        let (file, layout) = image(&NewDisk { sector_size, ..new_disk() });
        let whole = std::fs::read(file.path()).unwrap();
        let end = layout.disk_len;
        let entries = 128 * 128;
        let places = [
            (sector_size, TableCopy::Backup),          // the primary's signature
            (sector_size + 40, TableCopy::Backup),     // its numbers
            (2 * sector_size + 56, TableCopy::Backup), // its entries
            (end - sector_size, TableCopy::Primary),   // the backup's signature
            (end - sector_size - entries, TableCopy::Primary),
        ];
        for (place, copy) in places {
            std::fs::write(file.path(), &whole).unwrap();
            let damaged = File::options().read(true).write(true).open(file.path()).unwrap();
            damaged.write_all_at(&[whole[place as usize] ^ 0x55], place).unwrap();
            let mut read = DiskLayout::read(&damaged).unwrap();
            assert_eq!(read.copy, copy, "damage at {place}");
            read.copy = layout.copy;
            assert_eq!(read, layout, "damage at {place}");
        }
        // Damage to both is not.
        std::fs::write(file.path(), &whole).unwrap();
        let damaged = File::options().read(true).write(true).open(file.path()).unwrap();
        damaged.write_all_at(&[0], sector_size).unwrap();
        damaged.write_all_at(&[0xff], end - sector_size - entries + 60).unwrap();
        match DiskLayout::read(&damaged) {
            Err(LayoutError::Table(TableError::NoTable { primary, backup })) => {
                assert!(matches!(primary, CopyError::Header(_)), "{primary}");
                assert!(matches!(backup, CopyError::Entries(_)), "{backup}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn reading_changes_nothing() {
    let (file, _) = image(&new_disk());
    file.as_file().write_all_at(b"damage", 512).unwrap();
    let before = std::fs::read(file.path()).unwrap();
    let read_only = File::open(file.path()).unwrap();
    assert_eq!(DiskLayout::read(&read_only).unwrap().copy, TableCopy::Backup);
    assert_eq!(std::fs::read(file.path()).unwrap(), before);
}

#[test]
fn files_that_are_no_disks() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for len in [0, 1, 511, 512, 4096, 65536] {
        file.as_file().set_len(len).unwrap();
        let result = DiskLayout::read(file.as_file());
        assert!(matches!(result, Err(LayoutError::Table(TableError::NoTable { .. }))), "{len}: {result:?}");
    }
    let missing = DiskLayout::open("/nonexistent/disk");
    assert!(matches!(missing, Err(LayoutError::Open { .. })));
}

/// Writes a primary header with changed fields and a correct checksum, and no backup.
fn hostile_header(change: impl FnOnce(&mut [u8])) -> tempfile::NamedTempFile {
    let file = table_of(&good_entries());
    let mut header = [0; 92];
    file.as_file().read_exact_at(&mut header, 512).unwrap();
    change(&mut header);
    header[16..20].fill(0);
    let checksum = crc32(&header);
    header[16..20].copy_from_slice(&checksum.to_le_bytes());
    file.as_file().write_all_at(&header, 512).unwrap();
    file.as_file().write_all_at(&[0; 512], 64 * MIB - 512).unwrap();
    file
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[test]
fn hostile_headers_neither_panic_nor_allocate() {
    // The helper itself makes a header that is accepted when nothing is changed.
    let good = hostile_header(|_| ());
    assert_eq!(DiskLayout::read(good.as_file()).unwrap().copy, TableCopy::Primary);

    let put = |at: usize, value: u64, len: usize| {
        move |header: &mut [u8]| header[at..at + len].copy_from_slice(&value.to_le_bytes()[..len])
    };
    type Change = Box<dyn FnOnce(&mut [u8])>;
    let changes: [(&str, Change); 8] = [
        ("entry size 256", Box::new(put(84, 256, 4))),
        ("entry size 0", Box::new(put(84, 0, 4))),
        ("4 billion entries", Box::new(put(80, 0xffff_ffff, 4))),
        ("no entries", Box::new(put(80, 0, 4))),
        ("entries behind the disk", Box::new(put(72, 64 * MIB, 8))),
        ("entries at an overflowing place", Box::new(put(72, u64::MAX, 8))),
        ("entries in the MBR", Box::new(put(72, 0, 8))),
        ("a header that belongs elsewhere", Box::new(put(24, 77, 8))),
    ];
    for (name, change) in changes {
        let file = hostile_header(change);
        match DiskLayout::read(file.as_file()) {
            Err(LayoutError::Table(TableError::NoTable { primary: CopyError::Numbers(_), .. })) => (),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn dsk3_missing_partitions() {
    for label in ["EFI", "SYSTEM_A", "SYSTEM_B"] {
        let entries: Vec<_> = good_entries().into_iter().filter(|e| e.0 != label).collect();
        match read(&entries) {
            Err(LayoutError::Missing(missing)) => assert_eq!(missing, label),
            other => panic!("{label}: {other:?}"),
        }
    }
    // VAR may be missing.
    let layout = read(&good_entries()[..3]).unwrap();
    assert_eq!(layout.var, None);
    // DSK-2: exact, case-sensitive.
    let mut entries = good_entries();
    entries[1].0 = "system_a";
    assert!(matches!(read(&entries), Err(LayoutError::Missing("SYSTEM_A"))));
}

#[test]
fn dsk3_an_extended_boot_loader_partition_is_refused() {
    let mut entries = good_entries();
    entries.push(("boot", uuid::uuid!("bc13c2ff-59e6-4262-a352-b275fd6f7172"), 20480, 20481));
    assert!(matches!(read(&entries), Err(LayoutError::Xbootldr(_))));
}

#[test]
fn dsk2_partitions_are_found_by_label_not_by_number() {
    let mut entries = good_entries();
    entries.reverse();
    entries.insert(0, ("DATA", Uuid::from_u128(99), 20480, 20481));
    let layout = read(&entries).unwrap();
    assert_eq!((layout.esp.number, layout.slot(Slot::A).number, layout.slot(Slot::B).number), (5, 4, 3));
    assert_eq!(layout.slot(Slot::A).start, 4096 * 512);
}

#[test]
fn dsk3_labels_that_stand_twice() {
    for (index, label) in ["EFI", "SYSTEM_A", "SYSTEM_B", "VAR"].into_iter().enumerate() {
        let mut entries = good_entries();
        entries.push((label, entries[index].1, 20480, 22527));
        match read(&entries) {
            Err(LayoutError::Twice { label: twice, first, second: 5 }) => {
                assert_eq!((twice, first), (label, index as u32 + 1));
            }
            other => panic!("{label}: {other:?}"),
        }
    }
}

#[test]
fn dsk3_wrong_types() {
    for (index, label) in ["EFI", "SYSTEM_A", "SYSTEM_B", "VAR"].into_iter().enumerate() {
        let mut entries = good_entries();
        entries[index].1 = Uuid::from_u128(7);
        match read(&entries) {
            Err(LayoutError::Type { label: wrong, .. }) => assert_eq!(wrong, label),
            other => panic!("{label}: {other:?}"),
        }
    }
    let mut entries = good_entries();
    entries[2].1 = Architecture::Aarch64.root_type();
    assert!(matches!(read(&entries), Err(LayoutError::MixedArchitectures { .. })));
}

#[test]
fn dsk3_overlaps_and_partitions_that_leave_the_disk() {
    let mut entries = good_entries();
    entries[3].2 = 8191;
    assert!(matches!(read(&entries), Err(LayoutError::Overlap { first: 3, second: 4 })));
    // Also where a foreign partition overlaps a slot.
    let mut entries = good_entries();
    entries.push(("DATA", Uuid::from_u128(99), 5000, 5000));
    assert!(matches!(read(&entries), Err(LayoutError::Overlap { first: 2, second: 5 })));

    let mut entries = good_entries();
    entries[3].3 = 64 * MIB / 512;
    match read(&entries) {
        Err(LayoutError::LeavesDisk { number: 4, end, disk_len }) => {
            assert_eq!((end, disk_len), (64 * MIB + 512, 64 * MIB));
        }
        other => panic!("{other:?}"),
    }
    // Writing to it would destroy the table, or its backup.
    for (first, last) in [(0, 2047), (33, 2047), (100_000, 64 * MIB / 512 - 33)] {
        let mut entries = good_entries();
        entries.push(("DATA", Uuid::from_u128(99), first, last));
        assert!(matches!(read(&entries), Err(LayoutError::OnTable { number: 5 })), "{first} to {last}");
    }
    for (first, last) in [(34, 2047), (100_000, 64 * MIB / 512 - 34)] {
        let mut entries = good_entries();
        entries.push(("DATA", Uuid::from_u128(99), first, last));
        assert!(read(&entries).is_ok(), "{first} to {last}");
    }
    let mut entries = good_entries();
    (entries[3].2, entries[3].3) = (9000, 8999 - 100);
    assert!(matches!(read(&entries), Err(LayoutError::Table(TableError::NoTable { .. }))));
    let mut entries = good_entries();
    entries[3].3 = u64::MAX - 1;
    assert!(matches!(read(&entries), Err(LayoutError::Table(TableError::NoTable { .. }))));
}

#[test]
fn two_partitions_with_one_partuuid_are_refused() {
    let (file, _) = image(&new_disk());
    let mut table = PartitionTable::read(file.as_file()).unwrap();
    table.partitions[3].unique_guid = table.partitions[1].unique_guid;
    let error = DiskLayout::from_table(table).unwrap_err();
    assert!(matches!(error, LayoutError::SameGuid { first: 2, second: 4, .. }), "{error}");
}
