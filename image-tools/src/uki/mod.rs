//! What boots the root of an image: kernel and initrd, or a unified kernel image that was given or is made here.

mod make;
mod sign;
mod stub;

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ArgGroup;
use image_format::BootSource;
use tempfile::NamedTempFile;
use updater::uki::{Expected, check};

use crate::source::temporary_file;

pub use sign::verify;

/// What boots root: `--uki`, or `--linux` and `--initrd`, which `--stub` makes one of.
#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("unified").args(["uki", "stub"])))]
pub struct BootArgs {
    /// Kernel, with an EFI stub of its own; with --initrd, and with --stub or without. Not with --uki.
    #[arg(long, value_name = "FILE", required_unless_present = "uki", requires = "initrd")]
    linux: Option<PathBuf>,
    /// Initial RAM disk.
    #[arg(long, value_name = "FILE", required_unless_present = "uki", requires = "linux")]
    initrd: Option<PathBuf>,
    /// systemd-stub for the image's architecture, such as /usr/lib/systemd/boot/efi/linuxx64.efi.stub: kernel and initrd become
    /// one unified kernel image, which Secure Boot can protect together with the command line.
    #[arg(long, value_name = "FILE", requires = "linux")]
    stub: Option<PathBuf>,
    /// Unified kernel image, in place of --linux and --initrd. Its .cmdline must be the one that this image demands; the error
    /// says which.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["linux", "initrd", "stub"])]
    uki: Option<PathBuf>,
    /// Key to sign the unified kernel image with for Secure Boot, by sbsign. It never gets into an image. Not for the image's own
    /// signatures: these are made with --key.
    ///
    /// The signature holds the time, so that the same inputs give another image a second later: for reproducible images sign
    /// once and give the result with --uki.
    #[arg(long, value_name = "KEY.pem", requires_all = ["sign_cert", "unified"])]
    sign_key: Option<PathBuf>,
    /// The certificate of --sign-key, which the machines' firmware has in its db.
    #[arg(long, value_name = "CERT.pem", requires = "sign_key")]
    sign_cert: Option<PathBuf>,
}

/// What an image to be built is called.
#[derive(Debug, Clone, Copy)]
pub struct Release<'a> {
    /// As in os-release `ID`.
    pub os_id: &'a str,
    /// Its version.
    pub version: &'a str,
    /// Its title.
    pub title: &'a str,
}

/// What boots root, open for reading.
#[derive(Debug)]
pub enum Boot {
    /// Two files.
    Kernel {
        /// The kernel.
        linux: File,
        /// The initial RAM disk.
        initrd: File,
    },
    /// One, and what there is to say about its signature.
    Uki {
        /// The file.
        file: File,
        /// By whom it is signed.
        note: String,
        /// Files that go when the image is built.
        _temporary: Vec<NamedTempFile>,
    },
}

impl BootArgs {
    /// Whether there will be a unified kernel image, whose command line depends on root.
    pub fn is_unified(&self) -> bool {
        self.uki.is_some() || self.stub.is_some()
    }

    /// The files, as an error names them.
    pub fn shown(&self) -> String {
        let files = [&self.stub, &self.linux, &self.initrd, &self.uki];
        files.into_iter().flatten().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    }

    /// Kernel and initrd, as they are.
    pub fn open(&self) -> Result<Boot> {
        let (linux, initrd) = self.kernel_and_initrd()?;
        Ok(Boot::Kernel { linux: open(linux)?, initrd: open(initrd)? })
    }

    /// The unified kernel image: made if it must be, signed if that is asked for, and checked as a device would.
    pub fn unify(&self, release: Release<'_>, expected: &Expected) -> Result<Boot> {
        let keys = self.sign_key.as_deref().zip(self.sign_cert.as_deref());
        let signer = keys.map(|(key, cert)| sign::Signer::new(key, cert)).transpose()?;
        let mut temporary = Vec::new();
        let (mut file, name) = match (&self.uki, &self.stub) {
            (Some(path), _) => (open(path)?, path.display().to_string()),
            (None, Some(stub)) => {
                let (linux, initrd) = self.kernel_and_initrd()?;
                let (made, file) = temporary_file()?;
                make::make(&make::Parts { stub, linux, initrd }, release, expected, &file)?;
                temporary.push(made);
                (file, format!("the unified kernel image made of {}", stub.display()))
            }
            (None, None) => bail!("there is neither a unified kernel image nor a stub to make one of"),
        };
        let checked = check(expected, &mut file).with_context(|| format!("cannot use {name}"))?;
        let Some(signer) = signer else {
            let note = match checked.signed {
                true => "signed for Secure Boot; whose signature it is was not asked (sbverify --list)".to_owned(),
                false => "not signed: firmware with Secure Boot refuses it (--sign-key)".to_owned(),
            };
            return Ok(Boot::Uki { file: rewound(file)?, note, _temporary: temporary });
        };
        if checked.signed {
            bail!("{name} is signed already: leave --sign-key away, or remove its signature (sbattach --remove)");
        }
        let unsigned = match temporary.first() {
            Some(made) => made.path().to_owned(),
            None => self.uki.clone().unwrap_or_default(),
        };
        let (signed, mut file) = temporary_file()?;
        signer.sign(&unsigned, signed.path())?;
        temporary.push(signed);
        // What the signer made of it is what a device will see.
        let checked = check(expected, &mut file).with_context(|| format!("cannot use what sbsign made of {name}"))?;
        if !checked.signed {
            bail!("sbsign ended well and {name} is still not signed");
        }
        let note = format!("signed for Secure Boot by {}", signer.cert.display());
        Ok(Boot::Uki { file: rewound(file)?, note, _temporary: temporary })
    }

    fn kernel_and_initrd(&self) -> Result<(&Path, &Path)> {
        // Demanded of the command line already.
        self.linux.as_deref().zip(self.initrd.as_deref()).context("give --linux and --initrd, or --uki")
    }
}

impl Boot {
    /// As the image's builder takes it.
    pub fn source(&mut self) -> BootSource<'_> {
        match self {
            Boot::Kernel { linux, initrd } => BootSource::Kernel { linux, initrd },
            Boot::Uki { file, .. } => BootSource::Uki(file),
        }
    }

    /// What there is to say about its signature.
    pub fn note(&self) -> Option<&str> {
        match self {
            Boot::Kernel { .. } => None,
            Boot::Uki { note, .. } => Some(note),
        }
    }
}

fn rewound(mut file: File) -> Result<File> {
    file.rewind().context("cannot read the unified kernel image")?;
    Ok(file)
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("cannot open {}", path.display()))
}

/// All of a file that is not long.
pub fn read_short(path: &Path, what: &str, max: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(max + 1).read_to_end(&mut bytes));
    read.with_context(|| format!("cannot read the {what} {}", path.display()))?;
    if bytes.len() as u64 > max {
        bail!("the {what} {} is longer than {}", path.display(), crate::output::size(max));
    }
    Ok(bytes)
}
