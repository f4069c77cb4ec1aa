//! Boots a state of the disk for real: the firmware, the systemd-boot on the disk, a real kernel, and an initrd that prints what the
//! entry says.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use boot_entries::loader::LoaderVars;
use boot_entries::{BootOptions, EspState, ImageEsp, Prediction};
use disk_layout::{DiskLayout, FileWindow};

use super::states::Patch;
use super::tiny::{plain_disk, talk};
use crate::arch::Arch;
use crate::board::Board;
use crate::setup::{self, run};
use crate::vm::{BOOT_TIMEOUT, slots};

/// What was booted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Booted {
    /// `a` or `b`.
    pub slot: String,
    /// Its generation.
    pub generation: u32,
}

/// Makes a disk that is `base` but for `patch`.
///
/// # Errors
/// When it cannot be made.
pub fn disk_in_state(base: &Path, patch: &Patch, disk: &Path) -> Result<()> {
    run(setup::command("cp").args(["--sparse=always", "--reflink=auto"]).arg(base).arg(disk))?;
    let file = File::options().write(true).open(disk)?;
    for (offset, bytes) in patch {
        file.write_all_at(bytes, *offset).with_context(|| format!("cannot write to {}", disk.display()))?;
    }
    Ok(())
}

/// Boots a disk until the initrd has spoken.
///
/// # Errors
/// When it does not within [`BOOT_TIMEOUT`]: the machine would sit in its firmware. With what the console said.
pub fn boot(disk: &Path, dir: &Path) -> Result<Booted> {
    boot_on(Arch::of_disk(disk)?, plain_disk(disk), dir)
}

/// As [`boot`], on a machine of `arch`, with QEMU's options for the disk.
///
/// # Errors
/// As [`boot`].
pub fn boot_on(arch: Arch, disk: Vec<String>, dir: &Path) -> Result<Booted> {
    let _slot = slots::take();
    let vars: PathBuf = dir.join("variables.fd");
    let board = Board::from(arch);
    std::fs::copy(board.flash().1, &vars).with_context(|| format!("cannot make {}", vars.display()))?;
    let mut qemu = board.qemu(256, &vars);
    qemu.args(["-nic", "none", "-serial", "stdio"])
        .args(&disk)
        .args(["-device", "virtio-blk-pci,drive=disk,bootindex=0"]);
    let said = talk(qemu, BOOT_TIMEOUT, &mut |_| {})?;
    for line in &said {
        if let Some((_, options)) = line.split_once("cmdline: ") {
            // The loader puts `initrd=` in front.
            let options = options.split(' ').filter(|word| !word.starts_with("initrd=")).collect::<Vec<_>>().join(" ");
            let options = BootOptions::parse(&options).with_context(|| format!("not ours: {options}"))?;
            return Ok(Booted { slot: options.slot.to_string(), generation: options.generation.get() });
        }
    }
    bail!("the machine ended without a word of the initrd:\n{}", said.join("\n"))
}

/// What the loader model says of the disk.
///
/// # Errors
/// When the disk cannot be read, or nothing of ours boots.
pub fn predicted(disk: &Path) -> Result<Booted> {
    let layout = DiskLayout::open(disk)?;
    let mut esp = ImageEsp::new(FileWindow::new(File::open(disk)?, layout.esp.start, layout.esp.len)?);
    match EspState::read(&mut esp)?.predict(&LoaderVars::default(), Arch::of_disk(disk)?.entry()) {
        Prediction::Boots { entry: Some(name), .. } => {
            Ok(Booted { slot: name.slot.to_string(), generation: name.generation.get() })
        }
        other => bail!("the loader would boot no entry of ours: {other:?}"),
    }
}
