//! Writes a cpio archive ("newc") as the kernel unpacks it: the same entries give the same bytes.

use std::io::{self, Write};

/// What stands at a path of the archive.
#[derive(Debug)]
pub enum Entry {
    /// A folder.
    Dir,
    /// A file that can be read and executed.
    File(Vec<u8>),
    /// A file that can be read.
    Data(Vec<u8>),
    /// A symbolic link to a target.
    Link(String),
    /// A character device with major and minor number.
    CharDevice(u32, u32),
}

/// Writes `entries` (path without a leading slash, entry) and the trailer. A folder must come before what is in it.
///
/// # Errors
/// What `out` says, or a file that is too long for the format (4 GiB).
pub fn write(mut out: impl Write, entries: &[(String, Entry)]) -> io::Result<()> {
    for (inode, (path, entry)) in entries.iter().enumerate() {
        let (mode, data, device): (u32, &[u8], _) = match entry {
            Entry::Dir => (0o040_755, &[], (0, 0)),
            Entry::File(data) => (0o100_755, data, (0, 0)),
            Entry::Data(data) => (0o100_644, data, (0, 0)),
            Entry::Link(target) => (0o120_777, target.as_bytes(), (0, 0)),
            Entry::CharDevice(major, minor) => (0o020_600, &[], (*major, *minor)),
        };
        record(&mut out, inode + 1, mode, path, data, device)?;
    }
    record(&mut out, 0, 0, "TRAILER!!!", &[], (0, 0))
}

fn record(
    out: &mut impl Write,
    inode: usize,
    mode: u32,
    path: &str,
    data: &[u8],
    device: (u32, u32),
) -> io::Result<()> {
    let narrow = |n: usize| u32::try_from(n).map_err(io::Error::other);
    // magic, then: inode, mode, uid, gid, links, mtime, size, device, device number, name length, checksum
    let fields =
        [narrow(inode)?, mode, 0, 0, 1, 0, narrow(data.len())?, 0, 0, device.0, device.1, narrow(path.len() + 1)?, 0];
    write!(out, "070701")?;
    for field in fields {
        write!(out, "{field:08x}")?;
    }
    write!(out, "{path}\0")?;
    pad(out, 110 + path.len() + 1)?;
    out.write_all(data)?;
    pad(out, data.len())
}

/// Names (with the header) and contents are padded to four bytes.
fn pad(out: &mut impl Write, written: usize) -> io::Result<()> {
    out.write_all(&[0; 3][..(4 - written % 4) % 4])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_is_padded_to_four_bytes_and_the_trailer_ends_it() {
        let entries = [
            ("bin".into(), Entry::Dir),
            ("bin/a".into(), Entry::File(b"hello".to_vec())),
            ("bin/b".into(), Entry::Link("a".into())),
        ];
        let mut out = Vec::new();
        write(&mut out, &entries).expect("a Vec takes everything");
        assert_eq!(out.len() % 4, 0);
        assert!(out.starts_with(b"070701"));
        // header 110 + "bin\0" = 114, padded to 116: the next record begins there
        assert_eq!(&out[116..122], b"070701");
        assert!(out.windows(10).any(|w| w == b"TRAILER!!!"));
    }
}
