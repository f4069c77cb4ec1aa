//! An initrd with systemd, as dracut or mkosi make one: systemd's own generators open the root under dm-verity and
//! mount it, udev finds the disks, and PID 1 switches the root. Beside it, uncompressed, what a release adds: the boot
//! guard, with the units that its folder ships for such an initrd.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::base::{UDEV_RULES, copy, link};
use super::cpio::Entry;
use super::initrd::{MODULES, install_modules, libraries, pack, with_watchdog};
use super::{put, remove};
use crate::arch::Arch;
use crate::{setup, workspace};

/// Its name, as its systemd says it at the start.
const OS_RELEASE: &str = "ID=ralphos\nNAME=RalphOS\nPRETTY_NAME=\"the lab with systemd\"\n";

const PROGRAMS: &[&str] = &[
    "usr/lib/systemd/systemd",
    "usr/lib/systemd/systemd-executor",
    "usr/lib/systemd/systemd-fsck",
    "usr/lib/systemd/systemd-journald",
    "usr/lib/systemd/systemd-modules-load",
    "usr/lib/systemd/systemd-shutdown",
    "usr/lib/systemd/systemd-veritysetup",
    "usr/lib/systemd/system-generators/systemd-fstab-generator",
    "usr/lib/systemd/system-generators/systemd-veritysetup-generator",
    "usr/bin/kmod",
    "usr/bin/mount",
    "usr/bin/systemctl",
    "usr/bin/udevadm",
    "usr/bin/umount",
    "usr/sbin/dmsetup",
];

/// Libraries that systemd opens when it needs them.
const OPENED_LATER: &[&str] = &["libcryptsetup.so.12", "libkmod.so.2"];

const LINKS: &[(&str, &str)] = &[
    ("usr/lib/systemd/systemd", "init"),
    ("usr/bin", "bin"),
    ("usr/sbin", "sbin"),
    ("usr/lib", "lib"),
    ("usr/lib64", "lib64"),
    ("../../bin/udevadm", "usr/lib/systemd/systemd-udevd"),
    ("system-generators/systemd-fstab-generator", "usr/lib/systemd/systemd-sysroot-fstab-check"),
    ("../bin/kmod", "usr/sbin/modprobe"),
];

const UNITS: &[&str] = &[
    "basic.target",
    "emergency.service",
    "emergency.target",
    "final.target",
    "initrd-cleanup.service",
    "initrd-fs.target",
    "initrd-parse-etc.service",
    "initrd-root-device.target",
    "initrd-root-fs.target",
    "initrd-switch-root.service",
    "initrd-switch-root.target",
    "initrd-udevadm-cleanup-db.service",
    "initrd-usr-fs.target",
    "initrd.target",
    "local-fs-pre.target",
    "local-fs.target",
    "modprobe@.service",
    "paths.target",
    "reboot.target",
    "rescue.service",
    "rescue.target",
    "shutdown.target",
    "slices.target",
    "sockets.target",
    "swap.target",
    "sysinit.target",
    "systemd-journald-dev-log.socket",
    "systemd-journald.service",
    "systemd-journald.socket",
    "systemd-modules-load.service",
    "systemd-reboot.service",
    "systemd-udev-trigger.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udevd.service",
    "timers.target",
    "umount.target",
    "veritysetup-pre.target",
    "veritysetup.target",
];

/// The guest's `/etc/fstab` is empty: as with the other initrd, the system finds `/var` mounted.
const VAR: &str = "[Unit]\nDefaultDependencies=no\nBefore=initrd-fs.target\n\
    [Mount]\nWhat=/dev/disk/by-partlabel/VAR\nWhere=/sysroot/var\nType=ext4\nOptions=nodev,nosuid\n";

/// As in the system: only what a root needs, to save two seconds of emulation.
const FEW: &str = "[Service]\nExecStart=\nExecStart=-udevadm trigger --type=all --action=add --subsystem-match=block\n";

/// What decides it, for the cache's key.
pub(super) const RECIPE: &str = include_str!("initrd_systemd.rs");

/// Builds `initrd-systemd` in `dir` from the untrimmed `tree`.
pub(super) fn build(arch: Arch, tree: &Path, version: &str, dir: &Path) -> Result<()> {
    let root = dir.join("initrd-systemd-root");
    std::fs::create_dir(&root).with_context(|| format!("cannot create {}", root.display()))?;
    let take = |path: &str| -> Result<()> {
        let to = root.join(path);
        std::fs::create_dir_all(to.parent().unwrap_or(&root))?;
        copy(&tree.join(path), &to)
    };
    for path in PROGRAMS {
        take(path)?;
    }
    let mut open: Vec<PathBuf> = PROGRAMS.iter().map(|path| tree.join(path)).collect();
    for name in OPENED_LATER {
        let path = format!("usr/lib/{}/{name}", arch.multiarch());
        take(&path)?;
        open.push(tree.join(path));
    }
    for library in libraries(arch, tree, open)? {
        take(&library.strip_prefix(tree)?.to_string_lossy())?;
    }
    for (to, at) in LINKS {
        link(to, &root.join(at))?;
    }
    let linker = Path::new(arch.dynamic_linker());
    let name = linker.file_name().unwrap_or_default().to_string_lossy();
    link(&format!("/usr/lib/{}/{name}", arch.multiarch()), &root.join("usr").join(linker))?;
    for name in UDEV_RULES {
        take(&format!("usr/lib/udev/rules.d/{name}"))?;
    }
    for name in UNITS {
        take(&format!("usr/lib/systemd/system/{name}"))?;
    }
    let units = root.join("usr/lib/systemd/system");
    pull_in_as_shipped(&tree.join("usr/lib/systemd/system"), &units)?;
    put(&units.join("systemd-udev-trigger.service.d/few.conf"), FEW)?;
    put(&units.join("sysroot-var.mount"), VAR)?;
    super::base::pull_in(&units, "initrd-fs.target", "wants", "sysroot-var.mount")?;

    let modules = root.join("usr/lib/modules");
    std::fs::create_dir(&modules)?;
    let wanted = with_watchdog(arch, MODULES);
    install_modules(tree, version, &wanted, &modules.join(version))?;
    setup::run(setup::command("depmod").arg("-b").arg(&root).arg(version))?;
    put(&root.join("usr/lib/modules-load.d/root.conf"), wanted.join("\n") + "\n")?;

    for (name, content) in [
        ("initrd-release", OS_RELEASE),
        ("os-release", OS_RELEASE),
        ("passwd", include_str!("../../guest/passwd")),
        ("group", include_str!("../../guest/group")),
    ] {
        put(&root.join("etc").join(name), content)?;
    }
    for folder in ["dev", "proc", "run", "sys", "sysroot", "tmp", "var"] {
        std::fs::create_dir(root.join(folder))?;
    }
    let mut entries = Vec::new();
    walk(&root, &root, &mut entries)?;
    pack(&entries, &dir.join("initrd-systemd"))?;
    remove(&root)
}

/// Links between units that are here, as the packages ship them.
fn pull_in_as_shipped(from: &Path, units: &Path) -> Result<()> {
    for folder in std::fs::read_dir(from)?.flatten().filter(|f| f.path().extension().is_some_and(|e| e == "wants")) {
        for wanted in std::fs::read_dir(folder.path())?.flatten() {
            let unit = wanted.file_name().to_string_lossy().into_owned();
            if UNITS.contains(&unit.as_str()) {
                link(&format!("../{unit}"), &units.join(folder.file_name()).join(unit))?;
            }
        }
    }
    Ok(())
}

/// All below `dir`, with paths from `root`.
fn walk(root: &Path, dir: &Path, entries: &mut Vec<(String, Entry)>) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir)?.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let name = path.strip_prefix(root)?.to_string_lossy().into_owned();
        let meta = path.symlink_metadata()?;
        if meta.is_dir() {
            entries.push((name, Entry::Dir));
            walk(root, &path, entries)?;
        } else if meta.is_symlink() {
            entries.push((name, Entry::Link(std::fs::read_link(&path)?.to_string_lossy().into_owned())));
        } else if meta.permissions().mode() & 0o111 != 0 {
            entries.push((name, Entry::File(std::fs::read(&path)?)));
        } else {
            entries.push((name, Entry::Data(std::fs::read(&path)?)));
        }
    }
    Ok(())
}

/// What a release adds: the boot guard and its units, as its README says.
pub(super) fn guard(program: &Path) -> Result<Vec<(String, Entry)>> {
    const UNIT: &str = "ralph-boot-guard.service";
    let folders = ["usr", "usr/bin", "usr/lib", "usr/lib/systemd", "usr/lib/systemd/system"];
    let mut entries: Vec<(String, Entry)> = folders.iter().map(|folder| ((*folder).into(), Entry::Dir)).collect();
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    entries.push(("usr/bin/ralph-boot-guard".into(), Entry::File(read(program)?)));
    let shipped = workspace::source_dir().join("boot-guard/units");
    let units = "usr/lib/systemd/system";
    entries.push((format!("{units}/{UNIT}"), Entry::Data(read(&shipped.join(UNIT))?)));
    entries.push((format!("{units}/initrd.target.wants"), Entry::Dir));
    entries.push((format!("{units}/initrd.target.wants/{UNIT}"), Entry::Link(format!("../{UNIT}"))));
    for folder in ["emergency.service.d", "rescue.service.d"] {
        let file = format!("{folder}/50-ralph-boot-guard.conf");
        entries.push((format!("{units}/{folder}"), Entry::Dir));
        entries.push((format!("{units}/{file}"), Entry::Data(read(&shipped.join(file))?)));
    }
    Ok(entries)
}
