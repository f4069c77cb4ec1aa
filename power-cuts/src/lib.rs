//! Every disk that a power cut could have left, made from a record of what reached the disk, and what must be true of it.
//!
//! The rules are in `specs/power-cuts.md` and cited as `CUT-n`.

pub mod flow;
pub mod patch;

pub use flow::{Flow, FlowError, System};

/// What a disk writes whole or not at all, in bytes (`CUT-10`).
pub const SECTOR: usize = 512;
