//! The RalphOS disk: a partition table that has what `DSK-2` asks for.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use uuid::{Uuid, uuid};

use crate::Slot;
use crate::table::{Partition, PartitionTable, TableCopy, TableError};

/// Partition type of the ESP.
pub const TYPE_ESP: Uuid = uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
/// Partition type of `VAR`.
pub const TYPE_VAR: Uuid = uuid!("4d21b016-b534-45c2-a9fb-5c16e091fd2d");
/// Partition type of an extended boot loader partition.
pub const TYPE_XBOOTLDR: Uuid = uuid!("bc13c2ff-59e6-4262-a352-b275fd6f7172");
/// Attribute bit 60: read-only.
pub const ATTRIBUTE_READ_ONLY: u64 = 1 << 60;
/// Attribute bit 63: not mounted automatically.
pub const ATTRIBUTE_NO_AUTO: u64 = 1 << 63;

/// What UEFI has every disk set aside for the entries of each copy of the partition table, in bytes.
const TABLE_ENTRIES: u64 = 16 * 1024;

/// GPT label of the EFI system partition.
pub const LABEL_ESP: &str = "EFI";
/// GPT label of the partition that holds `/var`.
pub const LABEL_VAR: &str = "VAR";

/// A processor architecture, as the type of the slots names it (`DSK-2`). Shown and parsed as `x86_64` or `aarch64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// 64-bit x86.
    X86_64,
    /// 64-bit ARM.
    Aarch64,
}

impl Architecture {
    /// Both architectures.
    pub const ALL: [Architecture; 2] = [Architecture::X86_64, Architecture::Aarch64];

    /// The type of a root partition of this architecture in the Discoverable Partitions Specification.
    pub const fn root_type(self) -> Uuid {
        match self {
            Architecture::X86_64 => uuid!("4f68bce3-e8cd-4db1-96e7-fbcaf984b709"),
            Architecture::Aarch64 => uuid!("b921b045-1df0-41c3-af44-4c6f280d3fae"),
        }
    }

    /// `x86_64` or `aarch64`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Architecture::X86_64 => "x86_64",
            Architecture::Aarch64 => "aarch64",
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is neither `x86_64` nor `aarch64`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an architecture: it is either \"x86_64\" or \"aarch64\"")]
pub struct NotAnArchitecture(pub String);

impl FromStr for Architecture {
    type Err = NotAnArchitecture;

    fn from_str(text: &str) -> Result<Self, NotAnArchitecture> {
        Architecture::ALL.into_iter().find(|a| a.as_str() == text).ok_or_else(|| NotAnArchitecture(text.to_owned()))
    }
}

/// A disk that passed `DSK-3`: it has an ESP and two slots, and no partition overlaps another or leaves the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskLayout {
    /// Bytes in a logical sector.
    pub sector_size: u64,
    /// Length of the disk in bytes.
    pub disk_len: u64,
    /// The disk's GUID.
    pub disk_guid: Uuid,
    /// The copy of the table that was read: [`TableCopy::Backup`] tells of damage that is worth a warning.
    pub copy: TableCopy,
    /// The EFI system partition.
    pub esp: Partition,
    /// The partition for `/var`, which may be missing.
    pub var: Option<Partition>,
    /// The architecture that both slots are for.
    pub architecture: Architecture,
    slots: [Partition; 2],
}

/// A disk has no layout that we can work with.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The disk could not be opened.
    #[error("cannot open the disk {}", path.display())]
    Open {
        /// The device or image file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The disk has no readable partition table.
    #[error("cannot read the partition table")]
    Table(#[from] TableError),
    /// A partition that must be there is not (`DSK-3`).
    #[error("there is no partition labelled {0}: this is not a RalphOS disk")]
    Missing(&'static str),
    /// The disk has an extended boot loader partition (`DSK-3`).
    #[error(
        "partition {0} is an extended boot loader partition (XBOOTLDR): the boot loader would take entries from it that nobody looks after; remove it"
    )]
    Xbootldr(u32),
    /// A label stands twice (`DSK-3`).
    #[error("partitions {first} and {second} are both labelled {label}: which is meant?")]
    Twice {
        /// The label.
        label: &'static str,
        /// Number of the first partition with that label.
        first: u32,
        /// Number of the second.
        second: u32,
    },
    /// A partition has another type than its label asks for (`DSK-2`, `DSK-3`).
    #[error("partition {number} is labelled {label} but has the type {type_guid}, which is not that of {wanted}")]
    Type {
        /// The partition's number.
        number: u32,
        /// Its label.
        label: String,
        /// Its type.
        type_guid: Uuid,
        /// What its type should say.
        wanted: &'static str,
    },
    /// The slots are of two architectures.
    #[error("SYSTEM_A is a root partition for {a}, SYSTEM_B for {b}")]
    MixedArchitectures {
        /// The architecture of slot A.
        a: Architecture,
        /// The architecture of slot B.
        b: Architecture,
    },
    /// Two partitions share bytes (`DSK-3`).
    #[error("partitions {first} and {second} overlap")]
    Overlap {
        /// Number of the one that begins first.
        first: u32,
        /// Number of the other.
        second: u32,
    },
    /// A partition does not lie on the disk (`DSK-3`).
    #[error("partition {number} ends at byte {end}, but the disk has only {disk_len} bytes")]
    LeavesDisk {
        /// The partition's number.
        number: u32,
        /// The first byte behind it.
        end: u64,
        /// Bytes of the disk.
        disk_len: u64,
    },
    /// A partition lies where a copy of the partition table does: writing to it would destroy the table (`DSK-3`).
    #[error("partition {number} lies on the partition table")]
    OnTable {
        /// The partition's number.
        number: u32,
    },
    /// Two partitions have the same PARTUUID, so that neither can be named.
    #[error("partitions {first} and {second} have the same PARTUUID {guid}")]
    SameGuid {
        /// Number of the first.
        first: u32,
        /// Number of the second.
        second: u32,
        /// Their GUID.
        guid: Uuid,
    },
}

impl DiskLayout {
    /// Opens a disk, a block device or an image file, and reads its layout.
    ///
    /// # Errors
    /// [`LayoutError`], as for [`DiskLayout::read`].
    pub fn open(path: impl AsRef<Path>) -> Result<DiskLayout, LayoutError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|source| LayoutError::Open { path: path.to_owned(), source })?;
        DiskLayout::read(&file)
    }

    /// Reads the layout of an open disk (`DSK-3`, `DSK-4`). Never writes.
    ///
    /// # Errors
    /// [`LayoutError`], which does not name the disk: the caller knows it.
    pub fn read(file: &File) -> Result<DiskLayout, LayoutError> {
        DiskLayout::from_table(PartitionTable::read(file)?)
    }

    /// Judges a partition table by `DSK-3`.
    ///
    /// # Errors
    /// [`LayoutError`], any but `Open` and `Table`.
    pub fn from_table(table: PartitionTable) -> Result<DiskLayout, LayoutError> {
        check_places(&table)?;
        if let Some(extended) = table.partitions.iter().find(|partition| partition.type_guid == TYPE_XBOOTLDR) {
            return Err(LayoutError::Xbootldr(extended.number));
        }
        let esp = one(&table, LABEL_ESP)?.ok_or(LayoutError::Missing(LABEL_ESP))?;
        let [a, b] = Slot::ALL.map(|slot| one(&table, slot.label())?.ok_or(LayoutError::Missing(slot.label())));
        let (a, b) = (a?, b?);
        let var = one(&table, LABEL_VAR)?;
        wants_type(&esp, TYPE_ESP, "an EFI system partition")?;
        if let Some(var) = &var {
            wants_type(var, TYPE_VAR, "a /var partition")?;
        }
        let architecture = slot_architecture(&a)?;
        let other = slot_architecture(&b)?;
        if architecture != other {
            return Err(LayoutError::MixedArchitectures { a: architecture, b: other });
        }
        Ok(DiskLayout {
            sector_size: table.sector_size,
            disk_len: table.disk_len,
            disk_guid: table.disk_guid,
            copy: table.copy,
            esp,
            var,
            architecture,
            slots: [a, b],
        })
    }

    /// The partition of a slot.
    pub fn slot(&self, slot: Slot) -> &Partition {
        match slot {
            Slot::A => &self.slots[0],
            Slot::B => &self.slots[1],
        }
    }

    /// The slot that is this partition, by its number.
    pub fn slot_of(&self, number: u32) -> Option<Slot> {
        Slot::ALL.into_iter().find(|slot| self.slot(*slot).number == number)
    }

    /// The slot with this PARTUUID.
    pub fn slot_by_guid(&self, guid: Uuid) -> Option<Slot> {
        Slot::ALL.into_iter().find(|slot| self.slot(*slot).unique_guid == guid)
    }
}

fn one(table: &PartitionTable, label: &'static str) -> Result<Option<Partition>, LayoutError> {
    let mut found = table.labelled(label);
    let first = found.next().cloned();
    match (&first, found.next()) {
        (Some(first), Some(second)) => Err(LayoutError::Twice { label, first: first.number, second: second.number }),
        _ => Ok(first),
    }
}

fn wants_type(partition: &Partition, type_guid: Uuid, wanted: &'static str) -> Result<(), LayoutError> {
    if partition.type_guid == type_guid {
        return Ok(());
    }
    Err(LayoutError::Type {
        number: partition.number,
        label: partition.label.clone(),
        type_guid: partition.type_guid,
        wanted,
    })
}

fn slot_architecture(slot: &Partition) -> Result<Architecture, LayoutError> {
    let of_type = Architecture::ALL.into_iter().find(|a| a.root_type() == slot.type_guid);
    of_type.ok_or_else(|| LayoutError::Type {
        number: slot.number,
        label: slot.label.clone(),
        type_guid: slot.type_guid,
        wanted: "a root partition for x86_64 or aarch64",
    })
}

fn check_places(table: &PartitionTable) -> Result<(), LayoutError> {
    let mut by_start: Vec<&Partition> = table.partitions.iter().collect();
    by_start.sort_by_key(|p| p.start);
    for pair in by_start.windows(2) {
        if pair[0].end() > pair[1].start {
            return Err(LayoutError::Overlap { first: pair[0].number, second: pair[1].number });
        }
    }
    // The first copy has the protective MBR before its header, the last one only the header behind its entries.
    let first_copy = 2 * table.sector_size + TABLE_ENTRIES;
    let last_copy = table.disk_len.saturating_sub(table.sector_size + TABLE_ENTRIES);
    for partition in &by_start {
        if partition.end() > table.disk_len {
            let (number, end, disk_len) = (partition.number, partition.end(), table.disk_len);
            return Err(LayoutError::LeavesDisk { number, end, disk_len });
        }
        if partition.start < first_copy || partition.end() > last_copy {
            return Err(LayoutError::OnTable { number: partition.number });
        }
    }
    for (index, first) in table.partitions.iter().enumerate() {
        let again = table.partitions[index + 1..].iter().find(|p| p.unique_guid == first.unique_guid);
        if let Some(second) = again {
            let (first, guid) = (first.number, first.unique_guid);
            return Err(LayoutError::SameGuid { first, second: second.number, guid });
        }
    }
    Ok(())
}
