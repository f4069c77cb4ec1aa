use std::io::Cursor;
use std::process::Command;

use qemu_tests::setup;

use super::*;
use crate::esp::{Esp, EspError, EspPath, ImageEsp};
use crate::names::{entries_dir, payload_dir};
use disk_layout::Slot;

type Memory = Cursor<Vec<u8>>;

/// Kind, size in MiB, cluster size.
const KINDS: [(FatKind, usize, u32); 3] =
    [(FatKind::Fat12, 1, 512), (FatKind::Fat16, 8, 1024), (FatKind::Fat32, 40, 512)];

const OLD: &str = "loader/entries/ralphos-b-g7+2-1.conf";
const NEW: &str = "loader/entries/ralphos-b-g7+1-2.conf";

fn path(text: &str) -> EspPath {
    text.parse().unwrap()
}

fn dirs() -> [EspPath; 3] {
    [entries_dir(), payload_dir(Slot::A), payload_dir(Slot::B)]
}

/// A volume of this kind with the directories of an ESP.
fn volume(kind: FatKind, mib: usize, cluster: u32) -> ImageEsp<Memory> {
    let mut memory = Cursor::new(vec![0; mib << 20]);
    let fat_type = match kind {
        FatKind::Fat12 => fatfs::FatType::Fat12,
        FatKind::Fat16 => fatfs::FatType::Fat16,
        FatKind::Fat32 => fatfs::FatType::Fat32,
    };
    let options = fatfs::FormatVolumeOptions::new().fat_type(fat_type).bytes_per_cluster(cluster);
    fatfs::format_volume(&mut memory, options).unwrap();
    let mut esp = ImageEsp::new(memory);
    for dir in dirs() {
        esp.make_dir(&dir).unwrap();
    }
    esp
}

fn put(esp: &mut ImageEsp<Memory>, name: &str, content: &[u8]) {
    esp.write_new(&path(name), content.len() as u64, &mut &content[..]).unwrap();
}

fn raw(esp: &mut ImageEsp<Memory>, work: impl FnOnce(&mut Volume<&mut Memory>)) {
    let mut memory = std::mem::replace(esp, ImageEsp::new(Cursor::new(Vec::new()))).into_inner();
    work(&mut Volume::open(&mut memory).unwrap());
    *esp = ImageEsp::new(memory);
}

/// Gives `to` the first cluster and size of `from`, as a rename that was cut leaves it.
fn link(esp: &mut ImageEsp<Memory>, from: &str, to: &str) {
    raw(esp, |volume| {
        let slot = |item: RawItem| *item.slots.last().unwrap();
        let (from, to) = (slot(volume.find(from).unwrap().unwrap()), slot(volume.find(to).unwrap().unwrap()));
        let bytes = volume.read_at(from, 32).unwrap();
        volume.write_at(to + 20, &bytes[20..22]).unwrap();
        volume.write_at(to + 26, &bytes[26..32]).unwrap();
    });
}

/// Calls the first cluster of `name` free, in every copy of the FAT.
fn tear(esp: &mut ImageEsp<Memory>, name: &str) {
    raw(esp, |volume| {
        let first = volume.find(name).unwrap().unwrap().first_cluster;
        let width = match volume.geometry.kind {
            FatKind::Fat12 => return,
            FatKind::Fat16 => 2,
            FatKind::Fat32 => 4,
        };
        let fat = volume.geometry.fat_start + u64::from(first) * width;
        volume.write_at(fat, &vec![0; width as usize]).unwrap();
    });
}

/// What `fsck.vfat -n` says; None when it finds nothing.
fn fsck(esp: ImageEsp<Memory>) -> (Option<String>, ImageEsp<Memory>) {
    setup::ensure_tools().unwrap();
    let memory = esp.into_inner();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), memory.get_ref()).unwrap();
    let mut command: Command = setup::command("fsck.vfat");
    let output = command.arg("-n").arg("-v").arg(file.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let clean = output.status.success() && !text.contains("uninitialized") && !text.contains("wrong");
    ((!clean).then_some(text), ImageEsp::new(memory))
}

#[test]
fn the_boot_sector_decides_the_kind() {
    for (kind, mib, cluster) in KINDS {
        let mut esp = volume(kind, mib, cluster);
        raw(&mut esp, |volume| {
            assert_eq!(volume.geometry().kind, kind);
            assert_eq!(volume.geometry().cluster_size, cluster);
        });
        let (complaint, _) = fsck(esp);
        // The library leaves the free clusters of FAT32 unknown; format_esp does not.
        assert_eq!(complaint.filter(|_| kind != FatKind::Fat32), None, "{kind:?}");
    }
}

#[test]
fn what_is_no_fat_volume_is_refused() {
    let good = *volume(FatKind::Fat16, 8, 1024).into_inner().into_inner().first_chunk::<512>().unwrap();
    assert!(Geometry::parse(&good).is_ok());
    for (at, bytes) in [
        (510, &[0, 0][..]),
        (11, &[0, 0]),
        (11, &[0, 3]),
        (13, &[0]),
        (13, &[3]),
        (14, &[0, 0]),
        (16, &[0]),
        (22, &[0, 0]),
        (22, &[1, 0]),
        (19, &[1, 0]),
        (17, &[0, 0]),
    ] {
        let mut bad = good;
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        assert!(matches!(Geometry::parse(&bad), Err(FatError::BootSector(_))), "byte {at}: {bytes:?}");
    }
    assert!(Geometry::parse(&[0; 512]).is_err());
    assert!(Volume::open(Cursor::new(vec![0; 100])).is_err());
}

#[test]
fn the_information_sector_lies_in_front_of_the_fats() {
    let good = *volume(FatKind::Fat32, 40, 512).into_inner().into_inner().first_chunk::<512>().unwrap();
    assert_eq!(Geometry::parse(&good).unwrap().information_sector(), Some(512));
    let reserved = u16::from_le_bytes([good[14], good[15]]);
    for sector in [0, reserved, 20_000, 0xffff] {
        let mut bad = good;
        bad[48..50].copy_from_slice(&sector.to_le_bytes());
        assert_eq!(Geometry::parse(&bad).unwrap().information_sector(), None, "sector {sector}");
    }
}

#[test]
fn names_and_free_clusters_agree_with_the_library() {
    for (kind, mib, cluster) in KINDS {
        let mut esp = volume(kind, mib, cluster);
        let before = esp.space().unwrap();
        put(&mut esp, OLD, b"x");
        put(&mut esp, "ralphos/a/g1-linux", &vec![1; 100_000]);
        put(&mut esp, "ralphos/a/SHORT.TXT", b"");
        put(&mut esp, "ralphos/a/\u{f6} and \u{20ac}.conf", b"y");
        raw(&mut esp, |volume| {
            let items = volume.list("RALPHOS/A").unwrap().unwrap();
            let names: Vec<&str> = items.iter().map(|item| item.name.as_str()).collect();
            assert_eq!(names, ["g1-linux", "SHORT.TXT", "\u{f6} and \u{20ac}.conf"], "{kind:?}");
            assert_eq!(items[0].size, 100_000);
            let chain = volume.chain(items[0].first_cluster).unwrap();
            assert_eq!((chain.clusters.len(), chain.whole), (100_000usize.div_ceil(cluster as usize), true));
            assert_eq!((items[1].first_cluster, items[1].size), (0, 0));
            assert!(volume.find(OLD).unwrap().is_some());
            assert_eq!(volume.find("loader/entries/none").unwrap(), None);
            assert_eq!(volume.find(&format!("{OLD}/x")).unwrap(), None);
            assert_eq!(volume.list(OLD).unwrap(), None);
            assert_eq!(volume.list("none").unwrap(), None);
            assert_eq!(volume.list("").unwrap().unwrap().len(), 2);
        });
        let after = esp.space().unwrap();
        assert_eq!(after.cluster_size, cluster);
        let used = 1 + 100_000u64.div_ceil(u64::from(cluster)) + 1;
        assert_eq!(before.free_clusters - after.free_clusters, used, "{kind:?}");
        assert_eq!(esp.cluster_faults(&dirs()).unwrap(), []);
    }
}

#[test]
fn ent22_twins_on_one_chain_are_found_and_the_name_is_dropped() {
    for (kind, mib, cluster) in KINDS {
        let mut esp = volume(kind, mib, cluster);
        put(&mut esp, OLD, &[7; 900]);
        put(&mut esp, NEW, b"");
        link(&mut esp, OLD, NEW);
        let shared = ClusterFault::Shared { first: path(OLD), second: path(NEW), same_start: true };
        assert_eq!(esp.cluster_faults(&dirs()).unwrap(), [shared], "{kind:?}");

        esp.drop_name(&path(OLD)).unwrap();
        assert_eq!(esp.cluster_faults(&dirs()).unwrap(), []);
        assert_eq!(esp.read(&path(NEW), 1000).unwrap(), [7; 900], "the clusters are kept");
        assert!(!esp.exists(&path(OLD)).unwrap());
        assert!(matches!(esp.drop_name(&path(OLD)), Err(crate::esp::EspError::Missing { .. })));
        let (complaint, mut esp) = fsck(esp);
        assert_eq!(complaint.filter(|_| kind != FatKind::Fat32), None, "{kind:?}");
        // Both the slots and the name can be used again.
        put(&mut esp, OLD, b"again");
        assert_eq!(esp.read(&path(OLD), 10).unwrap(), b"again");
    }
}

#[test]
fn ent22_twins_are_what_removing_would_destroy() {
    let mut esp = volume(FatKind::Fat16, 8, 1024);
    put(&mut esp, OLD, &[7; 900]);
    put(&mut esp, NEW, b"");
    link(&mut esp, OLD, NEW);
    esp.remove(&path(OLD)).unwrap();
    let broken = ClusterFault::Broken { path: path(NEW) };
    assert_eq!(esp.cluster_faults(&dirs()).unwrap(), [broken]);
}

#[test]
fn ent22_sharing_with_any_file_of_the_volume_is_found() {
    let mut esp = volume(FatKind::Fat16, 8, 1024);
    esp.make_dir(&path("EFI/BOOT")).unwrap();
    put(&mut esp, "EFI/BOOT/BOOTX64.EFI", &[1; 5000]);
    put(&mut esp, "EFI/BOOT/OTHER.EFI", b"");
    put(&mut esp, "ralphos/a/g1-linux", b"");
    link(&mut esp, "EFI/BOOT/BOOTX64.EFI", "EFI/BOOT/OTHER.EFI");
    assert_eq!(esp.cluster_faults(&dirs()).unwrap(), [], "none of ours");
    link(&mut esp, "EFI/BOOT/BOOTX64.EFI", "ralphos/a/g1-linux");
    let faults = esp.cluster_faults(&dirs()).unwrap();
    assert!(faults.iter().all(|fault| fault.concerns(&path("ralphos/a/g1-linux"))), "{faults:?}");
    assert!(faults.iter().any(|fault| fault.concerns(&path("EFI/BOOT/BOOTX64.EFI"))), "{faults:?}");
}

#[test]
fn ent22_a_folder_that_is_one_of_ours_by_another_name_is_found() {
    let mut esp = volume(FatKind::Fat16, 8, 1024);
    esp.make_dir(&path("other")).unwrap();
    for shared in ["ralphos/a", "ralphos"] {
        link(&mut esp, shared, "other");
        let faults = esp.cluster_faults(&dirs()).unwrap();
        assert!(matches!(&faults[..], [fault] if fault.concerns(&path(shared))), "{faults:?}");
    }
}

#[test]
fn ent22_chains_that_meet_further_on_are_found() {
    let mut esp = volume(FatKind::Fat16, 8, 1024);
    put(&mut esp, "ralphos/a/g1-linux", &[1; 5000]);
    put(&mut esp, "ralphos/b/g2-linux", &[2; 1000]);
    raw(&mut esp, |volume| {
        let first = |volume: &mut Volume<_>, name: &str| volume.find(name).unwrap().unwrap().first_cluster;
        let (long, short) = (first(volume, "ralphos/a/g1-linux"), first(volume, "ralphos/b/g2-linux"));
        let middle = volume.chain(long).unwrap().clusters[2];
        let at = volume.geometry.fat_start + u64::from(short) * 2;
        volume.write_at(at, &u16::try_from(middle).unwrap().to_le_bytes()).unwrap();
    });
    let (first, second) = (path("ralphos/a/g1-linux"), path("ralphos/b/g2-linux"));
    assert_eq!(esp.cluster_faults(&dirs()).unwrap(), [ClusterFault::Shared { first, second, same_start: false }]);
}

#[test]
fn ent22_broken_chains_and_circles_are_found() {
    let (linux, initrd) = ("ralphos/b/g2-linux", "ralphos/b/g2-initrd");
    for (kind, mib, cluster) in &KINDS[1..] {
        let mut esp = volume(*kind, *mib, *cluster);
        put(&mut esp, linux, &[1; 5000]);
        put(&mut esp, initrd, &[1; 5000]);
        tear(&mut esp, linux);
        assert_eq!(esp.cluster_faults(&dirs()).unwrap(), [ClusterFault::Broken { path: path(linux) }]);
        raw(&mut esp, |volume| {
            let first = volume.find(initrd).unwrap().unwrap().first_cluster;
            let width = if *kind == FatKind::Fat16 { 2 } else { 4 };
            let second = volume.chain(first).unwrap().clusters[1];
            let at = volume.geometry.fat_start + u64::from(second) * width;
            volume.write_at(at, &first.to_le_bytes()[..width as usize]).unwrap();
        });
        let faults = esp.cluster_faults(&dirs()).unwrap();
        assert!(faults.contains(&ClusterFault::Broken { path: path(initrd) }), "{faults:?}");
    }
}

#[test]
fn a_directory_that_holds_itself_ends() {
    let mut esp = volume(FatKind::Fat16, 8, 1024);
    esp.make_dir(&path("ralphos/a/inner")).unwrap();
    link(&mut esp, "ralphos", "ralphos/a/inner");
    let faults = esp.cluster_faults(&dirs()).unwrap();
    assert!(faults.iter().any(|fault| fault.concerns(&path("ralphos/a/inner"))), "{faults:?}");
    tear(&mut esp, "loader/entries");
    assert!(matches!(esp.cluster_faults(&dirs()), Err(crate::esp::EspError::Fat { .. })));
}

const OPTIONS: FormatOptions = FormatOptions { label: "EFI", serial: 0x1234_5678, sector_size: 512 };

#[test]
fn dsk10_a_new_esp_is_clean_reproducible_and_has_its_directories() {
    let make = || {
        let mut memory = Cursor::new(vec![0; 64 << 20]);
        format_esp(&mut memory, OPTIONS).unwrap();
        memory
    };
    let memory = make();
    assert!(memory == make(), "the same bytes");
    let (complaint, mut esp) = fsck(ImageEsp::new(memory));
    assert_eq!(complaint, None);
    raw(&mut esp, |volume| {
        assert_eq!(volume.geometry().kind, FatKind::Fat32);
        for dir in ["EFI/BOOT", "loader/entries", "ralphos/a", "ralphos/b"] {
            assert_eq!(volume.list(dir).unwrap(), Some(vec![]), "{dir}");
        }
    });
    // Filled, emptied and filled again it is still clean, and the count of free clusters is right.
    for round in 0..3 {
        for file in 0..20 {
            put(&mut esp, &format!("loader/entries/a-rather-long-name-{round}-{file}+2-1.conf"), &vec![round; 3000]);
        }
        put(&mut esp, "ralphos/a/g1-linux", &vec![1; 3 << 20]);
        esp.remove(&path("ralphos/a/g1-linux")).unwrap();
        for file in 0..10 {
            esp.remove(&path(&format!("loader/entries/a-rather-long-name-{round}-{file}+2-1.conf"))).unwrap();
        }
        let (complaint, same) = fsck(esp);
        assert_eq!(complaint, None, "round {round}");
        esp = same;
    }
}

#[test]
fn dsk11_a_new_esp_must_be_big_enough_and_its_label_valid() {
    let mut small = Cursor::new(vec![0; 16 << 20]);
    assert!(format_esp(&mut small, OPTIONS).is_err());
    for label in ["", "TWELVE CHARS", "lower", "\u{e9}"] {
        let mut memory = Cursor::new(vec![0; 40 << 20]);
        assert!(matches!(format_esp(&mut memory, FormatOptions { label, ..OPTIONS }), Err(FormatError::Label(_))));
    }
}

#[test]
fn dsk1_an_esp_on_a_disk_with_large_sectors() {
    let mut memory = Cursor::new(vec![0; 300 << 20]);
    format_esp(&mut memory, FormatOptions { sector_size: 4096, ..OPTIONS }).unwrap();
    let (complaint, mut esp) = fsck(ImageEsp::new(memory));
    assert_eq!(complaint, None);
    assert_eq!(esp.space().unwrap().cluster_size, 4096);
}

#[test]
fn ent27_a_torn_file_reads_as_empty() {
    let (entry, short) = ("loader/entries/ralphos-b-g7.conf", "loader/entries/short.conf");
    let mut esp = volume(FatKind::Fat32, 40, 512);
    put(&mut esp, entry, &[b'x'; 700]);
    put(&mut esp, short, &[b'y'; 512]);
    assert_eq!(esp.read(&path(entry), 4096).unwrap().len(), 700);
    for name in [entry, short] {
        tear(&mut esp, name);
    }
    assert!(esp.read(&path(entry), 4096).unwrap().is_empty());
    assert!(esp.read_head(&path(entry), 64).unwrap().is_empty());
    assert_eq!(esp.hash_file(&path(entry)).unwrap().1, 0);
    // All of it lies in the one cluster that is there: nobody asks what comes behind.
    assert_eq!(esp.read(&path(short), 4096).unwrap(), [b'y'; 512]);
    // And the entry can go, as ENT-22 says.
    let state = crate::EspState::read(&mut esp).unwrap();
    assert!(matches!(&state.ours[..], [one] if one.entry.is_err() && !one.is_live()), "{:?}", state.ours);
}

/// A chain in a circle, on a volume that claims as many clusters as FAT32 can have.
#[test]
fn thr_11_a_circle_is_noticed_soon() {
    let mut memory = Cursor::new(vec![0; 40 << 20]);
    let options = fatfs::FormatVolumeOptions::new().fat_type(fatfs::FatType::Fat32).bytes_per_cluster(512);
    fatfs::format_volume(&mut memory, options).unwrap();
    let mut bytes = memory.into_inner();
    let fat = usize::from(u16::from_le_bytes([bytes[14], bytes[15]])) * 512;
    bytes[32..36].copy_from_slice(&(u32::MAX >> 4).to_le_bytes());
    bytes[36..40].copy_from_slice(&(2_u32 << 20).to_le_bytes());
    for (cluster, next) in [(10_u32, 11_u32), (11, 12), (12, 13), (13, 11), (20, 20)] {
        let at = fat + 4 * cluster as usize;
        bytes[at..at + 4].copy_from_slice(&next.to_le_bytes());
    }
    let mut volume = Volume::open(Cursor::new(bytes)).unwrap();
    assert!(volume.geometry.clusters > 200_000_000);
    for first in [10, 11, 13, 20] {
        let chain = volume.chain(first).unwrap();
        assert!(!chain.whole && chain.clusters.len() < 16, "{chain:?}");
        let circle: &[u32] = if first == 20 { &[20] } else { &[11, 12, 13] };
        assert!(circle.iter().all(|cluster| chain.clusters.contains(cluster)), "{chain:?}");
    }
}

#[test]
fn ent_29_two_files_change_places_by_one_sector() {
    for (kind, mib, cluster) in KINDS {
        let mut esp = volume(kind, mib, cluster);
        let path = |text: &str| EspPath::literal(text);
        let (a, b) = (path("EFI/BOOT/BOOTX64.EFI"), path("EFI/BOOT/a longer name.alt"));
        esp.make_dir(&path("EFI/BOOT")).unwrap();
        let (old, new) = (vec![b'o'; 5000], vec![b'n'; 9000]);
        esp.write_new(&a, 5000, &mut &old[..]).unwrap();
        esp.write_new(&b, 9000, &mut &new[..]).unwrap();
        esp.flush().unwrap();
        let before = esp.into_inner();
        let mut esp = ImageEsp::new(Cursor::new(before.get_ref().clone()));
        esp.swap_contents(&a, &b).unwrap();
        assert_eq!((esp.read(&a, 1 << 20).unwrap(), esp.read(&b, 1 << 20).unwrap()), (new, old));
        let after = esp.into_inner();
        let sectors = before.get_ref().chunks(512).zip(after.get_ref().chunks(512));
        assert_eq!(sectors.filter(|(before, after)| before != after).count(), 1, "{kind:?}");
        let (complaint, mut esp) = fsck(ImageEsp::new(after));
        assert_eq!(complaint.filter(|_| kind != FatKind::Fat32), None, "{kind:?}");
        let missing = esp.swap_contents(&a, &path("EFI/BOOT/none"));
        assert!(matches!(missing, Err(EspError::Missing { .. })), "{missing:?}");
    }
}

#[test]
fn ent_29_files_that_lie_apart_do_not_change_places() {
    let mut esp = volume(FatKind::Fat16, 8, 1024);
    let path = |number: usize| EspPath::literal(&format!("EFI/a file with a name of five slots in a folder {number}"));
    esp.make_dir(&EspPath::literal("EFI")).unwrap();
    for number in 0..5 {
        esp.write_new(&path(number), 3, &mut &b"abc"[..]).unwrap();
    }
    let before = esp.into_inner();
    let mut esp = ImageEsp::new(Cursor::new(before.get_ref().clone()));
    let apart = esp.swap_contents(&path(0), &path(4));
    assert!(matches!(apart, Err(EspError::Apart { .. })), "{apart:?}");
    assert!(before.get_ref() == esp.into_inner().get_ref());
}
