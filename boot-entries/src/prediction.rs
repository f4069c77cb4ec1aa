//! What the loader will do, whichever release of it a machine has (`LDR-8`, `LDR-9`).

use std::fmt;

use crate::loader::{ChoiceReason, Outcome, Release};
use crate::names::EntryName;

/// What the loader will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prediction {
    /// It boots this file.
    Boots {
        /// The name as it is stored.
        file_name: String,
        /// What the name says, when it is one of ours.
        entry: Option<EntryName>,
        /// Why this one.
        reason: ChoiceReason,
    },
    /// It finds nothing to boot and waits for a person.
    Nothing,
    /// It cannot be told.
    Unknown {
        /// Why not; at least one thing.
        because: Vec<Unpredictable>,
    },
}

/// Something for which nothing can be predicted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unpredictable {
    /// The loader takes what has this path into account, and the model does not (`LDR-8`).
    Unmodelled(String),
    /// The loader stops for good when it reads the file of this name in `loader/entries`, whatever else would boot
    /// (`LDR-10`).
    Halts(String),
    /// Releases of the loader would do different things (`LDR-9`).
    ReleasesDiffer {
        /// What one of them does.
        one: Outcome,
        /// What another does.
        other: Outcome,
    },
    /// This pattern may name something that is no entry (`LDR-8`).
    Pattern(String),
}

impl fmt::Display for Unpredictable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unpredictable::Unmodelled(path) => f.write_str(path),
            Unpredictable::Halts(file) => write!(f, "loader/entries/{file}, at which the boot loader halts"),
            Unpredictable::ReleasesDiffer { one, other } => {
                write!(f, "releases of the boot loader that differ ({}, or {})", describe(one), describe(other))
            }
            Unpredictable::Pattern(pattern) => {
                write!(f, "the pattern {pattern:?}, which may name something else than an entry")
            }
        }
    }
}

/// All of it, for a person.
pub fn because_text(because: &[Unpredictable]) -> String {
    because.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl Prediction {
    /// True when it boots the entry of this slot and generation.
    pub fn boots(&self, name: EntryName) -> bool {
        matches!(self, Prediction::Boots { entry: Some(entry), .. } if entry.same_system(name))
    }
}

/// `LDR-9`: what all releases do. Twins start the same system, so that it does not matter which one they take.
pub(crate) fn agreed(outcomes: &[(Release, Outcome)]) -> Prediction {
    let ours = |outcome: &Outcome| match outcome {
        Outcome::Boots(choice) => choice.name.parse::<EntryName>().ok(),
        _ => None,
    };
    let same = |a: &Outcome, b: &Outcome| match (a, b) {
        (Outcome::Boots(a_choice), Outcome::Boots(b_choice)) => {
            let twins =
                ours(a).zip(ours(b)).is_some_and(|(a, b)| a.same_system(b) && a.is_exhausted() == b.is_exhausted());
            a_choice.index == b_choice.index || twins
        }
        _ => a == b,
    };
    let Some(((_, first), others)) = outcomes.split_first() else { return Prediction::Nothing };
    if let Some((_, other)) = others.iter().find(|(_, other)| !same(first, other)) {
        let differ = Unpredictable::ReleasesDiffer { one: first.clone(), other: other.clone() };
        return Prediction::Unknown { because: vec![differ] };
    }
    match first {
        Outcome::Boots(choice) => {
            Prediction::Boots { file_name: choice.name.clone(), entry: ours(first), reason: choice.reason }
        }
        Outcome::Nothing => Prediction::Nothing,
        Outcome::Automatic { pattern } => {
            Prediction::Unknown { because: vec![Unpredictable::Pattern(pattern.clone())] }
        }
    }
}

fn describe(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Boots(choice) => format!("{}: {}", choice.name, reason_text(choice.reason)),
        Outcome::Nothing => "nothing boots".to_owned(),
        Outcome::Automatic { pattern } => Unpredictable::Pattern(pattern.clone()).to_string(),
    }
}

/// Why the loader takes an entry, for a person.
pub fn reason_text(reason: ChoiceReason) -> &'static str {
    match reason {
        ChoiceReason::OneShot => "the EFI variable LoaderEntryOneShot names it, for one boot",
        ChoiceReason::DefaultVariable => "the EFI variable LoaderEntryDefault names it",
        ChoiceReason::DefaultInConf => "the default line of loader.conf names it",
        ChoiceReason::First => "it is the first in the loader's order",
    }
}
