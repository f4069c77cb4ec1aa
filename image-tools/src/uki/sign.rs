//! Signatures for Secure Boot, made and verified by the programs of sbsigntool.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Who signs.
#[derive(Debug)]
pub struct Signer<'a> {
    sbsign: PathBuf,
    key: &'a Path,
    /// The key's certificate.
    pub cert: &'a Path,
}

impl<'a> Signer<'a> {
    /// Looks for the program and the files, before any work is done.
    pub fn new(key: &'a Path, cert: &'a Path) -> Result<Self> {
        let sbsign = find("sbsign")?;
        crate::keys::look_at_private(key)?;
        std::fs::File::open(cert).with_context(|| format!("cannot read the certificate {}", cert.display()))?;
        Ok(Self { sbsign, key, cert })
    }

    /// Writes `program` with a signature to `output`, which is there and keeps its place.
    pub fn sign(&self, program: &Path, output: &Path) -> Result<()> {
        let mut command = Command::new(&self.sbsign);
        command
            .arg("--key")
            .arg(self.key)
            .arg("--cert")
            .arg(self.cert)
            .arg("--output")
            .arg(output)
            .arg("--")
            .arg(program);
        let (key, cert) = (self.key.display(), self.cert.display());
        run(&mut command).with_context(|| format!("cannot sign with {key} and {cert}"))?;
        Ok(())
    }
}

/// Insists on a signature by this certificate, or by one that it has issued.
pub fn verify(cert: &Path, program: &Path) -> Result<()> {
    run(Command::new(find("sbverify")?).arg("--cert").arg(cert).arg("--").arg(program)).map(drop)
}

/// Where a program of sbsigntool lies.
fn find(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file());
    found.with_context(|| format!("{program} is not there: install the package sbsigntool"))
}

fn run(command: &mut Command) -> Result<Output> {
    let name = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {name}"))?;
    if !output.status.success() {
        let said = [&output.stdout[..], &output.stderr].concat();
        bail!("{name} failed and says: {}", String::from_utf8_lossy(&said).trim());
    }
    Ok(output)
}
