//! Runs a flow in the tiny guest and keeps every write and flush that reaches the disk.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use boot_entries::options::hex;
use power_cuts::SECTOR;
use power_cuts::log::Log;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::bench::{Bench, LOADER_CONF};
use super::boots;
use super::flow::{COUNTED, FIRMWARE, Flow, flow};
use super::tiny::{Tiny, logged_disk};
use super::work::kept;
use crate::arch::Arch;
use crate::esp::Esp;
use crate::setup::{self, run};

/// What was recorded, a folder with all that is needed to go through its states once more.
#[derive(Clone, Debug)]
pub struct Recording {
    /// What was recorded.
    pub flow: &'static Flow,
    /// The folder.
    pub dir: PathBuf,
    /// The disk as the flow found it.
    pub base: PathBuf,
    /// Every write and flush, as dm-log-writes keeps them.
    pub log: PathBuf,
    /// `flow.json`: what may boot in its states (CUT-40).
    pub about: PathBuf,
}

impl Recording {
    /// Makes the disk of `flow` in `dir`, with another boot loader if one is given, runs the flow on it, and checks how it
    /// ended. The firmware's own flow is a real boot of a staged system.
    ///
    /// # Errors
    /// When a program or the guest fails, or what they left is not what the flow promises.
    pub fn make(bench: &Bench<'_>, flow: &'static Flow, loader: Option<&Path>, dir: &Path) -> Result<Recording> {
        Self::try_make(bench, flow, loader, dir).with_context(|| format!("recording {}", flow.name))
    }

    fn try_make(bench: &Bench<'_>, flow: &'static Flow, loader: Option<&Path>, dir: &Path) -> Result<Recording> {
        let recording = Self::at(flow, dir);
        bench.base(flow, dir)?;
        if let Some(loader) = loader {
            // Before anything is recorded: what is written later may lie where a loader copied in afterwards would.
            Esp::of_disk(&recording.base)?.copy_in(loader, &bench.arch().loader_path())?;
        }
        bench.lay_out(flow, dir)?;
        let disk = dir.join("disk.raw");
        run(setup::command("cp").arg("--sparse=always").arg(&recording.base).arg(&disk))?;
        let logged = logged_disk(&disk, &recording.log)?;
        if flow.name == FIRMWARE.name {
            let booted = boots::boot_on(bench.arch(), logged, dir)?;
            ensure!(booted.slot == FIRMWARE.runs, "the machine booted {booted:?} and not what was staged");
            // A firmware that renamed nothing would leave the states of a flow in which nothing happens.
            let entries = Esp::of_disk(&disk)?.entries()?;
            ensure!(entries.iter().any(|name| name == COUNTED), "the firmware counted no try: {entries:?}");
        } else {
            recording.run_flow(logged)?;
        }
        recording.write_about(&disk)?;
        std::fs::remove_file(&disk)?;
        Ok(recording)
    }

    /// One that was made before, in this folder.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(dir: &Path) -> Result<Recording> {
        let about = dir.join("flow.json");
        let text = std::fs::read(&about).with_context(|| format!("cannot read {}", about.display()))?;
        let about: serde_json::Value = serde_json::from_slice(&text)?;
        let name = about["name"].as_str().unwrap_or_default();
        Ok(Self::at(flow(name).with_context(|| format!("no flow {name:?}"))?, dir))
    }

    fn at(flow: &'static Flow, dir: &Path) -> Recording {
        let path = |name: &str| dir.join(name);
        Recording { flow, dir: dir.to_owned(), base: path("base.raw"), log: path("w.log"), about: path("flow.json") }
    }

    /// States chosen from it (CUT-50), when some were.
    pub fn states(&self) -> PathBuf {
        self.dir.join("states")
    }

    /// What the guest finds in `/job`: the key, and the image or the boot loader if the flow has one.
    pub fn files(&self) -> Vec<(&'static str, PathBuf)> {
        let names = [
            Some("release.pub.pem"),
            Some("image.zst").filter(|_| self.flow.applies != 0),
            Some("loader.efi").filter(|_| self.flow.updates_loader()),
        ];
        names.into_iter().flatten().map(|name| (name, self.dir.join(name))).collect()
    }

    fn run_flow(&self, disk: Vec<String>) -> Result<()> {
        let flow = self.flow;
        let job = json!({
            "mode": "record",
            "slot": flow.runs,
            "op": flow.job(&flow.op),
            "keep": kept(self)?,
        });
        let files = self.files();
        let files: Vec<(&str, &Path)> = files.iter().map(|(name, path)| (*name, path.as_path())).collect();
        let timeout = Duration::from_secs(600);
        let arch = Arch::of_disk(&self.base)?;
        let tiny = Tiny { arch, disk, states: None, job: &job, files: &files, dir: &self.dir, timeout };
        let said = tiny.run(&mut |_| {})?;
        Ok(std::fs::write(self.dir.join("recorded.txt"), said.join("\n"))?)
    }

    /// Writes what `power-cuts` wants to know of the flow (CUT-40), after a look whether it is so.
    fn write_about(&self, disk: &Path) -> Result<()> {
        let flow = self.flow;
        for ((slot, generation), disk) in [(flow.before, self.base.as_path()), (flow.after, disk)] {
            let booted = boots::predicted(disk)?;
            let so = (booted.slot.as_str(), booted.generation) == (slot, generation);
            ensure!(so, "{}: {booted:?} would boot, and not slot {slot}, generation {generation}", flow.name);
        }
        // What the programs left is checked in the guest; here it is what must be durable. The firmware promises nothing.
        let ours = flow.name != FIRMWARE.name;
        let entries = ours.then(|| Esp::of_disk(disk)?.entries()).transpose()?;
        let loader = flow.updates_loader().then(|| loader_digest(&self.dir)).transpose()?;
        if let Some(loader) = &loader {
            let (esp, default) = (Esp::of_disk(disk)?, Arch::of_disk(disk)?.loader_path());
            let found = hex(&Sha256::digest(esp.read(&default)?));
            ensure!(found == *loader, "the new boot loader has not reached {default} on the disk");
        }
        let system = |(slot, generation): (&str, u32)| json!([{ "slot": slot, "generation": generation }]);
        let text = json!({
            "format": "power-cuts flow 1",
            "name": flow.name,
            "architecture": Arch::of_disk(&self.base)?.efi(),
            "before": system(flow.before),
            "after": system(flow.after),
            "entries": entries,
            "firmware-renames": flow.shares_clusters(),
            "loader": loader,
            "loader-conf": flow.comments.map(|line| commented(&self.base, line)).transpose()?,
        });
        let about = &self.about;
        std::fs::write(about, format!("{text:#}\n")).with_context(|| format!("cannot write {}", about.display()))
    }
}

/// SHA-256 of the boot loader that was laid out for a flow.
pub(super) fn loader_digest(dir: &Path) -> Result<String> {
    let path = dir.join("loader.efi");
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(hex(&Sha256::digest(bytes)))
}

/// The loader.conf of a disk with a comment in place of a line (DOC-24).
pub(super) fn commented(disk: &Path, line: &str) -> Result<String> {
    let text = String::from_utf8(Esp::of_disk(disk)?.read(LOADER_CONF)?).context("loader.conf is text")?;
    let at = text.find(line).with_context(|| format!("no line {line:?} in {text:?}"))?;
    Ok(format!("{}#{}", &text[..at], &text[at + 1..]))
}

/// Replays the first `thousandths` of a log's requests onto a disk (CUT-1).
///
/// # Errors
/// When the log cannot be read or the disk not be written.
pub fn replay(log: &Path, disk: &Path, thousandths: usize) -> Result<()> {
    let file = File::open(log).with_context(|| format!("cannot open {}", log.display()))?;
    let disk = File::options().write(true).open(disk)?;
    let log = Log::read(file.try_clone()?, disk.metadata()?.len())?;
    let requests = log.requests();
    ensure!(!requests.is_empty(), "the log holds no requests");
    let some = &requests[..requests.len() * thousandths / 1000];
    // What is discarded holds what it held (CUT-13).
    for request in some.iter().filter(|request| request.changes_the_disk() && !request.discard) {
        let mut data = vec![0; usize::try_from(request.count)? * SECTOR];
        file.read_exact_at(&mut data, request.data)?;
        disk.write_all_at(&data, request.sector * SECTOR as u64)?;
    }
    Ok(())
}
