//! Writing an image (IMG-18, IMG-24, IMG-52, IMG-55).

mod pieces;
mod sources;

use std::io::{self, Read as _, Seek, SeekFrom, Write};
use std::num::NonZeroUsize;

use sha2::{Digest as _, Sha256};

use crate::arch::{Architecture, PE_HEAD_LEN, PeError, pe_machine};
use crate::compress::{self, CompressError, Compressed};
use crate::digest::{Digest, SystemId};
use crate::frame::{self, HEADER_LEN, MAX_TABLE};
use crate::keys::{PrivateKey, Role};
use crate::manifest::{Content, Manifest, ManifestError, Payload, PayloadKind, UpdaterVersion};
use crate::sign;
use crate::signatures::{self, SignatureBlock, SignatureBlockError};
use crate::table::{self, Chunk, Encoding, MAX_CHUNK_LEN};
use crate::transport::{self, Transport};
use crate::verity::{BLOCK, Verity, VerityBuilder, VerityError, derived_salt, slot_bytes};

use pieces::Pieces;
pub use sources::{BootSource, Source, Sources};

/// Length of a chunk unless told otherwise (IMG-52).
pub const DEFAULT_CHUNK_LEN: u32 = 1 << 20;

/// zstd level unless told otherwise.
pub const DEFAULT_LEVEL: i32 = 12;

/// The highest zstd level; 20 and above want windows larger than a chunk can fill.
pub const MAX_LEVEL: i32 = 19;

/// What to build: everything in the manifest that does not follow from the payloads, and how to compress.
#[derive(Debug, Clone)]
pub struct ImageSpec {
    /// As in os-release `ID`.
    pub os_id: String,
    /// Version, ordered by UAPI.10.
    pub version: String,
    /// Must be the kernel's.
    pub architecture: Architecture,
    /// Hardware the image fits; empty means any.
    pub compatible: Vec<String>,
    /// Security epoch, at least 1.
    pub epoch: u32,
    /// The least version of the updater that may apply it.
    pub min_updater: UpdaterVersion,
    /// Boot menu title.
    pub title: String,
    /// Kernel options of the image.
    pub options: String,
    /// zstd level, 1 to [`MAX_LEVEL`].
    pub level: i32,
    /// Plain length of the chunks: a multiple of 4096, at most [`MAX_CHUNK_LEN`].
    pub chunk_len: u32,
    /// Threads that compress; the result does not depend on it. More than 256 are taken for 256; `None`: one for each processor.
    pub workers: Option<NonZeroUsize>,
}

/// What was built.
#[derive(Debug, Clone)]
pub struct Built {
    /// The manifest.
    pub manifest: Manifest,
    /// Its digest.
    pub system_id: SystemId,
    /// How many chunks there are.
    pub chunks: usize,
    /// Length of the file.
    pub file_len: u64,
}

/// Why an image could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A level out of bounds.
    #[error("compression level {0} is not 1 to 19")]
    Level(i32),
    /// A chunk length out of bounds.
    #[error("chunk length {0} is not a multiple of 4096 from 4096 to 4194304 (IMG-21, IMG-52)")]
    ChunkLen(u32),
    /// Lengths for the chunks of root that do not make it up.
    #[error(
        "the chunk lengths given for root are not multiples of 4096 up to 4 MiB whose sum is its size, {size} (IMG-21, IMG-52)"
    )]
    Cuts {
        /// Of root, padded.
        size: u64,
    },
    /// More chunks than the table can hold.
    #[error("{0} chunks are more than an image can have (174762): choose a larger chunk length (IMG-2)")]
    TooManyChunks(u64),
    /// There is something in the output already.
    #[error("the output is not empty")]
    OutputNotEmpty,
    /// A payload could not be read.
    #[error("cannot read the {payload} payload")]
    Read {
        /// Which payload.
        payload: &'static str,
        /// What its source said.
        source: io::Error,
    },
    /// A payload is empty.
    #[error("the {0} payload is empty (IMG-13)")]
    Empty(&'static str),
    /// A payload was written to while it was read.
    #[error("the {0} payload changed while the image was built: nothing may write to it meanwhile")]
    Changed(&'static str),
    /// The kernel cannot be started by UEFI firmware.
    #[error("the {payload} payload is not a kernel that UEFI firmware can start (IMG-13)")]
    Kernel {
        /// Which payload.
        payload: &'static str,
        /// What is wrong with it.
        source: PeError,
    },
    /// A value that a manifest must not have.
    #[error("the manifest would be refused")]
    Manifest(#[source] ManifestError),
    /// The verity tree could not be built.
    #[error("cannot build the verity tree of root")]
    Verity(#[source] VerityError),
    /// zstd failed.
    #[error("cannot compress: {0}")]
    Compress(&'static str),
    /// The system gave no thread to compress in.
    #[error("cannot start the threads that compress: choose fewer of them")]
    Threads(#[source] io::Error),
    /// More keys than an image has room for.
    #[error("cannot sign with so many keys")]
    Signatures(#[source] SignatureBlockError),
    /// The output could not be written.
    #[error("cannot write the image")]
    Write(#[source] io::Error),
}

impl From<CompressError> for BuildError {
    fn from(error: CompressError) -> Self {
        match error {
            CompressError::Zstd(reason) => Self::Compress(reason),
            CompressError::Spawn(source) => Self::Threads(source),
        }
    }
}

/// Builds an image into `out`, which must be empty, and signs it with every one of `keys` (none: it is signed later). `progress` is told how
/// many of how many plain bytes are done; `root` counts twice, because it is read twice.
///
/// The head is written last: until then `out` is no image. Making it durable is left to the caller.
///
/// # Errors
/// Refuses a specification or payloads that would give an image no reader accepts; hands on errors of sources and output. `out` is then
/// unfinished and to be thrown away.
pub fn build(
    spec: &ImageSpec,
    sources: Sources<'_>,
    keys: &[PrivateKey],
    out: &mut (impl Write + Seek),
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Built, BuildError> {
    build_any(spec, None, sources, keys, out, progress)
}

/// As [`build`], but the chunks of root have these plain lengths, in order: multiples of 4096 up to [`MAX_CHUNK_LEN`], together as long as
/// root with its padding. `chunk_len` is for the other payloads then.
///
/// # Errors
/// As [`build`]; [`BuildError::Cuts`].
pub fn build_cut(
    spec: &ImageSpec,
    root_lens: &[u32],
    sources: Sources<'_>,
    keys: &[PrivateKey],
    out: &mut (impl Write + Seek),
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Built, BuildError> {
    build_any(spec, Some(root_lens), sources, keys, out, progress)
}

fn build_any(
    spec: &ImageSpec,
    root_lens: Option<&[u32]>,
    mut sources: Sources<'_>,
    keys: &[PrivateKey],
    out: &mut (impl Write + Seek),
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Built, BuildError> {
    let plan = Plan::new(spec, root_lens, &mut sources)?;
    // Too many keys are reported now and not after minutes of compressing.
    signed_by(keys, &[], &[])?;
    if out.seek(SeekFrom::End(0)).map_err(BuildError::Write)? != 0 {
        return Err(BuildError::OutputNotEmpty);
    }
    let mut progress = Tally { done: 0, total: plan.total_work(), tell: progress };
    let root_sha256 = hash_root(sources.root, plan.sizes[0], &mut |len| progress.add(len))?;

    // Every digest in the manifest has a fixed length, so the place of the data is known before the digests are.
    let draft = plan.manifest(spec, &Digests::draft(root_sha256)).map_err(BuildError::Manifest)?;
    let data_start = plan.data_start(draft.to_json().len());
    out.seek(SeekFrom::Start(data_start)).map_err(BuildError::Write)?;
    let data = write_chunks(spec, &plan, &mut sources, &root_sha256, out, &mut progress)?;

    let manifest = plan.manifest(spec, &data.digests).map_err(BuildError::Manifest)?;
    let head = Head::new(&manifest, &data, keys)?;
    out.seek(SeekFrom::Start(0)).map_err(BuildError::Write)?;
    out.write_all(&head.bytes).and_then(|()| out.flush()).map_err(BuildError::Write)?;
    debug_assert_eq!(head.bytes.len() as u64, data_start);
    Ok(Built { system_id: head.system_id, chunks: data.chunks.len(), file_len: data_start + data.len, manifest })
}

/// What is known before any payload is read as a whole.
struct Plan<'a> {
    machine: Architecture,
    /// Of the chunks of root; `None`: all alike.
    root_lens: Option<&'a [u32]>,
    /// Names and kinds of the payloads.
    names: Vec<&'static str>,
    /// Their plain sizes, root's with its padding.
    sizes: Vec<u64>,
    chunks: u64,
}

/// What is known of the payloads once they were read.
struct Digests {
    /// Of each payload; those that are missing are not known yet.
    payloads: Vec<Digest>,
    /// The verity root hash.
    root_hash: Digest,
}

impl Digests {
    fn draft(root: Digest) -> Self {
        Self { payloads: vec![root], root_hash: Digest::of([]) }
    }
}

impl<'a> Plan<'a> {
    fn new(spec: &ImageSpec, root_lens: Option<&'a [u32]>, sources: &mut Sources<'_>) -> Result<Self, BuildError> {
        if !(1..=MAX_LEVEL).contains(&spec.level) {
            return Err(BuildError::Level(spec.level));
        }
        if !is_root_chunk(spec.chunk_len) {
            return Err(BuildError::ChunkLen(spec.chunk_len));
        }
        let mut payloads = sources.all();
        let names: Vec<&'static str> = payloads.iter().map(|(name, _)| *name).collect();
        let mut sizes = payloads.iter_mut().map(|(name, from)| size(name, *from)).collect::<Result<Vec<u64>, _>>()?;
        sizes[0] = sizes[0].next_multiple_of(BLOCK);
        if let Some(lens) = root_lens {
            let sum: u64 = lens.iter().map(|len| u64::from(*len)).sum();
            if sum != sizes[0] || !lens.iter().all(|len| is_root_chunk(*len)) {
                return Err(BuildError::Cuts { size: sizes[0] });
            }
        }
        let alike = |size: u64| size.div_ceil(spec.chunk_len.into());
        let root_chunks = root_lens.map_or(alike(sizes[0]), |lens| lens.len() as u64);
        let chunks = root_chunks + sizes[1..].iter().map(|size| alike(*size)).sum::<u64>();
        if chunks > (MAX_TABLE / table::RECORD_LEN) as u64 {
            return Err(BuildError::TooManyChunks(chunks));
        }
        // The one that the firmware starts: the kernel, or the unified image.
        let (payload, kernel) = &mut payloads[1];
        let mut head = Vec::new();
        let read = kernel.take(PE_HEAD_LEN as u64).read_to_end(&mut head);
        read.map_err(|source| BuildError::Read { payload, source })?;
        let machine = pe_machine(&head).map_err(|source| BuildError::Kernel { payload, source })?;
        let plan = Self { machine, root_lens, names, sizes, chunks };
        // A wrong version or option is reported now and not after minutes of compressing.
        plan.manifest(spec, &Digests::draft(Digest::of([]))).map_err(BuildError::Manifest)?;
        Ok(plan)
    }

    /// Of the pieces that a payload is cut into; where they end before it does, as `chunk_len` says.
    fn lens(&self, index: usize) -> &'a [u32] {
        self.root_lens.filter(|_| index == 0).unwrap_or_default()
    }

    fn total_work(&self) -> u64 {
        self.sizes.iter().sum::<u64>() + self.sizes[0]
    }

    fn data_start(&self, manifest_len: usize) -> u64 {
        let bodies = manifest_len + signatures::BODY_LEN + transport::BASE_LEN;
        (4 * HEADER_LEN + bodies) as u64 + self.chunks * table::RECORD_LEN as u64
    }

    fn manifest(&self, spec: &ImageSpec, digests: &Digests) -> Result<Manifest, ManifestError> {
        // Every digest has the same length: one that is not known yet may be any.
        let root = digests.payloads[0];
        let payload = |(index, (name, size)): (usize, (&&'static str, &u64))| Payload {
            name: (*name).to_owned(),
            kind: match *name {
                "root" => PayloadKind::Root(Verity::derive(*size, &root, digests.root_hash)),
                "linux" => PayloadKind::Linux { machine: self.machine },
                "uki" => PayloadKind::Uki { machine: self.machine },
                _ => PayloadKind::Initrd,
            },
            required: true,
            size: *size,
            sha256: digests.payloads.get(index).copied().unwrap_or(root),
        };
        Manifest::new(Content {
            os_id: spec.os_id.clone(),
            version: spec.version.clone(),
            architecture: spec.architecture,
            compatible: spec.compatible.clone(),
            epoch: spec.epoch,
            min_updater: spec.min_updater,
            title: spec.title.clone(),
            options: spec.options.clone(),
            payloads: self.names.iter().zip(&self.sizes).enumerate().map(payload).collect(),
            slot_bytes: slot_bytes(self.sizes[0]),
            esp_bytes: self.sizes[1..].iter().sum(),
            critical: Vec::new(),
        })
    }
}

/// Whether a chunk of root may have this plain length (IMG-21, IMG-52).
fn is_root_chunk(len: u32) -> bool {
    u64::from(len).is_multiple_of(BLOCK) && (1..=MAX_CHUNK_LEN).contains(&len)
}

/// Size of a source, which stands at its beginning afterwards.
fn size(payload: &'static str, from: &mut dyn Source) -> Result<u64, BuildError> {
    let size = from.seek(SeekFrom::End(0)).and_then(|size| from.rewind().map(|()| size));
    match size.map_err(|source| BuildError::Read { payload, source })? {
        0 => Err(BuildError::Empty(payload)),
        size => Ok(size),
    }
}

struct Tally<'a> {
    done: u64,
    total: u64,
    tell: &'a mut dyn FnMut(u64, u64),
}

impl Tally<'_> {
    fn add(&mut self, bytes: usize) {
        self.done += bytes as u64;
        (self.tell)(self.done, self.total);
    }
}

fn hash_root(from: &mut dyn Source, size: u64, progress: &mut dyn FnMut(usize)) -> Result<Digest, BuildError> {
    let mut pieces = Pieces::new("root", from, size, &[], DEFAULT_CHUNK_LEN)?;
    let mut hasher = Sha256::new();
    while let Some(piece) = pieces.next()? {
        hasher.update(&piece);
        progress(piece.len());
    }
    Ok(Digest::finish(hasher))
}

/// What an image built of this root will say of its hash tree: for whoever puts the root hash into a unified kernel image before
/// building (IMG-19). Reads `root` twice.
///
/// # Errors
/// Hands on what reading gives; a root of no bytes.
pub fn root_verity(root: &mut dyn Source) -> Result<Verity, BuildError> {
    let size = size("root", root)?.next_multiple_of(BLOCK);
    let sha256 = hash_root(root, size, &mut |_| ())?;
    let mut builder = VerityBuilder::new(size, &derived_salt(&sha256)).map_err(BuildError::Verity)?;
    let mut pieces = Pieces::new("root", root, size, &[], DEFAULT_CHUNK_LEN)?;
    let mut nowhere = |_: u64, _: &[u8]| Ok(());
    while let Some(piece) = pieces.next()? {
        builder.update(&piece, &mut nowhere).map_err(BuildError::Verity)?;
    }
    Ok(Verity::derive(size, &sha256, builder.finish(&mut nowhere).map_err(BuildError::Verity)?))
}

/// The data as it was written.
struct Data {
    chunks: Vec<Chunk>,
    len: u64,
    digests: Digests,
}

fn write_chunks(
    spec: &ImageSpec,
    plan: &Plan<'_>,
    sources: &mut Sources<'_>,
    root_sha256: &Digest,
    out: &mut impl Write,
    progress: &mut Tally<'_>,
) -> Result<Data, BuildError> {
    let workers = spec.workers.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN);
    let digests = Digests { payloads: Vec::new(), root_hash: Digest::of([]) };
    let mut data = Data { chunks: Vec::new(), len: 0, digests };
    for (index, (name, from)) in sources.all().into_iter().enumerate() {
        let mut pieces = Pieces::new(name, from, plan.sizes[index], plan.lens(index), spec.chunk_len)?;
        let mut whole = Sha256::new();
        let mut verity = match index {
            0 => Some(VerityBuilder::new(plan.sizes[0], &derived_salt(root_sha256)).map_err(BuildError::Verity)?),
            _ => None,
        };
        // The tree is never shipped (IMG-23): only its root hash is wanted here.
        let mut nowhere = |_: u64, _: &[u8]| Ok(());
        let mut plain_offset = 0;
        compress::in_order::<BuildError>(
            spec.level,
            workers,
            || {
                let piece = pieces.next()?;
                if let Some(piece) = &piece {
                    whole.update(piece);
                    if let Some(verity) = &mut verity {
                        verity.update(piece, &mut nowhere).map_err(BuildError::Verity)?;
                    }
                }
                Ok(piece)
            },
            |compressed| {
                plain_offset = data.append(index as u16, plain_offset, &compressed, out)?;
                progress.add(compressed.plain_len as usize);
                Ok(())
            },
        )?;
        data.digests.payloads.push(Digest::finish(whole));
        if let Some(verity) = verity {
            data.digests.root_hash = verity.finish(&mut nowhere).map_err(BuildError::Verity)?;
            if data.digests.payloads[0] != *root_sha256 {
                return Err(BuildError::Changed("root"));
            }
        }
    }
    Ok(data)
}

impl Data {
    /// Writes one chunk; returns where the next one begins in the payload.
    fn append(
        &mut self,
        payload: u16,
        plain_offset: u64,
        compressed: &Compressed,
        out: &mut impl Write,
    ) -> Result<u64, BuildError> {
        out.write_all(&compressed.encoded).map_err(BuildError::Write)?;
        self.chunks.push(Chunk {
            payload,
            encoding: Encoding::Zstd,
            plain_len: compressed.plain_len,
            plain_offset,
            encoded_offset: self.len,
            // compressBound of 4 MiB fits by far.
            encoded_len: compressed.encoded.len() as u32,
            plain_sha256: compressed.plain_sha256,
            encoded_sha256: Digest::of(&compressed.encoded),
        });
        self.len += compressed.encoded.len() as u64;
        Ok(plain_offset + u64::from(compressed.plain_len))
    }
}

/// Signatures of both roles by every key.
fn signed_by(keys: &[PrivateKey], manifest: &[u8], transport: &[u8]) -> Result<SignatureBlock, BuildError> {
    let mut signatures = SignatureBlock::default();
    for key in keys {
        for (role, body) in [(Role::Manifest, manifest), (Role::Transport, transport)] {
            let message = crate::keys::to_be_signed(role, body);
            let record = sign::record(role, key, &message);
            sign::add_new(&mut signatures, record).map_err(BuildError::Signatures)?;
        }
    }
    Ok(signatures)
}

/// The four frames at the front.
struct Head {
    bytes: Vec<u8>,
    system_id: SystemId,
}

impl Head {
    fn new(manifest: &Manifest, data: &Data, keys: &[PrivateKey]) -> Result<Self, BuildError> {
        let manifest = manifest.to_json();
        let table: Vec<u8> = data.chunks.iter().flat_map(|chunk| chunk.to_bytes()).collect();
        let system_id = SystemId::of_manifest(&manifest);
        let transport = Transport {
            system_id,
            table_sha256: Digest::of(&table),
            // The plan made sure that the table is below 16 MiB.
            table_len: table.len() as u32,
            data_len: data.len,
            base: None,
        }
        .to_bytes();
        let signatures = signed_by(keys, &manifest, &transport)?;
        let bytes = frame::head(&manifest, &signatures.to_bytes(), &transport, &table);
        Ok(Self { bytes, system_id })
    }
}
