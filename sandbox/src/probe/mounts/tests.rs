//! Tables of mounts, of sandboxes and of what is none.

use super::*;
use crate::{HostSockets, Limits};

const GOOD: &str = "\
1 0 0:1 / / rw,nosuid,nodev - tmpfs tmpfs rw,size=16384k
2 1 0:2 / /usr rw,nosuid,nodev - overlay overlay rw,lowerdir=/old/usr,upperdir=/tmp/upper,workdir=/tmp/work
3 1 0:3 / /proc rw,nosuid,nodev,noexec - proc proc rw
4 1 0:4 / /dev rw,nosuid,nodev,noexec - tmpfs tmpfs rw
5 4 0:5 /null /dev/null rw,nosuid,noexec - devtmpfs udev rw
6 1 0:6 / /tmp rw,nosuid,nodev - tmpfs tmpfs rw
7 1 0:7 / /sys/fs/cgroup ro,nosuid,nodev,noexec - cgroup2 cgroup2 rw
8 1 8:1 /home/x /x ro,nosuid,nodev - ext4 /dev/sda1 rw
";

fn check(text: &str, cgroup: &str) -> Result<(), String> {
    let sockets = HostSockets::listen().unwrap();
    let question = Question::new(Limits::SMOKE_TEST, &sockets, vec!["/x".to_owned()], false).unwrap();
    check_mounts(&parse_mountinfo(text), cgroup, &question)
}

/// SBX-12, `mounts`: each mount with its type, its root and its flags.
#[test]
fn mounts_are_those_of_the_specification() {
    assert_eq!(check(GOOD, "0::/\n"), Ok(()));
    let bad = [
        ("/ / rw,nosuid,nodev - tmpfs tmpfs", "/ / rw,nosuid,nodev - ext4 /dev/sda1", "type tmpfs"),
        ("0:1 / / rw", "0:1 /home / rw", "whole file system"),
        ("- overlay overlay", "- ext4 /dev/sda1", "type overlay"),
        ("0:2 / /usr rw,nosuid,nodev", "0:2 / /usr rw,nodev", "nosuid"),
        ("/dev rw,nosuid,nodev,noexec - tmpfs", "/dev rw,nosuid,nodev,noexec - devtmpfs", "type tmpfs"),
        ("/dev rw,nosuid,nodev", "/dev rw,nosuid", "nodev"),
        ("/tmp rw,nosuid,nodev - tmpfs tmpfs", "/tmp rw,nosuid,nodev - ext4 /dev/sda1", "type tmpfs"),
        ("0:6 / /tmp", "0:6 /tmp /tmp", "whole file system"),
        ("/sys/fs/cgroup ro", "/sys/fs/cgroup rw", "read-only"),
        ("0:7 / /sys", "0:7 /.. /sys", "own cgroup"),
        ("- cgroup2 cgroup2", "- tmpfs cgroup", "type cgroup2"),
        ("/x ro", "/x rw", "read-only"),
        ("/x ro", "/y ro", "no mount here"),
        ("/dev/null rw,nosuid", "/dev/null rw", "nosuid"),
        ("- devtmpfs udev", "- ext4 /dev/sda1", "device node"),
        ("/dev/null rw", "/dev/kvm rw", "nodev"),
        ("3 1 0:3 / /proc", "3 1 0:3 / /usr", "/usr is mounted 2 times"),
    ];
    for (from, to, why) in bad {
        let text = GOOD.replace(from, to);
        assert_ne!(text, GOOD, "{from}");
        let error = check(&text, "0::/\n").unwrap_err();
        assert!(error.contains(why), "{to}: {error}");
    }
    assert!(check("", "0::/\n").unwrap_err().contains("0 times"));
    // Without a cgroup namespace the sandbox's own has a longer path; the root of all would be another one.
    let long = GOOD.replace("0:7 / /sys", "0:7 /a/sandbox-7 /sys");
    assert_eq!(check(&long, "0::/a/sandbox-7\n"), Ok(()));
    assert!(check(GOOD, "0::/a/sandbox-7\n").unwrap_err().contains("own cgroup"));
}

/// SBX-12, `base-read-only`: modes of files prove nothing, the mount does.
#[test]
fn only_the_mount_keeps_the_base_from_writing() {
    let kept = |text: &str| kept_from_writing(&parse_mountinfo(text), Path::new("/usr/bin/env"));
    assert_eq!(kept(GOOD), Ok(()));
    let bound = |flags: &str, options: &str| format!("{GOOD}9 1 8:1 /usr /usr {flags} - ext4 /dev/sda1 {options}\n");
    assert_eq!(kept(&bound("ro,nosuid", "rw")), Ok(()));
    assert_eq!(kept(&bound("rw,nosuid", "ro,errors=continue")), Ok(()));
    let error = kept(&bound("rw,nosuid", "rw,errors=remount-ro")).unwrap_err();
    assert!(error.contains("/usr is a writable ext4"), "{error}");
    let file = format!("{GOOD}9 2 0:9 /hole /usr/bin/env rw - tmpfs tmpfs rw\n");
    assert!(kept(&file).unwrap_err().contains("/usr/bin/env is a writable tmpfs"));
    assert!(kept("").is_err());
}
