//! The partition table.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{LazyLock, Mutex, PoisonError};

use crc::{CRC_32_ISO_HDLC, Crc};
use disk_layout::{Architecture, DiskLayout, NewDisk, PartitionTable, Seed as Chance, Slot};

use crate::Seed;

const SECTOR: usize = 512;
const HEADER: usize = 92;
const ENTRY: usize = 128;
const ENTRIES: usize = 128;
const DISK: u64 = 64 << 20;
static CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// DSK-20 and following: a header of 92 bytes and then entries, as both copies of the table, checksums put right if the first byte is odd.
pub fn gpt(data: &[u8]) {
    let Some((&flags, rest)) = data.split_first() else { return };
    static FILE: LazyLock<Mutex<File>> = LazyLock::new(|| {
        let file = tempfile::tempfile().expect("a temporary file");
        file.set_len(DISK).expect("a sparse file");
        Mutex::new(file)
    });
    let file = FILE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut header = [0; SECTOR];
    let mut entries = vec![0; ENTRIES * ENTRY];
    let (first, second) = rest.split_at(rest.len().min(HEADER));
    header[..first.len()].copy_from_slice(first);
    let len = second.len().min(entries.len());
    entries[..len].copy_from_slice(&second[..len]);
    let sectors = DISK / SECTOR as u64;
    for (lba, entries_at) in [(1, 2), (sectors - 1, sectors - 33)] {
        if flags & 1 != 0 {
            if flags & 2 != 0 {
                header[24..32].copy_from_slice(&lba.to_le_bytes());
                header[72..80].copy_from_slice(&entries_at.to_le_bytes());
            }
            let count = u32::from_le_bytes([header[80], header[81], header[82], header[83]]) as usize;
            let covered = count.saturating_mul(ENTRY).min(entries.len());
            header[88..92].copy_from_slice(&CRC.checksum(&entries[..covered]).to_le_bytes());
            header[16..20].fill(0);
            let size = u32::from_le_bytes([header[12], header[13], header[14], header[15]]) as usize;
            let sum = CRC.checksum(&header[..size.min(SECTOR)]);
            header[16..20].copy_from_slice(&sum.to_le_bytes());
        }
        file.write_all_at(&header, lba * SECTOR as u64).expect("room");
        file.write_all_at(&entries, entries_at * SECTOR as u64).expect("room");
    }
    let Ok(table) = PartitionTable::read(&file) else { return };
    assert!(table.partitions.len() <= 1024);
    for partition in &table.partitions {
        assert!(partition.start.checked_add(partition.len).is_some());
    }
    let Ok(layout) = DiskLayout::from_table(table) else { return };
    let mut parts = vec![&layout.esp, layout.slot(Slot::A), layout.slot(Slot::B)];
    parts.extend(&layout.var);
    parts.sort_by_key(|part| part.start);
    assert!(parts.windows(2).all(|pair| pair[0].end() <= pair[1].start), "partitions overlap: {parts:?}");
    assert!(parts.iter().all(|part| part.end() <= DISK), "a partition leaves the disk: {parts:?}");
    assert!(parts.iter().all(|part| part.start >= SECTOR as u64), "a partition holds the table itself: {parts:?}");
    for slot in Slot::ALL {
        assert_eq!(layout.slot_by_guid(layout.slot(slot).unique_guid), Some(slot));
    }
}

pub fn gpt_seeds() -> Vec<Seed> {
    let new = NewDisk {
        architecture: Architecture::X86_64,
        sector_size: SECTOR as u64,
        esp_len: 40 << 20,
        slot_len: 8 << 20,
        var_len: 1 << 20,
        seed: Chance::Fixed(1),
    };
    let file = tempfile::tempfile().expect("a temporary file");
    new.create(&file).expect("a disk");
    let mut bytes = vec![0; 2 * SECTOR + 5 * ENTRY];
    file.read_exact_at(&mut bytes, SECTOR as u64).expect("a table");
    let table = [&bytes[..HEADER], &bytes[SECTOR..SECTOR + 5 * ENTRY]].concat();
    [("as-it-is", 0), ("checksums-put-right", 1), ("places-put-right", 3)]
        .map(|(name, flags)| (name, [&[flags], &table[..]].concat()))
        .to_vec()
}
