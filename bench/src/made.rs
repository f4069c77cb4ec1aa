//! Files that are dear to make, kept until something they were made from is newer.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

/// Makes `path` by `make`, unless it is there and at least as new as all of `from`. It appears whole or not at all.
///
/// # Errors
/// Those of `make`, and of the file system.
pub fn made(path: &Path, from: &[&Path], make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if fresh(path, from)? {
        return Ok(());
    }
    eprintln!("bench: making {}", path.display());
    let new = beside(path);
    for leftover in [&new, path] {
        remove(leftover)?;
    }
    make(&new).with_context(|| format!("cannot make {}", path.display()))?;
    // Some tools give what they make the time of what they made it from.
    let touch = || std::fs::File::open(&new)?.set_modified(SystemTime::now());
    touch().with_context(|| format!("cannot date {}", new.display()))?;
    std::fs::rename(&new, path).with_context(|| format!("cannot rename to {}", path.display()))
}

fn fresh(path: &Path, from: &[&Path]) -> Result<bool> {
    let Some(made) = modified(path)? else { return Ok(false) };
    for source in from {
        if modified(source)?.is_none_or(|time| time > made) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn modified(path: &Path) -> Result<Option<SystemTime>> {
    match std::fs::metadata(path) {
        Ok(meta) => Ok(Some(meta.modified()?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot look at {}", path.display())),
    }
}

/// The same ending: some tools go by it.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("new-{name}"))
}

fn remove(path: &Path) -> Result<()> {
    let result = match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(_) => return Ok(()),
    };
    result.with_context(|| format!("cannot remove {}", path.display()))
}

/// A word for a shell.
pub fn quoted(word: &str) -> String {
    let plain = !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-=:,+".contains(c));
    if plain { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_made_once_and_again_when_its_source_is_newer() {
        let dir = tempfile::tempdir().unwrap();
        let (source, out) = (dir.path().join("source"), dir.path().join("out"));
        std::fs::write(&source, "1").unwrap();
        let mut times = 0;
        let mut make = || {
            made(&out, &[&source], |new| {
                times += 1;
                Ok(std::fs::copy(&source, new).map(drop)?)
            })
            .unwrap();
        };
        make();
        make();
        let later = SystemTime::now() + std::time::Duration::from_secs(5);
        std::fs::File::options().write(true).open(&source).unwrap().set_modified(later).unwrap();
        make();
        assert_eq!(times, 2);
    }

    #[test]
    fn what_fails_half_way_leaves_nothing_that_looks_made() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let result = made(&out, &[], |new| {
            std::fs::write(new, "half")?;
            anyhow::bail!("no room")
        });
        assert!(result.is_err() && !out.exists());
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quoted("/a/b-1.zst"), "/a/b-1.zst");
        assert_eq!(quoted("it's $1"), "'it'\\''s $1'");
        assert_eq!(quoted(""), "''");
    }
}
