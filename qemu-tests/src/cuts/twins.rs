//! Plants what a cut in the firmware's counting rename could leave (ENT-20): two names for one entry, on one chain of
//! clusters or on two.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::esp::{Esp, partition};

/// What the second name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    /// The first one's clusters: the new name reached the disk, and the old one was not taken away.
    Shared,
    /// A copy of its own.
    Own,
}

/// Gives the entry `from` of the disk a second name, `to`.
///
/// # Errors
/// When there is no such entry, or the volume is not as it was made.
pub fn plant(disk: &Path, from: &str, to: &str, chain: Chain, dir: &Path) -> Result<()> {
    let esp = Esp::of_disk(disk)?;
    let path = |name: &str| format!("loader/entries/{name}");
    let content = esp.read(&path(from))?;
    let copy = dir.join("twin");
    std::fs::write(&copy, &content)?;
    esp.copy_in(&copy, &path(to))?;
    std::fs::remove_file(&copy)?;
    if chain == Chain::Shared {
        let (own, shared) = (esp.first_cluster(&path(to))?, esp.first_cluster(&path(from))?);
        redirect(disk, own, shared, u32::try_from(content.len())?)?;
        ensure!(esp.first_cluster(&path(to))? == shared, "{to} does not share the clusters of {from}");
    }
    Ok(())
}

/// Makes the directory entry of a file that begins at cluster `from` begin at `to`. The clusters it had are lost, as after
/// the removal of a name without its clusters.
fn redirect(disk: &Path, from: u32, to: u32, size: u32) -> Result<()> {
    const SLOT: usize = 32;
    const ARCHIVE: u8 = 0x20;
    let start = partition(disk, "EFI")?;
    let file = File::options().read(true).write(true).open(disk)?;
    let mut volume = vec![0; 64 << 20];
    let len = file.read_at(&mut volume, start)?;
    let halves = |cluster: u32| {
        let [a, b, c, d] = cluster.to_le_bytes();
        ([c, d], [a, b])
    };
    let (high, low) = halves(from);
    let mut places = volume[..len].chunks_exact(SLOT).enumerate().filter(|(_, slot)| {
        slot[11] == ARCHIVE && slot[20..22] == high && slot[26..28] == low && slot[28..32] == size.to_le_bytes()
    });
    let (at, _) = places.next().with_context(|| format!("no name begins at cluster {from}"))?;
    ensure!(places.next().is_none(), "two names begin at cluster {from}");
    let (high, low) = halves(to);
    file.write_all_at(&high, start + (at * SLOT + 20) as u64)?;
    file.write_all_at(&low, start + (at * SLOT + 26) as u64)?;
    Ok(())
}
