//! A slot on a real medium: a partition's block device, or a byte range of a disk image.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, PosixFadviseAdvice, fcntl, posix_fadvise};

use crate::aligned::{AlignedBuf, BLOCK, is_aligned};
use crate::device::{SlotError, SlotIo, check_access};
use crate::layout::DiskLayout;
use crate::slot::Slot;
use crate::table::Partition;
use crate::window::check_range;

/// What is copied at once when the caller's memory is not aligned.
const BOUNCE: usize = 1 << 20;

/// How the bytes reach the medium (`DSK-41`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Past the page cache.
    Direct,
    /// Through the page cache, which is flushed and dropped before a read-back.
    Buffered,
}

/// One slot of a disk, open for writing.
#[derive(Debug)]
pub struct SlotFile {
    file: File,
    path: PathBuf,
    start: u64,
    len: u64,
    access: Access,
    /// Written since the last flush: only matters for buffered access.
    dirty: bool,
    bounce: Option<AlignedBuf>,
}

impl SlotFile {
    /// Opens a slot by the device of its partition, exclusively (`DSK-43`).
    ///
    /// # Errors
    /// [`SlotError::InUse`] where the partition is mounted or mapped; [`SlotError::Length`] where the kernel's idea of it
    /// differs from the table's.
    pub fn open_partition(device: impl AsRef<Path>, partition: &Partition) -> Result<SlotFile, SlotError> {
        let path = device.as_ref();
        // On a block device O_EXCL without O_CREAT claims it: a mount or a mapping holds the same claim.
        let (mut file, access) = open(path, OFlag::O_EXCL).map_err(|source| match source.raw_os_error() {
            Some(code) if code == Errno::EBUSY as i32 => SlotError::InUse { path: path.to_owned() },
            _ => SlotError::Open { path: path.to_owned(), source },
        })?;
        let actual = file.seek(SeekFrom::End(0)).map_err(|source| SlotError::Open { path: path.to_owned(), source })?;
        if actual != partition.len {
            return Err(SlotError::Length { path: path.to_owned(), expected: partition.len, actual });
        }
        Ok(SlotFile { file, path: path.to_owned(), start: 0, len: actual, access, dirty: false, bounce: None })
    }

    /// Opens a slot inside a disk image.
    ///
    /// # Errors
    /// [`SlotError`].
    pub fn open_image(image: impl AsRef<Path>, layout: &DiskLayout, slot: Slot) -> Result<SlotFile, SlotError> {
        let path = image.as_ref();
        let Partition { start, len, .. } = *layout.slot(slot);
        let open_error = |source| SlotError::Open { path: path.to_owned(), source };
        let (mut file, mut access) = open(path, OFlag::empty()).map_err(open_error)?;
        // A write behind the end of the file would make it grow.
        check_range(start, len, file.seek(SeekFrom::End(0)).map_err(open_error)?)?;
        if !start.is_multiple_of(BLOCK as u64) && access == Access::Direct {
            go_buffered(&file).map_err(open_error)?;
            access = Access::Buffered;
        }
        Ok(SlotFile { file, path: path.to_owned(), start, len, access, dirty: false, bounce: None })
    }

    /// How the slot is accessed: a slot that is not written past the page cache is much slower.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Writes whole blocks from aligned memory, or from any memory when access is buffered.
    fn write_run(&mut self, offset: u64, bytes: &[u8]) -> Result<(), SlotError> {
        let mut result = self.file.write_all_at(bytes, self.start + offset);
        if self.takes_no_direct(&result) {
            result = self.file.write_all_at(bytes, self.start + offset);
        }
        let bytes = bytes.len() as u64;
        result.map_err(|source| SlotError::Write { path: self.path.clone(), offset, bytes, source })
    }

    fn read_run(&mut self, offset: u64, bytes: &mut [u8]) -> Result<(), SlotError> {
        let mut result = self.file.read_exact_at(bytes, self.start + offset);
        if self.takes_no_direct(&result) {
            self.drop_cache(offset, bytes.len() as u64)?;
            result = self.file.read_exact_at(bytes, self.start + offset);
        }
        let bytes = bytes.len() as u64;
        result.map_err(|source| SlotError::Read { path: self.path.clone(), offset, bytes, source })
    }

    /// Some file systems accept `O_DIRECT` when the file is opened and refuse the first access. Then, once, access becomes
    /// buffered and the caller tries again.
    fn takes_no_direct(&mut self, result: &io::Result<()>) -> bool {
        let refused = matches!(result, Err(e) if e.raw_os_error() == Some(Errno::EINVAL as i32));
        if refused && self.access == Access::Direct && go_buffered(&self.file).is_ok() {
            self.access = Access::Buffered;
            return true;
        }
        false
    }

    /// Buffered access only: what is read next comes from the medium.
    fn drop_cache(&mut self, offset: u64, bytes: u64) -> Result<(), SlotError> {
        if self.dirty {
            // The kernel drops clean pages only.
            self.flush()?;
        }
        let failed = |source| SlotError::Read { path: self.path.clone(), offset, bytes, source };
        let signed = |n: u64| i64::try_from(n).map_err(|_| failed(Errno::EOVERFLOW.into()));
        let (from, len) = (signed(self.start + offset)?, signed(bytes)?);
        posix_fadvise(&self.file, from, len, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
            .map_err(|errno| failed(errno.into()))
    }
}

fn open(path: &Path, flags: OFlag) -> io::Result<(File, Access)> {
    let open = |more: OFlag| OpenOptions::new().read(true).write(true).custom_flags((flags | more).bits()).open(path);
    match open(OFlag::O_DIRECT) {
        // The file system has no O_DIRECT.
        Err(e) if e.raw_os_error() == Some(Errno::EINVAL as i32) => {
            open(OFlag::empty()).map(|file| (file, Access::Buffered))
        }
        result => result.map(|file| (file, Access::Direct)),
    }
}

fn go_buffered(file: &File) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
    fcntl(file, FcntlArg::F_SETFL(flags - OFlag::O_DIRECT))?;
    Ok(())
}

impl SlotIo for SlotFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), SlotError> {
        check_access(offset, bytes.len(), self.len)?;
        self.dirty = true;
        if self.access == Access::Buffered || is_aligned(bytes) {
            return self.write_run(offset, bytes);
        }
        let mut bounce = self.bounce.take().unwrap_or_else(|| AlignedBuf::new(BOUNCE));
        let mut offset = offset;
        for part in bytes.chunks(BOUNCE) {
            bounce[..part.len()].copy_from_slice(part);
            self.write_run(offset, &bounce[..part.len()])?;
            offset += part.len() as u64;
        }
        self.bounce = Some(bounce);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SlotError> {
        self.file.sync_data().map_err(|source| SlotError::Flush { path: self.path.clone(), source })?;
        self.dirty = false;
        Ok(())
    }

    fn read_at_uncached(&mut self, offset: u64, bytes: &mut [u8]) -> Result<(), SlotError> {
        check_access(offset, bytes.len(), self.len)?;
        if self.access == Access::Buffered {
            self.drop_cache(offset, bytes.len() as u64)?;
            return self.read_run(offset, bytes);
        }
        if is_aligned(bytes) {
            return self.read_run(offset, bytes);
        }
        let mut bounce = self.bounce.take().unwrap_or_else(|| AlignedBuf::new(BOUNCE));
        let mut offset = offset;
        for part in bytes.chunks_mut(BOUNCE) {
            self.read_run(offset, &mut bounce[..part.len()])?;
            part.copy_from_slice(&bounce[..part.len()]);
            offset += part.len() as u64;
        }
        self.bounce = Some(bounce);
        Ok(())
    }
}

#[cfg(test)]
#[path = "slot_file_tests.rs"]
mod tests;
