//! Adding signatures to a finished image, in place (IMG-31, IMG-36).

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};

use crate::frame::{HEADER_LEN, HeadError};
use crate::keys::{PrivateKey, PublicKey, Role};
use crate::reader::{UnverifiedImage, VerifyError};
use crate::signatures::{RecordAlgorithm, SignatureBlock, SignatureBlockError, SignatureRecord, record_offset};

/// A file that can be told to make its bytes durable before it goes on.
pub trait Durable: Read + Write + Seek {
    /// Returns when everything written so far would survive a power cut.
    ///
    /// # Errors
    /// The storage's.
    fn sync(&mut self) -> io::Result<()>;
}

impl Durable for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

impl Durable for Cursor<Vec<u8>> {
    /// Memory survives nothing, so there is nothing to wait for.
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What adding a signature came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignOutcome {
    /// The file has a signature more.
    Added,
    /// The key had signed already; the file is as it was.
    AlreadySigned,
}

/// Why an image was not signed. The file is then as it was, unless writing failed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The file's head is refused.
    #[error("this file cannot be signed")]
    Head(#[source] HeadError),
    /// The head contradicts itself: no reader would ever accept it.
    #[error("this image cannot be signed: it contradicts itself")]
    Claims(#[source] VerifyError),
    /// Not a signature of this image by this key.
    #[error("this is not a signature by that key over this image's manifest or transport record (IMG-30)")]
    NotASignature,
    /// Raw Ed25519 signatures have 64 bytes.
    #[error("a raw Ed25519 signature has 64 bytes, this has {0}")]
    Length(usize),
    /// No room.
    #[error("there is no room for another signature")]
    Full(#[source] SignatureBlockError),
    /// The file could not be written. A cut between the two writes leaves the signatures that were there before.
    #[error("cannot write the signature")]
    Write(#[source] io::Error),
}

/// Signs an image with `key`, for each of `roles` that the key has not signed yet.
///
/// Whoever calls this vouches for the image: the existing signatures are not checked.
///
/// # Errors
/// Refuses an image that contradicts itself; hands on the file's errors.
pub fn add_signature(file: &mut impl Durable, key: &PrivateKey, roles: &[Role]) -> Result<SignOutcome, SignError> {
    let image = open(file)?;
    let records = roles.iter().map(|role| record(*role, key, &image.to_be_signed(*role)));
    add_records(file, &image, records.collect(), &key.public())
}

/// Adds a raw Ed25519 signature that was made elsewhere over the bytes of IMG-30. Which role it signs is found by trying.
///
/// # Errors
/// Refuses what is not a signature of this image by `key`; hands on the file's errors.
pub fn attach_signature(
    file: &mut impl Durable,
    key: &PublicKey,
    signature: &[u8],
) -> Result<(Role, SignOutcome), SignError> {
    let signature: [u8; 64] = signature.try_into().map_err(|_| SignError::Length(signature.len()))?;
    let image = open(file)?;
    let role = Role::ALL
        .into_iter()
        .find(|role| key.verifies(&image.to_be_signed(*role), &signature))
        .ok_or(SignError::NotASignature)?;
    let record = SignatureRecord { role, algorithm: RecordAlgorithm::Ed25519, key_id: key.key_id(), signature };
    add_records(file, &image, vec![record], key).map(|outcome| (role, outcome))
}

fn open(file: &mut impl Durable) -> Result<UnverifiedImage<()>, SignError> {
    file.rewind().map_err(SignError::Write)?;
    let image = UnverifiedImage::read_head(&mut *file).map_err(SignError::Head)?.without_source();
    image.claims().map(drop).map_err(SignError::Claims)?;
    Ok(image)
}

fn add_records(
    file: &mut impl Durable,
    image: &UnverifiedImage<()>,
    records: Vec<SignatureRecord>,
    key: &PublicKey,
) -> Result<SignOutcome, SignError> {
    let body_start = (HEADER_LEN + image.manifest_len() + HEADER_LEN) as u64;
    let mut block = image.signatures().clone();
    let mut new = Vec::new();
    for record in records {
        let signed = block.records().iter().any(|known| {
            known.role == record.role
                && known.algorithm == record.algorithm
                && known.key_id == record.key_id
                // A wrong signature under this key's id does not keep the key from signing.
                && key.verifies(&image.to_be_signed(known.role), &known.signature)
        });
        if !signed {
            new.extend_from_slice(&record.to_bytes());
            block.add(record).map_err(SignError::Full)?;
        }
    }
    if new.is_empty() {
        return Ok(SignOutcome::AlreadySigned);
    }
    // The records first, durable, and then the count that makes them exist: after a cut in between the file is the one it was, and nothing
    // else in the file changes at all.
    let at = body_start + record_offset(image.signatures().records().len()) as u64;
    write_at(file, at, &new)?;
    write_at(file, body_start, &block.count_bytes())?;
    Ok(SignOutcome::Added)
}

fn write_at(file: &mut impl Durable, at: u64, bytes: &[u8]) -> Result<(), SignError> {
    file.seek(SeekFrom::Start(at))
        .and_then(|_| file.write_all(bytes))
        .and_then(|()| file.flush())
        .and_then(|()| file.sync())
        .map_err(SignError::Write)
}

/// A record by `key` over `message`.
pub(crate) fn record(role: Role, key: &PrivateKey, message: &[u8]) -> SignatureRecord {
    SignatureRecord {
        role,
        algorithm: RecordAlgorithm::Ed25519,
        key_id: key.public().key_id(),
        signature: key.sign(message),
    }
}

/// Adds a record of ours unless it is there: Ed25519 is deterministic, so the same key gives the same record.
pub(crate) fn add_new(block: &mut SignatureBlock, record: SignatureRecord) -> Result<(), SignatureBlockError> {
    if block.records().contains(&record) { Ok(()) } else { block.add(record) }
}

#[cfg(test)]
mod tests;
