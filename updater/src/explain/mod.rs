//! `ralph-update explain`: what runs and why, what boots next, what became of each update, and what to do (IFC-40).
//!
//! [`gather`](gather::gather) looks at the machine and changes nothing; [`explain`] is a pure function of what was found;
//! [`text`](text::text) puts it into plain words for someone woken at night. It works from either slot, without `/var` (from
//! entries, the boot guard's record and the loader's state) and on a disk image file.

mod advice;
pub mod gather;
pub mod text;
mod update;

use disk_layout::Slot;
use serde::{Serialize, Serializer};

pub use gather::{Booted, Facts};

use crate::status::NextBoot;

/// Updates that are told of, the newest (IFC-40).
pub const UPDATES_MAX: usize = 8;

/// The whole answer (IFC-40).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// 1.
    pub format: u32,
    /// What runs; null with `--disk`.
    pub running: Option<Running>,
    /// What boots next, by the loader model.
    pub next_boot: Option<NextBoot>,
    /// The same as a sentence, and why.
    pub next_boot_why: String,
    /// Newest first, at most [`UPDATES_MAX`].
    pub updates: Vec<Update>,
    /// What to do, in this order.
    pub advice: Vec<Advice>,
    /// What endangers the plan, as in `status`.
    pub problems: Vec<String>,
    /// History and evidence could be read; without them a boot may have left more than is told.
    pub remembered: bool,
    /// What could not be read, and is missing above.
    pub unread: Vec<String>,
}

/// The running system (IFC-41).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Running {
    /// Its slot.
    #[serde(serialize_with = "slot_text")]
    pub slot: Slot,
    /// Its generation.
    pub generation: u32,
    /// Its OS version.
    pub version: String,
    /// It is on trial.
    pub on_trial: bool,
    /// Why it is this one that runs.
    pub why: String,
}

/// How an update ended (IFC-42).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// Waits for its first boot.
    Staged,
    /// Its tries are being used.
    OnTrial,
    /// For good.
    Committed,
    /// Its tries are used up, and there is evidence why.
    FellBack,
    /// Its tries are used up, and nobody knows why (UPD-45).
    Inconclusive,
    /// An operator went back.
    RolledBack,
    /// An operator marked it bad.
    Rejected,
    /// The health check or the boot guard marked it bad.
    MarkedBad,
    /// Another update took its slot before it ended.
    Replaced,
    /// Nothing that can be read says it.
    Unknown,
}

/// One system that was installed (IFC-42).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Update {
    /// Its slot.
    #[serde(serialize_with = "slot_text")]
    pub slot: Slot,
    /// Its generation.
    pub generation: u32,
    /// Its OS version; null when nothing says it.
    pub version: Option<String>,
    /// Its system id; null when nothing says it.
    pub system_id: Option<String>,
    /// When it was applied, in seconds since 1970 by the machine's clock; null when that is not known, as for what came with the disk.
    pub applied: Option<u64>,
    /// How it ended.
    pub end: End,
    /// When that was recorded; null when it was not.
    pub ended: Option<u64>,
    /// What is known of the end, as sentences.
    pub end_details: Vec<String>,
    /// A later update is in its slot.
    pub replaced: bool,
    /// How often this system fell back without evidence since it was last committed or retried (UPD-45).
    pub inconclusive: usize,
    /// Its boots on trial, in their order.
    pub tries: Vec<Try>,
}

/// One boot on trial (IFC-43).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Try {
    /// DONE of the counter; 0: the loader did not count it.
    pub attempt: u32,
    /// It is the boot that runs now.
    pub now: bool,
    /// Something was kept of it: a record of the health check, an event, or the guard's.
    pub evidence: bool,
    /// When, in seconds since 1970 by the machine's clock.
    pub time: Option<u64>,
    /// The kernel's id of the boot.
    pub boot_id: Option<String>,
    /// The health check's verdict (HLT-52).
    pub verdict: Option<String>,
    /// From the kernel's start to the verdict.
    pub uptime_ms: Option<u64>,
    /// The checks that failed, required ones first.
    pub failed_checks: Vec<FailedCheck>,
    /// What the history says, where the health check's record is missing.
    pub history: Option<String>,
    /// What the boot guard wrote (GRD-3).
    pub guard: Option<String>,
    /// How it ended, as the boot after it found in the kernel's or the journal's memory.
    pub last_words: Option<String>,
    /// Notes of the health check.
    pub notes: Vec<String>,
}

/// A check that failed (IFC-43).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailedCheck {
    /// Its name.
    pub name: String,
    /// It had to pass.
    pub required: bool,
    /// One of the words of HLT-52.
    pub reason: String,
    /// One line for people.
    pub detail: String,
    /// How long it took.
    pub milliseconds: u64,
    /// How often it was tried.
    pub tries: u32,
    /// The last lines of what it printed.
    pub output: String,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// When and why.
    pub text: String,
    /// What to type; null when there is nothing to type.
    pub command: Option<String>,
}

fn slot_text<S: Serializer>(slot: &Slot, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(slot)
}

/// Explains. Pure: the same facts, the same words.
pub fn explain(facts: &Facts) -> Explanation {
    let updates = update::updates(facts);
    let running = running(facts, &updates);
    let next_boot_why = next_boot_why(facts);
    let advice = advice::advice(facts, &updates);
    Explanation {
        format: 1,
        running,
        next_boot: facts.status.next_boot.clone(),
        next_boot_why,
        updates,
        advice,
        problems: facts.status.problems.clone(),
        remembered: facts.remembered,
        unread: facts.unread.clone(),
    }
}

fn running(facts: &Facts, updates: &[Update]) -> Option<Running> {
    let booted = facts.booted.as_ref()?;
    let own = updates.iter().find(|u| (u.slot, u.generation) == (booted.slot, booted.generation));
    let newer = updates.iter().find(|u| u.generation > booted.generation);
    let tries_left = facts.slot(booted.slot).tries_left;
    let state = match (facts.status.on_trial, tries_left) {
        (true, Some(0)) if facts.booted_bad => "it is marked bad itself, and nothing better could be booted".to_owned(),
        (true, left) => {
            let attempt = own.and_then(|u| u.tries.iter().find(|t| t.now)).map_or(0, |t| t.attempt);
            let left = left.unwrap_or(0);
            format!(
                "it is on trial: this is boot {attempt} of it, and {left} more may follow until the health check commits it"
            )
        }
        (false, _) if own.is_none() || facts.slot(booted.slot).generation != Some(booted.generation) => {
            "its boot entry is not on the EFI partition any more".to_owned()
        }
        (false, _) => "it is committed".to_owned(),
    };
    let because = newer.and_then(why_not).map(|why| format!("; {why}")).unwrap_or_default();
    Some(Running {
        slot: booted.slot,
        generation: booted.generation,
        version: booted.version.clone(),
        on_trial: facts.status.on_trial,
        why: format!("{state}{because}"),
    })
}

/// Why a newer system is not the one that runs.
fn why_not(newer: &Update) -> Option<String> {
    let name = update::name(newer);
    Some(match newer.end {
        End::Staged => format!("{name} is newer and waits for a reboot"),
        End::OnTrial => format!("{name} is newer and is tried again at the next boot"),
        End::FellBack => format!("the boot loader went back to it: {name} used up its tries and was never committed"),
        End::Inconclusive => {
            format!("the boot loader went back to it: {name} used up its tries, and nothing tells why")
        }
        End::RolledBack => format!("an operator went back to it from {name}"),
        End::Rejected => format!("an operator marked {name} bad"),
        End::MarkedBad => format!("the boot loader went back to it: {name} was marked bad"),
        End::Committed | End::Replaced | End::Unknown => return None,
    })
}

fn next_boot_why(facts: &Facts) -> String {
    let Some(next) = &facts.status.next_boot else { return facts.no_next_boot.clone() };
    let Some(slot) = next.slot else {
        return format!("{}, a boot entry that is not ours ({})", next.entry, next.reason);
    };
    let entry = facts.slot(slot);
    let state = match (entry.tries_left, entry.tries_done) {
        (None, _) => "committed".to_owned(),
        (Some(0), _) => "marked bad or without tries, and nothing better is there".to_owned(),
        (Some(left), done) => format!("on trial, boot {} of {}", done.unwrap_or(0) + 1, done.unwrap_or(0) + left),
    };
    let version = entry.version.as_deref().unwrap_or("unknown");
    let generation = entry.generation.unwrap_or_default();
    format!("version {version} in slot {slot} (generation {generation}), {state}: {}", next.reason)
}

#[cfg(test)]
mod tests;
