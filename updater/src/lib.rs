//! The life of an update on a machine or on a disk image file: `ralph-update`, and what `ralph-health-check` shares with it.
//!
//! Gather once, decide purely, act separately: [`host`] is the seam to the machine, [`session`] reads the boot state under
//! the lock and acts on entries, [`status`] tells, [`history`], [`evidence`] and [`guard`] remember. With the feature `apply`: [`refuse`] decides whether an image may be
//! applied, [`apply`] carries it out, phase by phase, [`explain`] tells afterwards what became of it, and [`doctor`] what endangers the next boot
//! and update. The rules are in `specs/boot-entries.md` and `specs/doctor.md`.

pub mod evidence;
pub mod exit;
pub mod guard;
pub mod history;
pub mod host;
mod inhibit;
pub mod kernel_refusal;
#[cfg(feature = "apply")]
pub mod loader;
pub mod memory;
#[cfg(feature = "image")]
pub mod new_entry;
pub mod release;
pub mod session;
mod session_error;
pub mod status;
#[cfg(feature = "image")]
pub mod uki;
pub mod vars;
pub mod vitals;

#[cfg(feature = "apply")]
pub mod apply;
#[cfg(feature = "apply")]
pub mod choice;
#[cfg(feature = "config")]
pub mod config;
#[cfg(feature = "apply")]
pub mod doctor;
#[cfg(feature = "apply")]
pub mod explain;
#[cfg(feature = "apply")]
pub mod fetch;
#[cfg(feature = "apply")]
pub mod firmware_trust;
#[cfg(feature = "apply")]
#[doc(hidden)]
pub mod parsers;
#[cfg(feature = "apply")]
mod plan;
#[cfg(feature = "apply")]
mod preflight;
#[cfg(feature = "apply")]
pub mod progress;
#[cfg(feature = "apply")]
pub mod reason;
#[cfg(feature = "apply")]
pub mod refuse;
#[cfg(feature = "apply")]
mod slot_content;
#[cfg(feature = "apply")]
mod slot_map;
#[cfg(feature = "apply")]
pub mod source;
#[cfg(feature = "apply")]
pub mod stop;

#[cfg(all(test, feature = "apply"))]
mod testing;
