//! Slot A: the root, and the hash tree over it.

use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use disk_layout::{BLOCK, CoalescingWriter, DiskLayout, Slot, SlotFile, SlotIo};
use image_format::{PayloadReader, Verity, verity_superblock};

use crate::progress::Progress;
use crate::source::{self, Source};

/// Writes a root payload, its superblock and its tree into slot A (`IMG-22`) and flushes them.
///
/// Blocks of zeros are left out: the new disk image is all holes, and stays small.
pub fn write(
    payload: PayloadReader<'_, Source>,
    verity: &Verity,
    disk: &Path,
    layout: &DiskLayout,
    progress: &Progress,
) -> Result<()> {
    let mut slot = SlotFile::open_image(disk, layout, Slot::A)?;
    let mut writer = CoalescingWriter::new(&mut slot);
    source::read_root(payload, verity, &mut |offset, bytes| {
        if offset < verity.hash_offset {
            progress.add(bytes.len() as u64);
        }
        put_sparse(&mut writer, offset, bytes)
    })?;
    writer.write_at(verity.hash_offset, &verity_superblock(verity)).context("cannot write the slot")?;
    writer.finish().context("cannot write the slot")
}

/// Writes the runs of blocks that are not zero.
fn put_sparse(writer: &mut CoalescingWriter<'_, impl SlotIo>, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let is_zero = |block: &[u8]| block.iter().all(|byte| *byte == 0);
    let mut at = offset;
    for run in bytes.chunk_by_blocks(is_zero) {
        if !is_zero(&run[..BLOCK.min(run.len())]) {
            writer.write_at(at, run).map_err(io::Error::other)?;
        }
        at += run.len() as u64;
    }
    Ok(())
}

trait ByBlocks {
    /// Cuts into runs of blocks for which `property` is the same.
    fn chunk_by_blocks(&self, property: impl Fn(&[u8]) -> bool) -> Vec<&[u8]>;
}

impl ByBlocks for [u8] {
    fn chunk_by_blocks(&self, property: impl Fn(&[u8]) -> bool) -> Vec<&[u8]> {
        let flags: Vec<bool> = self.chunks(BLOCK).map(property).collect();
        let mut runs = Vec::new();
        let mut rest = self;
        for run in flags.chunk_by(|a, b| a == b) {
            let (head, tail) = rest.split_at(rest.len().min(run.len() * BLOCK));
            runs.push(head);
            rest = tail;
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use disk_layout::fake::{FakeSlot, SlotEvent};

    #[test]
    fn zeros_are_not_written() {
        let mut bytes = vec![0; 6 * BLOCK];
        bytes[BLOCK + 7] = 1;
        bytes[3 * BLOCK - 1] = 1;
        bytes[5 * BLOCK] = 1;
        let mut slot = FakeSlot::new(8 * BLOCK);
        let mut writer = CoalescingWriter::new(&mut slot);
        put_sparse(&mut writer, BLOCK as u64, &bytes).unwrap();
        writer.finish().unwrap();
        assert_eq!(slot.written()[BLOCK..7 * BLOCK], bytes);
        let block = BLOCK as u64;
        let mut events = slot.events().to_vec();
        events.sort_by_key(|e| match e {
            SlotEvent::Write { offset, .. } => *offset,
            _ => u64::MAX,
        });
        assert_eq!(
            events,
            [
                SlotEvent::Write { offset: 2 * block, bytes: 2 * block },
                SlotEvent::Write { offset: 6 * block, bytes: block },
                SlotEvent::Flush
            ]
        );
    }
}
