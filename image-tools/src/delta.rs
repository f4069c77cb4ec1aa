//! `ralph-image delta`: what a machine needs to make one system of another.

mod plan;
pub mod show;

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use file_map::{MapError, MappedFile};
use image_format::{Chunk, MAX_LEVEL, NewSystem, PayloadKind, PrivateKey, SystemId, TrustPolicy, build_delta};

use crate::keys::{self, TrustArgs};
use crate::output::{self, NewFile, OutputArgs};
use crate::progress::Progress;
use crate::source;

/// Make a delta: what a machine that runs OLD needs to become NEW
///
/// The delta carries NEW's manifest with its signatures, so it is the same system; how it is carried is signed anew, by --sign-key here or later by
/// `ralph-image sign --role transport`. Both images are checked first, as a device would. The same images and options give the same file.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image of the system that the machine runs.
    old: PathBuf,
    /// The image of the system that it shall become.
    new: PathBuf,
    #[command(flatten)]
    trust: TrustArgs,
    /// Private key to sign the transport with; may be given several times.
    #[arg(long = "sign-key", value_name = "KEY.pem", required_unless_present = "unsigned")]
    sign_keys: Vec<PathBuf>,
    /// Do not sign; see `ralph-image sign`.
    #[arg(long, conflicts_with = "sign_keys")]
    unsigned: bool,
    /// zstd compression level.
    #[arg(long, value_name = "N", default_value_t = MAX_LEVEL, value_parser = clap::value_parser!(i32).range(1..=i64::from(MAX_LEVEL)))]
    level: i32,
    /// Threads that compress; the result does not depend on it. Default: one for each processor.
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    #[command(flatten)]
    output: OutputArgs,
}

/// A system whose root lies in a file, checked.
struct System {
    id: SystemId,
    version: String,
    chunks: Vec<Chunk>,
    data_start: u64,
    root: File,
    files: Vec<MappedFile>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let keys = args.sign_keys.iter().map(|path| keys::private(path)).collect::<Result<Vec<PrivateKey>>>()?;
    let policy = args.trust.policy()?;
    if let Some(path) = [&args.old, &args.new].into_iter().find(|path| path.as_os_str() == "-") {
        bail!("{} has to be a file: both images are read more than once", path.display());
    }
    let mut out = NewFile::create(&args.output)?;
    let old = open(&args.old, &policy, &args.output.output)?;
    let new = open(&args.new, &policy, &args.output.output)?;
    if old.id == new.id {
        bail!("{} and {} are the same system", args.old.display(), args.new.display());
    }
    let root = |chunks: &[Chunk]| chunks.iter().filter(|chunk| chunk.payload == 0).copied().collect::<Vec<_>>();
    let old_root = plan::Root { chunks: &root(&old.chunks), files: &old.files };
    let new_root = plan::Root { chunks: &root(&new.chunks), files: &new.files };
    let pieces = plan::plan(&old_root, &new_root);

    let file = File::open(&args.new).with_context(|| format!("cannot open {}", args.new.display()))?;
    let mut encoded = |chunk: &Chunk| {
        let mut bytes = vec![0; chunk.encoded_len as usize];
        file.read_exact_at(&mut bytes, new.data_start + chunk.encoded_offset).map(|()| bytes)
    };
    let image = source::open(&args.new)?;
    if image.claimed_system_id() != new.id {
        bail!("{} was replaced while it was read", args.new.display());
    }
    let system = NewSystem { image: &image, root: &new.root, encoded: &mut encoded };
    let total = pieces.iter().map(|piece| u64::from(piece.len)).sum();
    let progress = Progress::new("comparing", total);
    build_delta(system, old.id, &old.root, &pieces, args.level, args.threads, &keys, out.file(), &mut |done| {
        progress.set(done, total);
    })
    .with_context(|| format!("cannot make a delta from {} to {}", args.old.display(), args.new.display()))?;
    drop(progress);
    let len = out.file().metadata().map(|metadata| metadata.len()).unwrap_or_default();
    out.finish()?;
    let mut text = format!(
        "{}\n  from       {} ({})\n  to         {} ({})\n  size       {} ({len} bytes)\n",
        args.output.output.display(),
        old.version,
        old.id,
        new.version,
        new.id,
        output::size(len),
    );
    for (key, path) in keys.iter().zip(&args.sign_keys) {
        text += &format!("  signed by  {} ({})\n", key.public().key_id(), path.display());
    }
    if keys.is_empty() {
        text += "  not signed: no machine will take it\n";
    }
    output::print(text.as_bytes())
}

/// Checks an image and lays its root out in a file without a name, beside `output`.
fn open(path: &Path, policy: &TrustPolicy, output: &Path) -> Result<System> {
    let mut image = source::open_verified(path, policy)?;
    let refused = || format!("{} is refused", path.display());
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let root = tempfile::tempfile_in(folder).with_context(|| format!("cannot make a file in {}", folder.display()))?;
    let (size, verity) = {
        let (payload, verity) = image.manifest().root();
        (payload.size, verity.clone())
    };
    let payload = image.next_payload().with_context(refused)?;
    let payload = payload.filter(|payload| matches!(payload.payload().kind, PayloadKind::Root(_)));
    let payload = payload.with_context(|| format!("{} does not begin with a root (IMG-14)", path.display()))?;
    source::read_root(payload, &verity, &mut |offset, bytes| {
        if offset < size && bytes.iter().any(|byte| *byte != 0) {
            root.write_all_at(bytes, offset)?;
        }
        Ok::<(), io::Error>(())
    })
    .with_context(refused)?;
    root.set_len(size).with_context(|| format!("cannot write a file in {}", folder.display()))?;
    let files = match file_map::read(&root, size) {
        Ok(map) => plan::with_a_place(map),
        Err(error @ MapError::Read { .. }) => return Err(error).context("cannot read a root that was just written"),
        // Without a map the delta is larger, not wrong.
        Err(error) => {
            eprintln!("{}: its files are not known, so the delta is larger: {error}", path.display());
            Vec::new()
        }
    };
    Ok(System {
        id: image.system_id(),
        version: image.manifest().version.clone(),
        chunks: image.chunks().to_vec(),
        data_start: image.data_start(),
        root,
        files,
    })
}
