//! The boot guard (specs/boot-guard.md), as a seam: the process that would end this boot, and the record that outlives it.

#[cfg(test)]
mod tests;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use boot_entries::Generation;
use boot_entries::guard::{GIVEN_UP, GuardDevice, GuardError, GuardEvent, GuardRecord, GuardText};
use boot_guard::{DROP_IN, GuardClient, TRIAL_FILE, Trial};
use disk_layout::{BootedError, SysRoot, find_booted};

use crate::check::{EMERGENCY, Outcome, Reason};
use crate::limit;
use crate::machine::{Entry, Fault};
use crate::systemd::systemctl;

/// How long the process may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// The process that the guard left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Watch {
    /// It waits for a verdict.
    Armed {
        /// Until its deadline.
        left: Duration,
        /// It ends this boot then (GRD-21); otherwise nothing happens.
        another: bool,
    },
    /// It could not be asked. It may well watch.
    NotKnown {
        /// Why.
        why: String,
        /// Until its deadline, as it wrote it down (GRD-20).
        left: Option<Duration>,
    },
    /// Nobody watches: this is no trial, or there is no guard.
    Off {
        /// What says so.
        why: String,
        /// Until what it left to systemd ends this boot, if it did (GRD-23).
        left: Option<Duration>,
    },
}

impl Watch {
    /// How long until this boot is ended, as far as is known.
    pub fn left(&self) -> Option<Duration> {
        match *self {
            Self::Armed { left, another } => another.then_some(left),
            Self::NotKnown { left, .. } | Self::Off { left, .. } => left,
        }
    }
}

/// What becomes of the guard's count of boots (GRD-11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// The machine stays up: the count is 0.
    Zero,
    /// This boot is counted.
    Keep,
}

/// A failed trial, as the guard's record names it (GRD-3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The booted entry.
    pub entry: Entry,
    /// Which attempt of the trial.
    pub attempt: u32,
    /// `check: NAME` of the first check that failed by itself, or `emergency`, or `guard`.
    pub text: String,
}

impl Failure {
    /// Of a trial whose checks ended so. Where no check failed, because there is none, it is the configuration that proves nothing.
    pub fn of(entry: &Entry, attempt: u32, outcomes: &[Outcome]) -> Self {
        let failed: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.fails_the_trial()).collect();
        // One that only waited for another is no cause.
        let cause = failed.iter().find(|outcome| outcome.reason != Some(Reason::After)).or(failed.first());
        let text = match cause {
            _ if given_up(outcomes) => GIVEN_UP.to_owned(),
            Some(failed) if failed.reason == Some(Reason::Emergency) => EMERGENCY.to_owned(),
            Some(failed) => format!("check: {}", failed.name),
            None => format!("check: {}", crate::check::CONFIGURATION),
        };
        Self { entry: entry.clone(), attempt, text }
    }
}

/// Has the guard given the entry up? Then nothing else is held against the system, whatever failed beside it (UPD-42).
pub fn given_up(outcomes: &[Outcome]) -> bool {
    outcomes.iter().any(|outcome| outcome.reason == Some(Reason::GivenUp))
}

/// What the health check asks of the guard (HLT-36).
pub trait Guard {
    /// Is this boot watched?
    fn watch(&self) -> Watch;
    /// The machine stays up: the process on watch ends, and what it left to systemd is taken back (GRD-23). What did not work.
    fn disarm(&self) -> Vec<String>;
    /// Writes the count of boots and, in the same write, the event of a trial that failed. Waits no longer than this for a disk that hangs.
    fn record(&self, count: Count, failure: Option<&Failure>, within: Duration) -> Result<(), Fault>;
}

/// How long systemd may take to read its units again.
const RELOAD: Duration = Duration::from_secs(10);

/// The guard of a machine.
#[derive(Debug)]
pub struct BootGuard {
    client: GuardClient,
    /// Where `/run` and `/proc` are.
    root: PathBuf,
    /// Has systemd read its units again.
    reload: fn() -> Result<(), Fault>,
}

impl BootGuard {
    /// That of this machine.
    pub fn of_this_machine() -> Self {
        let reload = || Ok(systemctl(&["daemon-reload"], RELOAD).map(drop)?);
        Self { client: GuardClient::new(), root: "/".into(), reload }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Until the deadline that the guard wrote down, if it ends this boot. One that has passed did not.
    fn left_as_written(&self) -> Option<Duration> {
        let trial = Trial::parse(&fs::read_to_string(self.at(TRIAL_FILE)).ok()?).ok()?;
        let uptime = fs::read_to_string(self.at("/proc/uptime")).ok()?;
        let uptime = Duration::try_from_secs_f64(uptime.split(' ').next()?.parse().ok()?).ok()?;
        let left = trial.another.then(|| trial.deadline().checked_sub(uptime))??;
        (!left.is_zero()).then_some(left)
    }
}

impl Guard for BootGuard {
    fn watch(&self) -> Watch {
        match self.client.status(ANSWER) {
            Ok(Some(status)) => Watch::Armed { left: status.left, another: status.another },
            Ok(None) => {
                let left = self.at(DROP_IN).exists().then(|| self.left_as_written()).flatten();
                Watch::Off { why: "nobody answers for it".to_owned(), left }
            }
            Err(error) => Watch::NotKnown { why: crate::chain(&error), left: self.left_as_written() },
        }
    }

    fn disarm(&self) -> Vec<String> {
        let reload = || (self.reload)().map_err(|fault| crate::chain(fault.as_ref()));
        updater::release::disarm(&self.client, &self.root, &reload)
    }

    fn record(&self, count: Count, failure: Option<&Failure>, within: Duration) -> Result<(), Fault> {
        let failure = failure.cloned();
        Ok(limit::within(within, move || record(&SysRoot::real(), count, failure.as_ref()))??)
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

fn record(sys: &SysRoot, count: Count, failure: Option<&Failure>) -> Result<(), NotRecorded> {
    let disk = find_booted(sys)?;
    let mut device = GuardDevice::open_partition(disk.esp_dev(), &disk.layout)?;
    let before = device.read()?;
    let after = with_verdict(before.clone(), count, failure);
    // An ordinary boot of a committed system writes nothing but what the guard had counted.
    if after != before { Ok(device.write(&after)?) } else { Ok(()) }
}

/// The record after a verdict. An event stays until it is recorded elsewhere, but for a later one (GRD-3).
fn with_verdict(record: GuardRecord, count: Count, failure: Option<&Failure>) -> GuardRecord {
    let record = match count {
        Count::Zero => record.verdict(),
        Count::Keep => record,
    };
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
