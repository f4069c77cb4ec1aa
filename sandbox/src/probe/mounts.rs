//! Where the files that the probe sees come from: each mount as SBX-2 wants it, and a base that nobody can write to.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::makedev;

use super::{Found, read};
use crate::question::Question;
use crate::stage::{DEVICES, LINKS};
use crate::status::{Mount, parse_mountinfo};

/// Files that a base has; those that are there must not open for writing.
pub(crate) const BASE_FILES: [&str; 5] =
    ["/usr/lib/os-release", "/usr/bin/env", "/usr/bin/sh", "/usr/bin/true", "/usr/bin/ralph-sandbox"];

/// Mount points that every sandbox has, with the types of their file systems (SBX-2).
const MOUNTS: [(&str, &str); 5] =
    [("/", "tmpfs"), ("/usr", "overlay"), ("/proc", "proc"), ("/dev", "tmpfs"), ("/tmp", "tmpfs")];

const CGROUP: &str = "/sys/fs/cgroup";

const KVM: &str = "/dev/kvm";

/// The numbers of the device nodes (the kernel's `devices.txt`).
const NUMBERS: [(&str, u64, u64); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    (KVM, 10, 232),
];

pub(super) fn mounts(question: &Question) -> Found {
    let mounts = parse_mountinfo(&read("/proc/self/mountinfo")?);
    check_mounts(&mounts, &read("/proc/self/cgroup")?, question)?;
    let allowed = |name: &str| devices(question).any(|path| Path::new(path) == Path::new("/dev").join(name));
    check_names("/dev", allowed, |name, kind| {
        let path = format!("/dev/{name}");
        let node = fs::metadata(&path).map_err(|e| format!("cannot look at {path}: {e}"))?;
        let is_it = |(at, major, minor): &(&str, u64, u64)| *at == path && node.rdev() == makedev(*major, *minor);
        let is_node = kind.is_char_device() || kind.is_file();
        let is_it = is_node && node.file_type().is_char_device() && NUMBERS.iter().any(is_it);
        if is_it { Ok(()) } else { Err(format!("{path} is not the device of that name")) }
    })?;
    check_names("/", |name| in_root(name, question), |_, _| Ok(()))?;
    Ok(format!("{} mounts, all as expected, and nothing else in / and /dev", mounts.len()))
}

fn devices(question: &Question) -> impl Iterator<Item = &'static str> {
    DEVICES.into_iter().chain(question.kvm.then_some(KVM))
}

/// Every mount is one of SBX-2 or a declared one, is there once, and is what it should be.
fn check_mounts(mounts: &[Mount], cgroup: &str, question: &Question) -> Result<(), String> {
    for (point, _) in MOUNTS {
        let count = mounts.iter().filter(|mount| mount.point == Path::new(point)).count();
        if count != 1 {
            return Err(format!("{point} is mounted {count} times, expected once"));
        }
    }
    mounts.iter().try_for_each(|mount| {
        check_mount(mount, cgroup, question).map_err(|why| {
            let (point, root, kind) = (mount.point.display(), mount.root.display(), &mount.kind);
            format!("{point} ({kind}, its {root}, {}): {why}", mount.options.join(","))
        })
    })
}

fn check_mount(mount: &Mount, cgroup: &str, question: &Question) -> Result<(), String> {
    let at = |path: &str| mount.point == Path::new(path);
    let demand = |holds: bool, what: &str| if holds { Ok(()) } else { Err(format!("expected {what}")) };
    demand(mount.has("nosuid"), "nosuid")?;
    if devices(question).any(at) {
        return demand(matches!(mount.kind.as_str(), "devtmpfs" | "tmpfs"), "a device node");
    }
    demand(mount.has("nodev"), "nodev")?;
    if let Some((_, kind)) = MOUNTS.iter().find(|(point, _)| at(point)) {
        demand(mount.kind == *kind, &format!("a file system of type {kind}"))?;
        return demand(mount.root == Path::new("/"), "a whole file system, not a part of one");
    }
    if at(CGROUP) {
        let own = cgroup.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
        demand(mount.kind == "cgroup2", "a file system of type cgroup2")?;
        demand(mount.has("ro"), "a read-only mount")?;
        return demand(mount.root == Path::new(own), &format!("the sandbox's own cgroup, {own}"));
    }
    demand(question.mounts.iter().any(|declared| at(declared)), "no mount here")?;
    demand(mount.is_read_only(), "a read-only mount")
}

fn in_root(name: &str, question: &Question) -> bool {
    let declared = question.mounts.iter().any(|path| Path::new(path).iter().nth(1).is_some_and(|first| first == name));
    // A link leads into `usr`, or into nothing; a folder would be the host's.
    let is_link = LINKS.contains(&name)
        && fs::read_link(Path::new("/").join(name))
            .is_ok_and(|target| target.strip_prefix("/").unwrap_or(&target).starts_with("usr"));
    declared || is_link || ["usr", "proc", "dev", "tmp", "sys"].contains(&name)
}

/// Lists a folder: only `allowed` names are there, and `check` has nothing against them.
fn check_names(
    folder: &str,
    allowed: impl Fn(&str) -> bool,
    check: impl Fn(&str, fs::FileType) -> Result<(), String>,
) -> Result<(), String> {
    let cannot = |e: std::io::Error| format!("cannot list {folder}: {e}");
    for entry in fs::read_dir(folder).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !allowed(&name) {
            return Err(format!("there is {name} in {folder}, expected only what a sandbox has"));
        }
        check(&name, entry.file_type().map_err(cannot)?)?;
    }
    Ok(())
}

/// How the kernel may say that a file of the base cannot be written to.
const REFUSALS: [Errno; 3] = [Errno::EROFS, Errno::EACCES, Errno::ETXTBSY];

pub(super) fn base_read_only() -> Found {
    let mounts = parse_mountinfo(&read("/proc/self/mountinfo")?);
    let mut tried = 0;
    for file in BASE_FILES.iter().filter(|file| Path::new(file).is_file()) {
        tried += 1;
        let path = fs::canonicalize(file).map_err(|e| format!("cannot find {file}: {e}"))?;
        kept_from_writing(&mounts, &path).map_err(|why| format!("{file}: {why}"))?;
        match OpenOptions::new().write(true).open(file) {
            Ok(_) => return Err(format!("{file} opens for writing, expected an error")),
            // The kernel looks at the file's mode and at its being run before it looks at the flags of the mount.
            Err(e) if REFUSALS.iter().any(|errno| e.raw_os_error() == Some(*errno as i32)) => {}
            Err(e) => return Err(format!("{file} does not open for writing: {e}, expected it to be read-only")),
        }
    }
    if tried == 0 { Err(format!("none of {BASE_FILES:?} is there")) } else { Ok(format!("{tried} files tried")) }
}

/// Whether the mount keeps a file of the base from being written to, whatever the file's mode: a read-only one, or an
/// overlay, which never writes to its lower layer.
fn kept_from_writing(mounts: &[Mount], path: &Path) -> Result<(), String> {
    // The innermost; of those at one point, the one that was mounted last.
    let over = mounts.iter().filter(|mount| path.starts_with(&mount.point));
    let mount = over.max_by_key(|mount| mount.point.iter().count()).ok_or("it is on no mount")?;
    let layered = mount.kind == "overlay" && mount.super_options.iter().any(|option| option.starts_with("lowerdir"));
    if mount.is_read_only() || layered {
        return Ok(());
    }
    let (point, kind) = (mount.point.display(), &mount.kind);
    Err(format!("{point} is a writable {kind}, expected an overlay or a read-only mount"))
}

#[cfg(test)]
mod tests;
