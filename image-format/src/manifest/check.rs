//! The limits of the manifest's values (IMG-12 to IMG-16, IMG-20 to IMG-22).

use std::collections::HashSet;

use super::{Content, ManifestError, Payload, PayloadKind};
use crate::verity::{self, BLOCK};

/// Kernel option keys that an image must not carry (IMG-16), with or without `rd.` in front; besides these, every key beginning `ralph.`
/// (but [`DEADLINE_OPTION_KEY`]) or `systemd.verity`.
pub const RESERVED_OPTION_KEYS: [&str; 5] = ["root", "roothash", "usrhash", "ro", "rw"];

/// The one key beginning `ralph.` that is the image's own: how long its trials may take (GRD-21).
pub const DEADLINE_OPTION_KEY: &str = "ralph.deadline";

const RESERVED_OPTION_PREFIXES: [&str; 2] = ["ralph.", "systemd.verity"];

/// The kinds of payload (IMG-14).
const KNOWN: [&str; 4] = ["root", "linux", "initrd", "uki"];

const MAX_SIZE: u64 = 1 << 48;

pub(super) fn content(content: &Content) -> Result<(), ManifestError> {
    text("os-id", &content.os_id, 1..=64, |c| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-'))?;
    text("version", &content.version, 1..=64, |c| c.is_ascii_alphanumeric() || "._~^-".contains(c))?;
    if !content.version.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        return Err(field("version", "must begin with a letter or digit"));
    }
    if content.compatible.len() > 64 {
        return Err(field("compatible", format!("has {} entries, more than 64", content.compatible.len())));
    }
    for (index, hardware) in content.compatible.iter().enumerate() {
        let at = format!("compatible[{index}]");
        text(&at, hardware, 1..=128, |c| c.is_ascii_alphanumeric() || ",._-".contains(c))?;
    }
    if content.epoch == 0 {
        return Err(field("epoch", "is 0; the first epoch is 1"));
    }
    text("title", &content.title, 1..=128, printable)?;
    if content.title.trim() != content.title {
        return Err(field("title", "begins or ends with a blank"));
    }
    check_options(&content.options)?;
    if content.critical.len() > 64 {
        return Err(field("critical", format!("has {} entries, more than 64", content.critical.len())));
    }
    payloads(content)
}

/// Checks the kernel options of an image: 0 to 1024 printable ASCII characters with single blanks between words (IMG-12), no reserved key,
/// and nothing that would swallow what stands behind them on the kernel's command line (IMG-16).
///
/// # Errors
/// Names the field, or the reserved key.
pub fn check_options(options: &str) -> Result<(), ManifestError> {
    text("options", options, 0..=1024, printable)?;
    // Boot entries put one blank between words: any other would not reach the kernel as it was signed.
    if options.starts_with(' ') || options.ends_with(' ') || options.contains("  ") {
        return Err(field("options", "has a blank at its beginning or end, or two in a row"));
    }
    if let Some(bad) = options.chars().find(|c| matches!(c, '\'' | '\\')) {
        let problem = format!("contains {bad:?}, which systemd takes out and the kernel does not (IMG-16)");
        return Err(field("options", problem));
    }
    let words = kernel_words(options).ok_or_else(|| {
        field("options", "has an open double quote, which would swallow the options that follow (IMG-16)")
    })?;
    for word in words {
        let key = word.split('=').next().unwrap_or_default();
        // The kernel takes `-` and `_` in keys for the same character.
        let canonical = key.replace('-', "_");
        // systemd in the initrd takes `rd.roothash` for `roothash`.
        let canonical = canonical.trim_start_matches("rd.");
        let reserved = RESERVED_OPTION_KEYS.contains(&canonical)
            || RESERVED_OPTION_PREFIXES.iter().any(|prefix| canonical.starts_with(prefix));
        if reserved && key != DEADLINE_OPTION_KEY {
            return Err(ManifestError::ReservedOption(key.to_owned()));
        }
        if word == "--" {
            return Err(field("options", "has the word \"--\", behind which the kernel reads no options (IMG-16)"));
        }
    }
    Ok(())
}

/// The words of a kernel command line with the quotes taken out, as the kernel's `next_arg` and systemd see them: blanks within double
/// quotes do not separate, and `"root=x"` is the option `root`. `None` if a quote is left open.
fn kernel_words(options: &str) -> Option<Vec<String>> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in options.chars() {
        match c {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            _ => words.last_mut().expect("never empty").push(c),
        }
    }
    (!quoted).then_some(words)
}

fn payloads(content: &Content) -> Result<(), ManifestError> {
    let payloads = &content.payloads;
    if payloads.is_empty() || payloads.len() > 32 {
        return Err(field("payloads", format!("has {} entries, not 1 to 32", payloads.len())));
    }
    let mut names = HashSet::new();
    for (index, payload) in payloads.iter().enumerate() {
        one_payload(index, payload)?;
        if !names.insert(&payload.name) {
            return Err(ManifestError::Payloads(format!("two are named {:?}", payload.name)));
        }
    }
    let count = |kind: &str| payloads.iter().filter(|payload| payload.kind.as_str() == kind).count();
    let wanted = if count("uki") == 0 { [1, 1, 1, 0] } else { [1, 0, 0, 1] };
    for (kind, wanted) in KNOWN.into_iter().zip(wanted) {
        if count(kind) != wanted {
            let than = if wanted == 0 { "no" } else { "exactly one" };
            let beside = if wanted == 0 { " beside a \"uki\"" } else { "" };
            return Err(ManifestError::Payloads(format!("there must be {than} {kind:?}{beside}, not {}", count(kind))));
        }
    }
    let PayloadKind::Root(verity) = &payloads[0].kind else {
        return Err(ManifestError::Payloads("the first must be \"root\"".to_owned()));
    };
    root(&payloads[0], verity)?;

    let slot_bytes = verity::slot_bytes(payloads[0].size);
    if content.slot_bytes != slot_bytes {
        return Err(sum("slot-bytes", content.slot_bytes, slot_bytes, "IMG-22"));
    }
    let mut esp_bytes = 0;
    for payload in payloads {
        match payload.kind {
            PayloadKind::Linux { machine } | PayloadKind::Uki { machine } if machine != content.architecture => {
                return Err(ManifestError::Machine { machine, architecture: content.architecture });
            }
            PayloadKind::Linux { .. } | PayloadKind::Initrd | PayloadKind::Uki { .. } => esp_bytes += payload.size,
            PayloadKind::Root(_) | PayloadKind::Unknown(_) => {}
        }
    }
    if content.esp_bytes != esp_bytes {
        return Err(sum("esp-bytes", content.esp_bytes, esp_bytes, "IMG-12"));
    }
    Ok(())
}

fn one_payload(index: usize, payload: &Payload) -> Result<(), ManifestError> {
    let name_char = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-');
    text(&format!("payloads[{index}].name"), &payload.name, 1..=32, name_char)?;
    text(&format!("payloads[{index}].kind"), payload.kind.as_str(), 1..=32, name_char)?;
    if payload.size == 0 || payload.size > MAX_SIZE {
        return Err(field(format!("payloads[{index}].size"), format!("is {}, not 1 to 2^48", payload.size)));
    }
    match (&payload.kind, payload.required) {
        (PayloadKind::Unknown(kind), true) => {
            Err(ManifestError::UnknownRequired { name: payload.name.clone(), kind: kind.clone() })
        }
        // Only reachable by code that puts a known name into `Unknown`; written out it would read back as something else.
        (PayloadKind::Unknown(kind), false) if KNOWN.contains(&kind.as_str()) => {
            Err(field(format!("payloads[{index}].kind"), format!("{kind:?} is not an unknown kind")))
        }
        (PayloadKind::Unknown(_), false) | (_, true) => Ok(()),
        (known, false) => Err(ManifestError::Payloads(format!("{:?} must be required", known.as_str()))),
    }
}

fn root(payload: &Payload, verity: &verity::Verity) -> Result<(), ManifestError> {
    let size = payload.size;
    if !size.is_multiple_of(BLOCK) {
        return Err(ManifestError::Verity(format!("the size of root, {size}, is not a multiple of 4096")));
    }
    if verity.data_blocks != size / BLOCK {
        return Err(ManifestError::Verity(format!(
            "`data-blocks` is {} but the size of root gives {}",
            verity.data_blocks,
            size / BLOCK
        )));
    }
    if verity.hash_offset != size {
        return Err(ManifestError::Verity(format!(
            "`hash-offset` is {} but the size of root is {size}",
            verity.hash_offset
        )));
    }
    Ok(())
}

fn text(
    name: &str,
    value: &str,
    length: std::ops::RangeInclusive<usize>,
    allowed: impl Fn(char) -> bool,
) -> Result<(), ManifestError> {
    if let Some(bad) = value.chars().find(|c| !allowed(*c)) {
        return Err(field(name, format!("contains {bad:?}")));
    }
    if !length.contains(&value.len()) {
        let (least, most) = (length.start(), length.end());
        return Err(field(name, format!("has {} characters, not {least} to {most}", value.len())));
    }
    Ok(())
}

fn printable(c: char) -> bool {
    matches!(c, ' '..='~')
}

fn field(field: impl Into<String>, problem: impl Into<String>) -> ManifestError {
    ManifestError::Field { field: field.into(), problem: problem.into() }
}

fn sum(field: &'static str, found: u64, expected: u64, rule: &'static str) -> ManifestError {
    ManifestError::Sum { field, found, expected, rule }
}
