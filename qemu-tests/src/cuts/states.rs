//! Reads a state file (CUT-50): states of a disk that a power cut could have left.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use power_cuts::patch::{PatchBoots, PatchReader};

use super::boots::Booted;

/// Places on a disk (first byte, a multiple of 512) and what stands there, in whole sectors.
pub type Patch = Vec<(u64, Vec<u8>)>;

/// A state file, open.
#[derive(Debug)]
pub struct States {
    reader: PatchReader<File>,
    next: usize,
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
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let reader = PatchReader::open(file).with_context(|| format!("{}", path.display()))?;
        Ok(States { reader, next: 0 })
    }

    /// How many are left.
    pub fn left(&self) -> usize {
        self.reader.header().states.len() - self.next
    }

    /// What boots in each, and its name.
    pub fn names(&self) -> Vec<(Booted, String)> {
        let states = self.reader.header().states.iter();
        let booted = |boots: &PatchBoots| Booted { slot: boots.slot.clone(), generation: boots.generation };
        states.map(|state| (booted(&state.boots), state.id.clone())).collect()
    }

    /// The next one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn next_state(&mut self) -> Result<Option<State>> {
        let Some(state) = self.reader.header().states.get(self.next).cloned() else { return Ok(None) };
        let mut patch = Vec::new();
        let mut put = |offset, bytes: &[u8]| {
            patch.push((offset, bytes.to_vec()));
            Ok(())
        };
        self.reader.apply(self.next, &mut put).with_context(|| format!("the blocks of {}", state.id))?;
        self.next += 1;
        let boots = state.boots;
        Ok(Some(State {
            id: state.id,
            patch,
            file: boots.file,
            slot: boots.slot,
            generation: boots.generation,
            options: boots.options,
        }))
    }

    /// The state of this name.
    ///
    /// # Errors
    /// When it is not among those left, or cannot be read.
    pub fn find(&mut self, id: &str) -> Result<State> {
        while let Some(state) = self.next_state()? {
            if state.id == id {
                return Ok(state);
            }
        }
        anyhow::bail!("there is no state {id}")
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
        let mut bytes = b"PWRCUTS1".to_vec();
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
        assert!(states.find("commit-i001-s0001").is_err(), "it is behind us");
    }
}
