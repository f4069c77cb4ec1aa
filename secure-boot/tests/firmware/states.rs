//! `SEC-10`, `SEC-11`, by folders of variables.

use std::fs;
use std::path::Path;

use secure_boot::{State, StateError, Unclear};
use tempfile::TempDir;

use crate::program::{SHA256, X509, list};

const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
const SECURITY: &str = "d719b2cb-3d3a-4596-a3bc-dad00e67656f";
const SHIM: &str = "605dab50-e046-4300-abb6-3dd810dd8b23";

fn set(dir: &Path, name: &str, guid: &str, value: &[u8]) {
    fs::write(dir.join(format!("{name}-{guid}")), [&[6, 0, 0, 0], value].concat()).unwrap();
}

/// A machine with these switches; it always has some variable.
fn machine(switches: &[(&str, &[u8])]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    set(dir.path(), "BootOrder", GLOBAL, &[0, 0]);
    for (name, value) in switches {
        set(dir.path(), name, GLOBAL, value);
    }
    dir
}

fn enforcing() -> TempDir {
    machine(&[("SecureBoot", &[1]), ("SetupMode", &[0]), ("AuditMode", &[0]), ("DeployedMode", &[1])])
}

#[test]
fn sec10_off_where_nothing_enforces() {
    assert_eq!(State::read(Path::new("/nowhere/efivars")).unwrap(), State::Off, "no EFI");
    for switches in [
        &[][..],
        &[("SecureBoot", &[0][..])],
        &[("SecureBoot", &[0]), ("SetupMode", &[1])],
        &[("SetupMode", &[1])],
        &[("SecureBoot", &[0]), ("SetupMode", &[1]), ("AuditMode", &[1])],
    ] {
        assert_eq!(State::read(machine(switches).path()).unwrap(), State::Off, "{switches:?}");
    }
}

#[test]
fn sec10_enforcing_by_the_lists_as_they_are() {
    let dir = enforcing();
    let State::Enforcing(stores) = State::read(dir.path()).unwrap() else { panic!("it is on") };
    assert_eq!(*stores, secure_boot::Stores::default(), "no lists: nothing is accepted");
    set(dir.path(), "db", SECURITY, &list(X509, &[vec![0x30, 0]]));
    set(dir.path(), "dbx", SECURITY, &list(SHA256, &[vec![9; 32]]));
    let State::Enforcing(stores) = State::read(dir.path()).unwrap() else { panic!("it is on") };
    assert_eq!(stores.db.certificates().collect::<Vec<_>>(), [[0x30, 0]]);
    assert!(stores.dbx.has_image(&[9; 32]) && !stores.db.has_image(&[9; 32]));
    let plain = machine(&[("SecureBoot", &[1])]);
    assert!(matches!(State::read(plain.path()).unwrap(), State::Enforcing(_)), "older firmware has no modes");
}

#[test]
fn sec10_what_contradicts_itself_is_unclear() {
    for (name, value, expected) in [
        ("SetupMode", &[1][..], Unclear::Contradiction { name: "SetupMode" }),
        ("AuditMode", &[1], Unclear::Contradiction { name: "AuditMode" }),
        ("SetupMode", &[], Unclear::Value { name: "SetupMode" }),
        ("SecureBoot", &[2], Unclear::Value { name: "SecureBoot" }),
        ("SecureBoot", &[1, 0], Unclear::Value { name: "SecureBoot" }),
        ("DeployedMode", &[7], Unclear::Value { name: "DeployedMode" }),
    ] {
        let dir = enforcing();
        set(dir.path(), name, GLOBAL, value);
        assert_eq!(State::read(dir.path()).unwrap(), State::Unclear(expected));
    }
    let empty = tempfile::tempdir().unwrap();
    let state = State::read(empty.path()).unwrap();
    assert!(matches!(state, State::Unclear(Unclear::NotMounted { .. })), "efivarfs is not mounted: {state:?}");
}

#[test]
fn sec10_shim_has_keys_of_its_own() {
    for name in ["MokListRT", "MokListXRT", "SbatLevelRT"] {
        let dir = enforcing();
        set(dir.path(), name, SHIM, b"sbat,1,2021030218\n");
        assert_eq!(State::read(dir.path()).unwrap(), State::Unclear(Unclear::Shim { name }));
    }
}

#[test]
fn sec11_what_cannot_be_read_or_understood_is_an_error_with_its_path() {
    let dir = enforcing();
    set(dir.path(), "db", SECURITY, &list(X509, &[vec![0x30, 0]])[1..]);
    let error = State::read(dir.path()).expect_err("no list");
    assert!(matches!(error, StateError::Store { .. }) && error.to_string().contains("/db-d719b2cb"), "{error}");

    let dir = enforcing();
    set(dir.path(), "dbx", SECURITY, &vec![0; 1 << 20 | 1]);
    assert!(matches!(State::read(dir.path()), Err(StateError::TooLong { .. })));

    let dir = machine(&[]);
    // A folder opens, and cannot be read: to root, too.
    fs::create_dir(dir.path().join(format!("SecureBoot-{GLOBAL}"))).unwrap();
    let error = State::read(dir.path()).expect_err("it may be 1");
    assert!(error.to_string().contains("/SecureBoot-8be4df61"), "{error}");

    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(matches!(State::read(file.path()), Err(StateError::Read { .. })), "no folder");
}
