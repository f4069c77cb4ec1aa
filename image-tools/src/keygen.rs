//! `ralph-image keygen`: a new key pair.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::builder::{OsStringValueParser, TypedValueParser};
use image_format::PrivateKey;

use crate::interrupt;
use crate::output;

/// Make a new Ed25519 key pair: NAME.pem, which signs, and NAME.pub.pem, which machines trust
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where: NAME.pem (PKCS#8, readable by you only) and NAME.pub.pem (SPKI). Files that exist are never overwritten.
    #[arg(long, value_name = "NAME", value_parser = OsStringValueParser::new().try_map(name))]
    out: PathBuf,
}

/// Refuses names that would give files nobody meant.
fn name(out: OsString) -> Result<PathBuf, &'static str> {
    let name = out.as_bytes().rsplit(|byte| *byte == b'/').next().map(OsStr::from_bytes).unwrap_or_default();
    if name.is_empty() || name == "." || name == ".." {
        return Err("this names a directory: say which name the keys shall have in it");
    }
    if name.as_bytes().ends_with(b".pub") {
        // NAME.pub.pem is a public key; this would make it a private one.
        return Err("the private key would have the name of a public one: leave .pub away");
    }
    Ok(out.into())
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
    let made = write_new(&private, 0o600, key.to_pem().as_bytes())
        .and_then(|()| write_new(&public, 0o644, key.public().to_pem().as_bytes()))
        .and_then(|()| output::sync_directory(&public));
    if let Err(error) = made {
        // Half a pair is of no use, and nobody has used it yet.
        interrupt::discard();
        return Err(error);
    }
    interrupt::finished();
    let text = format!("{}\n{}\nkey id {}\n", private.display(), public.display(), key.public().key_id());
    output::print(text.as_bytes())
}

fn with_ending(name: &Path, ending: &str) -> PathBuf {
    let mut path = OsString::from(name);
    path.push(ending);
    path.into()
}

fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut file = interrupt::make(|| {
        let file = File::options().write(true).create_new(true).mode(mode).open(path);
        Ok((file.with_context(|| format!("cannot make {}", path.display()))?, path.to_owned()))
    })?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.with_context(|| format!("cannot write {}", path.display()))
}
