//! Keys and trust from files.

use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use image_format::{PrivateKey, PublicKey, TrustPolicy, Zeroizing};

/// No PEM file of one key is longer.
const KEY_FILE_MAX: usize = 64 * 1024;

/// Whose signatures count.
#[derive(Debug, clap::Args)]
pub struct TrustArgs {
    /// A trusted public key (PEM); may be given several times.
    #[arg(long = "trust", value_name = "PUB.pem", required = true)]
    keys: Vec<PathBuf>,
    /// How many distinct trusted keys must have signed.
    #[arg(long, value_name = "N", default_value = "1")]
    threshold: NonZeroUsize,
}

impl TrustArgs {
    /// The policy that the arguments ask for.
    pub fn policy(&self) -> Result<TrustPolicy> {
        let keys = self.keys.iter().map(|path| public(path)).collect::<Result<_>>()?;
        Ok(TrustPolicy::new(keys, self.threshold)?)
    }
}

/// Reads a private key. Says so on standard error when others may read it, too.
pub fn private(path: &Path) -> Result<PrivateKey> {
    PrivateKey::from_pem(&text(path, warn_if_open)?).with_context(|| format!("cannot use the key {}", path.display()))
}

/// Reads a public key.
pub fn public(path: &Path) -> Result<PublicKey> {
    PublicKey::from_pem(&text(path, |_, _| Ok(()))?).with_context(|| format!("cannot use the key {}", path.display()))
}

/// Says on standard error when others may read a private key that another program is going to use.
pub fn look_at_private(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|file| warn_if_open(path, &file))
        .with_context(|| format!("cannot read the key {}", path.display()))
}

fn warn_if_open(path: &Path, file: &File) -> io::Result<()> {
    let meta = file.metadata()?;
    let mode = meta.permissions().mode() & 0o777;
    if meta.is_file() && mode & 0o077 != 0 {
        let path = path.display();
        eprintln!("ralph-image: warning: others may use the private key {path} (mode {mode:04o}): chmod 600 {path}");
    }
    Ok(())
}

/// The text of a key file, wiped when it is dropped; `look` sees the open file first.
fn text(path: &Path, look: impl FnOnce(&Path, &File) -> io::Result<()>) -> Result<Zeroizing<String>> {
    // As long as it will ever be: a buffer that grows would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(2 * KEY_FILE_MAX));
    File::open(path)
        .and_then(|file| look(path, &file).map(|()| file))
        .and_then(|file| file.take(KEY_FILE_MAX as u64).read_to_string(&mut text))
        .with_context(|| format!("cannot read the key {}", path.display()))?;
    Ok(text)
}
