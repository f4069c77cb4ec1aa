//! Writing a delta (IMG-70 to IMG-74).

use std::io::{self, Seek, SeekFrom, Write};
use std::num::NonZeroUsize;

use crate::compress::{self, CompressError, Compressed};
use crate::digest::{Digest, SystemId};
use crate::frame::{self, HEADER_LEN, MAX_TABLE};
use crate::keys::{PrivateKey, Role, to_be_signed};
use crate::reader::{Claims, UnverifiedImage, VerifyError};
use crate::sign;
use crate::signatures::{self, SignatureBlock, SignatureBlockError};
use crate::table::{Chunk, Encoding, MAX_CHUNK_LEN, RECORD_LEN};
use crate::transport::{BASE_LEN, Transport};
use crate::verity::BLOCK;

use super::{BaseRange, BaseRoot, MAX_RANGES, MAX_REFERENCE, codec, ranges};

/// A chunk to be: the next so many bytes of the new root, and where in the base root to look for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeltaPiece {
    /// Plain length: a multiple of 4096 up to 4 MiB.
    pub len: u32,
    /// What it can be made of; none: nothing. At most [`MAX_RANGES`] ranges of [`MAX_REFERENCE`] bytes together. Where they are its very
    /// bytes the chunk is a copy.
    pub ranges: Vec<BaseRange>,
}

/// The new system.
#[allow(missing_debug_implementations, reason = "trait objects")]
pub struct NewSystem<'a, R> {
    /// The head of its full image.
    pub image: &'a UnverifiedImage<R>,
    /// Its root.
    pub root: &'a dyn BaseRoot,
    /// Gives the encoded bytes of a chunk of the full image, not checked; asked for those of the other payloads.
    pub encoded: &'a mut dyn FnMut(&Chunk) -> io::Result<Vec<u8>>,
}

/// Why a delta could not be built.
#[derive(Debug, thiserror::Error)]
pub enum DeltaBuildError {
    /// The full image is refused.
    #[error("the new image is refused")]
    Image(#[source] VerifyError),
    /// Pieces that break their bounds or do not make up root.
    #[error("the pieces are not chunks that make up root (IMG-52, IMG-72)")]
    Pieces,
    /// There is something in the output already.
    #[error("the output is not empty")]
    OutputNotEmpty,
    /// A root could not be read.
    #[error("cannot read the {0} root")]
    Read(&'static str, #[source] io::Error),
    /// A chunk of the new image could not be read, or is not the one of its table.
    #[error("cannot take chunks from the new image")]
    Chunk(#[source] io::Error),
    /// zstd failed, or gave no threads.
    #[error("cannot compress")]
    Compress(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// More keys than there is room for.
    #[error("cannot sign with so many keys")]
    Signatures(#[source] SignatureBlockError),
    /// The output could not be written.
    #[error("cannot write the delta")]
    Write(#[source] io::Error),
}

impl From<CompressError> for DeltaBuildError {
    fn from(error: CompressError) -> Self {
        Self::Compress(Box::new(error))
    }
}

/// What a worker gets.
struct Job {
    plain: Vec<u8>,
    reference: Vec<u8>,
    ranges: Vec<BaseRange>,
}

/// Writes a delta from the system `base`, whose root is `base_root`, to the one in `new`. The manifest and its signatures are those of the
/// new image; the transport is signed by `keys`. The result depends on `pieces` and `level` alone (IMG-55). `progress` is told how
/// many plain bytes of root are done.
///
/// # Errors
/// Hands on those of sources and output. `out` is then unfinished and to be thrown away.
#[allow(clippy::too_many_arguments, reason = "each is another thing")]
pub fn build_delta<R>(
    new: NewSystem<'_, R>,
    base: SystemId,
    base_root: &dyn BaseRoot,
    pieces: &[DeltaPiece],
    level: i32,
    workers: Option<NonZeroUsize>,
    keys: &[PrivateKey],
    out: &mut (impl Write + Seek),
    progress: &mut dyn FnMut(u64),
) -> Result<(), DeltaBuildError> {
    let claims = new.image.claims().map_err(DeltaBuildError::Image)?;
    if let Some(base) = claims.transport.base {
        return Err(DeltaBuildError::Image(VerifyError::Delta { base }));
    }
    let rest: Vec<Chunk> = claims.chunks.iter().filter(|chunk| chunk.payload != 0).copied().collect();
    check(pieces, &claims, rest.len())?;
    if out.seek(SeekFrom::End(0)).map_err(DeltaBuildError::Write)? != 0 {
        return Err(DeltaBuildError::OutputNotEmpty);
    }
    let manifest = new.image.claimed_manifest_bytes();
    let bodies = manifest.len() + signatures::BODY_LEN + BASE_LEN + 32 + (pieces.len() + rest.len()) * RECORD_LEN;
    out.seek(SeekFrom::Start((4 * HEADER_LEN + bodies) as u64)).map_err(DeltaBuildError::Write)?;

    let mut data = Data { chunks: Vec::new(), len: 0, out: &mut *out };
    let mut todo = pieces.iter();
    let (mut at, mut written) = (0, 0);
    compress::each_in_order::<Job, _, DeltaBuildError>(
        workers.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN),
        |job| encode(job, level),
        || {
            let Some(piece) = todo.next() else { return Ok(None) };
            let mut plain = vec![0; piece.len as usize];
            new.root.read(at, &mut plain).map_err(|source| DeltaBuildError::Read("new", source))?;
            at += u64::from(piece.len);
            let mut reference = vec![0; piece.ranges.iter().map(|range| range.len as usize).sum()];
            let read = codec::read(base_root, &piece.ranges, &mut reference);
            read.map_err(|source| DeltaBuildError::Read("base", source))?;
            Ok(Some(Job { plain, reference, ranges: piece.ranges.clone() }))
        },
        |(encoding, compressed)| {
            let plain_len = compressed.plain_len;
            data.append(0, written, encoding, compressed)?;
            written += u64::from(plain_len);
            progress(written);
            Ok(())
        },
    )?;
    for chunk in rest {
        let encoded = (new.encoded)(&chunk).map_err(DeltaBuildError::Chunk)?;
        if Digest::of(&encoded) != chunk.encoded_sha256 {
            return Err(DeltaBuildError::Chunk(io::Error::from(io::ErrorKind::InvalidData)));
        }
        let Chunk { payload, plain_offset, plain_len, plain_sha256, .. } = chunk;
        data.append(payload, plain_offset, Encoding::Zstd, Compressed { plain_len, plain_sha256, encoded })?;
    }

    let table: Vec<u8> = data.chunks.iter().flat_map(|chunk| chunk.to_bytes()).collect();
    let transport = Transport {
        system_id: claims.system_id,
        table_sha256: Digest::of(&table),
        table_len: table.len() as u32,
        data_len: data.len,
        base: Some(base),
    }
    .to_bytes();
    let signatures = signed(new.image.signatures(), &transport, keys)?;
    let head = frame::head(manifest, &signatures.to_bytes(), &transport, &table);
    debug_assert_eq!(head.len(), 4 * HEADER_LEN + bodies);
    out.seek(SeekFrom::Start(0))
        .and_then(|_| out.write_all(&head))
        .and_then(|()| out.flush())
        .map_err(DeltaBuildError::Write)
}

/// Pieces and ranges within their bounds, and no more than the table holds.
fn check(pieces: &[DeltaPiece], claims: &Claims, rest: usize) -> Result<(), DeltaBuildError> {
    let fits = |piece: &DeltaPiece| {
        let sum: u64 = piece.ranges.iter().map(|range| u64::from(range.len)).sum();
        (1..=MAX_CHUNK_LEN).contains(&piece.len)
            && u64::from(piece.len).is_multiple_of(BLOCK)
            && piece.ranges.len() <= MAX_RANGES
            && sum <= u64::from(MAX_REFERENCE)
            && piece.ranges.iter().all(|range| range.len > 0)
    };
    let sum: u64 = pieces.iter().map(|piece| u64::from(piece.len)).sum();
    let table = (pieces.len() + rest) * RECORD_LEN;
    match sum == claims.manifest.payloads[0].size && table <= MAX_TABLE && pieces.iter().all(fits) {
        true => Ok(()),
        false => Err(DeltaBuildError::Pieces),
    }
}

/// The shortest of what a chunk can be.
fn encode(job: &Job, level: i32) -> Result<(Encoding, Compressed), CompressError> {
    let ranges = ranges::to_bytes(&job.ranges);
    if job.plain == job.reference {
        let plain_sha256 = Digest::of(&job.plain);
        return Ok((Encoding::Copy, Compressed { plain_len: job.plain.len() as u32, plain_sha256, encoded: ranges }));
    }
    if !job.ranges.is_empty() {
        let mut patch = compress::compress_after(&job.reference, &job.plain, level)?;
        patch.encoded.splice(..0, ranges);
        return Ok((Encoding::Patch, patch));
    }
    Ok((Encoding::Zstd, compress::compress(&job.plain, level)?))
}

/// The signatures of the manifest as they are, and one of the transport by each key.
fn signed(old: &SignatureBlock, transport: &[u8], keys: &[PrivateKey]) -> Result<SignatureBlock, DeltaBuildError> {
    let mut block = SignatureBlock::default();
    let own = keys.iter().map(|key| sign::record(Role::Transport, key, &to_be_signed(Role::Transport, transport)));
    for record in old.records().iter().filter(|record| record.role == Role::Manifest).cloned().chain(own) {
        sign::add_new(&mut block, record).map_err(DeltaBuildError::Signatures)?;
    }
    Ok(block)
}

/// The data as it is written.
struct Data<'a, W> {
    chunks: Vec<Chunk>,
    len: u64,
    out: &'a mut W,
}

impl<W: Write> Data<'_, W> {
    fn append(
        &mut self,
        payload: u16,
        plain_offset: u64,
        encoding: Encoding,
        compressed: Compressed,
    ) -> Result<(), DeltaBuildError> {
        self.out.write_all(&compressed.encoded).map_err(DeltaBuildError::Write)?;
        let chunk = Chunk {
            payload,
            encoding,
            plain_len: compressed.plain_len,
            plain_offset,
            encoded_offset: self.len,
            // A little more than 4 MiB at most.
            encoded_len: compressed.encoded.len() as u32,
            plain_sha256: compressed.plain_sha256,
            encoded_sha256: Digest::of(&compressed.encoded),
        };
        self.chunks.push(chunk);
        self.len += u64::from(chunk.encoded_len);
        Ok(())
    }
}
