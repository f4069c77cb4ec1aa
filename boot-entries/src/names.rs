//! Names: generations, counters, entry files and payload files (`ENT-1` to `ENT-4`).
//!
//! The state of a slot lives in the *name* of its entry, so a name is read strictly: what this module does not
//! recognise is foreign and never touched.

use std::fmt;
use std::str::FromStr;

use disk_layout::Slot;

use crate::entry::EntryArchitecture;
use crate::esp::EspPath;

/// Where entries lie on the ESP.
pub const ENTRIES_DIR: &str = "loader/entries";
/// Tries of a new entry.
const FRESH_TRIES: u32 = 3;
/// The highest number the boot loader reads as a counter (`INT_MAX`; `LDR-2`).
const COUNTER_MAX: u32 = i32::MAX as u32;

/// A generation: 1 … 4294967295, one more for every system staged on this disk (`ENT-4`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(u32);

impl Generation {
    /// The first one.
    pub const FIRST: Generation = Generation(1);

    /// None for 0, which is no generation.
    pub const fn new(number: u32) -> Option<Generation> {
        if number == 0 { None } else { Some(Generation(number)) }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The following generation; None behind the last.
    pub const fn next(self) -> Option<Generation> {
        match self.0.checked_add(1) {
            Some(number) => Some(Generation(number)),
            None => None,
        }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Generation {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Generation, NameError> {
        decimal(text).and_then(Generation::new).ok_or(NameError::Generation)
    }
}

/// Tries left and tries done, the `+LEFT-DONE` of a name (`ENT-2`).
///
/// Both reach as far as the loader counts: when every entry is bad it still boots one and counts DONE up without end,
/// and an entry must not become foreign by that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Counter {
    left: u32,
    done: u32,
}

impl Counter {
    /// None beyond what the loader counts (2147483647).
    pub const fn new(left: u32, done: u32) -> Option<Counter> {
        if left <= COUNTER_MAX && done <= COUNTER_MAX { Some(Counter { left, done }) } else { None }
    }

    /// The counter of a new entry, `+3-0`: every name the loader gives it is equally long.
    pub const fn fresh() -> Counter {
        Counter { left: FRESH_TRIES, done: 0 }
    }

    /// `+0-0`, for an entry that was committed before it was marked bad.
    pub const fn bad() -> Counter {
        Counter { left: 0, done: 0 }
    }

    /// No tries left, as many done as before (`UPD-22`). A bad name with another DONE might be the very name the
    /// firmware's counting runs into, and then the count would stop for ever (`LDR-7`).
    pub const fn bad_keeping_done(self) -> Counter {
        Counter { left: 0, done: self.done }
    }

    /// Tries left.
    pub const fn left(self) -> u32 {
        self.left
    }

    /// Tries done.
    pub const fn done(self) -> u32 {
        self.done
    }

    /// No tries are left: a bad entry, or a trial in its last try.
    pub const fn is_exhausted(self) -> bool {
        self.left == 0
    }

    /// What the loader makes of it when it boots the entry (`LDR-5`).
    pub const fn counted(self) -> Counter {
        let done = if self.done < COUNTER_MAX { self.done + 1 } else { COUNTER_MAX };
        Counter { left: self.left.saturating_sub(1), done }
    }
}

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{}-{}", self.left, self.done)
    }
}

impl FromStr for Counter {
    type Err = NameError;

    /// `+LEFT` is read as the loader reads it, as `+LEFT-0`; it is written in full.
    fn from_str(text: &str) -> Result<Counter, NameError> {
        let numbers = text.strip_prefix('+').ok_or(NameError::Counter)?;
        let (left, done) = numbers.split_once('-').unwrap_or((numbers, "0"));
        let (left, done) = (decimal(left).ok_or(NameError::Counter)?, decimal(done).ok_or(NameError::Counter)?);
        Counter::new(left, done).ok_or(NameError::Counter)
    }
}

/// The name of an entry of ours: `ralphos-SLOT-gGEN[+LEFT-DONE].conf` (`ENT-1`).
///
/// Parsed without regard to case, shown in lower case: two names that FAT holds for one are equal here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EntryName {
    /// The slot it starts.
    pub slot: Slot,
    /// Which of the systems that were ever staged it is.
    pub generation: Generation,
    /// None: committed.
    pub counter: Option<Counter>,
}

impl EntryName {
    /// The name of a new entry, with all its tries.
    pub const fn fresh(slot: Slot, generation: Generation) -> EntryName {
        EntryName { slot, generation, counter: Some(Counter::fresh()) }
    }

    /// The name of the same entry once it is committed.
    pub const fn committed(self) -> EntryName {
        EntryName { counter: None, ..self }
    }

    /// The name of the same entry once it is marked bad; itself when it has no tries left already (`UPD-22`).
    pub const fn marked_bad(self) -> EntryName {
        let counter = match self.counter {
            Some(counter) => counter.bad_keeping_done(),
            None => Counter::bad(),
        };
        EntryName { counter: Some(counter), ..self }
    }

    /// True for a name with a counter that has run down. While such an entry is the booted one it is still a trial.
    pub const fn is_exhausted(self) -> bool {
        matches!(self.counter, Some(counter) if counter.is_exhausted())
    }

    /// Names one slot and generation with `other`: twins, unless the counter is equal too.
    pub fn same_system(self, other: EntryName) -> bool {
        (self.slot, self.generation) == (other.slot, other.generation)
    }

    /// The path of the file.
    pub fn path(self) -> EspPath {
        EspPath::literal(&format!("{ENTRIES_DIR}/{self}"))
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ralphos-{}-g{}", self.slot, self.generation)?;
        if let Some(counter) = self.counter {
            counter.fmt(f)?;
        }
        f.write_str(".conf")
    }
}

impl FromStr for EntryName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<EntryName, NameError> {
        let name = text.to_ascii_lowercase();
        let stem =
            name.strip_suffix(".conf").and_then(|name| name.strip_prefix("ralphos-")).ok_or(NameError::Foreign)?;
        let (slot, rest) = stem.split_once("-g").ok_or(NameError::Foreign)?;
        let slot = slot.parse().map_err(|_| NameError::Foreign)?;
        let (generation, counter) = match rest.find('+') {
            Some(plus) => (&rest[..plus], Some(rest[plus..].parse()?)),
            None => (rest, None),
        };
        Ok(EntryName { slot, generation: generation.parse()?, counter })
    }
}

/// A kind of payload file on the ESP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PayloadKind {
    /// The kernel.
    Linux,
    /// The initial RAM disk.
    Initrd,
    /// A unified kernel image, which holds both.
    Uki,
}

impl PayloadKind {
    /// The word in the file's name and in the entry.
    pub const fn as_str(self) -> &'static str {
        match self {
            PayloadKind::Linux => "linux",
            PayloadKind::Initrd => "initrd",
            PayloadKind::Uki => "uki",
        }
    }
}

impl fmt::Display for PayloadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name of a payload file: `gGEN-linux`, `gGEN-initrd` or `gGEN-uki` in `ralphos/SLOT` (`ENT-3`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PayloadName {
    /// The slot, which is its directory.
    pub slot: Slot,
    /// The generation, which makes the name unique.
    pub generation: Generation,
    /// What it is.
    pub kind: PayloadKind,
}

impl PayloadName {
    /// Reads the name of a file in `ralphos/SLOT`.
    ///
    /// # Errors
    /// When it is not one of ours.
    pub fn parse(slot: Slot, file_name: &str) -> Result<PayloadName, NameError> {
        let name = file_name.to_ascii_lowercase();
        let (generation, kind) =
            name.strip_prefix('g').and_then(|name| name.split_once('-')).ok_or(NameError::Foreign)?;
        let kind = match kind {
            "linux" => PayloadKind::Linux,
            "initrd" => PayloadKind::Initrd,
            "uki" => PayloadKind::Uki,
            _ => return Err(NameError::Foreign),
        };
        Ok(PayloadName { slot, generation: generation.parse()?, kind })
    }

    /// The path of the file.
    pub fn path(self) -> EspPath {
        EspPath::literal(&format!("{}/g{}-{}", payload_dir(self.slot), self.generation, self.kind))
    }
}

/// The directory of a slot's payload files, `ralphos/a` or `ralphos/b`.
pub fn payload_dir(slot: Slot) -> EspPath {
    EspPath::literal(&format!("ralphos/{slot}"))
}

/// The directory of the entries, `loader/entries`.
pub fn entries_dir() -> EspPath {
    EspPath::literal(ENTRIES_DIR)
}

/// Where the firmware looks for a boot loader that nobody named to it (UEFI 2.10, section 3.5.1.1): the *default* of LUP-1.
pub fn default_loader(architecture: EntryArchitecture) -> EspPath {
    loader(architecture, "EFI")
}

/// The boot loader that is kept beside it: the *alternate* of LUP-1.
pub fn alternate_loader(architecture: EntryArchitecture) -> EspPath {
    loader(architecture, "ALT")
}

/// The folder of both.
pub fn loader_dir() -> EspPath {
    EspPath::literal("EFI/BOOT")
}

fn loader(architecture: EntryArchitecture, extension: &str) -> EspPath {
    EspPath::literal(&format!("EFI/BOOT/BOOT{}.{extension}", architecture.as_str().to_ascii_uppercase()))
}

/// A name is not one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not of our form at all.
    #[error("the name does not have the form ralphos-SLOT-gGENERATION[+LEFT-DONE].conf")]
    Foreign,
    /// The generation is not a number from 1 to 4294967295 without leading zeros.
    #[error("a generation is a number from 1 to 4294967295 without leading zeros")]
    Generation,
    /// The counter is not `+LEFT-DONE`.
    #[error("a counter is +LEFT-DONE, two numbers without leading zeros that the loader can count")]
    Counter,
}

/// A decimal number without sign or leading zeros.
pub(crate) fn decimal<T: FromStr>(text: &str) -> Option<T> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (digits && (text == "0" || !text.starts_with('0'))).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(slot: Slot, generation: u32, counter: Option<(u32, u32)>) -> EntryName {
        EntryName {
            slot,
            generation: Generation::new(generation).unwrap(),
            counter: counter.map(|(left, done)| Counter::new(left, done).unwrap()),
        }
    }

    #[test]
    fn ent1_literal_names_round_trip() {
        for (text, parsed) in [
            ("ralphos-a-g1.conf", name(Slot::A, 1, None)),
            ("ralphos-b-g7+3-0.conf", name(Slot::B, 7, Some((3, 0)))),
            ("ralphos-b-g7+0-3.conf", name(Slot::B, 7, Some((0, 3)))),
            ("ralphos-a-g4294967295+0-2147483647.conf", name(Slot::A, u32::MAX, Some((0, 2_147_483_647)))),
        ] {
            assert_eq!(text.parse(), Ok(parsed));
            assert_eq!(parsed.to_string(), text);
            assert_eq!(text.to_uppercase().parse(), Ok(parsed), "names are compared without regard to case");
        }
        assert_eq!(name(Slot::B, 7, None).path().as_str(), "loader/entries/ralphos-b-g7.conf");
    }

    #[test]
    fn ldr2_a_counter_without_done_means_done_0() {
        assert_eq!("ralphos-a-g2+3.conf".parse(), Ok(name(Slot::A, 2, Some((3, 0)))));
    }

    #[test]
    fn ent1_other_names_are_foreign() {
        for text in [
            "",
            ".conf",
            "ralphos-a-g1",
            "ralphos-a-g1.conf ",
            "ralphos-c-g1.conf",
            "ralphos-a-g0.conf",
            "ralphos-a-g01.conf",
            "ralphos-a-g4294967296.conf",
            "ralphos-a-g.conf",
            "ralphos-a-g1+.conf",
            "ralphos-a-g1+1-.conf",
            "ralphos-a-g1+-1.conf",
            "ralphos-a-g1+01-0.conf",
            "ralphos-a-g1+1-2-3.conf",
            "ralphos-a-g1+1+2.conf",
            "ralphos-a-g1+2147483648-0.conf",
            "ralphos-a-g+1.conf",
            "ralphos-a-g-1.conf",
            "xralphos-a-g1.conf",
            "ralphos-a-g1.efi",
            "ralphos-a-g1.conf.conf",
            "ralphos-a-g1\u{0660}.conf",
        ] {
            assert!(text.parse::<EntryName>().is_err(), "{text}");
        }
    }

    #[test]
    fn ent2_a_fresh_name_keeps_its_length_while_the_loader_counts() {
        let mut counter = Counter::fresh();
        let mut seen = Vec::new();
        while !counter.is_exhausted() {
            seen.push(counter.to_string());
            counter = counter.counted();
        }
        seen.push(counter.to_string());
        assert_eq!(seen, ["+3-0", "+2-1", "+1-2", "+0-3"]);
    }

    #[test]
    fn ldr5_an_exhausted_counter_counts_up_to_its_end() {
        assert_eq!(Counter::new(0, 3).unwrap().counted(), Counter::new(0, 4).unwrap());
        let last = Counter::new(0, COUNTER_MAX).unwrap();
        assert_eq!(last.counted(), last);
    }

    #[test]
    fn upd22_marking_bad_keeps_done() {
        assert_eq!(name(Slot::A, 2, Some((2, 1))).marked_bad(), name(Slot::A, 2, Some((0, 1))));
        assert_eq!(name(Slot::A, 2, Some((0, 3))).marked_bad(), name(Slot::A, 2, Some((0, 3))));
        assert_eq!(name(Slot::A, 2, None).marked_bad(), name(Slot::A, 2, Some((0, 0))));
    }

    #[test]
    fn ent3_payload_names_round_trip() {
        let linux = PayloadName::parse(Slot::B, "g7-linux").unwrap();
        assert_eq!(linux.path().as_str(), "ralphos/b/g7-linux");
        let initrd = PayloadName::parse(Slot::A, "G12-INITRD").unwrap();
        assert_eq!(initrd.path().as_str(), "ralphos/a/g12-initrd");
        assert_eq!(PayloadName::parse(Slot::A, "g1-uki").unwrap().path().as_str(), "ralphos/a/g1-uki");
        for text in ["g7", "g7-", "g07-linux", "7-linux", "g7-linux2", "g7_linux", ""] {
            assert!(PayloadName::parse(Slot::A, text).is_err(), "{text}");
        }
    }

    #[test]
    fn ent4_generations_end() {
        assert_eq!(Generation::new(0), None);
        assert_eq!(Generation::FIRST.next().map(Generation::get), Some(2));
        assert_eq!(Generation::new(u32::MAX).unwrap().next(), None);
    }

    pub(crate) fn any_name() -> impl Strategy<Value = EntryName> {
        let counter = proptest::option::of((0..=COUNTER_MAX, 0..=COUNTER_MAX));
        (any::<bool>(), 1..=u32::MAX, counter).prop_map(|(a, g, c)| name(if a { Slot::A } else { Slot::B }, g, c))
    }

    proptest! {
        #[test]
        fn ent1_every_name_round_trips(name in any_name()) {
            prop_assert_eq!(name.to_string().parse::<EntryName>(), Ok(name));
            prop_assert!(name.path().as_str().len() < 100);
        }

        #[test]
        fn ent1_whatever_parses_is_one_name(text in "(?i)ralphos-[abc]-g[0-9]{0,11}(\\+[0-9]{0,4}(-[0-9]{0,4})?)?\\.conf|.*") {
            if let Ok(name) = text.parse::<EntryName>() {
                prop_assert_eq!(name.to_string().parse::<EntryName>(), Ok(name));
            }
        }
    }
}
