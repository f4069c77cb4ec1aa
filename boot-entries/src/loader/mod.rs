//! What systemd-boot 252 to 257 will do, as a pure function of the files, its configuration and its EFI variables
//! (`LDR-1` to `LDR-5`).
//!
//! Modelled on the loader's source: how it reads lines, which files it takes, how it sorts and what it selects. Every
//! plan of the updater is checked against this before anything is changed, so a deviation here is a machine that does
//! not come back. The member `qemu-tests` compares it with the loaders themselves.

mod automatic;
mod conf_lines;
mod glob;
mod lines;
mod release;
mod version;

use std::cmp::Ordering;

use crate::entry::EntryArchitecture;
use automatic::Automatic;
pub use conf_lines::{ConfLine, choosing_lines};
use glob::matches;
use lines::{key_values, text};
pub use release::Release;
pub use version::compare_versions;

/// The ending of an entry's file name.
const ENDING: &str = ".conf";

/// A file in `loader/entries`, as the loader finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryFile {
    /// Its name, as stored.
    pub name: String,
    /// Its content.
    pub content: Vec<u8>,
}

/// The EFI variables that change the loader's choice (vendor `4a67b082-0a4c-41cf-b6c7-440b29bb8c4f`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoaderVars {
    /// `LoaderEntryOneShot`: for the next boot only.
    pub one_shot: Option<String>,
    /// `LoaderEntryDefault`.
    pub default: Option<String>,
    /// `LoaderEntryLastBooted`: what `@saved` stands for.
    pub last_booted: Option<String>,
}

/// An EFI variable does not hold a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VariableError {
    /// A file of efivarfs begins with four bytes of attributes.
    #[error("the EFI variable has no attributes")]
    Attributes,
    /// Not a whole number of UTF-16 units, or not UTF-16.
    #[error("the EFI variable does not hold a UTF-16 string")]
    NotAString,
}

/// Reads a string variable from the bytes of its file in efivarfs: four bytes of attributes, then UTF-16LE up to a NUL
/// or the end.
///
/// # Errors
/// When it is too short or not UTF-16.
pub fn parse_efi_string(bytes: &[u8]) -> Result<String, VariableError> {
    let (_attributes, text) = bytes.split_at_checked(4).ok_or(VariableError::Attributes)?;
    if text.len() % 2 != 0 {
        return Err(VariableError::NotAString);
    }
    let units: Vec<u16> = text.chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    let end = units.iter().position(|unit| *unit == 0).unwrap_or(units.len());
    String::from_utf16(&units[..end]).map_err(|_| VariableError::NotAString)
}

/// What of `loader/loader.conf` changes the choice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoaderConf {
    /// `default`: a pattern over ids, or `@saved`; the last one in the file. As the newest release reads it.
    default: Option<String>,
    /// As 252 reads it.
    default_252: Option<String>,
    automatic: Automatic,
}

impl LoaderConf {
    /// Reads the file's content. What the loader ignores is ignored; nothing in it is an error.
    pub fn parse(content: impl AsRef<[u8]>) -> LoaderConf {
        let read = |release: Release| {
            let lines = key_values(content.as_ref(), release.quotes()).filter(|(key, _)| *key == b"default");
            let special = |value: &[u8]| value.starts_with(b"@") && !value.eq_ignore_ascii_case(b"@saved");
            lines.filter(|(_, value)| !special(value)).last().and_then(|(_, value)| text(value))
        };
        let mut automatic = Automatic::default();
        for (key, value) in key_values(content.as_ref(), Release::V252.quotes()) {
            automatic.set(key, value);
        }
        LoaderConf { default: read(Release::V257Stripped), default_252: read(Release::V252), automatic }
    }

    /// What stands behind `default`, as this release reads it (`LDR-9`).
    pub fn default_in(&self, release: Release) -> Option<&String> {
        if release == Release::V252 { self.default_252.as_ref() } else { self.default.as_ref() }
    }

    /// The same file without its `default` lines: no release obeys any.
    #[must_use]
    pub fn without_default(self) -> LoaderConf {
        LoaderConf { default: None, default_252: None, ..self }
    }
}

/// An entry that the loader would show (`LDR-1`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its place in the list of files.
    pub index: usize,
    /// What patterns and the order look at, and what the loader calls the entry in its variables (`LDR-3`).
    pub id: String,
    /// Tries left and done (`LDR-2`).
    pub counter: Option<(u32, u32)>,
    /// `sort-key`
    pub sort_key: Option<String>,
    /// `machine-id`
    pub machine_id: Option<String>,
    /// `version`
    pub version: Option<String>,
    /// The path behind `linux` or `efi`, as it stands there.
    pub kernel: String,
    /// The file's name once the loader has counted a try (`LDR-5`); None without a counter.
    pub counted_name: Option<String>,
}

/// Why an entry is chosen (`LDR-4`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChoiceReason {
    /// `LoaderEntryOneShot` matches it.
    OneShot,
    /// `LoaderEntryDefault` matches it.
    DefaultVariable,
    /// `default` in loader.conf matches it.
    DefaultInConf,
    /// It is the first in the loader's order.
    First,
}

/// What the loader does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It boots an entry.
    Boots(Choice),
    /// It finds no entry, and stops or waits for a person.
    Nothing,
    /// It may start something that is no entry, because this pattern names it and no entry (`LDR-8`).
    Automatic {
        /// The pattern, as the loader takes it.
        pattern: String,
    },
}

impl Outcome {
    /// The entry that it boots.
    pub fn choice(self) -> Option<Choice> {
        match self {
            Outcome::Boots(choice) => Some(choice),
            Outcome::Nothing | Outcome::Automatic { .. } => None,
        }
    }
}

/// What the loader boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Its place in the list of files.
    pub index: usize,
    /// Its file name, as stored.
    pub name: String,
    /// Why.
    pub reason: ChoiceReason,
}

/// What a release of the loader does (`LDR-4`).
///
/// `kernel_exists` gets the path behind `linux` or `efi` as it stands there.
pub fn choose(
    release: Release,
    files: &[EntryFile],
    kernel_exists: &dyn Fn(&str) -> bool,
    conf: &LoaderConf,
    vars: &LoaderVars,
    architecture: EntryArchitecture,
) -> Outcome {
    let candidates = candidates(release, files, kernel_exists, architecture);
    // `@saved` in the variable stands for the last booted entry and hides a `@saved` in the file.
    let saved = |pattern: Option<&String>| pattern.is_some_and(|p| p.eq_ignore_ascii_case("@saved"));
    let (in_variable, in_conf) = (vars.default.as_ref(), conf.default_in(release));
    let variable = if saved(in_variable) { vars.last_booted.as_ref() } else { in_variable };
    let in_conf = match (saved(in_conf), saved(in_variable)) {
        (true, true) => None,
        (true, false) => vars.last_booted.as_ref(),
        (false, _) => in_conf,
    };
    let patterns = [
        (vars.one_shot.as_ref().map(|p| p.to_ascii_lowercase()), ChoiceReason::OneShot),
        // What was booted last is not folded: it is compared as the loader wrote it.
        (fold(variable, saved(in_variable)), ChoiceReason::DefaultVariable),
        (fold(in_conf, saved(conf.default_in(release))), ChoiceReason::DefaultInConf),
    ];
    let boots = |chosen: &Candidate, reason| {
        Outcome::Boots(Choice { index: chosen.index, name: files[chosen.index].name.clone(), reason })
    };
    for (pattern, reason) in patterns {
        let Some(pattern) = pattern else { continue };
        match candidates.iter().find(|candidate| matches(&pattern, &candidate.id)) {
            Some(chosen) => return boots(chosen, reason),
            None if conf.automatic.may_match(&pattern) => return Outcome::Automatic { pattern },
            None => {}
        }
    }
    candidates.first().map_or(Outcome::Nothing, |first| boots(first, ChoiceReason::First))
}

fn fold(pattern: Option<&String>, saved: bool) -> Option<String> {
    pattern.map(|pattern| if saved { pattern.clone() } else { pattern.to_ascii_lowercase() })
}

/// The list of a release of the loader, in its order (`LDR-1`, `LDR-3`). Files that compare equal keep the order of the
/// directory.
pub fn candidates(
    release: Release,
    files: &[EntryFile],
    kernel_exists: &dyn Fn(&str) -> bool,
    architecture: EntryArchitecture,
) -> Vec<Candidate> {
    let found = files.iter().enumerate().filter_map(|(index, file)| candidate(release, index, file, architecture));
    let mut sorted: Vec<Candidate> = Vec::new();
    // Inserted one by one, as the loader does it: versions are no total order, so another way of sorting could end
    // in another list (and the standard library's may panic).
    for candidate in found.filter(|candidate| kernel_exists(&candidate.kernel)) {
        let before = sorted.iter().rposition(|earlier| order(earlier, &candidate).is_le());
        sorted.insert(before.map_or(0, |at| at + 1), candidate);
    }
    sorted
}

/// True for a file name that a release of the loader takes for an entry's (`LDR-1`).
pub fn is_entry_name(name: &str) -> bool {
    Release::ALL.into_iter().any(|release| release.takes_name(name))
}

/// True for a file that stops the loader for good before it offers anything (`LDR-10`).
pub(crate) fn halts_the_loader(file: &EntryFile) -> bool {
    let path = |key: &[u8]| [&b"linux"[..], b"efi", b"initrd", b"devicetree"].contains(&key);
    Release::ALL.into_iter().any(|release| {
        release.takes_name(&file.name)
            && key_values(&file.content, release.quotes()).any(|(key, value)| path(key) && value.is_empty())
    })
}

/// Reads one file; None when the loader leaves it out (but for the kernel's existence).
pub(crate) fn candidate(
    release: Release,
    index: usize,
    file: &EntryFile,
    architecture: EntryArchitecture,
) -> Option<Candidate> {
    if !release.takes_name(&file.name) {
        return None;
    }
    let (mut kernel, mut sort_key, mut machine_id, mut version) = (None, None, None, None);
    for (key, value) in key_values(&file.content, release.quotes()) {
        match key {
            b"linux" => kernel = text(value),
            b"efi" => {
                kernel = text(value);
                if kernel.as_ref().is_some_and(|path| is_the_loader(path, architecture)) {
                    return None;
                }
            }
            b"architecture" if !value.eq_ignore_ascii_case(architecture.as_str().as_bytes()) => return None,
            b"sort-key" => sort_key = text(value),
            b"machine-id" => machine_id = text(value),
            b"version" => version = text(value),
            _ => {}
        }
    }
    let counter = counter(&file.name);
    let id = release.id(&file.name, counter.is_some());
    let counted_name = counter.map(|counter| counted_name(&file.name, counter));
    Some(Candidate { index, id, counter, sort_key, machine_id, version, kernel: kernel?, counted_name })
}

/// True when an `efi` line is the one that counts in this entry (`LDR-1`).
pub(crate) fn uses_efi_key(content: &[u8]) -> bool {
    let lines = key_values(content, Release::V257Stripped.quotes());
    lines.filter(|(key, _)| [&b"linux"[..], b"efi"].contains(key)).last().is_some_and(|(key, _)| key == b"efi")
}

/// The loader leaves out an entry that starts the loader itself, which lies in the place that firmware looks at.
fn is_the_loader(path: &str, architecture: EntryArchitecture) -> bool {
    let mut parts = path.split(['/', '\\']).filter(|part| !part.is_empty());
    let own = ["efi", "boot", &format!("boot{}.efi", architecture.as_str())];
    path.starts_with(['/', '\\'])
        && !path.ends_with(['/', '\\'])
        && own.iter().all(|own| parts.next().is_some_and(|part| part.eq_ignore_ascii_case(own)))
        && parts.next().is_none()
}

/// `LDR-2`: the text between the last `+` and the ending.
fn counter(name: &str) -> Option<(u32, u32)> {
    let (stem, ending) = name.split_at_checked(name.len().checked_sub(ENDING.len())?)?;
    if !ending.eq_ignore_ascii_case(ENDING) {
        return None;
    }
    let (_, text) = stem.rsplit_once('+')?;
    let (left, done) = text.split_once('-').unwrap_or((text, "0"));
    let number = |digits: &str| {
        let digits_only = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        digits_only.then(|| digits.parse().ok()).flatten().filter(|n: &u32| *n <= i32::MAX as u32)
    };
    Some((number(left)?, number(done)?))
}

/// `LDR-5`: what a name with this counter becomes when the loader boots the entry.
fn counted_name(name: &str, (left, done): (u32, u32)) -> String {
    let stem = name.rsplit_once('+').map_or(name, |(stem, _)| stem);
    format!("{stem}+{}-{}{ENDING}", left.saturating_sub(1), (done + 1).min(i32::MAX as u32))
}

/// `LDR-3`.
fn order(a: &Candidate, b: &Candidate) -> Ordering {
    let bad = |c: &Candidate| matches!(c.counter, Some((0, _)));
    let utf16 = |text: &Option<String>| text.as_ref().map(|t| t.encode_utf16().collect::<Vec<u16>>());
    let text = |text: &'_ Option<String>| text.clone().unwrap_or_default();
    let mut order = bad(a).cmp(&bad(b)).then(a.sort_key.is_none().cmp(&b.sort_key.is_none()));
    if a.sort_key.is_some() && b.sort_key.is_some() {
        order = order
            .then_with(|| utf16(&a.sort_key).cmp(&utf16(&b.sort_key)))
            .then_with(|| utf16(&a.machine_id).cmp(&utf16(&b.machine_id)))
            .then_with(|| compare_versions(&text(&b.version), &text(&a.version)));
    }
    order.then_with(|| compare_versions(&b.id, &a.id)).then_with(|| match (a.counter, b.counter) {
        (Some((a_left, a_done)), Some((b_left, b_done))) => b_left.cmp(&a_left).then(a_done.cmp(&b_done)),
        _ => Ordering::Equal,
    })
}

#[cfg(test)]
mod tests;
