//! Keys, certificates and signatures, made by the tools that people make them with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use qemu_tests::setup;
use tempfile::TempDir;

/// One key, and its certificate.
#[derive(Clone)]
pub struct Key {
    pub key: PathBuf,
    pub pem: PathBuf,
    pub der: Vec<u8>,
}

/// A folder for keys that goes when the process ends.
struct Lab {
    dir: TempDir,
    number: u32,
}

fn fresh_path(ending: &str) -> PathBuf {
    static LAB: OnceLock<Mutex<Lab>> = OnceLock::new();
    let lab = LAB.get_or_init(|| {
        setup::ensure_tools().unwrap();
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        // Without it the tool's own defaults would add extensions.
        fs::write(dir.path().join("openssl.cnf"), "[req]\ndistinguished_name = dn\n[dn]\n").unwrap();
        Mutex::new(Lab { dir, number: 0 })
    });
    let mut lab = lab.lock().unwrap();
    lab.number += 1;
    lab.dir.path().join(format!("{}.{ending}", lab.number))
}

pub fn run(program: &str, args: &[&str]) -> Vec<u8> {
    setup::run(setup::command(program).args(args)).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What a certificate is made of.
pub struct Request<'a> {
    pub name: &'a str,
    /// As `openssl req -newkey` takes it.
    pub algorithm: &'a [&'a str],
    pub issuer: Option<&'a Key>,
    pub extensions: &'a [&'a str],
    pub digest: &'a str,
}

pub const RSA: &[&str] = &["rsa:2048"];
pub const CA: &[&str] = &["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign"];
pub const LEAF: &[&str] = &["basicConstraints=critical,CA:FALSE", "keyUsage=digitalSignature"];

pub fn make(request: &Request<'_>) -> Key {
    let (key, pem) = (fresh_path("key"), fresh_path("pem"));
    let config = key.with_file_name("openssl.cnf");
    let subject = format!("/CN={}", request.name);
    let digest = format!("-{}", request.digest);
    let mut args = vec!["req", "-x509", "-nodes", "-config", text(&config), "-subj", &subject, &digest, "-days", "2"];
    args.extend(["-keyout", text(&key), "-out", text(&pem), "-newkey"]);
    args.extend(request.algorithm);
    for extension in request.extensions {
        args.extend(["-addext", extension]);
    }
    if let Some(issuer) = request.issuer {
        args.extend(["-CA", text(&issuer.pem), "-CAkey", text(&issuer.key)]);
    }
    run("openssl", &args);
    let der = run("openssl", &["x509", "-in", text(&pem), "-outform", "DER"]);
    Key { key, pem, der }
}

pub fn issued(name: &str, issuer: Option<&Key>, extensions: &[&str]) -> Key {
    make(&Request { name, algorithm: RSA, issuer, extensions, digest: "sha256" })
}

/// Another certificate for the same key.
pub fn renamed(name: &str, of: &Key) -> Key {
    let pem = fresh_path("pem");
    let config = pem.with_file_name("openssl.cnf");
    let subject = format!("/CN={name}");
    run(
        "openssl",
        &["req", "-x509", "-config", text(&config), "-subj", &subject, "-key", text(&of.key), "-out", text(&pem)],
    );
    let der = run("openssl", &["x509", "-in", text(&pem), "-outform", "DER"]);
    Key { key: of.key.clone(), pem, der }
}

/// Root, intermediate, leaf.
pub fn chain() -> &'static [Key; 3] {
    static CHAIN: OnceLock<[Key; 3]> = OnceLock::new();
    CHAIN.get_or_init(|| {
        let root = issued("root", None, CA);
        let middle = issued("middle", Some(&root), CA);
        let leaf = issued("leaf", Some(&middle), LEAF);
        [root, middle, leaf]
    })
}

/// A key that vouches for itself.
pub fn alone() -> &'static Key {
    static ALONE: OnceLock<Key> = OnceLock::new();
    ALONE.get_or_init(|| issued("alone", None, LEAF))
}

/// And another.
pub fn stranger() -> &'static Key {
    static STRANGER: OnceLock<Key> = OnceLock::new();
    STRANGER.get_or_init(|| issued("stranger", None, LEAF))
}

/// The signed part of a certificate.
pub fn tbs(der: &[u8]) -> &[u8] {
    let len = usize::from(u16::from_be_bytes([der[6], der[7]]));
    assert_eq!([der[1], der[5]], [0x82, 0x82], "lengths in two bytes");
    &der[4..8 + len]
}

/// Signs a program; the signature carries these certificates besides the signer's.
pub fn sign(program: &[u8], by: &Key, carrying: &[&Key]) -> Vec<u8> {
    let (from, to, more) = (fresh_path("efi"), fresh_path("signed"), fresh_path("more"));
    fs::write(&from, program).unwrap();
    let mut args = vec!["--key", text(&by.key), "--cert", text(&by.pem), "--output", text(&to)];
    if !carrying.is_empty() {
        let pem: Vec<u8> = carrying.iter().flat_map(|key| fs::read(&key.pem).unwrap()).collect();
        fs::write(&more, pem).unwrap();
        args.extend(["--addcert", text(&more)]);
    }
    args.push(text(&from));
    run("sbsign", &args);
    fs::read(to).unwrap()
}

/// What sbverify says.
pub fn sbverify(program: &[u8], certificate: &Key) -> bool {
    let path = fresh_path("efi");
    fs::write(&path, program).unwrap();
    let mut command: Command = setup::command("sbverify");
    command.args(["--cert", text(&certificate.pem), text(&path)]).output().unwrap().status.success()
}

/// RSA with PKCS#1 v1.5 and SHA-256.
pub fn raw_signature(by: &Key, message: &[u8]) -> Vec<u8> {
    let path = fresh_path("message");
    fs::write(&path, message).unwrap();
    run("openssl", &["dgst", "-sha256", "-sign", text(&by.key), text(&path)])
}
