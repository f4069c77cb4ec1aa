//! Reading files past the page cache (`ENT-24`): what is compared must come from the medium.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, PosixFadviseAdvice, fcntl, posix_fadvise};
use sha2::{Digest, Sha256};

/// Memory, offset and length of direct reads are multiples of this; no medium asks for more.
const ALIGNMENT: usize = 4096;
const BUFFER: usize = 256 * 1024;

/// A file read with `O_DIRECT` where its file system can, else after its pages were dropped from the cache.
///
/// The caller has flushed the file: dirty pages are not dropped.
#[derive(Debug)]
pub(super) struct Uncached {
    file: File,
    memory: Vec<u8>,
    /// What of `memory` is still to be handed out.
    ready: std::ops::Range<usize>,
}

impl Uncached {
    pub(super) fn new(fd: OwnedFd) -> io::Result<Uncached> {
        let flags = OFlag::from_bits_retain(fcntl(fd.as_fd(), FcntlArg::F_GETFL)?);
        match fcntl(fd.as_fd(), FcntlArg::F_SETFL(flags | OFlag::O_DIRECT)) {
            Ok(_) => {}
            Err(Errno::EINVAL) => drop_pages(&fd)?,
            Err(errno) => return Err(errno.into()),
        }
        Ok(Uncached { file: File::from(fd), memory: vec![0; BUFFER + ALIGNMENT], ready: 0..0 })
    }

    fn fill(&mut self) -> io::Result<()> {
        let start = self.memory.as_ptr().align_offset(ALIGNMENT);
        let buffer = &mut self.memory[start..start + BUFFER];
        let got = match self.file.read(buffer) {
            // A file system may take the flag and then refuse the read.
            Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => {
                let flags = OFlag::from_bits_retain(fcntl(self.file.as_fd(), FcntlArg::F_GETFL)?);
                fcntl(self.file.as_fd(), FcntlArg::F_SETFL(flags - OFlag::O_DIRECT))?;
                drop_pages(&self.file)?;
                self.file.read(buffer)?
            }
            other => other?,
        };
        self.ready = start..start + got;
        Ok(())
    }
}

fn drop_pages(fd: &impl AsFd) -> io::Result<()> {
    Ok(posix_fadvise(fd.as_fd(), 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?)
}

impl Read for Uncached {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.ready.is_empty() {
            self.fill()?;
        }
        let count = out.len().min(self.ready.len());
        out[..count].copy_from_slice(&self.memory[self.ready.start..self.ready.start + count]);
        self.ready.start += count;
        Ok(count)
    }
}

/// SHA-256 and length of everything `reader` gives.
pub(super) fn hash(reader: &mut dyn Read) -> io::Result<([u8; 32], u64)> {
    let mut digest = Sha256::new();
    let mut length = 0;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok((digest.finalize().into(), length)),
            Ok(got) => {
                digest.update(&buffer[..got]);
                length += got as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
