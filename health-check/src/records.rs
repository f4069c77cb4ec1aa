//! What the health check writes: evidence of trials, and the sign that the booted slot is committed.

pub mod evidence;
#[cfg(test)]
mod tests;
mod traces;

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use updater::evidence::{Evidence, FileName};
use updater::release;

use crate::limit;
use crate::machine::Entry;
pub use traces::Traces;

/// Where evidence goes (HLT-40).
const EVIDENCE: &str = "var/lib/ralph-update/evidence";
/// The kernel's name for this boot.
const BOOT_ID: &str = "proc/sys/kernel/random/boot_id";
/// Files of evidence that are kept (HLT-40).
const KEPT: usize = 32;

/// Why something was not recorded.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}", path.display())]
pub struct RecordError {
    what: &'static str,
    path: PathBuf,
    source: std::io::Error,
}

/// Evidence that was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its file.
    pub path: PathBuf,
    /// What it was written to.
    pub medium: Medium,
}

/// Does what is written stay over a reboot?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// It does, as far as the file system tells.
    Lasting,
    /// It is in memory: a machine without its `/var` may have a tmpfs there.
    Memory,
}

/// Where records go, as a seam.
pub trait Records {
    /// The kernel's id of this boot; empty if it cannot be read.
    fn boot_id(&self) -> String;
    /// What machine and kernel say of themselves, as far as it can be had within this time.
    fn traces(&self, within: Duration) -> Traces;
    /// Keeps evidence. When this returns, it is on the medium, or its time was over (HLT-42).
    fn keep(&self, evidence: &Evidence, within: Duration) -> Result<Kept, RecordError>;
    /// Says to `ralphd` that the booted slot is committed.
    fn mark_committed(&self, entry: &Entry) -> Result<(), RecordError>;
}

/// Records in the file systems below a root.
#[derive(Debug)]
pub struct FileRecords {
    root: PathBuf,
}

impl FileRecords {
    /// Below `root`, which is `/` but for tests.
    pub fn below(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }
}

impl Records for FileRecords {
    fn boot_id(&self) -> String {
        fs::read_to_string(self.root.join(BOOT_ID)).unwrap_or_default().trim().to_owned()
    }

    fn traces(&self, within: Duration) -> Traces {
        Traces::gather(&self.root, within)
    }

    fn keep(&self, evidence: &Evidence, within: Duration) -> Result<Kept, RecordError> {
        let (folder, owned) = (self.root.join(EVIDENCE), evidence.clone());
        let kept = limit::within(within, {
            let folder = folder.clone();
            move || keep(&folder, owned)
        });
        kept.unwrap_or_else(|source| Err(RecordError { what: "write evidence to", path: folder, source }))
    }

    fn mark_committed(&self, entry: &Entry) -> Result<(), RecordError> {
        release::mark_committed(&self.root, &entry.slot, entry.generation).map_err(|source| {
            let path = self.root.join(release::COMMITTED);
            RecordError { what: "write", path, source }
        })
    }
}

fn keep(folder: &Path, evidence: Evidence) -> Result<Kept, RecordError> {
    let name = FileName { generation: evidence.generation, attempt: evidence.attempt };
    let path = folder.join(name.to_string());
    make_folders(folder)?;
    let text = evidence::text(evidence).map_err(|error| RecordError {
        what: "write as JSON",
        path: path.clone(),
        source: error.into(),
    })?;
    replace(folder, &path, &text)?;
    // Only now that the new file is safe; that an old one stays is not worth an error.
    forget_old(folder, name);
    Ok(Kept { medium: medium(folder), path })
}

fn medium(folder: &Path) -> Medium {
    if updater::history::in_memory(folder) { Medium::Memory } else { Medium::Lasting }
}

/// Makes a folder and those above it; each new name is synced into the folder that holds it, lest a power cut take the way to the evidence.
fn make_folders(folder: &Path) -> Result<(), RecordError> {
    let error = |what, path: &Path, source| RecordError { what, path: path.to_owned(), source };
    match fs::create_dir(folder) {
        Ok(()) => {}
        Err(found) if found.kind() == ErrorKind::AlreadyExists && folder.is_dir() => return Ok(()),
        Err(missing) if missing.kind() == ErrorKind::NotFound => {
            let above = folder.parent().ok_or_else(|| error("make the folder", folder, missing))?;
            make_folders(above)?;
            fs::create_dir(folder).map_err(|source| error("make the folder", folder, source))?;
        }
        Err(source) => return Err(error("make the folder", folder, source)),
    }
    match folder.parent() {
        Some(above) => sync_folder(above),
        None => Ok(()),
    }
}

fn sync_folder(folder: &Path) -> Result<(), RecordError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|source| RecordError {
        what: "sync the folder",
        path: folder.to_owned(),
        source,
    })
}

/// Writes `text` to `path` so that at every instant either the old file or the new one stands there, whole.
fn replace(folder: &Path, path: &Path, text: &[u8]) -> Result<(), RecordError> {
    let temporary = path.with_extension("json.new");
    let at = |what, path: &Path| {
        let path = path.to_owned();
        move |source| RecordError { what, path, source }
    };
    let written = File::create(&temporary).map_err(at("create", &temporary)).and_then(|mut file| {
        file.write_all(text).map_err(at("write", &temporary))?;
        file.sync_all().map_err(at("sync", &temporary))
    });
    if let Err(error) = written {
        // A full disk should not keep half a file as well.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    fs::rename(&temporary, path).map_err(at("rename the temporary file to", path))?;
    sync_folder(folder)
}

/// Removes temporary files that a power cut left, and the oldest evidence beyond [`KEPT`]. `newest` stays in any case: on a disk that was
/// installed anew generations begin anew.
fn forget_old(folder: &Path, newest: FileName) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut kept = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.strip_suffix(".new").is_some_and(|name| FileName::parse(name).is_some()) {
            let _ = fs::remove_file(entry.path());
        } else if let Some(name) = FileName::parse(name).filter(|name| *name != newest) {
            kept.push(name);
        }
    }
    kept.sort_unstable();
    let surplus = (kept.len() + 1).saturating_sub(KEPT);
    for name in &kept[..surplus] {
        let _ = fs::remove_file(folder.join(name.to_string()));
    }
}
