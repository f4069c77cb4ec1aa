//! Would this machine's firmware, with Secure Boot enforced, start this program? (`specs/secure-boot.md`)
//!
//! Asked before an update is staged: a kernel that the firmware refuses parks the machine in the firmware. So the answer is never
//! laxer than that of edk2, from which most firmwares are made, and *refused* wherever firmwares may differ.

mod asn1;
mod guid;
pub mod pe;
mod signature;
mod state;
mod store;
mod verdict;
mod x509;

pub use pe::{Machine, Pe, PeError, Section};
pub use signature::SignatureError;
pub use state::{State, StateError, Unclear};
pub use store::{Store, StoreError, Stores};
pub use verdict::{Accepted, Refused, notes, verdict};
pub use x509::{Fingerprint, Unusable};
