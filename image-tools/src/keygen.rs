//! `ralph-image keygen`: a new key pair.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use image_format::PrivateKey;

use crate::output;

/// Make a new Ed25519 key pair: NAME.pem, which signs, and NAME.pub.pem, which machines trust
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where: NAME.pem (PKCS#8, readable by you only) and NAME.pub.pem (SPKI). Files that exist are never overwritten.
    #[arg(long, value_name = "NAME")]
    out: PathBuf,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let (private, public) = (with_ending(&args.out, ".pem"), with_ending(&args.out, ".pub.pem"));
    for path in [&private, &public] {
        if fs::symlink_metadata(path).is_ok() {
            bail!("{} exists already and is not overwritten: choose another name", path.display());
        }
    }
    let key = PrivateKey::generate()?;
    write_new(&private, 0o600, key.to_pem().as_bytes())?;
    if let Err(error) = write_new(&public, 0o644, key.public().to_pem().as_bytes()) {
        // Half a pair is of no use, and nobody has used it yet.
        let _ = fs::remove_file(&private);
        return Err(error);
    }
    let text = format!("{}\n{}\nkey id {}\n", private.display(), public.display(), key.public().key_id());
    output::print(text.as_bytes())
}

fn with_ending(name: &Path, ending: &str) -> PathBuf {
    let mut path = OsString::from(name);
    path.push(ending);
    path.into()
}

fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .with_context(|| format!("cannot make {}", path.display()))?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written.with_context(|| format!("cannot write {}", path.display()))
}
