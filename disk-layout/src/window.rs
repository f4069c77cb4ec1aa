//! A byte range of a file, used as if it were a file of its own.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

/// A partition inside a disk image (or any byte range of a file), with its own cursor.
///
/// `DSK-42`: nothing outside the range can be read or written. A read at the end gives end of file; a write that would
/// leave the range is refused whole, before a byte is written.
#[derive(Debug)]
pub struct FileWindow {
    file: File,
    start: u64,
    len: u64,
    position: u64,
}

/// A read, write or seek would leave the window. It is the inner error of the [`io::Error`] that [`FileWindow`] returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes at {offset} leave the range of {len} bytes")]
pub struct OutsideWindow {
    /// Where the access would have begun, relative to the window.
    pub offset: u64,
    /// How long it would have been.
    pub bytes: u64,
    /// The window's length.
    pub len: u64,
}

impl From<OutsideWindow> for io::Error {
    fn from(outside: OutsideWindow) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidInput, outside)
    }
}

/// Fails unless `bytes` bytes at `offset` lie within `len` bytes. Never overflows.
pub(crate) fn check_range(offset: u64, bytes: u64, len: u64) -> Result<(), OutsideWindow> {
    match offset.checked_add(bytes) {
        Some(end) if end <= len => Ok(()),
        _ => Err(OutsideWindow { offset, bytes, len }),
    }
}

impl FileWindow {
    /// The bytes `start .. start + len` of `file`, which must hold them already: a window never grows its file.
    ///
    /// # Errors
    /// [`OutsideWindow`] when the file ends before the range does, or the file's length cannot be found.
    pub fn new(mut file: File, start: u64, len: u64) -> io::Result<FileWindow> {
        // Not `metadata().len()`, which is zero for a block device.
        let end = file.seek(SeekFrom::End(0))?;
        check_range(start, len, end)?;
        Ok(FileWindow { file, start, len, position: 0 })
    }

    /// Bytes in the window.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True for a window of no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes what was written to the medium (`fdatasync`), device cache included.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// The whole file, where it has to be handed on.
    pub fn into_file(self) -> File {
        self.file
    }
}

impl Read for FileWindow {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.len - self.position;
        let wanted = usize::try_from(left).map_or(buf.len(), |left| buf.len().min(left));
        let got = self.file.read_at(&mut buf[..wanted], self.start + self.position)?;
        self.position += got as u64;
        Ok(got)
    }
}

impl Write for FileWindow {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        check_range(self.position, buf.len() as u64, self.len)?;
        let put = self.file.write_at(buf, self.start + self.position)?;
        self.position += put as u64;
        Ok(put)
    }

    /// Nothing is buffered here. [`FileWindow::sync`] is what reaches the medium.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for FileWindow {
    /// As for a file, but a position behind the end is refused: nothing could be written there.
    fn seek(&mut self, target: SeekFrom) -> io::Result<u64> {
        let position = match target {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.len.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        match position {
            Some(position) if position <= self.len => {
                self.position = position;
                Ok(position)
            }
            _ => Err(OutsideWindow { offset: position.unwrap_or(0), bytes: 0, len: self.len }.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn window(file_len: u64, start: u64, len: u64) -> FileWindow {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![0x11; file_len as usize]).unwrap();
        FileWindow::new(file, start, len).unwrap()
    }

    fn whole(window: FileWindow) -> Vec<u8> {
        let mut file = window.into_file();
        let mut all = Vec::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut all).unwrap();
        all
    }

    #[test]
    fn dsk42_a_write_that_would_leave_the_window_changes_nothing() {
        let mut w = window(64, 16, 16);
        w.seek(SeekFrom::Start(10)).unwrap();
        let error = w.write_all(&[0xff; 7]).unwrap_err();
        let inner = error.get_ref().unwrap().downcast_ref::<OutsideWindow>();
        assert_eq!(inner, Some(&OutsideWindow { offset: 10, bytes: 7, len: 16 }));
        w.write_all(&[0xee; 6]).unwrap();
        assert!(w.write_all(&[0xff]).is_err());
        let all = whole(w);
        assert_eq!(all.len(), 64);
        assert_eq!(all[26..32], [0xee; 6]);
        assert!(all[..26].iter().chain(&all[32..]).all(|b| *b == 0x11));
    }

    #[test]
    fn reading_ends_at_the_end_of_the_window() {
        let mut w = window(64, 60, 4);
        let mut all = Vec::new();
        w.read_to_end(&mut all).unwrap();
        assert_eq!(all, [0x11; 4]);
    }

    #[test]
    fn dsk42_a_window_lies_inside_its_file() {
        for (start, len) in [(0, 65), (64, 1), (65, 0), (u64::MAX, 1), (1, u64::MAX)] {
            let file = tempfile::tempfile().unwrap();
            file.set_len(64).unwrap();
            let error = FileWindow::new(file, start, len).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{start} {len}");
        }
    }

    #[test]
    fn seeking_outside_is_refused_and_moves_nothing() {
        let mut w = window(64, 16, 16);
        assert_eq!(w.seek(SeekFrom::End(-4)).unwrap(), 12);
        for target in [
            SeekFrom::Start(17),
            SeekFrom::End(1),
            SeekFrom::End(-17),
            SeekFrom::Current(5),
            SeekFrom::Current(-13),
            SeekFrom::Current(i64::MAX),
            SeekFrom::Start(u64::MAX),
        ] {
            assert!(w.seek(target).is_err(), "{target:?}");
            assert_eq!(w.stream_position().unwrap(), 12);
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Seek(u64),
        Write(Vec<u8>),
        Read(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0u64..80).prop_map(Step::Seek),
            prop::collection::vec(any::<u8>(), 0..40).prop_map(Step::Write),
            (0usize..40).prop_map(Step::Read),
        ];
        prop::collection::vec(step, 0..20)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// DSK-42: whatever is done, the window behaves as a fixed array and its surroundings stay as they were.
        #[test]
        fn dsk42_behaves_as_a_fixed_array(steps in steps(), start in 0u64..32, len in 0u64..64) {
            let mut w = window(128, start, len);
            let mut model = vec![0x11u8; len as usize];
            let mut at = 0usize;
            for step in steps {
                match step {
                    Step::Seek(to) => {
                        prop_assert_eq!(w.seek(SeekFrom::Start(to)).is_ok(), to <= len);
                        if to <= len { at = to as usize; }
                    }
                    Step::Write(bytes) => {
                        let fits = at + bytes.len() <= model.len();
                        prop_assert_eq!(w.write_all(&bytes).is_ok(), fits || bytes.is_empty());
                        if fits {
                            model[at..at + bytes.len()].copy_from_slice(&bytes);
                            at += bytes.len();
                        }
                    }
                    Step::Read(n) => {
                        let n = n.min(model.len() - at);
                        let mut buf = vec![0; n];
                        w.read_exact(&mut buf).unwrap();
                        prop_assert_eq!(&buf[..], &model[at..at + n]);
                        at += n;
                    }
                }
            }
            let all = whole(w);
            prop_assert_eq!(all.len(), 128);
            let (from, to) = (start as usize, (start + len) as usize);
            prop_assert_eq!(&all[from..to], &model[..]);
            prop_assert!(all[..from].iter().chain(&all[to..]).all(|b| *b == 0x11));
        }
    }
}
