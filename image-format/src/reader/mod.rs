//! Reading an image in one pass: unverified, then verified, then payload by payload (IMG-3, IMG-4).

mod payload;
mod verify;

use std::fmt;
use std::io::{self, Read};

use crate::codec::{DecodeError, Decoder, FrameHeaderError, authenticate, fit};
use crate::digest::{Digest, SystemId};
use crate::frame::{self, FrameKind, HEADER_LEN};
use crate::keys::{Role, to_be_signed};
use crate::manifest::{Manifest, ManifestError};
use crate::signatures::{self, SignatureBlock};
use crate::table::{self, Chunk, TableError};
use crate::transport::{Transport, TransportError};

pub use crate::frame::HeadError;
pub use payload::{PayloadReader, PlainChunk};

/// The head of an image whose signatures nobody has checked. What it says are claims; only [`UnverifiedImage::verify`] leads on.
#[must_use]
pub struct UnverifiedImage<R> {
    source: R,
    manifest: Vec<u8>,
    signatures: SignatureBlock,
    transport: Vec<u8>,
    table: Vec<u8>,
}

/// What an image says about itself. Consistent within itself, but anybody can have written it.
#[derive(Debug, Clone)]
pub struct Claims {
    /// The manifest.
    pub manifest: Manifest,
    /// Its digest.
    pub system_id: SystemId,
    /// The transport record.
    pub transport: Transport,
    /// The chunk table.
    pub chunks: Vec<Chunk>,
}

/// The keys, by id, whose signatures hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Signers {
    /// Of the manifest.
    pub manifest: Vec<Digest>,
    /// Of the transport record.
    pub transport: Vec<Digest>,
}

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
}

impl<R: Read> UnverifiedImage<R> {
    /// Reads the four head frames as opaque bytes under the limits of IMG-2, and not a byte more.
    ///
    /// # Errors
    /// Refuses what IMG-2 and IMG-31 tell a reader to refuse; hands on the source's errors.
    pub fn read_head(mut source: R) -> Result<Self, HeadError> {
        let manifest = frame::read(&mut source, FrameKind::Manifest)?;
        let signatures = SignatureBlock::parse(&frame::read(&mut source, FrameKind::Signatures)?)?;
        let transport = frame::read(&mut source, FrameKind::Transport)?;
        let table = frame::read(&mut source, FrameKind::Table)?;
        Ok(Self { source, manifest, signatures, transport, table })
    }
}

impl<R> UnverifiedImage<R> {
    /// The signature records as they stand in the file.
    pub fn signatures(&self) -> &SignatureBlock {
        &self.signatures
    }

    /// The exact bytes that a signature for `role` of this image signs (IMG-30), to sign them elsewhere.
    pub fn to_be_signed(&self, role: Role) -> Vec<u8> {
        to_be_signed(role, self.body(role))
    }

    /// The system id, if the file is what it claims to be. For messages only.
    pub fn claimed_system_id(&self) -> SystemId {
        SystemId::of_manifest(&self.manifest)
    }

    /// The manifest without any trust in it: for tools that show what an image says about itself.
    ///
    /// # Errors
    /// Refuses a malformed manifest.
    pub fn claimed_manifest(&self) -> Result<Manifest, ManifestError> {
        Manifest::parse(&self.manifest)
    }

    /// Everything the image says about itself, checked for consistency but without any trust in it.
    ///
    /// # Errors
    /// As [`UnverifiedImage::verify`], except for signatures.
    pub fn claims(&self) -> Result<Claims, VerifyError> {
        let transport = Transport::parse(&self.transport).map_err(VerifyError::Transport)?;
        let system_id = SystemId::of_manifest(&self.manifest);
        if transport.system_id != system_id {
            return Err(VerifyError::SystemId { transport: transport.system_id, manifest: system_id });
        }
        if self.table.len() as u64 != u64::from(transport.table_len) {
            return Err(VerifyError::TableMismatch("length"));
        }
        if Digest::of(&self.table) != transport.table_sha256 {
            return Err(VerifyError::TableMismatch("SHA-256"));
        }
        let manifest = Manifest::parse(&self.manifest).map_err(VerifyError::Manifest)?;
        let chunks = table::parse(&self.table, &manifest, transport.data_len).map_err(VerifyError::Table)?;
        Ok(Claims { manifest, system_id, transport, chunks })
    }

    /// Where the data begins in the file.
    pub fn data_start(&self) -> u64 {
        let bodies = self.manifest.len() + signatures::BODY_LEN + self.transport.len() + self.table.len();
        (4 * HEADER_LEN + bodies) as u64
    }

    /// Only the head, for work that needs the source for something else.
    pub(crate) fn without_source(self) -> UnverifiedImage<()> {
        let Self { source: _, manifest, signatures, transport, table } = self;
        UnverifiedImage { source: (), manifest, signatures, transport, table }
    }

    pub(crate) fn manifest_len(&self) -> usize {
        self.manifest.len()
    }

    fn body(&self, role: Role) -> &[u8] {
        match role {
            Role::Manifest => &self.manifest,
            Role::Transport => &self.transport,
        }
    }
}

impl<R> fmt::Debug for UnverifiedImage<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnverifiedImage").field("system_id", &self.claimed_system_id()).finish_non_exhaustive()
    }
}

/// An image whose manifest, transport and chunk table are authentic. The chunks are read, each verified before use, in file order.
#[must_use]
pub struct VerifiedImage<R> {
    source: R,
    claims: Claims,
    manifest_bytes: Vec<u8>,
    signers: Signers,
    data_start: u64,
    progress: Reading,
    decoder: Decoder,
    encoded: Vec<u8>,
}

/// How far an image has been read.
#[derive(Debug, Clone, Copy)]
struct Reading {
    /// The chunk that comes next.
    chunk: usize,
    /// The payload that has been handed out and not been read to its end.
    open: Option<u16>,
    /// Something failed, so nobody knows where in the file the source stands.
    failed: bool,
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
    fn from_decode(chunk: usize, error: DecodeError) -> Self {
        match error {
            DecodeError::EncodedDigest => Self::EncodedDigest { chunk },
            DecodeError::Header(source) => Self::FrameHeader { chunk, source },
            DecodeError::Zstd(reason) => Self::Decompress { chunk, reason },
            DecodeError::PlainDigest => Self::PlainDigest { chunk },
        }
    }
}

impl From<ChunkError> for io::Error {
    /// Keeps the [`ChunkError`] inside: [`io::Error::downcast`] gives it back.
    fn from(error: ChunkError) -> Self {
        let kind = match &error {
            ChunkError::Io { source, .. } => source.kind(),
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

impl<R> VerifiedImage<R> {
    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.claims.manifest
    }

    /// The manifest body as it stands in the file.
    pub fn manifest_bytes(&self) -> &[u8] {
        &self.manifest_bytes
    }

    /// The system id.
    pub fn system_id(&self) -> SystemId {
        self.claims.system_id
    }

    /// The transport record.
    pub fn transport(&self) -> &Transport {
        &self.claims.transport
    }

    /// The trusted keys that signed.
    pub fn signers(&self) -> &Signers {
        &self.signers
    }

    /// The chunk table, complete and without gaps (IMG-51).
    pub fn chunks(&self) -> &[Chunk] {
        &self.claims.chunks
    }

    /// Where the data begins in the file: encoded offsets count from here.
    pub fn data_start(&self) -> u64 {
        self.data_start
    }

    /// Length of the whole file.
    pub fn file_len(&self) -> u64 {
        self.data_start + self.claims.transport.data_len
    }

    fn payload_name(&self, index: u16) -> String {
        self.manifest().payloads[usize::from(index)].name.clone()
    }

    fn check_ready(&self) -> Result<(), ChunkError> {
        match self.progress {
            Reading { failed: true, .. } => Err(ChunkError::AlreadyFailed),
            Reading { open: Some(index), .. } => Err(ChunkError::Unfinished { payload: self.payload_name(index) }),
            Reading { .. } => Ok(()),
        }
    }
}

impl<R: Read> VerifiedImage<R> {
    /// The next payload in file order, or `None` behind the last one. A payload is read to its end, or dismissed by
    /// [`PayloadReader::drain`], before the next one is asked for.
    ///
    /// # Errors
    /// When the payload before was left half read, or reading has failed.
    pub fn next_payload(&mut self) -> Result<Option<PayloadReader<'_, R>>, ChunkError> {
        self.check_ready()?;
        let Some(chunk) = self.claims.chunks.get(self.progress.chunk) else { return Ok(None) };
        let index = chunk.payload;
        self.progress.open = Some(index);
        Ok(Some(PayloadReader::new(self, index)))
    }

    /// Insists that every payload was read and that nothing follows (IMG-3), and gives the source back.
    ///
    /// # Errors
    /// Names the payload that was left, or reports trailing data.
    pub fn finish(mut self) -> Result<R, FinishError> {
        self.check_ready().map_err(FinishError::NotAtEnd)?;
        if let Some(chunk) = self.claims.chunks.get(self.progress.chunk) {
            return Err(FinishError::Unread { payload: self.payload_name(chunk.payload) });
        }
        let mut byte = [0];
        loop {
            match self.source.read(&mut byte) {
                Ok(0) => return Ok(self.source),
                Ok(_) => return Err(FinishError::TrailingData),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(FinishError::Io(error)),
            }
        }
    }

    /// Reads the encoded bytes of the next chunk, which is there and belongs to the open payload.
    fn read_encoded(&mut self) -> Result<Chunk, ChunkError> {
        let number = self.progress.chunk;
        let chunk = self.claims.chunks[number];
        // The table was checked: a little more than 4 MiB at most.
        fit(&mut self.encoded, chunk.encoded_len as usize);
        self.source.read_exact(&mut self.encoded).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => ChunkError::Truncated { chunk: number, chunks: self.claims.chunks.len() },
            _ => ChunkError::Io { chunk: number, source },
        })?;
        self.progress.chunk += 1;
        Ok(chunk)
    }

    /// Reads and verifies the next chunk into the decoder.
    fn decode_next(&mut self) -> Result<Chunk, ChunkError> {
        let number = self.progress.chunk;
        let chunk = self.read_encoded()?;
        self.decoder.decode(&chunk, &self.encoded).map_err(|error| ChunkError::from_decode(number, error))?;
        Ok(chunk)
    }

    /// Reads the next chunk and checks that its encoded bytes are the signed ones, without decoding it.
    fn discard_next(&mut self) -> Result<(), ChunkError> {
        let number = self.progress.chunk;
        let chunk = self.read_encoded()?;
        authenticate(&chunk, &self.encoded).map_err(|error| ChunkError::from_decode(number, error))
    }
}

impl<R> fmt::Debug for VerifiedImage<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedImage")
            .field("system_id", &self.system_id())
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}
