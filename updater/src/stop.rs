//! An end that somebody asks for from outside, while long work goes on (UPD-9).

use std::fmt;
use std::io::Write as _;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
#[derive(Clone, Default)]
pub struct Stop(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: AtomicU8,
    /// Each wakes somebody who waits and cannot ask.
    wakers: Mutex<Vec<Waker>>,
}

type Waker = Box<dyn Fn() + Send>;

impl Stop {
    /// Asks for an end, and wakes who waits. Too late once the last few writes have begun: false.
    pub fn ask(&self) -> bool {
        let heard = self.mark();
        if heard {
            self.wake();
        }
        heard
    }

    /// Has somebody asked?
    pub fn is_asked(&self) -> bool {
        self.0.state.load(SeqCst) == ASKED
    }

    /// From here on nobody is heard: what follows takes a moment, and ends better whole. False when somebody has asked before.
    pub fn commit(&self) -> bool {
        self.0.state.compare_exchange(GOING, COMMITTING, SeqCst, SeqCst).is_ok()
    }

    /// Calls `waker` when somebody asks, at once if that has happened; maybe twice, and from any thread. It must not wait for anything.
    pub fn when_asked(&self, waker: impl Fn() + Send + 'static) {
        self.wakers().push(Box::new(waker));
        // Whoever asked before this line may have found the list without it.
        if self.is_asked() {
            self.wake();
        }
    }

    fn mark(&self) -> bool {
        self.0.state.compare_exchange(GOING, ASKED, SeqCst, SeqCst) != Err(COMMITTING)
    }

    fn wake(&self) {
        self.wakers().iter().for_each(|waker| waker());
    }

    fn wakers(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.0.wakers.lock().unwrap_or_else(PoisonError::into_inner)
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
                if !stop.mark() {
                    continue;
                }
                // Before anything that might wait: a lock, or standard error, which may be a pipe that nobody reads.
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
                stop.wake();
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

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stop").field("is_asked", &self.is_asked()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

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

    #[test]
    fn upd_9_whoever_waits_is_woken_whenever_he_came() {
        let woken = Arc::new(AtomicU32::new(0));
        let waker = |woken: &Arc<AtomicU32>| {
            let woken = Arc::clone(woken);
            move || _ = woken.fetch_add(1, SeqCst)
        };
        let stop = Stop::default();
        stop.when_asked(waker(&woken));
        assert_eq!(woken.load(SeqCst), 0);
        assert!(stop.ask());
        assert_eq!(woken.load(SeqCst), 1);
        let late = Arc::default();
        stop.when_asked(waker(&late));
        assert_eq!(late.load(SeqCst), 1);
        let stop = Stop::default();
        stop.when_asked(waker(&late));
        assert!(stop.commit() && !stop.ask());
        assert_eq!(late.load(SeqCst), 1, "what is under way is not woken");
    }
}
