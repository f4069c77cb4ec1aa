//! What is to be done (LUP-4), from the files, the firmware's word and the standing of the alternate loader.

use super::Retry;
use super::firmware::Standing;
use super::program::Program;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Current,
    Newer,
    /// Written beside the default, and the firmware asked to try it.
    Stage,
    /// It is there: the firmware is asked to try it.
    Ask(Standing),
    Waits,
    Promote,
    DidNotStart,
    OnAlternate,
}

/// What that depends on.
#[derive(Debug)]
pub(super) struct Facts<'f> {
    /// What the system carries.
    pub ours: &'f Program,
    pub default: Option<&'f Program>,
    pub alternate: Option<&'f Program>,
    /// The alternate one started this boot, and not the default.
    pub by_alternate: bool,
    /// They have changed places since.
    pub promoted: bool,
    pub standing: Option<Standing>,
    /// The firmware has not yet tried what it was asked to.
    pub pending: bool,
    pub retry: Retry,
}

pub(super) fn decide(facts: &Facts<'_>) -> Step {
    let is_ours = |other: Option<&Program>| other.is_some_and(|other| other.sha256 == facts.ours.sha256);
    // A default that does not say its release is damaged, and older than anything.
    let older = facts.default.is_some_and(|default| facts.ours.is_older_than(default));
    if facts.by_alternate && !(facts.promoted && is_ours(facts.default)) {
        // What started this boot is the only one that is known to start anything.
        let better = is_ours(facts.alternate) && !is_ours(facts.default) && !older;
        return if better { Step::Promote } else { Step::OnAlternate };
    }
    if is_ours(facts.default) {
        return Step::Current;
    }
    if older {
        return Step::Newer;
    }
    if !is_ours(facts.alternate) {
        return Step::Stage;
    }
    match facts.standing {
        Some(Standing::Proven) => Step::Promote,
        _ if facts.pending => Step::Waits,
        Some(Standing::Waits | Standing::Previous) => Step::Ask(Standing::FirstTry),
        Some(Standing::FirstTry) => Step::Ask(Standing::SecondTry),
        Some(Standing::SecondTry) | None if facts.retry == Retry::Yes => Step::Ask(Standing::FirstTry),
        Some(Standing::SecondTry) | None => Step::DidNotStart,
    }
}
