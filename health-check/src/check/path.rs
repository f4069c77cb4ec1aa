//! The check kind `path` (HLT-28).

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::fcntl::OFlag;
use nix::sys::statvfs::statvfs;

use super::{Finding, Limit, Reason};
use crate::config::{FileType, PathCheck};
use crate::limit;

/// What is written to a directory to try it, in bytes: a block, for an empty file fits on a full filesystem.
const TRIAL: usize = 4096;

/// Makes the names of this process different from each other.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// What is wrong with a path.
#[derive(Debug, thiserror::Error)]
enum PathError {
    #[error("cannot look at {}", .0.display())]
    Look(PathBuf, #[source] io::Error),
    #[error("{} is no {expected}", path.display())]
    Type { path: PathBuf, expected: &'static str },
    #[error("{} is neither a file nor a directory: nothing is written to it", .0.display())]
    NotTried(PathBuf),
    #[error("{} takes no new file", .0.display())]
    Directory(PathBuf, #[source] io::Error),
    #[error("{} cannot be opened for writing", .0.display())]
    File(PathBuf, #[source] io::Error),
    #[error("cannot ask how much is free at {}", .0.display())]
    Ask(PathBuf, #[source] nix::Error),
    #[error("{} bytes are free at {}, expected {expected}", free, path.display())]
    Free { path: PathBuf, free: u64, expected: u64 },
}

/// Looks, and tries. A filesystem that hangs is left behind when the time is over.
pub fn run(check: &PathCheck, limit: Limit) -> Finding {
    let owned = check.clone();
    match limit::within(limit.within, move || look(&owned)) {
        Ok(Ok(detail)) => Finding::passed(detail),
        Ok(Err(error)) => Finding::failed(Reason::Path, crate::chain(&error)),
        Err(error) => Finding::failed(limit.reason, format!("{}: {error}", check.path.display())),
    }
}

fn look(check: &PathCheck) -> Result<String, PathError> {
    let path = &check.path;
    let kind = fs::metadata(path).map_err(|error| PathError::Look(path.clone(), error))?.file_type();
    match check.file_type {
        Some(FileType::Directory) if !kind.is_dir() => {
            return Err(PathError::Type { path: path.clone(), expected: "directory" });
        }
        Some(FileType::File) if !kind.is_file() => {
            return Err(PathError::Type { path: path.clone(), expected: "file" });
        }
        _ => {}
    }
    if check.writable {
        if kind.is_dir() {
            try_directory(path).map_err(|error| PathError::Directory(path.clone(), error))?;
        } else if kind.is_file() {
            let options = &mut File::options();
            // Should it be a FIFO by now, its reader is not waited for.
            let opened = options.write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
            opened.map_err(|error| PathError::File(path.clone(), error))?;
        } else {
            // Opening a device may already do something: a watchdog begins to count.
            return Err(PathError::NotTried(path.clone()));
        }
    }
    let mut detail = format!("{} is there", path.display());
    if check.writable {
        detail += ", can be written to";
    }
    if let Some(expected) = check.free {
        let stat = statvfs(path).map_err(|error| PathError::Ask(path.clone(), error))?;
        // On a 32-bit machine these are not u64.
        #[allow(clippy::useless_conversion)]
        let free = u64::from(stat.blocks_available()).saturating_mul(stat.fragment_size().into());
        if free < expected.bytes() {
            return Err(PathError::Free { path: path.clone(), free, expected: expected.bytes() });
        }
        detail += &format!(", {free} bytes are free");
    }
    Ok(detail)
}

/// Makes a file, fills a block of it and removes it. It is removed before it is written, so that a power cut leaves nothing behind, or an
/// empty file at most.
fn try_directory(path: &Path) -> io::Result<()> {
    loop {
        let name = format!(".ralph-health-check-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let trial = path.join(name);
        match File::options().write(true).create_new(true).mode(0o600).open(&trial) {
            Ok(mut file) => {
                fs::remove_file(&trial)?;
                file.write_all(&[0; TRIAL])?;
                return file.sync_all();
            }
            // One that a power cut left: the next name is free.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
