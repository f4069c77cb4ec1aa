//! The signature in a program: PKCS#7 around the program's digest (`SEC-30` to `SEC-34`).

use der::Tag;
use der::asn1::{AnyRef, ObjectIdentifier, OctetStringRef};
use der::{Encode, Error as DerError};
use sha2::{Digest, Sha256};

use crate::asn1::{Element, RSA, RSA_WITH_SHA256, SHA256, context};
use crate::x509::{Certificate, Fingerprint, Unusable};

const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");
const SPC_INDIRECT_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.4");
const SPC_PE_IMAGE_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.15");

/// A signature carries no more certificates than these.
const MAX_CERTIFICATES: usize = 10;
/// What a signature is padded with, at most.
const MAX_PADDING: usize = 7;
/// Where edk2 looks for the OID of the digest, and in a signature whose length has two bytes.
const DIGEST_OID_AT: usize = 32;
const LENGTH_IN_TWO_BYTES: u8 = 0x82;

/// What is wrong with a signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// It is not DER.
    #[error("the program's signature is damaged")]
    Der(#[from] DerError),
    /// It is not of the one form that every firmware reads.
    #[error("the program's signature is not of the form that is accepted: {0}. Sign it with sbsign or systemd-sbsign")]
    Form(&'static str),
    /// It is another program's.
    #[error(
        "the program was changed after it was signed, or has another's signature; sign it again, as its last change"
    )]
    OtherProgram,
    /// A certificate that it carries is not one that every firmware uses.
    #[error("certificate {certificate} in the program's signature cannot be used; sign with another")]
    Certificate {
        /// Which.
        certificate: Fingerprint,
        /// Why.
        source: Unusable,
    },
    /// The signer's key did not make it.
    #[error("the program's signature is wrong; sign it again")]
    Wrong,
}

/// A signature that its signer's key made for this program. Who that is, nobody has asked yet.
#[derive(Debug)]
pub(crate) struct Signature {
    pub certificates: Vec<Certificate>,
    signer: usize,
}

impl Signature {
    /// Verifies a certificate table's data, for the program with this digest.
    pub(crate) fn verify(bytes: &[u8], program: &[u8; 32]) -> Result<Self, SignatureError> {
        let (whole, padding) = Element::first(bytes)?;
        if padding.len() > MAX_PADDING || padding.iter().any(|byte| *byte != 0) {
            return form("something lies behind it");
        }
        if whole.raw.get(1) != Some(&LENGTH_IN_TWO_BYTES)
            || !whole.raw[DIGEST_OID_AT.min(whole.raw.len())..].starts_with(SHA256.as_bytes())
        {
            return form("edk2 does not find SHA-256 in it");
        }
        let [kind, data] = whole.parts(Tag::Sequence)?;
        if kind.decode::<ObjectIdentifier>()? != SIGNED_DATA {
            return form("it is no SignedData");
        }
        let [data] = data.parts(context(0))?;
        let [version, digests, content, certificates, signers] = data.parts(Tag::Sequence)?;
        let [digest] = digests.parts(Tag::Set)?;
        if version.decode::<u8>()? != 1 || !digest.is_algorithm(&[SHA256]) {
            return form("it is not of version 1 with SHA-256 alone");
        }
        let content = content_for(program, &content)?;
        let certificates = carried(&certificates)?;
        signers.tag.assert_eq(Tag::Set)?;
        let [signer] = signers.elements()?[..] else { return form("it has not exactly one signer") };
        let signer = verify_signer(&signer, content, &certificates)?;
        Ok(Self { certificates, signer })
    }

    pub(crate) fn signer(&self) -> &Certificate {
        &self.certificates[self.signer]
    }
}

fn form<T>(what: &'static str) -> Result<T, SignatureError> {
    Err(SignatureError::Form(what))
}

/// `SEC-31`: the content, which is what is hashed of it.
fn content_for<'a>(program: &[u8; 32], content: &Element<'a>) -> Result<&'a [u8], SignatureError> {
    let [kind, content] = content.parts(Tag::Sequence)?;
    if kind.decode::<ObjectIdentifier>()? != SPC_INDIRECT_DATA {
        return form("it does not sign a program");
    }
    let [content] = content.parts(context(0))?;
    let [data, digest] = content.parts(Tag::Sequence)?;
    let [data_kind, _] = data.parts(Tag::Sequence)?;
    let [algorithm, digest] = digest.parts(Tag::Sequence)?;
    if data_kind.decode::<ObjectIdentifier>()? != SPC_PE_IMAGE_DATA || !algorithm.is_algorithm(&[SHA256]) {
        return form("it does not sign the SHA-256 of a PE program");
    }
    if digest.decode::<&OctetStringRef>()?.as_bytes() != program {
        return Err(SignatureError::OtherProgram);
    }
    Ok(content.value)
}

/// The certificates that a signature carries, each usable (`SEC-34`, `SEC-35`).
fn carried(certificates: &Element<'_>) -> Result<Vec<Certificate>, SignatureError> {
    certificates.tag.assert_eq(context(0))?;
    let elements = certificates.elements()?;
    if elements.len() > MAX_CERTIFICATES {
        return form("it carries more than 10 certificates");
    }
    let mut found: Vec<Certificate> = Vec::new();
    for element in elements {
        let certificate = Certificate::parse(element.raw)?;
        certificate
            .check()
            .and_then(|()| certificate.check_signed())
            .map_err(|source| SignatureError::Certificate { certificate: certificate.fingerprint(), source })?;
        if found.iter().any(|other| other.der == certificate.der) {
            return form("it carries a certificate twice");
        }
        found.push(certificate);
    }
    Ok(found)
}

/// `SEC-32`, `SEC-33`: the signer's place among the certificates.
fn verify_signer(signer: &Element<'_>, content: &[u8], certificates: &[Certificate]) -> Result<usize, SignatureError> {
    signer.tag.assert_eq(Tag::Sequence)?;
    let fields = signer.elements()?;
    let ([version, name, digest, attributes, algorithm, signature], unsigned) = match fields[..] {
        [a, b, c, d, e, f] => ([a, b, c, d, e, f], None),
        [a, b, c, d, e, f, unsigned] => ([a, b, c, d, e, f], Some(unsigned)),
        _ => return form("its signer's record has not the fields that it should have"),
    };
    if version.decode::<u8>()? != 1 || unsigned.is_some_and(|field| field.tag != context(1)) {
        return form("its signer's record is not of version 1");
    }
    if !digest.is_algorithm(&[SHA256]) || !algorithm.is_algorithm(&[RSA, RSA_WITH_SHA256]) {
        return form("it is not RSA (PKCS#1 v1.5) with SHA-256");
    }
    check_attributes(&attributes, content)?;

    let mut named = Vec::new();
    for (number, certificate) in certificates.iter().enumerate() {
        if certificate.is_named_by(&name)? {
            named.push(number);
        }
    }
    let [signer] = named[..] else { return form("it does not carry exactly one certificate of its signer") };
    // In the record the attributes have a number in place of the tag that they are signed with.
    let signed = AnyRef::new(Tag::Set, attributes.value)?.to_der()?;
    if !certificates[signer].verifies(&signed, signature.decode::<&OctetStringRef>()?.as_bytes()) {
        return Err(SignatureError::Wrong);
    }
    Ok(signer)
}

fn check_attributes(attributes: &Element<'_>, content: &[u8]) -> Result<(), SignatureError> {
    attributes.tag.assert_eq(context(0))?;
    let mut found = Vec::new();
    for attribute in attributes.elements()? {
        let [kind, values] = attribute.parts(Tag::Sequence)?;
        let kind: ObjectIdentifier = kind.decode()?;
        if found.contains(&kind) {
            return form("a signed attribute stands twice in it");
        }
        found.push(kind);
        let right = match kind {
            CONTENT_TYPE => {
                let [value] = values.parts(Tag::Set)?;
                value.decode::<ObjectIdentifier>()? == SPC_INDIRECT_DATA
            }
            MESSAGE_DIGEST => {
                let [value] = values.parts(Tag::Set)?;
                value.decode::<&OctetStringRef>()?.as_bytes() == &Sha256::digest(content)[..]
            }
            _ => true,
        };
        if !right {
            return form("its signed attributes are not those of its content");
        }
    }
    if found.contains(&CONTENT_TYPE) && found.contains(&MESSAGE_DIGEST) {
        Ok(())
    } else {
        form("its signed attributes do not name content type and digest")
    }
}
