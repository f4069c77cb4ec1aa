//! Failing states as disk images that can be checked again (`CUT-61`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::SECTOR;
use crate::check::Name;
use crate::disk::{Disk, State};
use crate::flow::Flow;
use crate::interval::Interval;
use crate::kept::Kept;
use crate::run::Found;
use crate::store::ReadAt;

/// States of each kind of failure that are kept.
const SAVED: usize = 5;
const PIECE: usize = 64 * 1024;

/// Keeps failing states in a folder.
#[derive(Debug)]
pub struct Saver {
    dir: PathBuf,
    saved: BTreeMap<Name, usize>,
}

impl Saver {
    /// The folder, which is made.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(dir: &Path) -> io::Result<Saver> {
        std::fs::create_dir_all(dir)?;
        Ok(Saver { dir: dir.to_owned(), saved: BTreeMap::new() })
    }

    /// Keeps a state that failed, when it is among the first of one of its failures. The file to reproduce it from.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn see<B: ReadAt, L: ReadAt>(
        &mut self,
        disk: &Disk<B, L>,
        flow: &Flow,
        found: &Found<'_>,
    ) -> io::Result<Option<PathBuf>> {
        let mut wanted = false;
        for failure in &found.verdict.failures {
            let saved = self.saved.entry(failure.name).or_default();
            *saved += 1;
            wanted |= *saved <= SAVED;
        }
        if !wanted {
            return Ok(None);
        }
        let base = format!("{}-base.raw", flow.name);
        if !self.dir.join(&base).exists() {
            write_image(disk, &State::of(Rc::default()), &File::create(self.dir.join(&base))?)?;
        }
        let name = |ending: &str| format!("{}.{ending}", found.id);
        let image = name("raw");
        // The base's own image is there already.
        if image != base {
            write_image(disk, &found.state, &File::create(self.dir.join(&image))?)?;
        }
        let mut text = File::create(self.dir.join(name("txt")))?;
        writeln!(text, "{}\n{}", found.id, found.made)?;
        for failure in &found.verdict.failures {
            writeln!(text, "FAILED {failure}")?;
        }
        writeln!(text, "entries: {}", found.verdict.entries.join(" "))?;
        if let Some(interval) = found.interval {
            tell_requests(&mut text, interval, &found.state)?;
        }
        let mut kept = Kept::new(flow, base, image, found.judged);
        (kept.committed, kept.lost_bound) = (found.committed, found.lost_bound);
        let path = self.dir.join(name("json"));
        std::fs::write(&path, kept.render())?;
        Ok(Some(path))
    }
}

fn tell_requests(text: &mut File, interval: &Interval, state: &State) -> io::Result<()> {
    writeln!(text, "requests of the interval that the state holds, wholly or in part:")?;
    for request in interval.requests.clone() {
        let own: Vec<_> = interval.writes.iter().filter(|write| write.request == request).collect();
        let there = own.iter().filter(|write| state.get(write.sector) == write.content).count();
        if let Some(first) = own.first() {
            writeln!(text, "  {request}: {there} of {} sectors from {}", own.len(), first.sector)?;
        }
    }
    Ok(())
}

/// Writes a state to an empty file, as a disk image with holes.
///
/// # Errors
/// When base or log cannot be read, or the image cannot be written.
pub fn write_image<B: ReadAt, L: ReadAt>(disk: &Disk<B, L>, state: &State, image: &File) -> io::Result<()> {
    image.set_len(disk.bytes())?;
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    while at < disk.bytes() {
        let piece = usize::try_from(disk.bytes() - at).unwrap_or(PIECE).min(PIECE);
        disk.base().read_exact_at(&mut buffer[..piece], at)?;
        if buffer[..piece].iter().any(|b| *b != 0) {
            image.write_all_at(&buffer[..piece], at)?;
        }
        at += piece as u64;
    }
    let mut content = [0; SECTOR];
    for (sector, written) in state.changed() {
        disk.read(sector, written, &mut content)?;
        image.write_all_at(&content, sector * SECTOR as u64)?;
    }
    image.sync_data()
}
