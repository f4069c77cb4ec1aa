//! Hands the tiny guest states to work from: in each, what was interrupted is done again by the real programs, with the
//! kernel's vfat, and must end well.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use boot_entries::names::entries_dir;
use boot_entries::options::hex;
use boot_entries::{EntryName, Esp, EspPath, ImageEsp};
use disk_layout::{DiskLayout, FileWindow};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::bench::LOADER_CONF;
use super::flow::{Flow, Op};
use super::record::{Recording, commented, loader_digest};
use super::states::States;
use super::tiny::{Tiny, plain_disk};
use crate::arch::Arch;
use crate::setup::{self, run};

/// How long one state may take, with a busy compiler beside the guest.
const PATIENCE: Duration = Duration::from_secs(20);

/// What became of a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worked {
    /// Its name.
    pub id: String,
    /// It ended well.
    pub ok: bool,
    /// What was booted and how it ended, or what is wrong.
    pub said: String,
}

/// Goes through the states of a recording (CUT-50), or the one named `only`.
///
/// # Errors
/// When the guest does not come to its end, or told of fewer states than there are.
pub fn work(recording: &Recording, only: Option<&str>) -> Result<Vec<Worked>> {
    let flow = recording.flow;
    let mut states = States::open(&recording.states())?;
    let count = match only {
        Some(id) => states.find(id).map(|_| 1)?,
        None => states.left(),
    };
    let dir = recording.dir.join("work");
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let disk = dir.join("worked.raw");
    run(setup::command("cp").arg("--sparse=always").arg(&recording.base).arg(&disk))?;
    let job = json!({
        "mode": "work",
        "ops": { "a": flow.job(&flow.on_a), "b": flow.job(&flow.on_b) },
        "keep": kept(recording)?,
        "only": only,
    });
    let files = recording.files();
    let files: Vec<(&str, &Path)> = files.iter().map(|(name, path)| (*name, path.as_path())).collect();
    let timeout = Duration::from_secs(600) + PATIENCE * u32::try_from(count)?;
    let states = recording.states();
    let (arch, under_test) = (Arch::of_disk(&disk)?, plain_disk(&disk));
    let tiny = Tiny { arch, disk: under_test, states: Some(&states), job: &job, files: &files, dir: &dir, timeout };
    let mut worked = Vec::new();
    let said = tiny.run(&mut |line| worked.extend(parse(line)))?;
    std::fs::write(dir.join("console.txt"), said.join("\n"))?;
    std::fs::remove_file(&disk)?;
    ensure!(worked.len() == count, "{count} states were handed over and {} told of", worked.len());
    Ok(worked)
}

/// Runs one of the operations of `flow` on `disk` as the system in `slot`, and checks how that ends.
///
/// # Errors
/// When it does not end well.
pub fn run_on(disk: &Path, flow: &Flow, op: &Op, slot: &str, dir: &Path) -> Result<()> {
    let job = json!({ "mode": "record", "slot": slot, "op": flow.job(op), "keep": {} });
    let timeout = Duration::from_secs(600);
    let (arch, disk) = (Arch::of_disk(disk)?, plain_disk(disk));
    let tiny = Tiny { arch, disk, states: None, job: &job, files: &[], dir, timeout };
    tiny.run(&mut |_| {}).map(drop)
}

/// `cuts: state commit-i003-s0007 ok ralphos-b-g2.conf 0`
fn parse(line: &str) -> Option<Worked> {
    let (id, rest) = line.strip_prefix("cuts: state ")?.split_once(' ')?;
    let (verdict, said) = rest.split_once(' ')?;
    Some(Worked { id: id.to_owned(), ok: verdict == "ok", said: said.to_owned() })
}

/// Files that the flow has no business with, whatever is cut: the loader's, foreign ones beside the entries, and the payloads of slots
/// that it does not write. And loader.conf: as it is, or with a comment where the flow makes one. Where the flow updates the boot loader,
/// what it makes of it.
pub(super) fn kept(recording: &Recording) -> Result<Value> {
    let (base, flow) = (&recording.base, recording.flow);
    let layout = DiskLayout::open(base)?;
    let mut esp = ImageEsp::new(FileWindow::new(File::open(base)?, layout.esp.start, layout.esp.len)?);
    let mut kept = Map::new();
    let mut keep = |esp: &mut ImageEsp<FileWindow>, path: &EspPath| -> Result<()> {
        let (digest, _) = esp.hash_file(path)?;
        kept.insert(path.to_string(), Value::from(hex(&digest)));
        Ok(())
    };
    for path in [&Arch::of_disk(base)?.loader_path(), LOADER_CONF] {
        keep(&mut esp, &path.parse()?)?;
    }
    let foreign = |name: &str| name.parse::<EntryName>().is_err();
    for item in esp.list(&entries_dir())?.iter().filter(|item| foreign(&item.name)) {
        keep(&mut esp, &entries_dir().join(&item.name)?)?;
    }
    for slot in ["a", "b"] {
        if flow.applies != 0 && flow.runs != slot {
            continue;
        }
        let dir: EspPath = format!("ralphos/{slot}").parse()?;
        for item in esp.list(&dir)? {
            keep(&mut esp, &dir.join(&item.name)?)?;
        }
    }
    if flow.updates_loader() {
        let arch = Arch::of_disk(base)?;
        // What was there before is kept beside it (LUP-1).
        let previous = kept.insert(arch.loader_path(), Value::from(loader_digest(&recording.dir)?));
        kept.insert(arch.alternate_loader_path(), previous.context("the base has a boot loader")?);
    }
    if let Some(line) = flow.comments {
        let digest: [u8; 32] = Sha256::digest(commented(base, line)?).into();
        kept.insert(LOADER_CONF.to_owned(), Value::from(hex(&digest)));
    }
    Ok(Value::from(kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_s_lines_are_understood() {
        let ok = Worked { id: "commit-i003-s0007".to_owned(), ok: true, said: "ralphos-b-g2.conf 0".to_owned() };
        assert_eq!(parse("cuts: state commit-i003-s0007 ok ralphos-b-g2.conf 0"), Some(ok));
        let failed = Worked { id: "x-12".to_owned(), ok: false, said: "slot a is bad".to_owned() };
        assert_eq!(parse("cuts: state x-12 FAILED slot a is bad"), Some(failed));
        assert_eq!(parse("cuts: done: 12 states"), None);
    }
}
