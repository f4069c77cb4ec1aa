//! At most three machines at once, however many threads test. Under TCG each takes a processor, but not all of the time: a guest
//! waits for deadlines, for what has to be stable for a while, for its disk.

use std::sync::{Condvar, Mutex, PoisonError};

const MACHINES: usize = 3;

static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// The right to run one machine, given back when dropped.
#[derive(Debug)]
pub(crate) struct Slot(());

/// Waits for a slot.
pub(crate) fn take() -> Slot {
    let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut running = ENDED.wait_while(running, |running| *running >= MACHINES).unwrap_or_else(PoisonError::into_inner);
    *running += 1;
    Slot(())
}

impl Drop for Slot {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ENDED.notify_one();
    }
}
