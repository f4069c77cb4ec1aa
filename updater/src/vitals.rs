//! What the machine says of itself beside its boot entries: firmware and loader, partition table, the ESP's volume,
//! watchdog, clock. Gathered for the doctor (specs/doctor.md); what cannot be found out is absent, and named.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use boot_entries::fat::{FatError, Volume, VolumeHealth};
use boot_entries::vars::EFIVARS;
use disk_layout::TableHealth;

use crate::exit::with_source;
use crate::vars::{self, LoaderVariable};

/// Below the root: the sign that the boot loaders have changed places in this boot (LUP-7).
pub const LOADERS_SWAPPED: &str = "run/ralphos/loader-promoted";

/// What loader and firmware say of themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Firmware {
    /// `LoaderFeatures`.
    pub features: Option<u64>,
    /// `LoaderInfo`, such as `systemd-boot 257.9-1`.
    pub loader: Option<String>,
    /// `LoaderEntryPreferred`, which loaders from 260 on obey.
    pub preferred: Option<String>,
}

/// Bit 4 of `LoaderFeatures`.
const COUNTS_BOOTS: u64 = 1 << 4;

impl Firmware {
    /// Does the loader count boots? None: it does not say.
    pub fn counts_boots(&self) -> Option<bool> {
        self.features.map(|features| features & COUNTS_BOOTS != 0)
    }

    /// The loader's release, if it is systemd-boot.
    pub fn release(&self) -> Option<u32> {
        let rest = self.loader.as_deref()?.strip_prefix("systemd-boot ")?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    }

    /// Reads the variables below `root`; None when none can be read there.
    pub(crate) fn read(root: &Path) -> Option<Firmware> {
        let dir = root.join(EFIVARS.trim_start_matches('/'));
        fs::read_dir(&dir).ok()?.next()?.ok()?;
        let bytes = vars::raw(&dir, "LoaderFeatures");
        let features = bytes.as_deref().and_then(|bytes| bytes.get(4..)?.try_into().ok()).map(u64::from_le_bytes);
        let preferred = vars::text(&dir, LoaderVariable::Preferred.name());
        Some(Firmware { features, loader: vars::text(&dir, "LoaderInfo"), preferred })
    }
}

/// What keeps the ESP from being written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteProtection {
    /// The system has it mounted read-only.
    Mounted(PathBuf),
    /// The kernel lets nobody write to the device, or the system to the file.
    Medium(PathBuf),
}

/// The hardware watchdog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watchdog {
    /// There is none.
    Absent,
    /// There is one and nobody feeds it, so it never fires.
    Idle,
    /// It resets a machine that hangs.
    Armed,
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vitals {
    /// The disk's device, or the disk image file.
    pub disk: Option<PathBuf>,
    /// The ESP's device; none for a disk image file.
    pub esp_device: Option<PathBuf>,
    /// Both copies of the partition table.
    pub table: Option<TableHealth>,
    /// The ESP's file system.
    pub volume: Option<Result<EspVolume, NoVolume>>,
    /// What keeps the ESP from being written to.
    pub write_protection: Option<WriteProtection>,
    /// Other disks that look like ours (DSK-33), as sentences.
    pub clashes: Vec<String>,
    /// The watchdog.
    pub watchdog: Option<Watchdog>,
    /// The clock, in seconds since 1970.
    pub now: Option<u64>,
    /// When the running image was built, in seconds since 1970.
    pub built: Option<u64>,
    /// systemd-bless-boot is there and not masked.
    pub bless_boot: Option<bool>,
    /// The boot loaders have changed places in this boot (LUP-7); none: what the firmware's loader says of itself is of an earlier boot
    /// (kexec), or that cannot be told.
    pub loaders_swapped: Option<bool>,
    /// The process that holds the update lock.
    pub busy: Option<u32>,
    /// What could not be found out, and why.
    pub left_out: Vec<String>,
}

impl Vitals {
    /// Looks at both copies of the table on this device or file.
    pub(crate) fn read_table(&mut self, path: &Path) {
        let open = File::open(path).map_err(|error| format!("{}: {error}", path.display()));
        match open.and_then(|file| TableHealth::read(&file).map_err(|error| with_source(&error))) {
            Ok(table) => self.table = Some(table),
            Err(error) => self.left_out.push(format!("the copies of the partition table: {error}")),
        }
    }
}

/// What the ESP's volume says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EspVolume {
    /// How it was left.
    pub health: VolumeHealth,
    /// Slots behind the end of `loader/entries` (ENT-28); none: that cannot be told.
    pub entries_room: Option<usize>,
}

/// Why nothing is known of the ESP's volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoVolume {
    /// It is none of FAT.
    NotFat(String),
    /// The medium does not say what is there.
    Unreadable(String),
}

/// Looks at the ESP's volume; nothing is changed.
pub(crate) fn volume<T: Read + Seek>(storage: std::io::Result<T>) -> Result<EspVolume, NoVolume> {
    let told = |error: FatError| match error {
        FatError::Io { .. } => NoVolume::Unreadable(with_source(&error)),
        _ => NoVolume::NotFat(with_source(&error)),
    };
    let storage = storage.map_err(|error| NoVolume::Unreadable(error.to_string()))?;
    let mut volume = Volume::open(storage).map_err(told)?;
    let health = volume.health().map_err(told)?;
    Ok(EspVolume { health, entries_room: volume.room("loader/entries").ok().flatten() })
}

/// Does the kernel refuse writes to this block device?
pub(crate) fn is_read_only(root: &Path, device: &Path) -> bool {
    let name = device.file_name().unwrap_or_default();
    let text = fs::read_to_string(root.join("sys/class/block").join(name).join("ro"));
    text.is_ok_and(|text| text.trim_end() == "1")
}

/// The watchdog; None when the kernel does not say whether it is armed.
pub(crate) fn watchdog(root: &Path) -> Option<Watchdog> {
    let Ok(devices) = fs::read_dir(root.join("sys/class/watchdog")) else { return Some(Watchdog::Absent) };
    let states: Vec<Option<String>> =
        devices.flatten().map(|device| fs::read_to_string(device.path().join("state")).ok()).collect();
    if states.is_empty() {
        return Some(Watchdog::Absent);
    }
    if states.iter().flatten().any(|state| state.trim_end() == "active") {
        return Some(Watchdog::Armed);
    }
    states.iter().all(Option::is_some).then_some(Watchdog::Idle)
}

/// The date of the running image: the newest that systemd, too, takes for the least a clock can say.
pub(crate) fn built(root: &Path) -> Option<u64> {
    let date = |name: &str| {
        let time = fs::metadata(root.join(name)).ok()?.modified().ok()?;
        time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
    };
    ["usr/lib/clock-epoch", "usr/lib/os-release"].into_iter().filter_map(date).max()
}

/// Is systemd-bless-boot there, and not masked?
pub(crate) fn bless_boot(root: &Path) -> bool {
    let unit = "systemd-bless-boot.service";
    // As systemd looks for units: the first one found counts, and a link to /dev/null masks it.
    for dir in ["etc/systemd/system", "run/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"] {
        let path = root.join(dir).join(unit);
        if fs::symlink_metadata(&path).is_ok() {
            return !fs::read_link(&path).is_ok_and(|target| target == Path::new("/dev/null"));
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, SeekFrom};
    use std::os::unix::fs::symlink;

    use boot_entries::fat::{FormatOptions, format_esp};

    use boot_entries::vars::LOADER_GUID;

    use super::*;

    fn put(root: &Path, path: &str, content: &[u8]) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// A medium that cannot be read from here on.
    struct Failing(Cursor<Vec<u8>>, u64);

    impl Read for Failing {
        fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
            if self.0.position() >= self.1 { Err(std::io::Error::other("bad sector")) } else { self.0.read(bytes) }
        }
    }

    impl Seek for Failing {
        fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
            self.0.seek(to)
        }
    }

    #[test]
    fn doc_12_a_medium_that_cannot_be_read_is_not_taken_for_one_without_fat() {
        let mut fat = Cursor::new(vec![0; 40 << 20]);
        format_esp(&mut fat, FormatOptions { label: "ESP", serial: 1, sector_size: 512 }).unwrap();
        let whole = volume(Ok(fat.clone())).unwrap();
        assert_eq!(whole.health, VolumeHealth::default());
        assert!(matches!(volume(Ok(Cursor::new(vec![0; 4096]))), Err(NoVolume::NotFat(_))));
        for good in [0, 512] {
            let unreadable = volume(Ok(Failing(fat.clone(), good)));
            assert!(
                matches!(&unreadable, Err(NoVolume::Unreadable(why)) if why.contains("bad sector")),
                "{unreadable:?}"
            );
        }
        let closed: std::io::Result<File> = Err(std::io::Error::other("no device"));
        assert!(matches!(volume(closed), Err(NoVolume::Unreadable(_))));
    }

    #[test]
    fn doc_14_the_loader_says_whether_it_counts_and_which_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert_eq!(Firmware::read(root), None);
        let variable = |name: &str| format!("sys/firmware/efi/efivars/{name}-{}", LOADER_GUID);
        let text = |text: &str| {
            [&[6, 0, 0, 0][..], &text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()].concat()
        };
        put(root, &variable("LoaderInfo"), &text("systemd-boot 257.9-1~deb13u1\0"));
        let silent = Firmware::read(root).unwrap();
        assert_eq!((silent.counts_boots(), silent.release(), &silent.preferred), (None, Some(257), &None));
        put(root, &variable("LoaderFeatures"), &[6, 0, 0, 0, 0xef, 0xff, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Firmware::read(root).unwrap().counts_boots(), Some(false));
        put(root, &variable("LoaderFeatures"), &[6, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0]);
        put(root, &variable("LoaderEntryPreferred"), &text("ralphos-a*\0"));
        let firmware = Firmware::read(root).unwrap();
        assert_eq!((firmware.counts_boots(), firmware.preferred.as_deref()), (Some(true), Some("ralphos-a*")));
    }

    #[test]
    fn doc_14_watchdog_device_unit_and_date_are_read_as_the_system_shows_them() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert_eq!(watchdog(root), Some(Watchdog::Absent));
        put(root, "sys/class/watchdog/watchdog0/identity", b"i6300ESB\n");
        assert_eq!(watchdog(root), None, "the kernel does not say");
        put(root, "sys/class/watchdog/watchdog0/state", b"inactive\n");
        assert_eq!(watchdog(root), Some(Watchdog::Idle));
        put(root, "sys/class/watchdog/watchdog1/state", b"active\n");
        assert_eq!(watchdog(root), Some(Watchdog::Armed));

        assert!(!is_read_only(root, Path::new("/dev/vda1")));
        put(root, "sys/class/block/vda1/ro", b"1\n");
        assert!(is_read_only(root, Path::new("/dev/vda1")));

        assert!(!bless_boot(root));
        put(root, "usr/lib/systemd/system/systemd-bless-boot.service", b"[Unit]\n");
        assert!(bless_boot(root));
        fs::create_dir_all(root.join("etc/systemd/system")).unwrap();
        symlink("/dev/null", root.join("etc/systemd/system/systemd-bless-boot.service")).unwrap();
        assert!(!bless_boot(root));

        assert_eq!(built(root), None);
        put(root, "usr/lib/os-release", b"ID=ralphos\n");
        let day = std::time::Duration::from_secs(1_700_000_000);
        File::options()
            .write(true)
            .open(root.join("usr/lib/os-release"))
            .unwrap()
            .set_modified(UNIX_EPOCH + day)
            .unwrap();
        assert_eq!(built(root), Some(1_700_000_000));
    }
}
