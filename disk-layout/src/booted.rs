//! Which disk and slot this machine runs from (`DSK-30` to `DSK-33`).

use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::Slot;
use crate::layout::{DiskLayout, LayoutError};
use crate::mountinfo::{DeviceNumber, mount_at};
use crate::sysroot::{BlockDevice, KernelPartition, SysError, SysRoot};
use crate::table::{Partition, PartitionTable};

/// The disk that the machine runs from, or is about to ([`find_named`]).
#[derive(Debug, Clone)]
pub struct BootedDisk {
    /// What is where on the disk.
    pub layout: DiskLayout,
    /// The slot that lies under the root file system, or will.
    pub slot: Slot,
    device: BlockDevice,
    partitions: Vec<KernelPartition>,
}

/// The ESP is mounted by the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EspMount {
    /// Where.
    pub point: PathBuf,
    /// Nothing can be written through this mount.
    pub read_only: bool,
}

/// Another disk that the initrd or the loader might take for ours (`DSK-33`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} {why}: the next boot might take the wrong disk; remove one of the two", disk.display())]
pub struct Clash {
    /// The other disk's device.
    pub disk: PathBuf,
    /// What it has in common with ours.
    pub why: ClashReason,
}

/// What another disk has in common with ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClashReason {
    /// One of its partitions has the PARTUUID of our ESP or one of our slots.
    #[error("has a partition with the PARTUUID {0} of this disk's")]
    Guid(Uuid),
    /// It has both slot labels.
    #[error("has partitions labelled SYSTEM_A and SYSTEM_B too")]
    Labels,
}

/// The booted disk or slot could not be found.
#[derive(Debug, thiserror::Error)]
pub enum BootedError {
    /// The kernel's view of the machine could not be read.
    #[error("cannot look at this machine's disks")]
    Sys(#[from] SysError),
    /// Nothing is mounted on `/`.
    #[error("nothing is mounted on /")]
    NoRoot,
    /// The root file system is not on a device mapper device and there is none named `root`.
    #[error(
        "this machine does not run from a RalphOS slot: / is not on dm-verity, and there is no device mapper device named root; use --disk FILE to work on a disk image"
    )]
    NoVerityRoot,
    /// The device under the root file system is not a dm-verity device.
    #[error("{} is not a dm-verity device (its uuid is {uuid:?}): this machine does not run from a RalphOS slot", device.display())]
    NotVerity {
        /// The device mapper device.
        device: PathBuf,
        /// What its `dm/uuid` says.
        uuid: String,
    },
    /// Other than exactly one partition lies under the dm-verity device.
    #[error("under the dm-verity device {} there is not exactly one partition but [{}]", device.display(), under.join(", "))]
    NotOnePartition {
        /// The dm-verity device.
        device: PathBuf,
        /// What lies under it.
        under: Vec<String>,
    },
    /// The partition's disk could not be found in sysfs.
    #[error("cannot find the disk of the partition {}", partition.display())]
    NoDisk {
        /// The partition's device.
        partition: PathBuf,
    },
    /// The disk is not a RalphOS disk.
    #[error("the disk {} that this machine runs from has no layout to work with", disk.display())]
    Layout {
        /// The disk's device.
        disk: PathBuf,
        /// What is wrong with it.
        source: LayoutError,
    },
    /// The kernel knows the partition otherwise than the table on the disk.
    #[error("the kernel's partition {number} of {} is not the one in its partition table; reboot so that the kernel reads the table again", disk.display())]
    TableChanged {
        /// The disk's device.
        disk: PathBuf,
        /// The partition's number.
        number: u32,
    },
    /// No disk has the partition that the command line or the loader names.
    #[error("no disk of this machine has the partition {0} that this boot was started with")]
    NotThere(Uuid),
    /// Two disks have it.
    #[error("both {} and {} have the partition {guid} that this boot was started with; nothing will be written", first.display(), second.display())]
    TwoDisks {
        /// The PARTUUID.
        guid: Uuid,
        /// The one disk.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// The root file system lies on a partition that is no slot.
    #[error("this machine runs from partition {number} of {}, which is neither SYSTEM_A nor SYSTEM_B", disk.display())]
    NotASlot {
        /// The disk's device.
        disk: PathBuf,
        /// The partition's number.
        number: u32,
    },
    /// The kernel's command line names another slot than the one that is booted (`DSK-31`).
    #[error(
        "the kernel's command line names slot {named} (PARTUUID {guid}), but slot {booted} (PARTUUID {booted_guid}) is booted; nothing will be written"
    )]
    CommandLine {
        /// `ralph.slot`.
        named: Slot,
        /// The PARTUUID in `systemd.verity_root_data`.
        guid: Uuid,
        /// The slot under dm-verity.
        booted: Slot,
        /// Its PARTUUID.
        booted_guid: Uuid,
    },
    /// The loader was started from another ESP than this disk's (`DSK-32`).
    #[error(
        "the loader was started from the partition {loader}, not from this disk's ESP {esp}; nothing will be written"
    )]
    OtherEsp {
        /// What the loader told.
        loader: Uuid,
        /// The ESP's PARTUUID.
        esp: Uuid,
    },
}

/// Finds the disk and the slot that this machine runs from (`DSK-30`).
///
/// # Errors
/// [`BootedError`], any but `CommandLine` and `OtherEsp`.
pub fn find_booted(sys: &SysRoot) -> Result<BootedDisk, BootedError> {
    let verity = verity_device(sys)?;
    let mut slaves = verity.slaves(sys)?;
    let partition = match (slaves.pop(), slaves.is_empty()) {
        (Some(only), true) if only.partition_number()?.is_some() => only,
        (last, _) => {
            slaves.extend(last);
            let under = slaves.iter().map(|s| s.node.display().to_string()).collect();
            return Err(BootedError::NotOnePartition { device: verity.node, under });
        }
    };
    let no_disk = || BootedError::NoDisk { partition: partition.node.clone() };
    let device = sys.block_device(partition.dir.parent().ok_or_else(no_disk)?)?.ok_or_else(no_disk)?;
    let (layout, partitions) = layout_of(sys, &device)?;
    let number = partition.partition_number()?.ok_or_else(no_disk)?;
    let slot = layout.slot_of(number).ok_or_else(|| BootedError::NotASlot { disk: device.node.clone(), number })?;
    Ok(BootedDisk { layout, slot, device, partitions })
}

/// Finds the disk that has a slot with this PARTUUID, before any root file system is there (in an initrd). A PARTUUID counts
/// wherever the initrd would look for it: in the table on a disk, or in the kernel's memory of it.
///
/// # Errors
/// [`BootedError::NotThere`], which may be so only for now; [`BootedError::TwoDisks`], `Layout`, `TableChanged`, `NotASlot`
/// and `Sys`.
pub fn find_named(sys: &SysRoot, guid: Uuid) -> Result<BootedDisk, BootedError> {
    let device = disk_with(sys, guid)?;
    let (layout, partitions) = layout_of(sys, &device)?;
    let slot = layout.slot_by_guid(guid).ok_or_else(|| {
        let number = partitions.first().map_or(0, |partition| partition.number);
        BootedError::NotASlot { disk: device.node.clone(), number }
    })?;
    Ok(BootedDisk { layout, slot, device, partitions })
}

/// The device and the length in bytes of the EFI partition with this PARTUUID on a disk of ours (`ENT-16`): for an initrd that does not know
/// its slot yet.
///
/// # Errors
/// As [`find_named`]; [`BootedError::OtherEsp`] when it is another partition of that disk.
pub fn find_esp(sys: &SysRoot, guid: Uuid) -> Result<(PathBuf, u64), BootedError> {
    let device = disk_with(sys, guid)?;
    let (layout, partitions) = layout_of(sys, &device)?;
    let esp = &layout.esp;
    if esp.unique_guid != guid {
        return Err(BootedError::OtherEsp { loader: guid, esp: esp.unique_guid });
    }
    let known = partitions.iter().find(|k| k.number == esp.number);
    Ok((known.expect("layout_of checked that the kernel knows it").device.node.clone(), esp.len))
}

/// The one disk that has a partition with this PARTUUID.
fn disk_with(sys: &SysRoot, guid: Uuid) -> Result<BlockDevice, BootedError> {
    let mut found: Option<BlockDevice> = None;
    for device in sys.block_devices()? {
        let partitions = device.partitions(sys)?;
        // Without partitions there is nothing the kernel would find, however the bytes look.
        if partitions.is_empty() || !names(&device, &partitions).iter().any(|(_, own)| *own == Some(guid)) {
            continue;
        }
        if let Some(first) = &found {
            return Err(BootedError::TwoDisks { guid, first: first.node.clone(), second: device.node });
        }
        found = Some(device);
    }
    found.ok_or(BootedError::NotThere(guid))
}

/// The layout of a disk, which must be the one that the kernel knows.
fn layout_of(sys: &SysRoot, device: &BlockDevice) -> Result<(DiskLayout, Vec<KernelPartition>), BootedError> {
    let disk = device.node.clone();
    let layout = DiskLayout::open(&disk).map_err(|source| BootedError::Layout { disk: disk.clone(), source })?;
    let partitions = device.partitions(sys)?;
    let [a, b] = Slot::ALL.map(|slot| layout.slot(slot));
    for entry in [Some(&layout.esp), Some(a), Some(b), layout.var.as_ref()].into_iter().flatten() {
        let same = |k: &&KernelPartition| (k.number, k.start, k.len) == (entry.number, entry.start, entry.len);
        if partitions.iter().find(same).is_none() {
            return Err(BootedError::TableChanged { disk, number: entry.number });
        }
    }
    Ok((layout, partitions))
}

/// The dm-verity device under `/`, or, where `/` is an overlay, the one named `root`.
fn verity_device(sys: &SysRoot) -> Result<BlockDevice, BootedError> {
    let mounts = sys.mounts()?;
    let root = mount_at(&mounts, Path::new("/")).ok_or(BootedError::NoRoot)?;
    let mut found = sys.block_device_numbered(root.device)?;
    if let Some(device) = &found
        && device.attribute("dm/uuid")?.is_none()
    {
        found = None;
    }
    if found.is_none() {
        for device in sys.block_devices()? {
            if device.attribute("dm/name")?.as_deref() == Some("root") {
                found = Some(device);
            }
        }
    }
    let device = found.ok_or(BootedError::NoVerityRoot)?;
    let uuid = device.attribute("dm/uuid")?.unwrap_or_default();
    if !uuid.starts_with("CRYPT-VERITY-") {
        return Err(BootedError::NotVerity { device: device.node, uuid });
    }
    Ok(device)
}

impl BootedDisk {
    /// The disk's device.
    pub fn disk_dev(&self) -> &Path {
        &self.device.node
    }

    /// The device of a slot's partition.
    pub fn slot_dev(&self, slot: Slot) -> &Path {
        &self.kernel_partition(self.layout.slot(slot)).node
    }

    /// The device of the ESP.
    pub fn esp_dev(&self) -> &Path {
        &self.kernel_partition(&self.layout.esp).node
    }

    /// The device number of the ESP.
    pub fn esp_number(&self) -> DeviceNumber {
        self.kernel_partition(&self.layout.esp).number
    }

    /// The device of the partition for `/var`, if the disk has one.
    pub fn var_dev(&self) -> Option<&Path> {
        Some(&self.kernel_partition(self.layout.var.as_ref()?).node)
    }

    /// The PARTUUID of a slot.
    pub fn partuuid(&self, slot: Slot) -> Uuid {
        self.layout.slot(slot).unique_guid
    }

    fn kernel_partition(&self, partition: &Partition) -> &BlockDevice {
        let known = self.partitions.iter().find(|k| k.number == partition.number);
        &known.expect("find_booted checked that the kernel knows every partition of the layout").device
    }

    /// Compares with what the kernel's command line says: `ralph.slot` and the PARTUUID in `systemd.verity_root_data` (`DSK-31`).
    ///
    /// # Errors
    /// [`BootedError::CommandLine`]: nothing may be written.
    pub fn check_command_line(&self, named: Slot, guid: Uuid) -> Result<(), BootedError> {
        let booted_guid = self.partuuid(self.slot);
        if named == self.slot && guid == booted_guid {
            return Ok(());
        }
        Err(BootedError::CommandLine { named, guid, booted: self.slot, booted_guid })
    }

    /// Compares with the partition that the loader was started from, if it told (`DSK-32`).
    ///
    /// # Errors
    /// [`BootedError::OtherEsp`]: nothing may be written. Or the variable is there and cannot be read.
    pub fn check_loader_partition(&self, sys: &SysRoot) -> Result<(), BootedError> {
        match sys.loader_partition()? {
            Some(loader) if loader != self.layout.esp.unique_guid => {
                Err(BootedError::OtherEsp { loader, esp: self.layout.esp.unique_guid })
            }
            _ => Ok(()),
        }
    }

    /// Where the system has mounted the ESP, if it has: a mount that can be written to in preference (`ENT-25`).
    ///
    /// # Errors
    /// [`SysError`].
    pub fn esp_mount(&self, sys: &SysRoot) -> Result<Option<EspMount>, SysError> {
        let mounts = sys.mounts()?;
        let seen = mounts.iter().filter(|m| {
            // Not a directory of the ESP, and not covered by another mount.
            m.device == self.esp_number() && m.root == Path::new("/") && mount_at(&mounts, &m.point) == Some(m)
        });
        let best = seen.min_by_key(|m| m.read_only);
        Ok(best.map(|m| EspMount { point: m.point.clone(), read_only: m.read_only }))
    }

    /// Other disks that the initrd or the loader might take for this one (`DSK-33`); nothing may be written while there is one.
    ///
    /// A PARTUUID of ours is a clash whatever the label says: the initrd looks for PARTUUIDs and not for labels.
    ///
    /// # Errors
    /// [`SysError`].
    pub fn clashes(&self, sys: &SysRoot) -> Result<Vec<Clash>, SysError> {
        let mut clashes = Vec::new();
        for device in sys.block_devices()? {
            if device.number == self.device.number {
                continue;
            }
            let partitions = device.partitions(sys)?;
            if partitions.is_empty() {
                // Nothing the kernel would find, however the bytes look.
                continue;
            }
            if let Some(why) = self.clash_with(&names(&device, &partitions)) {
                clashes.push(Clash { disk: device.node, why });
            }
        }
        Ok(clashes)
    }

    fn clash_with(&self, others: &[(Option<String>, Option<Uuid>)]) -> Option<ClashReason> {
        let [a, b] = Slot::ALL.map(|slot| self.partuuid(slot));
        let ours = [self.layout.esp.unique_guid, a, b];
        if let Some(guid) = others.iter().filter_map(|(_, guid)| *guid).find(|guid| ours.contains(guid)) {
            return Some(ClashReason::Guid(guid));
        }
        let has = |slot: Slot| others.iter().any(|(label, _)| label.as_deref() == Some(slot.label()));
        Slot::ALL.into_iter().all(has).then_some(ClashReason::Labels)
    }
}

/// Labels and PARTUUIDs of a disk: from its table, or, where that cannot be read, what the kernel remembers of it.
fn names(device: &BlockDevice, partitions: &[KernelPartition]) -> Vec<(Option<String>, Option<Uuid>)> {
    let table = std::fs::File::open(&device.node).ok().and_then(|file| PartitionTable::read(&file).ok());
    let mut names: Vec<_> = partitions
        .iter()
        .map(|p| {
            let label = p.device.property("PARTNAME").map(str::to_owned);
            (label, p.device.property("PARTUUID").and_then(|text| text.parse().ok()))
        })
        .collect();
    names.extend(table.into_iter().flat_map(|t| t.partitions).map(|p| (Some(p.label), Some(p.unique_guid))));
    names
}
