//! Recording what reaches a disk in this process (`CUT-1`), for tests of the checks.

use std::cell::RefCell;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::rc::Rc;

use boot_entries::esp::EspStorage;

use crate::SECTOR;
use crate::log::LogWriter;

#[derive(Debug)]
struct Recorded {
    bytes: Vec<u8>,
    log: LogWriter,
    flushes: bool,
}

/// A disk in memory that records every write, in whole sectors, and every flush.
#[derive(Debug, Clone)]
pub struct Recorder {
    inner: Rc<RefCell<Recorded>>,
}

impl Recorder {
    /// A disk with this content.
    pub fn new(bytes: Vec<u8>) -> Recorder {
        let recorded = Recorded { bytes, log: LogWriter::new(), flushes: true };
        Recorder { inner: Rc::new(RefCell::new(recorded)) }
    }

    /// From now on flushes are lost, or not: a disk, or a program, that does not flush.
    pub fn flushes(&self, flushes: bool) {
        self.inner.borrow_mut().flushes = flushes;
    }

    /// Writes bytes that begin and end at sectors.
    pub fn write(&self, offset: u64, data: &[u8]) {
        let mut inner = self.inner.borrow_mut();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        inner.bytes[start..start + data.len()].copy_from_slice(data);
        inner.log.write(offset / SECTOR as u64, data);
    }

    /// A flush of the whole disk.
    pub fn flush(&self) {
        let mut inner = self.inner.borrow_mut();
        if inner.flushes {
            inner.log.flush();
        }
    }

    /// A part of the disk as a file.
    pub fn part(&self, range: Range<u64>) -> RecordedPart {
        RecordedPart { recorder: self.clone(), range, position: 0 }
    }

    /// The log so far.
    pub fn log(&self) -> Vec<u8> {
        self.inner.borrow().log.clone().finish()
    }

    /// What the disk holds now.
    pub fn bytes(&self) -> Vec<u8> {
        self.inner.borrow().bytes.clone()
    }
}

/// A part of a [`Recorder`].
#[derive(Debug)]
pub struct RecordedPart {
    recorder: Recorder,
    range: Range<u64>,
    position: u64,
}

impl RecordedPart {
    /// Where the cursor is on the disk, and how many of `wanted` bytes lie before the end.
    fn here(&self, wanted: usize) -> (usize, usize) {
        let at = self.range.start + self.position;
        let left = usize::try_from(self.range.end.saturating_sub(at)).unwrap_or(usize::MAX);
        (usize::try_from(at).unwrap_or(usize::MAX), wanted.min(left))
    }
}

impl Read for RecordedPart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (at, len) = self.here(buffer.len());
        buffer[..len].copy_from_slice(&self.recorder.inner.borrow().bytes[at..at + len]);
        self.position += len as u64;
        Ok(len)
    }
}

impl Write for RecordedPart {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let (at, len) = self.here(buffer.len());
        let mut inner = self.recorder.inner.borrow_mut();
        inner.bytes[at..at + len].copy_from_slice(&buffer[..len]);
        // A disk has whole sectors: what stands around the bytes is written again.
        let (first, end) = (at / SECTOR * SECTOR, (at + len).next_multiple_of(SECTOR));
        let whole = inner.bytes[first..end].to_vec();
        inner.log.write((first / SECTOR) as u64, &whole);
        self.position += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for RecordedPart {
    fn seek(&mut self, target: SeekFrom) -> io::Result<u64> {
        let len = self.range.end - self.range.start;
        let position = match target {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => len.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}

impl EspStorage for RecordedPart {
    fn sync(&mut self) -> io::Result<()> {
        self.recorder.flush();
        Ok(())
    }
}
