//! What the firmware is asked for: programs, and the lists of whom it trusts (specs/secure-boot.md, specs/uki.md).

use std::io::Cursor;

use image_format::Architecture;
use secure_boot::{Accepted, Pe, Store, Stores, verdict};
use updater::uki::{self, Expected};

use crate::Seed;

const COMMAND_LINE: &str = "ralph.entry=2 quiet";
/// EFI_CERT_SHA256_GUID, and an owner that means nothing.
const SHA256: [u8; 16] =
    [0x26, 0x16, 0xc4, 0xc1, 0x4c, 0x50, 0x92, 0x40, 0xac, 0xa9, 0x41, 0xf9, 0x36, 0x93, 0x43, 0x28];

/// SEC-12, SEC-40 to SEC-46: two lengths of two bytes, db, dbx, and a program.
pub fn secure_boot(data: &[u8]) {
    let Some((lengths, rest)) = data.split_at_checked(4) else { return };
    let length = |at: usize| usize::from(u16::from_le_bytes([lengths[at], lengths[at + 1]]));
    let (db, rest) = rest.split_at(length(0).min(rest.len()));
    let (dbx, program) = rest.split_at(length(2).min(rest.len()));
    let (Ok(db), Ok(dbx)) = (Store::parse(db), Store::parse(dbx)) else { return };
    let Ok(mut program) = Pe::open(Cursor::new(program)) else { return };
    let (digest, signed) = (program.authenticode_digest(), program.is_signed());
    match verdict(&mut program, &Stores { db: db.clone(), dbx: dbx.clone() }) {
        Ok(how) => {
            let digest = digest.expect("what is accepted has a digest");
            assert!(!dbx.has_image(&digest), "it is revoked");
            assert!(signed || how == Accepted::Digest);
            assert!(how != Accepted::Digest || db.has_image(&digest));
            let none = Stores { db: Store::default(), dbx };
            assert!(verdict(&mut program, &none).is_err(), "an empty list trusts nobody");
        }
        Err(refused) => assert!(!refused.to_string().is_empty()),
    }
}

/// UKI-1 to UKI-8.
pub fn unified_image(data: &[u8]) {
    let expected = Expected { architecture: Architecture::X86_64, command_line: COMMAND_LINE.to_owned() };
    let Ok(_) = uki::check(&expected, Cursor::new(data)) else { return };
    let mut program = Pe::open(Cursor::new(data)).expect("it was opened");
    for name in [".linux", ".initrd", ".cmdline"] {
        let found: Vec<_> =
            program.sections().iter().filter(|section| section.name() == name.as_bytes()).cloned().collect();
        let [section] = &found[..] else { panic!("{} sections {name}", found.len()) };
        if name == ".cmdline" {
            let text = program.read_section(section, 4096).expect("it was read");
            let end = text.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            assert_eq!(&text[..end], COMMAND_LINE.as_bytes());
        }
    }
}

/// A program with these sections, one behind the other, each on a page of its own.
fn program(sections: &[(&str, &[u8])]) -> Vec<u8> {
    const HEADERS: usize = 1024;
    let mut bytes = vec![0; HEADERS];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, b"MZ");
    put(0x3c, &[64]);
    put(64, b"PE\0\0\x64\x86");
    put(70, &[sections.len() as u8]);
    put(84, &[240]);
    put(88, &[0x0b, 0x02]);
    let (mut address, mut offset) = (4096_u32, HEADERS as u32);
    for (index, (name, content)) in sections.iter().enumerate() {
        let header = 328 + 40 * index;
        put(header, name.as_bytes());
        let (length, size) = (content.len() as u32, content.len().next_multiple_of(512) as u32);
        for (place, value) in [(8, length), (12, address), (16, size), (20, offset)] {
            put(header + place, &value.to_le_bytes());
        }
        offset += size;
        address = (address + length.max(1)).next_multiple_of(4096);
    }
    for (place, value) in
        [(16, 4096), (32, 4096), (36, 512), (56, address + 4096), (60, HEADERS as u32), (68, 10), (108, 16)]
    {
        put(88 + place, &value.to_le_bytes());
    }
    for (_, content) in sections {
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes
}

fn image() -> Vec<u8> {
    let kernel = program(&[(".text", &[7; 300])]);
    program(&[
        (".sdmagic", b"#### LoaderInfo: systemd-stub 257 ####"),
        (".cmdline", COMMAND_LINE.as_bytes()),
        (".initrd", b"an initrd"),
        (".linux", &kernel),
    ])
}

pub fn secure_boot_seeds() -> Vec<Seed> {
    let plain = program(&[(".text", &[7; 300])]);
    let digest =
        Pe::open(Cursor::new(&plain)).and_then(|mut program| program.authenticode_digest()).expect("a program");
    let list = |digest: &[u8; 32]| {
        [&SHA256[..], &76_u32.to_le_bytes(), &[0; 4], &48_u32.to_le_bytes(), &[7; 16], digest].concat()
    };
    let joined = |db: &[u8], dbx: &[u8]| {
        [&(db.len() as u16).to_le_bytes()[..], &(dbx.len() as u16).to_le_bytes(), db, dbx, &plain].concat()
    };
    vec![
        ("in-db", joined(&list(&digest), &[])),
        ("in-dbx", joined(&list(&digest), &list(&digest))),
        ("unknown", joined(&list(&[1; 32]), &[])),
    ]
}

pub fn unified_image_seeds() -> Vec<Seed> {
    vec![("whole", image()), ("no-sections", program(&[]))]
}
