//! The partition table and the raw FAT.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use boot_entries::fat::{FormatOptions, Volume, cluster_faults, format_esp};
use boot_entries::guard::{self, GuardFile};
use boot_entries::{Esp, EspPath, ImageEsp};
use disk_layout::{Architecture, DiskLayout, NewDisk, PartitionTable, Seed as Chance, Slot};

use crate::Seed;

const SECTOR: usize = 512;
const HEADER: usize = 92;
const ENTRY: usize = 128;
const ENTRIES: usize = 128;
const DISK: u64 = 64 << 20;

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
            header[88..92].copy_from_slice(&crc32(&entries[..covered]).to_le_bytes());
            header[16..20].fill(0);
            let size = u32::from_le_bytes([header[12], header[13], header[14], header[15]]) as usize;
            let sum = crc32(&header[..size.min(SECTOR)]);
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

/// Of each byte.
const CRC: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut sum, mut bit) = (byte as u32, 0);
        while bit < 8 {
            sum = sum >> 1 ^ (0xEDB8_8320 & (sum & 1).wrapping_neg());
            bit += 1;
        }
        table[byte] = sum;
        byte += 1;
    }
    table
};

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum: u32, byte| CRC[usize::from(sum as u8 ^ byte)] ^ sum >> 8)
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

/// A volume of which only the sectors that are not zero are given: what a fuzzer should change.
struct Base {
    len: u64,
    /// Where those sectors lie.
    sectors: Vec<u64>,
    bytes: Vec<u8>,
}

const FILES: [(&str, &str); 4] = [
    ("loader/entries/ralphos-a-g1.conf", "linux /ralphos/a/g1-linux\n"),
    ("loader/entries/ralphos-b-g2+2-1.conf", "linux /ralphos/b/g2-linux\n"),
    ("ralphos/a/g1-linux", "a kernel"),
    ("ralphos/b/g2-linux", "another kernel"),
];

static BASES: LazyLock<Vec<Base>> = LazyLock::new(|| {
    let fat32 = {
        let mut memory = Cursor::new(vec![0; 40 << 20]);
        format_esp(&mut memory, FormatOptions { label: "EFI", serial: 1, sector_size: 512 }).expect("an ESP");
        memory
    };
    [fat32].into_iter().map(base).collect()
});

fn base(memory: Cursor<Vec<u8>>) -> Base {
    let mut esp = ImageEsp::new(memory);
    for (path, content) in FILES {
        let path: EspPath = path.parse().expect("a path");
        esp.write_new(&path, content.len() as u64, &mut content.as_bytes()).expect("room");
    }
    guard::make(&mut esp).expect("room");
    let volume = esp.into_inner().into_inner();
    let used = |(_, sector): &(u64, &[u8])| sector.iter().any(|byte| *byte != 0);
    let (sectors, bytes): (Vec<u64>, Vec<&[u8]>) = (0..).zip(volume.chunks(SECTOR)).filter(used).unzip();
    Base { len: volume.len() as u64, sectors, bytes: bytes.concat() }
}

/// Zeros but for some sectors.
#[derive(Debug)]
struct Sparse {
    len: u64,
    sectors: BTreeMap<u64, [u8; SECTOR]>,
    at: u64,
    read: u64,
}

impl Read for Sparse {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.len.saturating_sub(self.at);
        let within = self.at % SECTOR as u64;
        let len = (SECTOR as u64 - within).min(left).min(buffer.len() as u64) as usize;
        match self.sectors.get(&(self.at / SECTOR as u64)) {
            Some(sector) => buffer[..len].copy_from_slice(&sector[within as usize..within as usize + len]),
            None => buffer[..len].fill(0),
        }
        self.at += len as u64;
        self.read += len as u64;
        Ok(len)
    }
}

impl Write for Sparse {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        assert!(self.at < self.len, "a write beyond the volume");
        let within = (self.at % SECTOR as u64) as usize;
        let len = (SECTOR - within).min(bytes.len());
        let sector = self.sectors.entry(self.at / SECTOR as u64).or_insert([0; SECTOR]);
        sector[within..within + len].copy_from_slice(&bytes[..len]);
        self.at += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Sparse {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::End(by) => self.len.saturating_add_signed(by),
            SeekFrom::Current(by) => self.at.saturating_add_signed(by),
        };
        Ok(self.at)
    }
}

/// ENT-22, GRD-2: the sectors of an ESP that are not zero, one behind the other, in the places where they lay.
pub fn fat(data: &[u8]) {
    /// What none of this may take longer than, on a slow machine with checks compiled in.
    const LONGEST: Duration = Duration::from_secs(20);
    let began = Instant::now();
    let base = &BASES[0];
    let sector = |bytes: &[u8]| {
        let mut sector = [0; SECTOR];
        sector[..bytes.len()].copy_from_slice(bytes);
        sector
    };
    let sectors: BTreeMap<_, _> = base.sectors.iter().copied().zip(data.chunks(SECTOR).map(sector)).collect();
    let mut storage = Sparse { len: base.len, sectors, at: 0, read: 0 };
    let _ = GuardFile::locate(&mut storage, SECTOR as u64);
    let Ok(mut volume) = Volume::open(&mut storage) else { return };
    let dirs: Vec<EspPath> =
        ["loader/entries", "ralphos/a", "ralphos/b"].map(|dir| dir.parse().expect("a path")).into();
    let _ = cluster_faults(&mut volume, &dirs);
    let mut named = Vec::new();
    for dir in ["", "loader", "loader/entries", "ralphos", "ralphos/a"] {
        let Ok(Some(items)) = volume.list(dir) else { continue };
        assert!(items.len() <= 65536);
        for item in items {
            assert!(item.slots.iter().all(|slot| slot + 32 <= base.len), "a slot beyond the volume");
            assert!(item.slots.len() <= 64, "a name of more slots than a name may have");
            if !item.name.contains('/') && named.len() < 4 {
                named.push(if dir.is_empty() { item.name } else { format!("{dir}/{}", item.name) });
            }
        }
    }
    let find = |volume: &mut Volume<&mut Sparse>, path: &str| volume.find(path).ok().flatten();
    for path in named {
        let Some(item) = find(&mut volume, &path) else { continue };
        if volume.drop_name(&path).is_ok() {
            let next = find(&mut volume, &path);
            assert!(next.is_none_or(|next| next.slots != item.slots), "{path} was dropped and is there");
        }
    }
    assert!(began.elapsed() < LONGEST, "{:?}", began.elapsed());
}

pub fn fat_seeds() -> Vec<Seed> {
    let base = &BASES[0];
    let mut linked = base.bytes.clone();
    // Two names on one chain, as a rename that was cut leaves them: the second entry gets the first one's cluster.
    let slot = |name: &[u8]| base.bytes.chunks(32).position(|slot| slot.starts_with(name)).map(|at| at * 32);
    if let (Some(a), Some(b)) = (slot(b"RALPHO~1"), slot(b"RALPHO~2")) {
        linked.copy_within(a + 26..a + 28, b + 26);
    }
    vec![("fat32", base.bytes.clone()), ("fat32-linked", linked), ("fat32-circle", circle(base))]
}

/// The root directory's chain leads to itself, on a volume that claims two hundred million clusters.
fn circle(base: &Base) -> Vec<u8> {
    const FAT_SECTORS: u32 = 2 << 20;
    let mut bytes = base.bytes.clone();
    let reserved = u64::from(u16::from_le_bytes([bytes[14], bytes[15]]));
    bytes[13] = 1;
    bytes[32..36].copy_from_slice(&(2 * FAT_SECTORS + 200_000_000).to_le_bytes());
    bytes[36..40].copy_from_slice(&FAT_SECTORS.to_le_bytes());
    let fat = base.sectors.iter().position(|sector| *sector == reserved).expect("a FAT") * SECTOR;
    bytes[fat + 8..fat + 12].copy_from_slice(&2_u32.to_le_bytes());
    bytes
}
