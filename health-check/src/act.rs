//! Carrying a verdict out, inside a session (HLT-30, HLT-31, HLT-40).

use crate::check::{self, Outcome};
use crate::clock::Clock;
use crate::machine::{Booted, Entry, Fault, Session};
use crate::policy::{self, Another, Facts, Required, Verdict};
use crate::reboot::Reboot;
use crate::records::{Evidence, Kept, Medium, Records};
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
}

/// A slot that should be committed is not, or not wholly.
#[derive(Debug)]
pub struct NotCommitted {
    /// Why.
    pub fault: Fault,
}

/// Gathers the facts of this session, decides, and carries the verdict out; all but the reboot, which must wait for the session's end.
pub fn settle(
    session: &mut dyn Session,
    outcomes: &mut [Outcome],
    world: World<'_>,
    notes: &mut Vec<String>,
) -> Result<Settled, NotCommitted> {
    let booted = session.booted();
    if matches!(booted, Booted::Trial { .. }) && check::required(outcomes) == Required::AllPassed {
        check::ask_again(outcomes, world.systemd, world.clock);
    }
    let required = check::required(outcomes);
    let facts = Facts { booted: kind(&booted), required, another: ask(session, &booted, required, notes) };
    let verdict = marked(session, policy::verdict(facts), notes);
    let done = match (verdict, &booted) {
        (Verdict::Commit, Booted::Trial { entry, .. }) => {
            notes.extend(session.commit().map_err(|fault| NotCommitted { fault })?);
            announce(entry, world.records, notes)
        }
        (
            Verdict::RecordAndReboot | Verdict::MarkBadAndReboot | Verdict::RecordAndStay,
            Booted::Trial { entry, attempt },
        ) => {
            let detail = record(entry, *attempt, outcomes, world, notes);
            if let Err(fault) = session.record_trial_failed(&detail) {
                notes.push(format!("the failed trial is not in the history: {}", crate::chain(fault.as_ref())));
            }
            true
        }
        (_, Booted::Committed(entry)) => {
            let (told, whole) = committed(session, entry, world.records, notes);
            // After the checks it may be our own commit that was left half done.
            whole.map_err(|fault| NotCommitted { fault })?;
            told
        }
        _ => true,
    };
    Ok(Settled { verdict, booted, done })
}

/// Marks the entry bad if the verdict asks for it, before anything is recorded: whether the machine may reboot depends on it. An entry that
/// cannot be marked would boot again and again, so the machine stays up (HLT-32).
fn marked(session: &mut dyn Session, verdict: Verdict, notes: &mut Vec<String>) -> Verdict {
    if verdict != Verdict::MarkBadAndReboot {
        return verdict;
    }
    match session.mark_not_counted() {
        Ok(told) => {
            notes.extend(told);
            verdict
        }
        Err(fault) => {
            let why = crate::chain(fault.as_ref());
            notes.push(format!("the loader does not count, and the entry cannot be marked bad: {why}"));
            Verdict::RecordAndStay
        }
    }
}

/// On a committed boot, whatever the checks say: `ralphd` may go on (HLT-3), a commit that was cut is ended (UPD-24), and fallbacks are
/// noticed (HLT-41). Was `ralphd` told, and is the commit whole?
pub fn committed(
    session: &mut dyn Session,
    entry: &Entry,
    records: &dyn Records,
    notes: &mut Vec<String>,
) -> (bool, Result<(), Fault>) {
    let told = announce(entry, records, notes);
    let whole = session.finish_commit().map(|done| notes.extend(done));
    match session.note_fallbacks() {
        Ok(noticed) => notes.extend(noticed),
        Err(fault) => notes.push(format!("fallbacks are not recorded: {}", crate::chain(fault.as_ref()))),
    }
    (told, whole)
}

fn announce(entry: &Entry, records: &dyn Records, notes: &mut Vec<String>) -> bool {
    match records.mark_committed(entry) {
        Ok(()) => true,
        Err(error) => {
            notes.push(format!("ralphd cannot know that the slot is committed: {}", crate::chain(&error)));
            false
        }
    }
}

/// Writes evidence; returns what the history is to say. That it cannot be written changes nothing else (HLT-40).
pub fn record(entry: &Entry, attempt: u32, outcomes: &[Outcome], world: World<'_>, notes: &mut Vec<String>) -> String {
    let evidence = Evidence {
        entry: entry.clone(),
        attempt,
        time: world.clock.unix(),
        boot_id: world.records.boot_id(),
        checks: outcomes.to_vec(),
    };
    match world.records.keep(&evidence) {
        Ok(Kept { path, medium: Medium::Lasting }) => notes.push(format!("evidence is in {}", path.display())),
        Ok(Kept { path, medium: Medium::Memory }) => {
            notes
                .push(format!("evidence is in {}, which is in memory: it is not kept over the reboot", path.display()));
        }
        Err(error) => notes.push(format!("evidence is not recorded: {}", crate::chain(&error))),
    }
    let failed = outcomes.iter().filter(|outcome| outcome.fails_the_trial());
    let failed: Vec<String> = failed.map(|outcome| format!("{}: {}", outcome.name, outcome.detail)).collect();
    shortened(failed.join("; "))
}

/// The history is read as a whole on every boot, and a configuration can have very much wrong with it.
fn shortened(mut detail: String) -> String {
    if detail.len() > DETAIL {
        let end = (0..=DETAIL - CUT.len()).rev().find(|&at| detail.is_char_boundary(at)).unwrap_or(0);
        detail.truncate(end);
        detail.push_str(CUT);
    }
    detail
}

fn ask(session: &mut dyn Session, booted: &Booted, required: Required, notes: &mut Vec<String>) -> Another {
    if !policy::depends_on_another(kind(booted), required) {
        return Another::No;
    }
    match session.another() {
        Ok(what) => {
            notes.push(format!("another whole entry will boot: {what}"));
            Another::Whole
        }
        Err(fault) => {
            notes.push(format!("nothing better would boot: {}", crate::chain(fault.as_ref())));
            Another::No
        }
    }
}

/// The booted entry as the table has it.
pub fn kind(booted: &Booted) -> policy::Booted {
    match booted {
        Booted::Trial { attempt: 0, .. } => policy::Booted::NotCounted,
        Booted::Trial { .. } => policy::Booted::Trial,
        Booted::Committed(_) => policy::Booted::Committed,
        Booted::Unknown(_) => policy::Booted::Unknown,
    }
}

/// Reboots: in order, and if that is refused, by force. `false` if the machine stays up.
pub fn reboot(reboot: &dyn Reboot, say: &mut dyn FnMut(&str)) -> bool {
    let Err(error) = reboot.orderly() else { return true };
    say(&format!("cannot reboot in order, now by force: {}", crate::chain(&error)));
    let Err(error) = reboot.forced() else { return true };
    say(&format!("cannot reboot: {}", crate::chain(&error)));
    false
}
