//! Puts the disk under test into a state, past every cache.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use anyhow::{Context, Result, ensure};
use nix::fcntl::OFlag;
use qemu_tests::cuts::states::Patch;

const ALIGNMENT: usize = 4096;

/// The disk, and all that stood on it at first.
#[derive(Debug)]
pub struct Disk {
    file: File,
    memory: Vec<u8>,
    /// Where the disk's content begins in `memory`: direct writes come from aligned memory.
    start: usize,
    len: usize,
}

impl Disk {
    /// Keeps all of the disk in memory: a proof's disk is small.
    pub fn open(path: &str) -> Result<Disk> {
        let cannot = || format!("cannot read {path}");
        let mut reading = File::open(path).with_context(cannot)?;
        let len = usize::try_from(reading.seek(SeekFrom::End(0)).with_context(cannot)?)?;
        reading.rewind()?;
        let mut memory = vec![0; len + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        reading.read_exact(&mut memory[start..start + len]).with_context(cannot)?;
        let file = OpenOptions::new().write(true).custom_flags(OFlag::O_DIRECT.bits()).open(path);
        Ok(Disk { file: file.with_context(|| format!("cannot write to {path}"))?, memory, start, len })
    }

    /// Makes the disk what it was at first, but for `patch`. All of it is written: whatever was done to it since is gone.
    pub fn put(&mut self, patch: &Patch) -> Result<()> {
        let mut before = Vec::new();
        for (offset, bytes) in patch {
            let at = usize::try_from(*offset)?;
            ensure!(at + bytes.len() <= self.len, "a patch beyond the end of the disk");
            let place = self.start + at..self.start + at + bytes.len();
            before.push((place.clone(), self.memory[place.clone()].to_vec()));
            self.memory[place].copy_from_slice(bytes);
        }
        let written = self.file.write_all_at(&self.memory[self.start..self.start + self.len], 0);
        // Patches may overlap.
        for (place, bytes) in before.into_iter().rev() {
            self.memory[place].copy_from_slice(&bytes);
        }
        written.context("cannot write the state to the disk")?;
        // What the kernel has read of the last state is nobody's any more.
        fs::write("/proc/sys/vm/drop_caches", "3").context("cannot drop the caches")
    }
}
