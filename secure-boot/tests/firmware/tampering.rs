//! Whoever changes a signed program changes the verdict, wherever the byte stands.

use secure_boot::{PeError, Refused, SignatureError};

use crate::keys::{alone, chain, sign};
use crate::program::{CHECKSUM, HEADER, OPTIONAL, PE, SECTIONS, SECURITY, get32, put32, small};
use crate::{judge, stores};

#[test]
fn sec1_each_byte_counts_but_for_the_checksum_and_how_long_the_padding_is() {
    let [root, middle, leaf] = chain();
    let cases = [
        (sign(&small(), alone(), &[]), stores(&[alone()], &[])),
        (sign(&small(), leaf, &[middle]), stores(&[root], &[])),
    ];
    for (signed, lists) in &cases {
        judge(signed, lists).expect("untouched");
        let table = get32(signed, SECURITY) as usize;
        let shortest = 8 + 4 + usize::from(u16::from_be_bytes([signed[table + 10], signed[table + 11]]));
        let longest = shortest.next_multiple_of(8);
        for at in 0..signed.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = signed.clone();
                bytes[at] ^= flip;
                // The padding may count as part of the certificate or not; all of it is zeros.
                let padding = at == table && (shortest..=longest).contains(&(get32(&bytes, table) as usize));
                let accepted = judge(&bytes, lists).is_ok();
                let harmless = CHECKSUM.contains(&at) || padding;
                assert_eq!(accepted, harmless, "byte {at:#x} of {:#x} changed by {flip:#x}", signed.len());
            }
        }
    }
}

#[test]
fn sec23_a_changed_section_or_header_is_told_as_such() {
    let signed = sign(&small(), alone(), &[]);
    let sections: Vec<usize> = (0..3).map(|n| get32(&signed, SECTIONS + 40 * n + 20) as usize).collect();
    // The time stamp in the header, the first byte of each section, and the last byte in front of the table.
    let last = get32(&signed, SECURITY) as usize - 1;
    for at in [PE + 8, last].into_iter().chain(sections) {
        let mut bytes = signed.clone();
        bytes[at] ^= 1;
        let verdict = judge(&bytes, &stores(&[alone()], &[]));
        assert!(matches!(verdict, Err(Refused::Signature(SignatureError::OtherProgram))), "{at:#x}: {verdict:?}");
    }
}

#[test]
fn sec24_nothing_lies_behind_the_certificate_table_and_nothing_is_missing() {
    let lists = stores(&[alone()], &[]);
    let signed = sign(&small(), alone(), &[]);
    for extra in [1, 8, 4096] {
        let mut bytes = signed.clone();
        bytes.resize(signed.len() + extra, 0);
        let verdict = judge(&bytes, &lists);
        assert!(matches!(verdict, Err(Refused::Program(PeError::CertificateTable(_)))), "{verdict:?}");
        // And with a directory entry that counts it in.
        put32(&mut bytes, SECURITY + 4, get32(&signed, SECURITY + 4) + extra as u32);
        judge(&bytes, &lists).expect_err("zeros in the table");
    }
    for len in (0..signed.len()).step_by(61) {
        judge(&signed[..len], &lists).expect_err("cut off");
    }
}

#[test]
fn sec25_two_signatures_are_refused_and_so_is_one_twice() {
    let twice = sign(&sign(&small(), alone(), &[]), &chain()[2], &[]);
    let verdict = judge(&twice, &stores(&[alone(), &chain()[2]], &[]));
    let error = verdict.expect_err("two signatures").to_string();
    assert!(error.contains("more than one signature"), "{error}");

    let once = sign(&small(), alone(), &[]);
    let (start, len) = (get32(&once, SECURITY) as usize, get32(&once, SECURITY + 4));
    let mut bytes = once.clone();
    bytes.extend_from_slice(&once[start..]);
    put32(&mut bytes, SECURITY + 4, 2 * len);
    let error = judge(&bytes, &stores(&[alone()], &[])).expect_err("one twice").to_string();
    assert!(error.contains("more than one signature"), "{error}");
}

#[test]
fn sec24_the_directory_entry_cannot_hide_the_signature_or_move_it() {
    let signed = sign(&small(), alone(), &[]);
    let lists = stores(&[alone()], &[]);
    let mut hidden = signed.clone();
    put32(&mut hidden, SECURITY + 4, 0);
    assert!(matches!(judge(&hidden, &lists), Err(Refused::Unsigned)));
    let mut nowhere = signed.clone();
    put32(&mut nowhere, SECURITY, 0);
    assert!(matches!(judge(&nowhere, &lists), Err(Refused::Program(_))), "a size and no address");
    let mut few = signed.clone();
    put32(&mut few, OPTIONAL + 108, 4);
    judge(&few, &lists).expect_err("no such directory");
    let mut inside = signed.clone();
    put32(&mut inside, SECURITY, HEADER as u32);
    put32(&mut inside, SECURITY + 4, (signed.len() - HEADER) as u32);
    judge(&inside, &lists).expect_err("the table over the sections");
}
