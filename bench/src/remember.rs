//! What a machine remembers of its slots (specs/slot-map.md), as an apply of that image would have left it.
//!
//! `ralph-update --disk` has no memory: a machine keeps it below `/var`. [`crate::device`] gives the updater such a folder.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use image_format::{Chunk, Digest, SystemId, UnverifiedImage};

/// State 2 of SLM-1: the slot holds all of it.
const WHOLE: u16 = 2;

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
    Ok(map(head.claimed_system_id(), &claims.chunks))
}

/// SLM-1.
fn map(system: SystemId, chunks: &[Chunk]) -> Vec<u8> {
    let mut covered = system.as_bytes().to_vec();
    let mut pieces = 0_u32;
    // Root is the first payload (IMG-14).
    for chunk in chunks.iter().filter(|chunk| chunk.payload == 0) {
        covered.extend(chunk.plain_offset.to_le_bytes());
        covered.extend(chunk.plain_len.to_le_bytes());
        covered.extend([0; 4]);
        covered.extend(chunk.plain_sha256.as_bytes());
        pieces += 1;
    }
    let mut bytes = b"RALPHMAP".to_vec();
    bytes.extend(1_u16.to_le_bytes());
    bytes.extend(WHOLE.to_le_bytes());
    bytes.extend(pieces.to_le_bytes());
    bytes.extend([0; 16]);
    bytes.extend(Digest::of(&covered).as_bytes());
    bytes.extend(covered);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slm_1_a_map_is_a_header_and_a_record_for_each_chunk_of_root() {
        let chunk = |payload, plain_offset| Chunk {
            encoding: image_format::Encoding::Zstd,
            payload,
            plain_offset,
            plain_len: 4096,
            plain_sha256: Digest::of(b"plain"),
            encoded_offset: 0,
            encoded_len: 10,
            encoded_sha256: Digest::of(b"encoded"),
        };
        let bytes = map(SystemId::from([7; 32]), &[chunk(0, 0), chunk(0, 4096), chunk(1, 0)]);
        assert_eq!(bytes.len(), 96 + 2 * 48);
        assert_eq!(&bytes[..16], b"RALPHMAP\x01\0\x02\0\x02\0\0\0");
        assert_eq!(&bytes[32..64], Digest::of(&bytes[64..]).as_bytes());
        assert_eq!(bytes[64..96], [7; 32]);
        assert_eq!(
            &bytes[144..164],
            [&4096_u64.to_le_bytes()[..], &4096_u32.to_le_bytes(), &[0; 4], &Digest::of(b"plain").as_bytes()[..4]]
                .concat()
        );
    }
}
