//! Everything the ESP says about the boot, gathered once; and what follows from it, without another look.

mod look;

use std::collections::BTreeSet;
use std::fmt;

use disk_layout::Slot;

use crate::entry::{Entry, EntryArchitecture, EntryError, Liveness};
use crate::esp::{Esp, EspError, EspPath, Space};
use crate::loader::{self, Candidate, ChoiceReason, EntryFile, LoaderConf, LoaderVars, Outcome, Release};
use crate::names::{Counter, EntryName, Generation, PayloadKind, PayloadName, entries_dir, payload_dir};
use crate::prediction::agreed;
pub use crate::prediction::{Prediction, Unpredictable, because_text, reason_text};

/// The longest name that every firmware is trusted to show and to rename, in UTF-16 units (`LDR-8`).
const NAME_MAX: usize = 200;
/// The longest file that is read whole. The loader has no limit; entries have a few hundred bytes.
const FILE_MAX: u64 = 1 << 20;
/// All of ours together, and all foreign ones (THR-11): names may share one chain. Foreign files never hide ours.
const ALL_MAX: u64 = 16 << 20;

/// An entry of ours, readable or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OurEntry {
    /// What its name says.
    pub name: EntryName,
    /// The name as it is stored.
    pub file_name: String,
    /// Its content, or why it is unreadable (`ENT-13`).
    pub entry: Result<Entry, EntryError>,
    /// Whether the loader sees it. An unreadable entry is live when the loader would take it all the same.
    pub liveness: Liveness,
}

impl OurEntry {
    /// The path of its file.
    pub fn path(&self) -> EspPath {
        // The name was parsed, so it holds nothing that a path may not hold.
        EspPath::literal(&format!("{}/{}", entries_dir(), self.file_name))
    }

    /// The loader sees it and may boot it.
    pub fn is_live(&self) -> bool {
        self.liveness == Liveness::Live
    }
}

/// A file in a slot's payload directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadFile {
    /// The name as it is stored.
    pub file_name: String,
    /// What it says; None for a file that is not of our form.
    pub name: Option<PayloadName>,
    /// Bytes.
    pub size: u64,
}

/// The boot state of an ESP at one moment.
#[derive(Debug, Clone)]
pub struct EspState {
    /// Entries of ours.
    pub ours: Vec<OurEntry>,
    /// Names of the other files in `loader/entries`.
    pub foreign: Vec<String>,
    /// loader.conf.
    pub conf: LoaderConf,
    /// Files in `ralphos/a` and `ralphos/b`.
    pub payloads: [Vec<PayloadFile>; 2],
    /// Paths of what the model leaves out of account (`LDR-8`).
    pub unmodelled: Vec<String>,
    files: Vec<EntryFile>,
    /// What stands behind `linux` or `efi` in them and exists.
    kernels: BTreeSet<String>,
    /// What stands there and exists or not, as the firmware takes it.
    doubtful: BTreeSet<String>,
}

fn index(slot: Slot) -> usize {
    match slot {
        Slot::A => 0,
        Slot::B => 1,
    }
}

impl EspState {
    /// Reads entries, loader.conf and the names of the payload files.
    ///
    /// # Errors
    /// When something cannot be read. An unreadable *content* is no error here.
    pub fn read(esp: &mut dyn Esp) -> Result<EspState, EspError> {
        let dir = entries_dir();
        let (mut ours, mut foreign, mut files) = (Vec::new(), Vec::new(), Vec::new());
        let mut unmodelled = unified_images(esp)?;
        let (mut ours_left, mut foreign_left) = (ALL_MAX, ALL_MAX);
        for item in esp.list(&dir)?.into_iter().filter(|item| !item.is_dir) {
            if !loader::is_entry_name(&item.name) {
                foreign.push(item.name);
                continue;
            }
            // The loader may read what we cannot: a name that is no path here, or a very long file.
            let left = if item.name.parse::<EntryName>().is_ok() { &mut ours_left } else { &mut foreign_left };
            let limit = FILE_MAX.min(*left);
            let content = match dir.join(&item.name) {
                Ok(_) if item.name.encode_utf16().count() > NAME_MAX || item.size > limit => None,
                Ok(path) => match esp.read(&path, limit) {
                    Ok(content) => {
                        *left -= content.len() as u64;
                        Some(content)
                    }
                    Err(EspError::Missing { .. } | EspError::TooLong { .. }) => None,
                    Err(error) => return Err(error),
                },
                Err(_) => None,
            };
            let Some(content) = content else {
                unmodelled.push(format!("{dir}/{}", item.name));
                foreign.push(item.name);
                continue;
            };
            match item.name.parse() {
                Ok(name) => ours.push(our_entry(name, &item.name, &content)),
                Err(_) => foreign.push(item.name.clone()),
            }
            files.push(EntryFile { name: item.name, content });
        }
        let (kernels, doubtful) = kernels(esp, &files)?;
        let payloads = [payload_files(esp, Slot::A)?, payload_files(esp, Slot::B)?];
        let conf = match esp.read(&EspPath::literal("loader/loader.conf"), FILE_MAX) {
            Ok(bytes) => LoaderConf::parse(bytes),
            Err(EspError::Missing { .. }) => LoaderConf::default(),
            Err(error) => return Err(error),
        };
        Ok(EspState { ours, foreign, conf, payloads, unmodelled, files, kernels, doubtful })
    }

    /// The entries of a slot, live or not, readable or not.
    pub fn entries(&self, slot: Slot) -> impl Iterator<Item = &OurEntry> {
        self.ours.iter().filter(move |entry| entry.name.slot == slot)
    }

    /// The entry that stands for a slot: the live one with the highest generation and, of twins, the one that
    /// `UPD-24` keeps.
    pub fn live(&self, slot: Slot) -> Option<&OurEntry> {
        let live = || self.entries(slot).filter(|entry| entry.is_live());
        let newest = live().map(|entry| entry.name.generation).max()?;
        survivor(live().filter(|entry| entry.name.generation == newest))
    }

    /// The files of a slot's payload directory.
    pub fn payloads(&self, slot: Slot) -> &[PayloadFile] {
        &self.payloads[index(slot)]
    }

    /// The highest generation in the names of entries and payload files of both slots (`ENT-4`).
    pub fn highest_generation(&self) -> Option<Generation> {
        let entries = self.ours.iter().map(|entry| entry.name.generation);
        let payloads = self.payloads.iter().flatten().filter_map(|file| Some(file.name?.generation));
        entries.chain(payloads).max()
    }

    /// Clusters that the fence of a slot frees: its entries and all its payload files.
    pub fn freed_by_fence(&self, slot: Slot, space: Space) -> u64 {
        let entries = self.entries(slot).filter_map(|entry| {
            self.files.iter().find(|file| file.name == entry.file_name).map(|file| file.content.len() as u64)
        });
        let payloads = self.payloads(slot).iter().map(|file| file.size);
        entries.chain(payloads).map(|size| space.clusters(size)).sum()
    }

    /// What the loader will do as things are.
    pub fn predict(&self, vars: &LoaderVars, architecture: EntryArchitecture) -> Prediction {
        self.predict_files(&self.files, &|kernel| self.kernels.contains(kernel), vars, architecture)
    }

    /// What it will do once every live name of this entry's slot and generation is bad (`UPD-50`).
    pub fn predict_if_bad(&self, name: EntryName, vars: &LoaderVars, architecture: EntryArchitecture) -> Prediction {
        let files = with_marked_bad(&self.files, name);
        self.predict_files(&files, &|kernel| self.kernels.contains(kernel), vars, architecture)
    }

    /// What it will do once the slot of `entry` is fenced and `entry` is staged under this counter (`UPD-1`).
    pub fn predict_staged(
        &self,
        entry: &Entry,
        counter: Counter,
        vars: &LoaderVars,
        architecture: EntryArchitecture,
    ) -> Prediction {
        let fenced =
            |file: &&EntryFile| !matches!(file.name.parse(), Ok(EntryName { slot, .. }) if slot == entry.slot());
        let mut files: Vec<EntryFile> = self.files.iter().filter(fenced).cloned().collect();
        files.push(EntryFile { name: entry.name(Some(counter)).to_string(), content: entry.render(Liveness::Live) });
        let new_kernel = entry.kernel_path();
        let fenced_dir = format!("{}/", payload_dir(entry.slot()));
        let exists = |kernel: &str| match resolve(kernel) {
            Kernel::At(path) if path.as_str().to_ascii_lowercase().starts_with(&fenced_dir) => {
                path.as_str().eq_ignore_ascii_case(new_kernel.as_str())
            }
            _ => self.kernels.contains(kernel),
        };
        self.predict_files(&files, &exists, vars, architecture)
    }

    fn predict_files(
        &self,
        files: &[EntryFile],
        exists: &dyn Fn(&str) -> bool,
        vars: &LoaderVars,
        architecture: EntryArchitecture,
    ) -> Prediction {
        let doubtful = |file: &EntryFile| {
            if loader::halts_the_loader(file) {
                return Some(Unpredictable::Halts(file.name.clone()));
            }
            let doubtful = readings(file).any(|found| self.doubtful.contains(&found.kernel));
            doubtful.then(|| Unpredictable::Unmodelled(format!("{}/{}", entries_dir(), file.name)))
        };
        let unmodelled = self.unmodelled.iter().cloned().map(Unpredictable::Unmodelled);
        let because: Vec<Unpredictable> = unmodelled.chain(files.iter().filter_map(doubtful)).collect();
        if !because.is_empty() {
            return Prediction::Unknown { because };
        }
        let outcomes = Release::ALL
            .map(|release| (release, loader::choose(release, files, exists, &self.conf, vars, architecture)));
        agreed(&outcomes)
    }

    /// The list of a release of the loader, in its order; what boots by order alone is the first.
    pub fn candidates(&self, release: Release, architecture: EntryArchitecture) -> Vec<Candidate> {
        loader::candidates(release, &self.files, &|kernel| self.kernels.contains(kernel), architecture)
    }

    /// What one release of the loader does, whatever others would do.
    pub fn outcome(&self, release: Release, vars: &LoaderVars, architecture: EntryArchitecture) -> Outcome {
        let exists = |kernel: &str| self.kernels.contains(kernel);
        loader::choose(release, &self.files, &exists, &self.conf, vars, architecture)
    }
}

/// Of live names of one slot and generation, the one that stays (`UPD-24`).
pub fn survivor<'a>(twins: impl Iterator<Item = &'a OurEntry>) -> Option<&'a OurEntry> {
    let twins: Vec<&OurEntry> = twins.collect();
    let names: Vec<EntryName> = twins.iter().map(|twin| twin.name).collect();
    // A commit answers a mark, and a rollback's is told by its name. Of names with counters a marked one was meant to stay, also
    // when the loader counted the other one since (LDR-7).
    let uncounted = names.iter().any(|name| name.counter.is_none());
    let is_marked = |twin: &OurEntry| twin.entry.as_ref().is_ok_and(|entry| entry.options.failed.is_some());
    // What cannot be read stays only when nothing else is there.
    let key = |twin: &&OurEntry| (twin.entry.is_err(), !uncounted && !is_marked(twin), rank(twin.name, &names));
    twins.into_iter().min_by_key(key)
}

/// Of names alike in their mark the lowest stays: `+0-0` beside an uncounted name (a rollback was cut), else the uncounted one (a commit was cut), else
/// the lowest LEFT, then the highest DONE.
pub(crate) fn rank(name: EntryName, twins: &[EntryName]) -> (u32, u32, u32) {
    let uncounted = twins.iter().any(|twin| twin.counter.is_none());
    match name.counter {
        Some(counter) if uncounted && counter == Counter::bad() => (0, 0, 0),
        None => (1, 0, 0),
        Some(counter) => (2, counter.left(), u32::MAX - counter.done()),
    }
}

fn our_entry(name: EntryName, file_name: &str, content: &[u8]) -> OurEntry {
    let (entry, liveness) = match Entry::parse_named(name, content) {
        Ok((entry, liveness)) => (Ok(entry), liveness),
        Err(error) => {
            let file = EntryFile { name: file_name.to_owned(), content: content.to_vec() };
            let live = readings(&file).next().is_some();
            (Err(error), if live { Liveness::Live } else { Liveness::Inert })
        }
    };
    OurEntry { name, file_name: file_name.to_owned(), entry, liveness }
}

/// What loaders of any release and architecture see in a file.
fn readings(file: &EntryFile) -> impl Iterator<Item = Candidate> {
    [EntryArchitecture::X64, EntryArchitecture::Aa64].into_iter().flat_map(move |architecture| {
        Release::ALL.into_iter().filter_map(move |release| loader::candidate(release, 0, file, architecture))
    })
}

fn payload_files(esp: &mut dyn Esp, slot: Slot) -> Result<Vec<PayloadFile>, EspError> {
    let items = esp.list(&payload_dir(slot))?.into_iter().filter(|item| !item.is_dir);
    Ok(items
        .map(|item| {
            let name = PayloadName::parse(slot, &item.name).ok();
            PayloadFile { file_name: item.name, name, size: item.size }
        })
        .collect())
}

/// `LDR-8`: unified kernel images are entries too, and their sort key lies inside them.
fn unified_images(esp: &mut dyn Esp) -> Result<Vec<String>, EspError> {
    let dir = EspPath::literal("EFI/Linux");
    let images = esp.list(&dir)?.into_iter().filter(|item| {
        let name = item.name.to_ascii_lowercase();
        !item.is_dir && name.ends_with(".efi") && !name.starts_with('.')
    });
    Ok(images.map(|item| format!("{dir}/{}", item.name)).collect())
}

/// What stands behind `linux` or `efi` and exists; and what may or may not.
fn kernels(esp: &mut dyn Esp, files: &[EntryFile]) -> Result<(BTreeSet<String>, BTreeSet<String>), EspError> {
    let (mut found, mut doubtful) = (BTreeSet::new(), BTreeSet::new());
    for candidate in files.iter().flat_map(readings) {
        match resolve(&candidate.kernel) {
            Kernel::At(path) if esp.exists(&path)? => drop(found.insert(candidate.kernel)),
            Kernel::PerhapsAt(path) if esp.exists(&path)? => drop(doubtful.insert(candidate.kernel)),
            Kernel::Doubtful => drop(doubtful.insert(candidate.kernel)),
            Kernel::At(_) | Kernel::PerhapsAt(_) | Kernel::Nowhere => {}
        }
    }
    Ok((found, doubtful))
}

/// The file a `linux` line means.
#[derive(Debug, PartialEq, Eq)]
enum Kernel {
    /// This one.
    At(EspPath),
    /// This one or none: a slash at the end, dots and spaces around a name are the firmware's affair (`LDR-8`).
    PerhapsAt(EspPath),
    /// The root, which exists and starts nothing, or a path through `..`.
    Doubtful,
    /// No file can have such a name.
    Nowhere,
}

/// Both slashes separate, doubled ones are one.
fn resolve(kernel: &str) -> Kernel {
    let parts: Vec<&str> = kernel.split(['/', '\\']).filter(|part| !part.is_empty()).collect();
    let bare: Vec<&str> = parts
        .iter()
        .map(|part| part.trim_matches(' ').trim_end_matches(['.', ' ']))
        .filter(|part| !part.is_empty())
        .collect();
    if bare.is_empty() || parts.contains(&"..") {
        return Kernel::Doubtful;
    }
    let plain = bare == parts && !kernel.ends_with(['/', '\\']);
    match bare.join("/").parse() {
        Ok(path) if plain => Kernel::At(path),
        Ok(path) => Kernel::PerhapsAt(path),
        Err(_) => Kernel::Nowhere,
    }
}

fn with_marked_bad(files: &[EntryFile], name: EntryName) -> Vec<EntryFile> {
    let mark = |file: &EntryFile| match file.name.parse::<EntryName>() {
        Ok(own) if own.same_system(name) => {
            EntryFile { name: own.marked_bad().to_string(), content: file.content.clone() }
        }
        _ => file.clone(),
    };
    files.iter().map(mark).collect()
}

/// Whether an entry is whole (`ENT-14`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wholeness {
    /// It parses, it is live, and its payload files have the recorded SHA-256.
    Whole,
    /// It cannot be read.
    Unreadable(EntryError),
    /// The loader does not see it.
    Inert,
    /// A payload file is missing.
    Missing(PayloadKind),
    /// A payload file has another content than the one recorded.
    Differs(PayloadKind),
}

impl fmt::Display for Wholeness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wholeness::Whole => f.write_str("it is whole"),
            Wholeness::Unreadable(error) => write!(f, "it cannot be read: {error}"),
            Wholeness::Inert => f.write_str("the boot loader does not see it"),
            Wholeness::Missing(kind) => write!(f, "its {kind} file is missing"),
            Wholeness::Differs(kind) => write!(f, "its {kind} file is not the one that was installed"),
        }
    }
}

/// Looks whether an entry is whole; reads its payload files.
///
/// # Errors
/// When a payload file cannot be read for another reason than that it is missing.
pub fn is_whole(esp: &mut dyn Esp, entry: &OurEntry) -> Result<Wholeness, EspError> {
    let content = match &entry.entry {
        Ok(content) => content,
        Err(error) => return Ok(Wholeness::Unreadable(error.clone())),
    };
    if !entry.is_live() {
        return Ok(Wholeness::Inert);
    }
    for (kind, sha256) in content.payloads.files() {
        match esp.hash_file(&content.payload(kind).path()) {
            Ok((digest, _)) if digest == sha256 => {}
            Ok(_) => return Ok(Wholeness::Differs(kind)),
            Err(EspError::Missing { .. }) => return Ok(Wholeness::Missing(kind)),
            Err(error) => return Err(error),
        }
    }
    Ok(Wholeness::Whole)
}

/// The entry that will boot instead (`UPD-50`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallback {
    /// What its name says.
    pub name: EntryName,
    /// The name as it is stored.
    pub file_name: String,
}

/// Why nothing better would boot (`UPD-50`).
#[derive(Debug, thiserror::Error)]
pub enum NoFallback {
    /// Nothing at all would.
    #[error("the boot loader would find nothing to boot")]
    Nothing,
    /// It cannot be said.
    #[error("what the boot loader would do cannot be predicted because of {}", because_text(because))]
    Unknown {
        /// Why not.
        because: Vec<Unpredictable>,
    },
    /// The same entry would boot again, or another name of it.
    #[error("the boot loader would choose {file_name} again ({})", reason_text(*reason))]
    Same {
        /// The file.
        file_name: String,
        /// Why the loader would.
        reason: ChoiceReason,
    },
    /// A foreign entry would boot.
    #[error("the boot loader would choose {file_name}, which is not one of ours ({})", reason_text(*reason))]
    Foreign {
        /// The file.
        file_name: String,
        /// Why the loader would.
        reason: ChoiceReason,
    },
    /// A bad entry would boot.
    #[error("the boot loader would choose {file_name}, which is marked bad")]
    Bad {
        /// The file.
        file_name: String,
    },
    /// The other entry is not whole.
    #[error("the boot loader would choose {file_name}, but {why}")]
    NotWhole {
        /// The file.
        file_name: String,
        /// What is wrong with it.
        why: Wholeness,
    },
    /// The ESP could not be read.
    #[error("the other entry cannot be checked")]
    Esp(#[from] EspError),
}

/// Asks the model: with every name of this slot and generation bad, does another whole entry of ours boot (`UPD-50`)?
///
/// # Errors
/// When not, and why. Then nothing that relies on a fallback may be done: no reboot, no mark-bad, no rollback.
pub fn another_whole_entry_boots(
    esp: &mut dyn Esp,
    state: &EspState,
    name: EntryName,
    vars: &LoaderVars,
    architecture: EntryArchitecture,
) -> Result<Fallback, NoFallback> {
    let (file_name, entry, reason) = match state.predict_if_bad(name, vars, architecture) {
        Prediction::Boots { file_name, entry, reason } => (file_name, entry, reason),
        Prediction::Nothing => return Err(NoFallback::Nothing),
        Prediction::Unknown { because } => return Err(NoFallback::Unknown { because }),
    };
    let Some(other) = entry else { return Err(NoFallback::Foreign { file_name, reason }) };
    if other.same_system(name) {
        return Err(NoFallback::Same { file_name, reason });
    }
    if other.is_exhausted() {
        return Err(NoFallback::Bad { file_name });
    }
    let found = state.ours.iter().find(|entry| entry.file_name == file_name).ok_or(NoFallback::Nothing)?;
    match is_whole(esp, found)? {
        Wholeness::Whole => Ok(Fallback { name: other, file_name }),
        why => Err(NoFallback::NotWhole { file_name, why }),
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
