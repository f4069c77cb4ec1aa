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

use super::bench::{Bench, LOADER_CONF};
use super::flow::{FIRMWARE, Flow};
use super::states::States;
use super::tiny::{Tiny, plain_disk};
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

/// Goes through the states of `base` that are in the file `states` (CUT-50). `dir` is for files in between.
///
/// # Errors
/// When the guest does not come to its end, or told of fewer states than there are.
pub fn work(bench: &Bench<'_>, flow: &Flow, base: &Path, states: &Path, dir: &Path) -> Result<Vec<Worked>> {
    let context = || format!("working from states of {}", flow.name);
    let count = States::open(states)?.left();
    let disk = dir.join("worked.raw");
    run(setup::command("cp").arg("--sparse=always").arg(base).arg(&disk))?;
    let job = json!({
        "mode": "work",
        "ops": { "a": flow.on_a.json(), "b": flow.on_b.json() },
        "keep": kept(base, flow)?,
    });
    let image = if flow.applies == 0 { None } else { Some(bench.image(flow.applies)?) };
    let mut files: Vec<(&str, &Path)> = vec![("release.pub.pem", bench.public_key())];
    files.extend(image.iter().map(|path| ("image.zst", path.as_path())));
    let timeout = Duration::from_secs(600) + PATIENCE * u32::try_from(count)?;
    let tiny = Tiny { disk: plain_disk(&disk), states: Some(states), job: &job, files: &files, dir, timeout };
    let mut worked = Vec::new();
    let said = tiny.run(&mut |line| worked.extend(parse(line))).with_context(context)?;
    std::fs::write(dir.join("console.txt"), said.join("\n"))?;
    std::fs::remove_file(&disk)?;
    ensure!(worked.len() == count, "{}: {} states were handed over and {} told of", flow.name, count, worked.len());
    Ok(worked)
}

/// Commits the trial of slot B on `disk` with the kernel's vfat, and checks how that ends.
///
/// # Errors
/// When it does not end well.
pub fn commit_on(disk: &Path, dir: &Path) -> Result<()> {
    let job = json!({ "mode": "record", "slot": "b", "op": FIRMWARE.on_b.json() });
    let timeout = Duration::from_secs(600);
    let tiny = Tiny { disk: plain_disk(disk), states: None, job: &job, files: &[], dir, timeout };
    tiny.run(&mut |_| {}).map(drop)
}

/// `cuts: state commit-i003-s0007 ok ralphos-b-g2.conf 0`
fn parse(line: &str) -> Option<Worked> {
    let (id, rest) = line.strip_prefix("cuts: state ")?.split_once(' ')?;
    let (verdict, said) = rest.split_once(' ')?;
    Some(Worked { id: id.to_owned(), ok: verdict == "ok", said: said.to_owned() })
}

/// Files that the flow has no business with, whatever is cut: the loader's, foreign ones beside the entries, and the payloads of slots
/// that it does not write.
fn kept(base: &Path, flow: &Flow) -> Result<Value> {
    let layout = DiskLayout::open(base)?;
    let mut esp = ImageEsp::new(FileWindow::new(File::open(base)?, layout.esp.start, layout.esp.len)?);
    let mut kept = Map::new();
    let mut keep = |esp: &mut ImageEsp<FileWindow>, path: &EspPath| -> Result<()> {
        let (digest, _) = esp.hash_file(path)?;
        kept.insert(path.to_string(), Value::from(hex(&digest)));
        Ok(())
    };
    let conf = flow.comments.is_none().then_some(LOADER_CONF);
    for path in ["EFI/BOOT/BOOTX64.EFI"].into_iter().chain(conf) {
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
