//! An end that somebody asks for from outside, while long work goes on (UPD-9).

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

use crate::exit::Exit;

/// Work that does not end by then, because a source or a device keeps it waiting, is ended with the process.
const PATIENCE: Duration = Duration::from_secs(5);

const GOING: u8 = 0;
const ASKED: u8 = 1;
const COMMITTING: u8 = 2;

/// Asked at each step of long work. Clones are one and the same.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicU8>);

impl Stop {
    /// Asks for an end. Too late once the last few writes have begun: false.
    pub fn ask(&self) -> bool {
        self.0.compare_exchange(GOING, ASKED, SeqCst, SeqCst) != Err(COMMITTING)
    }

    /// Has somebody asked?
    pub fn is_asked(&self) -> bool {
        self.0.load(SeqCst) == ASKED
    }

    /// From here on nobody is heard: what follows takes a moment, and ends better whole. False when somebody has asked before.
    pub fn commit(&self) -> bool {
        self.0.compare_exchange(GOING, COMMITTING, SeqCst, SeqCst).is_ok()
    }

    /// Has SIGINT, SIGTERM and SIGHUP ask, in a process that has no other thread yet. The first one asks; when the work has not ended a few seconds
    /// later, or at the second one, the process is ended where it is: every instant of an apply may be its last (UPD-8).
    ///
    /// # Errors
    /// What the system says; then a signal ends the process at once.
    pub fn on_signals(&self) -> std::io::Result<()> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGINT);
        set.add(Signal::SIGTERM);
        // The terminal is gone; the machine is not.
        set.add(Signal::SIGHUP);
        // Blocked in all threads to come, so that the one that waits for them gets them.
        set.thread_block()?;
        let stop = self.clone();
        let wait = move || {
            while set.wait().is_ok() {
                if !stop.ask() {
                    continue;
                }
                // Before anything that might wait: standard error may be a pipe that nobody reads.
                let timer = thread::Builder::new().spawn(|| {
                    thread::sleep(PATIENCE);
                    std::process::exit(Exit::Failure as i32);
                });
                let second = thread::Builder::new().spawn(move || {
                    let _ = set.wait();
                    std::process::exit(Exit::Failure as i32);
                });
                if timer.is_err() || second.is_err() {
                    std::process::exit(Exit::Failure as i32);
                }
                let _ = writeln!(std::io::stderr(), "ralph-update: a signal came: ending");
                return;
            }
        };
        match thread::Builder::new().name("signals".to_owned()).spawn(wait) {
            Ok(_) => Ok(()),
            Err(error) => {
                set.thread_unblock()?;
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upd_9_whoever_is_first_is_heard() {
        let stop = Stop::default();
        assert!(!stop.is_asked());
        assert!(stop.ask() && stop.clone().is_asked());
        assert!(!stop.commit(), "somebody has asked");
        let stop = Stop::default();
        assert!(stop.commit());
        assert!(!stop.ask() && !stop.is_asked(), "too late");
    }
}
