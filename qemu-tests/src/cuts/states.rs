//! Reads a state file (CUT-50): states of a disk that a power cut could have left.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Places on a disk (first byte, a multiple of 512) and what stands there, in whole sectors.
pub type Patch = Vec<(u64, Vec<u8>)>;

const MAGIC: &[u8; 8] = b"PWRCUTS1";
const SECTOR: u64 = 512;
const HEADER_MAX: usize = 64 << 20;

/// A state file, open.
#[derive(Debug)]
pub struct States {
    file: File,
    /// Where block 0 begins.
    blocks: u64,
    states: std::vec::IntoIter<Value>,
}

/// A state: what is different on the disk, and what should boot.
#[derive(Clone, Debug)]
pub struct State {
    /// Its name.
    pub id: String,
    /// What is different from the disk before the flow.
    pub patch: Patch,
    /// The file of the entry that boots.
    pub file: String,
    /// Its slot, `a` or `b`.
    pub slot: String,
    /// Its generation.
    pub generation: u32,
    /// The options that the loader starts its kernel with.
    pub options: String,
}

impl States {
    /// Reads the header; states come one by one.
    ///
    /// # Errors
    /// When it cannot be read, or is no state file.
    pub fn open(path: &Path) -> Result<States> {
        let shown = path.display();
        let mut file = File::open(path).with_context(|| format!("cannot open {shown}"))?;
        let mut head = [0; 16];
        file.read_exact(&mut head)?;
        ensure!(head.starts_with(MAGIC), "{shown} is no state file");
        let len = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
        ensure!(len <= HEADER_MAX, "{shown}: a header of {len} bytes");
        let mut header = vec![0; len];
        file.read_exact(&mut header)?;
        let mut header: Value = serde_json::from_slice(&header).with_context(|| format!("{shown}: the header"))?;
        let Value::Array(states) = header["states"].take() else { anyhow::bail!("{shown} has no states") };
        Ok(States { file, blocks: (16 + len as u64).next_multiple_of(SECTOR), states: states.into_iter() })
    }

    /// How many are left.
    pub fn left(&self) -> usize {
        self.states.len()
    }

    /// The next one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn next_state(&mut self) -> Result<Option<State>> {
        let Some(state) = self.states.next() else { return Ok(None) };
        let mut patch = Vec::new();
        for run in state["runs"].as_array().context("a state without runs")? {
            let number = |at: usize| run[at].as_u64().context("a run is three numbers");
            let (sector, block, count) = (number(0)?, number(1)?, number(2)?);
            let mut bytes = vec![0; usize::try_from(count * SECTOR)?];
            self.file.seek(SeekFrom::Start(self.blocks + block * SECTOR))?;
            self.file.read_exact(&mut bytes).context("the states end early")?;
            patch.push((sector * SECTOR, bytes));
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let boots = &state["boots"];
        let generation = u32::try_from(boots["generation"].as_u64().context("a state without a generation")?)?;
        Ok(Some(State {
            id: text(&state["id"]),
            patch,
            file: text(&boots["file"]),
            slot: text(&boots["slot"]),
            generation,
            options: text(&boots["options"]),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut50_a_state_file_is_read() {
        let header = r#"{"format": "power-cuts states 1", "flow": "commit", "seed": 7, "disk-bytes": 4096, "blocks": 2, "states": [
            {"id": "commit-i001-s0001", "made": "x", "kinds": [], "runs": [[3, 1, 1], [5, 0, 2]],
             "boots": {"file": "ralphos-b-g2.conf", "slot": "b", "generation": 2, "options": "ro"},
             "entries": [], "before": true, "after": true}]}"#;
        let mut bytes = MAGIC.to_vec();
        bytes.extend(u32::try_from(header.len()).expect("a short header").to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes.extend([1; 512]);
        bytes.extend([2; 512]);
        let path = std::env::temp_dir().join(format!("states-{}", std::process::id()));
        std::fs::write(&path, &bytes).expect("the temporary folder can be written to");
        let mut states = States::open(&path).expect("it is a state file");
        std::fs::remove_file(&path).expect("it was there");
        assert_eq!(states.left(), 1);
        let state = states.next_state().expect("it can be read").expect("there is one");
        assert_eq!((state.id.as_str(), state.slot.as_str(), state.generation), ("commit-i001-s0001", "b", 2));
        let both = [vec![1; 512], vec![2; 512]].concat();
        assert_eq!(state.patch, [(3 * 512, vec![2; 512]), (5 * 512, both)]);
        assert!(states.next_state().expect("no error").is_none());
    }
}
