//! The boot guard (specs/boot-guard.md), as a seam: the process that would end this boot, and the record that outlives it.

#[cfg(test)]
mod tests;

use std::time::Duration;

use boot_entries::Generation;
use boot_entries::guard::{GuardDevice, GuardError, GuardEvent, GuardRecord, GuardText};
use boot_guard::GuardClient;
use disk_layout::{BootedError, SysRoot, find_booted};

use crate::check::{EMERGENCY, Outcome, Reason};
use crate::limit;
use crate::machine::{Entry, Fault};

/// How long reading and writing the record may take: a disk that hangs must not keep a failed trial from its reboot (HLT-42).
const RECORD: Duration = Duration::from_secs(10);

/// How long the process may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// The process that the guard left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Watch {
    /// It ends this boot when this time is over (GRD-21).
    Armed(Duration),
    /// Nothing ends this boot: it is no trial, or there is no guard.
    Off(String),
}

/// A failed trial, as the guard's record names it (GRD-3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The booted entry.
    pub entry: Entry,
    /// Which attempt of the trial.
    pub attempt: u32,
    /// `check: NAME` of the first failed check, or `emergency`.
    pub text: String,
}

impl Failure {
    /// Of a trial whose checks ended so. Where no check failed, because there is none, it is the configuration that proves nothing.
    pub fn of(entry: &Entry, attempt: u32, outcomes: &[Outcome]) -> Self {
        let text = match outcomes.iter().find(|outcome| outcome.fails_the_trial()) {
            Some(failed) if failed.reason == Some(Reason::Emergency) => EMERGENCY.to_owned(),
            Some(failed) => format!("check: {}", failed.name),
            None => format!("check: {}", crate::check::CONFIGURATION),
        };
        Self { entry: entry.clone(), attempt, text }
    }
}

/// What the health check asks of the guard (HLT-36).
pub trait Guard {
    /// Is this boot watched?
    fn watch(&self) -> Watch;
    /// The verdict is given: the process on watch ends.
    fn disarm(&self) -> Result<(), Fault>;
    /// Sets the count of boots to 0 (GRD-11) and, in the same write, the event of a trial that failed.
    fn record_verdict(&self, failure: Option<&Failure>) -> Result<(), Fault>;
}

/// The guard of this machine.
#[derive(Debug)]
pub struct BootGuard;

impl Guard for BootGuard {
    fn watch(&self) -> Watch {
        match GuardClient::new().status(ANSWER) {
            Ok(Some(status)) => Watch::Armed(status.left),
            Ok(None) => Watch::Off("nobody answers for it".to_owned()),
            Err(error) => Watch::Off(crate::chain(&error)),
        }
    }

    fn disarm(&self) -> Result<(), Fault> {
        // That it does not watch any more is what was wanted.
        Ok(GuardClient::new().disarm(ANSWER).map(drop)?)
    }

    fn record_verdict(&self, failure: Option<&Failure>) -> Result<(), Fault> {
        let failure = failure.cloned();
        Ok(limit::within(RECORD, move || record_verdict(&SysRoot::real(), failure.as_ref()))??)
    }
}

/// Why the verdict is not in the guard's record.
#[derive(Debug, thiserror::Error)]
enum NotRecorded {
    /// The disk is not found.
    #[error("the disk with the guard's record is not found")]
    Disk(#[from] BootedError),
    /// The record cannot be worked with.
    #[error(transparent)]
    Record(#[from] GuardError),
}

fn record_verdict(sys: &SysRoot, failure: Option<&Failure>) -> Result<(), NotRecorded> {
    let disk = find_booted(sys)?;
    let mut device = GuardDevice::open_partition(disk.esp_dev(), &disk.layout)?;
    let before = device.read()?;
    let after = with_verdict(before.clone(), failure);
    // An ordinary boot of a committed system writes nothing but what the guard had counted.
    if after != before { Ok(device.write(&after)?) } else { Ok(()) }
}

/// The record after a verdict. An event stays until it is recorded elsewhere, but for a later one (GRD-3).
fn with_verdict(record: GuardRecord, failure: Option<&Failure>) -> GuardRecord {
    let record = record.verdict();
    let event = failure.and_then(|failure| {
        Some(GuardEvent {
            slot: failure.entry.slot.parse().ok()?,
            generation: Generation::new(failure.entry.generation)?,
            attempt: Some(failure.attempt),
            text: GuardText::sanitised(&failure.text),
        })
    });
    match event {
        Some(event) => record.with_event(event),
        None => record,
    }
}
