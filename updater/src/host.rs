//! What a run works on: the machine it runs on, or a disk image file. One seam for both, and for the tests' fake.

mod image;

use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use boot_entries::esp::Remount;
use boot_entries::guard::{GuardDevice, GuardError, GuardFile, GuardRecord};
use boot_entries::kexec::started_by_kexec;
use boot_entries::vars::EFIVARS;
use boot_entries::{BootOptions, Esp, EspError, FoundVars, KernelEsp, RunningError, read_vars, running_options};
use disk_layout::{
    BootedDisk, BootedError, Clash, DEVICE_LOCK, DiskFile, DiskLayout, FileWindow, LayoutError, LockError, MountError,
    MountMode, PrivateMount, RepairError, Slot, SlotBytes, SlotError, SlotFile, SlotIo, SlotReader, SysError, SysRoot,
    TableCopy, UpdateLock, find_booted, repair_copy,
};
use nix::fcntl::OFlag;

pub use self::image::ImageFile;
use crate::history::Records;
use crate::vars::{self, LoaderVariable, VariableError};
use crate::vitals::{self, Firmware, Vitals, WriteProtection};

/// Where history and floor are kept on a device.
pub const RECORDS_DIR: &str = "/var/lib/ralph-update";

/// The slot that does not run: the only one that can be opened for writing. Made by [`crate::session`] alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetSlot(Slot);

impl TargetSlot {
    pub(crate) fn beside(running: Slot) -> Self {
        TargetSlot(!running)
    }

    /// Which one it is.
    pub fn slot(self) -> Slot {
        self.0
    }
}

/// What the ESP is opened for.
pub type Access = MountMode;

/// The seam. A run opens the ESP and the slot only while it uses them.
pub trait Host {
    /// Takes the update lock (DSK-40).
    fn lock(&self) -> Result<UpdateLock, LockError>;
    /// The partitions.
    fn layout(&self) -> &DiskLayout;
    /// What the running kernel was started with; `None` for a disk image file, from which nothing runs.
    fn booted(&self) -> Option<&BootOptions>;
    /// The loader's variables, and those that cannot be read (UPD-50).
    fn loader_vars(&self) -> FoundVars;
    /// Where things are recorded.
    fn records(&self) -> &Records;
    /// Refuses while another disk looks like this one (DSK-33). Asked before an update, not before a commit: by then the
    /// machine has found its slot among them.
    fn refuse_lookalikes(&self) -> Result<(), HostError>;
    /// Opens the ESP (ENT-25).
    fn open_esp(&self, access: Access) -> Result<Box<dyn OpenEsp>, HostError>;
    /// Opens the slot that does not run, for writing (DSK-41 to DSK-43).
    fn open_slot(&self, slot: TargetSlot) -> Result<Box<dyn SlotIo>, SlotError>;
    /// Opens a slot to read from it what the other one needs, too; `None` where that cannot be done. It may be the running one.
    fn read_slot(&self, _slot: Slot) -> Option<Box<dyn SlotBytes>> {
        None
    }
    /// The boot guard's record on the ESP's raw partition (GRD-2); a damaged one is empty. Changes nothing, and needs no
    /// lock. A host that has none says that it is missing.
    fn read_guard(&self) -> Result<GuardRecord, GuardError> {
        Err(GuardError::Missing)
    }
    /// Writes the boot guard's record in place (GRD-1).
    fn write_guard(&self, _lock: &UpdateLock, _record: &GuardRecord) -> Result<(), GuardError> {
        Err(GuardError::Missing)
    }
    /// Does the slot begin with zeros only? `None` when that cannot be told.
    fn is_blank(&self, slot: Slot) -> Option<bool>;
    /// How this program is called to work on this host: what advice begins with.
    fn command(&self) -> String {
        "ralph-update".to_owned()
    }
    /// The folder of the EFI variables of the machine that will boot from this; `None` where nothing is known of it.
    fn variables(&self) -> Option<&Path> {
        None
    }
    /// What loader and firmware say of themselves; `None` when they cannot be asked.
    fn firmware(&self) -> Option<Firmware> {
        None
    }
    /// What else the doctor looks at. Changes nothing, and needs no lock.
    fn vitals(&self) -> Vitals {
        Vitals::default()
    }
    /// Takes one of the loader's variables away (DOC-23).
    fn remove_variable(&self, _lock: &UpdateLock, _variable: LoaderVariable) -> Result<(), VariableError> {
        Err(VariableError::NotHere)
    }
    /// Rewrites a damaged copy of the partition table from the other one (DSK-6).
    fn repair_table(&self, _lock: &UpdateLock, _which: TableCopy) -> Result<(), RepairError> {
        Err(RepairError::Source("this host has none"))
    }
}

/// An ESP in use.
pub trait OpenEsp {
    /// The ESP.
    fn esp(&mut self) -> &mut dyn Esp;
    /// Unmounts it, if it was mounted for this.
    fn close(self: Box<Self>) -> Result<(), HostError>;
}

/// Why the machine or the disk image cannot be worked on.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The booted disk is not found, or something about it contradicts itself.
    #[error("cannot tell what this machine runs from")]
    Booted(#[from] BootedError),
    /// The kernel's files cannot be read.
    #[error("cannot look at this machine")]
    Sys(#[from] SysError),
    /// Another disk might be taken for ours (DSK-33).
    #[error("nothing is written while two disks could be taken for one another")]
    Clash(#[from] Clash),
    /// The command line is not one of our entries'.
    #[error("it is not known which boot entry the running kernel was started from")]
    CommandLine(#[source] RunningError),
    /// The disk image has no RalphOS layout.
    #[error("{} cannot be worked on", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: LayoutError,
    },
    /// A device, or a folder.
    #[error("{} is not a regular file: --disk works on disk images only (on the machine itself, leave --disk away)", .0.display())]
    NotAFile(PathBuf),
    /// The disk image cannot be opened.
    #[error("cannot open {} for reading and writing", path.display())]
    OpenImage {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The ESP cannot be mounted or unmounted.
    #[error("the EFI partition cannot be used")]
    Mount(#[from] MountError),
    /// The system has the ESP mounted read-only.
    #[error("the EFI partition is mounted read-only on {}: its file system may be damaged; unmount it, check it with fsck.vfat, and try again", .0.display())]
    ReadOnly(PathBuf),
    /// The ESP's root directory cannot be opened.
    #[error("the EFI partition cannot be used")]
    Esp(#[from] EspError),
}

/// The machine this runs on.
#[derive(Debug)]
pub struct Device {
    sys: SysRoot,
    disk: BootedDisk,
    options: BootOptions,
    records: Records,
}

impl Device {
    /// Finds the booted disk and checks everything that must agree before anything is written (DSK-30 to DSK-32).
    pub fn find(sys: SysRoot) -> Result<Self, HostError> {
        let disk = find_booted(&sys)?;
        let options = running_options(&sys).map_err(HostError::CommandLine)?;
        disk.check_command_line(options.slot, options.partuuid)?;
        disk.check_loader_partition(&sys)?;
        let boot_id = sys.boot_id().map(|id| id.to_string()).unwrap_or_default();
        let records = Records::in_dir(RECORDS_DIR, boot_id);
        Ok(Device { sys, disk, options, records })
    }
}

impl Host for Device {
    fn lock(&self) -> Result<UpdateLock, LockError> {
        UpdateLock::acquire(DEVICE_LOCK)
    }

    fn layout(&self) -> &DiskLayout {
        &self.disk.layout
    }

    fn booted(&self) -> Option<&BootOptions> {
        Some(&self.options)
    }

    fn loader_vars(&self) -> FoundVars {
        read_vars(Path::new(EFIVARS))
    }

    fn records(&self) -> &Records {
        &self.records
    }

    fn refuse_lookalikes(&self) -> Result<(), HostError> {
        self.disk.clashes(&self.sys)?.into_iter().next().map_or(Ok(()), |clash| Err(clash.into()))
    }

    fn open_esp(&self, access: Access) -> Result<Box<dyn OpenEsp>, HostError> {
        let device = self.disk.esp_dev();
        match self.disk.esp_mount(&self.sys)? {
            Some(mount) if mount.read_only && access == Access::ReadWrite => Err(HostError::ReadOnly(mount.point)),
            Some(mount) => {
                let esp = KernelEsp::mounted(&mount.point, device, Box::new(MountedByOthers))?;
                Ok(Box::new(OnDevice { esp }))
            }
            None => {
                let mount = PrivateMount::esp(device, access)?;
                let point = mount.point().to_owned();
                let ours = Ours { device: device.to_owned(), access, mount: Some(mount) };
                Ok(Box::new(OnDevice { esp: KernelEsp::mounted(&point, device, Box::new(ours))? }))
            }
        }
    }

    fn open_slot(&self, slot: TargetSlot) -> Result<Box<dyn SlotIo>, SlotError> {
        let slot = slot.slot();
        Ok(Box::new(SlotFile::open_partition(self.disk.slot_dev(slot), self.disk.layout.slot(slot))?))
    }

    fn read_slot(&self, slot: Slot) -> Option<Box<dyn SlotBytes>> {
        let reader = SlotReader::open(self.disk.slot_dev(slot), 0, self.disk.layout.slot(slot).len).ok()?;
        Some(Box::new(reader))
    }

    fn read_guard(&self) -> Result<GuardRecord, GuardError> {
        read_guard(self.disk.esp_dev(), 0, &self.disk.layout)
    }

    fn write_guard(&self, _lock: &UpdateLock, record: &GuardRecord) -> Result<(), GuardError> {
        GuardDevice::open_partition(self.disk.esp_dev(), &self.disk.layout)?.write(record)
    }

    fn is_blank(&self, slot: Slot) -> Option<bool> {
        begins_blank(self.disk.slot_dev(slot), 0)
    }

    fn variables(&self) -> Option<&Path> {
        Some(Path::new(EFIVARS))
    }

    fn firmware(&self) -> Option<Firmware> {
        Firmware::read(Path::new("/"))
    }

    fn vitals(&self) -> Vitals {
        let root = Path::new("/");
        let (disk, esp) = (self.disk.disk_dev(), self.disk.esp_dev());
        let mut found = Vitals {
            disk: Some(disk.to_owned()),
            esp_device: Some(esp.to_owned()),
            volume: Some(vitals::volume(std::fs::File::open(esp))),
            watchdog: vitals::watchdog(root),
            now: now(),
            built: vitals::built(root),
            bless_boot: Some(vitals::bless_boot(root)),
            loaders_swapped: (started_by_kexec(root).ok() == Some(false))
                .then(|| root.join(vitals::LOADERS_SWAPPED).exists()),
            busy: UpdateLock::holder_of(DEVICE_LOCK),
            ..Vitals::default()
        };
        found.read_table(disk);
        match self.disk.esp_mount(&self.sys) {
            Ok(Some(mount)) if mount.read_only => found.write_protection = Some(WriteProtection::Mounted(mount.point)),
            _ if vitals::is_read_only(root, esp) => {
                found.write_protection = Some(WriteProtection::Medium(esp.to_owned()));
            }
            _ => {}
        }
        match self.disk.clashes(&self.sys) {
            Ok(clashes) => {
                found.clashes = clashes.iter().map(|clash| format!("{} {}", clash.disk.display(), clash.why)).collect()
            }
            Err(error) => found.left_out.push(format!("other disks: {}", crate::exit::with_source(&error))),
        }
        if found.watchdog.is_none() {
            found.left_out.push("whether the watchdog is armed: the kernel does not say".to_owned());
        }
        found
    }

    fn remove_variable(&self, _lock: &UpdateLock, variable: LoaderVariable) -> Result<(), VariableError> {
        vars::remove(Path::new(EFIVARS), variable)
    }

    fn repair_table(&self, lock: &UpdateLock, which: TableCopy) -> Result<(), RepairError> {
        repair_table(lock, self.disk.disk_dev(), &self.disk.layout, which)
    }
}

fn now() -> Option<u64> {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok().map(|since| since.as_secs())
}

fn repair_table(lock: &UpdateLock, path: &Path, layout: &DiskLayout, which: TableCopy) -> Result<(), RepairError> {
    let mut disk = DiskFile::open(path).map_err(|source| RepairError::Io { what: "open", source })?;
    repair_copy(lock, &mut disk, layout.sector_size, which)
}

#[derive(Debug)]
struct OnDevice {
    /// Holds the mount, too, inside its [`Remount`].
    esp: KernelEsp,
}

impl OpenEsp for OnDevice {
    fn esp(&mut self) -> &mut dyn Esp {
        &mut self.esp
    }

    fn close(self: Box<Self>) -> Result<(), HostError> {
        // Everything was flushed file by file; the mount goes with the value that holds it.
        drop(self.esp);
        Ok(())
    }
}

/// The private mount of this run.
#[derive(Debug)]
struct Ours {
    device: PathBuf,
    access: Access,
    mount: Option<PrivateMount>,
}

impl Remount for Ours {
    fn unmount(&mut self) -> std::io::Result<()> {
        match self.mount.take() {
            Some(mount) => mount.unmount().map_err(std::io::Error::other),
            None => Ok(()),
        }
    }

    fn mount(&mut self) -> std::io::Result<()> {
        self.mount = Some(PrivateMount::esp(&self.device, self.access).map_err(std::io::Error::other)?);
        Ok(())
    }
}

/// The system's own mount is used and left (ENT-25), so a repair that needs the volume unmounted is not possible.
#[derive(Debug)]
struct MountedByOthers;

impl Remount for MountedByOthers {
    fn may_unmount(&self) -> std::io::Result<()> {
        Err(std::io::Error::other("the system has it mounted"))
    }

    fn unmount(&mut self) -> std::io::Result<()> {
        self.may_unmount()
    }

    fn mount(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Only to look, and claiming nothing: a program that asks for the status must not be in the way of one that writes.
fn begins_blank(path: &Path, offset: u64) -> Option<bool> {
    let mut first = [0; 4096];
    std::fs::File::open(path).ok()?.read_exact_at(&mut first, offset).ok()?;
    Some(first.iter().all(|byte| *byte == 0))
}

/// Only to look: opened for reading, so that nobody is told the partition may have changed. The record is read past the
/// page cache where that can be done: what was buffered of the partition may be older than the file.
fn read_guard(path: &Path, offset: u64, layout: &DiskLayout) -> Result<GuardRecord, GuardError> {
    let failed = |source| GuardError::Open { path: path.to_owned(), source };
    let open = |flags: OFlag| {
        let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
        FileWindow::new(file, offset, layout.esp.len)
    };
    let mut cached = open(OFlag::empty()).map_err(failed)?;
    let file = GuardFile::locate(&mut cached, layout.sector_size)?;
    match open(OFlag::O_DIRECT).map_err(failed).and_then(|mut direct| file.read(&mut direct)) {
        Ok(record) => Ok(record),
        Err(_) => file.read(&mut cached),
    }
}

/// A path as a shell takes it, for a line to copy.
pub(crate) fn for_shell(path: &Path) -> String {
    let path = path.display().to_string();
    let plain = path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
    if plain { path } else { format!("'{}'", path.replace('\'', "'\\''")) }
}
