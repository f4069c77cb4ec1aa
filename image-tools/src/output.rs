//! Files that appear whole or not at all, and text for standard output.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tempfile::NamedTempFile;

use crate::interrupt;

/// Where a command's result goes.
#[derive(Debug, clap::Args)]
pub struct OutputArgs {
    /// The file to make.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Replace the file if it is there.
    #[arg(long)]
    pub force: bool,
}

/// A file under a temporary name beside its place. It is removed unless it is [finished](NewFile::finish).
#[derive(Debug)]
pub struct NewFile {
    temporary: NamedTempFile,
    place: PathBuf,
    force: bool,
}

impl NewFile {
    /// Makes the file under its temporary name, with the usual permissions. Refuses a place that is taken, unless `force`d; also then
    /// anything but a regular file.
    pub fn create(args: &OutputArgs) -> Result<NewFile> {
        let place = args.output.clone();
        match fs::symlink_metadata(&place) {
            Ok(meta) if !meta.is_file() => bail!("{} exists and is not a file", place.display()),
            Ok(_) if !args.force => bail!("{} exists already; --force replaces it", place.display()),
            Ok(_) => (),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (),
            Err(error) => return Err(error).with_context(|| format!("cannot look at {}", place.display())),
        }
        let Some(name) = place.file_name() else { bail!("{} is not the name of a file", place.display()) };
        let mut prefix = std::ffi::OsString::from(".");
        prefix.push(name);
        prefix.push(".");
        let dir = directory(&place);
        let temporary = interrupt::make(|| {
            let temporary = tempfile::Builder::new()
                .prefix(&prefix)
                .permissions(Permissions::from_mode(0o666))
                .tempfile_in(dir)
                .with_context(|| format!("cannot make a file in {}", dir.display()))?;
            let path = temporary.path().to_owned();
            Ok((temporary, path))
        })?;
        Ok(NewFile { temporary, place, force: args.force })
    }

    /// The file.
    pub fn file(&mut self) -> &mut File {
        self.temporary.as_file_mut()
    }

    /// Its temporary path.
    pub fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Brings the file to the medium and gives it its name.
    pub fn finish(self) -> Result<()> {
        let place = self.place;
        self.temporary.as_file().sync_all().with_context(|| format!("cannot flush {}", place.display()))?;
        let persisted = match self.force {
            true => self.temporary.persist(&place),
            // Somebody may have made it meanwhile.
            false => self.temporary.persist_noclobber(&place),
        };
        interrupt::finished();
        persisted.map_err(|e| e.error).with_context(|| format!("cannot make {}", place.display()))?;
        sync_directory(&place)
    }
}

/// Makes the name of a new file durable.
pub fn sync_directory(place: &Path) -> Result<()> {
    let dir = directory(place);
    File::open(dir).and_then(|dir| dir.sync_all()).with_context(|| format!("cannot flush {}", dir.display()))
}

fn directory(place: &Path) -> &Path {
    match place.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// Writes to standard output. A reader that has gone away (`| head`) is no error.
pub fn print(text: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to standard output"),
    }
}

/// Bytes as a person reads them: `1.5 MiB`.
pub fn size(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.into_iter().find(|(shift, _)| bytes >= 1 << shift) {
        Some((shift, unit)) => format!("{:.1} {unit}", bytes as f64 / f64::from(1_u32 << shift)),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(output: PathBuf, force: bool) -> OutputArgs {
        OutputArgs { output, force }
    }

    fn names(dir: &Path) -> Vec<std::ffi::OsString> {
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect()
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("out");
        let mut new = NewFile::create(&args(place.clone(), false)).unwrap();
        new.file().write_all(b"part").unwrap();
        assert!(!place.exists());
        drop(new);
        assert_eq!(names(dir.path()).len(), 0, "nothing is left behind");

        let mut new = NewFile::create(&args(place.clone(), false)).unwrap();
        new.file().write_all(b"whole").unwrap();
        new.finish().unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"whole");
        assert_eq!(names(dir.path()), ["out"]);
    }

    #[test]
    fn what_is_there_is_kept_unless_forced() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("out");
        // Made by somebody else meanwhile.
        let new = NewFile::create(&args(place.clone(), false)).unwrap();
        fs::write(&place, "theirs").unwrap();
        assert!(new.finish().is_err());
        assert!(NewFile::create(&args(place.clone(), false)).is_err());
        assert_eq!(fs::read(&place).unwrap(), b"theirs");

        NewFile::create(&args(place.clone(), true)).unwrap().finish().unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"");
    }

    #[test]
    fn only_regular_files_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        for taken in [dir.path().to_owned(), PathBuf::from("/dev/null")] {
            assert!(NewFile::create(&args(taken, true)).is_err());
        }
        assert!(NewFile::create(&args(dir.path().join(".."), true)).is_err());
    }

    #[test]
    fn sizes_for_people() {
        let texts = [0, 1023, 1024, 1536 << 10, 3 << 30].map(size);
        assert_eq!(texts, ["0 bytes", "1023 bytes", "1.0 KiB", "1.5 MiB", "3.0 GiB"]);
    }
}
