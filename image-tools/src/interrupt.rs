//! A program that is interrupted removes its unfinished output.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};

/// What to remove when the program is interrupted.
static UNFINISHED: Mutex<Option<PathBuf>> = Mutex::new(None);

/// From now on an interrupt ends the program through here. To be called first: threads that run already would still be
/// ended on the spot.
pub fn watch() -> Result<()> {
    // Not SIGHUP: to wait for it would undo `nohup`.
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    signals.thread_block().context("cannot block signals")?;
    let wait = move || {
        if let Ok(signal) = signals.wait() {
            if let Some(path) = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner).take() {
                // Nobody is left to tell that it failed.
                let _ = std::fs::remove_file(path);
            }
            // As a shell counts a program that was ended by a signal.
            std::process::exit(128 + signal as i32);
        }
    };
    std::thread::Builder::new().spawn(wait).context("cannot start a thread")?;
    Ok(())
}

/// Names the unfinished output, or says that there is none any more.
pub fn unfinished(path: Option<PathBuf>) {
    *UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner) = path;
}
