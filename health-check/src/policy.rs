//! The verdict: what follows from what is known (HLT-30). A pure function; [`crate::act`] carries it out.

/// What kind of entry the machine was booted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Booted {
    /// One with a counter, and the loader has counted this boot.
    Trial,
    /// One with a counter whose DONE is 0 although it was booted: the loader cannot count here (LDR-5), and its tries never run down.
    NotCounted,
    /// One without.
    Committed,
    /// No entry matches, or the machine's own accounts of it disagree (DSK-31).
    Unknown,
}

/// Did the required checks pass?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Required {
    /// Every one.
    AllPassed,
    /// At least one did not.
    OneFailed,
}

/// Does the loader model name another whole entry if the booted one is bad (UPD-50)?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Another {
    /// It does: a reboot ends on something better, at the latest when the tries are used up.
    Whole,
    /// It does not, or it could not be asked: a reboot would leave the machine worse off.
    No,
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
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Commit the booted slot.
    Commit,
    /// Record evidence, then reboot, so that the counter runs down.
    RecordAndReboot,
    /// Mark the entry bad, because no counter runs down; then record evidence and reboot.
    MarkBadAndReboot,
    /// Record evidence, stay up and report: nothing better would boot.
    RecordAndStay,
    /// All is well and nothing is to be done.
    Healthy,
    /// A committed system fails its checks: report, never reboot.
    Report,
    /// What is booted is not known: report, change nothing.
    Unknown,
}

/// The table of HLT-30.
pub fn verdict(facts: Facts) -> Verdict {
    match (facts.booted, facts.required, facts.another) {
        (Booted::Trial | Booted::NotCounted, Required::AllPassed, _) => Verdict::Commit,
        (Booted::Trial, Required::OneFailed, Another::Whole) => Verdict::RecordAndReboot,
        (Booted::NotCounted, Required::OneFailed, Another::Whole) => Verdict::MarkBadAndReboot,
        (Booted::Trial | Booted::NotCounted, Required::OneFailed, Another::No) => Verdict::RecordAndStay,
        (Booted::Committed, Required::AllPassed, _) => Verdict::Healthy,
        (Booted::Committed, Required::OneFailed, _) => Verdict::Report,
        (Booted::Unknown, _, _) => Verdict::Unknown,
    }
}

impl Verdict {
    /// Does it end in a reboot?
    pub fn reboots(self) -> bool {
        matches!(self, Self::RecordAndReboot | Self::MarkBadAndReboot)
    }
}

/// Must the model be asked before the verdict? Asking reads two whole payloads, so it is asked only where the table looks.
pub fn depends_on_another(booted: Booted, required: Required) -> bool {
    let with = |another| verdict(Facts { booted, required, another });
    with(Another::Whole) != with(Another::No)
}

#[cfg(test)]
mod tests {
    use super::Another::{No, Whole};
    use super::Booted::{Committed, NotCounted, Trial, Unknown};
    use super::Required::{AllPassed, OneFailed};
    use super::*;

    fn of(booted: Booted, required: Required, another: Another) -> Verdict {
        verdict(Facts { booted, required, another })
    }

    #[test]
    fn hlt_30_row_1_a_trial_that_passes_is_committed() {
        assert_eq!(of(Trial, AllPassed, Whole), Verdict::Commit);
        assert_eq!(of(Trial, AllPassed, No), Verdict::Commit);
    }

    #[test]
    fn hlt_30_row_2_a_trial_that_fails_reboots_if_something_better_boots() {
        assert_eq!(of(Trial, OneFailed, Whole), Verdict::RecordAndReboot);
    }

    #[test]
    fn hlt_30_row_3_a_trial_that_was_not_counted_and_fails_is_marked_bad() {
        assert_eq!(of(NotCounted, OneFailed, Whole), Verdict::MarkBadAndReboot);
        // That nobody counted is no reason not to commit what works.
        assert_eq!(of(NotCounted, AllPassed, Whole), Verdict::Commit);
        assert_eq!(of(NotCounted, AllPassed, No), Verdict::Commit);
    }

    #[test]
    fn hlt_30_row_4_a_trial_that_fails_stays_up_if_nothing_better_boots() {
        assert_eq!(of(Trial, OneFailed, No), Verdict::RecordAndStay);
        assert_eq!(of(NotCounted, OneFailed, No), Verdict::RecordAndStay);
    }

    #[test]
    fn hlt_30_row_5_a_committed_system_that_passes_is_healthy() {
        assert_eq!(of(Committed, AllPassed, Whole), Verdict::Healthy);
        assert_eq!(of(Committed, AllPassed, No), Verdict::Healthy);
    }

    #[test]
    fn hlt_30_row_6_a_committed_system_never_reboots() {
        assert_eq!(of(Committed, OneFailed, Whole), Verdict::Report);
        assert_eq!(of(Committed, OneFailed, No), Verdict::Report);
    }

    #[test]
    fn hlt_30_row_7_an_unknown_boot_changes_nothing() {
        for required in [AllPassed, OneFailed] {
            for another in [Whole, No] {
                assert_eq!(of(Unknown, required, another), Verdict::Unknown);
            }
        }
    }

    #[test]
    fn the_model_is_asked_for_a_failed_trial_alone() {
        for booted in [Trial, NotCounted, Committed, Unknown] {
            for required in [AllPassed, OneFailed] {
                let expected = matches!((booted, required), (Trial | NotCounted, OneFailed));
                assert_eq!(depends_on_another(booted, required), expected);
            }
        }
    }
}
