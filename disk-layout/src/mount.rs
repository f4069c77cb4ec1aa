//! Mounting the ESP where nobody else sees it (`ENT-25`).

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// Where programs mount the ESP, each in a mount namespace of its own.
pub const ESP_MOUNT_POINT: &str = "/run/ralph-update/esp";

/// What the mount is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountMode {
    /// To look only. The volume is not even marked as in use.
    ReadOnly,
    /// To write.
    ReadWrite,
}

/// A mount in a private mount namespace. It ends when this is dropped, or when the process ends, however it ends.
///
/// Only the thread that made it, and threads that it starts later, see the mount: hand on no paths to older ones.
#[derive(Debug)]
#[must_use = "the volume is unmounted when this is dropped"]
pub struct PrivateMount {
    point: PathBuf,
    mounted: bool,
}

/// The ESP could not be mounted or unmounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// No mount namespace of our own.
    #[error("cannot make a private mount namespace; this needs root")]
    Namespace(#[source] io::Error),
    /// Mounts of ours could not be kept from the rest of the system.
    #[error("cannot make the mounts of this process private")]
    Private(#[source] io::Error),
    /// The directory to mount on could not be made.
    #[error("cannot make the directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The mount failed.
    #[error("cannot mount {} on {}", device.display(), point.display())]
    Mount {
        /// The device.
        device: PathBuf,
        /// The directory.
        point: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The unmount failed.
    #[error("cannot unmount {}", point.display())]
    Unmount {
        /// The directory.
        point: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl PrivateMount {
    /// Mounts the FAT volume on `device` on [`ESP_MOUNT_POINT`], for this thread only, `nodev,nosuid,noexec`.
    ///
    /// # Errors
    /// [`MountError`].
    pub fn esp(device: &Path, mode: MountMode) -> Result<PrivateMount, MountError> {
        PrivateMount::new(device, Path::new(ESP_MOUNT_POINT), "vfat", Some("umask=0077,utf8"), mode)
    }

    fn new(
        device: &Path,
        point: &Path,
        kind: &str,
        options: Option<&str>,
        mode: MountMode,
    ) -> Result<PrivateMount, MountError> {
        // The directory stays behind. Removing it would tear the mount of another process out of its namespace: the
        // kernel detaches every mount on a directory that is removed.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(point)
            .map_err(|source| MountError::Directory { path: point.to_owned(), source })?;
        unshare(CloneFlags::CLONE_NEWNS).map_err(|errno| MountError::Namespace(errno.into()))?;
        // Slave, not private: what the system unmounts goes from here too, and we keep nothing of it busy.
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
            .map_err(|errno| MountError::Private(errno.into()))?;
        mount_volume(device, point, kind, options, mode).map_err(|errno| MountError::Mount {
            device: device.to_owned(),
            point: point.to_owned(),
            source: errno.into(),
        })?;
        Ok(PrivateMount { point: point.to_owned(), mounted: true })
    }

    /// Where the volume is mounted.
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// Unmounts. What was written must have been flushed before, file by file (`ENT-23`): an unmount tells no errors of the device.
    ///
    /// # Errors
    /// [`MountError::Unmount`], for example while a file is still open.
    pub fn unmount(mut self) -> Result<(), MountError> {
        self.mounted = false;
        let source = match umount2(&self.point, MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => return Ok(()),
            Err(errno) => errno.into(),
        };
        Err(MountError::Unmount { point: self.point.clone(), source })
    }
}

impl Drop for PrivateMount {
    fn drop(&mut self) {
        if self.mounted {
            // Nobody to tell. Lazily, so that a file left open does not keep the mount past its closing.
            let _ = umount2(&self.point, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH);
        }
    }
}

/// One volume mounted twice is one file system to the kernel, either read-only or not, and a mount that wants it otherwise is "busy".
/// A program that looks at the ESP must neither hinder one that writes nor be hindered by it.
fn mount_volume(device: &Path, point: &Path, kind: &str, options: Option<&str>, mode: MountMode) -> nix::Result<()> {
    let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let mount_with = |flags| mount(Some(device), point, Some(kind), flags, options);
    match mode {
        MountMode::ReadOnly => match mount_with(flags | MsFlags::MS_RDONLY) {
            // Somebody writes. Share the writable file system, through a mount that cannot write.
            Err(Errno::EBUSY) => {
                mount_with(flags)?;
                remount(point, flags | MsFlags::MS_BIND | MsFlags::MS_RDONLY, None)
            }
            result => result,
        },
        MountMode::ReadWrite => match mount_with(flags) {
            // Somebody looks. Share the read-only file system and make it writable; their own mount stays read-only.
            Err(Errno::EBUSY) => {
                mount_with(flags | MsFlags::MS_RDONLY)?;
                remount(point, flags, options)
            }
            result => result,
        },
    }
}

/// Changes a mount that was just made, or takes it away again.
fn remount(point: &Path, flags: MsFlags, options: Option<&str>) -> nix::Result<()> {
    mount(None::<&str>, point, None::<&str>, flags | MsFlags::MS_REMOUNT, options).inspect_err(|_| {
        let _ = umount2(point, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH);
    })
}
