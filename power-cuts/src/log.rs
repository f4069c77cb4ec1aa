//! The record of what reached a disk, in the dm-log-writes format (`CUT-1` to `CUT-3`).

use std::io;

use crate::SECTOR;
use crate::store::ReadAt;

/// What sector 0 begins with.
pub const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
/// More requests than any flow has.
const REQUESTS_MAX: usize = 10_000_000;

const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const MARK: u64 = 8;

/// One request that reached the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// The first sector of 512 bytes.
    pub sector: u64,
    /// Sectors.
    pub count: u64,
    /// What was finished before is durable when this begins.
    pub flush: bool,
    /// It is durable itself when it is finished.
    pub fua: bool,
    /// The sectors' content was given up.
    pub discard: bool,
    /// A note, and no request: nothing of the disk changes.
    pub mark: bool,
    /// Where in the log the data lies.
    pub data: u64,
}

impl Request {
    /// True when it writes or discards sectors.
    pub fn changes_the_disk(&self) -> bool {
        !self.mark && self.count > 0
    }
}

/// A log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The medium.
    #[error("cannot read the log")]
    Io(#[from] io::Error),
    /// Sector 0 is of another format.
    #[error("the log is not in the dm-log-writes format, version 1 with sectors of 512 bytes: its {0} differs")]
    Format(&'static str),
    /// Requests are missing.
    #[error("the log promises {promised} requests and has {found}")]
    Short {
        /// What sector 0 says.
        promised: u64,
        /// What is there.
        found: u64,
    },
    /// A request that cannot be.
    #[error("request {number} of the log is not valid: {what}")]
    Request {
        /// From 0.
        number: usize,
        /// What is wrong.
        what: &'static str,
    },
}

/// A log, its data left where it lies. [`Log::read`] takes a file, too.
#[derive(Debug)]
pub struct Log<T> {
    store: T,
    requests: Vec<Request>,
}

impl<T: ReadAt> Log<T> {
    /// Reads the requests of a log for a disk of `disk_bytes`.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn read(store: T, disk_bytes: u64) -> Result<Log<T>, LogError> {
        let length = store.length()?;
        let sectors = disk_bytes / SECTOR as u64;
        let mut sector = [0; SECTOR];
        let mut at = SECTOR as u64;
        if length < at {
            // Nothing was ever written: QEMU makes sector 0 at the first flush.
            return Ok(Log { store, requests: Vec::new() });
        }
        store.read_exact_at(&mut sector, 0)?;
        let promised = parse_super(&sector)?;
        let mut requests = Vec::new();
        while length - at >= SECTOR as u64 {
            store.read_exact_at(&mut sector, at)?;
            let number = requests.len();
            let bad = |what| LogError::Request { number, what };
            if number == REQUESTS_MAX {
                return Err(bad("there are more than 10,000,000"));
            }
            let (request, data_len) = parse_request(&sector, at + SECTOR as u64).map_err(bad)?;
            if !request.mark && request.sector.checked_add(request.count).is_none_or(|end| end > sectors) {
                return Err(bad("it leaves the disk"));
            }
            // One that the file's end cuts off was never finished.
            match request.data.checked_add(data_len).filter(|end| *end <= length) {
                Some(end) => at = end,
                None => break,
            }
            requests.push(request);
        }
        let found = requests.len() as u64;
        match promised {
            Some(promised) if promised > found => Err(LogError::Short { promised, found }),
            _ => Ok(Log { store, requests }),
        }
    }

    /// The requests, in the order in which they were finished.
    pub fn requests(&self) -> &[Request] {
        &self.requests
    }

    /// Hands offset on the disk and content of the first `requests` writes, flushes and marks to `put`, in pieces of at most
    /// 1 MiB: the disk as a cut between two requests leaves it. Discards change nothing (`CUT-13`).
    ///
    /// # Errors
    /// When the log cannot be read, or what `put` says.
    pub fn replay(&self, requests: usize, put: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut buffer = Vec::new();
        let writes =
            self.requests.iter().take(requests).filter(|request| request.changes_the_disk() && !request.discard);
        for request in writes {
            let length = request.count * SECTOR as u64;
            let mut done = 0;
            while done < length {
                let piece = (length - done).min(1 << 20);
                buffer.resize(usize::try_from(piece).unwrap_or(SECTOR), 0);
                self.store.read_exact_at(&mut buffer, request.data + done)?;
                put(request.sector * SECTOR as u64 + done, &buffer)?;
                done += piece;
            }
        }
        Ok(())
    }
}

/// None when it is all zero: QEMU did not come to write it.
fn parse_super(sector: &[u8; SECTOR]) -> Result<Option<u64>, LogError> {
    if sector.iter().all(|b| *b == 0) {
        return Ok(None);
    }
    for (found, wanted, what) in [
        (u64_at(sector, 0), MAGIC, "magic number"),
        (u64_at(sector, 8), VERSION, "version"),
        (u64::from(u32_at(sector, 24)), SECTOR as u64, "sector size"),
    ] {
        if found != wanted {
            return Err(LogError::Format(what));
        }
    }
    Ok(Some(u64_at(sector, 16)))
}

/// A request and how many bytes lie behind its header.
fn parse_request(sector: &[u8; SECTOR], data: u64) -> Result<(Request, u64), &'static str> {
    let [first, count, flags, length] = [0, 8, 16, 24].map(|at| u64_at(sector, at));
    if flags & !(FLUSH | FUA | DISCARD | MARK) != 0 {
        return Err("it has a flag that nobody knows");
    }
    let has = |flag| flags & flag != 0;
    let request = Request {
        sector: first,
        count,
        flush: has(FLUSH),
        fua: has(FUA),
        discard: has(DISCARD),
        mark: has(MARK),
        data,
    };
    let sectors = match (request.mark, request.discard) {
        (true, _) => length.div_ceil(SECTOR as u64),
        (false, true) => 0,
        (false, false) => count,
    };
    Ok((request, sectors.checked_mul(SECTOR as u64).ok_or("it is longer than anything can be")?))
}

fn u64_at(sector: &[u8; SECTOR], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&sector[at..at + 8]);
    u64::from_le_bytes(bytes)
}

fn u32_at(sector: &[u8; SECTOR], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&sector[at..at + 4]);
    u32::from_le_bytes(bytes)
}

/// Writes a log in memory.
#[derive(Debug, Clone)]
pub struct LogWriter {
    bytes: Vec<u8>,
    requests: u64,
}

impl Default for LogWriter {
    fn default() -> LogWriter {
        LogWriter::new()
    }
}

impl LogWriter {
    /// Nothing yet.
    pub fn new() -> LogWriter {
        LogWriter { bytes: vec![0; SECTOR], requests: 0 }
    }

    /// A write of whole sectors; what is behind the last whole one is left out.
    pub fn write(&mut self, sector: u64, data: &[u8]) {
        let whole = data.len() / SECTOR * SECTOR;
        self.header(sector, (whole / SECTOR) as u64, 0, 0);
        self.bytes.extend_from_slice(&data[..whole]);
    }

    /// The same, durable when it is finished.
    pub fn write_fua(&mut self, sector: u64, data: &[u8]) {
        let whole = data.len() / SECTOR * SECTOR;
        self.header(sector, (whole / SECTOR) as u64, FUA, 0);
        self.bytes.extend_from_slice(&data[..whole]);
    }

    /// A discard.
    pub fn discard(&mut self, sector: u64, count: u64) {
        self.header(sector, count, DISCARD, 0);
    }

    /// A flush.
    pub fn flush(&mut self) {
        self.header(0, 0, FLUSH, 0);
    }

    /// A note.
    pub fn mark(&mut self, text: &str) {
        self.header(0, 0, MARK, text.len() as u64);
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(SECTOR), 0);
    }

    /// The bytes of the log.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes[..8].copy_from_slice(&MAGIC.to_le_bytes());
        self.bytes[8..16].copy_from_slice(&VERSION.to_le_bytes());
        self.bytes[16..24].copy_from_slice(&self.requests.to_le_bytes());
        self.bytes[24..28].copy_from_slice(&(SECTOR as u32).to_le_bytes());
        self.bytes
    }

    fn header(&mut self, sector: u64, count: u64, flags: u64, data_len: u64) {
        for number in [sector, count, flags, data_len] {
            self.bytes.extend_from_slice(&number.to_le_bytes());
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(SECTOR), 0);
        self.requests += 1;
    }
}

#[cfg(test)]
mod tests;
