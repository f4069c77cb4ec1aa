//! Noise: what a slot holds before a full install, so that nothing in it is of any use to anybody.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use disk_layout::AlignedBuf;
use nix::fcntl::OFlag;

const PIECE: usize = 4 << 20;

/// Arguments of `update-bench fill`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// File or block device.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where to begin, in bytes.
    #[arg(long)]
    offset: u64,
    /// How many bytes.
    #[arg(long)]
    len: u64,
}

/// `update-bench fill`.
///
/// # Errors
/// When the file cannot be written.
pub fn run(args: &Args) -> Result<()> {
    noise(&args.file, args.offset, args.len)
}

/// Writes noise past the page cache, the same every time; `offset` and `len` are multiples of 4096.
///
/// # Errors
/// When the file cannot be written.
pub fn noise(path: &Path, offset: u64, len: u64) -> Result<()> {
    let mut options = File::options();
    options.write(true).create(true).truncate(false).custom_flags(OFlag::O_DIRECT.bits());
    let file = options.open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut buffer = AlignedBuf::new(PIECE);
    let mut state = 0x9E37_79B9_7F4A_7C15;
    let mut done = 0;
    while done < len {
        let piece = &mut buffer[..usize::try_from(len - done).map_or(PIECE, |left| left.min(PIECE))];
        scramble(piece, &mut state);
        file.write_all_at(piece, offset + done).with_context(|| format!("cannot write {}", path.display()))?;
        done += piece.len() as u64;
    }
    file.sync_all().with_context(|| format!("cannot flush {}", path.display()))
}

/// xorshift64.
fn scramble(bytes: &mut [u8], state: &mut u64) {
    for word in bytes.chunks_mut(8) {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        word.copy_from_slice(&state.to_le_bytes()[..word.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_asked_range_is_written_and_no_block_comes_twice() {
        // Beside the program under test: a memory file system may lack what writes past the page cache need.
        let dir = tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
        let path = dir.path().join("slot");
        std::fs::write(&path, vec![7; 5 * 4096]).unwrap();
        noise(&path, 4096, 3 * 4096).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 5 * 4096);
        assert!(bytes[..4096].iter().chain(&bytes[4 * 4096..]).all(|byte| *byte == 7));
        let blocks: Vec<_> = bytes[4096..4 * 4096].chunks(4096).collect();
        assert!(blocks[0] != blocks[1] && blocks[1] != blocks[2]);
    }
}
