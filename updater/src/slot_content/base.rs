//! What a delta refers to.

use std::io;

use disk_layout::SlotBytes;
use image_format::BaseRoot;

/// A slot, as the root that a delta refers to: any of its bytes may be other than they were, at any time (IMG-73).
pub struct SlotRoot(pub Box<dyn SlotBytes>);

impl BaseRoot for SlotRoot {
    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_at(at, into)
    }
}

impl std::fmt::Debug for SlotRoot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SlotRoot").finish_non_exhaustive()
    }
}
