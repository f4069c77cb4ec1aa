//! A state, read like a file.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;

use crate::SECTOR;
use crate::disk::{Disk, State};
use crate::store::ReadAt;

/// A byte range of a state with a cursor. It can be written to as a type, because the FAT library wants that, but every
/// write fails.
#[derive(Debug)]
pub struct View<'a, B, L> {
    disk: &'a Disk<B, L>,
    state: &'a State,
    range: Range<u64>,
    position: u64,
    /// The sector read last; readers of directories take a few bytes at a time.
    number: Option<u64>,
    sector: [u8; SECTOR],
}

impl<'a, B: ReadAt, L: ReadAt> View<'a, B, L> {
    /// The bytes `range` of the disk, which begin at a sector.
    pub fn new(disk: &'a Disk<B, L>, state: &'a State, range: Range<u64>) -> View<'a, B, L> {
        View { disk, state, range, position: 0, number: None, sector: [0; SECTOR] }
    }

    fn len(&self) -> u64 {
        self.range.end - self.range.start
    }
}

impl<B: ReadAt, L: ReadAt> Read for View<'_, B, L> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = SECTOR as u64;
        let mut done = 0;
        while done < buffer.len() && self.position < self.len() {
            let at = self.range.start + self.position;
            let number = at / size;
            if self.number != Some(number) {
                self.number = None;
                self.disk.read(number, self.state.get(number), &mut self.sector)?;
                self.number = Some(number);
            }
            let start = usize::try_from(at % size).unwrap_or(0);
            let left = usize::try_from(self.len() - self.position).unwrap_or(usize::MAX);
            let piece = (SECTOR - start).min(buffer.len() - done).min(left);
            buffer[done..done + piece].copy_from_slice(&self.sector[start..start + piece]);
            done += piece;
            self.position += piece as u64;
        }
        Ok(done)
    }
}

impl<B: ReadAt, L: ReadAt> Seek for View<'_, B, L> {
    fn seek(&mut self, target: SeekFrom) -> io::Result<u64> {
        let position = match target {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.len().checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}

impl<B: ReadAt, L: ReadAt> Write for View<'_, B, L> {
    fn write(&mut self, _buffer: &[u8]) -> io::Result<usize> {
        Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<B: ReadAt, L: ReadAt> boot_entries::esp::EspStorage for View<'_, B, L> {
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}
