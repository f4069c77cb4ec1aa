//! A program that is interrupted removes its unfinished output.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};

/// What to remove when the program is interrupted.
static UNFINISHED: Unfinished = Unfinished::new();

/// From now on an interrupt ends the program through here. To be called first: threads that run already would still be
/// ended on the spot.
pub fn watch() -> Result<()> {
    // Not SIGHUP: to wait for it would undo `nohup`.
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    signals.thread_block().context("cannot block signals")?;
    let wait = move || {
        if let Ok(signal) = signals.wait() {
            // As a shell counts a program that was ended by a signal.
            UNFINISHED.discard_and(|| std::process::exit(128 + signal as i32));
        }
    };
    std::thread::Builder::new().spawn(wait).context("cannot start a thread")?;
    Ok(())
}

/// Makes a file that an interrupt removes from now on, together with those made so before. No interrupt comes in between.
pub fn make<T>(make: impl FnOnce() -> Result<(T, PathBuf)>) -> Result<T> {
    UNFINISHED.make(make)
}

/// Says that all files are finished, or gone: an interrupt removes nothing any more.
pub fn finished() {
    UNFINISHED.finished();
}

/// Removes the unfinished files now.
pub fn discard() {
    UNFINISHED.discard_and(|| ());
}

#[derive(Debug)]
struct Unfinished(Mutex<Vec<PathBuf>>);

impl Unfinished {
    const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    fn make<T>(&self, make: impl FnOnce() -> Result<(T, PathBuf)>) -> Result<T> {
        // Locked while the file is made: before, it may be somebody else's; afterwards, it must not be missed.
        let mut paths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (made, path) = make()?;
        paths.push(path);
        Ok(made)
    }

    fn finished(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Removes the files and does `then` before another can be made.
    fn discard_and<T>(&self, then: impl FnOnce() -> T) -> T {
        let mut paths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for path in paths.drain(..) {
            // Nobody is left to tell that it failed.
            let _ = std::fs::remove_file(path);
        }
        then()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    #[test]
    fn what_was_made_is_removed_and_what_was_there_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let [private, public] = ["k.pem", "k.pub.pem"].map(|name| dir.path().join(name));
        let unfinished = Unfinished::new();
        let new = |path: &PathBuf| unfinished.make(|| Ok((File::create_new(path)?, path.clone())));
        new(&private).unwrap();
        fs::write(&public, "somebody else's").unwrap();
        assert!(new(&public).is_err());
        unfinished.discard_and(|| assert!(!private.exists() && public.exists()));

        fs::remove_file(&public).unwrap();
        new(&private).unwrap();
        new(&public).unwrap();
        unfinished.discard_and(|| assert!(!private.exists() && !public.exists()));

        new(&private).unwrap();
        unfinished.finished();
        unfinished.discard_and(|| assert!(private.exists()));
    }
}
