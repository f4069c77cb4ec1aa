//! Names that share clusters, and names whose clusters are no chain (`ENT-22`).

use std::collections::{HashMap, HashSet};
use std::io::{Read, Seek};

use super::{FatError, RawItem, Root, Volume};
use crate::esp::EspPath;

/// What is wrong with the clusters of a name. Paths are as they are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterFault {
    /// Two names on one chain: removing either destroys the other.
    Shared {
        /// The one.
        first: EspPath,
        /// The other.
        second: EspPath,
        /// They begin at the same cluster, as after a rename that was cut. Otherwise the chains meet further on.
        same_start: bool,
    },
    /// The chain runs into a free cluster, out of the volume or in a circle, as after a cut while the file was written.
    /// To remove such a name makes the kernel take the volume for broken.
    Broken {
        /// The name.
        path: EspPath,
    },
}

impl ClusterFault {
    /// True when `path` is (one of) the names.
    pub fn concerns(&self, path: &EspPath) -> bool {
        let same = |own: &EspPath| own.as_str().eq_ignore_ascii_case(path.as_str());
        match self {
            ClusterFault::Shared { first, second, .. } => same(first) || same(second),
            ClusterFault::Broken { path } => same(path),
        }
    }
}

/// How deep directories are followed. Ours are two levels deep; the loader's and the firmware's hardly more.
const DEPTH_MAX: usize = 16;

/// Looks at every name of the volume, and reports what concerns one of `dirs` or a name in one of them.
///
/// # Errors
/// When the volume cannot be read, or a directory is broken: nothing can then be said about what lies in it.
pub fn cluster_faults<T: Read + Seek>(volume: &mut Volume<T>, dirs: &[EspPath]) -> Result<Vec<ClusterFault>, FatError> {
    let mut walk = Walk { names: Vec::new(), dirs_seen: HashSet::new() };
    if let Root::Cluster(first) = volume.geometry.root {
        walk.dirs_seen.insert(first);
    }
    let root = volume.root_items()?;
    walk.add(volume, "", root, 0)?;

    let is = |one: &str, other: &str| one.eq_ignore_ascii_case(other);
    let ours = |path: &str| {
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let above = |dir: &str| {
            let parts = dir.get(..path.len()).zip(dir.get(path.len()..));
            parts.is_some_and(|(first, rest)| is(first, path) && rest.starts_with('/'))
        };
        dirs.iter().map(EspPath::as_str).any(|dir| is(dir, parent) || is(dir, path) || above(dir))
    };
    // A name that FAT holds and EspPath does not cannot be ours, so the fault can only be told by the other one.
    let path = |text: &str| text.parse::<EspPath>().unwrap_or_else(|_| EspPath::literal("unprintable-name"));
    let mut owners: HashMap<u32, usize> = HashMap::new();
    let mut faults = Vec::new();
    for (index, (name, first)) in walk.names.iter().enumerate() {
        let chain = volume.chain(*first)?;
        if !chain.whole && ours(name) {
            faults.push(ClusterFault::Broken { path: path(name) });
        }
        for cluster in &chain.clusters {
            match owners.get(cluster) {
                // A chain in a circle meets itself.
                Some(&owner) if owner == index => break,
                Some(&owner) => {
                    let (other, other_first) = &walk.names[owner];
                    if ours(name) || ours(other) {
                        let same_start = first == other_first;
                        faults.push(ClusterFault::Shared { first: path(other), second: path(name), same_start });
                    }
                    // From here on the two chains are one.
                    break;
                }
                None => {
                    owners.insert(*cluster, index);
                }
            }
        }
    }
    Ok(faults)
}

struct Walk {
    /// Path and first cluster of every name that has clusters.
    names: Vec<(String, u32)>,
    dirs_seen: HashSet<u32>,
}

impl Walk {
    fn add<T: Read + Seek>(
        &mut self,
        volume: &mut Volume<T>,
        parent: &str,
        items: Vec<RawItem>,
        depth: usize,
    ) -> Result<(), FatError> {
        for item in items {
            let path = if parent.is_empty() { item.name.clone() } else { format!("{parent}/{}", item.name) };
            if item.first_cluster != 0 {
                self.names.push((path.clone(), item.first_cluster));
            }
            // A directory seen before is a fault that the chains show; to enter it again could last for ever.
            if item.is_dir && self.dirs_seen.insert(item.first_cluster) {
                if depth == DEPTH_MAX {
                    return Err(FatError::Directory(path));
                }
                let inside = volume.items_at(item.first_cluster, &path)?;
                self.add(volume, &path, inside, depth + 1)?;
            }
        }
        Ok(())
    }
}
