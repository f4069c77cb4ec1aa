use std::io::{self, Cursor, Read};

use super::*;
use crate::esp::{Esp, EspPath, ImageEsp};
use crate::fat::{FormatOptions, format_esp};

const LEN: usize = 34 << 20;
const DIR: &str = "ralphos/b";

fn volume() -> Cursor<Vec<u8>> {
    let mut storage = Cursor::new(vec![0; LEN]);
    format_esp(&mut storage, FormatOptions { label: "EFI", serial: 1, sector_size: 512 }).unwrap();
    storage
}

fn room(storage: &Cursor<Vec<u8>>, dir: &str) -> usize {
    Volume::open(storage.clone()).unwrap().room(dir).unwrap().unwrap()
}

#[test]
fn ent28_a_new_volume_has_room_for_names() {
    let storage = volume();
    assert!(room(&storage, "loader/entries") >= 512);
    assert_eq!(room(&storage, DIR), 16 - 2, "a cluster of 512 bytes, and two dots");
    assert_eq!(Volume::open(storage).unwrap().room("missing").unwrap(), None);
}

/// The states that a cut may leave of what is written, as far as flushes order it: the directory's chain is whole in each.
#[test]
fn ent28_no_cut_breaks_the_chain() {
    let mut storage = volume();
    // Something stands between the directory and what is free.
    let path: EspPath = "ralphos/b/g1-linux".parse().unwrap();
    ImageEsp::new(&mut storage).write_new(&path, 200_000, &mut vec![1; 200_000].as_slice()).unwrap();
    let before = storage.get_ref().clone();
    let free = Volume::open(storage.clone()).unwrap().free_clusters().unwrap();
    let mut flushed = Vec::new();
    let mut volume = Volume::open(storage).unwrap();
    let made = volume.make_room(DIR, 256, &mut |storage| {
        flushed.push(storage.get_ref().clone());
        Ok(())
    });
    assert!(made.unwrap());
    assert_eq!(flushed.len(), 3);
    let sectors = |from: &[u8], to: &[u8]| -> Vec<usize> {
        (0..LEN / 512).filter(|i| from[i * 512..(i + 1) * 512] != to[i * 512..(i + 1) * 512]).collect()
    };
    let list = |image: &[u8]| Volume::open(Cursor::new(image.to_vec())).unwrap().list(DIR).unwrap().unwrap().len();
    for [from, to] in [[&before, &flushed[0]], [&flushed[0], &flushed[1]], [&flushed[1], &flushed[2]]] {
        for sector in sectors(from, to) {
            // Only this one, and all but this one.
            let (mut only, mut without) = (from.clone(), to.clone());
            let range = sector * 512..(sector + 1) * 512;
            only[range.clone()].copy_from_slice(&to[range.clone()]);
            without[range.clone()].copy_from_slice(&from[range]);
            assert_eq!((list(&only), list(&without)), (1, 1), "sector {sector}");
        }
    }
    let link = sectors(&flushed[0], &flushed[1]);
    assert_eq!(link.len(), 2, "one sector of each FAT: {link:?}");
    let last = Cursor::new(flushed[2].clone());
    assert!(room(&last, DIR) >= 512);
    let mut volume = Volume::open(last.clone()).unwrap();
    assert_eq!(free - volume.free_clusters().unwrap(), 32, "498 slots are 31.1 clusters");
    assert!(!volume.make_room(DIR, 256, &mut |_| panic!("nothing is to be done")).unwrap());
    // What is there stays, and new names find place.
    let mut esp = ImageEsp::new(last);
    assert_eq!(esp.read(&path, 1 << 20).unwrap(), vec![1; 200_000]);
    for number in 0..30 {
        let path: EspPath = format!("{DIR}/a-long-name-of-number-{number}").parse().unwrap();
        esp.write_new(&path, 1, &mut [7].as_slice()).unwrap();
    }
    assert_eq!(esp.list(&DIR.parse().unwrap()).unwrap().len(), 31);
}

/// A volume may keep only one of its FATs (CUT-27); the others are then nobody's business.
#[test]
fn ent28_only_the_copies_that_are_kept_are_written() {
    let mut image = volume().into_inner();
    image[40] = 0x81;
    let before = image.clone();
    let mut volume = Volume::open(Cursor::new(image)).unwrap();
    assert!(volume.make_room(DIR, 256, &mut |_| Ok(())).unwrap());
    assert!(volume.room(DIR).unwrap().unwrap() >= 512);
    let (fats, len) = (volume.geometry().fats(), volume.geometry().fat_len);
    let first = usize::try_from(fats.start).unwrap()..usize::try_from(fats.start + len).unwrap();
    assert_eq!(volume.geometry().copies(), [fats.start + len]);
    assert!(volume.storage.get_ref()[first.clone()] == before[first]);
}

#[test]
fn ent28_what_cannot_be_made_longer_is_left() {
    let mut storage = volume();
    let free = Volume::open(storage.clone()).unwrap().free_clusters().unwrap() * 512 - 4096;
    let path: EspPath = "ralphos/b/g1-linux".parse().unwrap();
    ImageEsp::new(&mut storage).write_new(&path, free, &mut io::repeat(1).take(free)).unwrap();
    let before = storage.get_ref().clone();
    let mut volume = Volume::open(storage).unwrap();
    assert!(matches!(volume.make_room("missing", 1, &mut |_| Ok(())), Err(FatError::Missing(_))));
    assert!(matches!(volume.make_room(DIR, 256, &mut |_| Ok(())), Err(FatError::Full)));
    assert_eq!(*volume.storage.get_ref(), before);
}

/// FAT32 allows 65,536 slots in a directory; there it cannot grow, and need not (CUT-26).
#[test]
fn ent28_a_directory_grows_as_far_as_fat_allows() {
    let mut volume = Volume::open(volume()).unwrap();
    assert!(volume.make_room("loader/entries", 40_000, &mut |_| Ok(())).unwrap());
    let first = volume.find("loader/entries").unwrap().unwrap().first_cluster;
    assert_eq!(volume.chain(first).unwrap().clusters.len() * 16, 65_536);
    assert!(!volume.make_room("loader/entries", 65_536, &mut |_| Ok(())).unwrap());
}
