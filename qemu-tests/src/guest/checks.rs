//! The health check's configuration in the guest: what is shipped, with less patience.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::workspace;

/// Where an operator's checks are, below the root.
pub(super) const FOLDER: &str = "etc/ralph-health-check/checks.d";

/// What the health check ships for an image, in this workspace.
pub(super) fn shipped() -> PathBuf {
    workspace::source_dir().join("health-check/units")
}

/// The files of a folder, by name.
pub(super) fn shipped_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        files.push(entry?.path());
    }
    files.sort();
    Ok(files)
}

/// The shipped checks with less patience, for `/etc`: a scenario boots a machine up to five times. Durations are all
/// that is changed, so that what is shipped is what is tried; and where that is not asked for there is no check of the `sandbox`.
///
/// # Errors
/// When the shipped files cannot be read.
pub fn impatient_checks(sandbox: bool) -> Result<Vec<(String, String)>> {
    let mut checks = Vec::new();
    for file in shipped_files(&shipped().join("checks.d"))? {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let text = if sandbox { text } else { without("sandbox", &text) };
        checks.push((format!("{FOLDER}/{name}"), impatient(&text)));
    }
    Ok(checks)
}

/// The text without this check; an empty line stands between two.
fn without(check: &str, text: &str) -> String {
    let head = format!("[check.{check}]");
    let others = text.split("\n\n").filter(|part| !part.lines().any(|line| line == head));
    others.collect::<Vec<_>>().join("\n\n")
}

/// How long a check may take by its kind: what a healthy guest needs beside a busy compiler, and no more, because a
/// failing scenario waits for its end.
const PATIENCE: &[(&str, &str)] = &[("unit", "40s"), ("http", "12s"), ("sandbox", "90s")];

fn impatient(text: &str) -> String {
    let mut out = String::new();
    let mut kind = String::new();
    for line in text.lines() {
        let (key, value) = line.split_once('=').map_or(("", ""), |(key, value)| (key.trim(), value.trim()));
        match key {
            "kind" => value.trim_matches('"').clone_into(&mut kind),
            "stable-for" => {
                out.push_str("stable-for = \"2s\"\n");
                continue;
            }
            "deadline" => {
                if let Some((_, patience)) = PATIENCE.iter().find(|(name, _)| *name == kind) {
                    out.push_str(&format!("deadline = \"{patience}\"\n"));
                    continue;
                }
            }
            _ => {}
        }
        out.push_str(line);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_durations_are_changed() {
        let text = "# deadline\n[check.x]\nkind = \"unit\"\ndeadline = \"60s\"\nstable-for = \"5s\"\ntries = 2\n";
        let expected = "# deadline\n[check.x]\nkind = \"unit\"\ndeadline = \"40s\"\nstable-for = \"2s\"\ntries = 2\n";
        assert_eq!(impatient(text), expected);
    }

    #[test]
    fn one_check_is_left_out_of_the_shipped_ones() {
        let names = |sandbox| {
            let checks = impatient_checks(sandbox).expect("the shipped checks can be read");
            let lines: Vec<String> = checks.iter().flat_map(|(_, text)| text.lines().map(str::to_owned)).collect();
            lines.into_iter().filter(|line| line.starts_with('[')).collect::<Vec<_>>()
        };
        let (all, fewer) = (names(true), names(false));
        assert_eq!(all.len(), fewer.len() + 1);
        assert_eq!(all.into_iter().filter(|name| name != "[check.sandbox]").collect::<Vec<_>>(), fewer);
    }
}
