//! The kernel's view of the machine: `/proc`, `/sys` and `/dev`, at their places or at a test's.

use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::mountinfo::{BadMountInfo, DeviceNumber, Mount, parse_mountinfo};

/// The vendor GUID of the loader's EFI variables.
pub const LOADER_GUID: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// Where the kernel's file systems are.
#[derive(Debug, Clone)]
pub struct SysRoot {
    proc: PathBuf,
    sys: PathBuf,
    dev: PathBuf,
    run: PathBuf,
}

/// The kernel's view of the machine could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SysError {
    /// A file or directory could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file does not say what such a file says.
    #[error("{} says {text:?}, which cannot be understood", path.display())]
    Strange {
        /// The file.
        path: PathBuf,
        /// Its content.
        text: String,
    },
    /// The list of mounts cannot be understood.
    #[error("cannot tell what is mounted")]
    Mounts(#[from] BadMountInfo),
}

impl SysRoot {
    /// This machine's.
    pub fn real() -> SysRoot {
        SysRoot::at(Path::new("/"))
    }

    /// `proc`, `sys`, `dev` and `run` below this directory.
    pub fn at(root: &Path) -> SysRoot {
        let of = |name| root.join(name);
        SysRoot { proc: of("proc"), sys: of("sys"), dev: of("dev"), run: of("run") }
    }

    /// Where a boot's programs leave things for one another.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// The identifier of this boot.
    ///
    /// # Errors
    /// [`SysError`].
    pub fn boot_id(&self) -> Result<Uuid, SysError> {
        let path = self.proc.join("sys/kernel/random/boot_id");
        let text = read(&path)?;
        text.trim_end().parse().map_err(|_| SysError::Strange { path, text })
    }

    /// The kernel's command line.
    ///
    /// # Errors
    /// [`SysError`].
    pub fn command_line(&self) -> Result<String, SysError> {
        Ok(read(&self.proc.join("cmdline"))?.trim_end_matches('\n').to_owned())
    }

    /// What is mounted, as this process sees it.
    ///
    /// # Errors
    /// [`SysError`].
    pub fn mounts(&self) -> Result<Vec<Mount>, SysError> {
        // Lossy: the name of somebody's mount point may be any bytes, and must not hide our own.
        let path = self.proc.join("self/mountinfo");
        let bytes = std::fs::read(&path).map_err(|source| SysError::Read { path, source })?;
        Ok(parse_mountinfo(&String::from_utf8_lossy(&bytes))?)
    }

    /// The partition that the loader was started from, if it told (`DSK-32`).
    ///
    /// # Errors
    /// [`SysError`] when the variable is there and cannot be read or is not a GUID.
    pub fn loader_partition(&self) -> Result<Option<Uuid>, SysError> {
        let path = self.sys.join(format!("firmware/efi/efivars/LoaderDevicePartUUID-{LOADER_GUID}"));
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            // Not started by a loader that tells, or no EFI variables here: nothing was told.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(SysError::Read { path, source }),
        };
        // Four bytes of attributes, then UTF-16LE with a NUL at its end.
        let units: Vec<u16> =
            bytes.get(4..).unwrap_or_default().chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]])).collect();
        let text = String::from_utf16_lossy(&units);
        match text.trim_end_matches('\0').parse() {
            Ok(guid) => Ok(Some(guid)),
            Err(_) => Err(SysError::Strange { path, text }),
        }
    }

    /// All block devices that are no partitions.
    pub(crate) fn block_devices(&self) -> Result<Vec<BlockDevice>, SysError> {
        let mut devices = Vec::new();
        for entry in list(&self.sys.join("block"))? {
            devices.extend(self.block_device(&entry)?);
        }
        Ok(devices)
    }

    /// The block device with this number, if there is one.
    pub(crate) fn block_device_numbered(&self, number: DeviceNumber) -> Result<Option<BlockDevice>, SysError> {
        self.block_device(&self.sys.join(format!("dev/block/{number}")))
    }

    /// The block device whose directory in sysfs (or a link to it) this is.
    pub(crate) fn block_device(&self, path: &Path) -> Result<Option<BlockDevice>, SysError> {
        let dir = match path.canonicalize() {
            Ok(dir) => dir,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(SysError::Read { path: path.to_owned(), source }),
        };
        let Some(number) = optional(&dir.join("dev"))? else { return Ok(None) };
        let Ok(number) = number.parse() else {
            return Err(SysError::Strange { path: dir.join("dev"), text: number });
        };
        let uevent = read(&dir.join("uevent"))?;
        let Some(name) = uevent_value(&uevent, "DEVNAME").map(str::to_owned) else {
            return Err(SysError::Strange { path: dir.join("uevent"), text: uevent });
        };
        Ok(Some(BlockDevice { node: self.dev.join(name), dir, number, uevent }))
    }
}

/// A block device, or a partition of one, as sysfs shows it.
#[derive(Debug, Clone)]
pub(crate) struct BlockDevice {
    /// Its directory in sysfs, without links.
    pub dir: PathBuf,
    /// Its node in `/dev`.
    pub node: PathBuf,
    pub number: DeviceNumber,
    uevent: String,
}

/// A partition, as the kernel knows it.
#[derive(Debug, Clone)]
pub(crate) struct KernelPartition {
    pub number: u32,
    pub start: u64,
    pub len: u64,
    pub device: BlockDevice,
}

impl BlockDevice {
    /// A value the driver told to user space.
    pub fn property(&self, key: &str) -> Option<&str> {
        uevent_value(&self.uevent, key)
    }

    /// The trimmed text of one of the device's files, if it has it.
    pub fn attribute(&self, name: &str) -> Result<Option<String>, SysError> {
        Ok(optional(&self.dir.join(name))?.map(|text| text.trim_end_matches('\n').to_owned()))
    }

    /// The partition number, for a partition.
    pub fn partition_number(&self) -> Result<Option<u32>, SysError> {
        self.attribute("partition")?.map(|text| self.number_in("partition", text)).transpose()
    }

    /// The partitions that the kernel knows of this disk.
    pub fn partitions(&self, root: &SysRoot) -> Result<Vec<KernelPartition>, SysError> {
        let mut partitions = Vec::new();
        for path in list(&self.dir)? {
            if !path.join("partition").exists() {
                continue;
            }
            let Some(device) = root.block_device(&path)? else { continue };
            let Some(number) = device.partition_number()? else { continue };
            // Always in units of 512 bytes, whatever the disk's sectors are.
            let bytes = |name: &str| {
                let text = device.attribute(name)?.unwrap_or_default();
                let sectors: u64 = device.number_in(name, text.clone())?;
                let strange = || SysError::Strange { path: device.dir.join(name), text };
                sectors.checked_mul(512).ok_or_else(strange)
            };
            let (start, len) = (bytes("start")?, bytes("size")?);
            partitions.push(KernelPartition { number, start, len, device });
        }
        Ok(partitions)
    }

    /// The devices that lie under this one.
    pub fn slaves(&self, root: &SysRoot) -> Result<Vec<BlockDevice>, SysError> {
        let mut slaves = Vec::new();
        for path in list(&self.dir.join("slaves"))? {
            slaves.extend(root.block_device(&path)?);
        }
        Ok(slaves)
    }

    fn number_in<T: std::str::FromStr>(&self, name: &str, text: String) -> Result<T, SysError> {
        text.parse().map_err(|_| SysError::Strange { path: self.dir.join(name), text })
    }
}

fn uevent_value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
}

fn read(path: &Path) -> Result<String, SysError> {
    std::fs::read_to_string(path).map_err(|source| SysError::Read { path: path.to_owned(), source })
}

fn optional(path: &Path) -> Result<Option<String>, SysError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SysError::Read { path: path.to_owned(), source }),
    }
}

/// The paths in a directory, sorted so that messages do not change from run to run.
fn list(path: &Path) -> Result<Vec<PathBuf>, SysError> {
    let entries =
        std::fs::read_dir(path).and_then(|dir| dir.map(|e| e.map(|e| e.path())).collect::<io::Result<Vec<_>>>());
    let mut entries = entries.map_err(|source| SysError::Read { path: path.to_owned(), source })?;
    entries.sort();
    Ok(entries)
}
