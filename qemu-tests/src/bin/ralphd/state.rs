//! What the stand-in keeps under `/var`: a database with a format, which it may change only once the slot is committed
//! (HLT-3), and the agents it pretends to start then.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, bail};

const FOLDER: &str = "/var/lib/ralphd";
/// Made by the health check when the slot is committed.
const COMMITTED: &str = "/run/ralphos/committed";
/// There when agents would be running.
const AGENTS: &str = "/run/ralphd/agents";

/// True once the booted slot is committed.
pub fn committed() -> bool {
    Path::new(COMMITTED).exists()
}

/// Opens the database with a program that knows the formats up to `format`.
///
/// A database in a newer format is refused: this is the version that a fallback comes back to. One that is missing is not
/// made before the commit, either: the version before could not read it.
pub fn prepare(format: u32, migrates_early: bool) -> Result<()> {
    let found = format_of(Path::new(FOLDER))?;
    if let Some(newer) = found.filter(|found| *found > format) {
        bail!("{FOLDER}/db has format {newer}, and this version knows no format after {format}: it cannot be opened");
    }
    if migrates_early {
        println!("ralphd: the database gets format {format} BEFORE the commit, as told (it had {found:?})");
        tolerate(write(format));
    }
    Ok(())
}

/// What has waited for the commit: the database gets this version's format, agents start.
pub fn after_commit(format: u32) -> Result<()> {
    let found = format_of(Path::new(FOLDER))?;
    if found.is_none_or(|older| older < format) {
        println!("ralphd: committed: the database gets format {format} (it had {found:?})");
        // A full or read-only /var is no reason to leave the machine without its control plane.
        tolerate(write(format));
    }
    fs::write(AGENTS, "1\n").with_context(|| format!("cannot write {AGENTS}"))
}

/// Migrates the database, or makes it.
fn write(format: u32) -> Result<()> {
    let folder = Path::new(FOLDER);
    fs::create_dir_all(folder).with_context(|| format!("cannot create {FOLDER}"))?;
    if !folder.join("first-start").exists() {
        // The boot id of the very first start: a test sees by it that `/var` survives an update.
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("cannot read boot_id")?;
        put(folder, "first-start", boot.trim())?;
    }
    put(folder, "db", &format.to_string())
}

/// The format of the database; none if there is no database.
fn format_of(folder: &Path) -> Result<Option<u32>> {
    let path = folder.join("db");
    match fs::read_to_string(&path) {
        Ok(text) => {
            let format = text.trim().parse().with_context(|| format!("{}: no format: {text:?}", path.display()))?;
            Ok(Some(format))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Replaces a file: at any instant it is the old or the new one.
fn put(folder: &Path, name: &str, content: &str) -> Result<()> {
    let (path, new) = (folder.join(name), folder.join(format!("{name}.new")));
    let written = fs::File::create(&new).and_then(|mut file| {
        std::io::Write::write_all(&mut file, format!("{content}\n").as_bytes())?;
        file.sync_all()
    });
    written.with_context(|| format!("cannot write {}", new.display()))?;
    fs::rename(&new, &path).with_context(|| format!("cannot replace {}", path.display()))
}

fn tolerate(result: Result<()>) {
    if let Err(error) = result {
        eprintln!("ralphd: keeps no state: {error:#}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_read_as_it_was_put() -> Result<()> {
        let folder = std::env::temp_dir().join(format!("ralphd-state-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        assert_eq!(format_of(&folder)?, None);
        put(&folder, "db", "7")?;
        assert_eq!(format_of(&folder)?, Some(7));
        fs::write(folder.join("db"), "seven")?;
        assert!(format_of(&folder).is_err());
        fs::remove_dir_all(&folder)?;
        Ok(())
    }
}
