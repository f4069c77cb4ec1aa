//! A slot on a real medium: a partition's block device, or a byte range of a disk image.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, OFlag, PosixFadviseAdvice, fallocate, fcntl, posix_fadvise};

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
    medium: Arc<Medium>,
    bounce: Option<AlignedBuf>,
}

/// What all handles on a slot share.
#[derive(Debug)]
struct Medium {
    file: File,
    path: PathBuf,
    start: u64,
    len: u64,
    access: Access,
    /// Written since the last flush: only matters for buffered access.
    dirty: AtomicBool,
    /// A flush at a time: who finds nothing to flush knows then that all of it is on the medium.
    flushing: Mutex<()>,
    /// A flush has failed. The system tells that once; what was lost stays lost.
    lost: AtomicBool,
    /// The medium cannot make zeros by itself.
    sends_zeros: AtomicBool,
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
        SlotFile::new(file, path, 0, actual, access)
    }

    /// Opens a slot inside a disk image.
    ///
    /// # Errors
    /// [`SlotError`].
    pub fn open_image(image: impl AsRef<Path>, layout: &DiskLayout, slot: Slot) -> Result<SlotFile, SlotError> {
        let path = image.as_ref();
        let Partition { start, len, .. } = *layout.slot(slot);
        let open_error = |source| SlotError::Open { path: path.to_owned(), source };
        let (mut file, access) = open(path, OFlag::empty()).map_err(open_error)?;
        // A write behind the end of the file would make it grow.
        check_range(start, len, file.seek(SeekFrom::End(0)).map_err(open_error)?)?;
        SlotFile::new(file, path, start, len, access)
    }

    /// Some file systems accept `O_DIRECT` when the file is opened and refuse the first access: so that comes here, once, before there are
    /// several handles, of which one might go on with pages that another one has left in the cache.
    fn new(file: File, path: &Path, start: u64, len: u64, mut access: Access) -> Result<SlotFile, SlotError> {
        if access == Access::Direct && !takes_direct(&file, start) {
            go_buffered(&file).map_err(|source| SlotError::Open { path: path.to_owned(), source })?;
            access = Access::Buffered;
        }
        let medium = Medium {
            file,
            path: path.to_owned(),
            start,
            len,
            access,
            dirty: AtomicBool::new(false),
            flushing: Mutex::new(()),
            lost: AtomicBool::new(false),
            sends_zeros: AtomicBool::new(false),
        };
        Ok(SlotFile { medium: Arc::new(medium), bounce: None })
    }

    /// How the slot is accessed: a slot that is not written past the page cache is much slower.
    pub fn access(&self) -> Access {
        self.medium.access
    }
}

impl Medium {
    /// Writes whole blocks from aligned memory, or from any memory when access is buffered.
    fn write_run(&self, offset: u64, bytes: &[u8]) -> Result<(), SlotError> {
        let result = self.file.write_all_at(bytes, self.start + offset);
        let bytes = bytes.len() as u64;
        result.map_err(|source| SlotError::Write { path: self.path.clone(), offset, bytes, source })
    }

    fn read_run(&self, offset: u64, bytes: &mut [u8]) -> Result<(), SlotError> {
        let result = self.file.read_exact_at(bytes, self.start + offset);
        let bytes = bytes.len() as u64;
        result.map_err(|source| SlotError::Read { path: self.path.clone(), offset, bytes, source })
    }

    /// Buffered access only: what is read next comes from the medium.
    fn drop_cache(&self, offset: u64, bytes: u64) -> Result<(), SlotError> {
        // The kernel drops clean pages only.
        self.flush_if(|| self.dirty.load(SeqCst))?;
        let failed = |source| SlotError::Read { path: self.path.clone(), offset, bytes, source };
        let signed = |n: u64| i64::try_from(n).map_err(|_| failed(Errno::EOVERFLOW.into()));
        let (from, len) = (signed(self.start + offset)?, signed(bytes)?);
        posix_fadvise(&self.file, from, len, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
            .map_err(|errno| failed(errno.into()))
    }

    fn flush_if(&self, needed: impl FnOnce() -> bool) -> Result<(), SlotError> {
        let _one_at_a_time = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        if !needed() {
            return Ok(());
        }
        // Cleared first: what another handle writes meanwhile may or may not be part of this flush.
        self.dirty.store(false, SeqCst);
        let lost_before = self.lost.load(SeqCst);
        let flushed = self.file.sync_data().and_then(|()| if lost_before { Err(Errno::EIO.into()) } else { Ok(()) });
        flushed.map_err(|source| {
            self.lost.store(true, SeqCst);
            SlotError::Flush { path: self.path.clone(), source }
        })
    }

    /// Has the medium make zeros by itself: of a file it makes a hole, of a device's blocks what the device does for zeros.
    fn punch(&self, offset: u64, bytes: u64) -> bool {
        let (Ok(from), Ok(len)) = (i64::try_from(self.start + offset), i64::try_from(bytes)) else { return false };
        let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        fallocate(&self.file, mode, from, len).is_ok()
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

/// Only one answer means that it does not: whatever else fails is told where it matters.
fn takes_direct(file: &File, start: u64) -> bool {
    let mut first = AlignedBuf::new(BLOCK);
    let refused = |error: io::Error| error.raw_os_error() == Some(Errno::EINVAL as i32);
    start.is_multiple_of(BLOCK as u64) && !file.read_at(&mut first, start).is_err_and(refused)
}

fn go_buffered(file: &File) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
    fcntl(file, FcntlArg::F_SETFL(flags - OFlag::O_DIRECT))?;
    Ok(())
}

impl SlotIo for SlotFile {
    fn len(&self) -> u64 {
        self.medium.len
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), SlotError> {
        check_access(offset, bytes.len(), self.medium.len)?;
        self.medium.dirty.store(true, SeqCst);
        if self.access() == Access::Buffered || is_aligned(bytes) {
            return self.medium.write_run(offset, bytes);
        }
        let bounce = self.bounce.get_or_insert_with(|| AlignedBuf::new(BOUNCE));
        let mut offset = offset;
        for part in bytes.chunks(BOUNCE) {
            bounce[..part.len()].copy_from_slice(part);
            self.medium.write_run(offset, &bounce[..part.len()])?;
            offset += part.len() as u64;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SlotError> {
        self.medium.flush_if(|| true)
    }

    fn read_at_uncached(&mut self, offset: u64, bytes: &mut [u8]) -> Result<(), SlotError> {
        check_access(offset, bytes.len(), self.medium.len)?;
        if self.access() == Access::Buffered {
            self.medium.drop_cache(offset, bytes.len() as u64)?;
            return self.medium.read_run(offset, bytes);
        }
        if is_aligned(bytes) {
            return self.medium.read_run(offset, bytes);
        }
        let bounce = self.bounce.get_or_insert_with(|| AlignedBuf::new(BOUNCE));
        let mut offset = offset;
        for part in bytes.chunks_mut(BOUNCE) {
            self.medium.read_run(offset, &mut bounce[..part.len()])?;
            part.copy_from_slice(&bounce[..part.len()]);
            offset += part.len() as u64;
        }
        Ok(())
    }

    fn zero_at(&mut self, offset: u64, bytes: u64) -> Result<(), SlotError> {
        let len = usize::try_from(bytes).unwrap_or(usize::MAX);
        check_access(offset, len, self.medium.len)?;
        self.medium.dirty.store(true, SeqCst);
        if !self.medium.sends_zeros.load(SeqCst) {
            if self.medium.punch(offset, bytes) {
                return Ok(());
            }
            self.medium.sends_zeros.store(true, SeqCst);
        }
        let zeros = AlignedBuf::new(len.min(BOUNCE));
        for at in (0..bytes).step_by(BOUNCE) {
            let len = (bytes - at).min(BOUNCE as u64) as usize;
            self.medium.write_run(offset + at, &zeros[..len])?;
        }
        Ok(())
    }

    fn another(&self) -> Option<Box<dyn SlotIo>> {
        Some(Box::new(SlotFile { medium: Arc::clone(&self.medium), bounce: None }))
    }
}

#[cfg(test)]
#[path = "slot_file_tests.rs"]
mod tests;
