//! The bytes of the record (`GRD-2`, `GRD-3`). Pure: no files, no clock.

use std::fmt;
use std::str::FromStr;

use disk_layout::Slot;
use sha2::{Digest, Sha256};

use super::RECORD_SIZE;
use crate::names::Generation;

const MAGIC: &[u8; 8] = b"RALPHGRD";
const VERSION: u32 = 1;
/// Instead of a DONE: the entry had no counter. No counter reaches it (`ENT-1`).
const NO_COUNTER: u32 = u32::MAX;
const EVENT: usize = 32;
const TEXT: usize = EVENT + 16;
const TEXT_MAX: usize = 48;
const DIGEST: usize = 480;

/// What the guard remembers. The default is an empty record: nothing counted, nothing happened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GuardRecord {
    /// Boots of `entry` since a health check last reached a verdict.
    pub boots: u32,
    /// The entry of those boots.
    pub entry: Option<(Slot, Generation)>,
    /// DONE of its counter at the last boot; None when it had no counter.
    pub done: Option<u32>,
    /// What ended a boot before any health check could speak.
    pub event: Option<GuardEvent>,
}

/// Evidence of a boot that was ended (`GRD-3`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardEvent {
    /// The slot that was booted.
    pub slot: Slot,
    /// Its generation.
    pub generation: Generation,
    /// DONE of its counter in that boot; None when the entry had no counter.
    pub attempt: Option<u32>,
    /// What happened.
    pub text: GuardText,
}

/// 1 to 48 characters of `[a-z0-9:. -]`, no space at either end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardText(String);

/// The text cannot stand in the record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot stand in the boot guard's record: 1 to 48 of a-z 0-9 : . - and spaces between them")]
pub struct NotGuardText(pub String);

/// Why a sector is not a record; it counts as an empty one (`GRD-2`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the boot guard's record is damaged or of another version ({0}) and counts as empty")]
pub struct GuardDamage(&'static str);

fn legal(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || ":. -".contains(c)
}

impl GuardText {
    /// Whatever is left of `text` when it is made to fit: lower case, other characters become dashes, the end is cut.
    /// Text of which nothing is left becomes `-`.
    pub fn sanitised(text: &str) -> GuardText {
        let fit = |c: char| if legal(c.to_ascii_lowercase()) { c.to_ascii_lowercase() } else { '-' };
        let short: String = text.trim().chars().map(fit).take(TEXT_MAX).collect();
        let short = short.trim();
        GuardText(if short.is_empty() { "-".to_owned() } else { short.to_owned() })
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for GuardText {
    type Err = NotGuardText;

    fn from_str(text: &str) -> Result<GuardText, NotGuardText> {
        let fits = (1..=TEXT_MAX).contains(&text.len()) && text.chars().all(legal) && text.trim() == text;
        if fits { Ok(GuardText(text.to_owned())) } else { Err(NotGuardText(text.to_owned())) }
    }
}

impl fmt::Display for GuardText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl GuardRecord {
    /// The sector. A `done` or `attempt` that no counter can hold is written as none.
    pub fn encode(&self) -> [u8; RECORD_SIZE] {
        let mut bytes = [0; RECORD_SIZE];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, MAGIC);
        put(8, &VERSION.to_le_bytes());
        put(12, &self.boots.to_le_bytes());
        if let Some((slot, generation)) = self.entry {
            put(16, &[slot_byte(slot)]);
            put(20, &generation.get().to_le_bytes());
        }
        put(24, &self.done.unwrap_or(NO_COUNTER).to_le_bytes());
        if let Some(event) = &self.event {
            put(EVENT, &[slot_byte(event.slot)]);
            put(EVENT + 4, &event.generation.get().to_le_bytes());
            put(EVENT + 8, &event.attempt.unwrap_or(NO_COUNTER).to_le_bytes());
            put(TEXT, event.text.0.as_bytes());
        }
        let digest = Sha256::digest(&bytes[..DIGEST]);
        bytes[DIGEST..].copy_from_slice(&digest);
        bytes
    }

    /// Reads the first 512 bytes of `bytes`. Zeros alone are an empty record, and no damage.
    ///
    /// # Errors
    /// [`GuardDamage`], which the guard treats as an empty record: one that refused would make a damaged sector a reason
    /// not to boot.
    pub fn decode(bytes: &[u8]) -> Result<GuardRecord, GuardDamage> {
        let bytes = bytes.get(..RECORD_SIZE).ok_or(GuardDamage("it is too short"))?;
        if bytes.iter().all(|b| *b == 0) {
            return Ok(GuardRecord::default());
        }
        if bytes[..8] != MAGIC[..] {
            return Err(GuardDamage("it does not begin as one"));
        }
        if Sha256::digest(&bytes[..DIGEST])[..] != bytes[DIGEST..] {
            return Err(GuardDamage("its digest is wrong"));
        }
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if u32_at(8) != VERSION {
            return Err(GuardDamage("its version"));
        }
        let counter = |at| Some(u32_at(at)).filter(|done| *done != NO_COUNTER);
        let system = |slot: usize, generation: usize| match (bytes[slot], u32_at(generation)) {
            (0, 0) => Ok(None),
            (b'a', number) => Ok(Generation::new(number).map(|g| (Slot::A, g))),
            (b'b', number) => Ok(Generation::new(number).map(|g| (Slot::B, g))),
            _ => Err(GuardDamage("it names no slot")),
        };
        let entry = system(16, 20)?;
        let event = match system(EVENT, EVENT + 4)? {
            None if bytes[EVENT..EVENT + 64].iter().all(|b| *b == 0) => None,
            None => return Err(GuardDamage("its event has no slot")),
            Some((slot, generation)) => {
                let end = TEXT + TEXT_MAX;
                let text = bytes[TEXT..end].iter().take_while(|b| **b != 0).map(|b| char::from(*b)).collect::<String>();
                let text = text.parse().map_err(|_| GuardDamage("the text of its event"))?;
                Some(GuardEvent { slot, generation, attempt: counter(EVENT + 8), text })
            }
        };
        let record = GuardRecord { boots: u32_at(12), entry, done: counter(24), event };
        // What should be zero and is not, and slots without a generation.
        if record.encode()[..] == *bytes { Ok(record) } else { Err(GuardDamage("its fields contradict each other")) }
    }

    /// With one more boot of this entry, which begins at 1 where another was counted before (`GRD-10`).
    pub fn counted(self, slot: Slot, generation: Generation, done: Option<u32>) -> GuardRecord {
        let boots = if self.entry == Some((slot, generation)) { self.boots.saturating_add(1) } else { 1 };
        GuardRecord { boots, entry: Some((slot, generation)), done, event: self.event }
    }

    /// After a verdict: no boot is counted any more, the event stays until it is recorded (`GRD-11`).
    pub fn verdict(self) -> GuardRecord {
        GuardRecord { boots: 0, ..self }
    }

    /// With this event in the place of an earlier one.
    pub fn with_event(self, event: GuardEvent) -> GuardRecord {
        GuardRecord { event: Some(event), ..self }
    }

    /// Without an event, which was recorded elsewhere.
    pub fn without_event(self) -> GuardRecord {
        GuardRecord { event: None, ..self }
    }
}

fn slot_byte(slot: Slot) -> u8 {
    match slot {
        Slot::A => b'a',
        Slot::B => b'b',
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_slot() -> impl Strategy<Value = Slot> {
        any::<bool>().prop_map(|a| if a { Slot::A } else { Slot::B })
    }

    fn any_system() -> impl Strategy<Value = (Slot, Generation)> {
        (any_slot(), 1..=u32::MAX).prop_map(|(slot, n)| (slot, Generation::new(n).unwrap()))
    }

    fn any_done() -> impl Strategy<Value = Option<u32>> {
        proptest::option::of(0..=i32::MAX as u32)
    }

    fn any_event() -> impl Strategy<Value = GuardEvent> {
        (any_system(), any_done(), "[a-z0-9:.-]([a-z0-9:. -]{0,46}[a-z0-9:.-])?").prop_map(
            |((slot, generation), attempt, text)| GuardEvent { slot, generation, attempt, text: text.parse().unwrap() },
        )
    }

    fn any_record() -> impl Strategy<Value = GuardRecord> {
        let (entry, event) = (proptest::option::of(any_system()), proptest::option::of(any_event()));
        (any::<u32>(), entry, any_done(), event).prop_map(|(boots, entry, done, event)| GuardRecord {
            boots,
            entry,
            done,
            event,
        })
    }

    fn seal(bytes: &mut [u8; RECORD_SIZE]) {
        let digest = Sha256::digest(&bytes[..DIGEST]);
        bytes[DIGEST..].copy_from_slice(&digest);
    }

    #[test]
    fn grd2_the_bytes_are_those_of_the_table() {
        let generation = Generation::new(0x0102_0304).unwrap();
        let event = GuardEvent { slot: Slot::A, generation, attempt: Some(2), text: "deadline".parse().unwrap() };
        let record = GuardRecord { boots: 5, entry: Some((Slot::B, generation)), done: None, event: Some(event) };
        let bytes = record.encode();
        assert_eq!(&bytes[..12], b"RALPHGRD\x01\0\0\0");
        assert_eq!(&bytes[12..24], b"\x05\0\0\0b\0\0\0\x04\x03\x02\x01");
        assert_eq!(&bytes[24..32], b"\xff\xff\xff\xff\0\0\0\0");
        assert_eq!(&bytes[32..48], b"a\0\0\0\x04\x03\x02\x01\x02\0\0\0\0\0\0\0");
        assert_eq!(&bytes[48..57], b"deadline\0");
        assert!(bytes[57..480].iter().all(|b| *b == 0));
        assert_eq!(bytes[480..], Sha256::digest(&bytes[..480])[..]);
    }

    #[test]
    fn grd2_zeros_are_an_empty_record_and_damage_is_told() {
        assert_eq!(GuardRecord::decode(&[0; 4096]), Ok(GuardRecord::default()));
        assert!(GuardRecord::decode(&[0; 511]).is_err());
        assert!(GuardRecord::decode(&[0xff; 512]).is_err());
        let mut other = GuardRecord::default().encode();
        other[8] = 2;
        seal(&mut other);
        assert_eq!(GuardRecord::decode(&other), Err(GuardDamage("its version")));
        // A whole digest over what we never write.
        for (at, byte) in [(16, b'c'), (17, 1), (28, 1), (32, b'a'), (48, b'x'), (96, 1), (479, 1)] {
            let mut odd = GuardRecord::default().encode();
            odd[at] = byte;
            seal(&mut odd);
            assert!(GuardRecord::decode(&odd).is_err(), "byte {at}");
        }
    }

    #[test]
    fn grd3_text_is_checked_or_made_to_fit() {
        for text in ["deadline", "initrd: no-root", "check: net.dns", "a", &"x".repeat(48)] {
            assert_eq!(text.parse::<GuardText>().unwrap(), GuardText::sanitised(text));
        }
        for text in ["", " ", "a ", "Emergency", "a_b", "ä", "a\n", &"x".repeat(49)] {
            assert!(text.parse::<GuardText>().is_err(), "{text:?}");
        }
        assert_eq!(GuardText::sanitised(" No Root!\n").as_str(), "no root-");
        assert_eq!(GuardText::sanitised("").as_str(), "-");
        assert_eq!(GuardText::sanitised(&"é".repeat(60)).as_str(), "-".repeat(48));
    }

    #[test]
    fn grd10_another_entry_begins_at_1_and_grd11_a_verdict_at_0() {
        let generation = |n| Generation::new(n).unwrap();
        let record = GuardRecord::default().counted(Slot::B, generation(2), Some(1));
        assert_eq!((record.boots, record.entry, record.done), (1, Some((Slot::B, generation(2))), Some(1)));
        let record = record.counted(Slot::B, generation(2), Some(2));
        assert_eq!((record.boots, record.done), (2, Some(2)));
        assert_eq!(record.clone().counted(Slot::A, generation(2), None).boots, 1);
        assert_eq!(record.clone().counted(Slot::B, generation(3), None).boots, 1);
        let text = GuardText::sanitised("guard");
        let event = GuardEvent { slot: Slot::B, generation: generation(2), attempt: Some(2), text };
        let told = record.with_event(event.clone()).verdict();
        assert_eq!((told.boots, told.event.as_ref()), (0, Some(&event)));
        assert_eq!(told.clone().counted(Slot::B, generation(2), None).boots, 1);
        assert_eq!(told.without_event().event, None);
        let full = GuardRecord { boots: u32::MAX, entry: Some((Slot::A, generation(1))), ..GuardRecord::default() };
        assert_eq!(full.counted(Slot::A, generation(1), None).boots, u32::MAX);
    }

    proptest! {
        #[test]
        fn grd2_round_trip(record in any_record()) {
            prop_assert_eq!(GuardRecord::decode(&record.encode()), Ok(record));
        }

        #[test]
        fn grd2_one_changed_byte_is_damage(record in any_record(), at in 0usize..512, flip in 1u8..) {
            let mut bytes = record.encode();
            bytes[at] ^= flip;
            prop_assert!(GuardRecord::decode(&bytes).is_err());
        }

        #[test]
        fn grd2_any_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 512), whole: bool) {
            bytes[..8].copy_from_slice(MAGIC);
            let mut bytes: [u8; 512] = bytes.try_into().unwrap();
            if whole {
                seal(&mut bytes);
            }
            let _ = GuardRecord::decode(&bytes);
        }

        #[test]
        fn grd3_whatever_is_made_to_fit_fits(text in any::<String>()) {
            let text = GuardText::sanitised(&text);
            prop_assert_eq!(text.as_str().parse::<GuardText>(), Ok(text.clone()));
        }
    }
}
