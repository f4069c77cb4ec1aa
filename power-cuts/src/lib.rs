//! Every disk that a power cut could have left, made from a record of what reached the disk, and what must be true of it.
//!
//! The rules are in `specs/power-cuts.md` and cited as `CUT-n`. A [`log`] is cut at its flushes into [`interval`]s; what may
//! be on the disk in each is made by [`enumerate`], as overlays over the base ([`disk`], [`view`]); [`check`] says what is
//! wrong with one, and [`run`] does that for a whole flow. [`patch`] carries states to a real disk.

pub mod check;
pub mod disk;
pub mod enumerate;
pub mod flow;
pub mod interval;
pub mod kept;
pub mod log;
pub mod patch;
pub mod places;
pub mod record;
pub mod report;
pub mod rng;
pub mod run;
pub mod save;
pub mod select;
pub mod store;
pub mod view;

pub use flow::{Flow, FlowError, System};
pub use report::Report;
pub use run::{Bounds, run};

/// What a disk writes whole or not at all, in bytes (`CUT-10`).
pub const SECTOR: usize = 512;
