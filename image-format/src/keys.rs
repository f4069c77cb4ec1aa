//! Keys, what exactly is signed, and how many keys must agree (IMG-30 to IMG-35).

use std::fmt;
use std::num::NonZeroUsize;

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey, KeypairBytes};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

use crate::digest::Digest;

/// What a signature is about (IMG-30).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The content: the manifest body.
    Manifest,
    /// How this file carries it: the transport body, and by its digest the chunk table.
    Transport,
}

impl Role {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Manifest, Self::Transport];

    /// The number in a signature record (IMG-31).
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Manifest => 1,
            Self::Transport => 2,
        }
    }

    const fn context(self) -> &'static [u8] {
        match self {
            Self::Manifest => b"RALPHOS IMAGE v1 MANIFEST",
            Self::Transport => b"RALPHOS IMAGE v1 TRANSPORT",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Manifest => "manifest",
            Self::Transport => "transport",
        })
    }
}

/// The exact bytes that are signed for `role`: 32 bytes that separate the roles, then the body (IMG-30).
pub fn to_be_signed(role: Role, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32 + body.len());
    bytes.extend_from_slice(role.context());
    bytes.resize(32, 0);
    bytes.extend_from_slice(body);
    bytes
}

/// Why a key is refused.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not a PEM public key of the expected kind.
    #[error("not an Ed25519 public key in PEM (\"BEGIN PUBLIC KEY\", as `openssl pkey -pubout` writes it) (IMG-35)")]
    Public(#[source] ed25519_dalek::pkcs8::spki::Error),
    /// Not a PEM private key of the expected kind.
    #[error(
        "not an Ed25519 private key in PEM (\"BEGIN PRIVATE KEY\", as `openssl genpkey -algorithm ed25519` writes it) (IMG-35)"
    )]
    Private(#[source] ed25519_dalek::pkcs8::Error),
    /// A public key of small order: anybody can make signatures that it accepts.
    #[error("this public key is weak (a point of small order): anybody can forge its signatures (IMG-33)")]
    Weak,
    /// The system gave no random numbers.
    #[error("the operating system gave no random numbers for a new key")]
    Random(#[source] getrandom::Error),
}

/// A public key that is not weak.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Reads an SPKI PEM (IMG-35).
    ///
    /// # Errors
    /// Refuses anything that is not an Ed25519 public key, and weak keys (IMG-33).
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        Self::checked(VerifyingKey::from_public_key_pem(text).map_err(KeyError::Public)?)
    }

    fn checked(key: VerifyingKey) -> Result<Self, KeyError> {
        if key.is_weak() { Err(KeyError::Weak) } else { Ok(Self(key)) }
    }

    /// The SPKI PEM.
    pub fn to_pem(&self) -> String {
        self.0.to_public_key_pem(LineEnding::LF).expect("32 bytes always encode")
    }

    /// The raw 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// SHA-256 of the raw key (IMG-32).
    pub fn key_id(&self) -> Digest {
        Digest::of(self.as_bytes())
    }

    /// Whether `signature` is this key's over `message`, strictly (IMG-33).
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.key_id())
    }
}

/// A private key. Its memory is wiped when it is dropped, and [`fmt::Debug`] shows the public half only.
pub struct PrivateKey(SigningKey);

impl PrivateKey {
    /// A new key from the operating system's random numbers.
    ///
    /// # Errors
    /// When the system has none.
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut_slice()).map_err(KeyError::Random)?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// The key that RFC 8032 derives from a 32-byte secret. For tests and for keys kept elsewhere; [`PrivateKey::generate`] makes new ones.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// Reads a PKCS#8 PEM (IMG-35).
    ///
    /// # Errors
    /// Refuses anything that is not an unencrypted Ed25519 private key.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        SigningKey::from_pkcs8_pem(text).map(Self).map_err(KeyError::Private)
    }

    /// The PKCS#8 PEM, in text that is wiped when it is dropped.
    pub fn to_pem(&self) -> Zeroizing<String> {
        // Without the public key, which only version 2 of PKCS#8 has room for: older tools refuse that version.
        let pair = KeypairBytes { secret_key: self.0.to_bytes(), public_key: None };
        pair.to_pkcs8_pem(LineEnding::LF).expect("32 bytes always encode")
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey(of {})", self.public().key_id())
    }
}

/// Which keys are trusted, and how many of them must have signed (IMG-34).
#[derive(Debug, Clone)]
pub struct TrustPolicy {
    keys: Vec<PublicKey>,
    threshold: NonZeroUsize,
}

/// Why a trust policy is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// No key at all.
    #[error("no trusted keys are configured, so no image could ever be accepted")]
    NoKeys,
    /// More signatures wanted than there are keys.
    #[error("{threshold} keys must sign but only {keys} distinct keys are trusted, so no image could ever be accepted")]
    Unreachable {
        /// Signatures wanted.
        threshold: usize,
        /// Distinct keys.
        keys: usize,
    },
}

impl TrustPolicy {
    /// At least `threshold` of `keys` must have signed. The same key given twice counts once.
    ///
    /// # Errors
    /// Refuses a policy that no image could meet.
    pub fn new(keys: Vec<PublicKey>, threshold: NonZeroUsize) -> Result<Self, PolicyError> {
        let mut distinct: Vec<PublicKey> = Vec::new();
        for key in keys {
            if !distinct.contains(&key) {
                distinct.push(key);
            }
        }
        match distinct.len() {
            0 => Err(PolicyError::NoKeys),
            keys if keys < threshold.get() => Err(PolicyError::Unreachable { threshold: threshold.get(), keys }),
            _ => Ok(Self { keys: distinct, threshold }),
        }
    }

    /// The distinct trusted keys.
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// How many must agree.
    pub fn threshold(&self) -> NonZeroUsize {
        self.threshold
    }

    pub(crate) fn key(&self, key_id: &Digest) -> Option<&PublicKey> {
        self.keys.iter().find(|key| key.key_id() == *key_id)
    }
}

#[cfg(test)]
mod tests;
