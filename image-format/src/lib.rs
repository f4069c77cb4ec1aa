//! The image file: one `.zst` file that holds everything a system slot needs.
//!
//! The bytes are specified in `specs/image-format.md`; rules are cited here as `IMG-n`. This crate reads from any
//! [`std::io::Read`] and writes to any [`std::io::Write`] that can seek. It knows nothing of slots, boot partitions, devices or the
//! network, and decides nothing about *whether* an image should be used.
//!
//! Reading goes through phases, and each phase is a type:
//!
//! 1. [`UnverifiedImage::read_head`] takes the four head frames as opaque bytes under fixed limits;
//! 2. [`UnverifiedImage::verify`] checks the signatures against a [`TrustPolicy`], and only then parses manifest and chunk table;
//!    [`UnverifiedImage::verify_any`] takes deltas, too, and [`VerifiedImage::on_base`] gives them what they refer to;
//! 3. [`VerifiedImage::map_source`] exchanges the stream for another [`ChunkSource`], where there is one;
//!    [`VerifiedImage::next_payload`] hands out the payloads in file order, every chunk verified before it is seen;
//! 4. [`VerifiedImage::finish`] insists that nothing follows.
//!
//! [`build`] and [`build_cut`] write an image, [`add_signature`] and [`attach_signature`] add signatures in place. [`VerityBuilder`] computes the dm-verity
//! tree of a slot while the root streams past.

mod arch;
mod chunk_source;
mod codec;
mod compress;
mod delta;
mod digest;
mod frame;
mod json;
mod keys;
mod manifest;
mod reader;
mod sign;
mod signatures;
mod slot_map;
mod table;
mod transport;
mod verity;
mod writer;

pub use arch::{Architecture, PE_HEAD_LEN, PeError, UnknownArchitecture, pe_machine};
pub use chunk_source::{Again, ChunkSource, Passage};
pub use codec::FrameHeaderError;
pub use delta::{
    BaseRange, BaseRoot, DeltaBuildError, DeltaChunkDecoder, DeltaPiece, MAX_RANGES, MAX_REFERENCE, NewSystem,
    build_delta,
};
pub use digest::{Digest, HexError, SystemId};
pub use frame::{FrameKind, MAX_MANIFEST, MAX_TABLE};
pub use json::JsonError;
pub use keys::{KeyError, PolicyError, PrivateKey, PublicKey, Role, TrustPolicy, to_be_signed};
pub use manifest::{
    BadUpdaterVersion, Boot, Content, Manifest, ManifestError, Payload, PayloadKind, RESERVED_OPTION_KEYS,
    UpdaterVersion, check_options, unknown_fields,
};
pub use reader::{
    ChunkError, Claims, FinishError, HeadError, InPlace, NoReuse, PayloadReader, Place, PlainChunk, Reuse, RootRun,
    RootWorker, SharedRoot, Signers, Taken, UnverifiedImage, VerifiedImage, VerifyError,
};
pub use sign::{Durable, SignError, SignOutcome, add_signature, attach_signature};
pub use signatures::{RecordAlgorithm, SignatureBlock, SignatureBlockError, SignatureRecord};
pub use slot_map::{MAX_MAP_LEN, MAX_PIECES, MapState, Piece, STATE_AT, SlotMap, THROUGH_AT};
pub use table::{Chunk, Encoding, MAX_CHUNK_LEN, TableError};
pub use transport::{Transport, TransportError};
pub use verity::{
    BLOCK, BadUuid, HashSink, LeafHasher, Leaves, Uuid, Verity, VerityBuilder, VerityError, slot_bytes, tree_blocks,
    verity_superblock,
};
/// Memory that is wiped when it is dropped, as [`PrivateKey::to_pem`] gives it.
pub use zeroize::Zeroizing;

pub use writer::{
    BootSource, BuildError, Built, DEFAULT_CHUNK_LEN, DEFAULT_LEVEL, ImageSpec, MAX_LEVEL, Source, Sources, build,
    build_cut, root_verity,
};
