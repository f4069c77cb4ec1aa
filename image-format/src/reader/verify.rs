//! From unverified to verified: the only way there.

use crate::codec::Decoder;
use crate::digest::Digest;
use crate::keys::{Role, TrustPolicy};
use crate::signatures::RecordAlgorithm;

use super::{Reading, Signers, UnverifiedImage, VerifiedImage, VerifyError};

impl<R> UnverifiedImage<R> {
    /// As [`UnverifiedImage::verify_any`], of a full image: a delta is refused (IMG-70).
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn verify(self, policy: &TrustPolicy) -> Result<VerifiedImage<R>, VerifyError> {
        let image = self.verify_any(policy)?;
        match image.base() {
            None => Ok(image),
            Some(base) => Err(VerifyError::Delta { base }),
        }
    }

    /// Of a full image or a delta: checks the signatures of manifest and transport, then that transport, manifest and chunk table belong together, and only then reads
    /// manifest and table (IMG-4, IMG-34, IMG-40, IMG-41, IMG-51).
    ///
    /// # Errors
    /// The first thing that does not hold, in that order.
    pub fn verify_any(self, policy: &TrustPolicy) -> Result<VerifiedImage<R>, VerifyError> {
        let signers = Signers {
            manifest: self.check_role(Role::Manifest, policy)?,
            transport: self.check_role(Role::Transport, policy)?,
        };
        let claims = self.claims()?;
        Ok(VerifiedImage {
            data_start: self.data_start(),
            source: self.source,
            manifest_bytes: self.manifest,
            claims,
            signers,
            base: None,
            progress: Reading { chunk: 0, open: None, failed: false },
            decoder: Decoder::new(),
            encoded: Vec::new(),
        })
    }

    /// The distinct trusted keys with a valid signature for `role`; an error if they are too few (IMG-34).
    pub(super) fn check_role(&self, role: Role, policy: &TrustPolicy) -> Result<Vec<Digest>, VerifyError> {
        let message = self.to_be_signed(role);
        let (mut valid, mut untrusted, mut wrong) = (Vec::new(), 0, 0);
        for record in self.signatures.records().iter().filter(|record| record.role == role) {
            let trusted = (record.algorithm == RecordAlgorithm::Ed25519).then(|| policy.key(&record.key_id)).flatten();
            match trusted {
                None => untrusted += 1,
                Some(key) if !key.verifies(&message, &record.signature) => wrong += 1,
                // A key counts once, however often it signed.
                Some(_) if valid.contains(&record.key_id) => {}
                Some(_) => valid.push(record.key_id),
            }
        }
        let needed = policy.threshold().get();
        if valid.len() < needed {
            return Err(VerifyError::Threshold { role, valid: valid.len(), needed, untrusted, wrong });
        }
        Ok(valid)
    }
}
