//! db and dbx: the firmware's lists of what it accepts and what it refuses (`SEC-12`).

use std::collections::BTreeSet;

use sha2::{Digest, Sha256, Sha384, Sha512};
use uuid::Uuid;

use crate::guid;

/// In front of each list: type, and three lengths.
const LIST_HEADER: usize = 28;
/// In front of each entry: who put it there.
const OWNER: usize = 16;
/// Behind a digest of a certificate: when it was revoked.
const TIME: usize = 16;

/// Bytes that are no lists of signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A list is longer than what is there, or shorter than its header.
    #[error("signature list {0} is cut off")]
    CutOff(usize),
    /// Entries are not of the length that the list's type has, or the last is not whole.
    #[error("signature list {0} has entries of a length that its type does not have")]
    Entries(usize),
}

/// The digest of a certificate's signed part.
#[derive(Debug, Clone, PartialEq, Eq)]
enum TbsDigest {
    Sha256([u8; 32]),
    Sha384([u8; 48]),
    Sha512([u8; 64]),
}

/// What one of the two variables says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Store {
    certificates: Vec<Vec<u8>>,
    images: BTreeSet<[u8; 32]>,
    tbs: Vec<TbsDigest>,
    unknown: BTreeSet<Uuid>,
}

impl Store {
    /// Reads a variable's value, without its attributes.
    ///
    /// # Errors
    /// When it is not whole lists, one behind the other.
    pub fn parse(mut bytes: &[u8]) -> Result<Self, StoreError> {
        let mut store = Self::default();
        let mut number = 0;
        while !bytes.is_empty() {
            number += 1;
            let list = List::parse(bytes).ok_or(StoreError::CutOff(number))?;
            store.add(&list).ok_or(StoreError::Entries(number))?;
            bytes = &bytes[list.len..];
        }
        Ok(store)
    }

    /// None: its entries are not as its type wants them.
    fn add(&mut self, list: &List<'_>) -> Option<()> {
        match list.kind {
            guid::CERT_X509 => self.certificates.extend(list.entries(None)?.map(<[u8]>::to_vec)),
            guid::CERT_SHA256 => self.images.extend(list.entries(Some(32))?.filter_map(first)),
            guid::CERT_X509_SHA256 => {
                self.tbs.extend(list.entries(Some(32 + TIME))?.filter_map(first).map(TbsDigest::Sha256));
            }
            guid::CERT_X509_SHA384 => {
                self.tbs.extend(list.entries(Some(48 + TIME))?.filter_map(first).map(TbsDigest::Sha384));
            }
            guid::CERT_X509_SHA512 => {
                self.tbs.extend(list.entries(Some(64 + TIME))?.filter_map(first).map(TbsDigest::Sha512));
            }
            other => {
                self.unknown.insert(other);
            }
        }
        Some(())
    }

    /// The X.509 certificates in it, in DER, as they stand there: nothing says that they are any.
    pub fn certificates(&self) -> impl Iterator<Item = &[u8]> {
        self.certificates.iter().map(Vec::as_slice)
    }

    /// Is the digest of this program in it?
    pub fn has_image(&self, digest: &[u8; 32]) -> bool {
        self.images.contains(digest)
    }

    /// Is a digest of this signed part of a certificate in it? (In db that means nothing.)
    pub(crate) fn has_tbs(&self, tbs: &[u8]) -> bool {
        self.tbs.iter().any(|digest| match digest {
            TbsDigest::Sha256(digest) => Sha256::digest(tbs)[..] == *digest,
            TbsDigest::Sha384(digest) => Sha384::digest(tbs)[..] == *digest,
            TbsDigest::Sha512(digest) => Sha512::digest(tbs)[..] == *digest,
        })
    }

    /// Types of lists that were skipped.
    pub fn unknown(&self) -> impl Iterator<Item = Uuid> {
        self.unknown.iter().copied()
    }

    /// Are there digests of programs that are not SHA-256?
    pub(crate) fn has_other_image_digests(&self) -> bool {
        guid::OTHER_IMAGE_DIGESTS.iter().any(|kind| self.unknown.contains(kind))
    }
}

/// What the firmware accepts and what it refuses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stores {
    /// What it accepts.
    pub db: Store,
    /// What it refuses; this one wins.
    pub dbx: Store,
}

/// One EFI_SIGNATURE_LIST.
struct List<'a> {
    kind: Uuid,
    /// All of its bytes.
    len: usize,
    header_len: usize,
    entry_len: usize,
    body: &'a [u8],
}

impl<'a> List<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, _) = bytes.split_first_chunk::<LIST_HEADER>()?;
        let kind: [u8; 16] = first(header)?;
        let number = |at: usize| -> Option<usize> { usize::try_from(u32::from_le_bytes(first(&header[at..])?)).ok() };
        let (len, header_len, entry_len) = (number(16)?, number(20)?, number(24)?);
        let body = bytes.get(LIST_HEADER..len)?;
        Some(Self { kind: Uuid::from_bytes_le(kind), len, header_len, entry_len, body })
    }

    /// What its entries say, without their owners. None: they are not of this length, or not all of them whole.
    fn entries(&self, data_len: Option<usize>) -> Option<impl Iterator<Item = &'a [u8]>> {
        let expected = data_len.map_or(self.entry_len, |len| OWNER + len);
        let whole = self.header_len == 0
            && self.entry_len == expected
            && self.entry_len > OWNER
            && self.body.len().is_multiple_of(self.entry_len);
        whole.then(|| self.body.chunks_exact(self.entry_len).map(|entry| &entry[OWNER..]))
    }
}

/// The first `N` bytes.
fn first<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.first_chunk().copied()
}
