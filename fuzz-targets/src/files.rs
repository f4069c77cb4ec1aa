//! Where files lie in a root image.

use crate::Seed;

// The least images that have something of everything.
#[path = "../../file-map/tests/common/mod.rs"]
mod small;

/// CUT-2: extents lie in file and image, in order; the work is bounded by the image's length.
pub fn file_map(data: &[u8]) {
    let Ok(map) = file_map::read(&data, data.len() as u64) else { return };
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
