//! The boot service (`run`): look, check, settle.
//!
//! The lock is held at both ends and never while checks run: they take minutes, and an update of a committed system must not wait for
//! them. Whatever was read before the checks is read again before anything is changed.

mod rounds;
#[cfg(test)]
mod tests;

use std::time::Duration;

use boot_entries::guard::GIVEN_UP;

use crate::act::{self, Attempt, Boot, NotSettled, Settled, Told, Trial, World};
use crate::check::{self, COMMIT, MARKED, Outcome, Reason};
use crate::config::Policy;
use crate::guard::Watch;
use crate::machine::{Booted, Machine, OpenError, Session};
use crate::policy::{self, Another, Facts, Required, Verdict};
use crate::span::Span;
use rounds::Rounds;

/// A lock that is held is waited for this long.
const BUSY: Duration = Duration::from_secs(60);
/// Pause between two looks at the lock.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// HLT-31.
const ATTEMPTS: u32 = 3;
/// Pause between two attempts.
const ATTEMPT_PAUSE: Duration = Duration::from_secs(5);
/// With this begins a note that must not be missed (HLT-38).
pub const WARNING: &str = "WARNING";

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

/// Everything but the reboot. `checks` runs them once, for no longer than it is told.
pub fn run(machine: &dyn Machine, world: World<'_>, checks: &mut dyn FnMut(Duration) -> Vec<Outcome>) -> Ran {
    let mut notes = Vec::new();
    let boot = surroundings(world, &mut notes);
    // The guard's time runs from its answer on, and the first look may have to wait.
    let asked = world.clock.monotonic();
    let mut runner = Runner { machine, world, boot: &boot, begun: None, notes };
    let seen = runner.look();
    runner.note_missing_guard(seen.as_ref());
    if let Some(Seen { booted: Booted::Committed(_), .. }) = seen {
        // The health check is reached: whoever pulls the plug while checks run is not a boot that failed (GRD-11).
        act::reached(world, &mut runner.notes);
    }
    // What could not be read yet is most likely what the checks are for.
    let kind = seen.as_ref().map_or(policy::Booted::Trial, |seen| act::kind(&seen.booted, &boot));
    // What has failed already is not to hold for any time.
    let failed = seen.as_ref().is_some_and(|seen| seen.cut_mark);
    let policy = Policy { soak: if failed { Span::seconds(0) } else { world.policy.soak }, ..world.policy };
    let rounds = Rounds::new(world.clock, policy, kind, &boot.watch, asked);
    let mut outcomes = rounds.run(checks, &mut runner.notes);
    let settled = match seen {
        // It has all been done: a committed boot changes nothing on the ESP, and need not wait for an update that has begun.
        Some(Seen { booted, done, whole: true, .. }) if kind == policy::Booted::Committed => {
            runner.leave(booted, &outcomes, done)
        }
        Some(Seen { booted, done, whole: false, .. }) => runner.catch_up(booted, &mut outcomes, done),
        seen => runner.settle(seen.map(|seen| seen.booted), &mut outcomes),
    };
    runner.tell_guard(&settled);
    Ran { settled, outcomes, notes: runner.notes }
}

/// What is asked once a boot. What cannot be learned is a note, and counts as nothing unusual.
fn surroundings(world: World<'_>, notes: &mut Vec<String>) -> Boot {
    match world.surroundings.bless_boot() {
        Ok(None) => {}
        Ok(Some(state)) => notes.push(format!(
            "{WARNING}: systemd-bless-boot.service is not masked ({state}): it would commit a slot that nobody has checked; \
             `systemctl mask systemd-bless-boot.service`"
        )),
        Err(fault) => {
            let why = crate::chain(fault.as_ref());
            notes.push(format!("{WARNING}: whether systemd-bless-boot.service is masked is not known: {why}"));
        }
    }
    let not_firmware = world.surroundings.not_firmware().unwrap_or_else(|fault| {
        notes.push(format!("whether the firmware booted this is not known: {}", crate::chain(fault.as_ref())));
        None
    });
    if let Some(why) = &not_firmware {
        notes.push(format!("no firmware boot: {why}"));
    }
    // The guard's time runs from its answer on.
    let (watch, asked) = (world.guard.watch(), world.clock.monotonic());
    let ends_at = watch.left().map(|left| asked.saturating_add(left));
    Boot { not_firmware, watch, ends_at }
}

/// What the first look found.
struct Seen {
    booted: Booted,
    /// Was `ralphd` told, if the slot is committed?
    done: bool,
    /// Was the state looked at under the lock?
    whole: bool,
    /// Has the trial failed by a mark that was cut (HLT-32)?
    cut_mark: bool,
}

struct Runner<'a> {
    machine: &'a dyn Machine,
    world: World<'a>,
    boot: &'a Boot,
    /// The trial whose commit was begun and failed.
    begun: Option<Box<Trial>>,
    notes: Vec<String>,
}

/// What one attempt came to, if it did not settle the matter.
enum Unsettled {
    /// The state could not be opened.
    Open(OpenError),
    /// A slot was not committed, or not wholly, or what else would boot could not be asked.
    Again(NotSettled, Booted),
}

/// The failed check of a trial that passed and cannot be committed (HLT-31).
fn not_committed(why: &str) -> Outcome {
    Outcome::own_failure(COMMIT, Reason::Commit, why.to_owned())
}

impl Runner<'_> {
    /// Before the checks: on a committed boot `ralphd` is told at once (HLT-3), also while another program holds the lock (HLT-39). `None` if
    /// nothing could be read.
    fn look(&mut self) -> Option<Seen> {
        let records = self.world.records;
        let mut work = |session: &mut dyn Session, notes: &mut Vec<String>| {
            let booted = session.booted();
            let mut done = true;
            match &booted {
                Booted::Committed(entry) => {
                    let (told, whole) = act::finish(session, entry, records, notes);
                    if let Err(fault) = whole {
                        // Both names start this slot (LDR-7), so the boot is none the worse for it.
                        notes.push(format!("a commit that was cut is not ended: {}", crate::chain(fault.as_ref())));
                    }
                    act::note_history(session, None, notes);
                    done = told;
                }
                Booted::Trial { .. } => act::take_over(session, notes),
                Booted::Unknown(_) => {}
            }
            Seen { booted, done, whole: true, cut_mark: session.cut_mark().is_some() }
        };
        let mut looked = self.open(Duration::ZERO, &mut work);
        if let Err(OpenError::Busy(_)) = looked {
            match self.machine.glance() {
                Ok(Booted::Committed(entry)) => {
                    let done = act::announce(&entry, records, &mut self.notes);
                    return Some(Seen { booted: Booted::Committed(entry), done, whole: false, cut_mark: false });
                }
                // What is to be done with a trial needs the lock.
                Ok(Booted::Trial { .. } | Booted::Unknown(_)) | Err(_) => looked = self.open(BUSY, &mut work),
            }
        }
        looked.map_err(|error| self.notes.push(format!("before the checks: {}", crate::chain(&error)))).ok()
    }

    fn note_missing_guard(&mut self, seen: Option<&Seen>) {
        let Some(Seen { booted: Booted::Trial { .. }, .. }) = seen else { return };
        match &self.boot.watch {
            Watch::Armed { .. } => {}
            Watch::NotKnown { why, .. } => self.notes.push(format!("does a boot guard watch over this trial? {why}")),
            Watch::Off { why, .. } => self.notes.push(format!("no boot guard watches over this trial: {why}")),
        }
    }

    /// The verdict of a committed boot on which nothing is left to do.
    fn leave(&self, booted: Booted, outcomes: &[Outcome], done: bool) -> Settled {
        let verdict = self.judge(Some(&booted), check::required(outcomes));
        Settled { verdict, booted, done, guard: Told::NotYet }
    }

    /// A committed boot that was only glanced at: what else there is to do, if the lock is free by now.
    fn catch_up(&mut self, booted: Booted, outcomes: &mut Vec<Outcome>, told: bool) -> Settled {
        let error = match self.attempt(outcomes, true, None) {
            Ok(settled) => return settled,
            Err(Unsettled::Open(error)) => crate::chain(&error),
            Err(Unsettled::Again(NotSettled { fault, .. }, _)) => crate::chain(fault.as_ref()),
        };
        self.notes.push(format!("whether something fell back is not looked at in this boot: {error}"));
        self.leave(booted, outcomes, told)
    }

    /// What follows as far as it does not depend on what else would boot. What could not be read is most likely a trial.
    fn judge(&self, booted: Option<&Booted>, required: Required) -> Verdict {
        let booted = booted.map_or(policy::Booted::Trial, |booted| act::kind(booted, self.boot));
        policy::verdict(Facts { booted, required, another: Another::No, action: self.world.policy.on_failure })
    }

    /// After the checks: decide and act, with three attempts at a commit (HLT-31).
    fn settle(&mut self, seen: Option<Booted>, outcomes: &mut Vec<Outcome>) -> Settled {
        let mut known = seen;
        let mut attempt = 0;
        let last = loop {
            attempt += 1;
            let last = match self.attempt(outcomes, attempt == ATTEMPTS, None) {
                Ok(settled) => return settled,
                Err(Unsettled::Open(error)) => crate::chain(&error),
                Err(Unsettled::Again(NotSettled { fault, .. }, booted)) => {
                    known = Some(booted);
                    crate::chain(fault.as_ref())
                }
            };
            self.notes.push(format!("attempt {attempt} of {ATTEMPTS} failed: {last}"));
            // Something that is tried again is open yet.
            let required = if attempt < ATTEMPTS { Required::Pending } else { check::required(outcomes) };
            if self.judge(known.as_ref(), required) != Verdict::KeepTrying {
                break last;
            }
            self.world.clock.sleep(ATTEMPT_PAUSE);
        };
        let booted = match known {
            Some(booted @ Booted::Trial { .. }) => booted,
            // Half done, and not worse than a commit that was cut: both names start this slot (LDR-7).
            Some(booted @ Booted::Committed(_)) => return self.leave(booted, outcomes, false),
            Some(Booted::Unknown(_)) | None => {
                let booted = Booted::Unknown(format!("the state could not be read: {last}"));
                return Settled { guard: Told::LeftArmed, ..self.leave(booted, outcomes, false) };
            }
        };
        // A trial that passed but cannot be committed has failed; one that failed already is recorded as far as it goes.
        if self.judge(Some(&booted), check::required(outcomes)) == Verdict::Commit {
            // The last attempt at the commit may have got through for all that, so it is looked at once more.
            match self.attempt(outcomes, true, Some(&last)) {
                Ok(settled) => return settled,
                Err(Unsettled::Again(NotSettled { fault, .. }, booted @ Booted::Committed(_))) => {
                    self.notes.push(format!("the commit is not ended: {}", crate::chain(fault.as_ref())));
                    return self.leave(booted, outcomes, false);
                }
                Err(Unsettled::Open(_)) => outcomes.push(not_committed(&last)),
                // It is a trial still, and has its failed check.
                Err(Unsettled::Again(..)) => {}
            }
        }
        self.stay(booted, outcomes)
    }

    /// A failed trial whose state cannot be opened any more: whether anything better boots is not known, so it stays up until the guard ends it,
    /// which asked in the initrd. With `stay` nothing depends on it.
    fn stay(&mut self, booted: Booted, outcomes: &[Outcome]) -> Settled {
        let verdict = self.judge(Some(&booted), check::required(outcomes));
        let mut guard = Told::NotYet;
        if let Booted::Trial { entry, attempt } = &booted {
            if verdict == Verdict::Report {
                act::keep_evidence(entry, *attempt, verdict, outcomes, (self.world, self.boot), &mut self.notes);
            } else {
                let (kind, action) = (act::kind(&booted, self.boot), act::action(outcomes, &self.world.policy));
                let depends = policy::depends_on_another(kind, check::required(outcomes), action);
                guard = if depends { Told::LeftArmed } else { Told::Wholly };
                act::record(entry, *attempt, (verdict, guard), outcomes, (self.world, self.boot), &mut self.notes);
            }
            self.notes.push("what came of the trial is not in the history: the state could not be read".to_owned());
        }
        Settled { verdict, booted, done: true, guard }
    }

    /// One look under the lock, and what follows. `given_up`: why no commit is tried any more; what is a trial still has failed for it.
    fn attempt(
        &mut self,
        outcomes: &mut Vec<Outcome>,
        last: bool,
        given_up: Option<&str>,
    ) -> Result<Settled, Unsettled> {
        let (world, boot, begun) = (self.world, self.boot, self.begun.clone());
        let which = Attempt { last, begun: begun.as_deref() };
        let result = self.open(BUSY, &mut |session: &mut dyn Session, notes: &mut Vec<String>| {
            if let (Some(why), Booted::Trial { .. }) = (given_up, session.booted()) {
                outcomes.push(not_committed(why));
            }
            if let Some(why) = session.cut_mark().filter(|_| outcomes.iter().all(|outcome| outcome.name != MARKED)) {
                let detail = format!("it was to be marked bad ({why}) when the power was cut, and booted once more");
                let reason = if why == GIVEN_UP { Reason::GivenUp } else { Reason::MarkedBad };
                outcomes.push(Outcome::own_failure(MARKED, reason, detail));
            }
            let settled = act::settle(session, outcomes, world, boot, which, notes);
            settled.map_err(|error| Unsettled::Again(error, session.booted()))
        });
        let result = result.map_err(Unsettled::Open)?;
        if let Err(Unsettled::Again(NotSettled { begun: Some(begun), .. }, _)) = &result {
            self.begun = Some(begun.clone());
        }
        result
    }

    /// What is not told yet (HLT-36).
    fn tell_guard(&mut self, settled: &Settled) {
        match settled.guard {
            Told::NotYet if settled.verdict.stays_up(act::kind(&settled.booted, self.boot)) => {
                act::release(self.world, &mut self.notes);
            }
            Told::LeftArmed if !matches!(self.boot.watch, Watch::Off { left: None, .. }) => {
                self.notes.push("the boot guard will end this boot: it asked what else would boot".to_owned());
            }
            Told::Wholly | Told::NotYet | Told::LeftArmed => {}
        }
    }

    /// Opens a session, waiting so long for a lock that is held, and closes it after the work.
    fn open<T>(
        &mut self,
        busy: Duration,
        work: &mut dyn FnMut(&mut dyn Session, &mut Vec<String>) -> T,
    ) -> Result<T, OpenError> {
        let clock = self.world.clock;
        let until = clock.monotonic().saturating_add(self.boot.at_most(clock, busy));
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
