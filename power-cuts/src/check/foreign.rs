//! Files of the ESP that are no flow's business (`CUT-42`).

use std::io;

use boot_entries::fat::{FatError, RawItem};
use boot_entries::guard::guard_path;
use boot_entries::names::{entries_dir, payload_dir};
use boot_entries::{EntryName, PayloadName, RawEsp};
use disk_layout::Slot;

use super::files::medium;
use super::{CheckError, Checker, Name, Verdict};
use crate::disk::State;
use crate::store::ReadAt;
use crate::view::View;

/// Directories are followed so deep; ours are two levels deep.
const DEPTH_MAX: usize = 16;

/// A directory with files of others: its path, and their names and SHA-256 digests in the base.
#[derive(Debug, Clone)]
pub(super) struct ForeignDir {
    path: String,
    files: Vec<(String, [u8; 32])>,
}

impl<B: ReadAt, L: ReadAt> Checker<'_, B, L> {
    /// The files of the base that are neither ours nor the loader's (`CUT-37` has those).
    pub(super) fn foreign_dirs(&mut self, base: &State) -> Result<Vec<ForeignDir>, CheckError> {
        let mut raw = RawEsp::open(self.esp(base))?;
        let (mut open, mut found) = (vec![String::new()], Vec::new());
        while let Some(path) = open.pop() {
            let mut files = Vec::new();
            for item in items(&mut raw, &path)? {
                let whole = join(&path, &item.name);
                if item.is_dir {
                    if whole.split('/').count() < DEPTH_MAX {
                        open.push(whole);
                    }
                } else if !is_ours(&path, &item.name) && self.loader.iter().all(|(loader, _)| *loader != whole) {
                    let sha256 = self.files.sha256(self.disk, base, raw.volume(), &item)?;
                    files.extend(sha256.map(|sha256| (item.name, sha256)));
                }
            }
            if !files.is_empty() {
                found.push(ForeignDir { path, files });
            }
        }
        Ok(found)
    }

    /// `CUT-42`
    pub(super) fn check_foreign(
        &mut self,
        state: &State,
        raw: &mut RawEsp<View<'_, B, L>>,
        verdict: &mut Verdict,
    ) -> io::Result<()> {
        for dir in &self.foreign {
            let items = items(raw, &dir.path)?;
            for (name, sha256) in &dir.files {
                let path = join(&dir.path, name);
                let Some(item) = items.iter().find(|item| !item.is_dir && item.name == *name) else {
                    verdict.fail(Name::Foreign, format!("{path} is gone"));
                    continue;
                };
                if self.files.sha256(self.disk, state, raw.volume(), item)? != Some(*sha256) {
                    verdict.fail(Name::Foreign, format!("{path} is not what it was"));
                }
            }
        }
        Ok(())
    }
}

/// What the firmware finds in a directory: nothing where its chain, or one on the way to it, is broken (`CUT-23`).
fn items<B: ReadAt, L: ReadAt>(raw: &mut RawEsp<View<'_, B, L>>, path: &str) -> io::Result<Vec<RawItem>> {
    match raw.volume().list(path) {
        Ok(items) => Ok(items.unwrap_or_default()),
        Err(FatError::Directory(_)) => Ok(Vec::new()),
        Err(error) => Err(medium(error)),
    }
}

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

/// A name that flows make, change and remove.
fn is_ours(dir: &str, name: &str) -> bool {
    let is_payload =
        |slot| dir.eq_ignore_ascii_case(payload_dir(slot).as_str()) && PayloadName::parse(slot, name).is_ok();
    dir.eq_ignore_ascii_case(entries_dir().as_str()) && name.parse::<EntryName>().is_ok()
        || is_payload(Slot::A)
        || is_payload(Slot::B)
        || join(dir, name).eq_ignore_ascii_case(guard_path().as_str())
}
