//! What a machine remembers of its slots (specs/slot-map.md), as an apply of that image would have left it.
//!
//! `ralph-update --disk` has no memory: a machine keeps it below `/var`. [`crate::device`] gives the updater such a folder.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use image_format::{SlotMap, UnverifiedImage};

/// Arguments of `update-bench remember`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder of the machine's records; what is in it is removed.
    #[arg(long, value_name = "DIR")]
    records: PathBuf,
    /// The image that these slots hold.
    #[arg(long, value_name = "IMAGE")]
    image: PathBuf,
    /// Their letters.
    #[arg(value_name = "SLOT")]
    slots: Vec<char>,
}

/// `update-bench remember`: a machine's records are its slot maps, and nothing else.
///
/// # Errors
/// When the image is none, or the folder cannot be written.
pub fn run(args: &Args) -> Result<()> {
    let slots = args.records.join("slots");
    if args.records.exists() {
        std::fs::remove_dir_all(&args.records).with_context(|| format!("cannot remove {}", args.records.display()))?;
    }
    std::fs::create_dir_all(&slots).with_context(|| format!("cannot create {}", slots.display()))?;
    let map = map_of(&args.image)?;
    for slot in &args.slots {
        let path = slots.join(format!("{slot}.map"));
        std::fs::write(&path, &map).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn map_of(image: &Path) -> Result<Vec<u8>> {
    let file = std::fs::File::open(image).with_context(|| format!("cannot open {}", image.display()))?;
    let head = UnverifiedImage::read_head(file).with_context(|| format!("{} is no image", image.display()))?;
    let claims = head.claims().with_context(|| format!("{} contradicts itself", image.display()))?;
    Ok(SlotMap::whole(head.claimed_system_id(), &claims.chunks).to_bytes())
}
