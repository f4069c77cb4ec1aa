//! Finding and reading the files of a configuration.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::ConfigError;

/// No configuration is larger than this, in bytes.
pub const LARGEST: u64 = 256 * 1024;

/// Where configuration is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A directory of the system; it need not exist.
    Installed(PathBuf),
    /// A file or directory somebody named; it must exist.
    Given(PathBuf),
}

impl Place {
    /// The path alone.
    pub fn path(&self) -> &Path {
        match self {
            Self::Installed(path) | Self::Given(path) => path,
        }
    }
}

/// The text of one file.
#[derive(Debug)]
pub struct Text {
    /// Where it was read from, for messages.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
}

/// Reads files, and the `*.toml` of directories in the order of their names. Of directories, a later one lies over the earlier ones: its
/// file replaces theirs of the same name, an empty file thereby removes it (HLT-10).
/// What could not be read comes back beside what could.
pub fn read(places: &[Place]) -> (Vec<Text>, Vec<ConfigError>) {
    let mut errors = Vec::new();
    let mut named: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    let mut single = Vec::new();
    for place in places {
        match place {
            Place::Given(path) if !path.is_dir() => single.push(path.clone()),
            Place::Given(path) | Place::Installed(path) => match list(path) {
                Ok(found) => named.extend(found),
                Err(source) if source.kind() == ErrorKind::NotFound && matches!(place, Place::Installed(_)) => {}
                Err(source) => errors.push(ConfigError::List { path: path.clone(), source }),
            },
        }
    }
    let mut texts = Vec::new();
    for path in named.into_values().chain(single) {
        match read_one(&path) {
            Ok(text) => texts.push(Text { path, text }),
            Err(error) => errors.push(error),
        }
    }
    (texts, errors)
}

/// The files `*.toml` of a directory, by name.
fn list(directory: &Path) -> std::io::Result<Vec<(OsString, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "toml")
            && let Some(name) = path.file_name()
        {
            found.push((name.to_owned(), path));
        }
    }
    Ok(found)
}

fn read_one(path: &Path) -> Result<String, ConfigError> {
    let read = |source| ConfigError::Read { path: path.to_owned(), source };
    // Not to wait for a writer, should this be a FIFO.
    let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).map_err(read)?;
    let kind = file.metadata().map_err(read)?.file_type();
    // A link to /dev/null is the usual way to empty a file of the vendor's.
    if kind.is_char_device() && fs::canonicalize(path).map_err(read)? == Path::new("/dev/null") {
        return Ok(String::new());
    }
    if !kind.is_file() {
        return Err(ConfigError::NotAFile { path: path.to_owned() });
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() as u64 > LARGEST {
        return Err(ConfigError::TooLarge { path: path.to_owned() });
    }
    String::from_utf8(bytes).map_err(|_| ConfigError::NotText { path: path.to_owned() })
}
