//! `ralph-image verify`: every byte of an image, as a device would.

use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, Result};
use image_format::{Manifest, PE_HEAD_LEN, PayloadKind, PayloadReader, Role};

use crate::delta::show;
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
    let image = source::open(&args.image)?;
    if image.is_delta() {
        return show::verify(image, &args.image, &policy, args.base.as_deref());
    }
    let mut image = image.verify(&policy).with_context(|| format!("{} is refused", args.image.display()))?;
    let manifest = image.manifest().clone();
    let (system_id, signers) = (image.system_id(), image.signers().clone());
    let progress = Progress::new("verifying", manifest.payloads.iter().map(|p| p.size).sum());
    let refused = || format!("{} is refused", args.image.display());
    while let Some(payload) = image.next_payload().with_context(refused)? {
        check(payload, &manifest, &progress).with_context(refused)?;
    }
    image.finish().with_context(refused)?;
    drop(progress);
    // Both roles hold, perhaps by different keys.
    let signed = [(Role::Manifest, &signers.manifest), (Role::Transport, &signers.transport)];
    let signed =
        signed.map(|(role, by)| by.iter().map(|id| format!("  {role:9} signed by {id}\n")).collect::<String>());
    let text = format!(
        "{}: good\n  {} {} for {}, epoch {}\n  system id  {system_id}\n{}",
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
