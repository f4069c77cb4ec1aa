//! Whether firmware with Secure Boot would start a new disk.

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use image_format::{Boot, Manifest};
use secure_boot::Pe;

use crate::source::{Uki, temporary_file};
use crate::uki;

/// What is demanded of loader and image.
#[derive(Debug, clap::Args)]
pub struct SecureBootArgs {
    /// Refuse to make a disk that firmware with Secure Boot would not start: the loader must be signed, and the image must have a
    /// signed unified kernel image (`build --stub` or `--uki`).
    ///
    /// Whose signatures these are is asked with --secure-boot-cert. Private keys are not needed here, and key material is never
    /// written to a disk: enrolling the certificate is the firmware's business.
    #[arg(long)]
    secure_boot: bool,
    /// Insist that loader and unified kernel image are signed by this certificate, by sbverify. Given several times, each must be
    /// signed by one of them.
    #[arg(long = "secure-boot-cert", value_name = "CERT.pem", requires = "secure_boot")]
    certs: Vec<PathBuf>,
}

impl SecureBootArgs {
    /// Looks at what is known before anything is written.
    pub fn check_before(&self, loader: &Path, bytes: &[u8], image: &Path, manifest: &Manifest) -> Result<()> {
        if !self.secure_boot {
            return Ok(());
        }
        let shown = loader.display();
        let program = Pe::open(Cursor::new(bytes)).with_context(|| format!("cannot use the boot loader {shown}"))?;
        if !program.is_signed() {
            bail!(
                "the boot loader {shown} is not signed, and firmware with Secure Boot refuses it. Sign a copy: sbsign --key KEY.pem \
                 --cert CERT.pem --output COPY {shown}"
            );
        }
        if matches!(manifest.boot(), Boot::Kernel { .. }) {
            bail!(
                "{} has kernel and initrd apart: nothing would protect its initrd and command line. Build it with `ralph-image build \
                 --stub` or `--uki`",
                image.display()
            );
        }
        if self.certs.is_empty() {
            return Ok(());
        }
        // What is written, and not what lies there when sbverify reads it.
        let (copy, mut file) = temporary_file()?;
        file.write_all(bytes).context("cannot write a temporary file")?;
        self.verify(copy.path()).with_context(|| format!("the boot loader {shown} is refused"))
    }

    /// Looks at the unified kernel image.
    pub fn check_uki(&self, uki: &Uki) -> Result<()> {
        if !self.secure_boot {
            return Ok(());
        }
        if !uki.checked.signed {
            bail!(
                "its unified kernel image is not signed, and firmware with Secure Boot refuses it. Build it with `ralph-image build \
                 --sign-key KEY.pem --sign-cert CERT.pem`"
            );
        }
        self.verify(uki.file.path()).context("its unified kernel image is refused")
    }

    /// What is told of the disk.
    pub fn summary(&self) -> Option<&'static str> {
        match (self.secure_boot, self.certs.is_empty()) {
            (false, _) => None,
            (true, true) => Some("loader and unified kernel image are signed; whose signatures they are was not asked"),
            (true, false) => Some("loader and unified kernel image are signed as demanded"),
        }
    }

    fn verify(&self, program: &Path) -> Result<()> {
        let mut refused = Ok(());
        for cert in &self.certs {
            refused = uki::verify(cert, program);
            if refused.is_ok() {
                break;
            }
        }
        refused.with_context(|| {
            let certs: Vec<String> = self.certs.iter().map(|cert| cert.display().to_string()).collect();
            format!("it is not signed by {}", certs.join(" or "))
        })
    }
}
