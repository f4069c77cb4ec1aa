//! The record on a block device or in a disk image.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use disk_layout::{DiskLayout, FileWindow};
use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::{GuardError, GuardFile, GuardRecord, RECORD_SIZE};

/// The record of a disk, found.
///
/// On a device the file's place is looked up through the page cache of the *partition*, which is where the kernel's vfat
/// keeps FAT and directories too: what it has changed and not yet written back is seen. The record itself goes past every
/// cache (`O_DIRECT`, then `fdatasync` for the device's own): a file's data never lie in the partition's page cache but in
/// the file's, so a buffered read here could find what an earlier read left there before the file was made. Nobody opens
/// the file through a mount to write to it, so the kernel has no dirty page of it that could undo our write.
#[derive(Debug)]
pub struct GuardDevice {
    /// To look the file up.
    lookup: FileWindow,
    storage: FileWindow,
    file: GuardFile,
    sector_size: u64,
}

impl GuardDevice {
    /// By the device of the ESP's partition. The volume may be mounted.
    ///
    /// # Errors
    /// [`GuardError`].
    pub fn open_partition(node: &Path, layout: &DiskLayout) -> Result<GuardDevice, GuardError> {
        let failed = |source| GuardError::Open { path: node.to_owned(), source };
        let lookup = File::open(node).map_err(failed)?;
        let mut lookup = FileWindow::new(lookup, 0, layout.esp.len).map_err(failed)?;
        let file = GuardFile::locate(&mut lookup, layout.sector_size)?;
        let direct = match open(node, OFlag::O_DIRECT) {
            // A driver that has no O_DIRECT.
            Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => open(node, OFlag::empty()),
            result => result,
        };
        let mut storage = direct.and_then(|file| FileWindow::new(file, 0, layout.esp.len)).map_err(failed)?;
        // One that takes the flag and refuses the access.
        if let Err(GuardError::Read(error)) = file.read_sector(&mut storage)
            && error.raw_os_error() == Some(Errno::EINVAL as i32)
        {
            storage =
                open(node, OFlag::empty()).and_then(|file| FileWindow::new(file, 0, layout.esp.len)).map_err(failed)?;
        }
        Ok(GuardDevice { lookup, storage, file, sector_size: layout.sector_size })
    }

    /// Inside a disk image, through the page cache, as everything that is done to one.
    ///
    /// # Errors
    /// [`GuardError`].
    pub fn open_image(image: &Path, layout: &DiskLayout) -> Result<GuardDevice, GuardError> {
        let failed = |source| GuardError::Open { path: image.to_owned(), source };
        let window = || {
            let file = open(image, OFlag::empty())?;
            FileWindow::new(file, layout.esp.start, layout.esp.len)
        };
        let (mut lookup, storage) = (window().map_err(failed)?, window().map_err(failed)?);
        let file = GuardFile::locate(&mut lookup, layout.sector_size)?;
        Ok(GuardDevice { lookup, storage, file, sector_size: layout.sector_size })
    }

    /// Looks the file up again, through what is open already: for a process that has kept this for a long time, while others
    /// may have made the file anew.
    ///
    /// # Errors
    /// As for opening. Then nothing may be written.
    pub fn look_again(&mut self) -> Result<(), GuardError> {
        self.file = GuardFile::locate(&mut self.lookup, self.sector_size)?;
        Ok(())
    }

    /// What the record says; a damaged one is empty (`GRD-2`).
    ///
    /// # Errors
    /// [`GuardError::Read`].
    pub fn read(&mut self) -> Result<GuardRecord, GuardError> {
        self.file.read(&mut self.storage)
    }

    /// The record's bytes.
    ///
    /// # Errors
    /// [`GuardError::Read`].
    pub fn read_sector(&mut self) -> Result<[u8; RECORD_SIZE], GuardError> {
        self.file.read_sector(&mut self.storage)
    }

    /// Writes the record, and returns when it is on the medium.
    ///
    /// # Errors
    /// [`GuardError::Write`]: the medium holds the old record or the new one.
    pub fn write(&mut self, record: &GuardRecord) -> Result<(), GuardError> {
        self.file.write(&mut self.storage, record)
    }
}

fn open(path: &Path, flags: OFlag) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(flags.bits()).open(path)
}
