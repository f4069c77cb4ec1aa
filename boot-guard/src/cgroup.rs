//! Out of the control group of the initrd's service (`GRD-20`): systemd stops that service once it has switched the root,
//! and a process in its group would end with it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Moves this process into the root of the hierarchy that systemd uses. Afterwards it belongs to no unit.
///
/// # Errors
/// When it is in the group of a unit and stays there.
pub fn leave() -> io::Result<()> {
    if !in_a_group(&fs::read_to_string("/proc/self/cgroup")?) {
        return Ok(());
    }
    let mut result = Err(io::Error::other("no control groups are mounted"));
    for root in roots(&fs::read_to_string("/proc/self/mountinfo")?) {
        // 0 is whoever writes it.
        result = fs::write(root.join("cgroup.procs"), "0\n");
    }
    result?;
    if in_a_group(&fs::read_to_string("/proc/self/cgroup")?) {
        return Err(io::Error::other("the kernel left it where it was"));
    }
    Ok(())
}

/// Whether `/proc/self/cgroup` tells of another group than the root, where systemd looks for a unit's processes: in the
/// unified hierarchy, or in the one that it has of its own beside old ones.
fn in_a_group(text: &str) -> bool {
    text.lines().any(|line| {
        let mut fields = line.splitn(3, ':');
        let controllers = fields.nth(1).unwrap_or_default();
        let group = fields.next().unwrap_or("/");
        matches!(controllers, "" | "name=systemd") && group != "/"
    })
}

/// Where `/proc/self/mountinfo` says that these hierarchies are mounted, whole.
fn roots(text: &str) -> Vec<PathBuf> {
    let root = |line: &str| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (whole, point) = (mount.next()? == "/", mount.next()?);
        let mut kind = kind.split(' ');
        let ours = match kind.next()? {
            "cgroup2" => true,
            "cgroup" => kind.nth(1)?.split(',').any(|option| option == "name=systemd"),
            _ => false,
        };
        // Other characters than these are escaped, and nobody mounts control groups there.
        (whole && ours && !point.contains('\\')).then(|| Path::new(point).to_owned())
    };
    text.lines().filter_map(root).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grd20_the_group_of_a_unit_is_told_from_the_root() {
        for (text, group) in [
            ("0::/\n", false),
            ("", false),
            ("0::/system.slice/ralph-boot-guard.service\n", true),
            ("12:cpu,cpuacct:/x\n1:name=systemd:/\n0::/\n", false),
            ("12:cpu,cpuacct:/\n1:name=systemd:/system.slice/x.service\n0::/\n", true),
        ] {
            assert_eq!(in_a_group(text), group, "{text:?}");
        }
    }

    #[test]
    fn grd20_the_roots_of_the_hierarchies_that_systemd_uses() {
        let text = "24 1 0:21 / /sys rw,nosuid - sysfs sysfs rw\n\
                    30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n\
                    31 24 0:26 /system.slice /mnt/part rw - cgroup2 cgroup2 rw\n\
                    32 24 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
                    33 24 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        assert_eq!(roots(text), [Path::new("/sys/fs/cgroup"), Path::new("/sys/fs/cgroup/systemd")]);
        assert!(roots("garbage\n- cgroup2\n").is_empty());
    }
}
