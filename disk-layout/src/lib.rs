//! The RalphOS disk: its partition table, its two slots, which of them is booted, and the ways to write to them.
//!
//! The rules are in `specs/disk-layout.md` and cited as `DSK-n`. Block devices and disk image files stand behind one seam.

mod lock;
mod slot;
mod window;

pub use lock::{DEVICE_LOCK, LockError, UpdateLock};
pub use slot::{NotASlot, Slot};
pub use window::{FileWindow, OutsideWindow};
