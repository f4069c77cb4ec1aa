//! Signatures that no signing tool makes: each is right but for one thing, and is signed with the right key.

use secure_boot::{Refused, SignatureError};
use sha2::{Digest, Sha256};

use crate::keys::{Key, alone, raw_signature, stranger};
use crate::program::{SECURITY, put32, small};
use crate::{digest, judge, stores};

const SET: u8 = 0x31;
const SEQUENCE: u8 = 0x30;
const OID: u8 = 6;
const OCTETS: u8 = 4;
const INTEGER: u8 = 2;
const CONTEXT_0: u8 = 0xa0;
const CONTEXT_1: u8 = 0xa1;

const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2];
const CONTENT_TYPE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 3];
const MESSAGE_DIGEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 4];
const SIGNING_TIME: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 5];
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
const PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10];
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
const SHA384: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2];
const INDIRECT_DATA: &[u8] = &[0x2b, 6, 1, 4, 1, 0x82, 0x37, 2, 1, 4];
const IMAGE_DATA: &[u8] = &[0x2b, 6, 1, 4, 1, 0x82, 0x37, 2, 1, 15];

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let value = parts.concat();
    let len = value.len();
    let mut bytes = vec![tag];
    match len {
        0..=0x7f => bytes.push(len as u8),
        0x80..=0xff => bytes.extend([0x81, len as u8]),
        _ => bytes.extend([0x82, (len >> 8) as u8, len as u8]),
    }
    bytes.extend(value);
    bytes
}

fn algorithm(oid: &[u8]) -> Vec<u8> {
    tlv(SEQUENCE, &[&tlv(OID, &[oid]), &[5, 0]])
}

fn attribute(kind: &[u8], value: &[u8]) -> Vec<u8> {
    tlv(SEQUENCE, &[&tlv(OID, &[kind]), &tlv(SET, &[value])])
}

/// The parts of a signature, each to be changed before it is put together.
struct Forge {
    version: u8,
    digests: Vec<Vec<u8>>,
    content_type: &'static [u8],
    data_type: &'static [u8],
    content_algorithm: &'static [u8],
    program: [u8; 32],
    certificates: Vec<Vec<u8>>,
    revocations: Vec<u8>,
    /// None: no signed attributes, the signature is over the content.
    attributes: Option<Vec<Vec<u8>>>,
    signer_version: u8,
    /// Issuer and serial number.
    signer: Vec<u8>,
    signer_digest: &'static [u8],
    signer_algorithm: &'static [u8],
    unsigned: Vec<u8>,
    signers: usize,
    behind: Vec<u8>,
}

impl Forge {
    fn new(program: [u8; 32], by: &Key) -> Self {
        let forge = Self {
            version: 1,
            digests: vec![algorithm(SHA256)],
            content_type: INDIRECT_DATA,
            data_type: IMAGE_DATA,
            content_algorithm: SHA256,
            program,
            certificates: vec![by.der.clone()],
            revocations: Vec::new(),
            attributes: None,
            signer_version: 1,
            signer: issuer_and_serial(&by.der),
            signer_digest: SHA256,
            signer_algorithm: RSA,
            unsigned: Vec::new(),
            signers: 1,
            behind: Vec::new(),
        };
        let digest = Sha256::digest(forge.content());
        let attributes = vec![
            attribute(CONTENT_TYPE, &tlv(OID, &[INDIRECT_DATA])),
            attribute(MESSAGE_DIGEST, &tlv(OCTETS, &[&digest])),
        ];
        Self { attributes: Some(attributes), ..forge }
    }

    fn content(&self) -> Vec<u8> {
        let data = tlv(SEQUENCE, &[&tlv(OID, &[self.data_type]), &tlv(SEQUENCE, &[&[3, 1, 0]])]);
        [data, tlv(SEQUENCE, &[&algorithm(self.content_algorithm), &tlv(OCTETS, &[&self.program])])].concat()
    }

    fn make(&self, by: &Key) -> Vec<u8> {
        let content = self.content();
        let (attributes, signed) = match &self.attributes {
            Some(attributes) => (tlv(CONTEXT_0, &[&attributes.concat()]), tlv(SET, &[&attributes.concat()])),
            None => (Vec::new(), content.clone()),
        };
        let signer = tlv(
            SEQUENCE,
            &[
                &[INTEGER, 1, self.signer_version],
                &self.signer,
                &algorithm(self.signer_digest),
                &attributes,
                &algorithm(self.signer_algorithm),
                &tlv(OCTETS, &[&raw_signature(by, &signed)]),
                &self.unsigned,
            ],
        );
        let content = tlv(CONTEXT_0, &[&tlv(SEQUENCE, &[&content])]);
        let data = tlv(
            SEQUENCE,
            &[
                &[INTEGER, 1, self.version],
                &tlv(SET, &[&self.digests.concat()]),
                &tlv(SEQUENCE, &[&tlv(OID, &[self.content_type]), &content]),
                &tlv(CONTEXT_0, &[&self.certificates.concat()]),
                &self.revocations,
                &tlv(SET, &[&signer.repeat(self.signers)]),
            ],
        );
        let mut whole = tlv(SEQUENCE, &[&tlv(OID, &[SIGNED_DATA]), &tlv(CONTEXT_0, &[&data])]);
        whole.extend(&self.behind);
        whole
    }
}

fn issuer_and_serial(certificate: &[u8]) -> Vec<u8> {
    // Behind the heads of certificate and signed part, and the version, which has five bytes.
    let serial = &certificate[13..][..2 + usize::from(certificate[14])];
    let algorithm = &certificate[13 + serial.len()..];
    let issuer = &algorithm[2 + usize::from(algorithm[1])..];
    tlv(SEQUENCE, &[&issuer[..2 + usize::from(issuer[1])], serial])
}

fn attach(program: &[u8], signature: &[u8]) -> Vec<u8> {
    let mut bytes = program.to_vec();
    let start = bytes.len();
    bytes.extend_from_slice(&(8 + signature.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&[0, 2, 2, 0]);
    bytes.extend_from_slice(signature);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    put32(&mut bytes, SECURITY, start as u32);
    let len = (bytes.len() - start) as u32;
    put32(&mut bytes, SECURITY + 4, len);
    bytes
}

/// The verdict on a program whose signature was changed so before it was signed.
fn forged(change: impl FnOnce(&mut Forge)) -> Result<(), SignatureError> {
    let program = small();
    let mut forge = Forge::new(digest(&program), alone());
    change(&mut forge);
    match judge(&attach(&program, &forge.make(alone())), &stores(&[alone()], &[])) {
        Ok(_) => Ok(()),
        Err(Refused::Signature(error)) => Err(error),
        Err(other) => panic!("{other}"),
    }
}

fn attributes(forge: &mut Forge) -> &mut Vec<Vec<u8>> {
    forge.attributes.as_mut().unwrap()
}

#[test]
fn sec30_the_unchanged_one_is_accepted_and_so_is_what_nobody_signs() {
    forged(|_| {}).expect("as sbsign makes it");
    forged(|f| f.unsigned = tlv(CONTEXT_1, &[&attribute(SIGNING_TIME, &[5, 0])])).expect("a time stamp");
    forged(|f| attributes(f).push(attribute(SIGNING_TIME, &[5, 0]))).expect("one more signed attribute");
    forged(|f| f.behind = vec![0; 7]).expect("seven zeros");
}

#[test]
fn sec30_forms_that_some_firmware_does_not_take() {
    type Change = fn(&mut Forge);
    let changes: [(&str, Change); 9] = [
        ("version 3", |f| f.version = 3),
        ("no digest algorithm", |f| f.digests.clear()),
        ("two digest algorithms", |f| f.digests.push(algorithm(SHA384))),
        ("SHA-256 in second place", |f| f.digests.insert(0, algorithm(SHA384))),
        ("SHA-384", |f| f.digests = vec![algorithm(SHA384)]),
        ("revocations", |f| f.revocations = tlv(CONTEXT_1, &[])),
        ("eight zeros behind it", |f| f.behind = vec![0; 8]),
        ("bytes behind it", |f| f.behind = vec![1]),
        ("a length in three bytes", |f| f.unsigned = tlv(CONTEXT_1, &[&tlv(OCTETS, &[&[0; 60_000]])])),
    ];
    for (what, change) in &changes[..8] {
        assert!(forged(change).is_err(), "{what}");
    }
    forged(changes[8].1).expect("the longest that two bytes tell");
}

#[test]
fn sec31_the_content_is_the_digest_of_this_program() {
    assert_eq!(forged(|f| f.program[0] ^= 1), Err(SignatureError::OtherProgram));
    forged(|f| f.content_type = SIGNED_DATA).expect_err("other content");
    forged(|f| f.data_type = INDIRECT_DATA).expect_err("no PE image");
    forged(|f| f.content_algorithm = SHA384).expect_err("another digest");
}

#[test]
fn sec32_one_signer_who_is_carried_once() {
    let form = |result| assert!(matches!(result, Err(SignatureError::Form(_))), "{result:?}");
    form(forged(|f| f.signers = 2));
    form(forged(|f| f.certificates.clear()));
    form(forged(|f| f.certificates.push(alone().der.clone())));
    form(forged(|f| f.signer = issuer_and_serial(&stranger().der)));
    form(forged(|f| f.signer_version = 3));
    form(forged(|f| f.certificates = (0..11).map(|_| alone().der.clone()).collect()));
    assert_eq!(forged(|f| f.signers = 0).map_err(|_| ()), Err(()));
    assert_eq!(
        forged(|f| {
            f.certificates.push(stranger().der.clone());
            f.signer = issuer_and_serial(&stranger().der);
        }),
        Err(SignatureError::Wrong),
        "named is another than who signed"
    );
}

#[test]
fn sec33_signed_attributes_are_there_and_right_and_once() {
    let form = |result| assert!(matches!(result, Err(SignatureError::Form(_))), "{result:?}");
    form(forged(|f| f.attributes = None));
    form(forged(|f| drop(attributes(f).remove(0))));
    form(forged(|f| drop(attributes(f).remove(1))));
    form(forged(|f| attributes(f)[0] = attribute(CONTENT_TYPE, &tlv(OID, &[SIGNED_DATA]))));
    form(forged(|f| attributes(f)[1] = attribute(MESSAGE_DIGEST, &tlv(OCTETS, &[&[0; 32]]))));
    form(forged(|f| {
        let again = attributes(f)[1].clone();
        attributes(f).push(again);
    }));
    // Two values in one attribute: which of them counts?
    forged(|f| {
        let digest = tlv(OCTETS, &[&Sha256::digest(f.content())]);
        attributes(f)[1] = attribute(MESSAGE_DIGEST, &digest.repeat(2));
    })
    .expect_err("two digests");
}

#[test]
fn sec34_other_algorithms_are_refused_whatever_the_key_says() {
    let form = |result| assert!(matches!(result, Err(SignatureError::Form(_))), "{result:?}");
    form(forged(|f| f.signer_algorithm = PSS));
    form(forged(|f| f.signer_algorithm = SHA256));
    form(forged(|f| f.signer_digest = SHA384));
}
