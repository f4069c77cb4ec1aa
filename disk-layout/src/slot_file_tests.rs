use super::*;
use crate::{Architecture, NewDisk, Seed};
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

fn disk_in(dir: &Path) -> (PathBuf, DiskLayout) {
    let path = dir.join("disk.raw");
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    let new = NewDisk {
        architecture: Architecture::X86_64,
        sector_size: 512,
        esp_len: MIB,
        slot_len: 2 * MIB,
        var_len: MIB,
        seed: Seed::Fixed(1),
    };
    (path, new.create(&file).unwrap())
}

fn disk() -> (tempfile::TempDir, PathBuf, DiskLayout) {
    let dir = tempfile::tempdir().unwrap();
    let (path, layout) = disk_in(dir.path());
    (dir, path, layout)
}

/// Everything but slot B.
fn around(path: &Path, layout: &DiskLayout) -> Vec<u8> {
    let mut all = std::fs::read(path).unwrap();
    let b = layout.slot(Slot::B);
    all.drain(b.start as usize..b.end() as usize);
    all
}

fn check_round_trip(path: &Path, layout: &DiskLayout) -> Access {
    let outside = around(path, layout);
    let mut slot = SlotFile::open_image(path, layout, Slot::B).unwrap();
    assert_eq!(slot.len(), 2 * MIB);
    assert!(slot.is_blank().unwrap());
    let pattern: Vec<u8> = (0..2 * MIB).map(|n| (n % 251) as u8).collect();
    // From unaligned memory, then again from aligned.
    let mut shifted = vec![0; pattern.len() + 1];
    shifted[1..].copy_from_slice(&pattern);
    let unaligned = if is_aligned(&shifted[1..]) { &pattern[..] } else { &shifted[1..] };
    slot.write_at(0, unaligned).unwrap();
    let mut aligned = AlignedBuf::new(BLOCK);
    aligned.fill(0xee);
    slot.write_at(MIB, &aligned).unwrap();
    slot.flush().unwrap();
    let mut expected = pattern;
    expected[MIB as usize..][..BLOCK].fill(0xee);

    let mut back = vec![0; expected.len() + 1];
    slot.read_at_uncached(0, &mut back[1..]).unwrap();
    assert!(back[1..] == expected[..]);
    let mut aligned = AlignedBuf::new(2 * BLOCK);
    slot.read_at_uncached(MIB, &mut aligned).unwrap();
    assert!(aligned[..] == expected[MIB as usize..][..2 * BLOCK]);
    assert!(!slot.is_blank().unwrap());

    let b = layout.slot(Slot::B);
    assert!(std::fs::read(path).unwrap()[b.start as usize..b.end() as usize] == expected[..]);
    assert!(around(path, layout) == outside, "DSK-42: nothing outside the slot changed");
    slot.access()
}

#[test]
fn dsk41_what_is_written_is_read_back() {
    let (_dir, path, layout) = disk();
    check_round_trip(&path, &layout);
}

/// `/dev/shm` is a tmpfs, which took no `O_DIRECT` before Linux 6.6; wherever this runs, the fallback is tried as well.
#[test]
fn dsk41_memory_file_systems_work() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let (path, layout) = disk_in(dir.path());
    check_round_trip(&path, &layout);
}

/// Slot B through the page cache, as on a file system without `O_DIRECT`.
fn buffered(path: &Path, layout: &DiskLayout) -> SlotFile {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let Partition { start, len, .. } = *layout.slot(Slot::B);
    SlotFile::new(file, path, start, len, Access::Buffered).unwrap()
}

#[test]
fn dsk41_buffered_access_reads_what_it_wrote() {
    let (_dir, path, layout) = disk();
    let mut slot = buffered(&path, &layout);
    let mut bytes = vec![7; 3 * BLOCK];
    slot.write_at(BLOCK as u64, &bytes).unwrap();
    assert!(slot.medium.dirty.load(SeqCst));
    bytes.fill(0);
    slot.read_at_uncached(BLOCK as u64, &mut bytes).unwrap();
    assert!(!slot.medium.dirty.load(SeqCst), "flushed before the cache was dropped");
    assert!(bytes.iter().all(|b| *b == 7));
}

#[test]
fn dsk41_a_flush_that_failed_once_is_never_forgotten() {
    let (_dir, path, layout) = disk();
    let mut slot = buffered(&path, &layout);
    slot.flush().unwrap();
    // As after a flush, by whichever handle, that told of lost bytes: the system tells it once.
    slot.medium.lost.store(true, SeqCst);
    assert!(matches!(slot.another().unwrap().flush(), Err(SlotError::Flush { .. })));
    assert!(matches!(slot.flush(), Err(SlotError::Flush { .. })));
}

#[test]
fn dsk41_handles_are_one_slot() {
    let (_dir, path, layout) = disk();
    let mut slot = SlotFile::open_image(&path, &layout, Slot::B).unwrap();
    let mut other = slot.another().unwrap();
    let mut bytes = AlignedBuf::new(BLOCK);
    bytes.fill(5);
    std::thread::scope(|scope| {
        scope.spawn(|| other.write_at(BLOCK as u64, &bytes).unwrap());
    });
    slot.flush().unwrap();
    let mut back = AlignedBuf::new(BLOCK);
    slot.read_at_uncached(BLOCK as u64, &mut back).unwrap();
    assert!(back.iter().all(|byte| *byte == 5));
    let mut slot = buffered(&path, &layout);
    let mut other = slot.another().unwrap();
    other.write_at(0, &vec![6; BLOCK]).unwrap();
    slot.read_at_uncached(0, &mut back).unwrap();
    assert!(back.iter().all(|byte| *byte == 6), "written through the cache, and flushed before it was read");
}

#[test]
fn dsk_44_zeros_are_zeros_whatever_the_medium_can() {
    let (_dir, path, layout) = disk();
    for sends in [false, true] {
        let mut slot = SlotFile::open_image(&path, &layout, Slot::B).unwrap();
        slot.medium.sends_zeros.store(sends, SeqCst);
        slot.write_at(0, &vec![9; 2 * MIB as usize]).unwrap();
        let outside = around(&path, &layout);
        slot.zero_at(4096, MIB + 8192).unwrap();
        slot.flush().unwrap();
        let mut back = AlignedBuf::new(2 * MIB as usize);
        slot.read_at_uncached(0, &mut back).unwrap();
        let end = 4096 + MIB as usize + 8192;
        assert!(back[4096..end].iter().all(|byte| *byte == 0), "sends: {sends}");
        assert!(back[..4096].iter().chain(&back[end..]).all(|byte| *byte == 9), "sends: {sends}");
        assert!(around(&path, &layout) == outside, "DSK-42");
        assert!(matches!(slot.zero_at(2 * MIB - 4096, 8192), Err(SlotError::Outside(_))));
    }
}

#[test]
fn dsk41_direct_access_that_a_medium_does_not_take_becomes_buffered() {
    let (_dir, path, layout) = disk();
    let (file, access) = open(&path, OFlag::empty()).unwrap();
    // Half a block in: no medium need take that.
    let mut slot = SlotFile::new(file, &path, layout.slot(Slot::B).start + 2048, MIB, access).unwrap();
    assert_eq!(slot.access(), Access::Buffered);
    let flags = OFlag::from_bits_retain(fcntl(&slot.medium.file, FcntlArg::F_GETFL).unwrap());
    assert!(!flags.contains(OFlag::O_DIRECT));
    slot.write_at(0, &[1; BLOCK]).unwrap();
}

#[test]
fn dsk42_nothing_outside_the_slot() {
    let (_dir, path, layout) = disk();
    let before = std::fs::read(&path).unwrap();
    let mut slot = SlotFile::open_image(&path, &layout, Slot::A).unwrap();
    let mut block = [0xff; BLOCK];
    for offset in [2 * MIB, 4 * MIB, u64::MAX - 4095] {
        assert!(matches!(slot.write_at(offset, &block), Err(SlotError::Outside(_))), "{offset}");
        assert!(matches!(slot.read_at_uncached(offset, &mut block), Err(SlotError::Outside(_))), "{offset}");
    }
    assert!(matches!(slot.write_at(2 * MIB - 4096, &[0xff; 2 * BLOCK]), Err(SlotError::Outside(_))));
    assert!(matches!(slot.write_at(512, &block), Err(SlotError::Misaligned { .. })));
    assert!(matches!(slot.write_at(0, &block[..512]), Err(SlotError::Misaligned { .. })));
    assert!(std::fs::read(&path).unwrap() == before);
}

#[test]
fn an_image_that_is_shorter_than_its_table_is_refused() {
    let (_dir, path, layout) = disk();
    File::options().write(true).open(&path).unwrap().set_len(layout.slot(Slot::B).end() - 1).unwrap();
    assert!(matches!(SlotFile::open_image(&path, &layout, Slot::B), Err(SlotError::Outside(_))));
}

#[test]
fn a_partition_of_another_length_than_the_table_says_is_refused() {
    let (_dir, path, layout) = disk();
    match SlotFile::open_partition(&path, layout.slot(Slot::B)) {
        Err(SlotError::Length { expected, actual, .. }) => {
            assert_eq!((expected, actual), (2 * MIB, layout.disk_len));
        }
        other => panic!("{other:?}"),
    }
    let missing = SlotFile::open_partition("/nonexistent/vda2", layout.slot(Slot::B));
    assert!(matches!(missing, Err(SlotError::Open { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    /// DSK-42, for any access: it succeeds exactly when it is whole blocks inside the slot, and touches nothing else.
    #[test]
    fn dsk42_any_access(offset in 0u64..3 * MIB, len in 0usize..3 * BLOCK, whole in any::<bool>()) {
        let (_dir, path, layout) = disk();
        let (offset, len) = if whole { (offset & !4095, len & !4095) } else { (offset, len) };
        let outside = around(&path, &layout);
        let mut slot = SlotFile::open_image(&path, &layout, Slot::B).unwrap();
        let result = slot.write_at(offset, &vec![0xa5; len]);
        let blocks = offset.is_multiple_of(4096) && len.is_multiple_of(BLOCK);
        prop_assert_eq!(result.is_ok(), blocks && offset + len as u64 <= 2 * MIB);
        prop_assert!(around(&path, &layout) == outside);
    }
}
