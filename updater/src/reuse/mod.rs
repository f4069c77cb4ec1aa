//! What the slots hold already, and so need not be fetched: slot maps, their journal, and the plan made from them (specs/fetch.md, section 1 and 2).
//!
//! All of it is hints. A chunk taken from a slot is checked by its plain SHA-256 before it is used (IMG-56); a map that is lost, old or
//! wrong costs bytes over the wire and nothing else.

mod begin;
mod journal;
mod map;
mod plan;
mod slots;

pub use begin::{Begun, begin};
pub use journal::{Journal, MapError, SlotMaps};
pub use map::{BadMap, Piece, SlotMap};
pub use plan::{decide, thinned};
pub use slots::{BootedSlot, SlotReuse};
