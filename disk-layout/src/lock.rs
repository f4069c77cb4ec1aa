//! The update lock (`DSK-40`): whoever writes a slot or the ESP, or reads them to decide a write, holds it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};

/// Where the lock of a device lies.
pub const DEVICE_LOCK: &str = "/run/ralph-update.lock";

/// Proof that this process holds the update lock, until it is dropped.
///
/// Functions that need the lock take `&UpdateLock`. The kernel releases the lock when the process ends, however it ends.
#[derive(Debug)]
#[must_use = "the lock is released when the guard is dropped"]
pub struct UpdateLock {
    _held: Flock<File>,
}

/// The update lock could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it: exit code "busy", at once.
    #[error("another update program is at work on {}{}; wait for it to end", path.display(), held_by(*holder))]
    Busy {
        /// The lock file or disk image.
        path: PathBuf,
        /// The process that holds the lock, where known.
        holder: Option<u32>,
    },
    /// The lock file or disk image could not be opened.
    #[error("cannot open {} to lock it", path.display())]
    Open {
        /// The lock file or disk image.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// `flock` failed for another reason than that the lock is held.
    #[error("cannot lock {}", path.display())]
    Lock {
        /// The lock file or disk image.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The lock is ours but our process id could not be written into the lock file.
    #[error("cannot write the process id to {}", path.display())]
    WritePid {
        /// The lock file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

fn held_by(holder: Option<u32>) -> String {
    holder.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

impl UpdateLock {
    /// Takes the lock file of a device, creating it where it is missing, and writes our process id into it.
    ///
    /// # Errors
    /// [`LockError::Busy`] at once when another process holds it.
    pub fn acquire(path: impl AsRef<Path>) -> Result<UpdateLock, LockError> {
        let path = path.as_ref();
        // Mode 0600: who may open the file may lock it, and nobody but root shall be able to block an update.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(path)
            .map_err(|source| LockError::Open { path: path.to_owned(), source })?;
        let held = lock(file, path)?;
        let written = held.set_len(0).and_then(|()| writeln!(&*held, "{}", std::process::id()));
        written.map_err(|source| LockError::WritePid { path: path.to_owned(), source })?;
        Ok(UpdateLock { _held: held })
    }

    /// Takes the lock of a disk image: the lock is on the image file itself, which is not written to.
    ///
    /// # Errors
    /// [`LockError::Busy`] at once when another process holds it.
    pub fn acquire_image(path: impl AsRef<Path>) -> Result<UpdateLock, LockError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|source| LockError::Open { path: path.to_owned(), source })?;
        Ok(UpdateLock { _held: lock(file, path)? })
    }

    /// Who holds the lock on this file now, as the kernel tells it. Only a look: nothing is taken, so nobody is kept from it.
    pub fn holder_of(path: impl AsRef<Path>) -> Option<u32> {
        held_now(&File::open(path).ok()?)
    }

    /// A lock on a nameless file in memory: excludes nobody, leaves nothing behind.
    ///
    /// # Panics
    /// When the kernel has no anonymous memory files.
    #[doc(hidden)]
    pub fn for_tests() -> UpdateLock {
        let name = "ralph-update-test-lock";
        let memory = nix::sys::memfd::memfd_create(name, nix::sys::memfd::MFdFlags::MFD_CLOEXEC)
            .expect("an anonymous memory file");
        let held = lock(File::from(memory), Path::new(name)).expect("nobody else can hold it");
        UpdateLock { _held: held }
    }
}

fn lock(file: File, path: &Path) -> Result<Flock<File>, LockError> {
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(held) => Ok(held),
        Err((file, Errno::EWOULDBLOCK)) => Err(LockError::Busy { path: path.to_owned(), holder: holder(&file) }),
        Err((_, errno)) => Err(LockError::Lock { path: path.to_owned(), source: errno.into() }),
    }
}

/// Who holds the lock on this file: what the kernel says, else what a holder wrote into the lock file.
///
/// The kernel is asked first because the text in the file may be that of a former holder, if the present one has not
/// written yet, and because a disk image holds no text of ours.
fn holder(file: &File) -> Option<u32> {
    held_now(file).or_else(|| {
        // A lock file is a few bytes long; a disk image is no lock file and is not read beyond them.
        let mut text = String::new();
        file.take(16).read_to_string(&mut text).ok()?;
        text.strip_suffix('\n')?.parse().ok()
    })
}

fn held_now(file: &File) -> Option<u32> {
    let meta = file.metadata().ok()?;
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let (major, minor) = (nix::sys::stat::major(meta.dev()), nix::sys::stat::minor(meta.dev()));
    holder_in(&locks, major, minor, meta.ino())
}

/// Finds the holder of a `flock` in the text of `/proc/locks`. Lines read
/// `1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF`: process, device numbers in hexadecimal, inode in decimal.
fn holder_in(locks: &str, major: u64, minor: u64, inode: u64) -> Option<u32> {
    let wanted = format!("{major:02x}:{minor:02x}:{inode}");
    locks.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        // A waiter's line has `->` here; only the holder has the kind of the lock.
        (words.next()? == "FLOCK").then_some(())?;
        let pid = words.nth(2)?;
        (words.next()? == wanted).then_some(())?;
        // 0 stands for a process in another pid namespace.
        pid.parse().ok().filter(|pid| *pid != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dsk40_a_held_lock_is_busy_at_once_and_names_the_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = UpdateLock::acquire(&path).unwrap();
        match UpdateLock::acquire(&path) {
            Err(LockError::Busy { path: p, holder }) => {
                assert_eq!(p, path);
                assert_eq!(holder, Some(std::process::id()));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(UpdateLock::holder_of(&path), Some(std::process::id()));
        drop(first);
        assert_eq!(UpdateLock::holder_of(&path), None, "not what the last holder wrote into the file");
        drop(UpdateLock::acquire(&path).unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
        let mode = std::fs::metadata(&path).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn dsk40_an_image_is_locked_without_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.raw");
        std::fs::write(&path, b"content").unwrap();
        let before = std::fs::metadata(&path).unwrap();
        let first = UpdateLock::acquire_image(&path).unwrap();
        match UpdateLock::acquire_image(&path) {
            Err(LockError::Busy { holder, .. }) => assert_eq!(holder, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(first);
        drop(UpdateLock::acquire_image(&path).unwrap());
        let after = std::fs::metadata(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"content");
        assert_eq!(before.modified().unwrap(), after.modified().unwrap());
    }

    #[test]
    fn a_stale_process_id_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        std::fs::write(&path, "4194304000 and a long tail\n").unwrap();
        let _held = UpdateLock::acquire(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
    }

    #[test]
    fn a_symbolic_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("lock"));
        std::fs::write(&target, "precious").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(matches!(UpdateLock::acquire(&link), Err(LockError::Open { .. })));
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "precious");
    }

    #[test]
    fn the_holder_is_read_from_the_kernels_table() {
        let table = "\
1: POSIX  ADVISORY  WRITE 11 fe:00:77 0 EOF
2: FLOCK  ADVISORY  WRITE 12 fe:00:78 0 EOF
3: FLOCK  ADVISORY  WRITE 13 fe:00:77 0 EOF
3: -> FLOCK  ADVISORY  WRITE 14 fe:00:79 0 EOF
4: FLOCK  ADVISORY  WRITE 0 fe:00:80 0 EOF
";
        assert_eq!(holder_in(table, 0xfe, 0, 77), Some(13));
        assert_eq!(holder_in(table, 0xfe, 0, 79), None);
        assert_eq!(holder_in(table, 0xfe, 0, 80), None);
        assert_eq!(holder_in(table, 0xfe, 1, 77), None);
    }

    #[test]
    fn a_busy_message_says_what_to_do() {
        let busy = LockError::Busy { path: "/run/ralph-update.lock".into(), holder: Some(12) };
        assert_eq!(
            busy.to_string(),
            "another update program is at work on /run/ralph-update.lock (process 12); wait for it to end"
        );
    }

    #[test]
    fn test_locks_do_not_exclude_each_other() {
        let (_one, _two) = (UpdateLock::for_tests(), UpdateLock::for_tests());
    }
}
