//! What the firmware would start, by programs that sbsign signed (`specs/secure-boot.md`).

mod forge;
mod keys;
mod layouts;
mod program;
mod properties;
mod states;
mod tampering;
mod verdicts;

use std::io::Cursor;

use secure_boot::{Accepted, Pe, Refused, Store, Stores};

/// Lists that accept these certificates and refuse those.
fn stores(db: &[&keys::Key], dbx: &[&keys::Key]) -> Stores {
    let store = |keys: &[&keys::Key]| -> Store {
        let lists: Vec<u8> =
            keys.iter().flat_map(|key| program::list(program::X509, std::slice::from_ref(&key.der))).collect();
        Store::parse(&lists).unwrap()
    };
    Stores { db: store(db), dbx: store(dbx) }
}

fn judge(program: &[u8], stores: &Stores) -> Result<Accepted, Refused> {
    secure_boot::verdict(&mut Pe::open(Cursor::new(program))?, stores)
}

fn digest(program: &[u8]) -> [u8; 32] {
    Pe::open(Cursor::new(program)).unwrap().authenticode_digest().unwrap()
}
