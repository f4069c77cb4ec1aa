//! Would the firmware start it? (`SEC-40` to `SEC-46`)

use std::io::{Read, Seek};

use crate::asn1::Element;
use crate::pe::{Pe, PeError};
use crate::signature::{Signature, SignatureError};
use crate::store::{Store, Stores};
use crate::x509::{Certificate, Fingerprint};

/// Why the firmware starts a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// This certificate in db is the signer's, or leads to it.
    Certificate(Fingerprint),
    /// The program's digest is in db.
    Digest,
}

/// Why the firmware would not start a program, or not every firmware.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It is no program for this kind of firmware, or cannot be read ([`PeError::Read`]).
    #[error(transparent)]
    Program(#[from] PeError),
    /// Nobody signed it.
    #[error(
        "the program is not signed, and Secure Boot is on; sign it with a key whose certificate is in the firmware's db"
    )]
    Unsigned,
    /// Its signature is none that every firmware takes.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// It is revoked itself.
    #[error("this very program is revoked: its digest is in the firmware's dbx; build and sign a new one")]
    ProgramRevoked,
    /// Who signed it, or who vouches for that, is revoked.
    #[error("certificate {0} of the program's signature is revoked by the firmware's dbx; sign with a key that is not")]
    CertificateRevoked(Fingerprint),
    /// It is accepted by its digest alone, and dbx has digests that were not computed.
    #[error(
        "only the program's digest is in db, and dbx holds digests of a kind that is not compared here; sign the program"
    )]
    DigestNotCompared,
    /// Nobody whom the firmware trusts.
    #[error(
        "the firmware's db does not trust the program's signer (certificate {0}); \
         sign with a key that it trusts, or enrol this certificate first"
    )]
    Untrusted(Fingerprint),
}

impl Refused {
    /// Any firmware that enforces these lists refuses the program for this reason. Else only some may, or it is not known (`SEC-1`).
    pub fn is_certain(&self, stores: &Stores) -> bool {
        match self {
            Self::Unsigned | Self::ProgramRevoked => true,
            // It lies in dbx itself, and is not only akin to what does.
            Self::CertificateRevoked(revoked) => stores
                .dbx
                .certificates()
                .any(|der| parse_padded(der).is_ok_and(|certificate| certificate.fingerprint() == *revoked)),
            Self::Program(_) | Self::Signature(_) | Self::DigestNotCompared | Self::Untrusted(_) => false,
        }
    }
}

/// Would firmware that enforces these lists start this program?
///
/// # Errors
/// [`Refused`]: no, or not every firmware would.
pub fn verdict<R: Read + Seek>(program: &mut Pe<R>, stores: &Stores) -> Result<Accepted, Refused> {
    let digest = program.authenticode_digest()?;
    if stores.dbx.has_image(&digest) {
        return Err(Refused::ProgramRevoked);
    }
    let Some(signature) = program.signature()? else {
        return by_digest(&digest, stores, Refused::Unsigned);
    };
    let signature = Signature::verify(&signature, &digest)?;
    for certificate in &signature.certificates {
        check_revoked(certificate, &stores.dbx)?;
    }
    // edk2 gives up at the first certificate that leads here and is revoked; which one it meets first is the order in db.
    let mut trusted = None;
    for anchor in stores.db.certificates().filter_map(|der| Certificate::parse(der).ok()) {
        if leads_to(&signature, &anchor) {
            check_revoked(&anchor, &stores.dbx)?;
            trusted.get_or_insert(anchor.fingerprint());
        }
    }
    match trusted {
        Some(anchor) => Ok(Accepted::Certificate(anchor)),
        None => by_digest(&digest, stores, Refused::Untrusted(signature.signer().fingerprint())),
    }
}

/// What the lists hold that this check passes over, a line each, for whoever reads them.
pub fn notes(stores: &Stores) -> Vec<String> {
    let unknown = stores.dbx.unknown().map(|kind| format!("dbx holds a list of type {kind}, which is not looked at"));
    let damaged = stores.dbx.certificates().filter(|der| parse_padded(der).is_err());
    let damaged = damaged.map(|der| format!("dbx holds {} bytes that should be a certificate and are none", der.len()));
    unknown.chain(damaged).collect()
}

fn by_digest(digest: &[u8; 32], stores: &Stores, otherwise: Refused) -> Result<Accepted, Refused> {
    if !stores.db.has_image(digest) {
        return Err(otherwise);
    }
    if stores.dbx.has_other_image_digests() {
        return Err(Refused::DigestNotCompared);
    }
    Ok(Accepted::Digest)
}

/// `SEC-43`.
fn check_revoked(certificate: &Certificate, dbx: &Store) -> Result<(), Refused> {
    let revoked = dbx.has_tbs(&certificate.tbs)
        || dbx.certificates().any(|der| match parse_padded(der) {
            Ok(by) => {
                by.der == certificate.der
                    || by.public_key() == certificate.public_key()
                    || by.signed(certificate)
                    || by.may_have_issued(certificate)
            }
            // What cannot be parsed here a firmware may still take for the issuer, or for a certificate of the same key.
            Err(_) => {
                contains(der, &certificate.der)
                    || contains(der, certificate.issuer_name())
                    || contains(der, certificate.public_key())
            }
        });
    if revoked { Err(Refused::CertificateRevoked(certificate.fingerprint())) } else { Ok(()) }
}

/// The certificate at the front of these bytes; edk2 does not mind what is behind it.
fn parse_padded(bytes: &[u8]) -> der::Result<Certificate> {
    Certificate::parse(Element::first(bytes)?.0.raw)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// `SEC-45`: from the signer, by the certificates that the signature carries, to this certificate in db?
fn leads_to(signature: &Signature, anchor: &Certificate) -> bool {
    if anchor.check().is_err() {
        return false;
    }
    let mut current = signature.signer();
    for between in 0..=signature.certificates.len() {
        if current.der == anchor.der {
            return true;
        }
        // edk2 takes a trusted issuer before a carried one, and does not go back if its key is another.
        if anchor.names_as_issued(current) {
            return anchor.issued(current, between);
        }
        if current.is_self_issued() {
            return false;
        }
        let mut issuers = signature.certificates.iter().filter(|issuer| issuer.names_as_issued(current));
        let (Some(issuer), None) = (issuers.next(), issuers.next()) else { return false };
        if !issuer.issued(current, between) {
            return false;
        }
        current = issuer;
    }
    false
}
