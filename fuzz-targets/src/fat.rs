//! The raw FAT of an ESP, and what the boot loader makes of what stands in it.

use std::collections::HashSet;
use std::io::Cursor;
use std::ops::Range;
use std::sync::LazyLock;

use boot_entries::fat::{
    ClusterFault, FatKind, FormatOptions, RawItem, Volume, VolumeHealth, cluster_faults, format_esp,
};
use boot_entries::guard::{self, GuardFile};
use boot_entries::loader::Outcome;
use boot_entries::{
    EntryArchitecture, EntryName, Esp, EspPath, EspState, ImageEsp, Liveness, LoaderVars, PayloadKind, Payloads,
    Prediction, RawEsp, Release, is_whole,
};
use image_format::Digest;

use crate::sparse::{SECTOR, Sparse};
use crate::{Seed, boot};

/// A volume, and where its sectors lie that are not zero.
struct Base {
    len: u64,
    places: Vec<u64>,
    bytes: Vec<u8>,
}

const ENTRIES: &str = "loader/entries";
/// What is ours on an ESP.
const DIRS: [&str; 3] = [ENTRIES, "ralphos/a", "ralphos/b"];
/// A volume that a target changes.
type Fat<'a> = Volume<&'a mut Sparse>;

/// FAT12, FAT16, FAT32.
static BASES: LazyLock<[Base; 3]> = LazyLock::new(|| {
    let small = |kind, mib: usize, cluster| {
        let mut memory = Cursor::new(vec![0; mib << 20]);
        let options = fatfs::FormatVolumeOptions::new().fat_type(kind).bytes_per_cluster(cluster);
        fatfs::format_volume(&mut memory, options).expect("a volume");
        memory
    };
    let mut large = Cursor::new(vec![0; 40 << 20]);
    format_esp(&mut large, FormatOptions { label: "EFI", serial: 1, sector_size: 512 }).expect("an ESP");
    [small(fatfs::FatType::Fat12, 1, 512), small(fatfs::FatType::Fat16, 8, 1024), large].map(base)
});

/// Puts on a new volume what an ESP holds.
///
/// # Panics
/// When something is found to be wrong with it.
fn base(memory: Cursor<Vec<u8>>) -> Base {
    let mut esp = ImageEsp::new(memory);
    DIRS.iter().for_each(|dir| esp.make_dir(&path(dir)).expect("room"));
    let mut entry = boot::entry();
    let [linux, initrd] = [&b"a kernel"[..], b"an initrd"].map(|content| *Digest::of(content).as_bytes());
    entry.payloads = Payloads::Kernel { linux, initrd };
    let [linux, initrd] = [PayloadKind::Linux, PayloadKind::Initrd].map(|kind| entry.payload(kind).path());
    let files: [(EspPath, Vec<u8>); 6] = [
        (path("loader/loader.conf"), b"timeout 3\n".to_vec()),
        (path("loader/entries/ralphos-a-g1.conf"), b"title x\nlinux /ralphos/a/g1-linux\n".to_vec()),
        (path("loader/entries/ralphos-b-g1+2-1.conf"), entry.render(Liveness::Live)),
        (path("ralphos/a/g1-linux"), b"another kernel".to_vec()),
        (linux, b"a kernel".to_vec()),
        (initrd, b"an initrd".to_vec()),
    ];
    for (path, content) in &files {
        esp.write_new(path, content.len() as u64, &mut content.as_slice()).expect("room");
    }
    guard::make(&mut esp).expect("room");
    let mut memory = esp.into_inner();
    let mut volume = Volume::open(&mut memory).expect("a volume");
    assert_eq!(cluster_faults(&mut volume, &DIRS.map(path)).expect("it can be read"), []);
    assert_eq!(volume.health().expect("it can be read"), VolumeHealth::default());
    let volume = memory.into_inner();
    let used = |(_, sector): &(u64, &[u8])| sector.iter().any(|byte| *byte != 0);
    let (places, bytes): (Vec<u64>, Vec<&[u8]>) = (0..).zip(volume.chunks(SECTOR)).filter(used).unzip();
    Base { len: volume.len() as u64, places, bytes: bytes.concat() }
}

fn path(text: &str) -> EspPath {
    text.parse().expect("a path")
}

/// ENT-22, ENT-28, GRD-2, LDR-9: the width of the FAT, the room to ask for, then the sectors of such an ESP that are not zero, one
/// behind the other.
pub fn fat(data: &[u8]) {
    let [kind, slots, bytes @ ..] = data else { return };
    let base = &BASES[usize::from(*kind) % BASES.len()];
    let volume = || Sparse::new(base.len, &base.places, bytes);
    let _ = GuardFile::locate(&mut volume(), SECTOR as u64);
    let mut storage = volume();
    let Ok(mut volume) = Volume::open(&mut storage) else { return };
    // Other than at the start of a volume nothing can be said about what these say; they end, and that is enough.
    let _ = (volume.health(), volume.is_torn("ralphos/a/g1-linux"));
    faults(&mut volume);
    loaders(&mut storage);
    room(&mut storage.clone(), usize::from(*slots) * 2);
    if let Ok(volume) = Volume::open(&mut storage) {
        names(volume, base.len);
    }
}

/// A name with clusters, and where they lie.
struct Owner {
    path: String,
    is_dir: bool,
    ranges: Vec<Range<u64>>,
    whole: bool,
}

impl Owner {
    fn shares_with(&self, other: &Owner) -> bool {
        let meet = |a: &Range<u64>, b: &Range<u64>| a.start < b.end && b.start < a.end;
        self.ranges.iter().any(|a| other.ranges.iter().any(|b| meet(a, b)))
    }

    /// In one of our folders, and one of which a fault can be told.
    fn is_ours(&self) -> bool {
        let parent = self.path.rsplit_once('/').map_or("", |(parent, _)| parent);
        DIRS.iter().any(|dir| dir.eq_ignore_ascii_case(parent)) && self.path.parse::<EspPath>().is_ok()
    }
}

/// ENT-22: what is reported is so, and what is so is reported.
fn faults(volume: &mut Fat) {
    let Ok(faults) = cluster_faults(volume, &DIRS.map(path)) else { return };
    let Some(owners) = owners(volume) else { return };
    let owner = |path: &EspPath| owners.iter().find(|owner| owner.path.eq_ignore_ascii_case(path.as_str()));
    for fault in &faults {
        match fault {
            ClusterFault::Broken { path } => assert!(owner(path).is_none_or(|owner| !owner.whole), "{path} is whole"),
            ClusterFault::Shared { first, second, .. } => {
                let both = owner(first).zip(owner(second));
                assert!(both.is_none_or(|(a, b)| a.shares_with(b)), "{first} and {second} share nothing");
            }
        }
    }
    for (at, owner) in owners.iter().enumerate().filter(|(_, owner)| owner.is_ours()) {
        let concerns = |fault: &&ClusterFault| fault.concerns(&path(&owner.path));
        let broken = |fault: &ClusterFault| matches!(fault, ClusterFault::Broken { .. });
        if !owner.whole {
            assert!(faults.iter().filter(concerns).any(broken), "{} is broken, and that is not told", owner.path);
        }
        if let Some((_, other)) =
            owners.iter().enumerate().find(|(index, other)| *index != at && owner.shares_with(other))
        {
            let told = faults.iter().filter(concerns).any(|fault| !broken(fault));
            assert!(told, "{} shares clusters with {}, and that is not told", owner.path, other.path);
        }
    }
}

/// All names with clusters; None for a volume on which a path does not mean one name, or a folder has two paths.
fn owners(volume: &mut Fat) -> Option<Vec<Owner>> {
    const MOST: usize = 64;
    let mut owners: Vec<Owner> = Vec::new();
    let mut seen: HashSet<u64> = volume.root_extents().ok()?.ranges.iter().map(|range| range.start).collect();
    let mut dirs = vec![String::new()];
    while let Some(dir) = dirs.pop() {
        for item in volume.list(&dir).ok()?? {
            let path = under(&dir, &item.name);
            if owners.len() == MOST || volume.find(&path).ok()??.slots != item.slots {
                return None;
            }
            if item.first_cluster != 0 {
                let extents = volume.extents(item.first_cluster).ok()?;
                let is_dir = item.is_dir;
                owners.push(Owner { path, is_dir, ranges: extents.ranges, whole: extents.whole });
                let last = owners.last().filter(|owner| owner.is_dir);
                if let Some(owner) = last {
                    if !seen.insert(owner.ranges.first()?.start) {
                        return None;
                    }
                    dirs.push(owner.path.clone());
                }
            }
        }
    }
    Some(owners)
}

fn under(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

/// LDR-8, LDR-9: what every release of the loader would do with such an ESP, and what we say about it.
fn loaders(storage: &mut Sparse) {
    let Ok(mut esp) = RawEsp::open(storage) else { return };
    let Ok(state) = EspState::read(&mut esp) else { return };
    let listed: Vec<String> =
        esp.list(&path(ENTRIES)).expect("it was read a moment ago").into_iter().map(|item| item.name).collect();
    assert!(state.ours.len() + state.foreign.len() <= listed.len());
    for architecture in [EntryArchitecture::X64, EntryArchitecture::Aa64] {
        let vars = LoaderVars::default();
        let boots = |release| match state.outcome(release, &vars, architecture) {
            Outcome::Boots(choice) => Some(choice.name),
            _ => None,
        };
        let chosen = Release::ALL.map(boots);
        assert!(chosen.iter().flatten().all(|name| listed.contains(name)), "{chosen:?} of {listed:?}");
        match state.predict(&vars, architecture) {
            Prediction::Boots { file_name, entry, .. } => {
                let same = |name: &String| {
                    let twin = name.parse::<EntryName>().ok().zip(entry).is_some_and(|(a, b)| a.same_system(b));
                    *name == file_name || twin
                };
                assert!(chosen.iter().all(|name| name.as_ref().is_some_and(same)), "{file_name}, and {chosen:?}");
            }
            Prediction::Nothing => assert_eq!(chosen, [const { None }; 3]),
            Prediction::Unknown { because } => assert!(!because.is_empty()),
        }
        for ours in state.ours.iter().take(4) {
            assert!(listed.contains(&ours.file_name));
            let _ = (state.predict_if_bad(ours.name, &vars, architecture), is_whole(&mut esp, ours));
        }
    }
}

/// ENT-28: more room, and nothing else is changed.
fn room(storage: &mut Sparse, slots: usize) {
    let Ok(mut volume) = Volume::open(storage) else { return };
    let listing = |volume: &mut Fat| ["", "loader", ENTRIES].map(|dir| volume.list(dir).ok().flatten());
    let (before, had) = (listing(&mut volume), volume.room(ENTRIES));
    let made = volume.make_room(ENTRIES, slots, &mut |_| Ok(()));
    assert_eq!(listing(&mut volume), before);
    let Ok(made) = made else { return };
    let Ok(Some(had)) = had else { panic!("room in a directory that cannot be read: {had:?}") };
    let has = volume.room(ENTRIES).expect("it was read a moment ago").expect("it is there");
    if volume.geometry().kind == FatKind::Fat32 {
        assert_eq!((has >= slots, made), (true, had < slots), "{slots} asked, {had} before, {has} now");
    } else {
        assert_eq!((has, made), (had, false));
    }
}

/// Names lie on the volume, and one that is dropped is gone.
fn names(mut volume: Fat, len: u64) {
    let mut named: Vec<(String, RawItem)> = Vec::new();
    for dir in ["", "loader", ENTRIES, "ralphos", "ralphos/a"] {
        let Ok(Some(items)) = volume.list(dir) else { continue };
        assert!(items.len() <= 65536);
        for item in items {
            assert!(item.slots.iter().all(|slot| slot + 32 <= len), "a slot beyond the volume");
            assert!(item.slots.len() <= 64, "a name of more slots than a name may have");
            if !item.name.contains('/') && named.len() < 4 {
                named.push((under(dir, &item.name), item));
            }
        }
    }
    for (path, _) in named {
        let Ok(Some(item)) = volume.find(&path) else { continue };
        if volume.drop_name(&path).is_ok() {
            let next = volume.find(&path).ok().flatten();
            assert!(next.is_none_or(|next| next.slots != item.slots), "{path} was dropped and is there");
        }
    }
}

pub fn fat_seeds() -> Vec<Seed> {
    let seed = |kind: u8, slots: u8, bytes: &[u8]| [&[kind, slots], bytes].concat();
    let whole = |kind: u8, slots| seed(kind, slots, &BASES[usize::from(kind)].bytes);
    vec![
        ("fat12", whole(0, 10)),
        ("fat12-linked", seed(0, 0, &linked(&BASES[0]))),
        ("fat16", whole(1, 10)),
        ("fat16-linked", seed(1, 0, &linked(&BASES[1]))),
        ("fat32", whole(2, 0)),
        ("fat32-room", whole(2, 255)),
        ("fat32-linked", seed(2, 128, &linked(&BASES[2]))),
        ("fat32-circle", seed(2, 128, &circle(&BASES[2]))),
    ]
}

/// Two names on one chain, as a rename that was cut leaves them: the second entry gets the first one's cluster.
fn linked(base: &Base) -> Vec<u8> {
    let mut bytes = base.bytes.clone();
    let slot = |name: &[u8]| bytes.chunks(32).position(|slot| slot.starts_with(name)).map(|at| at * 32);
    let (a, b) = slot(b"RALPHO~1").zip(slot(b"RALPHO~2")).expect("two entries");
    bytes.copy_within(a + 26..a + 28, b + 26);
    bytes
}

/// The root directory's chain leads to itself, on a volume that claims two hundred million clusters.
fn circle(base: &Base) -> Vec<u8> {
    const FAT_SECTORS: u32 = 2 << 20;
    let mut bytes = base.bytes.clone();
    let reserved = u64::from(u16::from_le_bytes([bytes[14], bytes[15]]));
    bytes[13] = 1;
    bytes[32..36].copy_from_slice(&(2 * FAT_SECTORS + 200_000_000).to_le_bytes());
    bytes[36..40].copy_from_slice(&FAT_SECTORS.to_le_bytes());
    let fat = base.places.iter().position(|place| *place == reserved).expect("a FAT") * SECTOR;
    bytes[fat + 8..fat + 12].copy_from_slice(&2_u32.to_le_bytes());
    bytes
}
