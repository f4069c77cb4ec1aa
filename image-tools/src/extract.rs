//! `ralph-image extract`: one payload out of an image.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::keys::TrustArgs;
use crate::output::{NewFile, OutputArgs};
use crate::progress::Progress;
use crate::source;

/// Take one payload out of an image, after checking it
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image; "-" is standard input.
    image: PathBuf,
    #[command(flatten)]
    trust: TrustArgs,
    /// Which payload: root; linux or initrd, or uki.
    #[arg(long, value_name = "NAME")]
    payload: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let policy = args.trust.policy()?;
    let mut image = source::open_verified(&args.image, &policy)?;
    let payloads = &image.manifest().payloads;
    let Some(wanted) = payloads.iter().find(|p| p.name == args.payload) else {
        let names: Vec<&str> = payloads.iter().map(|p| p.name.as_str()).collect();
        bail!("{} has no payload {:?}; it has {}", args.image.display(), args.payload, names.join(", "));
    };
    let progress = Progress::new("extracting", wanted.size);
    let mut new = NewFile::create(&args.output)?;
    let refused = || format!("{} is refused", args.image.display());
    while let Some(mut payload) = image.next_payload().with_context(refused)? {
        if payload.payload().name != args.payload {
            payload.drain().with_context(refused)?;
            continue;
        }
        while let Some(chunk) = payload.next_chunk().with_context(refused)? {
            let written = new.file().write_all(chunk.bytes);
            written.with_context(|| format!("cannot write {}", args.output.output.display()))?;
            progress.add(chunk.bytes.len() as u64);
        }
        break;
    }
    new.finish()
}
