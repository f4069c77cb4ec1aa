//! Keys and trust from files.

use std::fs::File;
use std::io::Read;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use image_format::{PrivateKey, PublicKey, TrustPolicy};

/// No PEM file of one key is longer.
const KEY_FILE_MAX: u64 = 64 * 1024;

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

/// Reads a private key.
pub fn private(path: &Path) -> Result<PrivateKey> {
    PrivateKey::from_pem(&text(path)?).with_context(|| format!("cannot use the key {}", path.display()))
}

/// Reads a public key.
pub fn public(path: &Path) -> Result<PublicKey> {
    PublicKey::from_pem(&text(path)?).with_context(|| format!("cannot use the key {}", path.display()))
}

fn text(path: &Path) -> Result<String> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(KEY_FILE_MAX).read_to_string(&mut text))
        .with_context(|| format!("cannot read the key {}", path.display()))?;
    Ok(text)
}
