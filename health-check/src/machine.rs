//! The machine's slots and entries, as a seam: what is booted, commit, and what would boot instead.

use std::error::Error;
use std::time::Duration;

use serde::Serialize;

/// The entry the machine was booted from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Entry {
    /// `a` or `b`.
    pub slot: String,
    /// Generation of the entry.
    pub generation: u32,
    /// System id, 64 hex digits.
    pub system: String,
    /// Version of the operating system.
    pub version: String,
}

/// How the machine was booted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Booted {
    /// From an entry with a counter.
    Trial {
        /// The entry.
        entry: Entry,
        /// Which attempt this is: the counter's DONE. 0: the loader did not count it.
        attempt: u32,
    },
    /// From an entry without one.
    Committed(Entry),
    /// It is not known, for this reason.
    Unknown(String),
}

/// An error of the updater, behind the seam.
pub type Fault = Box<dyn Error + Send + Sync>;

/// Why the machine's state cannot be worked with.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another program holds the lock.
    #[error("another program holds the update lock")]
    Busy(#[source] Fault),
    /// Anything else.
    #[error("cannot read the state of slots and entries")]
    Other(#[source] Fault),
}

/// Why nothing whole is known that would boot instead.
#[derive(Debug, thiserror::Error)]
pub enum NoOther {
    /// There is nothing.
    #[error("nothing better would boot")]
    None(#[source] Fault),
    /// It could not be asked.
    #[error("what else would boot could not be asked")]
    NotKnown(#[source] Fault),
}

/// Why an entry is marked bad; its word stands in the entry (`ralph.failed`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// The trial failed, and the loader does not count its tries (HLT-32).
    NotCounted,
    /// The trial failed, and the policy gives it up at once (HLT-34).
    Checks,
}

impl Bad {
    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Self::NotCounted => "not-counted",
            Self::Checks => "checks",
        }
    }
}

/// A machine with two slots.
pub trait Machine {
    /// Takes the lock, opens the ESP, reads the state and lets `work` at it; closes and unlocks in every case.
    /// `Ok(Some(…))`: the work was done and closing went wrong.
    fn session(&self, work: &mut dyn FnMut(&mut dyn Session)) -> Result<Option<Fault>, OpenError>;
    /// Reads without the lock how the machine was booted, and changes nothing. Enough for what no other program can change meanwhile: an
    /// apply never touches the running entry (HLT-39).
    fn glance(&self) -> Result<Booted, OpenError>;
}

/// The state under the lock.
pub trait Session {
    /// How the machine was booted.
    fn booted(&self) -> Booted;
    /// Why the booted trial was to be marked bad, if a cut let it boot once more: both names are live, and the loader took the
    /// one without the mark (UPD-22).
    fn cut_mark(&self) -> Option<String>;
    /// Tidies, then commits the booted slot (UPD-21) on the ESP, touching nothing else; what is worth telling.
    fn commit_entry(&mut self) -> Result<Vec<String>, Fault>;
    /// Records what [`Session::commit_entry`] or [`Session::finish_commit`] did, if anything: floor and history (UPD-40, UPD-41); what is worth
    /// telling. Waits no longer than this.
    fn record_commit(&mut self, detail: &str, within: Duration) -> Vec<String>;
    /// On a committed boot: if a second name of the booted entry is live, because a commit was cut, ends it (UPD-24) on the ESP, touching
    /// nothing else; what is worth telling.
    fn finish_commit(&mut self) -> Result<Vec<String>, Fault>;
    /// Asks the model whether something whole boots if the booted entry is bad (UPD-50): what it is, or why there is nothing.
    fn another(&mut self) -> Result<String, NoOther>;
    /// Tidies, asks the model again, and marks the booted entry bad (UPD-22); what is worth telling. With [`Bad::NotCounted`] an error also if
    /// it has no tries left already: then it was booted in spite of that, and would be again. Not so where they went by [`Session::cut_mark`].
    fn mark_bad(&mut self, why: Bad) -> Result<Vec<String>, Fault>;
    /// Records what nobody has recorded yet: fallbacks (UPD-43), and the booted system's commit (UPD-46), with the detail `own` if it is known to
    /// be that of this boot; what they are, and which of the two could not be recorded.
    fn note_unrecorded(&mut self, own: Option<&str>) -> Vec<String>;
    /// Takes an event that the boot guard left over into the history (UPD-44); what it says.
    fn take_over_guard_event(&mut self) -> Result<Vec<String>, Fault>;
    /// Appends `trial-failed` to the history (HLT-40), and waits no longer than this.
    fn record_trial_failed(&mut self, detail: &str, within: Duration) -> Result<(), Fault>;
}
