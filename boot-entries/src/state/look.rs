//! A closer look at what was read, for who wants to know what stands in the way of the plan.

use super::EspState;
use crate::entry::EntryArchitecture;
use crate::loader::{self, Candidate};

impl EspState {
    /// The loader's list in its order (`LDR-1`, `LDR-3`): what it would show, foreign entries too.
    pub fn candidates(&self, architecture: EntryArchitecture) -> Vec<Candidate> {
        loader::candidates(&self.files, &|kernel| self.kernels.contains(kernel), architecture)
    }

    /// The name of a candidate's file, as it is stored.
    pub fn file_of(&self, candidate: &Candidate) -> &str {
        &self.files[candidate.index].name
    }

    /// True when the entry in this file is one with an `efi` key, which newer loaders do not count (`ENT-12`).
    pub fn uses_efi_key(&self, file_name: &str) -> bool {
        self.files.iter().any(|file| file.name == file_name && loader::uses_efi_key(&file.content))
    }

    /// The same state without these files in `loader/entries`, to ask the model what they change.
    #[must_use]
    pub fn without(&self, file_names: &[&str]) -> EspState {
        let stays = |name: &str| !file_names.contains(&name);
        let mut state = self.clone();
        state.files.retain(|file| stays(&file.name));
        state.ours.retain(|entry| stays(&entry.file_name));
        state.foreign.retain(|name| stays(name));
        state
    }
}
