//! The signature body: a fixed number of records, so that one is added in place without moving a chunk (IMG-31).

use crate::digest::Digest;
use crate::keys::Role;

/// Length of the body.
pub(crate) const BODY_LEN: usize = 8 + RECORDS * RECORD_LEN + 16;

/// Where record `index` begins in the body.
pub(crate) const fn record_offset(index: usize) -> usize {
    8 + index * RECORD_LEN
}

const RECORDS: usize = 32;
const RECORD_LEN: usize = 128;
const PER_ROLE: usize = 16;
const ED25519: u8 = 1;

/// How a record is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordAlgorithm {
    /// Number 1.
    Ed25519,
    /// Not known here: the record is skipped (IMG-32).
    Unknown(u8),
}

/// One signature, as claimed: nothing about it has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureRecord {
    /// What is signed.
    pub role: Role,
    /// With which algorithm.
    pub algorithm: RecordAlgorithm,
    /// SHA-256 of the raw public key.
    pub key_id: Digest,
    /// The signature.
    pub signature: [u8; 64],
}

impl SignatureRecord {
    /// The 128 bytes of IMG-31.
    pub(crate) fn to_bytes(&self) -> [u8; RECORD_LEN] {
        let mut bytes = [0; RECORD_LEN];
        bytes[0] = self.role.number();
        bytes[1] = match self.algorithm {
            RecordAlgorithm::Ed25519 => ED25519,
            RecordAlgorithm::Unknown(number) => number,
        };
        bytes[32..64].copy_from_slice(self.key_id.as_ref());
        bytes[64..].copy_from_slice(&self.signature);
        bytes
    }

    fn parse(bytes: &[u8], index: usize) -> Result<Self, SignatureBlockError> {
        let role = Role::ALL
            .into_iter()
            .find(|role| role.number() == bytes[0])
            .ok_or(SignatureBlockError::Role { index, found: bytes[0] })?;
        if bytes[2..32].iter().any(|byte| *byte != 0) {
            return Err(SignatureBlockError::Padding { index });
        }
        let array = |range: std::ops::Range<usize>| -> [u8; 32] { bytes[range].try_into().expect("32 bytes") };
        Ok(Self {
            role,
            algorithm: match bytes[1] {
                ED25519 => RecordAlgorithm::Ed25519,
                number => RecordAlgorithm::Unknown(number),
            },
            key_id: array(32..64).into(),
            signature: bytes[64..].try_into().expect("64 bytes"),
        })
    }
}

/// Why a signature body is refused (IMG-31).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureBlockError {
    /// Not the one length it has.
    #[error("the signature body has {0} bytes instead of 4120 (IMG-31)")]
    Length(usize),
    /// More records than there is room for.
    #[error("the signature body counts {0} records, more than 32 (IMG-31)")]
    Count(u32),
    /// Reserved bytes of the body carry something.
    #[error("reserved bytes of the signature body are not zero (IMG-31)")]
    Reserved,
    /// Reserved bytes of a record carry something.
    #[error("reserved bytes of signature record {index} are not zero (IMG-31)")]
    Padding {
        /// Which record, from 0.
        index: usize,
    },
    /// A role that is not known.
    #[error("signature record {index} has the unknown role {found} (IMG-31)")]
    Role {
        /// Which record, from 0.
        index: usize,
        /// The role in the file.
        found: u8,
    },
    /// More than 16 records of one role.
    #[error("there are more than 16 {0} signatures (IMG-31)")]
    TooMany(Role),
}

/// The used records, in the order they were added.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SignatureBlock {
    records: Vec<SignatureRecord>,
}

impl SignatureBlock {
    /// Reads a signature body. What lies in the records behind the count is not looked at: adding a signature writes the record first and
    /// the count last, so a cut between the two leaves a record that does not count yet.
    ///
    /// # Errors
    /// Refuses what IMG-31 tells a reader to refuse.
    pub fn parse(body: &[u8]) -> Result<Self, SignatureBlockError> {
        if body.len() != BODY_LEN {
            return Err(SignatureBlockError::Length(body.len()));
        }
        let count = u32::from_le_bytes(body[..4].try_into().expect("4 bytes"));
        if count as usize > RECORDS {
            return Err(SignatureBlockError::Count(count));
        }
        let reserved = body[4..8].iter().chain(&body[record_offset(RECORDS)..]);
        if reserved.into_iter().any(|byte| *byte != 0) {
            return Err(SignatureBlockError::Reserved);
        }
        let mut block = Self::default();
        for index in 0..count as usize {
            let at = record_offset(index);
            block.add(SignatureRecord::parse(&body[at..at + RECORD_LEN], index)?)?;
        }
        Ok(block)
    }

    /// The body with these records and zeros behind them.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut body = vec![0; BODY_LEN];
        body[..4].copy_from_slice(&self.count_bytes());
        for (index, record) in self.records.iter().enumerate() {
            let at = record_offset(index);
            body[at..at + RECORD_LEN].copy_from_slice(&record.to_bytes());
        }
        body
    }

    /// The count as it stands at the beginning of the body.
    pub(crate) fn count_bytes(&self) -> [u8; 4] {
        (self.records.len() as u32).to_le_bytes()
    }

    /// The used records.
    pub fn records(&self) -> &[SignatureRecord] {
        &self.records
    }

    /// Adds a record behind the others; refuses the 17th of a role.
    pub(crate) fn add(&mut self, record: SignatureRecord) -> Result<(), SignatureBlockError> {
        if self.records.iter().filter(|known| known.role == record.role).count() == PER_ROLE {
            return Err(SignatureBlockError::TooMany(record.role));
        }
        self.records.push(record);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(role: Role, key: u8) -> SignatureRecord {
        SignatureRecord { role, algorithm: RecordAlgorithm::Ed25519, key_id: Digest::of([key]), signature: [key; 64] }
    }

    fn block() -> SignatureBlock {
        SignatureBlock { records: vec![record(Role::Manifest, 1), record(Role::Transport, 1)] }
    }

    #[test]
    fn img_31_layout() {
        let body = block().to_bytes();
        assert_eq!(body.len(), 4120);
        assert_eq!(body[..10], [2, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(body[40..72], *Digest::of([1]).as_bytes());
        assert_eq!(body[72..136], [1; 64]);
        assert_eq!(body[136..138], [2, 1]);
        assert!(body[264..].iter().all(|byte| *byte == 0));
        assert_eq!(SignatureBlock::parse(&body), Ok(block()));
        assert_eq!(SignatureBlock::parse(&SignatureBlock::default().to_bytes()), Ok(SignatureBlock::default()));
    }

    #[test]
    fn img_31_refuses() {
        let patched = |at: usize, byte: u8| {
            let mut body = block().to_bytes();
            body[at] = byte;
            SignatureBlock::parse(&body)
        };
        assert_eq!(patched(0, 33), Err(SignatureBlockError::Count(33)));
        assert_eq!(patched(3, 1), Err(SignatureBlockError::Count(0x0100_0002)));
        for at in [4, 7, 8 + 32 * 128, 4119] {
            assert_eq!(patched(at, 1), Err(SignatureBlockError::Reserved), "byte {at}");
        }
        assert_eq!(patched(8, 0), Err(SignatureBlockError::Role { index: 0, found: 0 }));
        assert_eq!(patched(8 + 128, 3), Err(SignatureBlockError::Role { index: 1, found: 3 }));
        for at in [10, 39] {
            assert_eq!(patched(at, 1), Err(SignatureBlockError::Padding { index: 0 }), "byte {at}");
        }
        // A third record that is all zero has no role.
        assert_eq!(patched(0, 3), Err(SignatureBlockError::Role { index: 2, found: 0 }));
        assert_eq!(SignatureBlock::parse(&[0; 4119]), Err(SignatureBlockError::Length(4119)));
    }

    #[test]
    fn img_32_unknown_algorithms_are_kept_apart_not_refused() {
        let mut body = block().to_bytes();
        body[9] = 7;
        let parsed = SignatureBlock::parse(&body).unwrap();
        assert_eq!(parsed.records()[0].algorithm, RecordAlgorithm::Unknown(7));
        assert_eq!(parsed.to_bytes(), body);
    }

    #[test]
    fn img_31_at_most_16_of_a_role() {
        let mut full = SignatureBlock::default();
        for key in 0..16 {
            full.add(record(Role::Manifest, key)).unwrap();
        }
        assert_eq!(full.add(record(Role::Manifest, 16)), Err(SignatureBlockError::TooMany(Role::Manifest)));
        let mut body = full.to_bytes();
        body[0] = 17;
        body[record_offset(16)] = 1;
        assert_eq!(SignatureBlock::parse(&body), Err(SignatureBlockError::TooMany(Role::Manifest)));
        for key in 0..16 {
            full.add(record(Role::Transport, key)).unwrap();
        }
        assert_eq!(SignatureBlock::parse(&full.to_bytes()), Ok(full));
    }

    #[test]
    fn img_36_a_record_behind_the_count_does_not_count() {
        let mut body = block().to_bytes();
        body[record_offset(2)..record_offset(3)].fill(0xAA);
        assert_eq!(SignatureBlock::parse(&body), Ok(block()));
    }
}
