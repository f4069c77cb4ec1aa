//! DER taken apart into its elements, each with its own bytes: digests and signatures are over bytes, not over what they mean.

use der::asn1::{AnyRef, ObjectIdentifier};
use der::{Decode, Reader, SliceReader, Tag, TagNumber};
use x509_cert::spki::AlgorithmIdentifierRef;

pub(crate) const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
pub(crate) const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
pub(crate) const RSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");

/// One element.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Element<'a> {
    pub tag: Tag,
    /// All of its bytes.
    pub raw: &'a [u8],
    /// Those behind tag and length.
    pub value: &'a [u8],
}

impl<'a> Element<'a> {
    /// Takes the first element off `bytes`; the rest is the second.
    pub(crate) fn first(bytes: &'a [u8]) -> der::Result<(Self, &'a [u8])> {
        let mut reader = SliceReader::new(bytes)?;
        let raw = reader.tlv_bytes()?;
        let any = AnyRef::from_der(raw)?;
        Ok((Self { tag: der::Tagged::tag(&any), raw, value: any.value() }, &bytes[raw.len()..]))
    }

    /// The one element that `bytes` are.
    pub(crate) fn only(bytes: &'a [u8]) -> der::Result<Self> {
        match Self::first(bytes)? {
            (element, []) => Ok(element),
            _ => Err(Tag::Sequence.length_error().into()),
        }
    }

    /// The elements in this one.
    pub(crate) fn elements(&self) -> der::Result<Vec<Element<'a>>> {
        let mut found = Vec::new();
        let mut rest = self.value;
        while !rest.is_empty() {
            let (element, behind) = Self::first(rest)?;
            found.push(element);
            rest = behind;
        }
        Ok(found)
    }

    /// The elements in this one, if it has this tag and so many.
    pub(crate) fn parts<const N: usize>(&self, tag: Tag) -> der::Result<[Element<'a>; N]> {
        self.tag.assert_eq(tag)?;
        self.elements()?.try_into().map_err(|_| tag.length_error().into())
    }

    /// What it means.
    pub(crate) fn decode<T: Decode<'a, Error = der::Error>>(&self) -> der::Result<T> {
        T::from_der(self.raw)
    }

    /// Is it one of these algorithms, without parameters (or with NULL, which says the same)?
    pub(crate) fn is_algorithm(&self, known: &[ObjectIdentifier]) -> bool {
        self.decode().is_ok_and(|algorithm: AlgorithmIdentifierRef<'_>| {
            known.contains(&algorithm.oid) && algorithm.parameters.is_none_or(AnyRef::is_null)
        })
    }
}

/// The tag of a constructed element that its place in a structure gives a number.
pub(crate) const fn context(number: u32) -> Tag {
    Tag::ContextSpecific { constructed: true, number: TagNumber(number) }
}
