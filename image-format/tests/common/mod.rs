//! What the tests of the whole crate share: a small image, and a way to take a file apart, change it and put it together again. The layout
//! is spelled out here a second time, from the specification and not from the code under test.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::io::Cursor;
use std::num::NonZeroUsize;

use image_format::{
    Architecture, BootSource, ChunkError, Digest, FinishError, HeadError, ImageSpec, PrivateKey, Role, Sources,
    TrustPolicy, UnverifiedImage, UpdaterVersion, VerifiedImage, VerifyError, build, to_be_signed,
};

/// A key for each number.
pub fn key(n: u8) -> PrivateKey {
    PrivateKey::from_seed(&[n; 32])
}

/// Trusts the keys of these numbers.
pub fn trust(keys: &[u8], threshold: usize) -> TrustPolicy {
    let keys = keys.iter().map(|n| key(*n).public()).collect();
    TrustPolicy::new(keys, NonZeroUsize::new(threshold).unwrap()).unwrap()
}

/// Bytes that compress about as well as programs do, always the same for the same seed.
pub fn program_like(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(len + 16);
    while bytes.len() < len {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bytes.extend_from_slice(&(state >> 22).to_le_bytes());
        bytes.extend_from_slice(b"mov eax, ");
    }
    bytes.truncate(len);
    bytes
}

/// The smallest file that passes for a kernel, with something behind its headers.
pub fn kernel(architecture: Architecture, len: usize) -> Vec<u8> {
    let mut bytes = program_like(len.max(512), 2);
    bytes[..256].fill(0);
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3C] = 64;
    bytes[64..68].copy_from_slice(b"PE\0\0");
    let machine: u16 = match architecture {
        Architecture::X86_64 => 0x8664,
        Architecture::Aarch64 => 0xAA64,
    };
    bytes[68..70].copy_from_slice(&machine.to_le_bytes());
    bytes[88..90].copy_from_slice(&0x020B_u16.to_le_bytes());
    bytes[156..158].copy_from_slice(&10_u16.to_le_bytes());
    bytes
}

pub fn spec() -> ImageSpec {
    ImageSpec {
        os_id: "ralphos".to_owned(),
        version: "1.2.0".to_owned(),
        architecture: Architecture::X86_64,
        compatible: vec!["qemu,q35".to_owned()],
        epoch: 1,
        min_updater: UpdaterVersion(0, 1, 0),
        title: "RalphOS 1.2.0".to_owned(),
        options: "console=ttyS0".to_owned(),
        level: 3,
        chunk_len: 8192,
        workers: None,
    }
}

/// The three payloads in memory.
pub struct Plain {
    pub root: Vec<u8>,
    pub linux: Vec<u8>,
    pub initrd: Vec<u8>,
}

impl Plain {
    /// Root of 5 blocks (3 chunks at a chunk length of 8192), kernel of 2 chunks, initrd of 1.
    pub fn small() -> Self {
        Self {
            root: program_like(5 * 4096, 1),
            linux: kernel(Architecture::X86_64, 10_000),
            initrd: program_like(5000, 3),
        }
    }

    pub fn build(&self, spec: &ImageSpec, keys: &[PrivateKey]) -> Vec<u8> {
        let mut out = Cursor::new(Vec::new());
        let sources = Sources {
            root: &mut Cursor::new(&self.root),
            boot: BootSource::Kernel { linux: &mut Cursor::new(&self.linux), initrd: &mut Cursor::new(&self.initrd) },
        };
        build(spec, sources, keys, &mut out, &mut |_, _| {}).unwrap();
        out.into_inner()
    }
}

/// The small image, signed by key 1.
pub fn small_image() -> Vec<u8> {
    Plain::small().build(&spec(), &[key(1)])
}

/// A file in its parts (IMG-2).
#[derive(Clone)]
pub struct Parts {
    pub manifest: Vec<u8>,
    pub signatures: Vec<u8>,
    pub transport: Vec<u8>,
    pub table: Vec<u8>,
    pub data: Vec<u8>,
}

impl Parts {
    pub fn of(file: &[u8]) -> Self {
        let mut at = 0;
        let mut body = |kind: u8| {
            assert_eq!(file[at..at + 4], [0x5A, 0x2A, 0x4D, 0x18]);
            let len = u32::from_le_bytes(file[at + 4..at + 8].try_into().unwrap()) as usize;
            assert_eq!(file[at + 8..at + 24], [b"RALPHIMG\x01\0".as_slice(), &[kind, 0, 0, 0, 0, 0]].concat());
            let body = file[at + 24..at + 8 + len].to_vec();
            at += 8 + len;
            body
        };
        let (manifest, signatures, transport, table) = (body(1), body(2), body(3), body(4));
        Self { manifest, signatures, transport, table, data: file[at..].to_vec() }
    }

    pub fn small() -> Self {
        Self::of(&small_image())
    }

    pub fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x5A, 0x2A, 0x4D, 0x18];
        frame.extend((body.len() as u32 + 16).to_le_bytes());
        frame.extend(b"RALPHIMG\x01\0");
        frame.extend([kind, 0, 0, 0, 0, 0]);
        frame.extend(body);
        frame
    }

    pub fn join(&self) -> Vec<u8> {
        [
            Self::frame(1, &self.manifest),
            Self::frame(2, &self.signatures),
            Self::frame(3, &self.transport),
            Self::frame(4, &self.table),
            self.data.clone(),
        ]
        .concat()
    }

    /// Makes the transport record name the manifest, table and data that are here now.
    pub fn bind(&mut self) {
        self.transport[..32].copy_from_slice(Digest::of(&self.manifest).as_ref());
        self.transport[32..64].copy_from_slice(Digest::of(&self.table).as_ref());
        self.transport[64..68].copy_from_slice(&(self.table.len() as u32).to_le_bytes());
        self.transport[72..80].copy_from_slice(&(self.data.len() as u64).to_le_bytes());
    }

    /// Replaces the signatures by these: role, key that is named, key that signs.
    pub fn sign_as(&mut self, records: &[(Role, u8, u8)]) {
        self.signatures = vec![0; 4120];
        self.signatures[0] = records.len() as u8;
        for (index, (role, named, signer)) in records.iter().enumerate() {
            let body = match role {
                Role::Manifest => &self.manifest,
                Role::Transport => &self.transport,
            };
            let signature = raw_signature(*signer, &to_be_signed(*role, body));
            let record = &mut self.signatures[8 + 128 * index..][..128];
            record[0] = if *role == Role::Manifest { 1 } else { 2 };
            record[1] = 1;
            record[32..64].copy_from_slice(key(*named).public().key_id().as_ref());
            record[64..].copy_from_slice(&signature);
        }
    }

    /// Binds and signs as the builder does, with key 1: only the content is odd then.
    pub fn resign(mut self) -> Vec<u8> {
        self.bind();
        self.sign_as(&[(Role::Manifest, 1, 1), (Role::Transport, 1, 1)]);
        self.join()
    }

    /// The table record of a chunk.
    pub fn record(&mut self, chunk: usize) -> &mut [u8] {
        &mut self.table[96 * chunk..][..96]
    }

    /// Where a chunk's encoded bytes lie in the data.
    pub fn encoded(&self, chunk: usize) -> std::ops::Range<usize> {
        let record = &self.table[96 * chunk..][..96];
        let start = u64::from_le_bytes(record[16..24].try_into().unwrap()) as usize;
        let len = u32::from_le_bytes(record[24..28].try_into().unwrap()) as usize;
        start..start + len
    }

    /// Puts other encoded bytes in the place of a chunk's, and all numbers right again.
    pub fn replace_encoded(&mut self, chunk: usize, encoded: &[u8]) {
        let range = self.encoded(chunk);
        let shift = encoded.len() as i64 - range.len() as i64;
        self.data.splice(range, encoded.iter().copied());
        self.record(chunk)[24..28].copy_from_slice(&(encoded.len() as u32).to_le_bytes());
        self.record(chunk)[64..].copy_from_slice(Digest::of(encoded).as_ref());
        for later in chunk + 1..self.table.len() / 96 {
            let start = self.encoded(later).start as i64 + shift;
            self.record(later)[16..24].copy_from_slice(&(start as u64).to_le_bytes());
        }
    }
}

fn raw_signature(n: u8, message: &[u8]) -> [u8; 64] {
    use ed25519_dalek::Signer as _;
    ed25519_dalek::SigningKey::from_bytes(&[n; 32]).sign(message).to_bytes()
}

/// Everything that can stop a reader.
#[derive(Debug)]
pub enum Stop {
    Head(HeadError),
    Verify(VerifyError),
    Chunk(ChunkError),
    Finish(FinishError),
}

impl Stop {
    /// The message and what is behind it, as a user sees them.
    pub fn text(&self) -> String {
        let error: &dyn std::error::Error = match self {
            Self::Head(error) => error,
            Self::Verify(error) => error,
            Self::Chunk(error) => error,
            Self::Finish(error) => error,
        };
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            text.push_str(&format!(": {error}"));
            source = error.source();
        }
        text
    }
}

pub fn open<'a>(file: &'a [u8], policy: &TrustPolicy) -> Result<VerifiedImage<&'a [u8]>, Stop> {
    UnverifiedImage::read_head(file).map_err(Stop::Head)?.verify(policy).map_err(Stop::Verify)
}

/// Reads a file to its end as a device would: name and plain bytes of every payload.
pub fn read_all(file: &[u8], policy: &TrustPolicy) -> Result<Vec<(String, Vec<u8>)>, Stop> {
    let mut image = open(file, policy)?;
    let mut payloads = Vec::new();
    while let Some(mut payload) = image.next_payload().map_err(Stop::Chunk)? {
        let mut bytes = Vec::new();
        while let Some(chunk) = payload.next_chunk().map_err(Stop::Chunk)? {
            assert_eq!(chunk.offset, bytes.len() as u64);
            bytes.extend_from_slice(chunk.bytes);
        }
        payloads.push((payload.payload().name.clone(), bytes));
    }
    image.finish().map_err(Stop::Finish)?;
    Ok(payloads)
}
