//! X.509 certificates, as far as a firmware looks at them (`SEC-34`, `SEC-35`).

use std::fmt;

use der::asn1::{ObjectIdentifier, UintRef};
use der::{Decode, Tag};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use sha2::{Digest, Sha256};
use x509_cert::certificate::Version;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};
use x509_cert::name::Name;

use crate::asn1::{Element, RSA, RSA_WITH_SHA256, context};

const SUBJECT_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.14");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const NAME_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.30");
const AUTHORITY_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");
const EXT_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
const PROXY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.1.14");
/// A certificate may insist on these being understood.
const UNDERSTOOD: [ObjectIdentifier; 3] = [KEY_USAGE, BASIC_CONSTRAINTS, EXT_KEY_USAGE];
/// These narrow down what a certificate is good for in ways that are not looked at here.
const NOT_LOOKED_AT: [ObjectIdentifier; 2] = [NAME_CONSTRAINTS, PROXY];

/// What a modulus may have, in bits.
const MODULUS: std::ops::RangeInclusive<usize> = 2048..=4096;
/// What it may have for the signature to be tried at all.
const MODULUS_TRIED: std::ops::RangeInclusive<usize> = 2048..=8192;
const EXPONENT: [u8; 3] = [1, 0, 1];

/// SHA-256 of a certificate, as `openssl x509 -fingerprint -sha256` tells it but for the colons.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a certificate cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(&'static str);

/// A certificate that was parsed, and no more.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    pub der: Vec<u8>,
    /// What its issuer signed.
    pub tbs: Vec<u8>,
    parsed: x509_cert::Certificate,
    issuer: Vec<u8>,
    public_key: Vec<u8>,
}

impl Certificate {
    pub(crate) fn parse(bytes: &[u8]) -> der::Result<Self> {
        let whole = Element::only(bytes)?;
        let [tbs, _, _] = whole.parts(Tag::Sequence)?;
        let parsed: x509_cert::Certificate = whole.decode()?;
        let fields = tbs.elements()?;
        // A version stands in front only where it is not the first one.
        let skip = usize::from(fields.first().is_some_and(|field| field.tag == context(0)));
        let field = |number: usize| fields.get(number + skip).ok_or(Tag::Sequence.length_error());
        Ok(Self {
            der: bytes.to_vec(),
            tbs: tbs.raw.to_vec(),
            issuer: field(2)?.raw.to_vec(),
            public_key: field(5)?.raw.to_vec(),
            parsed,
        })
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint(Sha256::digest(&self.der).into())
    }

    /// Its issuer's name, in DER.
    pub(crate) fn issuer_name(&self) -> &[u8] {
        &self.issuer
    }

    /// Its SubjectPublicKeyInfo, in DER.
    pub(crate) fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// Is this the certificate that this IssuerAndSerialNumber names?
    pub(crate) fn is_named_by(&self, name: &Element<'_>) -> der::Result<bool> {
        let [issuer, serial] = name.parts(Tag::Sequence)?;
        Ok(issuer.raw == self.issuer && serial.decode::<UintRef<'_>>()?.as_bytes() == self.serial())
    }

    /// Its number, without zeros in front.
    fn serial(&self) -> &[u8] {
        let bytes = self.parsed.tbs_certificate().serial_number().as_bytes();
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        &bytes[zeros.min(bytes.len().saturating_sub(1))..]
    }

    pub(crate) fn is_self_issued(&self) -> bool {
        self.parsed.tbs_certificate().issuer() == self.parsed.tbs_certificate().subject()
    }

    /// Has it a key that signs what is accepted (`SEC-34`), and does it want nothing that is not looked at (`SEC-35`)?
    pub(crate) fn check(&self) -> Result<(), Unusable> {
        let tbs = self.parsed.tbs_certificate();
        let (modulus, exponent) = self.rsa().ok_or(Unusable("its key is not RSA"))?;
        if !MODULUS.contains(&modulus) || exponent != EXPONENT {
            return Err(Unusable("its key is not RSA of 2048 to 4096 bits with the exponent 65537"));
        }
        let extensions = tbs.extensions().map_or(&[][..], |extensions| extensions);
        for (number, extension) in extensions.iter().enumerate() {
            if extensions[..number].iter().any(|other| other.extn_id == extension.extn_id) {
                return Err(Unusable("an extension stands twice in it"));
            }
            if NOT_LOOKED_AT.contains(&extension.extn_id)
                || (extension.critical && !UNDERSTOOD.contains(&extension.extn_id))
            {
                return Err(Unusable("it has a critical extension or a constraint that is not known here"));
            }
        }
        // OpenSSL uses no certificate in which one of these is damaged, be it the signer's.
        let damaged = Unusable("one of its extensions is damaged");
        let constraints = tbs.get_extension::<BasicConstraints>().map_err(|_| damaged)?;
        if constraints.is_some_and(|(_, constraints)| !constraints.ca && constraints.path_len_constraint.is_some()) {
            return Err(damaged);
        }
        tbs.get_extension::<KeyUsage>().map_err(|_| damaged)?;
        let identifiers = [SUBJECT_KEY_ID, AUTHORITY_KEY_ID].into_iter().filter_map(|id| self.extension(id));
        identifiers.map(Element::only).collect::<der::Result<Vec<_>>>().map_err(|_| damaged)?;
        Ok(())
    }

    /// Is its own signature one that can be verified (`SEC-34`)?
    pub(crate) fn check_signed(&self) -> Result<(), Unusable> {
        let algorithm = self.parsed.signature_algorithm();
        let plain = algorithm.oid == RSA_WITH_SHA256 && algorithm.parameters.as_ref().is_none_or(|p| p.is_null());
        if !plain || algorithm != self.parsed.tbs_certificate().signature() {
            return Err(Unusable("it is not signed with RSA and SHA-256"));
        }
        Ok(())
    }

    /// Would edk2 take `other` for issued by this one, before it looks at any signature?
    pub(crate) fn names_as_issued(&self, other: &Self) -> bool {
        let subject = self.parsed.tbs_certificate().subject();
        subject == other.parsed.tbs_certificate().issuer() && self.is_named_authority_of(other).unwrap_or(false)
    }

    /// Has this one issued `other`, with `between` certificates between it and the signer (`SEC-35`)?
    pub(crate) fn issued(&self, other: &Self, between: usize) -> bool {
        self.names_as_issued(other) && self.is_authority(between).unwrap_or(false) && self.signed(other)
    }

    /// Does this one's key verify `other`'s signature?
    pub(crate) fn signed(&self, other: &Self) -> bool {
        other.check_signed().is_ok()
            && other.parsed.signature().as_bytes().is_some_and(|signature| self.verifies(&other.tbs, signature))
    }

    /// Does this one's key verify this signature, RSA with PKCS#1 v1.5 and SHA-256?
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.key().is_some_and(|key| {
            UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key).verify(message, signature).is_ok()
        })
    }

    /// Does it bear the name of `other`'s issuer, and a key that cannot be tried?
    pub(crate) fn may_have_issued(&self, other: &Self) -> bool {
        let same = self.parsed.tbs_certificate().subject() == other.parsed.tbs_certificate().issuer();
        let tried = |(modulus, exponent): (usize, &[u8])| MODULUS_TRIED.contains(&modulus) && exponent.len() <= 4;
        same && !self.rsa().is_some_and(tried)
    }

    /// A CA whose path is long enough. None: an extension is damaged.
    fn is_authority(&self, between: usize) -> Option<bool> {
        let tbs = self.parsed.tbs_certificate();
        let Some((_, constraints)) = tbs.get_extension::<BasicConstraints>().ok()? else { return Some(false) };
        let may_sign = tbs.get_extension::<KeyUsage>().ok()?.is_none_or(|(_, usage)| usage.key_cert_sign());
        let long_enough = constraints.path_len_constraint.is_none_or(|most| between <= usize::from(most));
        Some(tbs.version() == Version::V3 && constraints.ca && may_sign && long_enough)
    }

    /// Does `other`'s authority key identifier, if any, name this certificate?
    fn is_named_authority_of(&self, other: &Self) -> der::Result<bool> {
        let Some(identifier) = other.extension(AUTHORITY_KEY_ID) else { return Ok(true) };
        let identifier = Element::only(identifier)?;
        identifier.tag.assert_eq(Tag::Sequence)?;
        for field in identifier.elements()? {
            let same = match field.tag.number().value() {
                0 => self.has_key_id(field.value)?,
                1 => self.has_issuer(&field)?,
                _ => field.value.iter().skip_while(|byte| **byte == 0).eq(self.serial()),
            };
            if !same {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A certificate without an identifier may have any.
    fn has_key_id(&self, id: &[u8]) -> der::Result<bool> {
        let Some(own) = self.extension(SUBJECT_KEY_ID) else { return Ok(true) };
        Ok(Element::only(own)?.value == id)
    }

    /// Of the issuer's names in these GeneralNames the first that is a directory's counts.
    fn has_issuer(&self, names: &Element<'_>) -> der::Result<bool> {
        match names.elements()?.iter().find(|name| name.tag == context(4)) {
            Some(name) => Ok(Name::from_der(name.value)? == *self.parsed.tbs_certificate().issuer()),
            None => Ok(true),
        }
    }

    fn extension(&self, id: ObjectIdentifier) -> Option<&[u8]> {
        let extensions = self.parsed.tbs_certificate().extensions()?;
        extensions.iter().find(|extension| extension.extn_id == id).map(|extension| extension.extn_value.as_bytes())
    }

    /// Its RSA public key, in DER.
    fn key(&self) -> Option<&[u8]> {
        let info = self.parsed.tbs_certificate().subject_public_key_info();
        let plain = info.algorithm.oid == RSA && info.algorithm.parameters.as_ref().is_some_and(|p| p.is_null());
        plain.then(|| info.subject_public_key.as_bytes())?
    }

    /// Bits of its modulus, and its exponent.
    fn rsa(&self) -> Option<(usize, &[u8])> {
        let [modulus, exponent] = Element::only(self.key()?).ok()?.parts(Tag::Sequence).ok()?;
        let modulus = modulus.decode::<UintRef<'_>>().ok()?.as_bytes();
        let zeros = modulus.first()?.leading_zeros() as usize;
        Some((modulus.len() * 8 - zeros, exponent.decode::<UintRef<'_>>().ok()?.as_bytes()))
    }
}
