//! The entries of ours: what boots next and what it falls back to, and what is amiss with each.

use boot_entries::loader::ChoiceReason;
use boot_entries::{ChangeError, Liveness, NoFallback, OnCorruption, OurEntry, PayloadKind, Prediction, Wholeness};

use super::facts::{EspFacts, Facts};
use super::finding::{Finding, Repair, Severity};
use super::unpredictable;
use crate::session::describe;

pub(super) fn find(facts: &Facts, esp: &EspFacts) -> Vec<Finding> {
    let mut found = next_boot(facts, esp);
    found.extend(fallback(facts, esp));
    if let Err(why) = &esp.running {
        found.push(
            Finding::new(
                "running-entry",
                Severity::Danger,
                why.clone(),
                "nothing can be committed, updated or rolled back",
            )
            .remedy(match esp.next {
                Prediction::Boots { .. } => {
                    "see what was changed by hand on the EFI partition; a reboot starts what is named above"
                }
                _ => "see what was changed by hand on the EFI partition, and to the other findings first",
            }),
        );
    }
    for ours in &esp.state.ours {
        found.extend(form(facts, esp, ours));
        found.extend(payloads(facts, esp, ours));
        found.extend(refused(facts, esp, ours));
        found.extend(uncounted(facts, esp, ours));
    }
    found.extend(twins(facts, esp));
    found.extend(older(esp));
    found
}

fn next_boot(facts: &Facts, esp: &EspFacts) -> Vec<Finding> {
    let mut found = Vec::new();
    match &esp.next {
        Prediction::Nothing => found.push(
            Finding::new(
                "nothing-boots",
                Severity::Danger,
                "no entry can be booted",
                "the machine stops at its next boot and waits for a person",
            )
            .remedy("put a system on the disk before the machine is restarted")
            .run(format!("{} apply IMAGE", facts.program)),
        ),
        Prediction::Unknown { .. } => found.extend(unpredictable::find(facts, esp)),
        Prediction::Boots { entry: None, file_name, .. } => {
            if !esp.state.ours.iter().any(OurEntry::is_live) {
                found.push(
                    Finding::new(
                        "foreign-boots",
                        Severity::Danger,
                        format!("{file_name} boots, and there is no entry of ours"),
                        "what boots is not looked after by anybody",
                    )
                    .remedy("put a system on the disk")
                    .run(format!("{} apply IMAGE", facts.program)),
                );
            }
        }
        Prediction::Boots { entry: Some(name), file_name, .. } => {
            let last_try = esp.running_name().is_some_and(|running| running.same_system(*name));
            if name.is_exhausted() && !last_try {
                found.push(
                    Finding::new(
                        "bad-boots",
                        Severity::Danger,
                        format!("{file_name} boots next, and is marked bad"),
                        "what failed before boots again: nothing better is there, or something stands before it",
                    )
                    .remedy("apply an image that is known to work; a machine with bad slots accepts it")
                    .run(format!("{} apply IMAGE", facts.program)),
                );
            }
        }
    }
    // What runs is being tried, and waits for nothing.
    let waits = |ours: &&OurEntry| {
        let tries = ours.name.counter.is_some_and(|counter| counter.left() > 0);
        let runs = esp.running_name().is_some_and(|running| running.same_system(ours.name));
        ours.is_live() && ours.entry.is_ok() && tries && !runs && !esp.next.boots(ours.name)
    };
    let unknown = matches!(esp.next, Prediction::Unknown { .. });
    for ours in esp.state.ours.iter().filter(waits).filter(|_| !unknown) {
        let what = format!("{} waits for a try, and the loader boots {}", ours.file_name, describe(&esp.next));
        let finding = Finding::new("trial-sorts-low", Severity::Danger, what, "the update is never tried");
        found.push(
            finding
                .remedy("take away what stands before it (see the other findings), or give it up")
                .run(format!("{} reject {}", facts.program, ours.name.slot)),
        );
    }
    found
}

/// Is there something to fall back to, should what boots next fail?
fn fallback(facts: &Facts, esp: &EspFacts) -> Option<Finding> {
    let Prediction::Boots { entry: Some(next), .. } = &esp.next else { return None };
    let why = esp.no_fallback.as_ref()?;
    let both_bad = esp.state.ours.iter().filter(|ours| ours.is_live() && ours.name.is_exhausted()).count() > 1;
    let (severity, meaning) = if next.counter.is_some() {
        (Severity::Danger, "if the trial fails there is nothing to go back to")
    } else {
        (Severity::Note, "if it ever stops booting there is nothing to go back to; an update makes a second system")
    };
    // Before the first update the other slot is empty, and that is as it should be.
    let what = if both_bad { "both slots are bad".to_owned() } else { format!("only one system would boot: {why}") };
    let finding = Finding::new("no-fallback", severity, what, meaning).remedy("apply an image that is known to work");
    Some(finding.run(format!("{} apply IMAGE", facts.program)))
}

/// Would the next writing run remove this unreadable entry, because a readable one stands beside it (UPD-24)?
pub(super) fn tidied(esp: &EspFacts, ours: &OurEntry) -> bool {
    let twin = |other: &OurEntry| {
        other.file_name != ours.file_name && other.name.same_system(ours.name) && other.is_live() && other.entry.is_ok()
    };
    ours.entry.is_err() && esp.state.ours.iter().any(twin)
}

fn form(facts: &Facts, esp: &EspFacts, ours: &OurEntry) -> Option<Finding> {
    if esp.state.halts_the_loader(&ours.file_name) {
        return None; // It is `loader-halts`.
    }
    let tidied = tidied(esp, ours);
    match (&ours.entry, ours.liveness) {
        (Ok(_), Liveness::Live) => None,
        (Ok(_), Liveness::Inert) => {
            let what = format!("{} is inert: a change of the entries was cut", ours.file_name);
            let finding = Finding::new("inert-entry", Severity::Note, what, "the loader skips it; it only takes room");
            Some(esp.tidy(facts, finding, "remove it; nothing was promised by it"))
        }
        (Err(error), liveness) => {
            let what = format!("{} cannot be read: {error}", ours.file_name);
            let live = liveness == Liveness::Live && !tidied;
            let severity = if live { Severity::Danger } else { Severity::Warning };
            let why = if live {
                "the loader may boot it, and nobody can tell what it starts"
            } else {
                "the loader skips it, or a whole one stands beside it"
            };
            let id = if esp.state.uses_efi_key(&ours.file_name) { "efi-key" } else { "unreadable-entry" };
            let finding = Finding::new(id, severity, what, why);
            Some(if tidied {
                esp.tidy(facts, finding, "remove it; the one beside it stays")
            } else {
                finding.remedy(format!("apply an image to slot {}, which removes it (or, on the running system, write the slot's entry anew by a rollback and an apply)", ours.name.slot))
                    .run(format!("{} apply IMAGE", facts.program))
            })
        }
    }
}

fn payloads(facts: &Facts, esp: &EspFacts, ours: &OurEntry) -> Option<Finding> {
    let (_, wholeness) = esp.wholeness.iter().find(|(name, _)| *name == ours.file_name)?;
    let file = |kind| ours.entry.as_ref().map(|entry| entry.payload(kind).path().to_string()).unwrap_or_default();
    let told = |how: &Wholeness, kind| format!("of {}, {how} ({})", ours.file_name, file(kind));
    let (id, kind, what) = match wholeness {
        Ok(how @ Wholeness::Missing(kind)) => ("payload-missing", Some(*kind), told(how, *kind)),
        Ok(how @ Wholeness::Differs(kind)) => ("payload-altered", Some(*kind), told(how, *kind)),
        Ok(Wholeness::Whole | Wholeness::Inert | Wholeness::Unreadable(_)) => return None,
        Err(why) => {
            ("payload-unreadable", None, format!("of {}, a file that it boots cannot be read: {why}", ours.file_name))
        }
    };
    let severity =
        if ours.name.is_exhausted() && !esp.next.boots(ours.name) { Severity::Warning } else { Severity::Danger };
    let why = match (id, kind) {
        ("payload-missing", Some(PayloadKind::Linux | PayloadKind::Uki)) => "the loader skips the entry without a word",
        ("payload-missing", Some(PayloadKind::Initrd)) => {
            "the loader counts the try and stops in the firmware until somebody resets the machine"
        }
        ("payload-unreadable", _) => {
            "the firmware may not be able to read it either: the disk is failing, or the volume damaged"
        }
        _ => "it may not start, or not be what was signed",
    };
    let finding = Finding::new(id, severity, what, why);
    let runs = esp.running.as_ref().is_ok_and(|running| running.name().same_system(ours.name));
    Some(if runs {
        finding
            .remedy(format!("put the {} of version {} back (from its image: `ralph-image extract`), or go back to the other slot and apply the image again", kind.map_or("kernel and initrd".to_owned(), |kind| kind.to_string()), esp.version(ours)))
            .run(format!("{} rollback", facts.program))
    } else {
        finding
            .remedy(format!("apply an image again: it writes slot {} anew", ours.name.slot))
            .run(format!("{} apply IMAGE", facts.program))
    })
}

/// Its kernel is whole, and the firmware would not start it (UPD-51).
fn refused(facts: &Facts, esp: &EspFacts, ours: &OurEntry) -> Option<Finding> {
    let (_, refusal) = esp.refused.iter().find(|(name, _)| *name == ours.file_name)?;
    let next = esp.next.boots(ours.name);
    let runs = esp.running_name().is_some_and(|running| running.same_system(ours.name));
    let good = esp.whole();
    let beside = || {
        let ours = esp.state.ours.iter().filter(|other| other.name.slot != ours.name.slot);
        ours.filter(|other| good.contains(&other.file_name))
    };
    // Without a doubt (UPD-52): a rollback is not advised for a "may".
    let starts = |other: &&OurEntry| !esp.refused.iter().any(|(name, _)| *name == other.file_name);
    let committed_beside = beside().any(|other| other.name.counter.is_none());
    let another_starts = beside().filter(starts).any(|other| other.name.counter.is_none());
    let next_starts = beside().filter(starts).any(|other| esp.next.boots(other.name));
    let severity = if next && refusal.certain { Severity::Danger } else { Severity::Warning };
    let would = if refusal.certain { "would not start" } else { "may not start" };
    let what = format!("this machine's firmware {would} the kernel of {}: {}", ours.file_name, refusal.why);
    let meaning = if next {
        "the next boot stops in the firmware until somebody resets the machine"
    } else {
        "it is no way back: the machine would stop in its firmware"
    };
    let finding = Finding::new("kernel-refused", severity, what, meaning);
    let (remedy, command) = match (next, runs) {
        (true, true) if another_starts => (
            "go back to the other slot, which the firmware starts, before any restart; then apply an image that is signed with a key that the firmware has",
            Some("rollback".to_owned()),
        ),
        // Where the other one would not start either, giving this one up is refused (UPD-51).
        (true, false) if ours.name.counter.is_some() && committed_beside => (
            "give it up before any restart; then apply an image that is signed with a key that the firmware has",
            Some(format!("reject {}", ours.name.slot)),
        ),
        (true, _) => (
            "apply an image that is signed with a key that the firmware has, before any restart",
            Some("apply IMAGE".to_owned()),
        ),
        // An update would take the place of what leads out.
        (false, true) if next_starts => (
            "restart: the system that boots next is one that the firmware starts; then apply an image that is signed with a key that the firmware has",
            None,
        ),
        (false, _) => {
            ("apply an image that is signed with a key that the firmware has", Some("apply IMAGE".to_owned()))
        }
    };
    let finding = finding.remedy(remedy);
    Some(match command {
        Some(command) => finding.run(format!("{} {command}", facts.program)),
        None => finding,
    })
}

/// An entry without a counter that nobody committed, or with one that older loaders do not see.
fn uncounted(facts: &Facts, esp: &EspFacts, ours: &OurEntry) -> Option<Finding> {
    let Ok(entry) = &ours.entry else { return None };
    if !ours.is_live() {
        return None;
    }
    // An entry is staged with it and committed without it (ENT-11): only a rename leaves it in an uncounted one.
    if ours.name.counter.is_none() && entry.options.on_corruption == OnCorruption::Restart {
        let runs = esp.running_name().is_some_and(|running| running.same_system(ours.name));
        let what = format!(
            "{} has no counter, and was never committed: somebody renamed it (systemd-bless-boot does)",
            ours.file_name
        );
        let finding = Finding::new(
            "uncounted-entry",
            Severity::Danger,
            what,
            "it was never proven, and if it fails no counter brings the other system back",
        );
        return Some(if runs {
            finding
                .remedy("if this system is well, an update proves its successor; if not, go back")
                .run(format!("{} rollback", facts.program))
        } else {
            finding
                .remedy(format!("mark slot {} bad, then apply the image again", ours.name.slot))
                .run(format!("{} reject {}", facts.program, ours.name.slot))
        });
    }
    if ours.name.counter.is_some() && !ours.file_name.ends_with(".conf") {
        let what = format!("the name of {} ends in capital letters", ours.file_name);
        let finding = Finding::new(
            "uncounted-entry",
            Severity::Danger,
            what,
            "systemd-boot 252 to 255 does not count such an entry: it boots for ever",
        );
        return Some(
            finding
                .remedy(format!("mark slot {} bad, then apply the image again", ours.name.slot))
                .run(format!("{} reject {}", facts.program, ours.name.slot)),
        );
    }
    None
}

fn twins(facts: &Facts, esp: &EspFacts) -> Vec<Finding> {
    let live: Vec<&OurEntry> = esp.state.ours.iter().filter(|ours| ours.is_live() && ours.entry.is_ok()).collect();
    let mut found = Vec::new();
    for (at, first) in live.iter().enumerate() {
        for second in live[at + 1..].iter().filter(|second| second.name.same_system(first.name)) {
            // LDR-7: the loader would rename the one to the other's name, cannot, and never counts again.
            let stuck = |a: &OurEntry, b: &OurEntry| match (a.name.counter, b.name.counter) {
                (Some(a), Some(b)) => a.left() > 0 && a.counted() == b,
                _ => false,
            };
            let danger = stuck(first, second) || stuck(second, first);
            let (severity, why) = if danger {
                (
                    Severity::Danger,
                    "the firmware cannot rename the one onto the other, so the trial is never counted and never ends",
                )
            } else {
                (Severity::Warning, "both start the same system; a change of its entry was cut")
            };
            let what = format!("{} and {} are names of one system", first.file_name, second.file_name);
            found.push(esp.tidy(
                facts,
                Finding::new("twin", severity, what, why),
                "remove the one that the cut change was to replace",
            ));
        }
    }
    found
}

fn older(esp: &EspFacts) -> Vec<Finding> {
    let live = || esp.state.ours.iter().filter(|ours| ours.is_live());
    let newer = |ours: &&OurEntry| {
        live().any(|other| other.name.slot == ours.name.slot && other.name.generation > ours.name.generation)
    };
    let error =
        |ours: &OurEntry| ChangeError::OlderEntries { slot: ours.name.slot, files: vec![ours.file_name.clone()] };
    let finding = |ours: &OurEntry| {
        Finding::new(
            "older-entry",
            Severity::Danger,
            error(ours).to_string(),
            "it starts a slot that holds another system by now; commit and rollback are refused",
        )
        .remedy(format!(
            "remove loader/entries/{} from the EFI partition, or apply an image to slot {}",
            ours.file_name, ours.name.slot
        ))
    };
    live().filter(newer).map(finding).collect()
}

impl EspFacts {
    /// `doctor --fix` tidies it away, where that can be done: not before the clusters are known (ENT-22).
    pub(super) fn tidy(&self, facts: &Facts, finding: Finding, remedy: &str) -> Finding {
        let finding = finding.remedy(remedy);
        if facts.writable() && self.faults.is_ok() { finding.fix(Repair::Tidy, &facts.program) } else { finding }
    }
}

/// Why nothing else would boot; none where what stands in the way is a finding of its own.
pub(super) fn why_no_fallback(error: &NoFallback) -> Option<String> {
    let told = match error {
        NoFallback::Same { reason, .. } => *reason != ChoiceReason::First,
        NoFallback::Foreign { .. } | NoFallback::Unknown { .. } => true,
        _ => false,
    };
    (!told).then(|| crate::exit::with_source(error))
}
