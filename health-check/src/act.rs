//! Carrying a verdict out, inside a session (HLT-30, HLT-31, HLT-36, HLT-40).
//!
//! What must not wait for anything comes first: after a commit `ralphd` is told and the guard disarmed before `/var` is touched, which may hang;
//! after a failure the entry is marked bad and the guard's record written before it.

use std::time::Duration;

use boot_entries::guard::GIVEN_UP;

use crate::check::{self, Outcome};
use crate::clock::Clock;
use crate::config::{Action, Policy};
use crate::guard::{self, Count, Failure, Guard, Watch};
use crate::machine::{Bad, Booted, Entry, Fault, NoOther, Session};
use crate::policy::{self, Another, Facts, Required, Verdict};
use crate::records::evidence::{self, Came, head};
use crate::records::{Kept, Medium, Records};
use crate::surroundings::Surroundings;
use crate::systemd::Systemd;

/// Longest `detail` of a history event, in bytes (HLT-40).
const DETAIL: usize = 512;
/// Stands for what was cut off.
const CUT: &str = " …";

/// The outside world without the machine's slots.
#[derive(Clone, Copy)]
pub struct World<'a> {
    /// Time.
    pub clock: &'a dyn Clock,
    /// Records.
    pub records: &'a dyn Records,
    /// Units.
    pub systemd: &'a dyn Systemd,
    /// What would end this boot without a verdict.
    pub guard: &'a dyn Guard,
    /// How the machine was started.
    pub surroundings: &'a dyn Surroundings,
    /// What is done about failures.
    pub policy: Policy,
}

/// What is known of this boot beside its entry; it does not change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// Why it proves nothing about the firmware, if it does not (HLT-37).
    pub not_firmware: Option<String>,
    /// Does the guard watch over it?
    pub watch: Watch,
    /// When this boot is ended, on the monotonic clock, as far as is known.
    pub ends_at: Option<Duration>,
}

/// So long before its end a boot waits for nothing any more (HLT-36).
const RESERVE: Duration = Duration::from_secs(5);
/// What is given to anything, however late it is.
const LEAST: Duration = Duration::from_secs(3);

/// How long the guard's record may take (HLT-42): a disk that hangs must not keep a failed trial from its reboot.
const RECORD: Duration = Duration::from_secs(10);
/// How long it may take to gather what machine and kernel say of themselves, all together (HLT-42).
const TRACES: Duration = Duration::from_secs(15);
/// How long writing evidence may take (HLT-42).
const EVIDENCE: Duration = Duration::from_secs(30);
/// How long reading the history and appending to it may take (HLT-42): `/var` may hang.
pub const HISTORY: Duration = Duration::from_secs(30);

impl Boot {
    /// The same boot once the guard is disarmed: nobody ends it any more.
    fn released(&self) -> Self {
        Self { ends_at: None, ..self.clone() }
    }

    /// How long something may take that usually may take so long.
    pub fn at_most(&self, clock: &dyn Clock, usual: Duration) -> Duration {
        let left = self.ends_at.map(|end| end.saturating_sub(clock.monotonic()).saturating_sub(RESERVE).max(LEAST));
        left.map_or(usual, |left| left.min(usual))
    }
}

/// A verdict and whether it was carried out.
#[derive(Debug, PartialEq, Eq)]
pub struct Settled {
    /// What was decided.
    pub verdict: Verdict,
    /// Of what.
    pub booted: Booted,
    /// Was it carried out, as far as this can be known before a reboot?
    pub done: bool,
    /// What the guard knows of it.
    pub guard: Told,
}

/// Does the guard know of the verdict (HLT-36)?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// All that it is to know.
    Wholly,
    /// Nothing yet.
    NotYet,
    /// The verdict rests on what could not be read: it stays armed, and ends this boot, for it asked in the initrd what else would boot.
    LeftArmed,
}

/// Something that is tried again: a slot is not committed, or not wholly, or what else would boot could not be asked.
#[derive(Debug)]
pub struct NotSettled {
    /// Why.
    pub fault: Fault,
    /// A commit was begun. It may have got through for all that.
    pub begun: Option<Box<Trial>>,
}

impl From<Fault> for NotSettled {
    fn from(fault: Fault) -> Self {
        Self { fault, begun: None }
    }
}

/// The trial that a commit is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// Its entry.
    pub entry: Entry,
    /// Which attempt of it (HLT-40).
    pub attempt: u32,
}

/// One of the attempts at a verdict (HLT-31).
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// There is no other: what could not be asked is not asked again.
    pub last: bool,
    /// The trial whose commit an attempt before this one began.
    pub begun: Option<&'a Trial>,
}

/// Gathers the facts of this session, decides, and carries the verdict out; all but the reboot, which must wait for the session's end.
pub fn settle(
    session: &mut dyn Session,
    outcomes: &mut [Outcome],
    world: World<'_>,
    boot: &Boot,
    which: Attempt<'_>,
    notes: &mut Vec<String>,
) -> Result<Settled, NotSettled> {
    let booted = session.booted();
    let kind = kind(&booted, boot);
    if policy::may_be_committed(kind) && check::required(outcomes) == Required::AllPassed {
        check::ask_again(outcomes, world.systemd, world.clock, boot.at_most(world.clock, check::AGAIN));
    }
    let (required, action) = (check::required(outcomes), action(outcomes, &world.policy));
    let another = match ask(session, kind, required, action, notes) {
        Err(NoOther::NotKnown(fault)) if !which.last => return Err(fault.into()),
        Err(NoOther::NotKnown(fault)) => {
            notes.push(format!("what else would boot could not be asked: {}", crate::chain(fault.as_ref())));
            Another::NotKnown
        }
        Err(NoOther::None(_)) => Another::No,
        Ok(another) => another,
    };
    let decided = policy::verdict(Facts { booted: kind, required, another, action });
    let verdict = marked(session, decided, kind, notes);
    let (mut done, mut guard) = (true, Told::NotYet);
    match (verdict, &booted) {
        (Verdict::Commit, Booted::Trial { entry, attempt }) => {
            let begun = || Some(Box::new(Trial { entry: entry.clone(), attempt: *attempt }));
            notes.extend(session.commit_entry().map_err(|fault| NotSettled { fault, begun: begun() })?);
            done = announce(entry, world.records, notes);
            // From here on nothing is hurried: what the guard finds committed it leaves alone (GRD-21).
            release(world, notes);
            guard = Told::Wholly;
            notes.extend(session.record_commit(&recorded(outcomes), HISTORY));
            keep_evidence(entry, *attempt, verdict, outcomes, (world, &boot.released()), notes);
        }
        (
            Verdict::RecordAndReboot | Verdict::MarkBadAndReboot | Verdict::RecordAndStay,
            Booted::Trial { entry, attempt },
        ) => {
            guard = if another == Another::NotKnown { Told::LeftArmed } else { Told::Wholly };
            let (detail, boot) = record(entry, *attempt, (verdict, guard), outcomes, (world, boot), notes);
            if let Err(fault) = session.record_trial_failed(&detail, boot.at_most(world.clock, HISTORY)) {
                notes.push(format!("the failed trial is not in the history: {}", crate::chain(fault.as_ref())));
            }
        }
        (Verdict::Report, Booted::Trial { entry, attempt }) => {
            keep_evidence(entry, *attempt, verdict, outcomes, (world, boot), notes);
        }
        (_, Booted::Committed(entry)) => {
            // After the checks it may be our own commit, of which we heard that it failed (HLT-31).
            let ours = which.begun.filter(|begun| begun.entry == *entry);
            let detail = ours.map(|_| recorded(outcomes));
            let (told, whole) = finish(session, entry, world.records, notes);
            let whole = match whole {
                // What is tried again does not wait for `/var` before that.
                Err(fault) if !which.last => return Err(fault.into()),
                whole => whole,
            };
            if ours.is_some() {
                release(world, notes);
                guard = Told::Wholly;
            }
            note_history(session, detail.as_deref(), notes);
            if let Some(ours) = ours {
                let world = (world, &boot.released());
                keep_evidence(entry, ours.attempt, Verdict::Commit, outcomes, world, notes);
            }
            whole?;
            done = told;
        }
        _ => {}
    }
    Ok(Settled { verdict, booted, done, guard })
}

/// Marks the entry bad if the verdict asks for it, before anything is recorded: whether the machine may reboot depends on it. An entry that
/// nobody counts and that cannot be marked would boot again and again, so the machine stays up (HLT-32); one that is counted runs out of tries
/// all the same (HLT-34).
fn marked(session: &mut dyn Session, verdict: Verdict, kind: policy::Booted, notes: &mut Vec<String>) -> Verdict {
    if verdict != Verdict::MarkBadAndReboot {
        return verdict;
    }
    let (why, otherwise) = match kind {
        policy::Booted::NotCounted => (Bad::NotCounted, Verdict::RecordAndStay),
        _ => (Bad::Checks, Verdict::RecordAndReboot),
    };
    match session.mark_bad(why) {
        Ok(told) => {
            notes.extend(told);
            verdict
        }
        Err(fault) => {
            notes.push(format!("the entry cannot be marked bad ({}): {}", why.word(), crate::chain(fault.as_ref())));
            otherwise
        }
    }
}

/// What the policy wants done with this failure: is it one that the next boot would show again (HLT-34)?
pub fn action(outcomes: &[Outcome], policy: &Policy) -> Action {
    // One that never began says nothing: what it comes after has failed, and is here, too.
    let began = |outcome: &&Outcome| outcome.reason != Some(check::Reason::After);
    let mut failed = outcomes.iter().filter(|outcome| outcome.fails_the_trial()).filter(began).peekable();
    let certain = |outcome: &Outcome| outcome.reason.is_some_and(check::Reason::is_deterministic);
    if failed.peek().is_some() && failed.all(certain) { policy.on_deterministic_failure } else { policy.on_failure }
}

/// On a committed boot, whatever the checks say: `ralphd` may go on (HLT-3), and a commit that was cut is ended (UPD-24). Waits for no `/var`.
/// Was `ralphd` told, and is the commit whole?
pub fn finish(
    session: &mut dyn Session,
    entry: &Entry,
    records: &dyn Records,
    notes: &mut Vec<String>,
) -> (bool, Result<(), Fault>) {
    let told = announce(entry, records, notes);
    (told, session.finish_commit().map(|done| notes.extend(done)))
}

/// On a committed boot, whatever the checks say: a commit that was cut is recorded, and what fell back is noticed (HLT-41). `own` is what the
/// history is to say of the commit, if it is that of this boot.
pub fn note_history(session: &mut dyn Session, own: Option<&str>, notes: &mut Vec<String>) {
    notes.extend(session.record_commit(own.unwrap_or_default(), HISTORY));
    take_over(session, notes);
    notes.extend(session.note_unrecorded(own));
}

/// Takes what the boot guard left over from an earlier boot into the history (UPD-44).
pub fn take_over(session: &mut dyn Session, notes: &mut Vec<String>) {
    match session.take_over_guard_event() {
        Ok(told) => notes.extend(told),
        Err(fault) => {
            notes.push(format!("the boot guard's event is not in the history: {}", crate::chain(fault.as_ref())));
        }
    }
}

/// Tells `ralphd` that the booted slot is committed (HLT-3).
pub fn announce(entry: &Entry, records: &dyn Records, notes: &mut Vec<String>) -> bool {
    match records.mark_committed(entry) {
        Ok(()) => true,
        Err(error) => {
            notes.push(format!("ralphd cannot know that the slot is committed: {}", crate::chain(&error)));
            false
        }
    }
}

/// The machine stays up: the guard has nothing left to end, and this boot is not one too many (HLT-36, GRD-11). It is told whatever it said when
/// it was asked: that may have been too early, or too busy a machine.
pub fn release(world: World<'_>, notes: &mut Vec<String>) {
    notes.extend(world.guard.disarm());
    reached(world, notes);
}

/// This boot is not one too many (GRD-11).
pub fn reached(world: World<'_>, notes: &mut Vec<String>) {
    count(world, Count::Zero, None, RECORD, notes);
}

/// Into the guard's record, where there is one: what becomes of the count, and what failed (GRD-3, GRD-11).
fn count(world: World<'_>, count: Count, failure: Option<&Failure>, within: Duration, notes: &mut Vec<String>) {
    if let Err(fault) = world.guard.record(count, failure, within) {
        notes.push(format!("the verdict is not in the boot guard's record: {}", crate::chain(fault.as_ref())));
    }
}

/// Records a failed trial, in the guard's record first, which needs no `/var`; returns what the history is to say, and the boot as it is now. The
/// guard is disarmed if the machine stays up for good: of a reboot it is what ends a shutdown that hangs. As long as it is armed nothing may
/// take longer than it waits, so that what is recorded last is not what it cuts (HLT-42).
pub fn record(
    entry: &Entry,
    attempt: u32,
    (verdict, told): (Verdict, Told),
    outcomes: &[Outcome],
    (world, boot): (World<'_>, &Boot),
    notes: &mut Vec<String>,
) -> (String, Boot) {
    let failure = Failure::of(entry, attempt, outcomes);
    let within = boot.at_most(world.clock, RECORD);
    let mut boot = boot.clone();
    if verdict.reboots() || told == Told::LeftArmed {
        count(world, Count::Keep, Some(&failure), within, notes);
    } else {
        count(world, Count::Zero, Some(&failure), within, notes);
        let refused = world.guard.disarm();
        if refused.is_empty() {
            boot = boot.released();
        }
        notes.extend(refused);
    }
    keep_evidence(entry, attempt, verdict, outcomes, (world, &boot), notes);
    if guard::given_up(outcomes) {
        return (GIVEN_UP.to_owned(), boot);
    }
    let mut failed: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.fails_the_trial()).collect();
    // The causes first: the text may be cut.
    failed.sort_by_key(|outcome| outcome.reason == Some(check::Reason::After));
    let failed: Vec<String> = failed.iter().map(|outcome| format!("{}: {}", outcome.name, outcome.detail)).collect();
    (shortened(failed.join("; ")), boot)
}

/// Writes evidence. That it cannot be written changes nothing else (HLT-40).
pub fn keep_evidence(
    entry: &Entry,
    attempt: u32,
    verdict: Verdict,
    outcomes: &[Outcome],
    (world, boot): (World<'_>, &Boot),
    notes: &mut Vec<String>,
) {
    let came = Came { entry, attempt, verdict: crate::word(verdict), outcomes, notes };
    let uptime = u64::try_from(world.clock.monotonic().as_millis()).unwrap_or(u64::MAX);
    // Half of what there is: the rest is for writing it down.
    let traces = world.records.traces(boot.at_most(world.clock, TRACES * 2) / 2);
    let evidence = evidence::of(&came, world.clock.unix(), uptime, world.records.boot_id(), traces);
    match world.records.keep(&evidence, boot.at_most(world.clock, EVIDENCE)) {
        Ok(Kept { path, medium: Medium::Lasting }) => notes.push(format!("evidence is in {}", path.display())),
        Ok(Kept { path, medium: Medium::Memory }) => {
            notes
                .push(format!("evidence is in {}, which is in memory: it is not kept over the reboot", path.display()));
        }
        Err(error) => notes.push(format!("evidence is not recorded: {}", crate::chain(&error))),
    }
}

/// What the checks recorded, for the event `committed`: `policy sha256:…`.
fn recorded(outcomes: &[Outcome]) -> String {
    let recorded = outcomes.iter().filter_map(|outcome| Some((&outcome.name, outcome.recorded.as_ref()?)));
    shortened(recorded.map(|(name, what)| format!("{name} {what}")).collect::<Vec<_>>().join("; "))
}

/// The history is read as a whole on every boot, and a configuration can have very much wrong with it.
fn shortened(detail: String) -> String {
    if detail.len() <= DETAIL { detail } else { format!("{}{CUT}", head(&detail, DETAIL - CUT.len())) }
}

fn ask(
    session: &mut dyn Session,
    booted: policy::Booted,
    required: Required,
    action: Action,
    notes: &mut Vec<String>,
) -> Result<Another, NoOther> {
    if !policy::depends_on_another(booted, required, action) {
        return Ok(Another::No);
    }
    match session.another() {
        Ok(what) => notes.push(format!("another whole entry will boot: {what}")),
        Err(error) => {
            if let NoOther::None(_) = &error {
                notes.push(crate::chain(&error));
            }
            return Err(error);
        }
    }
    Ok(Another::Whole)
}

/// The booted entry as the table has it.
pub fn kind(booted: &Booted, boot: &Boot) -> policy::Booted {
    match booted {
        Booted::Trial { .. } if boot.not_firmware.is_some() => policy::Booted::NotFirmware,
        Booted::Trial { attempt: 0, .. } => policy::Booted::NotCounted,
        Booted::Trial { .. } => policy::Booted::Trial,
        Booted::Committed(_) => policy::Booted::Committed,
        Booted::Unknown(_) => policy::Booted::Unknown,
    }
}
