//! `SEC-40` to `SEC-46`, and the keys of `SEC-34`.

use secure_boot::{Accepted, Refused, SignatureError, Store, Stores, notes};
use sha2::{Digest, Sha256, Sha384, Sha512};

use crate::keys::{self, CA, Key, LEAF, RSA, Request, alone, chain, make, sbverify, sign, stranger};
use crate::program::{self, list, small};
use crate::{digest, judge, stores};

fn by(key: &Key) -> Accepted {
    Accepted::Certificate(secure_boot::Fingerprint(Sha256::digest(&key.der).into()))
}

fn images(digests: &[[u8; 32]]) -> Store {
    Store::parse(&list(program::SHA256, &digests.iter().map(|d| d.to_vec()).collect::<Vec<_>>())).unwrap()
}

#[test]
fn sec45_a_leaf_an_intermediate_or_a_root_in_db_is_enough() {
    let [root, middle, leaf] = chain();
    let signed = sign(&small(), leaf, &[middle, root]);
    for anchor in chain() {
        assert_eq!(judge(&signed, &stores(&[anchor], &[])).unwrap(), by(anchor));
    }
    assert_eq!(judge(&signed, &stores(&[stranger(), root], &[])).unwrap(), by(root));
    let bare = sign(&small(), leaf, &[]);
    assert_eq!(judge(&bare, &stores(&[middle], &[])).unwrap(), by(middle));
    let error = judge(&bare, &stores(&[root], &[])).expect_err("nothing leads from the leaf to the root");
    assert!(matches!(error, Refused::Untrusted(_)), "{error}");
    assert!(error.to_string().contains(&format!("{:X}", Sha256::digest(&leaf.der)[0])), "{error}");
}

#[test]
fn sec23_the_digest_is_the_one_that_sbsign_signs_whatever_the_length() {
    for extra in [0, 1, 7, 8, 4096] {
        let mut bytes = small();
        bytes.extend(std::iter::repeat_n(0x55, extra));
        let signed = sign(&bytes, alone(), &[]);
        assert!(sbverify(&signed, alone()), "{extra}");
        if extra % 8 == 0 {
            assert_eq!(digest(&signed), digest(&bytes), "nothing of the signature is hashed");
        }
        assert_eq!(judge(&signed, &stores(&[alone()], &[])).unwrap(), by(alone()), "{extra} bytes behind the sections");
        assert!(!sbverify(&signed, stranger()));
        assert!(matches!(judge(&signed, &stores(&[stranger()], &[])), Err(Refused::Untrusted(_))));
    }
}

#[test]
fn sec34_keys_of_2048_to_4096_bits_and_nothing_but_rsa() {
    for (algorithm, accepted) in [
        (&["rsa:3072"][..], true),
        (&["rsa:4096"], true),
        (&["rsa:1024"], false),
        (&["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], false),
        (&["rsa:2048", "-pkeyopt", "rsa_keygen_pubexp:3"], false),
    ] {
        let key = make(&Request { name: "key", algorithm, issuer: None, extensions: LEAF, digest: "sha256" });
        let verdict = judge(&sign(&small(), &key, &[]), &stores(&[&key], &[]));
        match verdict {
            Ok(_) => assert!(accepted, "{algorithm:?}"),
            Err(error) => {
                assert!(!accepted, "{algorithm:?}: {error}");
                assert!(matches!(error, Refused::Signature(SignatureError::Certificate { .. })), "{error}");
            }
        }
    }
    let sha384 = make(&Request { name: "key", algorithm: RSA, issuer: None, extensions: LEAF, digest: "sha384" });
    judge(&sign(&small(), &sha384, &[]), &stores(&[&sha384], &[])).expect_err("a certificate signed with SHA-384");
}

#[test]
fn sec41_unsigned_is_accepted_by_its_digest_alone() {
    let bytes = small();
    assert!(matches!(judge(&bytes, &stores(&[alone()], &[])), Err(Refused::Unsigned)));
    let db = images(&[[1; 32], digest(&bytes)]);
    assert_eq!(judge(&bytes, &Stores { db: db.clone(), dbx: Store::default() }).unwrap(), Accepted::Digest);
    let dbx = images(&[digest(&bytes)]);
    assert!(matches!(judge(&bytes, &Stores { db: db.clone(), dbx }), Err(Refused::ProgramRevoked)));
    let dbx = Store::parse(&list(program::SHA384, &[vec![0; 48]])).unwrap();
    assert!(matches!(judge(&bytes, &Stores { db, dbx }), Err(Refused::DigestNotCompared)));
}

#[test]
fn sec46_a_digest_in_db_accepts_what_a_stranger_signed_but_no_bad_signature() {
    let signed = sign(&small(), stranger(), &[]);
    let db = images(&[digest(&signed)]);
    assert_eq!(judge(&signed, &Stores { db: db.clone(), dbx: Store::default() }).unwrap(), Accepted::Digest);
    let mut wrong = signed;
    let last = wrong.iter().rposition(|byte| *byte != 0).unwrap();
    wrong[last] ^= 1;
    let verdict = judge(&wrong, &Stores { db, dbx: Store::default() });
    assert!(matches!(verdict, Err(Refused::Signature(SignatureError::Wrong))), "{verdict:?}");
}

#[test]
fn sec40_a_digest_in_dbx_wins_over_a_signature() {
    let signed = sign(&small(), alone(), &[]);
    let dbx = images(&[digest(&signed)]);
    assert!(matches!(judge(&signed, &Stores { dbx, ..stores(&[alone()], &[]) }), Err(Refused::ProgramRevoked)));
}

#[test]
fn sec43_a_certificate_in_dbx_wins_wherever_it_stands_in_the_chain() {
    let [root, middle, leaf] = chain();
    let signed = sign(&small(), leaf, &[middle]);
    for anchor in chain() {
        for revoked in chain() {
            let verdict = judge(&signed, &stores(&[anchor], &[revoked]));
            assert!(matches!(verdict, Err(Refused::CertificateRevoked(_))), "{verdict:?}");
        }
        judge(&signed, &stores(&[anchor], &[stranger()])).expect("another's");
    }
    // The leaf of another is revoked, not the CA of both.
    let sister = keys::issued("sister", Some(middle), LEAF);
    judge(&signed, &stores(&[root], &[&sister])).expect("a sister's");
}

#[test]
fn sec47_what_every_firmware_refuses_is_certain_and_what_some_may_is_a_doubt() {
    let [root, middle, leaf] = chain();
    let certain = |program: &[u8], lists: &Stores| judge(program, lists).unwrap_err().is_certain(lists);
    let signed = sign(&small(), leaf, &[middle]);
    assert!(certain(&small(), &stores(&[root], &[])), "nobody signed it");
    assert!(certain(&signed, &stores(&[root], &[leaf])), "its signer is revoked");
    assert!(
        !certain(&signed, &stores(&[root], &[&keys::renamed("akin", root)])),
        "something akin to its CA is revoked"
    );
    assert!(!certain(&signed, &stores(&[stranger()], &[])), "nobody vouches for it, as far as is known here");
}

#[test]
fn sec43_a_digest_of_a_certificate_in_dbx_wins() {
    let [root, middle, leaf] = chain();
    let signed = sign(&small(), leaf, &[middle]);
    for revoked in chain() {
        let tbs = keys::tbs(&revoked.der);
        for (kind, mut digest) in [
            (program::X509_SHA256, Sha256::digest(tbs).to_vec()),
            (program::X509_SHA384, Sha384::digest(tbs).to_vec()),
            (program::X509_SHA512, Sha512::digest(tbs).to_vec()),
        ] {
            digest.extend([0; 16]);
            let refuse = Store::parse(&list(kind, &[digest.clone()])).unwrap();
            let verdict = judge(&signed, &Stores { dbx: refuse, ..stores(&[root], &[]) });
            assert!(matches!(verdict, Err(Refused::CertificateRevoked(_))), "{verdict:?}");
            digest[0] ^= 1;
            let other = Store::parse(&list(kind, &[digest])).unwrap();
            judge(&signed, &Stores { dbx: other, ..stores(&[root], &[]) }).expect("another's");
        }
    }
}

#[test]
fn sec43_a_revoked_key_is_revoked_in_every_certificate_and_a_damaged_one_by_its_names() {
    let [root, middle, leaf] = chain();
    let signed = sign(&small(), leaf, &[middle]);
    let mut damaged = root.clone();
    damaged.der[4] = 0x31;
    let lists = stores(&[root], &[&damaged]);
    assert!(matches!(judge(&signed, &lists), Err(Refused::CertificateRevoked(_))));
    assert_eq!(notes(&lists).len(), 1, "{:?}", notes(&lists));
    let mut padded = root.clone();
    padded.der.extend([0; 9]);
    assert!(matches!(judge(&signed, &stores(&[root], &[&padded])), Err(Refused::CertificateRevoked(_))));
    judge(&signed, &stores(&[&padded], &[])).expect_err("in db it is none");
    // Another certificate for the CA's key, under another name.
    let renamed = keys::renamed("renamed", root);
    assert!(matches!(judge(&signed, &stores(&[middle], &[&renamed])), Err(Refused::CertificateRevoked(_))));
    // A namesake of the CA whose key nobody here can try.
    let curve = &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    let namesake = make(&Request { name: "root", algorithm: curve, issuer: None, extensions: CA, digest: "sha256" });
    assert!(matches!(judge(&signed, &stores(&[middle], &[&namesake])), Err(Refused::CertificateRevoked(_))));
}

#[test]
fn sec12_what_is_unknown_in_dbx_is_told_and_in_db_accepts_nothing() {
    let signed = sign(&small(), alone(), &[]);
    let unknown = Store::parse(&list(uuid::uuid!("3c5766e8-269c-4e34-aa14-ed776e85b3b6"), &[vec![0; 256]])).unwrap();
    let lists = Stores { dbx: unknown.clone(), ..stores(&[alone()], &[]) };
    judge(&signed, &lists).expect("edk2 passes over it");
    assert!(notes(&lists)[0].contains("3c5766e8"), "{:?}", notes(&lists));
    judge(&signed, &Stores { db: unknown, dbx: Store::default() }).expect_err("nothing in db");
}

#[test]
fn sec35_who_is_no_ca_issues_nothing() {
    let [root, ..] = chain();
    for (what, extensions) in [
        ("no CA", LEAF),
        ("no extensions", &[][..]),
        ("may not sign certificates", &["basicConstraints=critical,CA:TRUE", "keyUsage=critical,digitalSignature"]),
        ("wants a name", &["basicConstraints=critical,CA:TRUE", "nameConstraints=permitted;DNS:example.org"]),
        ("wants what is unknown", &["basicConstraints=critical,CA:TRUE", "1.2.3.4=critical,ASN1:NULL"]),
    ] {
        let issuer = keys::issued("issuer", Some(root), extensions);
        let leaf = keys::issued("leaf", Some(&issuer), LEAF);
        let signed = sign(&small(), &leaf, &[&issuer]);
        judge(&signed, &stores(&[root], &[])).expect_err(what);
        judge(&sign(&small(), &leaf, &[]), &stores(&[&issuer], &[])).expect_err(what);
    }
}

#[test]
fn sec35_a_signer_may_name_its_issuer_in_full() {
    let [root, middle, _] = chain();
    for identifier in ["authorityKeyIdentifier=keyid:always,issuer:always", "authorityKeyIdentifier=none"] {
        let leaf = keys::issued("leaf", Some(middle), &[LEAF, &[identifier]].concat());
        judge(&sign(&small(), &leaf, &[middle]), &stores(&[root], &[])).expect(identifier);
    }
    let damaged = keys::issued("leaf", Some(middle), &["keyUsage=DER:0400"]);
    judge(&sign(&small(), &damaged, &[middle]), &stores(&[root], &[])).expect_err("a key usage that is none");
}

#[test]
fn sec35_a_path_is_no_longer_than_its_ca_allows() {
    let short = keys::issued("short", None, &["basicConstraints=critical,CA:TRUE,pathlen:0"]);
    let middle = keys::issued("middle", Some(&short), CA);
    let below_middle = keys::issued("leaf", Some(&middle), LEAF);
    judge(&sign(&small(), &below_middle, &[&middle]), &stores(&[&short], &[])).expect_err("one between");
    let below = keys::issued("leaf", Some(&short), LEAF);
    judge(&sign(&small(), &below, &[]), &stores(&[&short], &[])).expect("none between");
}

#[test]
fn sec45_an_issuer_of_the_same_name_and_another_key_issued_nothing() {
    let [root, middle, leaf] = chain();
    let namesake = keys::issued("middle", None, CA);
    judge(&sign(&small(), leaf, &[]), &stores(&[&namesake], &[])).expect_err("the name alone");
    // A key identifier tells them apart.
    judge(&sign(&small(), leaf, &[middle, &namesake]), &stores(&[root], &[])).expect("the right one is carried, too");
    let anonymous = keys::issued("leaf", Some(middle), &["authorityKeyIdentifier=none"]);
    judge(&sign(&small(), &anonymous, &[middle]), &stores(&[root], &[])).expect("one that could be the issuer");
    judge(&sign(&small(), &anonymous, &[middle, &namesake]), &stores(&[root], &[])).expect_err("two that could be");
}
