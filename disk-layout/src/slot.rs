//! The two system slots.

use std::fmt;
use std::ops::Not;
use std::str::FromStr;

/// One of the two system partitions (`DSK-2`).
///
/// `!slot` is the other one. Shown and parsed as `a` or `b`, the letter that stands in entry names, directories of the
/// ESP and `ralph.slot=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// The partition labelled `SYSTEM_A`.
    A,
    /// The partition labelled `SYSTEM_B`.
    B,
}

impl Slot {
    /// Both slots, A first.
    pub const ALL: [Slot; 2] = [Slot::A, Slot::B];

    /// The letter, `a` or `b`.
    pub const fn letter(self) -> &'static str {
        match self {
            Slot::A => "a",
            Slot::B => "b",
        }
    }

    /// The GPT label of the slot's partition (`DSK-2`; exact, case-sensitive).
    pub const fn label(self) -> &'static str {
        match self {
            Slot::A => "SYSTEM_A",
            Slot::B => "SYSTEM_B",
        }
    }

    /// The slot whose partition has this GPT label (`DSK-21`).
    pub fn from_label(label: &str) -> Option<Slot> {
        Slot::ALL.into_iter().find(|slot| slot.label() == label)
    }
}

impl Not for Slot {
    type Output = Slot;

    fn not(self) -> Slot {
        match self {
            Slot::A => Slot::B,
            Slot::B => Slot::A,
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.letter())
    }
}

/// The text is not `a` or `b`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a slot: it is either \"a\" or \"b\"")]
pub struct NotASlot(pub String);

impl FromStr for Slot {
    type Err = NotASlot;

    /// Exactly `a` or `b`; an upper-case letter is refused (entry names are lowered before they are parsed, `ENT-1`).
    fn from_str(text: &str) -> Result<Slot, NotASlot> {
        Slot::ALL.into_iter().find(|slot| slot.letter() == text).ok_or_else(|| NotASlot(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_constants_round_trip() {
        for (slot, letter, label) in [(Slot::A, "a", "SYSTEM_A"), (Slot::B, "b", "SYSTEM_B")] {
            assert_eq!(slot.to_string(), letter);
            assert_eq!(letter.parse(), Ok(slot));
            assert_eq!(slot.label(), label);
            assert_eq!(Slot::from_label(label), Some(slot));
            assert_eq!(!!slot, slot);
            assert_ne!(!slot, slot);
        }
        assert_eq!(Slot::ALL, [Slot::A, Slot::B]);
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["", "A", "B", "c", "a ", "SYSTEM_A"] {
            assert_eq!(text.parse::<Slot>(), Err(NotASlot(text.to_owned())));
        }
        // DSK-2: labels are case-sensitive.
        assert_eq!(Slot::from_label("system_a"), None);
    }
}
