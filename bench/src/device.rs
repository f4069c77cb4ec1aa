//! Loop devices, and `ralph-update`'s own apply on a machine that is none.
//!
//! `ralph-update --disk` takes image files only, which remember nothing, and without it works on the disk that this machine was
//! booted from. So that a block device, or a machine that knows what its slots hold, can be measured at all, [`run`] gives the
//! updater's library a host that is the disk image file in everything but these: a slot may be a loop device over the very same
//! bytes, and records may lie in a folder ([`crate::remember`]).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use boot_entries::guard::{GuardError, GuardRecord};
use boot_entries::state::EspState;
use boot_entries::{BootOptions, FoundVars};
use disk_layout::{DiskLayout, LockError, Slot, SlotBytes, SlotError, SlotFile, SlotIo, SlotReader, UpdateLock};
use image_format::{PublicKey, TrustPolicy};
use qemu_tests::setup;
use updater::apply::{Outcome, Request, apply};
use updater::config::Policy;
use updater::history::Records;
use updater::host::{Access, Host, HostError, ImageFile, OpenEsp, TargetSlot};
use updater::progress::{Mode, reporter};
use updater::refuse::{Downgrade, KnownBad};
use updater::source::Source;
use updater::stop::Stop;

/// A loop device over a part of a file, past the page cache; detached when dropped.
#[derive(Debug)]
pub struct Loop {
    path: PathBuf,
}

impl Loop {
    /// Attaches one.
    ///
    /// # Errors
    /// When this machine cannot: no root, a container, no such driver.
    pub fn attach(file: &Path, offset: u64, len: u64) -> Result<Self> {
        // What a run that was killed left behind would hold the file for ever.
        let left = setup::run(setup::command("losetup").args(["--noheadings", "--output", "NAME", "-j"]).arg(file))?;
        for name in String::from_utf8_lossy(&left).split_whitespace() {
            setup::run(setup::command("losetup").args(["--detach", name]))?;
        }
        let name = setup::run(
            setup::command("losetup")
                .args(["--find", "--show", "--direct-io=on", "--offset", &offset.to_string()])
                .args(["--sizelimit", &len.to_string()])
                .arg(file),
        )?;
        Ok(Self { path: String::from_utf8_lossy(&name).trim().into() })
    }

    /// The device, as `/dev/loopN`.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let detached = Command::new("losetup").arg("--detach").arg(&self.path).status();
        if !detached.is_ok_and(|status| status.success()) {
            eprintln!("{} could not be detached: losetup --detach {}", self.path.display(), self.path.display());
        }
    }
}

/// A disk image file that is a machine's disk.
#[derive(Debug)]
struct Machine {
    disk: ImageFile,
    path: PathBuf,
    /// The target slot, where it is not reached through the file.
    device: Option<PathBuf>,
    /// What runs, and what is remembered; or neither, as with `--disk`.
    booted: Option<BootOptions>,
    records: Records,
}

impl Machine {
    fn open(args: &Args) -> Result<Self> {
        let disk = ImageFile::open(&args.disk)?;
        let (mut booted, mut records) = (None, Records::none());
        if let Some(dir) = &args.records {
            booted = Some(system_in(&disk, Slot::A)?);
            records = Records::in_dir(dir, "bench").taken_for_lasting();
        }
        Ok(Self { disk, path: args.disk.clone(), device: args.slot.clone(), booted, records })
    }
}

/// What the kernel would have been started with by the slot's entry.
fn system_in(disk: &ImageFile, slot: Slot) -> Result<BootOptions> {
    let mut esp = disk.open_esp(Access::ReadOnly)?;
    let state = EspState::read(esp.esp()).context("cannot read the boot entries")?;
    let ours = state.live(slot).with_context(|| format!("nothing boots from slot {slot}"))?;
    let entry = ours.entry.as_ref().map_err(|error| anyhow::anyhow!("{}: {error}", ours.file_name))?;
    Ok(entry.options.clone())
}

impl Host for Machine {
    fn lock(&self) -> Result<UpdateLock, LockError> {
        self.disk.lock()
    }

    fn layout(&self) -> &DiskLayout {
        self.disk.layout()
    }

    fn booted(&self) -> Option<&BootOptions> {
        self.booted.as_ref()
    }

    fn loader_vars(&self) -> FoundVars {
        self.disk.loader_vars()
    }

    fn records(&self) -> &Records {
        &self.records
    }

    fn refuse_lookalikes(&self) -> Result<(), HostError> {
        self.disk.refuse_lookalikes()
    }

    fn open_esp(&self, access: Access) -> Result<Box<dyn OpenEsp>, HostError> {
        self.disk.open_esp(access)
    }

    fn open_slot(&self, slot: TargetSlot) -> Result<Box<dyn SlotIo>, SlotError> {
        match &self.device {
            Some(device) => Ok(Box::new(SlotFile::open_partition(device, self.layout().slot(slot.slot()))?)),
            None => self.disk.open_slot(slot),
        }
    }

    fn read_slot(&self, slot: Slot) -> Option<Box<dyn SlotBytes>> {
        let part = self.layout().slot(slot);
        let reader = SlotReader::open(&self.path, part.start, part.len).ok()?;
        Some(Box::new(reader))
    }

    fn read_guard(&self) -> Result<GuardRecord, GuardError> {
        self.disk.read_guard()
    }

    fn write_guard(&self, lock: &UpdateLock, record: &GuardRecord) -> Result<(), GuardError> {
        self.disk.write_guard(lock, record)
    }

    fn is_blank(&self, slot: Slot) -> Option<bool> {
        self.disk.is_blank(slot)
    }
}

/// Arguments of `update-bench apply`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The disk image file.
    #[arg(long, value_name = "FILE")]
    disk: PathBuf,
    /// A block device over its target slot.
    #[arg(long, value_name = "DEVICE")]
    slot: Option<PathBuf>,
    /// The folder of the machine's records; then slot A runs. Without it nothing does.
    #[arg(long, value_name = "DIR")]
    records: Option<PathBuf>,
    /// As `ralph-update apply` takes it.
    #[arg(long, value_name = "N")]
    workers: Option<std::num::NonZeroUsize>,
    /// The public key to trust.
    #[arg(long, value_name = "PUB.pem")]
    trust: PathBuf,
    /// As `ralph-update apply` takes it.
    #[arg(value_name = "IMAGE|URL")]
    image: Source,
}

/// `update-bench apply`: what `ralph-update apply` does on a machine.
///
/// # Errors
/// When the image is not applied.
pub fn run(args: &Args) -> Result<()> {
    let pem = std::fs::read_to_string(&args.trust).with_context(|| format!("cannot read {}", args.trust.display()))?;
    let trust = TrustPolicy::new(vec![PublicKey::from_pem(&pem)?], std::num::NonZeroUsize::MIN)?;
    let host = Machine::open(args)?;
    let request = Request {
        trust: &trust,
        policy: &Policy::default(),
        downgrade: Downgrade::Refuse,
        known_bad: KnownBad::Refuse,
        stop: &Stop::default(),
        workers: args.workers,
    };
    let stream = args.image.open()?;
    match apply(&host, stream.reader, &request, &mut *reporter(Mode::Json))? {
        Outcome::Staged(_) => Ok(()),
        other => bail!("nothing was written: {other:?}"),
    }
}
