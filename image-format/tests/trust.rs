//! Signatures that do not vouch for what they stand beside: each file here is good but for that.

mod common;

use common::{Parts, Plain, Stop, key, program_like, read_all, spec, trust};
use image_format::{ImageSpec, Role, VerifyError};

fn refusal(file: &[u8]) -> Stop {
    match read_all(file, &trust(&[1], 1)) {
        Err(stop) => stop,
        Ok(_) => panic!("the file was accepted"),
    }
}

/// Signs with these records and reads under a policy of keys and threshold.
fn signed(records: &[(Role, u8, u8)], keys: &[u8], threshold: usize) -> Result<(), (Role, usize, usize, usize)> {
    let mut parts = Parts::small();
    parts.sign_as(records);
    match read_all(&parts.join(), &trust(keys, threshold)) {
        Ok(_) => Ok(()),
        Err(Stop::Verify(VerifyError::Threshold { role, valid, needed, untrusted, wrong })) => {
            assert_eq!(needed, threshold);
            Err((role, valid, untrusted, wrong))
        }
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn img_34_thresholds() {
    use Role::{Manifest as M, Transport as T};
    let both = [(M, 1, 1), (T, 1, 1)];
    assert_eq!(signed(&both, &[1], 1), Ok(()));
    assert_eq!(signed(&[(T, 1, 1), (M, 1, 1)], &[1], 1), Ok(()));
    assert_eq!(signed(&both, &[2, 1, 3], 1), Ok(()));
    // Nobody signed, somebody else signed, only one role is signed.
    assert_eq!(signed(&[], &[1], 1), Err((M, 0, 0, 0)));
    assert_eq!(signed(&both, &[2], 1), Err((M, 0, 1, 0)));
    assert_eq!(signed(&[(M, 1, 1)], &[1], 1), Err((T, 0, 0, 0)));
    assert_eq!(signed(&[(T, 1, 1)], &[1], 1), Err((M, 0, 0, 0)));
    // Two are wanted and one signed; one key signing twice is still one.
    assert_eq!(signed(&both, &[1, 2], 2), Err((M, 1, 0, 0)));
    assert_eq!(signed(&[(M, 1, 1), (M, 1, 1), (T, 1, 1), (T, 1, 1)], &[1, 2], 2), Err((M, 1, 0, 0)));
    assert_eq!(signed(&[(M, 1, 1), (M, 2, 2), (T, 1, 1), (T, 3, 3)], &[1, 2], 2), Err((T, 1, 1, 0)));
    assert_eq!(signed(&[(M, 1, 1), (M, 2, 2), (T, 1, 1), (T, 2, 2)], &[1, 2], 2), Ok(()));
    // Different keys may vouch for content and transport.
    assert_eq!(signed(&[(M, 1, 1), (T, 2, 2)], &[1, 2], 1), Ok(()));
    // A key's name over somebody else's signature; it takes nothing away from a right one.
    assert_eq!(signed(&[(M, 1, 2), (T, 1, 1)], &[1], 1), Err((M, 0, 0, 1)));
    assert_eq!(signed(&[(M, 1, 2), (M, 1, 1), (T, 1, 1)], &[1], 1), Ok(()));
    assert_eq!(signed(&[(M, 1, 1), (M, 1, 2), (T, 1, 1)], &[1], 1), Ok(()));
    // Sixteen strangers do not hide the one that counts.
    let mut crowd: Vec<(Role, u8, u8)> = (100..115).map(|n| (M, n, n)).collect();
    crowd.extend(both);
    assert_eq!(signed(&crowd, &[1], 1), Ok(()));
}

#[test]
fn img_32_a_trusted_key_with_an_unknown_algorithm_does_not_count() {
    let mut parts = Parts::small();
    parts.signatures[8 + 1] = 2;
    let stop = refusal(&parts.join());
    let expected = matches!(stop, Stop::Verify(VerifyError::Threshold { role: Role::Manifest, untrusted: 1, .. }));
    assert!(expected, "{stop:?}");
}

#[test]
fn img_30_signatures_of_one_role_put_into_the_other() {
    let mut parts = Parts::small();
    for (at, role) in [(8, 2), (8 + 128, 1)] {
        parts.signatures[at] = role;
    }
    let stop = refusal(&parts.join());
    assert!(matches!(stop, Stop::Verify(VerifyError::Threshold { valid: 0, wrong: 1, .. })), "{stop:?}");
}

/// Two images that the same key signed.
fn old_and_new() -> (Parts, Parts) {
    let other = Plain { root: program_like(5 * 4096, 77), ..Plain::small() };
    (Parts::small(), Parts::of(&other.build(&ImageSpec { epoch: 2, ..spec() }, &[key(1)])))
}

#[test]
fn signatures_of_another_image() {
    let (old, mut new) = old_and_new();
    new.signatures = old.signatures;
    assert!(matches!(refusal(&new.join()), Stop::Verify(VerifyError::Threshold { wrong: 1, .. })));
}

#[test]
fn img_40_a_manifest_spliced_onto_another_transport() {
    // Both halves carry a valid signature of the trusted key, each from its own image.
    let (old, new) = old_and_new();
    let mut spliced = new.clone();
    spliced.transport = old.transport.clone();
    spliced.table = old.table.clone();
    spliced.data = old.data.clone();
    spliced.signatures[8 + 128..8 + 256].copy_from_slice(&old.signatures[8 + 128..8 + 256]);
    let stop = refusal(&spliced.join());
    assert!(matches!(stop, Stop::Verify(VerifyError::SystemId { .. })), "{stop:?}");
}

#[test]
fn img_41_a_table_that_the_transport_does_not_name() {
    let (old, mut new) = old_and_new();
    new.table = old.table;
    assert!(matches!(refusal(&new.join()), Stop::Verify(VerifyError::TableMismatch("SHA-256"))));
    let mut longer = Parts::small();
    let last = longer.record(5).to_vec();
    longer.table.extend(last);
    assert!(matches!(refusal(&longer.join()), Stop::Verify(VerifyError::TableMismatch("length"))));
}
