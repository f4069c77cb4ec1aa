//! `ralph-image build`: an image from a root file system and what boots it.

use std::fmt::Write as _;
use std::fs::File;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use image_format::{
    Architecture, DEFAULT_CHUNK_LEN, DEFAULT_LEVEL, ImageSpec, MAX_LEVEL, PrivateKey, Sources, UpdaterVersion,
    check_options, root_verity,
};
use updater::uki::{Expected, System};

use crate::cut::{self, Cut};
use crate::keys;
use crate::output::{self, NewFile, OutputArgs};
use crate::progress::Progress;
use crate::uki::{Boot, BootArgs, Release};

/// The first updater that reads image format 1: any updater.
const FIRST_UPDATER: &str = "0.1.0";

/// Build an image from a root file system and what boots it: kernel and initrd, or a unified kernel image
///
/// The same inputs and options give the same file, byte for byte (but for --sign-key).
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Root file system image (erofs or ext4).
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    #[command(flatten)]
    boot: BootArgs,
    /// As ID in os-release: a machine takes no other system's images.
    #[arg(long, value_name = "ID")]
    os_id: String,
    /// Version, ordered as in UAPI.10.
    #[arg(long, value_name = "VERSION")]
    version: String,
    /// x86_64 or aarch64; the kernel must be for it.
    #[arg(long, value_name = "ARCH")]
    arch: Architecture,
    /// Security epoch: machines never go back below the highest one they have committed.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    epoch: u32,
    /// Title in the boot menu.
    #[arg(long, value_name = "TEXT", default_value = "RalphOS")]
    title: String,
    /// Kernel options of the image; those for root and verity are added by the updater.
    #[arg(long, value_name = "OPTIONS", default_value = "", allow_hyphen_values = true)]
    cmdline: String,
    /// Hardware the image fits; may be given several times. None: any.
    #[arg(long, value_name = "NAME")]
    compatible: Vec<String>,
    /// The least version of ralph-update that may apply the image.
    #[arg(long, value_name = "X.Y.Z", default_value = FIRST_UPDATER)]
    min_updater: UpdaterVersion,
    /// zstd compression level.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_LEVEL, value_parser = clap::value_parser!(i32).range(1..=i64::from(MAX_LEVEL)))]
    level: i32,
    /// How to cut root into chunks; the other payloads are cut into chunks of --chunk-size.
    #[arg(long, value_enum, default_value_t = Cut::Files)]
    cut: Cut,
    /// Plain bytes in a chunk of fixed size, a multiple of 4096 up to 4M.
    #[arg(long, value_name = "SIZE", default_value_t = u64::from(DEFAULT_CHUNK_LEN), value_parser = disk_layout::parse_size)]
    chunk_size: u64,
    /// Threads that compress, 256 at most; the result does not depend on it. Default: one for each processor.
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Private key to sign with; may be given several times.
    #[arg(long = "key", value_name = "KEY.pem", required_unless_present = "unsigned")]
    keys: Vec<PathBuf>,
    /// Do not sign; see `ralph-image sign`.
    #[arg(long, conflicts_with = "keys")]
    unsigned: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let keys = args.keys.iter().map(|path| keys::private(path)).collect::<Result<Vec<PrivateKey>>>()?;
    let mut root = open(&args.root)?;
    let mut new = NewFile::create(&args.output)?;
    let mut boot = open_boot(args, &mut root)?;
    let cuts = cut::cut(args.cut, &root, &args.root)?;
    let spec = ImageSpec {
        os_id: args.os_id.clone(),
        version: args.version.clone(),
        architecture: args.arch,
        compatible: args.compatible.clone(),
        epoch: args.epoch,
        min_updater: args.min_updater,
        title: args.title.clone(),
        options: args.cmdline.clone(),
        level: args.level,
        // Too large for 32 bits is too large for a chunk, and said so by the builder.
        chunk_len: u32::try_from(args.chunk_size).unwrap_or(u32::MAX),
        workers: args.threads,
    };
    let sources = Sources { root: &mut root, boot: boot.source() };
    let progress = Progress::new("building", 0);
    let mut tell = |done, total| progress.set(done, total);
    let built = match &cuts.lens {
        Some(lens) => image_format::build_cut(&spec, lens, sources, &keys, new.file(), &mut tell),
        None => image_format::build(&spec, sources, &keys, new.file(), &mut tell),
    }
    .with_context(|| format!("cannot build an image of {} and {}", args.root.display(), args.boot.shown()))?;
    drop(progress);
    new.finish()?;

    let mut text = format!("{}\n", args.output.output.display());
    let plain: u64 = built.manifest.payloads.iter().map(|p| p.size).sum();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "  {} {} for {}, epoch {}", args.os_id, args.version, args.arch, args.epoch);
    let _ = writeln!(text, "  system id  {}", built.system_id);
    let size = output::size(built.file_len);
    let _ = writeln!(text, "  size       {size} in {} chunks, of {} plain", built.chunks, output::size(plain));
    if let Some(note) = &cuts.note {
        let _ = writeln!(text, "  note       {note}");
    }
    if let Some(note) = boot.note() {
        let _ = writeln!(text, "  UKI        {note}");
    }
    for (key, path) in keys.iter().zip(&args.keys) {
        let _ = writeln!(text, "  signed by  {} ({})", key.public().key_id(), path.display());
    }
    if keys.is_empty() {
        text.push_str("  not signed: no machine will take it\n");
    }
    output::print(text.as_bytes())
}

/// What boots root. A unified kernel image names root's hash, which is the same whatever is built with it (`IMG-19`).
fn open_boot(args: &Args, root: &mut File) -> Result<Boot> {
    if !args.boot.is_unified() {
        return args.boot.open();
    }
    // Else the command line that is asked for could never be an image's.
    check_options(&args.cmdline).context("the options of --cmdline would be refused")?;
    let verity = root_verity(root).with_context(|| format!("cannot hash {}", args.root.display()))?;
    let system = System {
        root_hash: &verity.root_hash,
        hash_offset: verity.hash_offset,
        epoch: args.epoch,
        version: &args.version,
        options: &args.cmdline,
    };
    let expected = Expected { architecture: args.arch, command_line: system.command_line() };
    args.boot.unify(Release { os_id: &args.os_id, version: &args.version, title: &args.title }, &expected)
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("cannot open {}", path.display()))
}
