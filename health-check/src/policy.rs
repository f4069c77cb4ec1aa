//! The verdict: what follows from what is known (HLT-30). A pure function; [`crate::act`] carries it out.

#[cfg(test)]
mod tests;

use crate::config::Action;

/// What kind of entry the machine was booted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Booted {
    /// One with a counter, and the loader has counted this boot.
    Trial,
    /// One with a counter whose DONE is 0 although it was booted: the loader cannot count here (LDR-5), and its tries never run down.
    NotCounted,
    /// One with a counter, but by a kexec or a soft-reboot: nothing is learned of how the firmware boots it (HLT-37).
    NotFirmware,
    /// One without.
    Committed,
    /// No entry matches, or the machine's own accounts of it disagree (DSK-31).
    Unknown,
}

/// How the required checks stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Required {
    /// Nothing is final: checks run, the soak is not over, or a commit is to be tried again.
    Pending,
    /// Every one passed.
    AllPassed,
    /// At least one did not.
    OneFailed,
}

/// Does the loader model name another whole entry if the booted one is bad (UPD-50)?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Another {
    /// It does: a reboot ends on something better, at the latest when the tries are used up.
    Whole,
    /// It does not: a reboot would leave the machine worse off.
    No,
    /// It could not be asked: an I/O error, or a lock that was held. Nothing is done on that, and the guard, which asked in the initrd, stays.
    NotKnown,
}

/// All that the verdict depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The booted entry.
    pub booted: Booted,
    /// The checks.
    pub required: Required,
    /// What else would boot.
    pub another: Another,
    /// What the policy wants done with a failure (HLT-34).
    pub action: Action,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Not yet a verdict: go on.
    KeepTrying,
    /// Commit the booted slot.
    Commit,
    /// Record evidence, then reboot, so that the counter runs down.
    RecordAndReboot,
    /// Mark the entry bad, because no counter runs down or because the next boot would show the same; then record evidence and reboot.
    MarkBadAndReboot,
    /// Record evidence, stay up and report: nothing better would boot, or the policy wants it so.
    RecordAndStay,
    /// All is well and nothing is to be done.
    Healthy,
    /// A committed system fails its checks, or a trial was not booted by the firmware: report, never reboot.
    Report,
    /// What is booted is not known: report, change nothing.
    Unknown,
}

/// The table of HLT-30, row by row.
pub fn verdict(facts: Facts) -> Verdict {
    use Booted::{Committed, NotCounted, NotFirmware, Trial, Unknown};
    use Required::{AllPassed, OneFailed, Pending};
    match (facts.booted, facts.required, facts.another, facts.action) {
        (Trial | NotCounted | NotFirmware | Committed, Pending, _, _) => Verdict::KeepTrying, // 1
        (Trial | NotCounted, AllPassed, _, _) => Verdict::Commit,                             // 2
        (Trial, OneFailed, Another::Whole, Action::Reboot) => Verdict::RecordAndReboot,       // 3
        (Trial, OneFailed, Another::Whole, Action::MarkBad) => Verdict::MarkBadAndReboot,     // 4
        (Trial | NotCounted, OneFailed, Another::Whole, Action::Stay) => Verdict::RecordAndStay, // 5
        (NotCounted, OneFailed, Another::Whole, Action::Reboot | Action::MarkBad) => Verdict::MarkBadAndReboot, // 6
        (Trial | NotCounted, OneFailed, Another::No, _) => Verdict::RecordAndStay,            // 7
        (Trial | NotCounted, OneFailed, Another::NotKnown, _) => Verdict::RecordAndStay,      // 12
        (NotFirmware, AllPassed | OneFailed, _, _) => Verdict::Report,                        // 8
        (Committed, AllPassed, _, _) => Verdict::Healthy,                                     // 9
        (Committed, OneFailed, _, _) => Verdict::Report,                                      // 10
        (Unknown, _, _, _) => Verdict::Unknown,                                               // 11
    }
}

impl Verdict {
    /// Does it end in a reboot?
    pub fn reboots(self) -> bool {
        matches!(self, Self::RecordAndReboot | Self::MarkBadAndReboot)
    }

    /// Does the machine stay up with it, so that the guard has nothing left to end (HLT-36)?
    pub fn stays_up(self, booted: Booted) -> bool {
        match self {
            Self::KeepTrying | Self::RecordAndReboot | Self::MarkBadAndReboot => false,
            Self::Report => booted == Booted::Committed,
            Self::Commit | Self::RecordAndStay | Self::Healthy | Self::Unknown => true,
        }
    }
}

/// Must the model be asked before the verdict? Asking reads two whole payloads, so it is asked only where the table looks.
pub fn depends_on_another(booted: Booted, required: Required, action: Action) -> bool {
    let with = |another| verdict(Facts { booted, required, another, action });
    with(Another::Whole) != with(Another::No)
}

/// Is the entry one that may be committed now? Then what the checks saw is asked again under the lock (HLT-23).
pub fn may_be_committed(booted: Booted) -> bool {
    matches!(booted, Booted::Trial | Booted::NotCounted)
}
