//! Section 8 of the specification: one image, byte for byte.

mod common;

use std::io::Cursor;

use common::Parts;
use image_format::{
    Architecture, BootSource, Digest, ImageSpec, Manifest, PrivateKey, Role, Sources, TrustPolicy, UpdaterVersion,
    build, to_be_signed,
};

/// Made once from the inputs below; a reader of format 1 must read it for ever.
const FILE: &[u8] = include_bytes!("data/vector-1.zst");

/// The specification, whose digests are compared with what the code gives.
const SPECIFICATION: &str = include_str!("../../specs/image-format.md");

/// RFC 8032, section 7.1, TEST 1.
const SECRET: [u8; 32] = [
    0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4, 0x44, 0x49, 0xc5,
    0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
];

fn inputs() -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let root = (0..129 * 4096_u32 - 1).map(|at| (at >> 6 ^ at >> 14) as u8).collect();
    let mut linux = vec![0; 1000];
    for (at, bytes) in
        [(0, &b"MZ"[..]), (0x3C, &[64]), (64, b"PE\0\0\x64\x86"), (88, &[0x0B, 0x02]), (156, &[10]), (512, b"a kernel")]
    {
        linux[at..at + bytes.len()].copy_from_slice(bytes);
    }
    (root, linux, b"an initrd\n".to_vec())
}

fn built() -> Vec<u8> {
    let (root, linux, initrd) = inputs();
    let spec = ImageSpec {
        os_id: "ralphos".to_owned(),
        version: "1.2.0".to_owned(),
        architecture: Architecture::X86_64,
        compatible: vec!["qemu,q35".to_owned(), "acme,edge-1".to_owned()],
        epoch: 7,
        min_updater: UpdaterVersion(0, 1, 0),
        title: "RalphOS 1.2.0".to_owned(),
        options: "console=ttyS0 quiet".to_owned(),
        level: 3,
        chunk_len: 262_144,
        workers: None,
    };
    let mut out = Cursor::new(Vec::new());
    let sources = Sources {
        root: &mut Cursor::new(root),
        boot: BootSource::Kernel { linux: &mut Cursor::new(linux), initrd: &mut Cursor::new(initrd) },
    };
    build(&spec, sources, &[PrivateKey::from_seed(&SECRET)], &mut out, &mut |_, _| {}).unwrap();
    out.into_inner()
}

/// The rows of the specification's table, as the code computes them.
fn rows(file: &[u8]) -> Vec<(&'static str, String)> {
    let parts = Parts::of(file);
    let manifest = Manifest::parse(&parts.manifest).unwrap();
    let (root, verity) = manifest.root();
    let sha256 = |bytes: &[u8]| Digest::of(bytes).to_string();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    vec![
        ("plain SHA-256 of root", root.sha256.to_string()),
        ("salt", hex(&verity.salt)),
        ("uuid", verity.uuid.to_string()),
        ("verity root hash", verity.root_hash.to_string()),
        ("system id", sha256(&parts.manifest)),
        ("SHA-256 of what is signed for the manifest", sha256(&to_be_signed(Role::Manifest, &parts.manifest))),
        ("key id", hex(&parts.signatures[40..72])),
        ("signature of the manifest", hex(&parts.signatures[72..136])),
        ("SHA-256 of the table body", sha256(&parts.table)),
        ("SHA-256 of the transport body", sha256(&parts.transport)),
        ("signature of the transport", hex(&parts.signatures[200..264])),
        ("length of the file", file.len().to_string()),
        ("SHA-256 of the file", sha256(file)),
    ]
}

fn missing_from_the_specification(file: &[u8]) -> Vec<String> {
    let rows = rows(file).into_iter().map(|(name, value)| format!("| {name} | `{value}` |"));
    rows.filter(|row| !SPECIFICATION.contains(row)).collect()
}

#[test]
fn the_stored_image_is_that_of_the_specification_and_is_read() {
    let missing = missing_from_the_specification(FILE);
    assert!(missing.is_empty(), "not in section 8 of the specification:\n{}", missing.join("\n"));

    let policy = TrustPolicy::new(vec![PrivateKey::from_seed(&SECRET).public()], std::num::NonZeroUsize::MIN).unwrap();
    let payloads = common::read_all(FILE, &policy).unwrap();
    let (mut root, linux, initrd) = inputs();
    root.push(0);
    assert!(payloads[0].1 == root && payloads[1].1 == linux && payloads[2].1 == initrd);
}

#[test]
fn the_builder_makes_the_stored_image() {
    let built = built();
    assert_eq!(Parts::of(&built).manifest, Parts::of(FILE).manifest, "the manifest changes only with the format");
    // With another release of zstd than 1.5.7 the frames, and what is computed from them, may differ.
    assert_eq!(zstd::zstd_safe::version_number(), 10507);
    assert!(built == FILE);
}
