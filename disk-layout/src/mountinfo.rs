//! What is mounted where, from `/proc/self/mountinfo`.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The number of a device, as in `254:2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceNumber {
    /// The driver's number.
    pub major: u32,
    /// The device's number with that driver.
    pub minor: u32,
}

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// The text is not of the form `254:2`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a device number")]
pub struct NotADeviceNumber(pub String);

impl FromStr for DeviceNumber {
    type Err = NotADeviceNumber;

    /// Takes the text of a `dev` file in sysfs, with or without its newline.
    fn from_str(text: &str) -> Result<Self, NotADeviceNumber> {
        let parse = || {
            let (major, minor) = text.trim_end().split_once(':')?;
            Some(DeviceNumber { major: major.parse().ok()?, minor: minor.parse().ok()? })
        };
        parse().ok_or_else(|| NotADeviceNumber(text.to_owned()))
    }
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The device of the file system; major 0 for one without a block device.
    pub device: DeviceNumber,
    /// The directory of the file system that is mounted: `/` unless it is a bind mount.
    pub root: PathBuf,
    /// Where it is mounted.
    pub point: PathBuf,
    /// Nothing can be written through this mount.
    pub read_only: bool,
}

/// A line of mountinfo that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of mountinfo cannot be understood: {text:?}")]
pub struct BadMountInfo {
    /// Counted from 1.
    pub line: usize,
    /// The line.
    pub text: String,
}

/// Parses the text of `/proc/self/mountinfo`, in its order: of two mounts on one directory the later one is seen.
///
/// # Errors
/// [`BadMountInfo`] at the first line that is not as `proc(5)` says.
pub fn parse_mountinfo(text: &str) -> Result<Vec<Mount>, BadMountInfo> {
    let parse = |(index, line): (usize, &str)| {
        parse_line(line).ok_or_else(|| BadMountInfo { line: index + 1, text: line.to_owned() })
    };
    text.lines().enumerate().map(parse).collect()
}

/// `36 35 98:0 / /mnt rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse_line(line: &str) -> Option<Mount> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut words = mount.split(' ').skip(2);
    let device = words.next()?.parse().ok()?;
    let root = unescape(words.next()?);
    let point = unescape(words.next()?);
    let options = words.next()?;
    let super_options = file_system.splitn(3, ' ').nth(2)?;
    let read_only = [options, super_options].iter().any(|o| o.split(',').any(|option| option == "ro"));
    Some(Mount { device, root, point, read_only })
}

/// The kernel writes space, tab, newline and backslash as a backslash and three octal digits.
fn unescape(word: &str) -> PathBuf {
    let bytes = word.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = bytes.get(at + 1..at + 4).filter(|_| bytes[at] == b'\\');
        let code = code.and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            out.push(byte);
            at += 4;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    OsString::from_vec(out).into()
}

/// The mount that is seen at this directory.
pub fn mount_at<'a>(mounts: &'a [Mount], point: &Path) -> Option<&'a Mount> {
    mounts.iter().rev().find(|mount| mount.point == point)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
22 1 0:2 / / rw - rootfs rootfs rw
25 22 254:0 / / ro,relatime shared:1 - erofs /dev/mapper/root ro,user_xattr
26 25 0:21 / /proc rw,nosuid shared:5 - proc proc rw
30 25 253:1 / /boot\\040efi rw,nodev master:2 propagate_from:7 - vfat /dev/vda1 rw,fmask=0077
31 25 253:1 /EFI /mnt rw - vfat /dev/vda1 rw
32 25 253:2 / /ro rw - ext4 /dev/vda4 ro,errors=continue
";

    #[test]
    fn mounts_as_the_kernel_writes_them() {
        let mounts = parse_mountinfo(TEXT).unwrap();
        assert_eq!(mounts.len(), 6);
        let root = mount_at(&mounts, Path::new("/")).unwrap();
        assert_eq!((root.device, root.read_only), (DeviceNumber { major: 254, minor: 0 }, true));
        let esp = mount_at(&mounts, Path::new("/boot efi")).unwrap();
        assert_eq!((esp.device.to_string(), esp.read_only), ("253:1".into(), false));
        assert_eq!(mounts[4].root, Path::new("/EFI"));
        assert!(mount_at(&mounts, Path::new("/ro")).unwrap().read_only, "the file system itself is read-only");
    }

    #[test]
    fn other_lines_are_refused() {
        for bad in ["", "36 35 98:0 / /mnt rw", "36 35 98 / /mnt rw - ext3 x rw", "36 35 98:0 / - ext3 x rw"] {
            let text = format!("26 25 0:21 / /proc rw - proc proc rw\n{bad}\n");
            assert_eq!(parse_mountinfo(&text), Err(BadMountInfo { line: 2, text: bad.to_owned() }));
        }
    }

    #[test]
    fn escapes() {
        for (word, path) in
            [("/a\\040b", "/a b"), ("/a\\134b", "/a\\b"), ("/a\\", "/a\\"), ("/a\\04", "/a\\04"), ("/\\999", "/\\999")]
        {
            assert_eq!(unescape(word), Path::new(path));
        }
    }
}
