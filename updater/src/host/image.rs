//! A disk image file, from which nothing runs (UPD-60).

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use boot_entries::guard::{GuardDevice, GuardError, GuardRecord};
use boot_entries::{BootOptions, Esp, FoundVars, ImageEsp};
use disk_layout::{
    DiskLayout, FileWindow, LockError, RepairError, Slot, SlotBytes, SlotError, SlotFile, SlotIo, SlotReader,
    TableCopy, UpdateLock,
};

use super::{Access, Host, HostError, OpenEsp, TargetSlot, begins_blank, for_shell, read_guard, repair_table};
use crate::history::Records;
use crate::vitals::{self, Vitals, WriteProtection};

/// See the module.
#[derive(Debug)]
pub struct ImageFile {
    path: PathBuf,
    layout: DiskLayout,
    records: Records,
}

impl ImageFile {
    /// Opens a disk image and reads its layout.
    pub fn open(path: &Path) -> Result<Self, HostError> {
        // The running disk, written to behind the kernel's back and under another lock, would be the end of it (DSK-34).
        if std::fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
            return Err(HostError::NotAFile(path.to_owned()));
        }
        let layout = DiskLayout::open(path).map_err(|source| HostError::Image { path: path.to_owned(), source })?;
        Ok(ImageFile { path: path.to_owned(), layout, records: Records::none() })
    }
}

impl Host for ImageFile {
    fn lock(&self) -> Result<UpdateLock, LockError> {
        UpdateLock::acquire_image(&self.path)
    }

    fn layout(&self) -> &DiskLayout {
        &self.layout
    }

    fn booted(&self) -> Option<&BootOptions> {
        None
    }

    fn loader_vars(&self) -> FoundVars {
        FoundVars::default()
    }

    fn records(&self) -> &Records {
        &self.records
    }

    fn refuse_lookalikes(&self) -> Result<(), HostError> {
        Ok(())
    }

    fn open_esp(&self, access: Access) -> Result<Box<dyn OpenEsp>, HostError> {
        let open = |source| HostError::OpenImage { path: self.path.clone(), source };
        let file = OpenOptions::new().read(true).write(access == Access::ReadWrite).open(&self.path).map_err(open)?;
        let window = FileWindow::new(file, self.layout.esp.start, self.layout.esp.len).map_err(open)?;
        Ok(Box::new(InImage { esp: ImageEsp::new(window) }))
    }

    fn open_slot(&self, slot: TargetSlot) -> Result<Box<dyn SlotIo>, SlotError> {
        Ok(Box::new(SlotFile::open_image(&self.path, &self.layout, slot.slot())?))
    }

    fn read_slot(&self, slot: Slot) -> Option<Box<dyn SlotBytes>> {
        let part = self.layout.slot(slot);
        Some(Box::new(SlotReader::open(&self.path, part.start, part.len).ok()?))
    }

    fn read_guard(&self) -> Result<GuardRecord, GuardError> {
        read_guard(&self.path, self.layout.esp.start, &self.layout)
    }

    fn write_guard(&self, _lock: &UpdateLock, record: &GuardRecord) -> Result<(), GuardError> {
        GuardDevice::open_image(&self.path, &self.layout)?.write(record)
    }

    fn is_blank(&self, slot: Slot) -> Option<bool> {
        begins_blank(&self.path, self.layout.slot(slot).start)
    }

    fn command(&self) -> String {
        format!("ralph-update --disk {}", for_shell(&self.path))
    }

    fn vitals(&self) -> Vitals {
        let window = |file| FileWindow::new(file, self.layout.esp.start, self.layout.esp.len);
        let mut found = Vitals {
            disk: Some(self.path.clone()),
            volume: Some(vitals::volume(std::fs::File::open(&self.path).and_then(window))),
            busy: UpdateLock::holder_of(&self.path),
            left_out: vec![
                "EFI variables, boot loader, watchdog, clock, other disks, history: they belong to a machine, and this is a disk image".to_owned(),
            ],
            ..Vitals::default()
        };
        found.read_table(&self.path);
        // To open a file for writing changes nothing.
        if OpenOptions::new().write(true).open(&self.path).is_err() {
            found.write_protection = Some(WriteProtection::Medium(self.path.clone()));
        }
        found
    }

    fn repair_table(&self, lock: &UpdateLock, which: TableCopy) -> Result<(), RepairError> {
        repair_table(lock, &self.path, &self.layout, which)
    }
}

#[derive(Debug)]
struct InImage {
    esp: ImageEsp<FileWindow>,
}

impl OpenEsp for InImage {
    fn esp(&mut self) -> &mut dyn Esp {
        &mut self.esp
    }

    fn close(self: Box<Self>) -> Result<(), HostError> {
        Ok(())
    }
}
