//! Does this machine's firmware enforce Secure Boot, and by which lists? (`SEC-10`, `SEC-11`)

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::guid;
use crate::store::{Store, StoreError, Stores};

/// Bytes of the longest variable that is read.
const MAX_VARIABLE: u64 = 1 << 20;
/// In front of each value.
const ATTRIBUTES: usize = 4;
/// What shim leaves behind.
const SHIM_VARIABLES: [&str; 3] = ["MokListRT", "MokListXRT", "SbatLevelRT"];

/// What the firmware does with a program that it is to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Starts it.
    Off,
    /// Starts it if these let it.
    Enforcing(Box<Stores>),
    /// It cannot be told.
    Unclear(Unclear),
}

/// Why it cannot be told what the firmware does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unclear {
    /// There is EFI, and nothing of its variables.
    #[error("the EFI variables are not mounted; mount efivarfs at {}", dir.display())]
    NotMounted {
        /// Where they should be.
        dir: PathBuf,
    },
    /// A switch that is neither on nor off.
    #[error("the EFI variable {name} is neither 0 nor 1")]
    Value {
        /// The variable.
        name: &'static str,
    },
    /// Two that exclude each other are both on.
    #[error("the EFI variables SecureBoot and {name} are both 1; look at the firmware's settings")]
    Contradiction {
        /// The other.
        name: &'static str,
    },
    /// shim is in use: its keys and its revocations count, too, and they are not looked at.
    #[error("the loader shim is in use (EFI variable {name}): what it starts is decided by keys of its own")]
    Shim {
        /// What tells so.
        name: &'static str,
    },
}

/// A variable that is there and does not say what it should.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be read.
    #[error("cannot read the EFI variable {}; this must run as root", path.display())]
    Read {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is longer than any that is known.
    #[error("the EFI variable {} has more than 1 MiB", path.display())]
    TooLong {
        /// Its file.
        path: PathBuf,
    },
    /// It has no lists.
    #[error("the EFI variable {} is damaged; enrol the keys again in the firmware's settings", path.display())]
    Store {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        source: StoreError,
    },
}

impl State {
    /// Asks the EFI variables in the folder `dir`, which is `/sys/firmware/efi/efivars` but for tests.
    ///
    /// # Errors
    /// When one is there and cannot be read or understood.
    pub fn read(dir: &Path) -> Result<Self, StateError> {
        match std::fs::read_dir(dir).map(|mut entries| entries.next().is_none()) {
            Ok(false) => {}
            Ok(true) => return Ok(Self::Unclear(Unclear::NotMounted { dir: dir.to_owned() })),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // Without its parent there is no EFI; with it, somebody hides the variables.
                let efi = dir.parent().is_some_and(Path::exists);
                let unclear = Unclear::NotMounted { dir: dir.to_owned() };
                return Ok(if efi { Self::Unclear(unclear) } else { Self::Off });
            }
            Err(source) => return Err(StateError::Read { path: dir.to_owned(), source }),
        }
        match enforces(dir) {
            Ok(true) => {}
            Ok(false) => return Ok(Self::Off),
            Err(Doubt::Error(error)) => return Err(error),
            Err(Doubt::Unclear(why)) => return Ok(Self::Unclear(why)),
        }
        for name in SHIM_VARIABLES {
            if value(dir, name, guid::SHIM)?.is_some() {
                return Ok(Self::Unclear(Unclear::Shim { name }));
            }
        }
        Ok(Self::Enforcing(Box::new(Stores { db: store(dir, "db")?, dbx: store(dir, "dbx")? })))
    }
}

/// What keeps the four switches from giving an answer.
enum Doubt {
    Error(StateError),
    Unclear(Unclear),
}

impl From<StateError> for Doubt {
    fn from(error: StateError) -> Self {
        Self::Error(error)
    }
}

fn enforces(dir: &Path) -> Result<bool, Doubt> {
    if switch(dir, "SecureBoot")? != Some(true) {
        return Ok(false);
    }
    for name in ["SetupMode", "AuditMode"] {
        if switch(dir, name)? == Some(true) {
            return Err(Doubt::Unclear(Unclear::Contradiction { name }));
        }
    }
    switch(dir, "DeployedMode")?;
    Ok(true)
}

/// One of the global variables that are on or off.
fn switch(dir: &Path, name: &'static str) -> Result<Option<bool>, Doubt> {
    match value(dir, name, guid::GLOBAL)?.as_deref() {
        None => Ok(None),
        Some([0]) => Ok(Some(false)),
        Some([1]) => Ok(Some(true)),
        Some(_) => Err(Doubt::Unclear(Unclear::Value { name })),
    }
}

fn store(dir: &Path, name: &str) -> Result<Store, StateError> {
    let Some(bytes) = value(dir, name, guid::IMAGE_SECURITY)? else { return Ok(Store::default()) };
    Store::parse(&bytes).map_err(|source| StateError::Store { path: file(dir, name, guid::IMAGE_SECURITY), source })
}

fn file(dir: &Path, name: &str, vendor: Uuid) -> PathBuf {
    dir.join(format!("{name}-{vendor}"))
}

/// A variable's value, if it is there.
fn value(dir: &Path, name: &str, vendor: Uuid) -> Result<Option<Vec<u8>>, StateError> {
    let path = file(dir, name, vendor);
    let mut bytes = Vec::new();
    match File::open(&path).and_then(|file| file.take(MAX_VARIABLE + 1).read_to_end(&mut bytes)) {
        Ok(_) if bytes.len() as u64 > MAX_VARIABLE => Err(StateError::TooLong { path }),
        Ok(_) => Ok(Some(bytes.split_off(ATTRIBUTES.min(bytes.len())))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StateError::Read { path, source }),
    }
}
