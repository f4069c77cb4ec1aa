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
/// that is changed, so that what is shipped is what is tried.
///
/// # Errors
/// When the shipped files cannot be read.
pub fn impatient_checks() -> Result<Vec<(String, String)>> {
    let mut checks = Vec::new();
    for file in shipped_files(&shipped().join("checks.d"))? {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        checks.push((format!("{FOLDER}/{name}"), impatient(&text)));
    }
    Ok(checks)
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
}
