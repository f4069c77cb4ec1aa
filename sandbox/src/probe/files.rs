//! What the probe sees of files.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::path::Path;

use super::{Found, read};
use crate::question::Question;
use crate::stage::DEVICES;
use crate::status::parse_mountinfo;

/// Files that a base has; those that are there must not open for writing.
pub(crate) const BASE_FILES: [&str; 5] =
    ["/usr/lib/os-release", "/usr/bin/env", "/usr/bin/sh", "/usr/bin/true", "/usr/bin/ralph-sandbox"];

/// Mount points that every sandbox may have (SBX-2).
const MOUNTS: [&str; 6] = ["/", "/usr", "/proc", "/dev", "/tmp", "/sys/fs/cgroup"];

pub(super) fn mounts(question: &Question) -> Found {
    let mut allowed: BTreeSet<&Path> = MOUNTS.iter().chain(&DEVICES).map(Path::new).collect();
    allowed.extend(question.mounts.iter().map(Path::new));
    if question.kvm {
        allowed.insert(Path::new("/dev/kvm"));
    }
    let mounts = parse_mountinfo(&read("/proc/self/mountinfo")?);
    let more: Vec<_> = mounts.iter().filter(|mount| !allowed.contains(mount.point.as_path())).collect();
    match more.first() {
        None if mounts.is_empty() => Err("no mounts at all, expected those of a sandbox".to_owned()),
        None => Ok(format!("{} mounts, all expected", mounts.len())),
        Some(first) => Err(format!("{} mounts more than expected, among them {}", more.len(), first.point.display())),
    }
}

pub(super) fn base_read_only() -> Found {
    let mut tried = 0;
    for file in BASE_FILES.iter().filter(|file| Path::new(file).is_file()) {
        tried += 1;
        if OpenOptions::new().write(true).open(file).is_ok() {
            return Err(format!("{file} opens for writing, expected an error"));
        }
    }
    if tried == 0 { Err(format!("none of {BASE_FILES:?} is there")) } else { Ok(format!("{tried} files tried")) }
}

pub(super) fn marker_written(question: &Question) -> Found {
    let path = question.marker_on_host();
    let explain = |what: &str, e: std::io::Error| format!("cannot {what} {}: {e}", path.display());
    fs::write(&path, &question.marker).map_err(|e| explain("write", e))?;
    let content = fs::read_to_string(&path).map_err(|e| explain("read back", e))?;
    if content == question.marker {
        Ok(format!("{} written and read back", path.display()))
    } else {
        Err(format!("{} holds {content:?}, expected {:?}", path.display(), question.marker))
    }
}

pub(super) fn marker_absent(question: &Question) -> Found {
    let path = question.marker_on_host();
    match fs::symlink_metadata(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(format!("{} is not there", path.display())),
        Err(e) => Err(format!("cannot look for {}: {e}", path.display())),
        Ok(_) => Err(format!("{} is there, expected nothing to be left of another sandbox", path.display())),
    }
}
