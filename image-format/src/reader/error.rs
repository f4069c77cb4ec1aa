//! What can go wrong between a verified head and the end of the file.

use std::io;

use crate::codec::{DecodeError, FrameHeaderError};
use crate::digest::SystemId;
use crate::keys::Role;
use crate::manifest::ManifestError;
use crate::table::TableError;
use crate::transport::TransportError;

/// Why an image is not trusted, or contradicts itself.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Too few signatures hold (IMG-34).
    #[error(
        "the {role} is signed by {valid} trusted keys, {needed} are needed \
         ({untrusted} signatures are by other keys, {wrong} by trusted keys are wrong) (IMG-34)"
    )]
    Threshold {
        /// What should be signed.
        role: Role,
        /// Distinct trusted keys with a valid signature.
        valid: usize,
        /// How many the policy wants.
        needed: usize,
        /// Records by keys, or algorithms, that are not trusted.
        untrusted: usize,
        /// Records by trusted keys that do not verify.
        wrong: usize,
    },
    /// The transport record is malformed.
    #[error("the transport record is refused")]
    Transport(#[source] TransportError),
    /// The transport record belongs to another manifest.
    #[error("the transport record carries system {transport} but the manifest beside it is system {manifest} (IMG-40)")]
    SystemId {
        /// What the transport says.
        transport: SystemId,
        /// What the manifest is.
        manifest: SystemId,
    },
    /// The chunk table is not the one the transport record names.
    #[error("the chunk table is not the one that the transport record names: its {0} differs (IMG-41)")]
    TableMismatch(&'static str),
    /// The manifest is refused.
    #[error("the manifest is refused")]
    Manifest(#[source] ManifestError),
    /// The chunk table is refused.
    #[error("the chunk table is refused")]
    Table(#[source] TableError),
    /// A delta where only a full image will do.
    #[error("it is a delta, made for a machine that runs system {base}; here a full image is needed (IMG-70)")]
    Delta {
        /// What it would be applied to.
        base: SystemId,
    },
}

/// Why the chunks of a verified image cannot be used. Whatever it is, the image gives nothing more.
#[derive(Debug, thiserror::Error)]
pub enum ChunkError {
    /// The source failed.
    #[error("cannot read chunk {chunk} of the image")]
    Io {
        /// Which chunk, from 0.
        chunk: usize,
        /// What the source said.
        source: io::Error,
    },
    /// The source ended within the data.
    #[error("the image is truncated: it ends within chunk {chunk} of {chunks} (IMG-3)")]
    Truncated {
        /// Which chunk, from 0.
        chunk: usize,
        /// How many there should be.
        chunks: usize,
    },
    /// The encoded bytes are not the signed ones.
    #[error("chunk {chunk} of the image is damaged: the SHA-256 of its encoded bytes is wrong (IMG-53)")]
    EncodedDigest {
        /// Which chunk, from 0.
        chunk: usize,
    },
    /// The frame header breaks a rule.
    #[error("chunk {chunk} of the image is refused (IMG-53)")]
    FrameHeader {
        /// Which chunk, from 0.
        chunk: usize,
        /// Why.
        source: FrameHeaderError,
    },
    /// zstd cannot decode it.
    #[error("chunk {chunk} of the image does not decompress: {reason} (IMG-53)")]
    Decompress {
        /// Which chunk, from 0.
        chunk: usize,
        /// What zstd said.
        reason: &'static str,
    },
    /// The plain bytes are not the signed ones.
    #[error("chunk {chunk} of the image is wrong: the SHA-256 of its plain bytes is not the signed one (IMG-53)")]
    PlainDigest {
        /// Which chunk, from 0.
        chunk: usize,
    },
    /// The ranges break their bounds.
    #[error("chunk {chunk} of the delta is refused: its ranges of the base root break their bounds (IMG-72)")]
    Ranges {
        /// Which chunk, from 0.
        chunk: usize,
    },
    /// The base could not be read.
    #[error("cannot read the base root, as chunk {chunk} of the delta needs it; the full image needs none")]
    Base {
        /// Which chunk, from 0.
        chunk: usize,
        /// What it said.
        source: io::Error,
    },
    /// What comes out is not the signed content, though the delta itself is whole.
    #[error(
        "chunk {chunk} of the delta does not fit the base root: that was changed or is damaged, or is not the one that the delta was made for (IMG-73); take the full image instead"
    )]
    BaseDiffers {
        /// Which chunk, from 0.
        chunk: usize,
    },
    /// All chunks hold but the payload does not.
    #[error("payload {payload:?} is wrong: its SHA-256 is not that of the manifest, found with chunk {chunk} (IMG-54)")]
    PayloadDigest {
        /// The payload's name.
        payload: String,
        /// Its last chunk, from 0.
        chunk: usize,
    },
    /// The caller left a payload half read.
    #[error("payload {payload:?} was not read to its end")]
    Unfinished {
        /// The payload's name.
        payload: String,
    },
    /// Reading went on after an error.
    #[error("reading the image has failed before")]
    AlreadyFailed,
}

impl ChunkError {
    /// The number of the chunk that it is about, from 0.
    pub fn chunk(&self) -> Option<usize> {
        match self {
            Self::Io { chunk, .. }
            | Self::Truncated { chunk, .. }
            | Self::EncodedDigest { chunk }
            | Self::FrameHeader { chunk, .. }
            | Self::Decompress { chunk, .. }
            | Self::PlainDigest { chunk }
            | Self::Ranges { chunk }
            | Self::Base { chunk, .. }
            | Self::BaseDiffers { chunk }
            | Self::PayloadDigest { chunk, .. } => Some(*chunk),
            Self::Unfinished { .. } | Self::AlreadyFailed => None,
        }
    }

    pub(super) fn from_source(chunk: usize, chunks: usize, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated { chunk, chunks },
            _ => Self::Io { chunk, source },
        }
    }

    pub(crate) fn from_decode(chunk: usize, error: DecodeError) -> Self {
        match error {
            DecodeError::EncodedDigest => Self::EncodedDigest { chunk },
            DecodeError::Header(source) => Self::FrameHeader { chunk, source },
            DecodeError::Zstd(reason) => Self::Decompress { chunk, reason },
            DecodeError::PlainDigest => Self::PlainDigest { chunk },
            DecodeError::Ranges => Self::Ranges { chunk },
            DecodeError::Base(source) => Self::Base { chunk, source },
            DecodeError::BaseDiffers => Self::BaseDiffers { chunk },
        }
    }
}

impl From<ChunkError> for io::Error {
    /// Keeps the [`ChunkError`] inside: [`io::Error::downcast`] gives it back.
    fn from(error: ChunkError) -> Self {
        let kind = match &error {
            ChunkError::Io { source, .. } | ChunkError::Base { source, .. } => source.kind(),
            ChunkError::Truncated { .. } => io::ErrorKind::UnexpectedEof,
            ChunkError::Unfinished { .. } | ChunkError::AlreadyFailed => io::ErrorKind::Other,
            _ => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

/// Why an image does not end as it should.
#[derive(Debug, thiserror::Error)]
pub enum FinishError {
    /// Not everything was read, or reading failed before.
    #[error("the image was not read to its end")]
    NotAtEnd(#[source] ChunkError),
    /// Payloads are left that nobody asked for.
    #[error("payload {payload:?} of the image was not read")]
    Unread {
        /// The first of them.
        payload: String,
    },
    /// Something follows the last chunk.
    #[error("trailing data: bytes follow the last chunk of the image (IMG-3)")]
    TrailingData,
    /// The source failed.
    #[error("cannot read behind the last chunk of the image")]
    Io(#[source] io::Error),
}
