//! Runs a flow in the tiny guest and keeps every write and flush that reaches the disk.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::bench::{Bench, LOADER_CONF};
use super::boots;
use super::flow::{FIRMWARE, Flow};
use super::tiny::{Tiny, logged_disk};
use crate::esp::Esp;
use crate::setup::{self, run};

/// What was recorded: the disk before, and what was done to it.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The disk as the flow found it.
    pub base: PathBuf,
    /// Every write and flush, as dm-log-writes keeps them.
    pub log: PathBuf,
    /// `flow.json`: what may boot in its states (CUT-40).
    pub about: PathBuf,
}

impl Recording {
    /// Makes the disk of `flow` in `dir`, runs the flow on it, and checks how it ended.
    ///
    /// # Errors
    /// When a program or the guest fails, or what they left is not what the flow promises.
    pub fn make(bench: &Bench<'_>, flow: &Flow, dir: &Path) -> Result<Recording> {
        let context = || format!("recording {}", flow.name);
        let base = bench.base(flow, dir).with_context(context)?;
        let (disk, log) = (dir.join("disk.raw"), dir.join("w.log"));
        run(setup::command("cp").arg("--sparse=always").arg(&base).arg(&disk))?;
        let job = json!({ "mode": "record", "slot": flow.runs, "op": flow.op.json() });
        let image = if flow.applies == 0 { None } else { Some(bench.image(flow.applies)?) };
        let mut files: Vec<(&str, &Path)> = vec![("release.pub.pem", bench.public_key())];
        files.extend(image.iter().map(|path| ("image.zst", path.as_path())));
        let tiny = Tiny {
            disk: logged_disk(&disk, &log)?,
            states: None,
            job: &job,
            files: &files,
            dir,
            timeout: Duration::from_secs(600),
        };
        let said = tiny.run(&mut |_| {}).with_context(context)?;
        std::fs::write(dir.join("console.txt"), said.join("\n"))?;
        let about = about(flow, &base, &disk, dir)?;
        std::fs::remove_file(&disk)?;
        Ok(Recording { base, log, about })
    }

    /// Records how the firmware counts: a real boot of a staged system by this boot loader.
    ///
    /// # Errors
    /// When the machine does not come up with the staged system.
    pub fn of_firmware(bench: &Bench<'_>, loader: &Path, dir: &Path) -> Result<Recording> {
        let base = bench.base(&FIRMWARE, dir)?;
        Esp::of_disk(&base)?.copy_in(loader, "EFI/BOOT/BOOTX64.EFI")?;
        let (disk, log) = (dir.join("disk.raw"), dir.join("w.log"));
        run(setup::command("cp").arg("--sparse=always").arg(&base).arg(&disk))?;
        let booted = boots::boot_on(logged_disk(&disk, &log)?, dir)?;
        ensure!(booted.slot == FIRMWARE.runs, "the machine booted {booted:?} and not what was staged");
        let about = about(&FIRMWARE, &base, &disk, dir)?;
        std::fs::remove_file(&disk)?;
        Ok(Recording { base, log, about })
    }
}

/// Writes what `power-cuts` wants to know of the flow (CUT-40), after a look whether it is so.
fn about(flow: &Flow, base: &Path, disk: &Path, dir: &Path) -> Result<PathBuf> {
    for ((slot, generation), disk) in [(flow.before, base), (flow.after, disk)] {
        let booted = boots::predicted(disk)?;
        let so = (booted.slot.as_str(), booted.generation) == (slot, generation);
        ensure!(so, "{}: {booted:?} would boot, and not slot {slot}, generation {generation}", flow.name);
    }
    let system = |(slot, generation): (&str, u32)| json!([{ "slot": slot, "generation": generation }]);
    let conf = flow.comments.map(|line| commented(base, line)).transpose()?;
    let text = json!({
        "format": "power-cuts flow 1",
        "name": flow.name,
        "architecture": "x64",
        "before": system(flow.before),
        "after": system(flow.after),
        "firmware-renames": flow.name == FIRMWARE.name,
        "loader-conf": conf,
    });
    let path = dir.join("flow.json");
    std::fs::write(&path, format!("{text:#}\n")).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// The loader.conf of a disk with a comment in place of a line (DOC-24).
fn commented(disk: &Path, line: &str) -> Result<String> {
    let text = String::from_utf8(Esp::of_disk(disk)?.read(LOADER_CONF)?).context("loader.conf is text")?;
    let at = text.find(line).with_context(|| format!("no line {line:?} in {text:?}"))?;
    Ok(format!("{}#{}", &text[..at], &text[at + 1..]))
}

/// Replays the first `thousandths` of a log's requests onto a disk (CUT-1).
///
/// # Errors
/// When the log cannot be read or the disk not be written.
pub fn replay(log: &Path, disk: &Path, thousandths: usize) -> Result<()> {
    const SECTOR: usize = 512;
    const DISCARD: u64 = 4;
    let bytes = std::fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
    let mut requests = Vec::new();
    let mut at = SECTOR;
    while let Some(head) = bytes.get(at..at + SECTOR) {
        let number = |at: usize| u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|i| head[at + i]));
        let (sector, sectors, flags) = (number(0), usize::try_from(number(8))?, number(16));
        at += SECTOR;
        let len = if flags & DISCARD == 0 { sectors * SECTOR } else { 0 };
        let Some(data) = bytes.get(at..at + len) else { break };
        requests.push((sector * SECTOR as u64, data));
        at += len;
    }
    ensure!(!requests.is_empty(), "{} holds no requests", log.display());
    let disk = File::options().write(true).open(disk)?;
    for (offset, data) in &requests[..requests.len() * thousandths / 1000] {
        disk.write_all_at(data, *offset)?;
    }
    Ok(())
}
