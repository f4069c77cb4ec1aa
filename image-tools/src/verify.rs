//! `ralph-image verify`: every byte of an image, as a device would.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use image_format::{Manifest, PE_HEAD_LEN, PayloadKind, PayloadReader, Role};

use crate::keys::TrustArgs;
use crate::output;
use crate::progress::Progress;
use crate::source::{self, Source};

/// Check every byte of an image, as a device would
///
/// Reads from standard input when IMAGE is "-".
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image.
    image: PathBuf,
    #[command(flatten)]
    trust: TrustArgs,
    /// For a delta: the root of the base system, as `extract --payload root` gives it. Without it only the delta's own bytes are checked.
    #[arg(long, value_name = "ROOT")]
    base: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let policy = args.trust.policy()?;
    let refused = || format!("{} is refused", args.image.display());
    let mut image = source::open(&args.image)?.verify_any(&policy).with_context(refused)?;
    let from = image.base();
    match (&args.base, from) {
        (Some(_), None) => bail!("{} is no delta: it needs no --base", args.image.display()),
        (Some(path), Some(_)) => {
            let root = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
            image = image.on_base(root);
        }
        (None, _) => {}
    }
    // What a delta makes of a base that is not at hand cannot be looked at.
    let whole_only = from.is_some() && args.base.is_none();
    let manifest = image.manifest().clone();
    let (system_id, signers) = (image.system_id(), image.signers().clone());
    let progress = Progress::new("verifying", manifest.payloads.iter().map(|p| p.size).sum());
    while let Some(payload) = image.next_payload().with_context(refused)? {
        let checked =
            if whole_only { payload.drain().map_err(Into::into) } else { check(payload, &manifest, &progress) };
        checked.with_context(refused)?;
    }
    image.finish().with_context(refused)?;
    drop(progress);
    // Both roles hold, perhaps by different keys.
    let signed = [(Role::Manifest, &signers.manifest), (Role::Transport, &signers.transport)];
    let signed =
        signed.map(|(role, by)| by.iter().map(|id| format!("  {role:9} signed by {id}\n")).collect::<String>());
    let told = if whole_only { "whole; what it makes of its base was not looked at (--base)" } else { "good" };
    let from = from.map(|base| format!("  from       {base}\n")).unwrap_or_default();
    let text = format!(
        "{}: {told}\n  {} {} for {}, epoch {}\n  system id  {system_id}\n{from}{}",
        args.image.display(),
        manifest.os_id,
        manifest.version,
        manifest.architecture,
        manifest.epoch,
        signed.concat(),
    );
    output::print(text.as_bytes())
}

/// Reads one payload to its end, with the checks that a device makes when it uses it.
fn check(mut payload: PayloadReader<'_, Source>, manifest: &Manifest, progress: &Progress) -> Result<()> {
    match payload.payload().kind.clone() {
        PayloadKind::Root(verity) => {
            let data = verity.hash_offset;
            source::read_root(payload, &verity, &mut |offset, bytes| {
                if offset < data {
                    progress.add(bytes.len() as u64);
                }
                Ok(())
            })
        }
        PayloadKind::Uki { .. } => source::read_uki(payload, manifest, &mut |len| progress.add(len)).map(drop),
        PayloadKind::Linux { .. } => {
            let mut head = Vec::new();
            (&mut payload).take(PE_HEAD_LEN as u64).read_to_end(&mut head)?;
            source::check_kernel(&head, manifest.architecture)?;
            read_to_end(payload, progress)
        }
        PayloadKind::Initrd | PayloadKind::Unknown(_) => read_to_end(payload, progress),
    }
}

fn read_to_end(mut payload: PayloadReader<'_, Source>, progress: &Progress) -> Result<()> {
    while let Some(chunk) = payload.next_chunk()? {
        progress.add(chunk.bytes.len() as u64);
    }
    Ok(())
}
