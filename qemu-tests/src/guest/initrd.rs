//! The initrd: busybox, veritysetup and blkid with their libraries, a few modules and the script `guest/init`, which all
//! releases share; and before it, uncompressed, what a release adds: the boot guard, and how this initrd fails.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use super::base::copy;
use super::cpio::{self, Entry};
use super::put;
use crate::arch::Arch;
use crate::setup;

const INIT: &str = include_str!("../../guest/init");

/// Prints what an entry carries and turns the machine off: all that a test of the boot loader needs.
const INIT_THAT_PRINTS: &str = "#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
echo \"cmdline: $(cat /proc/cmdline)\"
sync
poweroff -f
";

/// What decides the initrd, for the cache's key.
pub(super) const RECIPE: &[&str] = &[INIT, INIT_THAT_PRINTS, include_str!("initrd.rs"), include_str!("cpio.rs")];

/// Needed to reach the root (the rest of what a slot and VAR need is built into the kernel), to mark an entry bad on the
/// ESP. Besides, the watchdog's, to have one as soon as systemd asks for it.
pub(super) const MODULES: &[&str] =
    &["virtio_blk", "dm-verity", "erofs", "vfat", "nls_cp437", "nls_ascii", "nls_utf8", "efivarfs"];

/// Applets that the scripts use.
const APPLETS: &[&str] =
    &["basename", "cat", "dirname", "insmod", "mount", "poweroff", "readlink", "sh", "sleep", "switch_root", "sync"];

/// Builds `initrd` (the shared part) and `initrd-that-prints` in `dir` from the programs and modules in `tree`.
pub(super) fn build(arch: Arch, tree: &Path, version: &str, dir: &Path) -> Result<()> {
    let mut entries = shell(tree)?;
    let printing = entries.len();
    entries.push(("init".into(), Entry::File(INIT_THAT_PRINTS.into())));
    pack(&entries, &dir.join("initrd-that-prints"))?;
    entries.truncate(printing);

    entries.push(("init".into(), Entry::File(INIT.into())));
    let modules = dir.join("initrd-modules");
    install_modules(tree, version, &with_watchdog(arch, MODULES), &modules)?;
    entries.push(("modules".into(), Entry::Dir));
    let order = lines(&modules.join("order"))?;
    for name in order.iter().map(String::as_str).chain(["order"]) {
        let content = std::fs::read(modules.join(name))?;
        entries.push((format!("modules/{name}"), Entry::File(content)));
    }
    super::remove(&modules)?;

    let folder = format!("usr/lib/{}", arch.multiarch());
    for folder in ["usr", "usr/lib", "usr/lib64", &folder] {
        entries.push((folder.into(), Entry::Dir));
    }
    for folder in ["lib", "lib64"] {
        entries.push((folder.into(), Entry::Link(format!("usr/{folder}"))));
    }
    let programs = ["blkid", "veritysetup"].map(|name| (name, tree.join("usr/sbin").join(name)));
    for library in libraries(arch, tree, programs.iter().map(|(_, path)| path.clone()).collect())? {
        let name = library.file_name().unwrap_or_default().to_string_lossy();
        let place = if name.starts_with("ld-linux") {
            format!("usr/{}", arch.dynamic_linker())
        } else {
            format!("{folder}/{name}")
        };
        entries.push((place, Entry::File(std::fs::read(&library)?)));
    }
    for (name, path) in programs {
        entries.push((format!("bin/{name}"), Entry::File(std::fs::read(&path)?)));
    }
    pack(&entries, &dir.join("initrd"))
}

/// What a release adds: the boot `guard`, and an empty file in `/flavour` for how it fails.
pub(super) fn guard(guard: &Path, flavour: Option<&str>) -> Result<Vec<(String, Entry)>> {
    let content = std::fs::read(guard).with_context(|| format!("cannot read {}", guard.display()))?;
    let mut entries = vec![("bin".into(), Entry::Dir), ("flavour".into(), Entry::Dir)];
    entries.push(("bin/ralph-boot-guard".into(), Entry::File(content)));
    entries.extend(flavour.map(|flavour| (format!("flavour/{flavour}"), Entry::File(Vec::new()))));
    Ok(entries)
}

/// Writes a release's initrd to `path`: what it adds, and the `shared` part. The kernel takes archives one after the
/// other, an uncompressed one first.
pub(super) fn assemble(shared: &Path, added: &[(String, Entry)], path: &Path) -> Result<()> {
    let mut archive = Vec::new();
    cpio::write(&mut archive, added)?;
    archive.extend(std::fs::read(shared).with_context(|| format!("cannot read {}", shared.display()))?);
    put(path, archive)
}

/// Folders, a console and busybox.
fn shell(tree: &Path) -> Result<Vec<(String, Entry)>> {
    let mut entries = Vec::new();
    for folder in ["bin", "dev", "proc", "root", "run", "sys"] {
        entries.push((folder.into(), Entry::Dir));
    }
    entries.push(("dev/console".into(), Entry::CharDevice(5, 1)));
    let busybox = tree.join("usr/bin/busybox");
    let content = std::fs::read(&busybox).with_context(|| format!("cannot read {}", busybox.display()))?;
    entries.push(("bin/busybox".into(), Entry::File(content)));
    for applet in APPLETS {
        entries.push((format!("bin/{applet}"), Entry::Link("busybox".into())));
    }
    Ok(entries)
}

pub(super) fn pack(entries: &[(String, Entry)], path: &Path) -> Result<()> {
    let plain = path.with_extension("cpio");
    let mut archive = Vec::new();
    cpio::write(&mut archive, entries)?;
    put(&plain, archive)?;
    setup::run(setup::command("zstd").args(["--quiet", "--force", "-10", "--rm", "-o"]).arg(path).arg(&plain))?;
    Ok(())
}

/// These modules and the watchdog's.
pub(super) fn with_watchdog(arch: Arch, modules: &[&'static str]) -> Vec<&'static str> {
    modules.iter().copied().chain([arch.watchdog_module()]).collect()
}

/// Copies `wanted` modules of `tree` and what they need, uncompressed, into `dir`, and writes their file names, in
/// the order in which they can be loaded, to `dir/order`.
pub(super) fn install_modules(tree: &Path, version: &str, wanted: &[&str], dir: &Path) -> Result<()> {
    std::fs::create_dir(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    setup::run(setup::command("depmod").arg("-b").arg(tree).arg(version))?;
    let folder = tree.join("usr/lib/modules").join(version);
    // `kernel/fs/fat/vfat.ko.xz: kernel/fs/fat/fat.ko.xz`: needed modules are listed nearest first.
    let dep = lines(&folder.join("modules.dep"))?;
    let mut order: Vec<String> = Vec::new();
    for name in wanted {
        let line = dep
            .iter()
            .find(|line| {
                let path = line.split(':').next().unwrap_or_default();
                path.rsplit('/').next().and_then(|f| f.split('.').next()) == Some(name)
            })
            .with_context(|| format!("this kernel has no module {name}"))?;
        let (path, needs) = line.split_once(':').context("modules.dep")?;
        for path in needs.split_whitespace().rev().chain([path]) {
            let file = path.rsplit('/').next().unwrap_or(path);
            let plain = file.trim_end_matches(".xz").to_owned();
            if order.contains(&plain) {
                continue;
            }
            let mut command = setup::command("xz");
            if file.ends_with(".xz") {
                let content = setup::run(command.args(["-dc"]).arg(folder.join(path)))?;
                put(&dir.join(&plain), content)?;
            } else {
                copy(&folder.join(path), &dir.join(&plain))?;
            }
            order.push(plain);
        }
    }
    put(&dir.join("order"), order.join("\n") + "\n")
}

/// The shared libraries that the programs `open` need, as files of `tree`.
pub(super) fn libraries(arch: Arch, tree: &Path, mut open: Vec<PathBuf>) -> Result<BTreeSet<PathBuf>> {
    let folder = tree.join("usr/lib").join(arch.multiarch());
    let folders = [folder.clone(), folder.join("systemd")];
    let mut found = BTreeSet::new();
    while let Some(file) = open.pop() {
        let text = setup::run(setup::command("readelf").arg("-d").arg(&file))?;
        for line in String::from_utf8_lossy(&text).lines() {
            let Some((_, name)) = line.split_once("(NEEDED)") else {
                continue;
            };
            let name = name.split(['[', ']']).nth(1).ok_or_else(|| anyhow!("readelf: {line}"))?;
            let Some(path) = folders.iter().map(|f| f.join(name)).find(|p| p.exists()) else {
                bail!("{} needs {name}, which is not there", file.display());
            };
            if found.insert(path.clone()) {
                open.push(path);
            }
        }
    }
    Ok(found)
}

pub(super) fn lines(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.lines().map(str::to_owned).collect())
}
