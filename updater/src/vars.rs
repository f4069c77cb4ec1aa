//! The boot loader's EFI variables for the doctor: those that [`boot_entries::read_vars`] does not read, and taking one away,
//! which nobody else does (DOC-23).

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use boot_entries::vars::{LOADER_GUID, read_text};
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use rustix::io::Errno;

/// A variable that chooses an entry for the loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoaderVariable {
    /// `LoaderEntryOneShot`: for the next boot only.
    OneShot,
    /// `LoaderEntryDefault`.
    Default,
    /// `LoaderEntryPreferred`: as `Default`, but not for a bad entry; loaders from 260 on.
    Preferred,
}

impl LoaderVariable {
    /// The variable's name.
    pub const fn name(self) -> &'static str {
        match self {
            LoaderVariable::OneShot => "LoaderEntryOneShot",
            LoaderVariable::Default => "LoaderEntryDefault",
            LoaderVariable::Preferred => "LoaderEntryPreferred",
        }
    }
}

/// A variable could not be taken away.
#[derive(Debug, thiserror::Error)]
pub enum VariableError {
    /// No variables here: a disk image file, or no EFI.
    #[error("there are no EFI variables here")]
    NotHere,
    /// The kernel or the firmware refused.
    #[error("cannot remove {}: is efivarfs mounted writable?", path.display())]
    Remove {
        /// The variable's file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The firmware took it and still shows it.
    #[error("{} is still there after it was removed: the firmware keeps it", .0.display())]
    StillThere(PathBuf),
}

fn file(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}-{LOADER_GUID}"))
}

/// The bytes of a variable's file: four of attributes, then the value.
pub(crate) fn raw(dir: &Path, name: &str) -> Option<Vec<u8>> {
    std::fs::read(file(dir, name)).ok()
}

/// A string variable that is not empty.
pub(crate) fn text(dir: &Path, name: &str) -> Option<String> {
    read_text(dir, name).ok().flatten()
}

/// Takes a variable away; gone for good when this returns. One that is not there is gone already.
///
/// # Errors
/// [`VariableError`]: it is there as it was.
pub fn remove(dir: &Path, variable: LoaderVariable) -> Result<(), VariableError> {
    let path = file(dir, variable.name());
    match make_mutable(&path).and_then(|()| std::fs::remove_file(&path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(VariableError::Remove { path, source }),
        Ok(()) => {}
    }
    // The firmware was asked by the removal and has stored its answer; a variable it keeps shows again.
    if path.exists() { Err(VariableError::StillThere(path)) } else { Ok(()) }
}

/// efivarfs protects what it does not know by the immutable flag, so that `rm -r` does not brick a machine.
pub(crate) fn make_mutable(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    let flags = match ioctl_getflags(&file) {
        Ok(flags) => flags,
        // A file system without such flags protects nothing.
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    if flags.contains(IFlags::IMMUTABLE) {
        ioctl_setflags(&file, flags - IFlags::IMMUTABLE)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doc_23_an_immutable_variable_is_removed_and_a_missing_one_is_gone_already() {
        // Where the file system of the tests has such flags and this process may set them, the file is immutable first.
        let dir = tempfile::tempdir().unwrap();
        let path = file(dir.path(), "LoaderEntryDefault");
        std::fs::write(&path, b"\x07\0\0\0x\0").unwrap();
        let handle = File::open(&path).unwrap();
        let immutable = ioctl_getflags(&handle).and_then(|flags| ioctl_setflags(&handle, flags | IFlags::IMMUTABLE));
        assert_eq!(immutable.is_ok(), std::fs::remove_file(&path).is_err(), "{immutable:?}");
        remove(dir.path(), LoaderVariable::Default).unwrap();
        assert!(!path.exists());
        remove(dir.path(), LoaderVariable::Default).unwrap();
        let nowhere = remove(Path::new("/proc/self/nowhere"), LoaderVariable::OneShot);
        assert!(nowhere.is_ok(), "{nowhere:?}");
        std::fs::create_dir(file(dir.path(), "LoaderEntryOneShot")).unwrap();
        let error = remove(dir.path(), LoaderVariable::OneShot).unwrap_err();
        assert!(matches!(error, VariableError::Remove { .. }), "{error:?}");
    }
}
