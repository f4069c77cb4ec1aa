//! The room behind the end of `loader/entries` (ENT-28).

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use boot_entries::fat::Volume;
use boot_entries::names::entries_dir;
use boot_entries::{Esp, ImageEsp};
use disk_layout::{DiskLayout, FileWindow};

/// The slots that must be free there before a trial begins.
pub const ROOM: usize = 256;

/// The slots that are free there, on the ESP in `volume`.
///
/// # Errors
/// When it cannot be read, or has no such directory.
pub fn of(volume: FileWindow) -> Result<usize> {
    let dir = entries_dir();
    Volume::open(volume)?.room(dir.as_str())?.with_context(|| format!("{dir} is missing"))
}

/// Makes foreign files that the loader does not show until too few slots are free there. Their names are long, so that they are few.
///
/// # Errors
/// When the disk cannot be written.
pub fn fill(disk: &Path) -> Result<()> {
    let esp = DiskLayout::open(disk).with_context(|| format!("no layout on {}", disk.display()))?.esp;
    let window = || -> Result<FileWindow> {
        let file = File::options().read(true).write(true).open(disk)?;
        Ok(FileWindow::new(file, esp.start, esp.len)?)
    };
    let mut volume = ImageEsp::new(window()?);
    let mut number = 0;
    while of(window()?)? >= ROOM {
        number += 1;
        let text = format!("note {number}\n");
        let path = entries_dir().join(&format!("note-{number:04}-{}.txt", "of-somebody-else".repeat(6)))?;
        volume.write_new(&path, text.len() as u64, &mut text.as_bytes())?;
    }
    Ok(())
}
