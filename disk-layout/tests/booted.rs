//! Which slot is booted (`DSK-30` to `DSK-33`), on machines made of files: `proc`, `sys` and `dev` in a directory, with links
//! as the kernel makes them.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;

use disk_layout::{
    Architecture, BootedDisk, BootedError, ClashReason, DiskLayout, EspMount, NewDisk, Seed, Slot, SysError, SysRoot,
    find_booted, find_esp, find_named,
};
use uuid::Uuid;

const MIB: u64 = 1 << 20;
const VERITY: &str = "CRYPT-VERITY-0123456789abcdef0123456789abcdef-root";

/// A machine made of files.
struct Machine {
    dir: tempfile::TempDir,
}

impl Machine {
    /// Runs slot B of `vda`: dm-verity on `vda3`, an erofs on `/`.
    fn running_b() -> Machine {
        let machine = Machine { dir: tempfile::tempdir().unwrap() };
        for dir in ["proc/self", "sys/block", "sys/dev/block", "sys/devices/pci0/block", "dev"] {
            fs::create_dir_all(machine.path(dir)).unwrap();
        }
        machine.disk("vda", 253, Seed::Fixed(1));
        machine.verity(0, "root", VERITY, &["vda/vda3"]);
        machine.mounts("25 22 254:0 / / ro,relatime shared:1 - erofs /dev/mapper/root ro\n");
        machine
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn put(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn sys(&self) -> SysRoot {
        SysRoot::at(self.dir.path())
    }

    fn booted(&self) -> Result<BootedDisk, BootedError> {
        find_booted(&self.sys())
    }

    fn mounts(&self, text: &str) {
        self.put("proc/self/mountinfo", text);
    }

    /// A block device's directory below `sys/devices`, and the links to it.
    fn device(&self, dir: &str, number: &str, name: &str, more: &str) {
        self.put(&format!("{dir}/dev"), format!("{number}\n"));
        self.put(&format!("{dir}/uevent"), format!("DEVNAME={name}\n{more}"));
        let _ = fs::remove_file(self.path(&format!("sys/dev/block/{number}")));
        let up = dir.strip_prefix("sys/").unwrap();
        symlink(format!("../../{up}"), self.path(&format!("sys/dev/block/{number}"))).unwrap();
    }

    /// A disk that `ralph-image disk` could have made, with its partitions in sysfs.
    fn disk(&self, name: &str, major: u32, seed: Seed) -> DiskLayout {
        let file = File::options().read(true).write(true).create_new(true).open(self.path(&format!("dev/{name}")));
        let new = NewDisk {
            architecture: Architecture::X86_64,
            sector_size: 512,
            esp_len: 2 * MIB,
            slot_len: 3 * MIB,
            var_len: MIB,
            seed,
        };
        let layout = new.create(&file.unwrap()).unwrap();
        let dir = format!("sys/devices/pci0/block/{name}");
        self.device(&dir, &format!("{major}:0"), name, "DEVTYPE=disk\n");
        symlink(format!("../devices/pci0/block/{name}"), self.path(&format!("sys/block/{name}"))).unwrap();
        let partitions = [&layout.esp, layout.slot(Slot::A), layout.slot(Slot::B), layout.var.as_ref().unwrap()];
        for partition in partitions {
            let number = partition.number;
            let node = format!("{name}{number}");
            let dir = format!("{dir}/{node}");
            let label = format!("DEVTYPE=partition\nPARTN={number}\nPARTNAME={}\n", partition.label);
            self.device(&dir, &format!("{major}:{number}"), &node, &label);
            self.put(&format!("{dir}/partition"), format!("{number}\n"));
            self.put(&format!("{dir}/start"), format!("{}\n", partition.start / 512));
            self.put(&format!("{dir}/size"), format!("{}\n", partition.len / 512));
        }
        layout
    }

    /// A device mapper device `254:minor` above devices named relative to `sys/devices/pci0/block`.
    fn verity(&self, minor: u32, name: &str, uuid: &str, above: &[&str]) {
        let dir = format!("sys/devices/virtual/block/dm-{minor}");
        let link = self.path(&format!("sys/block/dm-{minor}"));
        let _ = fs::remove_dir_all(self.path(&dir));
        let _ = fs::remove_file(&link);
        self.device(&dir, &format!("254:{minor}"), &format!("dm-{minor}"), "DEVTYPE=disk\n");
        self.put(&format!("{dir}/dm/name"), format!("{name}\n"));
        self.put(&format!("{dir}/dm/uuid"), format!("{uuid}\n"));
        fs::create_dir_all(self.path(&format!("{dir}/slaves"))).unwrap();
        for slave in above {
            let leaf = Path::new(slave).file_name().unwrap();
            let link = self.path(&format!("{dir}/slaves")).join(leaf);
            symlink(format!("../../../../pci0/block/{slave}"), link).unwrap();
        }
        symlink(format!("../devices/virtual/block/dm-{minor}"), link).unwrap();
    }
}

#[test]
fn dsk30_the_partition_under_dm_verity_is_the_booted_slot() {
    let machine = Machine::running_b();
    let booted = machine.booted().unwrap();
    assert_eq!(booted.slot, Slot::B);
    assert_eq!(booted.disk_dev(), machine.path("dev/vda"));
    assert_eq!(booted.slot_dev(Slot::A), machine.path("dev/vda2"));
    assert_eq!(booted.slot_dev(Slot::B), machine.path("dev/vda3"));
    assert_eq!(booted.esp_dev(), machine.path("dev/vda1"));
    assert_eq!(booted.esp_number().to_string(), "253:1");
    assert_eq!(booted.var_dev(), Some(machine.path("dev/vda4").as_path()));
    assert_eq!(booted.partuuid(Slot::B), booted.layout.slot(Slot::B).unique_guid);

    machine.verity(0, "root", VERITY, &["vda/vda2"]);
    assert_eq!(machine.booted().unwrap().slot, Slot::A);
}

#[test]
fn dsk30_under_an_overlay_the_device_named_root_counts() {
    let machine = Machine::running_b();
    machine.mounts("25 22 0:40 / / rw - overlay overlay rw,lowerdir=/sysroot\n");
    machine.verity(1, "swap", "CRYPT-PLAIN-swap", &[]);
    assert_eq!(machine.booted().unwrap().slot, Slot::B);
    // Also where `/` is a plain partition, as in a rescue system beside an opened slot.
    machine.mounts("25 22 253:4 / / rw - ext4 /dev/vda4 rw\n");
    assert_eq!(machine.booted().unwrap().slot, Slot::B);
}

#[test]
fn dsk30_the_last_mount_on_the_root_counts() {
    let machine = Machine::running_b();
    machine.mounts("1 1 0:2 / / rw - rootfs rootfs rw\n25 22 254:0 / / ro - erofs /dev/dm-0 ro\n");
    assert_eq!(machine.booted().unwrap().slot, Slot::B);
}

#[test]
fn dsk30_machines_that_run_from_no_slot() {
    let machine = Machine::running_b();
    machine.verity(0, "other", VERITY, &["vda/vda3"]);
    machine.mounts("25 22 253:4 / / rw - ext4 /dev/vda4 rw\n");
    assert!(matches!(machine.booted(), Err(BootedError::NoVerityRoot)));
    machine.mounts("26 25 0:21 / /proc rw - proc proc rw\n");
    assert!(matches!(machine.booted(), Err(BootedError::NoRoot)));
    machine.mounts("nonsense\n");
    assert!(matches!(machine.booted(), Err(BootedError::Sys(SysError::Mounts(_)))));
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(find_booted(&SysRoot::at(empty.path())), Err(BootedError::Sys(SysError::Read { .. }))));
}

#[test]
fn dsk30_the_root_must_be_dm_verity() {
    let machine = Machine::running_b();
    machine.verity(0, "root", "LVM-abc", &["vda/vda3"]);
    match machine.booted() {
        Err(BootedError::NotVerity { uuid, .. }) => assert_eq!(uuid, "LVM-abc"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn dsk30_exactly_one_partition_lies_under_dm_verity() {
    let machine = Machine::running_b();
    for under in [&[][..], &["vda/vda2", "vda/vda3"], &["vda"]] {
        machine.verity(0, "root", VERITY, under);
        match machine.booted() {
            Err(BootedError::NotOnePartition { under: found, .. }) => assert_eq!(found.len(), under.len()),
            other => panic!("{under:?}: {other:?}"),
        }
    }
}

#[test]
fn dsk30_the_partition_must_be_a_slot() {
    let machine = Machine::running_b();
    machine.verity(0, "root", VERITY, &["vda/vda4"]);
    assert!(matches!(machine.booted(), Err(BootedError::NotASlot { number: 4, .. })));
}

#[test]
fn dsk3_a_booted_disk_without_our_layout_is_refused() {
    let machine = Machine::running_b();
    machine.put("dev/vda", vec![0; 1 << 16]);
    assert!(matches!(machine.booted(), Err(BootedError::Layout { .. })));
}

#[test]
fn a_kernel_that_knows_another_table_is_refused() {
    let machine = Machine::running_b();
    machine.put("sys/devices/pci0/block/vda/vda2/size", "8\n");
    assert!(matches!(machine.booted(), Err(BootedError::TableChanged { number: 2, .. })));
    let machine = Machine::running_b();
    fs::remove_dir_all(machine.path("sys/devices/pci0/block/vda/vda1")).unwrap();
    assert!(matches!(machine.booted(), Err(BootedError::TableChanged { number: 1, .. })));
    // Numbers that are none, and such that overflow, are no panic.
    for size in ["", "x", "99999999999999999999", "18446744073709551615"] {
        let machine = Machine::running_b();
        machine.put("sys/devices/pci0/block/vda/vda2/size", size);
        assert!(matches!(machine.booted(), Err(BootedError::Sys(SysError::Strange { .. }))), "{size}");
    }
}

#[test]
fn dsk31_the_command_line_must_agree() {
    let booted = Machine::running_b().booted().unwrap();
    let [a, b] = Slot::ALL.map(|slot| booted.partuuid(slot));
    booted.check_command_line(Slot::B, b).unwrap();
    for (slot, guid) in [(Slot::A, a), (Slot::A, b), (Slot::B, a), (Slot::B, Uuid::nil())] {
        let error = booted.check_command_line(slot, guid).unwrap_err();
        assert!(matches!(error, BootedError::CommandLine { .. }), "{error}");
    }
}

fn told_by_loader(machine: &Machine, text: &str) {
    let mut bytes = vec![6, 0, 0, 0];
    bytes.extend(text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes));
    let name = "LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
    machine.put(&format!("sys/firmware/efi/efivars/{name}"), bytes);
}

#[test]
fn dsk32_the_loader_must_have_come_from_this_esp() {
    let machine = Machine::running_b();
    let booted = machine.booted().unwrap();
    // A loader that tells nothing is trusted.
    booted.check_loader_partition(&machine.sys()).unwrap();
    let esp = booted.layout.esp.unique_guid;
    told_by_loader(&machine, &esp.to_string().to_uppercase());
    booted.check_loader_partition(&machine.sys()).unwrap();
    told_by_loader(&machine, &booted.partuuid(Slot::A).to_string());
    let error = booted.check_loader_partition(&machine.sys()).unwrap_err();
    assert!(matches!(error, BootedError::OtherEsp { .. }), "{error}");
    told_by_loader(&machine, "garbage");
    let error = booted.check_loader_partition(&machine.sys()).unwrap_err();
    assert!(matches!(error, BootedError::Sys(SysError::Strange { .. })), "{error}");
}

#[test]
fn dsk33_other_disks_with_our_names() {
    let machine = Machine::running_b();
    let booted = machine.booted().unwrap();
    assert_eq!(booted.clashes(&machine.sys()).unwrap(), []);

    // A copy of the disk, as `dd` makes it.
    machine.disk("vdb", 252, Seed::Fixed(1));
    let clashes = booted.clashes(&machine.sys()).unwrap();
    assert_eq!(clashes.len(), 1);
    assert_eq!(clashes[0].disk, machine.path("dev/vdb"));
    assert_eq!(clashes[0].why, ClashReason::Guid(booted.layout.esp.unique_guid));

    // Another machine's disk: other GUIDs, our labels. With an unreadable table the kernel's memory of it counts.
    let machine = Machine::running_b();
    machine.disk("sdc", 8, Seed::Fixed(2));
    assert_eq!(booted.clashes(&machine.sys()).unwrap()[0].why, ClashReason::Labels);
    machine.put("dev/sdc", "");
    assert_eq!(booted.clashes(&machine.sys()).unwrap()[0].why, ClashReason::Labels);

    // A disk with an ESP of its own, and one label, is harmless; so is one without partitions.
    fs::remove_dir_all(machine.path("sys/devices/pci0/block/sdc/sdc3")).unwrap();
    assert_eq!(booted.clashes(&machine.sys()).unwrap(), []);
}

#[test]
fn dsk33_devices_without_partitions_are_not_opened() {
    let machine = Machine::running_b();
    let booted = machine.booted().unwrap();
    // A whole image on a loop device whose partitions the kernel does not know.
    machine.disk("loop0", 7, Seed::Fixed(1));
    for number in 1..=4 {
        fs::remove_dir_all(machine.path(&format!("sys/devices/pci0/block/loop0/loop0{number}"))).unwrap();
    }
    assert_eq!(booted.clashes(&machine.sys()).unwrap(), []);
}

#[test]
fn ent25_where_the_esp_is_mounted() {
    let machine = Machine::running_b();
    let booted = machine.booted().unwrap();
    let root = "25 22 254:0 / / ro - erofs /dev/dm-0 ro\n";
    let mounted = |more: &str| {
        machine.mounts(&format!("{root}{more}"));
        booted.esp_mount(&machine.sys()).unwrap()
    };
    assert_eq!(mounted(""), None);
    let efi = EspMount { point: "/efi".into(), read_only: false };
    assert_eq!(mounted("30 25 253:1 / /efi rw - vfat /dev/vda1 rw\n"), Some(efi.clone()));
    // An automount point on top of which the ESP is mounted; a read-only mount beside it.
    let text = "29 25 0:33 / /efi rw - autofs systemd-1 rw\n31 25 253:1 / /boot ro - vfat /dev/vda1 rw\n30 29 253:1 / /efi rw - vfat /dev/vda1 rw\n";
    assert_eq!(mounted(text), Some(efi));
    let boot = EspMount { point: "/boot".into(), read_only: true };
    assert_eq!(mounted("31 25 253:1 / /boot ro - vfat /dev/vda1 rw\n"), Some(boot));
    // A directory of the ESP, another partition, and an ESP that is covered by another mount.
    assert_eq!(mounted("31 25 253:1 /EFI /boot rw - vfat /dev/vda1 rw\n"), None);
    assert_eq!(mounted("31 25 252:1 / /boot rw - vfat /dev/vdb1 rw\n"), None);
    assert_eq!(mounted("31 25 253:1 / /b rw - vfat /dev/vda1 rw\n32 31 0:50 / /b rw - tmpfs tmpfs rw\n"), None);
}

#[test]
fn boot_id_and_command_line() {
    let machine = Machine::running_b();
    machine.put("proc/sys/kernel/random/boot_id", "8ccfe1a1-6b1c-4c39-9d2a-0b1d6a1f5c11\n");
    machine.put("proc/cmdline", "root=/dev/mapper/root ro quiet\n");
    assert_eq!(machine.sys().boot_id().unwrap().to_string(), "8ccfe1a1-6b1c-4c39-9d2a-0b1d6a1f5c11");
    assert_eq!(machine.sys().command_line().unwrap(), "root=/dev/mapper/root ro quiet");
    machine.put("proc/sys/kernel/random/boot_id", "soup\n");
    assert!(matches!(machine.sys().boot_id(), Err(SysError::Strange { .. })));
    // This machine's own.
    assert_eq!(SysRoot::real().boot_id().unwrap(), SysRoot::real().boot_id().unwrap());
}

#[test]
fn grd10_before_any_root_the_disk_is_found_by_the_partuuid_of_the_command_line() {
    let machine = Machine::running_b();
    let layout = machine.booted().unwrap().layout;
    let guid = layout.slot(Slot::A).unique_guid;
    let named = find_named(&machine.sys(), guid).unwrap();
    assert_eq!((named.slot, named.esp_dev()), (Slot::A, machine.path("dev/vda1").as_path()));
    assert_eq!(named.layout, layout);
    let nobody = Uuid::from_u128(1);
    assert!(matches!(find_named(&machine.sys(), nobody), Err(BootedError::NotThere(guid)) if guid == nobody));
    // ENT-16: the other way round, from the EFI partition.
    let (esp, len) = find_esp(&machine.sys(), layout.esp.unique_guid).unwrap();
    assert_eq!((esp.as_path(), len), (named.esp_dev(), layout.esp.len));
    assert!(matches!(find_esp(&machine.sys(), guid), Err(BootedError::OtherEsp { loader, .. }) if loader == guid));
    assert!(matches!(find_esp(&machine.sys(), nobody), Err(BootedError::NotThere(_))));
    assert!(matches!(find_named(&machine.sys(), layout.esp.unique_guid), Err(BootedError::NotASlot { .. })));
    // Another disk, then a copy of the first.
    machine.disk("vdb", 252, Seed::Fixed(2));
    assert_eq!(find_named(&machine.sys(), guid).unwrap().layout, layout);
    machine.disk("vdc", 251, Seed::Fixed(1));
    assert!(matches!(find_named(&machine.sys(), guid), Err(BootedError::TwoDisks { .. })));
}
