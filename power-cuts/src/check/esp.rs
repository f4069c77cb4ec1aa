//! The ESP: two readers, the loader's choice, what boots, and whose clusters are whose (`CUT-31` to `CUT-37`, `CUT-42`).

use std::io;

use boot_entries::esp::EspPath;
use boot_entries::fat::{ClusterFault, FatError, RawItem, cluster_faults};
use boot_entries::names::{entries_dir, payload_dir};
use boot_entries::{EntryName, EspError, EspState, ImageEsp, PayloadKind, RawEsp};
use disk_layout::Slot;
use sha2::{Digest, Sha256};

use super::boots::{self, Boots};
use super::files::medium;
use super::readers::{self, Readers};
use super::{CheckError, Checker, Failure, Name, Verdict};
use crate::disk::State;
use crate::store::ReadAt;
use crate::view::View;

/// A path, and the SHA-256 digests that the file may have.
pub(super) type LoaderFile = (String, Vec<[u8; 32]>);

/// Where the loader itself lies.
const LOADER_DIR: &str = "EFI/BOOT";
const LOADER_CONF: &str = "loader/loader.conf";

/// An error of base or log, and not of what the state holds.
pub(super) fn io_of(error: EspError) -> Result<EspError, io::Error> {
    match error {
        EspError::Fat { source: FatError::Io { source, .. } } => Err(source),
        other => Ok(other),
    }
}

impl<B: ReadAt, L: ReadAt> Checker<'_, B, L> {
    pub(super) fn check_esp(&mut self, state: &State, verdict: &mut Verdict) -> io::Result<()> {
        let mut raw = match RawEsp::open(self.esp(state)) {
            Ok(raw) => raw,
            Err(FatError::Io { source, .. }) => return Err(source),
            Err(error) => {
                verdict.failures.push(Failure::error(Name::Fat, &error));
                return Ok(());
            }
        };
        self.check_clusters(&mut raw, verdict)?;
        let ours = match EspState::read(&mut raw) {
            Ok(ours) => ours,
            Err(error) => {
                verdict.failures.push(Failure::error(Name::Fat, &io_of(error)?));
                return Ok(());
            }
        };
        verdict.entries = ours.ours.iter().map(|entry| entry.file_name.clone()).chain(ours.foreign.clone()).collect();
        verdict.entries.sort();
        let prediction = ours.predict(&self.flow.vars, self.flow.architecture);
        let mut library = ImageEsp::new(self.esp(state));
        match readers::compare(self.flow, &ours, &prediction, &mut raw, &mut library)? {
            Readers::Agree => {}
            Readers::Explained => verdict.explained = true,
            Readers::Differ(text) => verdict.fail(Name::Readers, text),
        }
        match boots::of(prediction, &mut raw) {
            Ok(Ok(boots)) => {
                if let Some(name) = boots.name.filter(|_| boots.is_trial()) {
                    let prediction = ours.predict_if_bad(name, &self.flow.vars, self.flow.architecture);
                    let again = prediction.boots(name);
                    verdict.fallback = Some(match boots::of(prediction, &mut raw) {
                        _ if again => Err(Failure::new(Name::NothingBoots, "the loader finds nothing else to boot")),
                        Ok(found) => found,
                        Err(error) => Err(Failure::error(Name::Entry, &io_of(error)?)),
                    });
                }
                verdict.boots = Some(boots);
            }
            Ok(Err(failure)) => verdict.failures.push(failure),
            Err(error) => verdict.failures.push(Failure::error(Name::Entry, &io_of(error)?)),
        }
        self.check_loader(state, &mut raw, verdict)?;
        self.check_foreign(state, &mut raw, verdict)
    }

    /// `CUT-36`, `CUT-38`
    fn check_clusters(&self, raw: &mut RawEsp<View<'_, B, L>>, verdict: &mut Verdict) -> io::Result<()> {
        let dirs = [entries_dir(), payload_dir(Slot::A), payload_dir(Slot::B)];
        let faults = match cluster_faults(raw.volume(), &dirs) {
            Ok(faults) => faults,
            Err(FatError::Io { source, .. }) => return Err(source),
            Err(error) => {
                verdict.failures.push(Failure::error(Name::Fat, &error));
                return Ok(());
            }
        };
        for fault in faults {
            match fault {
                ClusterFault::Broken { .. } => verdict.broken_names += 1,
                ClusterFault::Shared { first, second, same_start } => {
                    if same_start && self.flow.firmware_renames && is_cut_rename(&first, &second) {
                        verdict.cut_renames += 1;
                    } else {
                        verdict.fail(Name::SharedClusters, format!("{first} and {second} share clusters"));
                    }
                }
            }
        }
        Ok(())
    }

    /// `CUT-37`
    fn check_loader(
        &mut self,
        state: &State,
        raw: &mut RawEsp<View<'_, B, L>>,
        verdict: &mut Verdict,
    ) -> io::Result<()> {
        for (path, allowed) in self.loader.clone() {
            let found = match find(raw, &path)? {
                Some(item) => self.files.sha256(self.disk, state, raw.volume(), &item)?,
                None => None,
            };
            if !found.is_some_and(|sha256| allowed.contains(&sha256)) {
                verdict.fail(Name::Loader, format!("{path} is not what it was"));
            }
        }
        Ok(())
    }

    /// Paths of the loader's files, and the digests that each may have: the base's, and the flow's own.
    pub(super) fn loader_files(&mut self, base: &State) -> Result<Vec<LoaderFile>, CheckError> {
        let mut raw = RawEsp::open(self.esp(base))?;
        let items = raw.volume().list(LOADER_DIR)?.unwrap_or_default();
        let in_dir = items.into_iter().filter(|item| !item.is_dir).map(|item| format!("{LOADER_DIR}/{}", item.name));
        let mut found = Vec::new();
        for path in in_dir.chain([LOADER_CONF.to_owned()]) {
            let Some(item) = find(&mut raw, &path)? else { continue };
            if let Some(sha256) = self.files.sha256(self.disk, base, raw.volume(), &item)? {
                let conf = self.flow.loader_conf.as_ref().map(|text| Sha256::digest(text).into());
                let flow = if path == LOADER_CONF { conf } else { self.flow.loader };
                found.push((path, [sha256].into_iter().chain(flow).collect()));
            }
        }
        Ok(found)
    }

    /// `CUT-34`, `CUT-35`
    pub(super) fn check_whole(&mut self, state: &State, boots: &Boots, verdict: &mut Verdict) -> io::Result<()> {
        let mut raw = RawEsp::open(self.esp(state)).map_err(medium)?;
        for (kind, sha256) in boots.entry.payloads.files() {
            let name = if kind == PayloadKind::Initrd { Name::Initrd } else { Name::Kernel };
            let path = boots.entry.payload(kind).path();
            let found = match find(&mut raw, path.as_str())? {
                Some(item) => self.files.sha256(self.disk, state, raw.volume(), &item)?,
                None => {
                    verdict.fail(name, format!("{path} is missing, and {} boots", boots.file));
                    continue;
                }
            };
            if found != Some(sha256) {
                verdict.fail(name, format!("{path} is not what {} records", boots.file));
            }
        }
        let options = &boots.entry.options;
        let slot = self.layout.slot(options.slot);
        if slot.unique_guid != options.partuuid {
            verdict.fail(Name::Slot, format!("{} names another partition than slot {}", boots.file, options.slot));
            return Ok(());
        }
        let place = slot.start..slot.end();
        let checked = self.slots.check(self.disk, state, place, &options.root_hash, options.hash_offset)?;
        if let Err(text) = checked {
            verdict.fail(Name::Slot, format!("slot {}: {text}", options.slot));
        }
        Ok(())
    }
}

/// A file, as the firmware finds it: nothing lies in a directory whose chain is broken.
fn find<B: ReadAt, L: ReadAt>(raw: &mut RawEsp<View<'_, B, L>>, path: &str) -> io::Result<Option<RawItem>> {
    match raw.volume().find(path) {
        Ok(item) => Ok(item.filter(|item| !item.is_dir)),
        Err(FatError::Directory(_)) => Ok(None),
        Err(error) => Err(medium(error)),
    }
}

fn is_cut_rename(first: &EspPath, second: &EspPath) -> bool {
    let name = |path: &EspPath| match path.split() {
        (Some(dir), name) if dir.as_str().eq_ignore_ascii_case(entries_dir().as_str()) => {
            name.parse::<EntryName>().ok()
        }
        _ => None,
    };
    match (name(first), name(second)) {
        (Some(first), Some(second)) => first.same_system(second) && first.counter.is_some() && second.counter.is_some(),
        _ => false,
    }
}
