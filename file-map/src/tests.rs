use proptest::prelude::*;

use super::*;

#[path = "../tests/common/mod.rs"]
mod small;

/// A file's bytes by its extents; what is in none of them is zeros.
fn bytes(image: &[u8], file: &MappedFile) -> Vec<u8> {
    let mut bytes = vec![0; file.size as usize];
    for extent in &file.extents {
        let from = &image[extent.image_offset as usize..][..extent.len as usize];
        bytes[extent.file_offset as usize..][..extent.len as usize].copy_from_slice(from);
    }
    bytes
}

/// What must hold of every map, of whatever image.
fn holds(image: &[u8]) {
    let Ok(map) = read(&image, image.len() as u64) else { return };
    assert!(map.files.is_sorted_by(|a, b| a.path <= b.path));
    for file in map.files.iter().chain(&map.directories) {
        let mut at = 0;
        for extent in &file.extents {
            assert!(extent.len > 0 && extent.file_offset >= at, "{file:?}");
            at = extent.file_offset + extent.len;
            assert!(extent.image_offset + extent.len <= image.len() as u64, "{file:?}");
        }
        assert!(at <= file.size, "{file:?}");
    }
}

#[test]
fn the_least_images_are_read() {
    for (kind, image) in [(FsKind::Erofs, small::erofs()), (FsKind::Ext4, small::ext4())] {
        let map = read(&image, image.len() as u64).unwrap();
        assert_eq!(map.kind, kind);
        let found: Vec<_> = map.files.iter().map(|f| (str::from_utf8(&f.path).unwrap(), bytes(&image, f))).collect();
        assert_eq!(found, small::content(), "{kind:?}");
        let directories: Vec<&[u8]> = map.directories.iter().map(|directory| &directory.path[..]).collect();
        assert_eq!(directories, [&b""[..], b"d"], "{kind:?}");
        assert!(bytes(&image, &map.directories[0]).windows(5).any(|name| name == b"plain"), "{kind:?}");
        holds(&image);
    }
}

#[test]
fn neither_is_said_so() {
    for image in [vec![], vec![0; 1023], vec![0; 4096], vec![0xff; 4096]] {
        assert!(matches!(read(&image, image.len() as u64), Err(MapError::Unknown)));
    }
}

#[test]
fn features_that_are_not_known_are_refused() {
    let refused = |image: &mut Vec<u8>, at: usize, byte: u8| {
        image[at] = byte;
        matches!(read(image, image.len() as u64), Err(MapError::Unsupported { .. }))
    };
    assert!(refused(&mut small::erofs(), 1024 + 81, 1));
    assert!(refused(&mut small::erofs(), 1024 + 86, 1));
    // Encryption; a journal to be replayed.
    assert!(refused(&mut small::ext4(), 1024 + 98, 1));
    assert!(refused(&mut small::ext4(), 1024 + 96, 0x46));
}

#[test]
fn an_image_that_refers_to_itself_ends() {
    // The entry `d` of the root is the root.
    let mut image = small::ext4();
    let entry = image.windows(9).position(|w| w[6] == 1 && w[8] == b'd').unwrap();
    image[entry] = 2;
    assert_eq!(read(&image, image.len() as u64).unwrap().files.len(), 1);
    // The tree's child is the tree itself.
    let mut image = small::ext4();
    let node = image[8 * 1024..8 * 1024 + 4].to_vec();
    image[8 * 1024 + 6] = 1;
    image[8 * 1024 + 16] = 8;
    assert_eq!(node[..2], [0x0a, 0xf3]);
    assert!(matches!(read(&image, image.len() as u64), Err(MapError::Damaged(Damage::Extent))));
}

#[test]
fn what_lies_outside_is_refused() {
    let outside =
        |image: &[u8], len: usize| matches!(read(&&image[..len], len as u64), Err(MapError::Damaged(Damage::Outside)));
    assert!(outside(&small::erofs(), 8 * 512));
    assert!(outside(&small::ext4(), 10 * 1024));
}

proptest! {
    #[test]
    fn whatever_is_changed_nothing_breaks(
        ext4 in any::<bool>(),
        changes in proptest::collection::vec((0_usize..12288, any::<u8>()), 1..12),
    ) {
        let mut image = if ext4 { small::ext4() } else { small::erofs() };
        for (at, byte) in changes {
            let len = image.len();
            image[at % len] = byte;
        }
        holds(&image);
    }
}
