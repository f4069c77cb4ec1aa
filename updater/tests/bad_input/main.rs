//! Bad input, attack by attack, given to the real `apply` on a disk image file (`specs/threat-model.md` section 4): each is refused with its
//! own reason and cause, nothing is staged, the target slot is fenced at most, and the next boot is the one it was.

mod attacks;
mod binary;
mod deltas;
mod lab;
mod moving;
// How an image is taken apart, changed and put together again, with new signatures or the old ones.
#[path = "../../../image-format/tests/common/mod.rs"]
mod parts;
mod servers;
mod signed;
mod table;
