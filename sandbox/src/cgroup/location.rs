//! Which cgroup this process is in, and whether all who are in it belong together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{Error, Explain};
use crate::status::{Mount, parse_mountinfo, status_field};

/// The sub-group that the caller's processes move to, because a cgroup with limited children may hold none itself.
pub(super) const CALLER: &str = "caller";

/// The folder of the cgroup (version 2) that this process is in.
pub(crate) fn own_cgroup() -> Result<PathBuf, Error> {
    let read = |path: &str| std::fs::read_to_string(path).at("read", path);
    folder(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?).map_err(Error::NoCgroup)
}

/// Puts `/proc/self/cgroup` and `/proc/self/mountinfo` together.
fn folder(own: &str, mountinfo: &str) -> Result<PathBuf, String> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::")).ok_or("/proc/self/cgroup has no line `0::`")?;
    if path.starts_with("/..") {
        return Err(format!("{path} lies outside of this cgroup namespace"));
    }
    let mounts = parse_mountinfo(mountinfo);
    let below = |mount: &Mount| Path::new(path).strip_prefix(&mount.root).ok().map(|rest| mount.point.join(rest));
    let found = mounts.iter().filter(|mount| mount.kind == "cgroup2").find_map(below);
    found.ok_or_else(|| format!("no mount of cgroup2 shows {path}"))
}

/// Says whether systemd has left this cgroup to who is in it (`Delegate=yes`): it marks it with an extended attribute,
/// `trusted.delegate` up to version 252, `user.delegate` too since.
pub(super) fn check_delegated(dir: &Path) -> Result<(), String> {
    let mut value = [0; 8];
    let mut is_marked = |name: &str| rustix::fs::getxattr(dir, name, &mut value).is_ok_and(|n| value[..n] == *b"1");
    if is_marked("user.delegate") || is_marked("trusted.delegate") {
        return Ok(());
    }
    Err(format!(
        "systemd has not delegated it (no attribute user.delegate or trusted.delegate = 1 on {})",
        dir.display()
    ))
}

/// systemd makes `session-N.scope` for people; their shells must not be moved about.
pub(super) fn is_login_session(dir: &Path) -> bool {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("session-") && name.ends_with(".scope")
}

/// Says whether all `members` descend from one of them that is this process or an ancestor of it.
pub(super) fn check_one_tree(members: &[i32]) -> Result<(), String> {
    if members.contains(&0) {
        return Err("it holds a process of another pid namespace".to_owned());
    }
    let parents = members.iter().filter_map(|pid| Some((*pid, parent(*pid)?))).collect();
    one_tree(i32::try_from(std::process::id()).unwrap_or_default(), &parents)
}

/// `parents` maps the members of the cgroup to their parents, inside of it or not.
fn one_tree(own: i32, parents: &BTreeMap<i32, i32>) -> Result<(), String> {
    let top = |pid: i32| {
        let mut at = pid;
        // Bounded, should a table that was read while it changed have a loop.
        for _ in 0..parents.len() {
            match parents.get(&at) {
                Some(parent) if parents.contains_key(parent) => at = *parent,
                _ => break,
            }
        }
        at
    };
    match parents.keys().find(|pid| top(**pid) != top(own)) {
        None => Ok(()),
        Some(pid) => Err(format!("it holds a process of others, pid {pid}")),
    }
}

/// `None` for a process that has ended, or lives in another pid namespace.
fn parent(pid: i32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status_field(&status, "PPid")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFIED: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";

    /// SBX-23: below the cgroup that the caller is in.
    #[test]
    fn the_folder_is_found() {
        let own = "0::/system.slice/ralph-health-check.service\n";
        let at = folder(own, UNIFIED).unwrap();
        assert_eq!(at, Path::new("/sys/fs/cgroup/system.slice/ralph-health-check.service"));
        let hybrid = "9:name=systemd:/x\n4:memory:/y\n0::/z\n";
        let mounts = "31 1 0:3 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      32 1 0:4 / /sys/fs/cgroup/uni\\040fied rw shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(folder(hybrid, mounts).unwrap(), Path::new("/sys/fs/cgroup/uni fied/z"));
        let bound = "30 23 0:26 /machine /cg rw - cgroup2 cgroup2 rw\n";
        assert_eq!(folder("0::/machine/a\n", bound).unwrap(), Path::new("/cg/a"));
    }

    #[test]
    fn no_folder_is_an_error() {
        assert!(folder("4:memory:/y\n", UNIFIED).unwrap_err().contains("0::"));
        assert!(folder("0::/a\n", "").unwrap_err().contains("no mount"));
        assert!(folder("0::/../a\n", UNIFIED).unwrap_err().contains("outside"));
        assert!(folder("0::/a\n", "30 23 0:26 /b /cg rw - cgroup2 cgroup2 rw\n").is_err());
    }

    /// SBX-23: processes of others are not moved.
    #[test]
    fn only_one_tree_is_ours() {
        let service = BTreeMap::from([(100, 1), (101, 100), (102, 101)]);
        assert_eq!(one_tree(102, &service), Ok(()));
        let shared = BTreeMap::from([(100, 1), (101, 100), (200, 1)]);
        assert!(one_tree(101, &shared).unwrap_err().contains("pid 200"));
        assert!(is_login_session(Path::new("/sys/fs/cgroup/user.slice/session-3.scope")));
        assert!(!is_login_session(Path::new("/sys/fs/cgroup/system.slice/run-u3.service")));
    }
}
