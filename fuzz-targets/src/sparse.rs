//! A volume of which only the sectors that are not zero are given: what a fuzzer should change.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};

pub const SECTOR: usize = 512;

/// What no target may read in all: work is counted, because a clock says nothing on a machine that does other things, too.
const MOST: u64 = 16 << 30;

/// Zeros but for some sectors.
#[derive(Debug, Clone)]
pub struct Sparse {
    len: u64,
    sectors: BTreeMap<u64, [u8; SECTOR]>,
    at: u64,
    read: u64,
}

impl Sparse {
    /// `bytes` one sector behind the other, in the places that are named.
    pub fn new(len: u64, places: &[u64], bytes: &[u8]) -> Self {
        let sector = |bytes: &[u8]| {
            let mut sector = [0; SECTOR];
            sector[..bytes.len()].copy_from_slice(bytes);
            sector
        };
        let sectors = places.iter().copied().zip(bytes.chunks(SECTOR).map(sector)).collect();
        Self { len, sectors, at: 0, read: 0 }
    }
}

impl Read for Sparse {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.len.saturating_sub(self.at);
        let within = self.at % SECTOR as u64;
        let len = (SECTOR as u64 - within).min(left).min(buffer.len() as u64) as usize;
        match self.sectors.get(&(self.at / SECTOR as u64)) {
            Some(sector) => buffer[..len].copy_from_slice(&sector[within as usize..within as usize + len]),
            None => buffer[..len].fill(0),
        }
        self.at += len as u64;
        self.read += len as u64;
        assert!(self.read < MOST, "it reads on and on");
        Ok(len)
    }
}

impl Write for Sparse {
    /// Nothing beyond the end, like a partition.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.len.saturating_sub(self.at);
        let within = (self.at % SECTOR as u64) as usize;
        let len = ((SECTOR - within) as u64).min(left).min(bytes.len() as u64) as usize;
        if len > 0 {
            let sector = self.sectors.entry(self.at / SECTOR as u64).or_insert([0; SECTOR]);
            sector[within..within + len].copy_from_slice(&bytes[..len]);
        }
        self.at += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Sparse {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::End(by) => self.len.saturating_add_signed(by),
            SeekFrom::Current(by) => self.at.saturating_add_signed(by),
        };
        Ok(self.at)
    }
}
