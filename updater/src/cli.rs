//! The command line of `ralph-update`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use disk_layout::Slot;

use updater::fetch::Rate;
use updater::progress::Mode;
use updater::source::Source;

/// Keeps a two-slot machine up to date: streams signed images into the slot that is not running and stages them on
/// trial.
#[derive(Debug, Parser)]
#[command(
    name = "ralph-update",
    version,
    max_term_width = 100,
    after_help = "\
Exit codes: 0 done, 1 failed, 2 usage, 3 refused by a rule (nothing changed), 4 nothing to do, 5 another program is at work,
6 the doctor found what endangers the next boot or update.
Something went wrong? `ralph-update explain` tells what and why, and what to do."
)]
pub struct Cli {
    /// Work on a disk image file instead of this machine; needs no root
    #[arg(long, value_name = "FILE", global = true)]
    pub disk: Option<PathBuf>,
    /// Print one JSON object on standard output
    #[arg(long, global = true)]
    pub json: bool,
    /// Take policy (update.toml) and keys (keys/*.pem) from this folder only
    #[arg(long, value_name = "DIR", global = true)]
    pub config: Option<PathBuf>,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write an image into the slot that is not running and stage it for a trial boot
    ///
    /// A delta does as well, on a machine that runs the system it was made from. Where a list of deltas lies beside an image on a
    /// server, the cheapest is taken without asking.
    Apply(Apply),
    /// Tell which slot runs, what each slot holds, and what boots next
    Status,
    /// Read an image to its end and check every byte, as `apply` would; changes nothing
    Verify(Verify),
    /// Mark the running system bad, so that the other slot boots next
    Rollback {
        /// Reboot at once
        #[arg(long)]
        reboot: bool,
    },
    /// Commit the running trial by hand (the health check does it by itself)
    Commit,
    /// Mark a slot bad
    Reject {
        /// The slot, a or b
        slot: Slot,
    },
    /// Tell what boots next and each thing that endangers it or the next update, with what to do
    ///
    /// Looks at entries, loader, EFI partition, partition table, watchdog and clock; changes nothing without --fix, and works while
    /// another program is at work. Exit code 6: there is a danger.
    Doctor {
        /// Repair what is safe to repair, one durable step at a time, and say what was done
        #[arg(long)]
        fix: bool,
    },
    /// Bring the boot loader that the running system carries one step further: on trial, or in the default's place
    ///
    /// It is tried by the next boot, once, and becomes the default when it has started this system; the one before it is kept. On every
    /// boot a unit does this by itself.
    Loader {
        /// Try one again that was tried and did not start the system
        #[arg(long)]
        retry: bool,
    },
    /// Explain in plain words what runs and why, what boots next, what became of each update, and what to do
    ///
    /// For the moment when something went wrong: which boots were tried, which checks failed in each and what they printed, what
    /// the boot guard saw. Works from either slot, without /var, and while another program is at work; changes nothing.
    Explain,
    /// Tell what happened on this machine as a log, one line an event, oldest first
    ///
    /// Times are UTC by the machine's clock; `?` where it was clearly wrong.
    History,
}

/// Arguments of `apply`.
#[derive(Debug, Args)]
pub struct Apply {
    /// An image or a delta: a file, - for standard input, or an http(s) address
    #[arg(value_name = "IMAGE|-|URL")]
    pub image: Source,
    #[command(flatten)]
    pub mirrors: Mirrors,
    #[command(flatten)]
    pub trust: Trust,
    /// Accept an image older than the running system (never one below the security floor)
    #[arg(long)]
    pub allow_downgrade: bool,
    /// Accept an image that failed on this machine before, or that fell back three times without evidence
    #[arg(long)]
    pub retry_failed: bool,
    /// Take no more than so many bytes a second from the source, such as 500k, 2M or 1G
    #[arg(long, value_name = "RATE")]
    pub limit_rate: Option<Rate>,
    /// Stand back behind everything else that wants the disk or a processor
    #[arg(long)]
    pub background: bool,
    /// Threads that work on the slot (default: one more than there are processors, as far as memory allows)
    #[arg(long, value_name = "N")]
    pub workers: Option<NonZeroUsize>,
    /// Reboot into the trial when all is staged
    #[arg(long)]
    pub reboot: bool,
    /// How to tell the progress, on standard error
    #[arg(long, value_enum, default_value = "auto")]
    pub progress: Mode,
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// A file, - for standard input, or an http(s) address; an image or a delta
    #[arg(value_name = "IMAGE|-|URL")]
    pub image: Source,
    #[command(flatten)]
    pub mirrors: Mirrors,
    #[command(flatten)]
    pub trust: Trust,
}

/// Who else has the image.
#[derive(Debug, Args)]
pub struct Mirrors {
    /// Another address of the same image, asked when the first fails; a folder if it ends in /; may be repeated
    #[arg(long = "mirror", value_name = "URL")]
    pub urls: Vec<String>,
}

/// Whom to trust.
#[derive(Debug, Args)]
pub struct Trust {
    /// Trust this public key (PEM) instead of the configured ones; may be repeated
    #[arg(long = "trust", value_name = "PUB.pem")]
    pub keys: Vec<PathBuf>,
}
