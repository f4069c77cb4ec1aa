//! The order of effects, event by event, and what a power cut or an error at each of them leaves.

mod choice;
mod faults;
mod flows;
mod more_flows;
mod sequences;
mod tidying;

use disk_layout::{Slot, UpdateLock};

use super::*;
use crate::esp::FakeEsp;
use crate::names::{EntryName, Generation};
use crate::state::{EspState, OurEntry};
use crate::testing::{boots, entry, machine, payload, sha256};

fn lock() -> UpdateLock {
    UpdateLock::for_tests()
}

/// The entry with this name, as a program finds it.
fn find(esp: &mut dyn Esp, name: &str) -> Result<OurEntry, ChangeError> {
    let state = EspState::read(esp)?;
    let name: EntryName = name.parse().expect("a name of ours");
    let found = state.ours.into_iter().find(|entry| entry.name == name);
    found.ok_or(ChangeError::Changed { file_name: name.to_string() })
}

/// What `apply` does to the ESP, for a system of slot B.
fn apply(esp: &mut dyn Esp, generation: u32) -> Result<(), ChangeError> {
    let lock = lock();
    let _ = tidy(&lock, esp)?;
    let fenced = fence(&lock, esp, Slot::B)?;
    let mut write = |kind| {
        let content = payload(Slot::B, generation, kind);
        let (size, digest) = (content.len() as u64, sha256(&content));
        let generation = Generation::new(generation).expect("not 0");
        fenced.write_payload(&lock, esp, kind, generation, size, &mut content.as_slice(), digest)
    };
    let entry = entry(Slot::B, generation);
    let written = entry.payloads.files().into_iter().map(|(kind, _)| write(kind)).collect::<Result<Vec<_>, _>>()?;
    stage(&lock, esp, fenced, &written, &entry)?;
    Ok(())
}

/// A flow and everything that must be true of it.
struct Flow<'a> {
    /// The volume before.
    before: FakeEsp,
    /// What is done; it must be possible to do it again after a cut.
    act: &'a dyn Fn(&mut dyn Esp) -> Result<(), ChangeError>,
    /// Every event in order.
    events: &'a [&'a str],
    /// Slot and generation that may boot after a cut.
    may_boot: &'a [(Slot, u32)],
    /// The files in `loader/entries` afterwards.
    after: &'a [&'a str],
}

impl Flow<'_> {
    fn check(&self) {
        let mut esp = self.before.clone();
        (self.act)(&mut esp).unwrap();
        self.check_end(&esp, "at the end");
        let events = esp.take_events();
        assert_eq!(events, self.events, "{events:#?}");

        for at in 0..self.events.len() {
            let mut esp = self.before.clone();
            esp.fail_at(at);
            (self.act)(&mut esp).expect_err("the event was told to fail");
            let mut expected: Vec<String> = self.events[..at].iter().map(|event| event.to_string()).collect();
            expected.push(format!("FAILED {}", self.events[at]));
            assert_eq!(esp.take_events(), expected, "nothing may follow a failure");
            // The error was met with the machine running; then the same with the power gone.
            self.check_cut(&esp, at);
            for cut in esp.after_power_cut() {
                self.check_cut(&cut, at);
            }
        }
    }

    /// A volume that a cut or an error before event `at` left: it boots one system, whole, and the flow can be finished.
    fn check_cut(&self, cut: &FakeEsp, at: usize) {
        let told = format!("before event {at}, {}: {:#?}", self.events[at], cut.files());
        let booted = boots(cut);
        assert!(booted.is_some_and(|system| self.may_boot.contains(&system)), "{booted:?} {told}");
        let mut again = FakeEsp::clone(cut);
        again.take_events();
        (self.act)(&mut again).unwrap_or_else(|error| panic!("{error:?} {told}"));
        self.check_end(&again, &told);
    }

    fn check_end(&self, esp: &FakeEsp, told: &str) {
        let entries: Vec<&str> =
            esp.files().into_iter().filter_map(|path| path.strip_prefix("loader/entries/")).collect();
        assert_eq!(entries, self.after, "{told}");
        assert!(boots(esp).is_some_and(|system| self.may_boot.contains(&system)), "{told}");
    }
}
