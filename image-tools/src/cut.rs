//! Where root is cut into chunks, so that two versions share as many as they can (`specs/cutting.md`).

mod policy;

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use file_map::MapError;

use policy::{BLOCK, Blocks, Rule};

/// How to cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Cut {
    /// At the boundaries of files, as far as root is an ext4 or erofs that tells where they lie; else by content.
    Files,
    /// Where the content says so.
    Content,
    /// Into chunks of --chunk-size.
    Fixed,
}

/// Where to cut.
#[derive(Debug, PartialEq, Eq)]
pub struct Cuts {
    /// Plain lengths of the chunks; `None`: all alike.
    pub lens: Option<Vec<u32>>,
    /// What the release engineer should know.
    pub note: Option<String>,
}

/// Decides where to cut root, which is read once for it.
pub fn cut(how: Cut, mut root: &File, path: &Path) -> Result<Cuts> {
    if how == Cut::Fixed {
        return Ok(Cuts { lens: None, note: None });
    }
    // A block device has no length of its own.
    let len = root.seek(SeekFrom::End(0)).with_context(|| format!("cannot read {}", path.display()))?;
    let (files, note) = match how {
        Cut::Files => match file_map::read(root, len) {
            Ok(map) => (Some(map.files), None),
            Err(error @ MapError::Read { .. }) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
            Err(error) => (None, Some(format!("root is cut by content, not at its files: {error}"))),
        },
        Cut::Content | Cut::Fixed => (None, None),
    };
    let mut blocks = Blocks::default();
    let mut buffer = vec![0; 256 * BLOCK];
    let mut at = 0;
    while at < len {
        let piece = (len - at).min(buffer.len() as u64) as usize;
        // The last block is padded with zeros (IMG-21).
        let padded = piece.next_multiple_of(BLOCK);
        buffer[piece..padded].fill(0);
        root.read_exact_at(&mut buffer[..piece], at).with_context(|| format!("cannot read {}", path.display()))?;
        buffer[..padded].chunks_exact(BLOCK).for_each(|block| blocks.push(block));
        at += piece as u64;
    }
    match policy::within_table(&blocks, files.as_deref(), Rule::default()) {
        Some(lens) => Ok(Cuts { lens: Some(lens), note }),
        None => bail!(
            "{} is too large to be cut by this rule: choose --cut fixed and a larger --chunk-size",
            path.display()
        ),
    }
}
