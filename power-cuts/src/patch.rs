//! The state file: states to be set up on a real disk (`CUT-50`, `CUT-51`).

use std::collections::HashMap;
use std::io::{self, Read, Seek, SeekFrom, Write};

use serde::{Deserialize, Serialize};

use crate::SECTOR;

const MAGIC: &[u8; 8] = b"PWRCUTS1";
const FORMAT: &str = "power-cuts states 1";
/// The longest header, in bytes.
const HEADER_MAX: u32 = 64 << 20;
/// Magic, length and zeros in front of the header.
const FRONT: u64 = 16;

/// What stands in front of the blocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Header {
    format: String,
    /// The flow's name.
    pub flow: String,
    /// What the states were chosen with.
    pub seed: u64,
    /// Length of the disk in bytes.
    pub disk_bytes: u64,
    /// Blocks behind the header.
    pub blocks: u64,
    /// The states.
    pub states: Vec<PatchState>,
}

/// One state: the base with these sectors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchState {
    /// Unique in the file: `[a-z0-9-]`.
    pub id: String,
    /// How it was made, for a person.
    pub made: String,
    /// What is torn in it: `directory`, `fat`, `entry`, …
    pub kinds: Vec<String>,
    /// First sector on the disk, first block in the file, count; ascending, not overlapping.
    pub runs: Vec<(u64, u64, u64)>,
    /// What the loader boots.
    pub boots: PatchBoots,
    /// The files in `loader/entries`, as the loader reads them.
    pub entries: Vec<String>,
    /// The system is one of those before the flow.
    pub before: bool,
    /// The system is one of those after it.
    pub after: bool,
}

/// What the loader boots in a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchBoots {
    /// The entry's file, as the loader finds it: before it counts.
    pub file: String,
    /// `a` or `b`, from the file's content.
    pub slot: String,
    /// From the file's content.
    pub generation: u32,
    /// The kernel's command line.
    pub options: String,
}

/// A state file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// The file.
    #[error("cannot read the state file")]
    Io(#[from] io::Error),
    /// It does not begin as one.
    #[error("this is no state file: it does not begin with PWRCUTS1")]
    Magic,
    /// The header is too long.
    #[error("the header of the state file has {0} bytes, more than 67108864")]
    HeaderLength(u32),
    /// The header is not of the form.
    #[error("the header of the state file is not JSON of the form of CUT-51")]
    Json(#[source] serde_json::Error),
    /// The header says something that cannot be.
    #[error("the header of the state file is not valid: {0}")]
    Header(String),
}

/// Collects states and their blocks, and writes them.
#[derive(Debug, Default)]
pub struct PatchWriter {
    states: Vec<PatchState>,
    blocks: Vec<[u8; SECTOR]>,
    known: HashMap<[u8; SECTOR], u64>,
}

impl PatchWriter {
    /// Nothing yet.
    pub fn new() -> PatchWriter {
        PatchWriter::default()
    }

    /// Adds a state that differs from the base in `sectors`, ascending. Its `runs` are made here.
    pub fn add(&mut self, mut state: PatchState, sectors: impl IntoIterator<Item = (u64, [u8; SECTOR])>) {
        state.runs.clear();
        for (sector, content) in sectors {
            let next = self.blocks.len() as u64;
            let block = *self.known.entry(content).or_insert(next);
            if block == next {
                self.blocks.push(content);
            }
            match state.runs.last_mut() {
                Some((first, at, count)) if *first + *count == sector && *at + *count == block => *count += 1,
                _ => state.runs.push((sector, block, 1)),
            }
        }
        self.states.push(state);
    }

    /// States so far.
    pub fn len(&self) -> usize {
        self.states.len()
    }

    /// None so far.
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// Writes the file.
    ///
    /// # Errors
    /// What the writer says, or a header beyond all bounds.
    pub fn write(self, flow: &str, seed: u64, disk_bytes: u64, out: &mut dyn Write) -> io::Result<()> {
        let blocks = self.blocks.len() as u64;
        let header =
            Header { format: FORMAT.to_owned(), flow: flow.to_owned(), seed, disk_bytes, blocks, states: self.states };
        let json = serde_json::to_vec(&header).map_err(io::Error::other)?;
        let length = u32::try_from(json.len()).ok().filter(|length| *length <= HEADER_MAX);
        let length = length.ok_or_else(|| io::Error::other("too many states for one file"))?;
        out.write_all(MAGIC)?;
        out.write_all(&length.to_le_bytes())?;
        out.write_all(&[0; 4])?;
        out.write_all(&json)?;
        let end = FRONT + u64::from(length);
        let padding = end.next_multiple_of(SECTOR as u64) - end;
        out.write_all(&[0; SECTOR][..usize::try_from(padding).unwrap_or(0)])?;
        for block in &self.blocks {
            out.write_all(block)?;
        }
        out.flush()
    }
}

/// A state file being read.
#[derive(Debug)]
pub struct PatchReader<R> {
    source: R,
    header: Header,
    blocks_start: u64,
}

impl<R: Read + Seek> PatchReader<R> {
    /// Reads and checks the header.
    ///
    /// # Errors
    /// [`PatchError`].
    pub fn open(mut source: R) -> Result<PatchReader<R>, PatchError> {
        source.seek(SeekFrom::Start(0))?;
        let mut front = [0; FRONT as usize];
        source.read_exact(&mut front)?;
        if front[..8] != MAGIC[..] {
            return Err(PatchError::Magic);
        }
        let length = u32::from_le_bytes([front[8], front[9], front[10], front[11]]);
        if length > HEADER_MAX {
            return Err(PatchError::HeaderLength(length));
        }
        let mut json = Vec::new();
        (&mut source).take(u64::from(length)).read_to_end(&mut json)?;
        let header: Header = serde_json::from_slice(&json).map_err(PatchError::Json)?;
        check(&header).map_err(PatchError::Header)?;
        let blocks_start = (FRONT + u64::from(length)).next_multiple_of(SECTOR as u64);
        Ok(PatchReader { source, header, blocks_start })
    }

    /// What it says of itself and the states.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The number of the state with this id.
    pub fn position(&self, id: &str) -> Option<usize> {
        self.header.states.iter().position(|state| state.id == id)
    }

    /// Calls `put` with offset on the disk and content of every run of a state, in pieces of at most 1 MiB.
    ///
    /// # Errors
    /// When the file ends early, or what `put` says.
    pub fn apply(&mut self, state: usize, put: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
        let runs = self.header.states.get(state).map(|state| state.runs.clone());
        let runs = runs.ok_or_else(|| io::Error::other("there is no such state"))?;
        let mut buffer = Vec::new();
        for (sector, block, count) in runs {
            self.source.seek(SeekFrom::Start(self.blocks_start + block * SECTOR as u64))?;
            let (mut at, mut left) = (sector * SECTOR as u64, count * SECTOR as u64);
            while left > 0 {
                let piece = left.min(1 << 20);
                buffer.resize(usize::try_from(piece).unwrap_or(SECTOR), 0);
                self.source.read_exact(&mut buffer)?;
                put(at, &buffer)?;
                at += piece;
                left -= piece;
            }
        }
        Ok(())
    }
}

fn check(header: &Header) -> Result<(), String> {
    if header.format != FORMAT {
        return Err(format!("its format is {:?}", header.format));
    }
    let sectors = header.disk_bytes / SECTOR as u64;
    if header.blocks > u64::from(u32::MAX) {
        return Err("it has too many blocks".to_owned());
    }
    for state in &header.states {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if state.id.is_empty() || !state.id.bytes().all(legal) {
            return Err(format!("{:?} is no id", state.id));
        }
        let mut free = 0;
        for (sector, block, count) in &state.runs {
            let end = sector.checked_add(*count).filter(|end| *end <= sectors);
            let inside = block.checked_add(*count).is_some_and(|end| end <= header.blocks);
            match end {
                Some(end) if *sector >= free && inside && *count > 0 => free = end,
                _ => return Err(format!("the run at sector {sector} of {} is not valid", state.id)),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
