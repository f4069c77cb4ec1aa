//! The part of the guest that all its versions share: a trimmed Debian tree, its kernel, an initrd, and the boot
//! loaders of two Debian releases.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, ensure};

use super::{cached, fingerprint, initrd, initrd_systemd, mirror::mirror, put, remove};
use crate::arch::Arch;
use crate::setup;

/// What the base of an architecture's guests consists of. All paths lie in the cache and must not be written to.
#[derive(Clone, Debug)]
pub struct Base {
    /// The root file system as a folder.
    pub tree: PathBuf,
    /// The kernel, a PE program.
    pub linux: PathBuf,
    /// The initrd that finds the slot, without what a release adds to it (the boot guard).
    pub initrd: PathBuf,
    /// Another one, with systemd, for which the same holds.
    pub initrd_systemd: PathBuf,
    /// A tiny initrd that prints the command line and turns the machine off.
    pub initrd_that_prints: PathBuf,
    /// systemd-boot 257 (Debian 13).
    pub loader: PathBuf,
    /// `fsck.vfat`, which needs the C library alone.
    pub fsck_vfat: PathBuf,
}

const PACKAGES: &str = "systemd-sysv,systemd,udev,dbus,kmod,util-linux,mount,dash,coreutils,grep,sed,procps,\
    base-files,libc-bin,cryptsetup-bin,systemd-cryptsetup,busybox-static,kexec-tools,systemd-boot-efi,systemd-boot,\
    dosfstools,e2fsprogs,linux-image-cloud-";

/// Everything but the programs that are needed to run. `var` is a partition of its own, `boot` the ESP's business.
const TRIM: &[&str] = &[
    "boot/*",
    "etc/*",
    "media",
    "opt",
    "srv",
    "usr/games",
    "usr/include",
    "usr/src",
    "usr/lib/initramfs-tools",
    "usr/lib/kernel",
    "usr/lib/modules",
    "usr/lib/systemd/boot",
    "usr/lib/systemd/network",
    "usr/lib/systemd/system-environment-generators",
    "usr/lib/systemd/system-generators",
    "usr/lib/systemd/system-preset",
    "usr/lib/systemd/system/*.wants",
    "usr/lib/systemd/user",
    "usr/lib/systemd/user-environment-generators",
    "usr/lib/systemd/user-generators",
    "usr/lib/systemd/systemd-cryptsetup",
    "usr/lib/systemd/systemd-integritysetup",
    "usr/lib/systemd/systemd-networkd",
    "usr/lib/systemd/systemd-networkd-wait-online",
    "usr/lib/systemd/systemd-veritysetup",
    "usr/lib/sysusers.d",
    "usr/lib/tmpfiles.d/*",
    "usr/lib/udev/hwdb.bin",
    "usr/lib/udev/hwdb.d",
    "usr/lib/udev/rules.d/*",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/lib/aarch64-linux-gnu/gconv",
    "usr/share/*",
    "usr/bin/bashbug",
    "usr/bin/systemd-analyze",
    "usr/sbin/cryptsetup",
    "usr/sbin/integritysetup",
    "usr/sbin/fatlabel",
    "usr/sbin/fsck.fat",
    "usr/sbin/mkfs.fat",
    "var/*",
];

/// Not removed, although a pattern above says so.
const KEPT: &[&str] = &["usr/share/dbus-1", "usr/lib/tmpfiles.d/tmp.conf", "usr/lib/tmpfiles.d/var.conf"];

/// What udev does about disks, partitions and dm-verity, here and in an initrd with systemd. To read and try the rules for all
/// else that a computer may have takes udevd and its workers a second under emulation.
pub(super) const UDEV_RULES: &[&str] = &[
    "50-udev-default.rules",
    "55-dm.rules",
    "60-block.rules",
    "60-persistent-storage-dm.rules",
    "60-persistent-storage.rules",
    "80-drivers.rules",
    "95-dm-notify.rules",
    "99-systemd.rules",
];

/// Modules of the running system besides the watchdog's (the initrd's are in `initrd`), with what they need.
const MODULES: &[&str] = &[
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "nls_utf8",
    "efivarfs",
    "virtio_net",
    "virtio-rng",
    "overlay",
    "loop",
    "autofs4",
];

/// What starts with the system, besides the units of a release.
const WANTS: &[(&str, &[&str])] = &[
    (
        "sysinit.target",
        &[
            "systemd-journald.service",
            "systemd-udevd.service",
            "systemd-udev-trigger.service",
            "systemd-tmpfiles-setup.service",
        ],
    ),
    (
        "sockets.target",
        &[
            "systemd-journald.socket",
            "systemd-journald-dev-log.socket",
            "systemd-udevd-control.socket",
            "systemd-udevd-kernel.socket",
            "dbus.socket",
        ],
    ),
    ("local-fs.target", &["tmp.mount"]),
];

/// Units that would do behind our back what the updater does, or are of no use without a person.
const MASKED: &[&str] = &[
    "systemd-boot-update.service",
    "systemd-boot-random-seed.service",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-update-done.service",
    "systemd-hwdb-update.service",
    "systemd-machine-id-commit.service",
    "systemd-udev-load-credentials.service",
    "sys-fs-fuse-connections.mount",
];

/// Debian's own unit that commits what boots; masked as an administrator does (HLT-61), so that a release can show what
/// happens where that was forgotten.
pub(super) const BLESS_BOOT: &str = "systemd-bless-boot.service";

/// Emergency and rescue mode are real, but nobody sits at the console: in place of the shell, they wait.
const HEADLESS: &str = "[Service]
Type=simple
ExecStart=
ExecStart=-/usr/bin/sleep infinity
StandardInput=null
StandardOutput=journal+console
StandardError=journal+console
";

/// Files of `/etc`, which is read-only in the guest.
const ETC: &[(&str, &str)] = &[
    ("hostname", "ralph\n"),
    ("hosts", "127.0.0.1 localhost ralph\n"),
    ("fstab", "# /var is mounted in the initrd\n"),
    // Empty: systemd makes one up for each boot, and does not take every boot for the first.
    ("machine-id", ""),
    ("passwd", include_str!("../../guest/passwd")),
    ("group", include_str!("../../guest/group")),
    ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
    ("systemd/system.conf", "[Manager]\nDefaultTimeoutStopSec=10s\n"),
    ("systemd/system/emergency.service.d/90-headless.conf", HEADLESS),
    ("systemd/system/rescue.service.d/90-headless.conf", HEADLESS),
    // Only what the programs under test look at: coldplugging every device takes two seconds under emulation.
    (
        "systemd/system/systemd-udev-trigger.service.d/few.conf",
        "[Service]\nExecStart=\nExecStart=-udevadm trigger --action=add --subsystem-match=block\n",
    ),
    // Its credentials cost a file system of their own, and of what it makes the guest needs what is in `/tmp` and `/var`.
    ("systemd/system/systemd-tmpfiles-setup.service.d/few.conf", "[Service]\nImportCredential=\n"),
    // Reading the kernel's messages takes a while under emulation, and nobody looks for them there.
    ("systemd/journald.conf", "[Journal]\nStorage=volatile\nReadKMsg=no\n"),
];

/// A release of systemd-stub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stub {
    /// Debian 12's.
    V252,
    /// Debian 13's.
    V257,
}

const LOADER: &str = "systemd-boot.efi";

/// Builds the base of `arch`, once: later calls and later runs find it in the cache.
///
/// # Errors
/// When a tool or the package mirror fails.
pub fn base(arch: Arch) -> Result<Base> {
    static BUILT: [OnceLock<std::result::Result<Base, String>>; 2] = [const { OnceLock::new() }; 2];
    BUILT[arch as usize].get_or_init(|| find_base(arch).map_err(|e| format!("{e:#}"))).clone().map_err(|e| anyhow!(e))
}

fn find_base(arch: Arch) -> Result<Base> {
    setup::ensure_tools()?;
    let recipes = (initrd::RECIPE, initrd_systemd::RECIPE, include_str!("base.rs"), include_str!("../arch.rs"));
    let key = fingerprint(&((PACKAGES, TRIM, KEPT, MODULES, WANTS, MASKED, ETC), recipes));
    let dir = cached(&format!("base-{arch}"), &key, |dir| build(arch, dir))?;
    Ok(Base {
        tree: dir.join("tree"),
        linux: dir.join("linux"),
        initrd: dir.join("initrd"),
        initrd_systemd: dir.join("initrd-systemd"),
        initrd_that_prints: dir.join("initrd-that-prints"),
        loader: dir.join("systemd-boot.efi"),
        fsck_vfat: dir.join("fsck.vfat"),
    })
}

/// systemd-boot 252 (Debian 12), from the cache or the mirror.
///
/// # Errors
/// When a tool or the package mirror fails.
pub fn loader_252(arch: Arch) -> Result<PathBuf> {
    Ok(loader(arch, "bookworm")?.join(LOADER))
}

/// systemd-boot 257 (Debian 13), for tests that need nothing else of the base.
///
/// # Errors
/// When a tool or the package mirror fails.
pub fn loader_257(arch: Arch) -> Result<PathBuf> {
    Ok(loader(arch, "trixie")?.join(LOADER))
}

/// systemd-stub of the same release as the loader: 252, or 257.
///
/// # Errors
/// When a tool or the package mirror fails.
pub fn stub(arch: Arch, release: Stub) -> Result<PathBuf> {
    let suite = match release {
        Stub::V252 => "bookworm",
        Stub::V257 => "trixie",
    };
    Ok(loader(arch, suite)?.join("systemd-stub.efi"))
}

/// Whoever asks has made sure of the tools: of the tests', or of the benchmark's.
fn loader(arch: Arch, suite: &str) -> Result<PathBuf> {
    let dir = cached(&format!("loader-{suite}-{arch}"), "2", |dir| {
        let tree = dir.join("tree");
        debootstrap(arch, suite, "systemd-boot-efi", &tree)?;
        copy(&tree.join(arch.systemd_boot()), &dir.join(LOADER))?;
        copy(&tree.join(arch.systemd_stub()), &dir.join("systemd-stub.efi"))?;
        remove(&tree)
    })?;
    Ok(dir)
}

fn build(arch: Arch, dir: &Path) -> Result<()> {
    eprintln!("guest: building the base of {arch} from Debian packages");
    let full = dir.join("full");
    debootstrap(arch, "trixie", &format!("{PACKAGES}{}", arch.debian()), &full)?;
    let (version, linux) = kernel(&full)?;
    copy(&linux, &dir.join("linux"))?;
    copy(&full.join(arch.systemd_boot()), &dir.join("systemd-boot.efi"))?;
    let fsck = full.join("usr/sbin/fsck.fat");
    let needs = initrd::libraries(arch, &full, vec![fsck.clone()])?;
    let c_library = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name == "libc.so.6" || name.starts_with("ld-linux")
    };
    ensure!(needs.iter().all(c_library), "fsck.vfat needs more than the C library: {needs:?}");
    copy(&fsck, &dir.join("fsck.vfat"))?;
    initrd::build(arch, &full, &version, dir)?;
    initrd_systemd::build(arch, &full, &version, dir)?;

    let modules = dir.join("modules");
    initrd::install_modules(&full, &version, &initrd::with_watchdog(arch, MODULES), &modules)?;
    trim(&full)?;
    let kept = full.join("usr/lib/modules").join(&version);
    std::fs::create_dir_all(&kept)?;
    for name in initrd::lines(&modules.join("order"))? {
        copy(&modules.join(&name), &kept.join(&name))?;
    }
    remove(&modules)?;
    setup::run(setup::command("depmod").arg("-b").arg(&full).arg(&version))?;
    furnish(&full)?;
    std::fs::rename(&full, dir.join("tree"))?;
    Ok(())
}

/// Unpacks `packages` of `suite` and what they need into `tree`. No maintainer script runs, so this works as root in a
/// plain chroot and as a user alike.
fn debootstrap(arch: Arch, suite: &str, packages: &str, tree: &Path) -> Result<()> {
    let tar = tree.with_extension("tar");
    let mut command = setup::command("mmdebstrap");
    command.args(["--quiet", "--variant=extract"]).arg(format!("--architectures={}", arch.debian()));
    // Links such as /bin stand before packages are unpacked over them, whether or not their scripts could run here.
    command.arg("--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr").arg(format!("--include={packages}"));
    if setup::is_root() {
        command.arg("--mode=root");
    }
    for option in apt_options() {
        command.arg(format!("--aptopt={option}"));
    }
    command.arg(suite).arg(&tar).arg(format!("deb {} {suite} main", mirror()));
    setup::run(&mut command).context("cannot get packages; RALPH_DEBIAN_MIRROR names another mirror")?;
    std::fs::create_dir(tree).with_context(|| format!("cannot create {}", tree.display()))?;
    setup::run(
        setup::command("tar")
            .args(["--extract", "--exclude=./dev/*", "--no-same-owner", "--file"])
            .arg(&tar)
            .arg("--directory")
            .arg(tree),
    )?;
    remove(&tar)
}

/// What the host's apt was told about proxies and clocks; its mirror may need it.
pub fn apt_options() -> Vec<String> {
    let dump = setup::run(setup::command("apt-config").args(["dump", "Acquire"]));
    String::from_utf8_lossy(&dump.unwrap_or_default())
        .lines()
        .filter(|line| !line.ends_with("\"\";"))
        .filter(|line| {
            line.starts_with("Acquire::Check-") || (line.starts_with("Acquire::http") && line.contains("Proxy"))
        })
        .map(|line| line.trim_end_matches(';').to_owned())
        .collect()
}

/// The version and path of the one kernel in `tree`.
fn kernel(tree: &Path) -> Result<(String, PathBuf)> {
    for entry in std::fs::read_dir(tree.join("boot"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if let Some(version) = name.strip_prefix("vmlinuz-") {
            return Ok((version.to_owned(), path.clone()));
        }
    }
    Err(anyhow!("no kernel in {}", tree.display()))
}

fn trim(tree: &Path) -> Result<()> {
    for pattern in TRIM {
        match pattern.split_once('*') {
            None => remove(&tree.join(pattern))?,
            Some((dir, suffix)) => {
                for entry in std::fs::read_dir(tree.join(dir))?.flatten() {
                    let name = entry.file_name();
                    let name = name.to_string_lossy();
                    let rule = dir.ends_with("/rules.d/") && UDEV_RULES.contains(&name.as_ref());
                    if name.ends_with(suffix) && !rule && !KEPT.contains(&format!("{dir}{name}").as_str()) {
                        remove(&entry.path())?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Puts in what maintainer scripts and an administrator would have.
fn furnish(tree: &Path) -> Result<()> {
    for (name, content) in ETC {
        put(&tree.join("etc").join(name), content)?;
    }
    link("../usr/lib/os-release", &tree.join("etc/os-release"))?;
    link("../proc/self/mounts", &tree.join("etc/mtab"))?;
    let units = tree.join("usr/lib/systemd/system");
    for (target, wanted) in WANTS {
        for unit in *wanted {
            pull_in(&units, target, "wants", unit)?;
        }
    }
    for unit in MASKED {
        link("/dev/null", &units.join(unit))?;
    }
    link("/dev/null", &tree.join("etc/systemd/system").join(BLESS_BOOT))?;
    link("multi-user.target", &units.join("default.target"))?;
    for dir in ["dev", "proc", "sys", "run", "tmp", "var", "boot", "root", "srv"] {
        std::fs::create_dir_all(tree.join(dir))?;
    }
    Ok(())
}

/// Makes `target` pull in `unit`: `how` is `wants` or `requires`.
pub(super) fn pull_in(units: &Path, target: &str, how: &str, unit: &str) -> Result<()> {
    link(&format!("../{unit}"), &units.join(format!("{target}.{how}")).join(unit))
}

/// Makes a symbolic link in place of whatever is there.
pub(super) fn link(to: &str, at: &Path) -> Result<()> {
    if let Some(parent) = at.parent() {
        std::fs::create_dir_all(parent)?;
    }
    remove(at)?;
    symlink(to, at).with_context(|| format!("cannot link {}", at.display()))
}

pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}
