//! Reading an image in one pass: unverified, then verified, then payload by payload (IMG-3, IMG-4).

mod error;
mod payload;
mod shared;
mod verify;

use std::fmt;
use std::io::{self, Read};

use crate::chunk_source::{Again, ChunkSource};
use crate::codec::{DecodeError, Decoder, authenticate, fit};
use crate::delta::BaseRoot;
use crate::digest::{Digest, SystemId};
use crate::frame::{self, FrameKind, HEADER_LEN};
use crate::keys::{Role, to_be_signed};
use crate::manifest::{Manifest, ManifestError};
use crate::signatures::{self, SignatureBlock};
use crate::table::{self, Chunk};
use crate::transport::Transport;

pub use crate::frame::HeadError;
pub use error::{ChunkError, FinishError, VerifyError};
pub use payload::{PayloadReader, PlainChunk};
pub use shared::{InPlace, NoReuse, Place, Reuse, RootRun, RootWorker, SharedRoot, Taken};

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

    /// The manifest body as it stands in the file, for tools that show all of it: nobody has checked anything of it.
    pub fn claimed_manifest_bytes(&self) -> &[u8] {
        &self.manifest
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
        let system_id = self.check_parts(&transport)?;
        let manifest = Manifest::parse(&self.manifest).map_err(VerifyError::Manifest)?;
        let chunks =
            table::parse(&self.table, &manifest, transport.data_len, transport.base).map_err(VerifyError::Table)?;
        Ok(Claims { manifest, system_id, transport, chunks })
    }

    /// That transport, manifest and table belong together (IMG-40, IMG-41).
    fn check_parts(&self, transport: &Transport) -> Result<SystemId, VerifyError> {
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
        Ok(system_id)
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

/// An image, full or a delta, whose manifest, transport and chunk table are authentic. The chunks are read, each verified before use, in file order.
#[must_use]
pub struct VerifiedImage<R> {
    source: R,
    claims: Claims,
    manifest_bytes: Vec<u8>,
    signers: Signers,
    data_start: u64,
    base: Option<Base>,
    progress: Reading,
    decoder: Decoder,
    encoded: Vec<u8>,
}

type Base = Box<dyn BaseRoot + Send + Sync>;

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

    /// Of a delta: the system whose root its chunks refer to (IMG-70).
    pub fn base(&self) -> Option<SystemId> {
        self.claims.transport.base
    }

    /// Gives a delta the root that it refers to; without it no chunk that refers to one can be used.
    pub fn on_base(mut self, root: impl BaseRoot + Send + Sync + 'static) -> Self {
        self.base = Some(Box::new(root));
        self
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

    /// Exchanges the source for one that gives the chunks in another way. Nothing of the data was read yet: whatever it was that the
    /// head came from stands at [`VerifiedImage::data_start`].
    pub fn map_source<S>(self, exchange: impl FnOnce(R) -> S) -> VerifiedImage<S> {
        let Self { source, claims, manifest_bytes, signers, data_start, base, progress, decoder, encoded } = self;
        let source = exchange(source);
        VerifiedImage { source, claims, manifest_bytes, signers, data_start, base, progress, decoder, encoded }
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

impl<R: ChunkSource> VerifiedImage<R> {
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
        match self.source.at_end() {
            Ok(true) => Ok(self.source),
            Ok(false) => Err(FinishError::TrailingData),
            Err(error) => Err(FinishError::Io(error)),
        }
    }

    /// Asks the source once more for a chunk that was taken before: are its plain bytes the signed ones? For whoever left that to the verity
    /// root hash (IMG-54) and got another one.
    ///
    /// # Errors
    /// [`ChunkError::PlainDigest`] when the image contradicts itself; [`ChunkError::Io`] and others when it cannot be had once more.
    pub fn recheck(&mut self, number: usize) -> Result<(), ChunkError> {
        let chunk = self.claims.chunks[number];
        fit(&mut self.encoded, chunk.encoded_len as usize);
        let again = self.source.again(number, &chunk, &mut self.encoded, Again::Missing);
        again.map_err(|error| ChunkError::from_source(number, self.claims.chunks.len(), error))?;
        let base = self.base.as_deref().map(|base| base as &dyn BaseRoot);
        self.decoder.decode(&chunk, &self.encoded, base).map_err(|error| ChunkError::from_decode(number, error))?;
        Ok(())
    }

    /// Reads the encoded bytes of the next chunk, which is there and belongs to the open payload.
    fn read_encoded(&mut self) -> Result<Chunk, ChunkError> {
        let number = self.progress.chunk;
        let chunk = self.claims.chunks[number];
        // The table was checked: a little more than 4 MiB at most.
        fit(&mut self.encoded, chunk.encoded_len as usize);
        self.source
            .next(number, &chunk, &mut self.encoded)
            .map_err(|error| ChunkError::from_source(number, self.claims.chunks.len(), error))?;
        self.progress.chunk += 1;
        Ok(chunk)
    }

    /// Reads and verifies the next chunk into the decoder.
    fn decode_next(&mut self) -> Result<Chunk, ChunkError> {
        let number = self.progress.chunk;
        let chunk = self.read_encoded()?;
        let base = self.base.as_deref().map(|base| base as &dyn BaseRoot);
        let mut decoded = self.decoder.decode(&chunk, &self.encoded, base);
        if matches!(decoded, Err(DecodeError::EncodedDigest)) {
            ask_again(&mut self.source, number, &self.claims.chunks, &mut self.encoded)?;
            decoded = self.decoder.decode(&chunk, &self.encoded, base);
        }
        decoded.map_err(|error| ChunkError::from_decode(number, error))?;
        Ok(chunk)
    }

    /// Reads the next chunk and checks that its encoded bytes are the signed ones, without decoding it.
    fn discard_next(&mut self) -> Result<(), ChunkError> {
        let number = self.progress.chunk;
        let chunk = self.read_encoded()?;
        if authenticate(&chunk, &self.encoded).is_err() {
            ask_again(&mut self.source, number, &self.claims.chunks, &mut self.encoded)?;
        }
        Ok(())
    }
}

/// How often a source is asked again for a chunk whose encoded bytes are not the signed ones, at most.
const TRIES: usize = 8;

/// What the source gave for a chunk are not the signed bytes; perhaps it has another place to ask. Returns how many bytes were taken
/// for that.
fn ask_again<S: ChunkSource>(
    source: &mut S,
    number: usize,
    chunks: &[Chunk],
    encoded: &mut [u8],
) -> Result<u64, ChunkError> {
    let chunk = &chunks[number];
    let mut taken = 0;
    for _ in 0..TRIES {
        match source.again(number, chunk, encoded, Again::Damaged) {
            Ok(()) => taken += u64::from(chunk.encoded_len),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => break,
            Err(error) => return Err(ChunkError::from_source(number, chunks.len(), error)),
        }
        if authenticate(chunk, encoded).is_ok() {
            return Ok(taken);
        }
    }
    Err(ChunkError::EncodedDigest { chunk: number })
}

impl<R> fmt::Debug for VerifiedImage<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedImage")
            .field("system_id", &self.system_id())
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}
