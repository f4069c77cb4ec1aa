//! A closer look at what was read, for who wants to know what stands in the way of the plan.

use super::EspState;
use crate::entry::EntryArchitecture;
use crate::loader::{self, Release};

impl EspState {
    /// True when some release of the loader would show the entry in this file (`LDR-1`, `LDR-9`).
    pub fn is_shown(&self, file_name: &str, architecture: EntryArchitecture) -> bool {
        let shown =
            |release| self.candidates(release, architecture).iter().any(|c| self.files[c.index].name == file_name);
        Release::ALL.into_iter().any(shown)
    }

    /// True when the entry in this file is one with an `efi` key, which newer loaders do not count (`ENT-12`).
    pub fn uses_efi_key(&self, file_name: &str) -> bool {
        self.files.iter().any(|file| file.name == file_name && loader::uses_efi_key(&file.content))
    }

    /// True when the loader stops for good at this file in `loader/entries`, whatever else would boot (`LDR-10`).
    pub fn halts_the_loader(&self, file_name: &str) -> bool {
        self.files.iter().any(|file| file.name == file_name && loader::halts_the_loader(file))
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
