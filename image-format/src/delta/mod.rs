//! Deltas: the same system, carried by what a base system holds already (specs/image-format.md, section 9).

mod codec;
mod ranges;
mod writer;

pub(crate) use codec::decode;
pub(crate) use ranges::MAX_LEN as MAX_RANGES_LEN;

pub use codec::{BaseRoot, DeltaChunkDecoder};
pub use ranges::{BaseRange, MAX_RANGES, MAX_REFERENCE};
pub use writer::{DeltaBuildError, DeltaPiece, NewSystem, build_delta};

#[cfg(test)]
mod tests;
