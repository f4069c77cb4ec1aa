//! `ralph-image sign`: one signature more, by a key here or elsewhere.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use image_format::{Role, SignOutcome, UnverifiedImage, add_signature, attach_signature};

use crate::keys;
use crate::output::{self, NewFile, OutputArgs};
use crate::remarks;
use crate::source;

/// A raw signature has 64 bytes; what is longer is not read to its end.
const SIGNATURE_FILE_MAX: u64 = 4096;

/// Add a signature to an image; nothing else in it changes
///
/// For a key that lives elsewhere: --print-tbs writes the exact bytes to sign, once for each role; --attach adds the raw 64-byte
/// Ed25519 signature. Whoever signs vouches for the image: signatures that it has already are not checked, and what its manifest holds besides
/// the known fields is named on standard error.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("action").required(true).args(["keys", "print_tbs", "attach"]))]
pub struct Args {
    /// The image.
    image: PathBuf,
    /// Private key to sign with; may be given several times.
    #[arg(long = "key", value_name = "KEY.pem")]
    keys: Vec<PathBuf>,
    /// What to sign: by default both with --key, the manifest with --print-tbs.
    #[arg(long, value_enum, conflicts_with = "attach")]
    role: Option<RoleArg>,
    /// Write the exact bytes that a signature must be made of.
    #[arg(long)]
    print_tbs: bool,
    /// Where --print-tbs writes instead of standard output.
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["keys", "attach"])]
    output: Option<PathBuf>,
    /// Replace the file of --output if it is there.
    #[arg(long, requires = "output")]
    force: bool,
    /// Add a raw 64-byte Ed25519 signature; its role is found by trying.
    #[arg(long, value_name = "SIG", requires = "public")]
    attach: Option<PathBuf>,
    /// The public key of the signature to attach.
    #[arg(long, value_name = "PUB.pem", requires = "attach")]
    public: Option<PathBuf>,
}

/// [`Role`] on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RoleArg {
    /// The content.
    Manifest,
    /// How this file carries it.
    Transport,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Role {
        match role {
            RoleArg::Manifest => Role::Manifest,
            RoleArg::Transport => Role::Transport,
        }
    }
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    if args.print_tbs {
        return print_tbs(args);
    }
    let mut text = String::new();
    if let (Some(signature), Some(public)) = (&args.attach, &args.public) {
        let key = keys::public(public)?;
        let signature = read_signature(signature)?;
        let mut image = open_to_sign(&args.image)?;
        let (role, outcome) = attach_signature(&mut image, &key, &signature)
            .with_context(|| format!("cannot attach the signature to {}", args.image.display()))?;
        text += &format!("{}: {}\n", key.key_id(), said(outcome, &role.to_string()));
    } else {
        let keys = args.keys.iter().map(|path| keys::private(path)).collect::<Result<Vec<_>>>()?;
        let roles = args.role.map_or(Role::ALL.to_vec(), |role| vec![role.into()]);
        let names = roles.iter().map(Role::to_string).collect::<Vec<_>>().join(" and ");
        let mut image = open_to_sign(&args.image)?;
        for key in keys {
            let outcome = add_signature(&mut image, &key, &roles)
                .with_context(|| format!("cannot sign {}", args.image.display()))?;
            text += &format!("{}: {}\n", key.public().key_id(), said(outcome, &names));
        }
    }
    text += &missing(&args.image)?;
    output::print(text.as_bytes())
}

fn said(outcome: SignOutcome, what: &str) -> String {
    match outcome {
        SignOutcome::Added => format!("signed {what}"),
        SignOutcome::AlreadySigned => format!("had signed {what} already"),
    }
}

/// What still keeps every machine from taking the image.
fn missing(image: &Path) -> Result<String> {
    let head = source::open(image)?;
    let signed = |role: Role| head.signatures().records().iter().any(|record| record.role == role);
    let missing = Role::ALL.into_iter().filter(|role| !signed(*role));
    Ok(missing.map(|role| format!("no key has signed the {role} yet: no machine will take the image\n")).collect())
}

fn print_tbs(args: &Args) -> Result<()> {
    let image = source::open(&args.image)?;
    let manifest = image
        .claims()
        .map(|claims| claims.manifest)
        .with_context(|| format!("{} is not worth a signature", args.image.display()))?;
    remarks::warn(&image, &manifest)?;
    let bytes = image.to_be_signed(args.role.unwrap_or(RoleArg::Manifest).into());
    match &args.output {
        None => output::print(&bytes),
        Some(output) => {
            let mut new = NewFile::create(&OutputArgs { output: output.clone(), force: args.force })?;
            new.file().write_all(&bytes).with_context(|| format!("cannot write {}", output.display()))?;
            new.finish()
        }
    }
}

/// Opens an image to change it, and names what its signers should know before it is signed.
fn open_to_sign(path: &Path) -> Result<File> {
    let file = open_locked(path)?;
    let head = UnverifiedImage::read_head(BufReader::new(&file));
    let head = head.with_context(|| format!("cannot sign {}", path.display()))?;
    let manifest = head
        .claims()
        .map(|claims| claims.manifest)
        .with_context(|| format!("{} is not worth a signature", path.display()))?;
    remarks::warn(&head, &manifest)?;
    Ok(file)
}

/// Opens an image to change it, and keeps another `sign` from doing so at the same time.
fn open_locked(path: &Path) -> Result<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| format!("cannot open {} to sign it", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => bail!("{} is being signed by another program", path.display()),
        Err(std::fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

fn read_signature(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(SIGNATURE_FILE_MAX).read_to_end(&mut bytes))
        .with_context(|| format!("cannot read the signature {}", path.display()))?;
    Ok(bytes)
}
