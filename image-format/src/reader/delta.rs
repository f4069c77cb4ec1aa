//! A delta, read in one pass: unverified, then verified, then chunk by chunk against its base.

use std::fmt;
use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use crate::codec::fit;
use crate::delta::{self, BaseRoot, DeltaChunk, DeltaDecoder, DeltaError, DeltaTransport};
use crate::digest::{Digest, SystemId};
use crate::keys::{Role, TrustPolicy};
use crate::manifest::Manifest;

use super::{FinishError, PlainChunk, Signers, UnverifiedImage, VerifyError};

/// What a delta says about itself. Consistent within itself, but anybody can have written it.
#[derive(Debug, Clone)]
pub struct DeltaClaims {
    /// The manifest: that of the new system, the same as in its full image.
    pub manifest: Manifest,
    /// Its digest.
    pub system_id: SystemId,
    /// The transport record, which names the base.
    pub transport: DeltaTransport,
    /// The chunk table.
    pub chunks: Vec<DeltaChunk>,
}

impl<R> UnverifiedImage<R> {
    /// Whether the file says that it is a delta.
    pub fn is_delta(&self) -> bool {
        DeltaTransport::is_one(&self.transport)
    }

    /// As [`UnverifiedImage::claims`], of a delta.
    ///
    /// # Errors
    /// As [`UnverifiedImage::verify_delta`], except for signatures.
    pub fn delta_claims(&self) -> Result<DeltaClaims, VerifyError> {
        let transport = DeltaTransport::parse(&self.transport).map_err(VerifyError::Transport)?;
        let system_id = self.check_parts(&transport.transport)?;
        let manifest = Manifest::parse(&self.manifest).map_err(VerifyError::Manifest)?;
        let chunks = delta::parse_table(&self.table, &manifest, transport.transport.data_len);
        Ok(DeltaClaims { manifest, system_id, transport, chunks: chunks.map_err(VerifyError::Table)? })
    }

    /// As [`UnverifiedImage::verify`], of a delta (IMG-71).
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn verify_delta(self, policy: &TrustPolicy) -> Result<VerifiedDelta<R>, VerifyError> {
        let signers = Signers {
            manifest: self.check_role(Role::Manifest, policy)?,
            transport: self.check_role(Role::Transport, policy)?,
        };
        let claims = self.delta_claims()?;
        Ok(VerifiedDelta {
            data_start: self.data_start(),
            source: self.source,
            claims,
            signers,
            next: 0,
            hasher: Sha256::new(),
            root_by_verity: false,
            decoder: DeltaDecoder::default(),
            encoded: Vec::new(),
        })
    }
}

/// A delta whose manifest, transport and chunk table are authentic. Its chunks are read in file order, and each is verified, its base
/// bytes with it, before it is seen.
#[must_use]
pub struct VerifiedDelta<R> {
    source: R,
    claims: DeltaClaims,
    signers: Signers,
    data_start: u64,
    next: usize,
    /// Of the payload that is being read.
    hasher: Sha256,
    /// The caller compares the verity root hash.
    root_by_verity: bool,
    decoder: DeltaDecoder,
    encoded: Vec<u8>,
}

impl<R> VerifiedDelta<R> {
    /// The manifest of the new system.
    pub fn manifest(&self) -> &Manifest {
        &self.claims.manifest
    }

    /// The system id of the new system.
    pub fn system_id(&self) -> SystemId {
        self.claims.system_id
    }

    /// The system whose root must be at hand.
    pub fn base(&self) -> SystemId {
        self.claims.transport.base
    }

    /// The trusted keys that signed.
    pub fn signers(&self) -> &Signers {
        &self.signers
    }

    /// The chunk table, complete and without gaps (IMG-51).
    pub fn chunks(&self) -> &[DeltaChunk] {
        &self.claims.chunks
    }

    /// Where the data begins in the file: encoded offsets count from here.
    pub fn data_start(&self) -> u64 {
        self.data_start
    }
}

impl<R: Read> VerifiedDelta<R> {
    /// Does not hash root as a whole, because the caller computes the verity root hash and compares it, which binds every byte (IMG-54).
    pub fn leave_root_to_verity(mut self) -> Self {
        self.root_by_verity = true;
        self
    }

    /// The encoded bytes of the next chunk, as they come, and its number; `None` behind the last one. They are checked and decoded by
    /// [`DeltaDecoder::decode`], by any worker; what all payloads together must be (IMG-54) is then the caller's to check.
    ///
    /// # Errors
    /// The source's.
    pub fn next_encoded(&mut self, into: &mut Vec<u8>) -> Result<Option<(usize, DeltaChunk)>, DeltaError> {
        let number = self.next;
        let item = self.read_encoded()?;
        std::mem::swap(into, &mut self.encoded);
        Ok(item.map(|item| (number, item)))
    }

    /// The next chunk with its verified plain bytes, or `None` behind the last one. After an error nothing more is to be asked.
    ///
    /// # Errors
    /// The source's and the base's, and what makes the chunk unusable.
    pub fn next_chunk(&mut self, base: &dyn BaseRoot) -> Result<Option<(DeltaChunk, PlainChunk<'_>)>, DeltaError> {
        let number = self.next;
        let Some(item) = self.read_encoded()? else { return Ok(None) };
        let bytes = self.decoder.decode(number, &item, &self.encoded, base)?;
        let index = item.chunk.payload;
        let hashed = index != 0 || !self.root_by_verity;
        if hashed {
            self.hasher.update(bytes);
        }
        if hashed && self.claims.chunks.get(self.next).is_none_or(|next| next.chunk.payload != index) {
            let payload = &self.claims.manifest.payloads[usize::from(index)];
            if Digest::finish(std::mem::take(&mut self.hasher)) != payload.sha256 {
                return Err(DeltaError::PayloadDigest { payload: payload.name.clone(), chunk: number });
            }
        }
        Ok(Some((item, PlainChunk { offset: item.chunk.plain_offset, bytes })))
    }

    /// Reads the next chunk and checks that its encoded bytes are the signed ones, which needs no base; false behind the last one.
    ///
    /// # Errors
    /// The source's, or that the bytes are others.
    pub fn check_next(&mut self) -> Result<bool, DeltaError> {
        let number = self.next;
        let Some(item) = self.read_encoded()? else { return Ok(false) };
        match Digest::of(&self.encoded) == item.chunk.encoded_sha256 {
            true => Ok(true),
            false => Err(DeltaError::EncodedDigest { chunk: number }),
        }
    }

    /// Insists that nothing follows the last chunk (IMG-3).
    ///
    /// # Errors
    /// Reports trailing data, or chunks that were not read.
    pub fn finish(mut self) -> Result<(), FinishError> {
        if let Some(item) = self.claims.chunks.get(self.next) {
            let payload = self.claims.manifest.payloads[usize::from(item.chunk.payload)].name.clone();
            return Err(FinishError::Unread { payload });
        }
        match io::copy(&mut (&mut self.source).take(1), &mut io::sink()) {
            Ok(0) => Ok(()),
            Ok(_) => Err(FinishError::TrailingData),
            Err(error) => Err(FinishError::Io(error)),
        }
    }

    fn read_encoded(&mut self) -> Result<Option<DeltaChunk>, DeltaError> {
        let Some(item) = self.claims.chunks.get(self.next).copied() else { return Ok(None) };
        // The table was checked: a little more than 4 MiB at most.
        fit(&mut self.encoded, item.chunk.encoded_len as usize);
        let read = self.source.read_exact(&mut self.encoded);
        read.map_err(|source| DeltaError::Io { chunk: self.next, source })?;
        self.next += 1;
        Ok(Some(item))
    }
}

impl<R> fmt::Debug for VerifiedDelta<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedDelta")
            .field("system_id", &self.system_id())
            .field("base", &self.base())
            .finish_non_exhaustive()
    }
}
