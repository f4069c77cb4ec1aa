//! The boot loader's EFI variables that decide the next boot, as Linux shows them. Hints to read, never state to depend on: firmware loses
//! them, and many machines mount no efivarfs.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

pub use disk_layout::LOADER_GUID;

use crate::loader::{LoaderVars, parse_efi_string};

/// Where Linux shows EFI variables.
pub const EFIVARS: &str = "/sys/firmware/efi/efivars";

/// A variable that may be there and could not be read.
#[derive(Debug, thiserror::Error)]
#[error("the boot loader's EFI variable {} cannot be read", path.display())]
pub struct Unreadable {
    /// Its file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// The variables, as far as they could be read.
#[derive(Debug, Default)]
pub struct FoundVars {
    /// What they say; one that could not be read is absent here.
    pub vars: LoaderVars,
    /// Those of which it is not known what they say.
    pub unreadable: Vec<Unreadable>,
}

/// The text of one variable in the folder `dir`; none when it is missing, empty or no text (`LDR-4` passes over it).
///
/// # Errors
/// [`Unreadable`]: it may be there.
pub fn read_text(dir: &Path, name: &str) -> Result<Option<String>, Unreadable> {
    let path = dir.join(format!("{name}-{LOADER_GUID}"));
    match std::fs::read(&path) {
        Ok(bytes) => Ok(parse_efi_string(&bytes).ok().filter(|text| !text.is_empty())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Unreadable { path, source }),
    }
}

/// The variable outlives the boot (`EFI_VARIABLE_NON_VOLATILE`, the lowest bit of its attributes). Those that the loader makes anew at each
/// boot do not: such a one was put there by somebody else.
pub fn is_kept(dir: &Path, name: &str) -> bool {
    let path = dir.join(format!("{name}-{LOADER_GUID}"));
    std::fs::read(path).is_ok_and(|bytes| bytes.first().is_some_and(|attributes| attributes & 1 != 0))
}

/// Reads the variables from the folder `dir`. What is missing, be it the folder itself, or holds no text (`LDR-4` passes over it) is absent.
pub fn read_vars(dir: &Path) -> FoundVars {
    let mut unreadable = Vec::new();
    let mut text = |name: &str| {
        read_text(dir, name).unwrap_or_else(|error| {
            unreadable.push(error);
            None
        })
    };
    let vars = LoaderVars {
        one_shot: text("LoaderEntryOneShot"),
        default: text("LoaderEntryDefault"),
        last_booted: text("LoaderEntryLastBooted"),
    };
    FoundVars { vars, unreadable }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> String {
        format!("{name}-{LOADER_GUID}")
    }

    #[test]
    fn ldr4_variables_are_read_and_what_is_missing_or_no_text_is_absent() {
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> =
            [7, 0, 0, 0].into_iter().chain("x-*\0".encode_utf16().flat_map(u16::to_le_bytes)).collect();
        std::fs::write(dir.path().join(file("LoaderEntryDefault")), bytes).unwrap();
        std::fs::write(dir.path().join(file("LoaderEntryOneShot")), b"x").unwrap();
        let found = read_vars(dir.path());
        assert_eq!(found.vars, LoaderVars { default: Some("x-*".into()), ..LoaderVars::default() });
        assert!(found.unreadable.is_empty());
        let none = read_vars(&dir.path().join("no-folder"));
        assert_eq!(none.vars, LoaderVars::default());
        assert!(none.unreadable.is_empty(), "a machine without EFI variables");
    }

    #[test]
    fn upd50_a_variable_that_cannot_be_read_is_told_and_the_others_are_read() {
        let dir = tempfile::tempdir().unwrap();
        // A folder opens, and cannot be read: to root, too.
        std::fs::create_dir(dir.path().join(file("LoaderEntryOneShot"))).unwrap();
        std::fs::write(dir.path().join(file("LoaderEntryLastBooted")), [7, 0, 0, 0, 65, 0]).unwrap();
        let found = read_vars(dir.path());
        assert_eq!(found.vars, LoaderVars { last_booted: Some("A".into()), ..LoaderVars::default() });
        let [unreadable] = &found.unreadable[..] else { panic!("{:?}", found.unreadable) };
        assert!(unreadable.to_string().contains("LoaderEntryOneShot-4a67b082"), "{unreadable}");
        assert_eq!(unreadable.source.kind(), ErrorKind::IsADirectory);
    }
}
