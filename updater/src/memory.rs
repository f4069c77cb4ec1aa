//! What this machine remembers of a system: that it failed here (UPD-42), or that nobody can say why it did not stay
//! (UPD-45). Pure functions of the history and the entries.

use boot_entries::OurEntry;
use boot_entries::guard::GIVEN_UP;

use crate::history::{Event, EventKind};
use crate::session::hex;

/// How often a system may fall back without evidence before it is refused (UPD-45).
pub const INCONCLUSIVE_MAX: usize = 3;

/// Does the event say why a generation did not stay (UPD-45)?
pub fn is_evidence(kind: EventKind) -> bool {
    use EventKind::*;
    match kind {
        TrialFailed | BootFailed | RolledBack | Rejected => true,
        Applied | Committed | FellBack | Retried | LoaderUpdated | Unknown => false,
    }
}

/// The event that makes a system known bad: a verdict or a person was against it, and nothing later took that back
/// (UPD-42). Events are oldest first.
pub fn known_bad<'e>(events: &'e [Event], system: &str) -> Option<&'e Event> {
    let mut verdict = None;
    for event in events.iter().filter(|e| e.system == system) {
        match event.event {
            EventKind::Committed | EventKind::Retried => verdict = None,
            _ if is_the_guards(event) => {}
            kind if is_evidence(kind) => verdict = Some(event),
            _ => {}
        }
    }
    verdict
}

/// Did the boot guard give a slot up? That says nothing against the system: the slot was committed once, and is damaged now, or the loader cannot
/// count here. Applying the same image again is the cure (UPD-42).
fn is_the_guards(event: &Event) -> bool {
    event.event == EventKind::BootFailed || event.event == EventKind::TrialFailed && event.detail == GIVEN_UP
}

/// Why a system is known bad, by the entries and the history together (UPD-42).
pub fn why_known_bad<'o>(ours: impl Iterator<Item = &'o OurEntry>, past: &[Event], system: &str) -> Option<String> {
    let same = |ours: &&OurEntry| ours.entry.as_ref().is_ok_and(|entry| hex(&entry.options.system) == system);
    let same: Vec<&OurEntry> = ours.filter(same).collect();
    // A commit whose record was lost with the power still stands in the entry's name.
    let committed = same.iter().any(|ours| ours.name.counter.is_none());
    if committed {
        return None;
    }
    let mut reasons = same.iter().filter_map(|ours| ours.entry.as_ref().ok()?.options.failed.clone());
    if let Some(reason) = reasons.find(|reason| reason != GIVEN_UP) {
        return Some(reason);
    }
    let event = known_bad(past, system)?;
    let detail = if event.detail.is_empty() { String::new() } else { format!(": {}", event.detail) };
    Some(format!("{}{detail}", event.event.as_str()))
}

/// How many generations of a system fell back without evidence since it was last committed or retried (UPD-45).
///
/// The evidence of a generation may stand behind its fallback: the guard's is taken over when somebody looks (UPD-44).
pub fn inconclusive(events: &[Event], system: &str) -> usize {
    let of_system = || events.iter().filter(|event| event.system == system);
    let explained = |generation| of_system().any(|e| e.generation == generation && is_evidence(e.event));
    let mut generations = Vec::new();
    for event in of_system() {
        match event.event {
            EventKind::Committed | EventKind::Retried => generations.clear(),
            EventKind::FellBack if !generations.contains(&event.generation) && !explained(event.generation) => {
                generations.push(event.generation);
            }
            _ => {}
        }
    }
    generations.len()
}

#[cfg(test)]
mod tests {
    use disk_layout::Slot;

    use super::*;

    fn event(event: EventKind, generation: u32) -> Event {
        Event {
            time: 0,
            boot_id: String::new(),
            event,
            slot: Slot::B,
            generation,
            version: "2.0.0".into(),
            system: "s".into(),
            detail: String::new(),
            attempt: None,
        }
    }

    #[test]
    fn upd_42_a_verdict_is_remembered_until_it_is_taken_back() {
        use EventKind::*;
        let table: &[(&[EventKind], bool)] = &[
            (&[], false),
            (&[Applied, FellBack], false),
            (&[Applied, TrialFailed, FellBack], true),
            (&[Applied, Committed, RolledBack], true),
            (&[Applied, Committed, BootFailed], false),
            (&[TrialFailed, BootFailed], true),
            (&[Rejected], true),
            (&[TrialFailed, Retried, Applied], false),
            (&[BootFailed, Retried, Applied], false),
            (&[TrialFailed, TrialFailed, Committed], false),
        ];
        for (kinds, bad) in table {
            let events: Vec<_> = kinds.iter().map(|k| event(*k, 2)).collect();
            assert_eq!(known_bad(&events, "s").is_some(), *bad, "{kinds:?}");
            assert!(known_bad(&events, "another").is_none());
        }
        let given_up = Event { detail: GIVEN_UP.into(), ..event(TrialFailed, 2) };
        assert_eq!(known_bad(&[given_up], "s"), None, "the loader cannot count");
    }

    #[test]
    fn upd_45_fallbacks_without_evidence_are_counted_by_generation() {
        use EventKind::*;
        let table: &[(&[(EventKind, u32)], usize)] = &[
            (&[], 0),
            (&[(Applied, 2), (FellBack, 2)], 1),
            (&[(FellBack, 2), (FellBack, 2)], 1),
            (&[(FellBack, 2), (FellBack, 3), (FellBack, 4)], 3),
            (&[(FellBack, 2), (TrialFailed, 3), (FellBack, 3), (FellBack, 4)], 2),
            // Evidence that was taken over late.
            (&[(FellBack, 2), (TrialFailed, 2)], 0),
            (&[(FellBack, 2), (FellBack, 3), (Retried, 4), (FellBack, 4)], 1),
            (&[(FellBack, 2), (FellBack, 3), (Committed, 4)], 0),
            (&[(RolledBack, 2), (FellBack, 2)], 0),
        ];
        for (rows, count) in table {
            let events: Vec<_> = rows.iter().map(|(kind, generation)| event(*kind, *generation)).collect();
            assert_eq!(inconclusive(&events, "s"), *count, "{rows:?}");
            assert_eq!(inconclusive(&events, "another"), 0);
        }
    }
}
