//! An EFI program: its header, its sections, its digest and its certificate table (`SEC-20` to `SEC-25`, `SEC-50`).
//!
//! Only header and certificate table are kept in memory; a kernel image may have a hundred megabytes.

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use sha2::{Digest, Sha256};

mod header;

/// Bytes of the longest header.
pub const MAX_HEADER: u64 = 64 << 10;
/// Bytes of the longest certificate table: edk2 reads a signature only if two bytes tell its length (`SEC-30`).
pub const MAX_CERTIFICATE_TABLE: u64 = 64 << 10;
/// Certificates begin at multiples of this.
const CERTIFICATE_ALIGNMENT: u64 = 8;
/// What is hashed at a time.
const PIECE: usize = 64 << 10;

/// What is wrong with a program, before any signature is looked at.
#[derive(Debug, thiserror::Error)]
pub enum PeError {
    /// The source failed.
    #[error("the program cannot be read")]
    Read(#[source] io::Error),
    /// Not the format, or cut off.
    #[error("this is no EFI program: {0}. Give the file that the image's build made, whole")]
    NotPe(&'static str),
    /// For another kind of machine or firmware.
    #[error("this program is not for 64-bit EFI firmware: {0}")]
    OtherMachine(&'static str),
    /// Firmwares would differ in what they load or hash.
    #[error(
        "not every firmware would load this program, or hash the same of it: {0}. Build it with ukify, and sign it last"
    )]
    Layout(&'static str),
    /// The certificate table is not one that all firmwares read alike.
    #[error(
        "not every firmware would find the program's signature: its certificate table {0}. Sign it anew, as its last change"
    )]
    CertificateTable(&'static str),
    /// A section is longer than whoever wants it allows.
    #[error("section {name} has {size} bytes, more than the {limit} that are read of it")]
    SectionTooLong {
        /// The section's name.
        name: String,
        /// Its bytes.
        size: u64,
        /// How many were allowed.
        limit: u64,
    },
}

/// What a program runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// x86-64.
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

/// One section of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    name: [u8; 8],
    /// Where it begins in memory, from the program's base.
    pub virtual_address: u32,
    /// Its bytes in memory.
    pub virtual_size: u32,
    /// Where it begins in the file.
    pub raw_offset: u32,
    /// Its bytes in the file, padding included.
    pub raw_size: u32,
}

impl Section {
    /// Its name, without the NULs behind it; what stands behind the first of them is part of no name.
    pub fn name(&self) -> &[u8] {
        self.name.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// How many bytes it has both in the file and in memory: its content without padding.
    pub fn content_size(&self) -> u32 {
        self.raw_size.min(self.virtual_size)
    }

    fn raw_end(&self) -> u64 {
        u64::from(self.raw_offset) + u64::from(self.raw_size)
    }
}

/// An EFI program whose layout all firmwares read alike.
#[derive(Debug)]
pub struct Pe<R> {
    source: R,
    /// The file up to the first section, as it was read: what is judged is what is hashed.
    header: Vec<u8>,
    machine: Machine,
    sections: Vec<Section>,
    /// Parts of the header that the digest leaves out.
    unhashed: Vec<Range<usize>>,
    certificates: Option<Range<u64>>,
    /// Where what is hashed ends.
    hashed_end: u64,
}

impl<R: Read + Seek> Pe<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// When it is not as `SEC-20` to `SEC-24` say, or cannot be read.
    pub fn open(mut source: R) -> Result<Self, PeError> {
        let len = source.seek(SeekFrom::End(0)).map_err(PeError::Read)?;
        let mut bytes = Vec::new();
        source.rewind().map_err(PeError::Read)?;
        source.by_ref().take(MAX_HEADER.min(len)).read_to_end(&mut bytes).map_err(PeError::Read)?;
        let parsed = header::parse(&bytes, len)?;
        bytes.truncate(parsed.size);
        Ok(Self {
            source,
            header: bytes,
            machine: parsed.machine,
            sections: parsed.sections,
            unhashed: parsed.unhashed,
            hashed_end: parsed.certificates.as_ref().map_or(len, |table| table.start),
            certificates: parsed.certificates,
        })
    }

    /// What it runs on.
    pub fn machine(&self) -> Machine {
        self.machine
    }

    /// Its sections, in the order of its section table; a name may stand there more than once.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// Is there a certificate table?
    pub fn is_signed(&self) -> bool {
        self.certificates.is_some()
    }

    /// The content of a section, if it has at most `limit` bytes.
    ///
    /// # Errors
    /// When it has more, or cannot be read.
    pub fn read_section(&mut self, section: &Section, limit: u64) -> Result<Vec<u8>, PeError> {
        let size = u64::from(section.content_size());
        if size > limit {
            let name = String::from_utf8_lossy(section.name()).into_owned();
            return Err(PeError::SectionTooLong { name, size, limit });
        }
        let start = u64::from(section.raw_offset);
        self.read_range(start..start + size)
    }

    /// The Authenticode digest: SHA-256 of what a signature covers (`SEC-23`).
    ///
    /// # Errors
    /// When the program cannot be read, or has become shorter.
    pub fn authenticode_digest(&mut self) -> Result<[u8; 32], PeError> {
        let mut hash = Sha256::new();
        let mut from = 0;
        for hole in &self.unhashed {
            hash.update(&self.header[from..hole.start]);
            from = hole.end;
        }
        hash.update(&self.header[from..]);
        // Sections have no gaps (SEC-21), so their order is the file's.
        let mut left = self.hashed_end - self.header.len() as u64;
        self.source.seek(SeekFrom::Start(self.header.len() as u64)).map_err(PeError::Read)?;
        let mut piece = vec![0; PIECE];
        while left > 0 {
            let part = &mut piece[..left.min(PIECE as u64) as usize];
            self.source.read_exact(part).map_err(PeError::Read)?;
            hash.update(&*part);
            left -= part.len() as u64;
        }
        Ok(hash.finalize().into())
    }

    /// The one signature: PKCS#7 in DER, and zeros behind it (`SEC-25`). None in an unsigned program.
    ///
    /// # Errors
    /// When there is more than one, or the table is damaged or cannot be read.
    pub fn signature(&mut self) -> Result<Option<Vec<u8>>, PeError> {
        let Some(range) = self.certificates.clone() else { return Ok(None) };
        let table = self.read_range(range)?;
        Ok(Some(only_certificate(&table)?.to_vec()))
    }

    /// The caller bounds the range.
    fn read_range(&mut self, range: Range<u64>) -> Result<Vec<u8>, PeError> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.source.seek(SeekFrom::Start(range.start)).map_err(PeError::Read)?;
        self.source.read_exact(&mut bytes).map_err(PeError::Read)?;
        Ok(bytes)
    }
}

/// The data of the one WIN_CERTIFICATE in a certificate table (`SEC-25`).
fn only_certificate(table: &[u8]) -> Result<&[u8], PeError> {
    let damaged = |what| Err(PeError::CertificateTable(what));
    let Some((header, behind)) = table.split_first_chunk::<8>() else {
        return damaged("is shorter than one entry");
    };
    let [l0, l1, l2, l3, r0, r1, t0, t1] = *header;
    let Some(data_len) = (u32::from_le_bytes([l0, l1, l2, l3]) as usize).checked_sub(header.len()) else {
        return damaged("has an entry that is shorter than its header");
    };
    let Some((data, rest)) = behind.split_at_checked(data_len) else {
        return damaged("has an entry that is longer than itself");
    };
    if (u16::from_le_bytes([r0, r1]), u16::from_le_bytes([t0, t1])) != (0x0200, 0x0002) {
        return damaged("has an entry that is no PKCS#7 signature of revision 2.0");
    }
    let padding = data_len.next_multiple_of(CERTIFICATE_ALIGNMENT as usize) - data_len;
    if rest.len() > padding {
        return damaged("has more than one signature");
    }
    if rest.len() < padding || rest.iter().any(|byte| *byte != 0) {
        return damaged("is not padded with zeros to a multiple of 8 bytes");
    }
    Ok(data)
}
