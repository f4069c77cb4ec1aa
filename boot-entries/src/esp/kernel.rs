//! The ESP where the kernel has it mounted.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::libc::dev_t;
use nix::sys::stat::{Mode, SFlag, fstat, fstatat, mkdirat};
use nix::sys::statvfs::fstatvfs;
use nix::unistd::{UnlinkatFlags, fsync, syncfs, unlinkat};

use super::uncached::{Uncached, hash};
use super::{DirItem, Esp, EspError, EspPath, Op, ReadSeek, Space, WriteError, copy_exactly};
use crate::fat::{self, ClusterFault, Volume};

/// How long somebody who only looks may have the volume mounted.
const LOOKING: Duration = Duration::from_secs(5);

/// Takes the ESP's mount away and brings it back, for repairs that the mounted file system does not allow (`ENT-22`).
pub trait Remount: std::fmt::Debug {
    /// May the volume be unmounted at all? Changes nothing.
    ///
    /// # Errors
    /// When the mount is somebody else's.
    fn may_unmount(&self) -> io::Result<()> {
        Ok(())
    }

    /// Unmounts the volume; nothing may use it any more when this succeeds.
    ///
    /// # Errors
    /// When something still uses it.
    fn unmount(&mut self) -> io::Result<()>;

    /// Mounts it again at the same place. Called after every [`Remount::unmount`] that succeeded.
    ///
    /// # Errors
    /// What the kernel says.
    fn mount(&mut self) -> io::Result<()>;
}

/// The block device under the mount.
#[derive(Debug)]
struct Medium {
    /// The partition itself: only its page cache is the one the file system uses too.
    device: PathBuf,
    remount: Box<dyn Remount>,
}

/// A mounted ESP. Every path is resolved below the mount's own directory, and symbolic links are not followed.
#[derive(Debug)]
pub struct KernelEsp {
    dir: PathBuf,
    /// None only after the volume could not be mounted again.
    root: Option<OwnedFd>,
    /// The file system that is mounted there: `st_dev`.
    volume: dev_t,
    medium: Option<Medium>,
}

impl KernelEsp {
    /// The ESP mounted at `dir`, from the partition `device`.
    ///
    /// # Errors
    /// When `dir` cannot be opened.
    pub fn mounted(dir: &Path, device: &Path, remount: Box<dyn Remount>) -> Result<KernelEsp, EspError> {
        let mut esp = KernelEsp::directory(dir)?;
        esp.medium = Some(Medium { device: device.to_owned(), remount });
        Ok(esp)
    }

    /// A directory of another file system, used as if it were an ESP: it has no FAT, so no clusters are checked.
    ///
    /// # Errors
    /// When `dir` cannot be opened.
    pub fn directory(dir: &Path) -> Result<KernelEsp, EspError> {
        let (root, volume) = open_root(dir)?;
        Ok(KernelEsp { dir: dir.to_owned(), root: Some(root), volume, medium: None })
    }

    fn root(&self) -> io::Result<BorrowedFd<'_>> {
        self.root.as_ref().map(AsFd::as_fd).ok_or_else(not_mounted)
    }

    /// Opens the directory that holds the last part of `path`, and gives that part.
    fn parent<'a>(&self, path: &'a EspPath) -> io::Result<(OwnedFd, &'a str)> {
        let mut dir = self.root()?.try_clone_to_owned()?;
        let mut parts = path.parts().peekable();
        loop {
            // A path has at least one part.
            let part = parts.next().unwrap_or_default();
            if parts.peek().is_none() {
                return Ok((dir, part));
            }
            dir = open_dir(&dir, part)?;
        }
    }

    fn open(&self, path: &EspPath, flags: OFlag) -> io::Result<OwnedFd> {
        let (dir, name) = self.parent(path)?;
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(&dir, name, flags, Mode::from_bits_truncate(0o600))?;
        Ok(fd)
    }

    fn uncached(&self, path: &EspPath) -> io::Result<Uncached> {
        Uncached::new(self.open(path, OFlag::O_RDONLY)?)
    }

    /// Does something to the raw volume while it is not mounted, and mounts it again.
    ///
    /// That it is not mounted again is the worst that can happen: the bare mount point is a directory, too, and what is written
    /// there reaches no ESP. So that is the error to tell, whatever else failed, and nothing can be done to `self` from then on.
    fn unmounted(&mut self, path: &EspPath, work: &dyn Fn(&Medium) -> Result<(), EspError>) -> Result<(), EspError> {
        // Lost before: what is mounted there now, if anything, is not what this was opened on.
        self.root().map_err(|source| EspError::io(Op::Open, path, source))?;
        let Some(medium) = &mut self.medium else { return Err(EspError::CannotRepair { path: path.clone() }) };
        self.root = None;
        let done = match medium.remount.unmount() {
            Ok(()) => {
                let done = work(medium);
                medium.remount.mount().map_err(|source| device_error(Op::Open, medium, source))?;
                done
            }
            Err(source) => Err(EspError::Busy { path: path.clone(), source }),
        };
        let (root, volume) = open_root(&self.dir)?;
        // What failed to be unmounted may be gone all the same.
        if volume != self.volume {
            return Err(device_error(Op::Open, medium, not_mounted()));
        }
        self.root = Some(root);
        done
    }

    /// `ENT-27`: to read such a file makes the kernel turn the volume read-only. Its slot and chain are in the page cache of
    /// the partition, which the kernel's vfat uses, too. What cannot be seen here is told by whoever reads.
    fn is_torn(&self, path: &EspPath) -> bool {
        let device = self.medium.as_ref().and_then(|medium| File::open(&medium.device).ok());
        let volume = device.and_then(|device| Volume::open(device).ok());
        volume.is_some_and(|mut volume| volume.is_torn(path.as_str()).unwrap_or(false))
    }

    fn fill(&self, path: &EspPath, size: u64, content: &mut dyn Read, fd: OwnedFd) -> Result<(), WriteError> {
        let mut file = File::from(fd);
        copy_exactly(path, size, content, &mut |bytes| file.write_all(bytes))?;
        file.sync_all().map_err(|error| EspError::io(Op::Write, path, error))?;
        Ok(())
    }
}

fn not_mounted() -> io::Error {
    io::Error::other("the volume is not mounted any more")
}

/// The directory, and which file system it is of.
fn open_root(dir: &Path) -> Result<(OwnedFd, dev_t), EspError> {
    let opened = open(dir, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    let opened = opened.and_then(|root| fstat(&root).map(|stat| (root, stat.st_dev)));
    opened.map_err(|errno| EspError::Io { op: Op::Open, path: dir.display().to_string(), source: errno.into() })
}

fn open_dir(dir: &OwnedFd, name: &str) -> nix::Result<OwnedFd> {
    openat(dir, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
}

impl Esp for KernelEsp {
    fn list(&mut self, dir: &EspPath) -> Result<Vec<DirItem>, EspError> {
        let list = || -> io::Result<Vec<DirItem>> {
            let (parent, name) = self.parent(dir)?;
            let fd = open_dir(&parent, name)?;
            let mut items = Vec::new();
            for item in Dir::from_fd(fd.try_clone()?)?.iter() {
                let item = item?;
                let name = item.file_name();
                if name == c"." || name == c".." {
                    continue;
                }
                let stat = fstatat(&fd, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
                let is_dir = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
                let size = if is_dir { 0 } else { u64::try_from(stat.st_size).unwrap_or(0) };
                items.push(DirItem { name: name.to_string_lossy().into_owned(), size, is_dir });
            }
            Ok(items)
        };
        match list() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other.map_err(|error| EspError::io(Op::List, dir, error)),
        }
    }

    fn exists(&mut self, path: &EspPath) -> Result<bool, EspError> {
        let stat = self.parent(path).and_then(|(dir, name)| Ok(fstatat(&dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?));
        match stat {
            Ok(_) => Ok(true),
            // ENOTDIR: a part on the way is a file.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
            Err(error) => Err(EspError::io(Op::Read, path, error)),
        }
    }

    fn read(&mut self, path: &EspPath, limit: u64) -> Result<Vec<u8>, EspError> {
        if self.is_torn(path) {
            return Ok(Vec::new());
        }
        let read = |error| EspError::io(Op::Read, path, error);
        let mut bytes = Vec::new();
        let mut file = self.uncached(path).map_err(read)?;
        (&mut file).take(limit).read_to_end(&mut bytes).map_err(read)?;
        match io::copy(&mut file, &mut io::sink()).map_err(read)? {
            0 => Ok(bytes),
            more => Err(EspError::TooLong { path: path.clone(), size: limit + more, limit }),
        }
    }

    fn read_head(&mut self, path: &EspPath, length: usize) -> Result<Vec<u8>, EspError> {
        if self.is_torn(path) {
            return Ok(Vec::new());
        }
        let mut bytes = Vec::new();
        self.uncached(path)
            .and_then(|file| file.take(length as u64).read_to_end(&mut bytes))
            .map_err(|error| EspError::io(Op::Read, path, error))?;
        Ok(bytes)
    }

    fn examine(&mut self, path: &EspPath, look: &mut dyn FnMut(&mut dyn ReadSeek)) -> Result<(), EspError> {
        if self.is_torn(path) {
            return Err(EspError::io(Op::Read, path, io::ErrorKind::UnexpectedEof.into()));
        }
        let fd = self.open(path, OFlag::O_RDONLY).map_err(|error| EspError::io(Op::Read, path, error))?;
        look(&mut File::from(fd));
        Ok(())
    }

    fn write_new(&mut self, path: &EspPath, size: u64, content: &mut dyn Read) -> Result<(), WriteError> {
        let fd = self
            .open(path, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL)
            .map_err(|error| EspError::io(Op::Write, path, error))?;
        let written = self.fill(path, size, content, fd);
        if written.is_err() {
            // The first error is the one to tell; a partial file that stays is found by the next fence.
            let _ = self.remove(path);
        }
        written
    }

    fn overwrite_byte(&mut self, path: &EspPath, offset: u64, from: u8, to: u8) -> Result<(), EspError> {
        let io = |error| EspError::io(Op::Overwrite, path, error);
        let file = File::from(self.open(path, OFlag::O_RDWR).map_err(io)?);
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).map_err(io)?;
        if byte[0] != from {
            return Err(EspError::OtherByte { path: path.clone(), offset, expected: from, found: byte[0] });
        }
        file.write_all_at(&[to], offset).map_err(io)?;
        file.sync_all().map_err(io)
    }

    fn remove(&mut self, path: &EspPath) -> Result<(), EspError> {
        self.parent(path)
            .and_then(|(dir, name)| Ok(unlinkat(&dir, name, UnlinkatFlags::NoRemoveDir)?))
            .map_err(|error| EspError::io(Op::Remove, path, error))
    }

    fn make_dir(&mut self, path: &EspPath) -> Result<(), EspError> {
        let make = || -> io::Result<()> {
            let mut dir = self.root()?.try_clone_to_owned()?;
            for part in path.parts() {
                match mkdirat(&dir, part, Mode::from_bits_truncate(0o755)) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(errno.into()),
                }
                dir = open_dir(&dir, part)?;
            }
            Ok(())
        };
        make().map_err(|error| EspError::io(Op::MakeDir, path, error))
    }

    /// `ENT-23`: `syncfs` writes data, FAT and directories but leaves them in the device's cache; on vfat it is the
    /// `fsync` of a file or directory that flushes that too.
    fn flush(&mut self) -> Result<(), EspError> {
        let flush = || -> io::Result<()> {
            let root = self.root()?;
            syncfs(root)?;
            Ok(fsync(root)?)
        };
        flush().map_err(|error| EspError::volume(Op::Flush, error))
    }

    fn hash_file(&mut self, path: &EspPath) -> Result<([u8; 32], u64), EspError> {
        if self.is_torn(path) {
            return hash(&mut io::empty()).map_err(|error| EspError::io(Op::Read, path, error));
        }
        self.uncached(path).and_then(|mut file| hash(&mut file)).map_err(|error| EspError::io(Op::Read, path, error))
    }

    fn space(&mut self) -> Result<Space, EspError> {
        let space = || -> io::Result<Space> {
            let stat = fstatvfs(self.root()?)?;
            // vfat gives the cluster size as both block sizes.
            let cluster_size = u32::try_from(stat.fragment_size()).map_err(io::Error::other)?;
            Ok(Space { cluster_size, free_clusters: stat.blocks_available() })
        };
        space().map_err(|error| EspError::volume(Op::Space, error))
    }

    fn cluster_faults(&mut self, dirs: &[EspPath]) -> Result<Vec<ClusterFault>, EspError> {
        // Directory slots are filled in when inodes are written back: without a flush the raw FAT is not up to date.
        self.flush()?;
        let Some(medium) = &self.medium else { return Ok(Vec::new()) };
        let device = File::open(&medium.device).map_err(|source| device_error(Op::CheckClusters, medium, source))?;
        let faults = Volume::open(device).and_then(|mut volume| fat::cluster_faults(&mut volume, dirs));
        faults.map_err(|source| EspError::Fat { source })
    }

    fn drop_name(&mut self, path: &EspPath) -> Result<(), EspError> {
        self.unmounted(path, &|medium| {
            let device = open_raw(medium, Op::DropName, path)?;
            let dropped = Volume::open(&device).and_then(|mut volume| volume.drop_name(path.as_str()));
            dropped.map_err(|source| EspError::not_dropped(path, source))?;
            device.sync_all().map_err(|source| device_error(Op::DropName, medium, source))
        })
    }

    fn can_swap(&mut self, a: &EspPath, b: &EspPath) -> Result<(), EspError> {
        self.flush()?;
        let Some(medium) = &self.medium else { return Err(EspError::CannotRepair { path: a.clone() }) };
        medium.remount.may_unmount().map_err(|source| EspError::Busy { path: a.clone(), source })?;
        let device = File::open(&medium.device).map_err(|source| device_error(Op::Swap, medium, source))?;
        let found = Volume::open(device).and_then(|mut volume| volume.find_pair(a.as_str(), b.as_str()));
        found.map(drop).map_err(|source| EspError::not_swapped(a, b, source))
    }

    fn swap_contents(&mut self, a: &EspPath, b: &EspPath) -> Result<(), EspError> {
        self.flush()?;
        self.unmounted(a, &|medium| {
            let device = open_raw(medium, Op::Swap, a)?;
            let swapped = Volume::open(&device).and_then(|mut volume| volume.swap_contents(a.as_str(), b.as_str()));
            swapped.map_err(|source| EspError::not_swapped(a, b, source))?;
            device.sync_all().map_err(|source| device_error(Op::Swap, medium, source))
        })
    }

    fn make_room(&mut self, dir: &EspPath, slots: usize) -> Result<(), EspError> {
        // As for the clusters: what the kernel holds back must be there first.
        self.flush()?;
        let Some(medium) = &self.medium else { return Ok(()) };
        let device = File::open(&medium.device).map_err(|source| device_error(Op::MakeRoom, medium, source))?;
        let room = Volume::open(device).and_then(|mut volume| volume.room(dir.as_str()));
        if room.map_err(|source| EspError::Fat { source })?.is_none_or(|room| room >= slots) {
            return Ok(());
        }
        self.unmounted(dir, &|medium| {
            let device = open_raw(medium, Op::MakeRoom, dir)?;
            let made = Volume::open(&device)
                .and_then(|mut volume| volume.make_room(dir.as_str(), slots, &mut |device| device.sync_all()));
            made.map(drop).map_err(|source| EspError::no_room(dir, source))
        })
    }
}

fn device_error(op: Op, medium: &Medium, source: io::Error) -> EspError {
    EspError::Io { op, path: medium.device.display().to_string(), source }
}

/// Opens the partition exclusively: the kernel refuses that while the volume is mounted anywhere, in another namespace too.
fn open_raw(medium: &Medium, op: Op, path: &EspPath) -> Result<File, EspError> {
    let open = || OpenOptions::new().read(true).write(true).custom_flags(OFlag::O_EXCL.bits()).open(&medium.device);
    // Somebody who only looks (`status`) has it mounted for a moment.
    let until = Instant::now() + LOOKING;
    loop {
        match open() {
            Ok(device) => return Ok(device),
            Err(source) if source.kind() != io::ErrorKind::ResourceBusy => {
                return Err(device_error(op, medium, source));
            }
            Err(source) if Instant::now() >= until => return Err(EspError::Busy { path: path.clone(), source }),
            Err(_) => sleep(LOOKING / 20),
        }
    }
}
