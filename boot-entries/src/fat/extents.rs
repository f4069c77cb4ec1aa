//! Where files and directories lie on the volume.

use std::io::{Read, Seek};
use std::iter;
use std::ops::Range;

use super::{FatError, Geometry, Root, Volume};

/// The bytes of a chain of clusters, from the start of the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extents {
    /// In the order of the chain; neighbours are joined.
    pub ranges: Vec<Range<u64>>,
    /// The chain ends with an end mark.
    pub whole: bool,
}

impl Extents {
    /// Bytes in all.
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    /// No clusters at all.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

impl Geometry {
    /// All copies of the FAT, in bytes from the start of the volume.
    pub fn fats(&self) -> Range<u64> {
        self.fats.clone()
    }

    /// Where the FAT32 information sector begins.
    pub fn information_sector(&self) -> Option<u64> {
        self.info
    }
}

impl<T: Read + Seek> Volume<T> {
    /// Where the chain that begins at `first` lies; nothing for a cluster that the volume does not have.
    ///
    /// # Errors
    /// When the FAT cannot be read.
    pub fn extents(&mut self, first: u32) -> Result<Extents, FatError> {
        let chain = self.chain(first)?;
        let size = u64::from(self.geometry.cluster_size);
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for cluster in chain.clusters {
            let start = self.geometry.offset(cluster);
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = start + size,
                _ => ranges.push(start..start + size),
            }
        }
        Ok(Extents { ranges, whole: chain.whole })
    }

    /// True for a file whose chain of clusters ends before the file does, as a cut while it was written leaves it (`ENT-27`).
    ///
    /// # Errors
    /// When the volume cannot be read, or a directory on the way is broken.
    pub fn is_torn(&mut self, path: &str) -> Result<bool, FatError> {
        let Some(item) = self.find(path)?.filter(|item| !item.is_dir) else { return Ok(false) };
        Ok(self.extents(item.first_cluster)?.len() < u64::from(item.size))
    }

    /// Where the root directory lies.
    ///
    /// # Errors
    /// When the FAT cannot be read.
    pub fn root_extents(&mut self) -> Result<Extents, FatError> {
        match self.geometry.root {
            Root::Cluster(first) => self.extents(first),
            Root::Region { start, len } => {
                Ok(Extents { ranges: iter::once(start..start + len).collect(), whole: true })
            }
        }
    }
}
