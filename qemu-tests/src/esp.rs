//! Looks at (and, for tests of the boot loader, makes) the ESP in a disk image from outside, with mtools: another
//! reader of FAT than the kernel's and the updater's own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::setup;

/// A FAT volume in a file.
#[derive(Clone, Debug)]
pub struct Esp {
    disk: PathBuf,
    offset: u64,
}

impl Esp {
    /// The volume that begins at byte `offset` of `disk`.
    pub fn at(disk: &Path, offset: u64) -> Self {
        Self { disk: disk.to_owned(), offset }
    }

    /// The volume in the partition labelled `EFI` of `disk`.
    ///
    /// # Errors
    /// When there is no such partition.
    pub fn of_disk(disk: &Path) -> Result<Self> {
        Ok(Self::at(disk, partition(disk, "EFI")?))
    }

    /// The file names in a folder (`loader/entries`), sorted, as they are stored.
    ///
    /// # Errors
    /// When mtools fails.
    pub fn list(&self, folder: &str) -> Result<Vec<String>> {
        let out = setup::run(self.mtools("mdir").arg("-b").arg(format!("::/{folder}")))?;
        let mut names: Vec<String> = String::from_utf8_lossy(&out)
            .lines()
            .map(|line| line.trim_end_matches('/'))
            .filter_map(|line| line.rsplit('/').next())
            .map(str::to_owned)
            .collect();
        names.sort();
        Ok(names)
    }

    /// The boot entries' file names: the whole boot state.
    ///
    /// # Errors
    /// When mtools fails.
    pub fn entries(&self) -> Result<Vec<String>> {
        self.list("loader/entries")
    }

    /// The content of a file.
    ///
    /// # Errors
    /// When mtools fails.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        setup::run(self.mtools("mtype").arg(format!("::/{path}")))
    }

    /// Copies a file of the host into the volume, over one that is there; the folder must be there.
    ///
    /// # Errors
    /// When mtools fails.
    pub fn copy_in(&self, from: &Path, path: &str) -> Result<()> {
        setup::run(self.mtools("mcopy").arg("-o").arg(from).arg(format!("::/{path}")))?;
        Ok(())
    }

    /// Removes a file.
    ///
    /// # Errors
    /// When mtools fails.
    pub fn remove(&self, path: &str) -> Result<()> {
        setup::run(self.mtools("mdel").arg(format!("::/{path}")))?;
        Ok(())
    }

    /// Renames a file within its folder.
    ///
    /// # Errors
    /// When mtools fails.
    pub fn rename(&self, path: &str, name: &str) -> Result<()> {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        setup::run(self.mtools("mren").args([format!("::/{path}"), format!("::/{folder}/{name}")]))?;
        Ok(())
    }

    /// Makes folders, parents first.
    ///
    /// # Errors
    /// When mtools fails.
    pub fn make_folders(&self, folders: &[&str]) -> Result<()> {
        let mut command = self.mtools("mmd");
        command.args(folders.iter().map(|folder| format!("::/{folder}")));
        setup::run(&mut command)?;
        Ok(())
    }

    /// The cluster that a file begins at.
    ///
    /// # Errors
    /// When mtools fails, or the file has no clusters.
    pub fn first_cluster(&self, path: &str) -> Result<u32> {
        // `::/loader/entries/x.conf <7-9>`
        let out = setup::run(self.mtools("mshowfat").arg(format!("::/{path}")))?;
        let out = String::from_utf8_lossy(&out);
        let clusters = out.rsplit_once('<').map(|(_, rest)| rest.trim_start_matches(|c: char| !c.is_ascii_digit()));
        let digits = clusters.and_then(|text| text.split(|c: char| !c.is_ascii_digit()).next());
        digits.and_then(|text| text.parse().ok()).with_context(|| format!("no clusters of {path}: {out}"))
    }

    fn mtools(&self, program: &str) -> Command {
        let mut command = setup::command(program);
        command.env("MTOOLS_SKIP_CHECK", "1").arg("-i").arg(format!("{}@@{}", self.disk.display(), self.offset));
        command
    }
}

/// Where the partition labelled `label` begins on `disk`, in bytes.
///
/// # Errors
/// When there is no such partition.
pub fn partition(disk: &Path, label: &str) -> Result<u64> {
    let table = setup::run(setup::command("sgdisk").arg("--print").arg(disk))?;
    let table = String::from_utf8_lossy(&table);
    // Number, first sector, last sector, size, unit, code, name.
    let first = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|words| words.len() == 7 && words[6] == label)
        .and_then(|words| words[1].parse::<u64>().ok())
        .with_context(|| format!("no partition {label} in {}:\n{table}", disk.display()))?;
    Ok(first * 512)
}
