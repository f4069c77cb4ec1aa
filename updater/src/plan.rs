//! The plan of every update, asked of the loader model: the new system is tried, and if it fails the running one comes
//! back (UPD-1). One place for `apply`, which refuses when it would not be so, and for the doctor, who says beforehand.

use boot_entries::{Counter, Entry, EntryArchitecture, EntryName, EspState, LoaderVars, OnCorruption, Prediction};
use disk_layout::DiskLayout;

use crate::session::Running;

/// Whom the model is asked about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) state: &'a EspState,
    pub(crate) vars: &'a LoaderVars,
    pub(crate) architecture: EntryArchitecture,
}

/// Where the plan breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Broken {
    /// This boots instead of the staged system.
    NotTried(Prediction),
    /// This boots instead of the running system once the staged one is bad.
    NotBack(Prediction),
}

impl Asked<'_> {
    /// What boots as things are.
    pub(crate) fn now(&self) -> Prediction {
        self.state.predict(self.vars, self.architecture)
    }

    /// Staged, the new entry must boot; once it is bad, the running system must.
    pub(crate) fn check(&self, running: EntryName, entry: &Entry) -> Result<(), Broken> {
        let staged = self.staged(entry, Counter::fresh());
        if !staged.boots(entry.name(Some(Counter::fresh()))) {
            return Err(Broken::NotTried(staged));
        }
        let failed = self.staged(entry, Counter::bad());
        // A running system without tries left is no better than the new one would be then: nothing is lost.
        if !running.is_exhausted() && !failed.boots(running) {
            return Err(Broken::NotBack(failed));
        }
        Ok(())
    }

    /// Everything the loader will be asked before the next update is over: now, when what boots now is bad, and, with an
    /// update `next` staged, that, and back.
    pub(crate) fn choices(&self, next: Option<&Entry>) -> Vec<Prediction> {
        let now = self.now();
        let mut all = Vec::new();
        if let Prediction::Boots { entry: Some(name), .. } = &now {
            all.push(self.state.predict_if_bad(*name, self.vars, self.architecture));
        }
        if let Some(entry) = next {
            all.extend([Counter::fresh(), Counter::bad()].map(|counter| self.staged(entry, counter)));
        }
        all.insert(0, now);
        all
    }

    fn staged(&self, entry: &Entry, counter: Counter) -> Prediction {
        self.state.predict_staged(entry, counter, self.vars, self.architecture)
    }
}

/// The entry that an update would stage now, as far as the loader's choice goes.
pub(crate) fn next_update(state: &EspState, running: &Running, layout: &DiskLayout) -> Option<Entry> {
    let mut entry = running.entry().clone();
    entry.options.on_corruption = OnCorruption::Restart;
    let slot = running.target().slot();
    entry.options.slot = slot;
    entry.options.generation = state.highest_generation()?.next()?;
    entry.options.partuuid = layout.slot(slot).unique_guid;
    entry.options.failed = None;
    Some(entry)
}
