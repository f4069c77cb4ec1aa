//! The two readers of the ESP, compared (`CUT-32`).

use std::collections::BTreeSet;
use std::io::{self, Read, Seek};

use boot_entries::esp::{DirItem, EspPath, Op, Space};
use boot_entries::fat::{ClusterFault, FatError};
use boot_entries::{Esp, EspError, EspState, OurEntry, Prediction, RawEsp, WriteError};

use super::esp::io_of;
use super::{Failure, Name};
use crate::flow::Flow;

/// What a comparison came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Readers {
    /// They see the same.
    Agree,
    /// They do once the library's is told which chains are broken.
    Explained,
    /// They do not, and how.
    Differ(String),
}

/// Compares what we read, and what would boot by that, with what another reader sees. Where they differ it is read once more
/// without what the firmware does not find: everything else must be the same all the same, the choice included.
pub(super) fn compare<T: Read + Seek>(
    flow: &Flow,
    ours: &EspState,
    prediction: &Prediction,
    raw: &mut RawEsp<T>,
    library: &mut dyn Esp,
) -> io::Result<Readers> {
    if difference(flow, ours, prediction, library)?.is_none() {
        return Ok(Readers::Agree);
    }
    let mut told = Told { raw, library };
    Ok(difference(flow, ours, prediction, &mut told)?.map_or(Readers::Explained, Readers::Differ))
}

/// A reader that finds nothing in a directory whose chain is broken, and nothing in a file whose chain ends before it does:
/// the firmware does neither (`CUT-23`, `CUT-24`). Whatever else it finds is its own.
struct Told<'a, T> {
    raw: &'a mut RawEsp<T>,
    library: &'a mut dyn Esp,
}

impl<T: Read + Seek> Told<'_, T> {
    /// Something on the way to this path, or a directory there, has a broken chain.
    fn is_lost(&mut self, path: &EspPath) -> Result<bool, EspError> {
        match self.raw.volume().list(path.as_str()) {
            Err(FatError::Directory(_)) => Ok(true),
            found => found.map(|_| false).map_err(|source| EspError::Fat { source }),
        }
    }

    fn missing(path: &EspPath) -> EspError {
        EspError::Missing { op: Op::Read, path: path.clone() }
    }

    fn refuse(op: Op, path: &str) -> EspError {
        EspError::Io { op, path: path.to_owned(), source: io::Error::from(io::ErrorKind::ReadOnlyFilesystem) }
    }
}

impl<T: Read + Seek> Esp for Told<'_, T> {
    fn list(&mut self, dir: &EspPath) -> Result<Vec<DirItem>, EspError> {
        if self.is_lost(dir)? { Ok(Vec::new()) } else { self.library.list(dir) }
    }

    fn exists(&mut self, path: &EspPath) -> Result<bool, EspError> {
        // A directory is there, whatever its own chain is like.
        match path.split().0 {
            Some(dir) if self.is_lost(&dir)? => Ok(false),
            _ => self.library.exists(path),
        }
    }

    fn read(&mut self, path: &EspPath, limit: u64) -> Result<Vec<u8>, EspError> {
        if self.is_lost(path)? {
            return Err(Self::missing(path));
        }
        if self.raw.volume().is_torn(path.as_str()).map_err(|source| EspError::Fat { source })? {
            return Ok(Vec::new());
        }
        self.library.read(path, limit)
    }

    fn read_head(&mut self, path: &EspPath, length: usize) -> Result<Vec<u8>, EspError> {
        self.library.read_head(path, length)
    }

    fn hash_file(&mut self, path: &EspPath) -> Result<([u8; 32], u64), EspError> {
        self.library.hash_file(path)
    }

    fn space(&mut self) -> Result<Space, EspError> {
        self.library.space()
    }

    fn cluster_faults(&mut self, dirs: &[EspPath]) -> Result<Vec<ClusterFault>, EspError> {
        self.library.cluster_faults(dirs)
    }

    fn write_new(&mut self, path: &EspPath, _size: u64, _content: &mut dyn Read) -> Result<(), WriteError> {
        Err(Self::refuse(Op::Write, path.as_str()).into())
    }

    fn overwrite_byte(&mut self, path: &EspPath, _offset: u64, _from: u8, _to: u8) -> Result<(), EspError> {
        Err(Self::refuse(Op::Overwrite, path.as_str()))
    }

    fn remove(&mut self, path: &EspPath) -> Result<(), EspError> {
        Err(Self::refuse(Op::Remove, path.as_str()))
    }

    fn make_dir(&mut self, path: &EspPath) -> Result<(), EspError> {
        Err(Self::refuse(Op::MakeDir, path.as_str()))
    }

    fn flush(&mut self) -> Result<(), EspError> {
        Ok(())
    }

    fn drop_name(&mut self, path: &EspPath) -> Result<(), EspError> {
        Err(Self::refuse(Op::DropName, path.as_str()))
    }

    fn can_swap(&mut self, a: &EspPath, _b: &EspPath) -> Result<(), EspError> {
        Err(Self::refuse(Op::Swap, a.as_str()))
    }

    fn swap_contents(&mut self, a: &EspPath, _b: &EspPath) -> Result<(), EspError> {
        Err(Self::refuse(Op::Swap, a.as_str()))
    }

    fn make_room(&mut self, dir: &EspPath, _slots: usize) -> Result<(), EspError> {
        Err(Self::refuse(Op::MakeRoom, dir.as_str()))
    }
}

/// What one reader sees and the other does not.
fn difference(
    flow: &Flow,
    ours: &EspState,
    our_choice: &Prediction,
    library: &mut dyn Esp,
) -> io::Result<Option<String>> {
    let library = match EspState::read(library) {
        Ok(library) => library,
        Err(error) => return Ok(Some(Failure::error(Name::Readers, &io_of(error)?).text)),
    };
    let their_choice = library.predict(&flow.vars, flow.architecture);
    let entries = |state: &EspState| -> Vec<OurEntry> {
        let mut entries = state.ours.clone();
        entries.sort_by(|a, b| a.file_name.cmp(&b.file_name));
        entries
    };
    let foreign = |state: &EspState| state.foreign.iter().cloned().collect::<BTreeSet<_>>();
    let what = if entries(ours) != entries(&library) {
        "entries"
    } else if foreign(ours) != foreign(&library) {
        "foreign files"
    } else if ours.payloads != library.payloads {
        "payload files"
    } else if ours.conf != library.conf {
        "loader.conf"
    } else if *our_choice != their_choice {
        "choice"
    } else {
        return Ok(None);
    };
    Ok(Some(format!("the two readers differ in the {what}: {our_choice:?} and {their_choice:?}")))
}

#[cfg(test)]
#[path = "readers_tests.rs"]
mod tests;
