//! The boot service (`run`): look, check, settle.
//!
//! The lock is held at both ends and never while checks run: they take minutes, and an update of a committed system must not wait for
//! them. Whatever was read before the checks is read again before anything is changed.

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::act::{self, NotCommitted, Settled, World};
use crate::check::{self, COMMIT, Outcome, Reason};
use crate::machine::{Booted, Machine, OpenError};
use crate::policy::{Another, Facts, Required, Verdict, verdict};

/// A lock that is held is waited for this long.
const BUSY: Duration = Duration::from_secs(60);
/// Pause between two looks at the lock.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// HLT-31.
const ATTEMPTS: u32 = 3;
/// Pause between two attempts.
const ATTEMPT_PAUSE: Duration = Duration::from_secs(5);

/// What `run` found and did; a reboot it asks for is still to come.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    /// The verdict, and of what.
    pub settled: Settled,
    /// The checks, with those that we add ourselves.
    pub outcomes: Vec<Outcome>,
    /// What else is worth telling, in order.
    pub notes: Vec<String>,
}

/// Everything but the reboot.
pub fn run(machine: &dyn Machine, world: World<'_>, checks: impl FnOnce() -> Vec<Outcome>) -> Ran {
    let mut runner = Runner { machine, world, notes: Vec::new() };
    let seen = runner.look();
    let mut outcomes = checks();
    let settled = match seen {
        // It has all been done: a committed boot changes nothing on the ESP, and need not wait for an update that has begun.
        Some(Seen { booted: booted @ Booted::Committed(_), done }) => {
            let facts =
                Facts { booted: act::kind(&booted), required: check::required(&outcomes), another: Another::No };
            Settled { verdict: verdict(facts), booted, done }
        }
        seen => runner.settle(seen.map(|seen| seen.booted), &mut outcomes),
    };
    Ran { settled, outcomes, notes: runner.notes }
}

/// What the first look found.
struct Seen {
    booted: Booted,
    /// Was `ralphd` told, if the slot is committed?
    done: bool,
}

struct Runner<'a> {
    machine: &'a dyn Machine,
    world: World<'a>,
    notes: Vec<String>,
}

/// What one attempt came to, if it did not settle the matter.
enum Unsettled {
    /// The state could not be opened.
    Open(OpenError),
    /// A slot was not committed, or not wholly.
    Commit(NotCommitted, Booted),
}

impl Runner<'_> {
    /// Before the checks: on a committed boot `ralphd` is told at once (HLT-3). `None` if nothing could be read.
    fn look(&mut self) -> Option<Seen> {
        let records = self.world.records;
        let looked = self.open(|session, notes| {
            let booted = session.booted();
            let done = match &booted {
                Booted::Committed(entry) => {
                    let (told, whole) = act::committed(session, entry, records, notes);
                    if let Err(fault) = whole {
                        // Both names start this slot (LDR-7), so the boot is none the worse for it.
                        notes.push(format!("a commit that was cut is not ended: {}", crate::chain(fault.as_ref())));
                    }
                    told
                }
                Booted::Trial { .. } | Booted::Unknown(_) => true,
            };
            Seen { booted, done }
        });
        looked.map_err(|error| self.notes.push(format!("before the checks: {}", crate::chain(&error)))).ok()
    }

    /// After the checks: decide and act, with three attempts at a commit (HLT-31).
    fn settle(&mut self, seen: Option<Booted>, outcomes: &mut Vec<Outcome>) -> Settled {
        let mut known = seen;
        let mut last = String::new();
        for attempt in 1..=ATTEMPTS {
            match self.attempt(outcomes) {
                Ok(settled) => return settled,
                Err(Unsettled::Open(error)) => last = crate::chain(&error),
                Err(Unsettled::Commit(NotCommitted { fault }, booted)) => {
                    last = crate::chain(fault.as_ref());
                    known = Some(booted);
                }
            }
            self.notes.push(format!("attempt {attempt} of {ATTEMPTS} failed: {last}"));
            if attempt < ATTEMPTS {
                self.world.clock.sleep(ATTEMPT_PAUSE);
            }
        }
        let booted = match known {
            Some(booted @ Booted::Trial { .. }) => booted,
            // Half done, and not worse than a commit that was cut: both names start this slot (LDR-7).
            Some(booted @ Booted::Committed(_)) => {
                let required = check::required(outcomes);
                let facts = Facts { booted: act::kind(&booted), required, another: Another::No };
                return Settled { verdict: verdict(facts), booted, done: false };
            }
            Some(Booted::Unknown(_)) | None => {
                let why = format!("the state could not be read: {last}");
                return Settled { verdict: Verdict::Unknown, booted: Booted::Unknown(why), done: false };
            }
        };
        // A trial that passed but cannot be committed has failed; one that failed already is recorded as far as it goes.
        if check::required(outcomes) == Required::AllPassed {
            outcomes.push(Outcome::own_failure(COMMIT, Reason::Commit, last));
            if let Ok(settled) = self.attempt(outcomes) {
                return settled;
            }
        }
        self.stay(booted, outcomes)
    }

    /// A failed trial whose state cannot be opened any more: whether anything better boots is not known, so it stays up.
    fn stay(&mut self, booted: Booted, outcomes: &[Outcome]) -> Settled {
        if let Booted::Trial { entry, attempt } = &booted {
            act::record(entry, *attempt, outcomes, self.world, &mut self.notes);
            self.notes.push("the failed trial is not in the history: the state could not be read".to_owned());
        }
        Settled { verdict: Verdict::RecordAndStay, booted, done: true }
    }

    fn attempt(&mut self, outcomes: &mut [Outcome]) -> Result<Settled, Unsettled> {
        let world = self.world;
        let result = self.open(|session, notes| {
            let settled = act::settle(session, outcomes, world, notes);
            settled.map_err(|error| Unsettled::Commit(error, session.booted()))
        });
        result.map_err(Unsettled::Open)?
    }

    /// Opens a session, waiting for a lock that is held, and closes it after the work.
    fn open<T>(
        &mut self,
        mut work: impl FnMut(&mut dyn crate::machine::Session, &mut Vec<String>) -> T,
    ) -> Result<T, OpenError> {
        let clock = self.world.clock;
        let until = clock.monotonic().saturating_add(BUSY);
        loop {
            let mut done = None;
            let opened = self.machine.session(&mut |session| done = Some(work(session, &mut self.notes)));
            match opened {
                Err(OpenError::Busy(_)) if clock.monotonic() < until => clock.sleep(BUSY_PAUSE),
                Err(error) => return Err(error),
                Ok(close) => {
                    if let Some(fault) = close {
                        self.notes.push(format!("closing the ESP: {}", crate::chain(fault.as_ref())));
                    }
                    return done.ok_or_else(|| OpenError::Other("the session ended before its work".into()));
                }
            }
        }
    }
}
