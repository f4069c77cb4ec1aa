//! No bytes make a parser panic, and what a parser takes it took whole.

use std::io::Cursor;

use proptest::prelude::*;
use secure_boot::{Accepted, Pe, Store, StoreError, Stores};

use crate::keys::{alone, sign};
use crate::program::{HEADER, SECURITY, SHA256, X509, X509_SHA256, get32, list, put32, small};
use crate::{judge, stores};

/// Opens, lists, reads and judges; what comes of it is all the same.
fn ask_everything(bytes: &[u8], stores: &Stores) -> Result<Accepted, ()> {
    if let Ok(mut pe) = Pe::open(Cursor::new(bytes)) {
        for section in pe.sections().to_vec() {
            let read = pe.read_section(&section, 1 << 20).expect("a section lies in the file");
            assert_eq!(read.len(), section.content_size() as usize);
        }
        pe.authenticode_digest().expect("all of it can be read");
    }
    judge(bytes, stores).map_err(|_| ())
}

/// An unsigned program with this for a certificate table.
fn with_table(table: &[u8]) -> Vec<u8> {
    let mut bytes = small();
    let start = bytes.len() as u32;
    bytes.extend_from_slice(table);
    put32(&mut bytes, SECURITY, start);
    put32(&mut bytes, SECURITY + 4, table.len() as u32);
    bytes
}

#[test]
fn sec12_lists_of_all_kinds_one_behind_the_other() {
    let lists = [
        list(X509, &[vec![0x30, 1, 0]]),
        list(X509, &[]),
        list(SHA256, &[vec![1; 32], vec![2; 32]]),
        list(X509_SHA256, &[vec![3; 48]]),
        list(uuid::Uuid::nil(), &[vec![4; 5]]),
    ];
    // Of certificates an empty list tells no length that an entry could have.
    assert_eq!(Store::parse(&lists.concat()), Err(StoreError::Entries(2)));
    let store = Store::parse(&[&lists[0][..], &lists[2..].concat()].concat()).unwrap();
    assert_eq!(store.certificates().collect::<Vec<_>>(), [[0x30, 1, 0]]);
    assert!(store.has_image(&[1; 32]) && store.has_image(&[2; 32]) && !store.has_image(&[3; 32]));
    assert_eq!(store.unknown().collect::<Vec<_>>(), [uuid::Uuid::nil()]);
    assert_eq!(Store::parse(&[]).unwrap(), Store::default());
}

#[test]
fn sec12_lists_of_wrong_lengths_are_errors() {
    let good = list(SHA256, &[vec![1; 32], vec![2; 32]]);
    for (what, at, value, expected) in [
        ("longer than the variable", 16, good.len() as u32 + 1, StoreError::CutOff(1)),
        ("shorter than its header", 16, 27, StoreError::CutOff(1)),
        ("endless", 16, u32::MAX, StoreError::CutOff(1)),
        ("a header", 20, 48, StoreError::Entries(1)),
        ("long entries", 24, 96, StoreError::Entries(1)),
        ("entries without length", 24, 0, StoreError::Entries(1)),
    ] {
        let mut bytes = good.clone();
        put32(&mut bytes, at, value);
        assert_eq!(Store::parse(&bytes), Err(expected), "{what}");
    }
    for len in 1..good.len() {
        assert_eq!(Store::parse(&good[..len]), Err(StoreError::CutOff(1)));
    }
    let mut half = good.clone();
    half.extend([0; 8]);
    assert_eq!(Store::parse(&half), Err(StoreError::CutOff(2)), "something behind the last list");
}

proptest! {
    #[test]
    fn sec12_no_bytes_panic_the_list_parser(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Store::parse(&bytes);
    }

    #[test]
    fn sec12_no_lengths_panic_the_list_parser(
        kind in prop::sample::select(vec![X509, SHA256, X509_SHA256]),
        lengths in prop::array::uniform3(prop_oneof![0u32..200, any::<u32>()]),
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = kind.to_bytes_le().to_vec();
        bytes.extend(lengths.iter().flat_map(|length| length.to_le_bytes()));
        bytes.extend(body);
        if let Ok(store) = Store::parse(&bytes) {
            let held: usize = store.certificates().map(|der| 16 + der.len()).sum();
            prop_assert!(held <= bytes.len());
        }
    }

    #[test]
    fn sec20_no_header_panics(
        changes in prop::collection::vec((0..HEADER, any::<u8>()), 1..12),
        len in 0..=small().len(),
    ) {
        let mut bytes = small();
        for (at, value) in changes {
            bytes[at] = value;
        }
        let _ = ask_everything(&bytes, &Stores::default());
        let _ = ask_everything(&bytes[..len], &Stores::default());
    }

    #[test]
    fn sec20_no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = ask_everything(&bytes, &Stores::default());
    }

    #[test]
    fn sec25_no_certificate_table_panics(
        len in prop_oneof![0u32..100, any::<u32>()],
        body in prop::collection::vec(any::<u8>(), 0..100),
        right in any::<bool>(),
    ) {
        let mut table = if right { 8 + body.len() as u32 } else { len }.to_le_bytes().to_vec();
        table.extend([0, 2, 2, 0]);
        table.extend(&body);
        table.resize(table.len().next_multiple_of(8), 0);
        prop_assert!(ask_everything(&with_table(&table), &stores(&[alone()], &[])).is_err());
    }

    #[test]
    fn sec30_no_signature_panics_and_none_but_the_signed_one_is_accepted(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let signed = signed();
        let start = get32(signed, SECURITY) as usize;
        let mut bytes = signed.to_vec();
        for (at, value) in changes {
            let at = start + at.index(signed.len() - start);
            bytes[at] = value;
        }
        let verdict = ask_everything(&bytes, &stores(&[alone()], &[]));
        prop_assert_eq!(verdict.is_ok(), bytes == signed);
    }
}

fn signed() -> &'static [u8] {
    static SIGNED: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    SIGNED.get_or_init(|| sign(&small(), alone(), &[]))
}
