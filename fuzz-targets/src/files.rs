//! Where files lie in a root image.

use std::cell::Cell;
use std::io;

use file_map::ReadAt;

use crate::Seed;

// The least images that have something of everything.
#[path = "../../file-map/tests/common/mod.rs"]
mod small;

/// An image that counts what is read of it.
struct Image<'a>(&'a [u8], Cell<u64>);

impl ReadAt for Image<'_> {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.1.set(self.1.get() + into.len() as u64);
        ReadAt::read_at(&self.0, into, offset)
    }
}

/// CHK-2: extents lie in file and image, in order; the work is bounded by the image's length.
pub fn file_map(data: &[u8]) {
    let image = Image(data, Cell::new(0));
    let read = file_map::read(&image, data.len() as u64);
    let most = 2 * data.len() as u64 + (1 << 20);
    assert!(image.1.get() <= most, "{} bytes were read of {}", image.1.get(), data.len());
    let Ok(map) = read else { return };
    // No inode has less than 32 bytes, and none counts twice.
    assert!((map.files.len() + map.directories.len()) as u64 <= most / 32);
    assert!(map.files.is_sorted_by(|a, b| a.path <= b.path));
    assert!(map.files.iter().all(|file| !file.path.is_empty()));
    for file in map.files.iter().chain(&map.directories) {
        assert!(file.path.len() <= 4096);
        let mut at = 0;
        for extent in &file.extents {
            assert!(extent.len > 0 && extent.file_offset >= at, "{file:?}");
            at = extent.file_offset + extent.len;
            assert!(extent.image_offset + extent.len <= data.len() as u64, "{file:?}");
        }
        assert!(at <= file.size, "{file:?}");
    }
}

pub fn file_map_seeds() -> Vec<Seed> {
    vec![("ext4", small::ext4()), ("erofs", small::erofs())]
}
