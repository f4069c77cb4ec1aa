//! A third reader of the volume: `fsck.vfat`, which changes nothing here.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::system::output;

/// How lines begin that are no fault, and why.
const ALLOWED: &[&str] = &[
    // Its own name, what it works on, what it counted, what it did not do.
    "fsck.fat ",
    "/",
    "Leaving filesystem unchanged.",
    // Its tables of letters are not in this guest; ours are all ASCII.
    "Cannot initialize conversion",
    "Using internal CP850 conversion table",
    // The kernel marks a volume while it is mounted, and leaves the mark of whoever was cut (CUT-27).
    "0x25: Dirty bit is set.",
    "0x41: Dirty bit is set.",
    "Dirty bit is set.",
    "Automatically removing dirty bit.",
    // The same mark, where the boot sector has a copy.
    "There are differences between boot sector and its backup.",
    "This is mostly harmless.",
    "65:01/00",
    "65:00/01",
    "Not automatically fixing this.",
    // Only the first FAT counts (CUT-27), and a cut may come between the two.
    "FATs differ but appear to be intact.",
    "Using first FAT.",
    // Nobody reads the information sector but to find free clusters faster (CUT-27).
    "Free cluster summary wrong",
    "Free cluster summary uninitialized",
    "Auto-correcting.",
    "Auto-setting.",
    // Clusters without a name, however many: a cut takes them from the free space, and so does a name that is dropped and
    // whose clusters are kept (ENT-22). How many a cut may take is checked where the states are made (CUT-41).
    "Reclaimed ",
    // Parts of a long name without their short name mean nothing (CUT-21).
    "Orphaned long file name part",
    "Unfinished long file name",
    "Auto-deleting.",
];

/// Has it look at the volume.
pub fn fsck(device: &Path) -> Result<()> {
    let ran = output(Command::new("/bin/fsck.vfat").arg("-n").arg(device))?;
    ensure!(matches!(ran.code, Some(0 | 1)), "fsck.vfat: {}: {}", ran.end(), ran.output);
    let mut lines = ran.output.lines().map(str::trim).filter(|line| !line.is_empty());
    let fault = lines.find(|line| !ALLOWED.iter().any(|allowed| line.starts_with(allowed)));
    ensure!(fault.is_none(), "fsck.vfat: {}: {}", fault.unwrap_or_default(), ran.output);
    Ok(())
}
