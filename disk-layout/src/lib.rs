//! The RalphOS disk: its partition table, its two slots, which of them is booted, and the ways to write to them.
//!
//! The rules are in `specs/disk-layout.md` and cited as `DSK-n`. Block devices and disk image files stand behind one seam.

mod aligned;
mod booted;
mod changes;
mod coalesce;
mod copies;
mod create;
mod device;
pub mod fake;
mod io_priority;
mod layout;
mod lock;
mod mount;
mod mountinfo;
mod seed;
mod size;
mod slot;
mod slot_file;
mod slot_reader;
mod sysroot;
mod table;
mod window;

pub use aligned::{AlignedBuf, BLOCK};
pub use booted::{BootedDisk, BootedError, Clash, ClashReason, EspMount, find_booted, find_esp, find_named};
pub use changes::{ChangeWriter, Changed, Look};
pub use coalesce::CoalescingWriter;
pub use copies::{DiskFile, RawDisk, RepairError, TableHealth, repair_copy};
pub use create::{ALIGNMENT, CreateError, NewDisk, PlannedDisk};
pub use device::{SlotError, SlotIo};
pub use io_priority::io_when_idle;
pub use layout::{
    ATTRIBUTE_NO_AUTO, ATTRIBUTE_READ_ONLY, Architecture, DiskLayout, LABEL_ESP, LABEL_VAR, LayoutError,
    NotAnArchitecture, TYPE_ESP, TYPE_VAR,
};
pub use lock::{DEVICE_LOCK, LockError, UpdateLock};
pub use mount::{ESP_MOUNT_POINT, MountError, MountMode, PrivateMount};
pub use mountinfo::{BadMountInfo, DeviceNumber, Mount, NotADeviceNumber, mount_at, parse_mountinfo};
pub use seed::Seed;
pub use size::{SizeError, parse_size};
pub use slot::{NotASlot, Slot};
pub use slot_file::{Access, SlotFile};
pub use slot_reader::{SlotBytes, SlotReader};
pub use sysroot::{LOADER_GUID, SysError, SysRoot};
pub use table::{CopyError, Partition, PartitionTable, TableCopy, TableError};
pub use window::{FileWindow, OutsideWindow};
