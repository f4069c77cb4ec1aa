//! The story of each update, from entries, history, evidence and the guard's record.

use std::collections::BTreeSet;

use boot_entries::guard::GIVEN_UP;
use disk_layout::Slot;

use super::gather::GRANTED;
use super::{End, Facts, FailedCheck, Try, UPDATES_MAX, Update};
use crate::evidence::Evidence;
use crate::history::{Event, EventKind};
use crate::memory;
use crate::status::{SlotState, SlotStatus};

/// Boots of one update that are told of: a loader that boots a bad entry counts without end.
const TRIES_MAX: usize = 8;

/// How an update is called in sentences.
pub(super) fn name(update: &Update) -> String {
    let version = update.version.as_deref().unwrap_or("unknown");
    format!("version {version} in slot {} (generation {})", update.slot, update.generation)
}

/// All that left a trace, newest first.
pub(super) fn updates(facts: &Facts) -> Vec<Update> {
    let mut keys: BTreeSet<(u32, Slot)> = facts.events.iter().map(|e| (e.generation, e.slot)).collect();
    keys.extend(facts.evidence.iter().filter_map(|e| Some((e.generation, e.slot?))));
    keys.extend(Slot::ALL.into_iter().filter_map(|slot| Some((facts.slot(slot).generation?, slot))));
    let event = facts.guard.as_ref().and_then(|record| record.event.as_ref());
    keys.extend(event.map(|e| (e.generation.get(), e.slot)));
    keys.extend(facts.booted.iter().map(|b| (b.generation, b.slot)));
    keys.iter().rev().take(UPDATES_MAX).map(|(generation, slot)| Traces::of(facts, *slot, *generation).tell()).collect()
}

/// What there is of one update.
struct Traces<'f> {
    facts: &'f Facts,
    slot: Slot,
    generation: u32,
    /// The slot's entry, if it is this update's.
    entry: Option<&'f SlotStatus>,
    events: Vec<&'f Event>,
    evidence: Vec<&'f Evidence>,
    /// The guard's event: its attempt and text.
    guard: Option<(Option<u32>, String)>,
    booted: bool,
}

impl<'f> Traces<'f> {
    fn of(facts: &'f Facts, slot: Slot, generation: u32) -> Self {
        let entry = Some(facts.slot(slot)).filter(|s| s.generation == Some(generation));
        let events = facts.events.iter().filter(|e| (e.slot, e.generation) == (slot, generation)).collect();
        let evidence =
            facts.evidence.iter().filter(|e| e.generation == generation && e.slot.is_none_or(|s| s == slot)).collect();
        let guard = facts.guard.as_ref().and_then(|record| record.event.as_ref());
        let guard = guard.filter(|e| (e.slot, e.generation.get()) == (slot, generation));
        let booted = facts.booted.as_ref().is_some_and(|b| (b.slot, b.generation) == (slot, generation));
        let guard = guard.map(|e| (e.attempt, e.text.to_string()));
        Traces { facts, slot, generation, entry, events, evidence, guard, booted }
    }

    fn last(&self, kind: EventKind) -> Option<&'f Event> {
        self.events.iter().rfind(|e| e.event == kind).copied()
    }

    fn version(&self) -> Option<String> {
        let entry = self.entry.and_then(|s| s.version.clone());
        let booted = self.facts.booted.as_ref().filter(|_| self.booted).map(|b| b.version.clone());
        let event = self.events.iter().map(|e| &e.version).chain(self.evidence.iter().map(|e| &e.version));
        entry.or(booted).or_else(|| event.into_iter().find(|v| !v.is_empty()).cloned())
    }

    fn system(&self) -> Option<String> {
        let entry = self.entry.and_then(|s| s.system_id.clone());
        let booted = self.facts.booted.as_ref().filter(|_| self.booted).map(|b| b.system.clone());
        let event = self.events.iter().map(|e| &e.system).chain(self.evidence.iter().map(|e| &e.system));
        entry.or(booted).or_else(|| event.into_iter().find(|v| !v.is_empty()).cloned())
    }

    fn tell(self) -> Update {
        let system_id = self.system();
        let newer = |e: &&Event| e.slot == self.slot && e.generation > self.generation;
        let replaced = self.entry.is_none()
            && (self.facts.slot(self.slot).generation.is_some_and(|g| g > self.generation)
                || self.facts.events.iter().any(|e| newer(&e)));
        let (end, ended) = self.end(replaced);
        Update {
            slot: self.slot,
            generation: self.generation,
            version: self.version(),
            applied: self.last(EventKind::Applied).map(|e| e.time),
            end,
            ended: ended.map(|e| e.time),
            end_details: self.end_details(end),
            replaced,
            inconclusive: system_id.as_deref().map_or(0, |id| self.inconclusive(id, end)),
            system_id,
            tries: self.tries(),
        }
    }

    /// Fallbacks that the history holds, and this one, which may not stand there yet (UPD-43).
    fn inconclusive(&self, system: &str, end: End) -> usize {
        let recorded = memory::inconclusive(&self.facts.events, system);
        recorded + usize::from(end == End::Inconclusive && self.last(EventKind::FellBack).is_none())
    }

    fn is_explained(&self) -> bool {
        self.events.iter().any(|e| memory::is_evidence(e.event))
            || self.guard.is_some()
            || self.evidence.iter().any(|e| e.checks.iter().any(|c| c.failed() && c.required()))
    }

    /// What the entry says stands; where it is gone, what the history says.
    fn end(&self, replaced: bool) -> (End, Option<&'f Event>) {
        let fell_back = |this: &Self| {
            let end = if this.is_explained() { End::FellBack } else { End::Inconclusive };
            (end, this.last(EventKind::FellBack).or(this.last(EventKind::TrialFailed)))
        };
        if let Some(entry) = self.entry {
            return match (entry.state, entry.failed.as_deref()) {
                (SlotState::Committed, _) => (End::Committed, self.last(EventKind::Committed)),
                (_, Some("rolled-back")) => (End::RolledBack, self.last(EventKind::RolledBack)),
                (_, Some("rejected")) => (End::Rejected, self.last(EventKind::Rejected)),
                (_, Some(_)) => {
                    let event = self.last(EventKind::BootFailed).or(self.last(EventKind::TrialFailed));
                    (End::MarkedBad, event)
                }
                (SlotState::Staged, _) => (End::Staged, None),
                (SlotState::Trial, _) if !(self.booted && self.facts.booted_bad) => (End::OnTrial, None),
                _ => fell_back(self),
            };
        }
        let closing = self.events.iter().rfind(|e| {
            use EventKind::*;
            matches!(e.event, Committed | RolledBack | Rejected | FellBack | TrialFailed | BootFailed)
        });
        match closing.map(|e| e.event) {
            Some(EventKind::Committed) => (End::Committed, closing.copied()),
            Some(EventKind::RolledBack) => (End::RolledBack, closing.copied()),
            Some(EventKind::Rejected) => (End::Rejected, closing.copied()),
            Some(EventKind::BootFailed) => (End::MarkedBad, closing.copied()),
            Some(_) => fell_back(self),
            None if replaced => (End::Replaced, None),
            None => (End::Unknown, None),
        }
    }

    fn end_details(&self, end: End) -> Vec<String> {
        let mut told = Vec::new();
        match end {
            End::Committed => {
                told.extend(self.last(EventKind::Committed).map(|e| e.detail.clone()).filter(|d| !d.is_empty()));
            }
            End::RolledBack => told.extend(self.last(EventKind::RolledBack).map(|e| e.detail.clone())),
            End::Rejected => told.extend(self.last(EventKind::Rejected).map(|e| e.detail.clone())),
            End::Inconclusive | End::Unknown if !self.facts.remembered => {
                told.push("what was recorded of it could not be read".to_owned());
            }
            _ => {}
        }
        if let Some(reason) = self.entry.and_then(|s| s.failed.as_deref()) {
            told.extend(match reason {
                "rolled-back" | "rejected" => None,
                "checks" => {
                    Some("the health check marked it bad: its checks would fail in the same way again".to_owned())
                }
                GIVEN_UP => Some(
                    "the boot guard marked it bad: it was booted more than 5 times and no health check ever spoke"
                        .to_owned(),
                ),
                "not-counted" => {
                    Some("the health check marked it bad: the boot loader does not count its tries".to_owned())
                }
                other => Some(format!("it was marked bad: {other}")),
            });
        }
        let committed_boots =
            self.events.iter().filter(|e| e.event == EventKind::BootFailed).map(|e| e.detail.as_str());
        let unrecorded = self.guard.iter().filter(|(attempt, _)| attempt.is_none()).map(|(_, text)| text.as_str());
        for text in committed_boots.chain(unrecorded) {
            told.push(format!("a boot of it ended before the health check could speak: {}", guard_words(text)));
        }
        told.dedup();
        told
    }

    fn tries(&self) -> Vec<Try> {
        let mut attempts: BTreeSet<u32> = self.evidence.iter().map(|e| e.attempt).collect();
        let failed = self.events.iter().filter(|e| e.event == EventKind::TrialFailed);
        attempts.extend(failed.filter_map(|e| e.attempt));
        attempts.extend(self.guard.as_ref().and_then(|(attempt, _)| *attempt));
        let fell_back = self.last(EventKind::FellBack).and_then(|e| e.attempt);
        let counted = self.entry.and_then(|s| s.tries_done).or(fell_back).unwrap_or(0);
        let now = self.entry.and_then(|s| s.tries_done).filter(|_| self.booted);
        // An entry that was given up counts one more than was granted (UPD-22); the boots before a known one were all there.
        let highest = attempts.last().copied().unwrap_or(0).max(counted.min(GRANTED));
        attempts.extend(1..=highest.min(GRANTED));
        attempts.extend(now);
        let attempts: Vec<u32> = attempts.into_iter().collect();
        let from = attempts.len().saturating_sub(TRIES_MAX);
        attempts[from..].iter().map(|attempt| self.one_try(*attempt, now == Some(*attempt))).collect()
    }

    fn one_try(&self, attempt: u32, now: bool) -> Try {
        let record = self.evidence.iter().rfind(|e| e.attempt == attempt).copied();
        let next = self.evidence.iter().find(|e| e.attempt == attempt + 1);
        let events: Vec<&Event> = self
            .events
            .iter()
            .filter(|e| e.event == EventKind::TrialFailed)
            .filter(|e| match (e.attempt, record) {
                (Some(done), _) => done == attempt,
                // Written before attempts were recorded.
                (None, Some(record)) => !record.boot_id.is_empty() && e.boot_id == record.boot_id,
                (None, None) => false,
            })
            .copied()
            .collect();
        let in_record = self.guard.iter().find(|(done, _)| *done == Some(attempt)).map(|(_, text)| text.as_str());
        let recorded = events.iter().map(|e| e.detail.as_str()).find(|detail| is_guard_text(detail));
        let said = events.iter().find(|e| !is_guard_text(&e.detail));
        let last_words = next.and_then(|e| e.previous_end.as_ref()).filter(|end| !end.text.trim().is_empty());
        let guard = in_record.or(recorded).map(str::to_owned);
        let time = record.map(|e| e.time).or(said.map(|e| e.time));
        Try {
            attempt,
            now,
            evidence: record.is_some() || said.is_some() || guard.is_some(),
            time: time.filter(|_| !now || record.is_some()),
            boot_id: record.map(|e| e.boot_id.clone()).filter(|id| !id.is_empty()),
            verdict: record.map(|e| e.verdict.clone()).filter(|v| !v.is_empty()),
            uptime_ms: record.map(|e| e.uptime_ms).filter(|ms| *ms > 0),
            failed_checks: record.map(failed_checks).unwrap_or_default(),
            history: said.filter(|_| record.is_none()).map(|e| e.detail.clone()),
            guard,
            last_words: last_words.map(|end| format!("{}:\n{}", end.source, tail(&end.text, 6))),
            notes: record.map(|e| e.notes.clone()).unwrap_or_default(),
        }
    }
}

fn failed_checks(record: &Evidence) -> Vec<FailedCheck> {
    let mut failed: Vec<_> = record.checks.iter().filter(|c| c.failed()).collect();
    // What only waited for another check is no cause.
    failed.sort_by_key(|c| (!c.required(), c.reason.as_deref() == Some("after")));
    let told = |check: &crate::evidence::CheckRecord| FailedCheck {
        name: check.name.clone(),
        required: check.required(),
        reason: check.reason.clone().unwrap_or_default(),
        detail: check.detail.clone(),
        milliseconds: check.milliseconds,
        tries: check.tries,
        output: tail(&check.output, 8),
    };
    failed.into_iter().map(told).collect()
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.trim_end().lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// GRD-3.
fn is_guard_text(text: &str) -> bool {
    matches!(text, "deadline" | GIVEN_UP | "emergency" | "rescue")
        || text.starts_with("initrd: ")
        || text.starts_with("check: ")
}

/// What the guard's text means.
pub(super) fn guard_words(text: &str) -> String {
    match text {
        "deadline" => "its deadline passed without a verdict of the health check; the boot guard ended it".to_owned(),
        GIVEN_UP => "it was booted too often without a verdict; the boot guard gave it up".to_owned(),
        "emergency" | "rescue" => format!("it ended in {text} mode"),
        _ => match (text.strip_prefix("initrd: "), text.strip_prefix("check: ")) {
            (Some(reason), _) => format!("its initrd gave up: {reason}"),
            (None, Some(check)) => format!("the required check {check} failed"),
            (None, None) => text.to_owned(),
        },
    }
}
