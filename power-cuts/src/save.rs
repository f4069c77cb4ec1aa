//! Failing states as disk images that can be checked again (`CUT-61`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::SECTOR;
use crate::check::Name;
use crate::disk::{Disk, State};
use crate::flow::Flow;
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
        let path = |ending: &str| self.dir.join(format!("{}.{ending}", found.id));
        write_image(disk, &found.state, &File::create(path("raw"))?)?;
        let mut text = File::create(path("txt"))?;
        writeln!(text, "{}\n{}", found.id, found.made())?;
        for failure in &found.verdict.failures {
            writeln!(text, "FAILED {failure}")?;
        }
        writeln!(text, "entries: {}", found.verdict.entries.join(" "))?;
        writeln!(text, "requests of the interval that the state holds, wholly or in part:")?;
        for request in found.interval.requests.clone() {
            let own: Vec<_> = found.interval.writes.iter().filter(|write| write.request == request).collect();
            let there = own.iter().filter(|write| found.state.get(write.sector) == write.content).count();
            if let Some(first) = own.first() {
                writeln!(text, "  {request}: {there} of {} sectors from {}", own.len(), first.sector)?;
            }
        }
        std::fs::write(path("json"), flow.render())?;
        Ok(Some(path("json")))
    }
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
