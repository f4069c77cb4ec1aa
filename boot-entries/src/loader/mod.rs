//! What systemd-boot 252 to 257 will do, as a pure function of the files, its configuration and its EFI variables
//! (`LDR-1` to `LDR-5`).
//!
//! Modelled on the loader's source: how it reads lines, which files it takes, how it sorts and what it selects. Every
//! plan of the updater is checked against this before anything is changed, so a deviation here is a machine that does
//! not come back.

mod conf_lines;
mod glob;
mod lines;
mod version;

use std::cmp::Ordering;

use crate::entry::EntryArchitecture;
pub use conf_lines::{ConfLine, choosing_lines};
use glob::matches;
use lines::key_values;
pub use version::compare_versions;

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
    /// `default`: a pattern over file names, or `@saved`; the last one in the file.
    pub default: Option<String>,
}

impl LoaderConf {
    /// Reads the file's text. What the loader ignores is ignored; nothing in it is an error.
    pub fn parse(text: &str) -> LoaderConf {
        let mut conf = LoaderConf::default();
        for (key, value) in key_values(text.as_bytes()) {
            let special = value.starts_with('@') && !value.eq_ignore_ascii_case("@saved");
            if key == "default" && !special {
                conf.default = Some(value);
            }
        }
        conf
    }
}

/// An entry that the loader would show (`LDR-1`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its place in the list of files.
    pub index: usize,
    /// What patterns and the order look at: the lower-case file name, counter and ending included.
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

/// The entry that the loader would boot, or None: then it stops and waits for a person.
///
/// `kernel_exists` gets the path behind `linux` or `efi` as it stands there.
pub fn choose(
    files: &[EntryFile],
    kernel_exists: &dyn Fn(&str) -> bool,
    conf: &LoaderConf,
    vars: &LoaderVars,
    architecture: EntryArchitecture,
) -> Option<Choice> {
    let candidates = candidates(files, kernel_exists, architecture);
    let find = |pattern: &Option<String>| {
        let pattern = pattern.as_ref()?.to_ascii_lowercase();
        candidates.iter().find(|candidate| matches(&pattern, &candidate.id))
    };
    // `@saved` in the variable stands for the last booted entry and hides a `@saved` in the file.
    let saved = |pattern: &Option<String>| pattern.as_ref().is_some_and(|p| p.eq_ignore_ascii_case("@saved"));
    let variable = if saved(&vars.default) { &vars.last_booted } else { &vars.default };
    let in_conf = match (saved(&conf.default), saved(&vars.default)) {
        (true, true) => &None,
        (true, false) => &vars.last_booted,
        (false, _) => &conf.default,
    };
    let (chosen, reason) = find(&vars.one_shot)
        .map(|c| (c, ChoiceReason::OneShot))
        .or_else(|| find(variable).map(|c| (c, ChoiceReason::DefaultVariable)))
        .or_else(|| find(in_conf).map(|c| (c, ChoiceReason::DefaultInConf)))
        .or_else(|| candidates.first().map(|c| (c, ChoiceReason::First)))?;
    Some(Choice { index: chosen.index, name: files[chosen.index].name.clone(), reason })
}

/// The loader's list, in its order (`LDR-1`, `LDR-3`). Files that compare equal keep the order of the directory.
pub fn candidates(
    files: &[EntryFile],
    kernel_exists: &dyn Fn(&str) -> bool,
    architecture: EntryArchitecture,
) -> Vec<Candidate> {
    let mut found: Vec<Candidate> =
        files.iter().enumerate().filter_map(|(index, file)| candidate(index, file, architecture)).collect();
    found.retain(|candidate| kernel_exists(&candidate.kernel));
    found.sort_by(order);
    found
}

/// True for a file name that the loader takes for an entry's (`LDR-1`).
pub fn is_entry_name(name: &str) -> bool {
    let id = name.to_ascii_lowercase();
    id.ends_with(".conf") && !id.starts_with('.') && !id.starts_with("auto-")
}

/// Reads one file; None when the loader leaves it out (but for the kernel's existence).
pub(crate) fn candidate(index: usize, file: &EntryFile, architecture: EntryArchitecture) -> Option<Candidate> {
    if !is_entry_name(&file.name) {
        return None;
    }
    let id = file.name.to_ascii_lowercase();
    let (mut kernel, mut sort_key, mut machine_id, mut version) = (None, None, None, None);
    for (key, value) in key_values(&file.content) {
        match key.as_str() {
            "linux" => kernel = Some(value),
            "efi" if is_the_loader(&value) => return None,
            "efi" => kernel = Some(value),
            "architecture" if !value.eq_ignore_ascii_case(architecture.as_str()) => return None,
            "sort-key" => sort_key = Some(value),
            "machine-id" => machine_id = Some(value),
            "version" => version = Some(value),
            _ => {}
        }
    }
    let counter = counter(&id);
    Some(Candidate { index, id, counter, sort_key, machine_id, version, kernel: kernel? })
}

/// True when an `efi` line is the one that counts in this entry (`LDR-1`).
pub(crate) fn uses_efi_key(content: &[u8]) -> bool {
    let starts = key_values(content).filter(|(key, _)| key == "linux" || key == "efi");
    starts.last().is_some_and(|(key, _)| key == "efi")
}

/// The loader leaves out an entry that starts the loader itself.
fn is_the_loader(path: &str) -> bool {
    let path = path.replace('/', "\\").to_ascii_lowercase();
    path.starts_with("\\efi\\boot\\boot") || path.starts_with("\\efi\\systemd\\systemd-boot")
}

/// `LDR-2`: the text between the last `+` and the ending.
fn counter(id: &str) -> Option<(u32, u32)> {
    let (_, text) = id.strip_suffix(".conf")?.rsplit_once('+')?;
    let (left, done) = text.split_once('-').unwrap_or((text, "0"));
    let number = |digits: &str| {
        let digits_only = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        digits_only.then(|| digits.parse().ok()).flatten().filter(|n: &u32| *n <= i32::MAX as u32)
    };
    Some((number(left)?, number(done)?))
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
