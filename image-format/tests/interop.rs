//! Other people's tools agree: zstd, openssl and veritysetup.

mod common;

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::process::Output;

use common::{Plain, key, read_all, spec, trust};
use image_format::{
    ImageSpec, PrivateKey, PublicKey, Role, SignOutcome, UnverifiedImage, Verity, VerityBuilder, attach_signature,
    slot_bytes, verity_superblock,
};
use qemu_tests::setup;
use tempfile::TempDir;

/// Runs a tool in `dir` and returns what it said. The tool is installed first where that is possible; a missing one is a failure.
fn run(dir: &Path, program: &str, arguments: &[&str]) -> Output {
    setup::ensure_tools().expect("the tools that this test compares with");
    let output = setup::command(program).args(arguments).current_dir(dir).output();
    output.unwrap_or_else(|error| panic!("cannot run {program}: {error}"))
}

fn succeed(dir: &Path, program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = run(dir, program, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {}\n{said}", output.status);
    output.stdout
}

fn temp() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn img_1_zstd_tests_and_unpacks_the_file() {
    for (plain, spec) in [
        (Plain::small(), spec()),
        (
            Plain { root: common::program_like(3_000_001, 5), ..Plain::small() },
            ImageSpec { chunk_len: 1 << 20, ..spec() },
        ),
    ] {
        let dir = temp();
        let file = plain.build(&ImageSpec { level: 12, ..spec }, &[key(1)]);
        fs::write(dir.path().join("image.zst"), &file).unwrap();
        succeed(dir.path(), "zstd", &["-t", "-q", "image.zst"]);
        let mut expected = plain.root.clone();
        expected.resize(expected.len().next_multiple_of(4096), 0);
        expected.extend_from_slice(&plain.linux);
        expected.extend_from_slice(&plain.initrd);
        assert!(succeed(dir.path(), "zstd", &["-dcq", "image.zst"]) == expected);
        // `zstd -t` finds damage in the data, because every frame carries zstd's own checksum.
        let mut damaged = file;
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        fs::write(dir.path().join("damaged.zst"), damaged).unwrap();
        assert!(!run(dir.path(), "zstd", &["-t", "-q", "damaged.zst"]).status.success());
    }
}

#[test]
fn img_35_openssl_verifies_our_signatures_with_our_keys() {
    let dir = temp();
    let private = PrivateKey::generate().unwrap();
    fs::write(dir.path().join("pub.pem"), private.public().to_pem()).unwrap();
    let file = Plain::small().build(&spec(), std::slice::from_ref(&private));
    let head = UnverifiedImage::read_head(file.as_slice()).unwrap();
    assert_eq!(head.signatures().records().len(), 2);
    for record in head.signatures().records() {
        fs::write(dir.path().join("tbs"), head.to_be_signed(record.role)).unwrap();
        fs::write(dir.path().join("sig"), record.signature).unwrap();
        let verify = ["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", "pub.pem", "-in", "tbs", "-sigfile", "sig"];
        succeed(dir.path(), "openssl", &verify);
        fs::write(dir.path().join("tbs"), b"something else").unwrap();
        assert!(!run(dir.path(), "openssl", &verify).status.success());
    }
    // It reads our private keys, too, and derives the same public one.
    fs::write(dir.path().join("key.pem"), private.to_pem().as_bytes()).unwrap();
    let public = succeed(dir.path(), "openssl", &["pkey", "-in", "key.pem", "-pubout"]);
    assert_eq!(String::from_utf8(public).unwrap(), private.public().to_pem());
}

#[test]
fn img_35_openssl_makes_keys_and_signatures_that_we_take() {
    let dir = temp();
    succeed(dir.path(), "openssl", &["genpkey", "-algorithm", "ed25519", "-out", "key.pem"]);
    succeed(dir.path(), "openssl", &["pkey", "-in", "key.pem", "-pubout", "-out", "pub.pem"]);
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    let public = PublicKey::from_pem(&read("pub.pem")).unwrap();
    let private = PrivateKey::from_pem(&read("key.pem")).unwrap();
    assert_eq!(private.public(), public);
    assert_eq!((public.to_pem(), private.to_pem().as_str()), (read("pub.pem"), read("key.pem").as_str()));

    // Signed outside, attached here: the same file as if the key had been here.
    let mut file = Cursor::new(Plain::small().build(&spec(), &[]));
    for role in Role::ALL {
        let head = UnverifiedImage::read_head(file.get_ref().as_slice()).unwrap();
        fs::write(dir.path().join("tbs"), head.to_be_signed(role)).unwrap();
        let sign = ["pkeyutl", "-sign", "-rawin", "-inkey", "key.pem", "-in", "tbs", "-out", "sig"];
        succeed(dir.path(), "openssl", &sign);
        let signature = fs::read(dir.path().join("sig")).unwrap();
        assert_eq!(attach_signature(&mut file, &public, &signature).unwrap(), (role, SignOutcome::Added));
    }
    assert!(*file.get_ref() == Plain::small().build(&spec(), &[private]));
    let policy = image_format::TrustPolicy::new(vec![public], std::num::NonZeroUsize::MIN).unwrap();
    assert!(read_all(file.get_ref(), &policy).is_ok());
}

/// A slot as a device writes it: data, superblock, tree, all from the builder's calls.
fn slot(data: &[u8], verity: &Verity) -> (Vec<u8>, String) {
    let size = data.len() as u64;
    let mut slot = data.to_vec();
    slot.resize(slot_bytes(size) as usize, 0xEE);
    slot[data.len()..data.len() + 4096].copy_from_slice(&verity_superblock(verity));
    let mut sink = |offset: u64, bytes: &[u8]| {
        slot[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    };
    let mut builder = VerityBuilder::new(size, &verity.salt).unwrap();
    for piece in data.chunks(100_000) {
        builder.update(piece, &mut sink).unwrap();
    }
    let root_hash = builder.finish(&mut sink).unwrap();
    (slot, root_hash.to_string())
}

#[test]
fn img_22_veritysetup_makes_the_same_slot_and_accepts_ours() {
    let salt = [0xA5; 32];
    let salt_text: String = salt.iter().map(|byte| format!("{byte:02x}")).collect();
    let uuid = "01234567-89ab-8def-8123-456789abcdef";
    // Around the borders of the levels: 128 digests fill a block, 128 of those the next.
    for blocks in [1_usize, 2, 3, 127, 128, 129, 255, 256, 257, 16383, 16384, 16385] {
        let dir = temp();
        let data = common::program_like(blocks * 4096, blocks as u32);
        let verity = Verity {
            root_hash: image_format::Digest::of([]),
            salt,
            uuid: uuid.parse().unwrap(),
            data_blocks: blocks as u64,
            hash_offset: data.len() as u64,
        };
        let (ours, root_hash) = slot(&data, &verity);
        fs::write(dir.path().join("ours"), &ours).unwrap();
        let offset = format!("--hash-offset={}", data.len());
        succeed(dir.path(), "veritysetup", &["verify", "ours", "ours", &root_hash, &offset]);

        fs::write(dir.path().join("theirs"), &data).unwrap();
        let format = [
            "format",
            "theirs",
            "theirs",
            &offset,
            &format!("--data-blocks={blocks}"),
            &format!("--salt={salt_text}"),
            &format!("--uuid={uuid}"),
        ];
        let said = String::from_utf8(succeed(dir.path(), "veritysetup", &format)).unwrap();
        assert!(said.contains(&root_hash), "{blocks} blocks: {root_hash} is not in\n{said}");
        assert!(fs::read(dir.path().join("theirs")).unwrap() == ours, "{blocks} blocks: the slots differ");

        let mut damaged = ours;
        damaged[data.len() / 2] ^= 1;
        fs::write(dir.path().join("damaged"), damaged).unwrap();
        let verify = ["verify", "damaged", "damaged", &root_hash, &offset];
        assert!(!run(dir.path(), "veritysetup", &verify).status.success(), "{blocks} blocks");
    }
}

#[test]
fn img_22_an_image_gives_a_slot_that_veritysetup_accepts() {
    let dir = temp();
    let plain = Plain { root: common::program_like(3_000_001, 5), ..Plain::small() };
    let file = plain.build(&ImageSpec { chunk_len: 1 << 20, ..spec() }, &[key(1)]);
    let image = common::open(&file, &trust(&[1], 1)).unwrap();
    let manifest = image.manifest().clone();
    let (_, verity) = manifest.root();
    let root = read_all(&file, &trust(&[1], 1)).unwrap().swap_remove(0).1;
    let (slot, root_hash) = slot(&root, verity);
    assert_eq!(slot.len() as u64, manifest.slot_bytes);
    assert_eq!(root_hash, verity.root_hash.to_string());
    fs::write(dir.path().join("slot"), slot).unwrap();
    let offset = format!("--hash-offset={}", verity.hash_offset);
    succeed(dir.path(), "veritysetup", &["verify", "slot", "slot", &root_hash, &offset]);
    let dump = String::from_utf8(succeed(dir.path(), "veritysetup", &["dump", "slot", &offset])).unwrap();
    assert!(dump.contains(&verity.uuid.to_string()), "{dump}");
}
