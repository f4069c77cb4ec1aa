//! UPD-1, gathering: what must be known before the decision of [`crate::refuse`], and the refusals that need the ESP.

use boot_entries::{Entry, Liveness, OnCorruption, OurEntry, Payloads, Wholeness, another_whole_entry_boots, is_whole};
use disk_layout::UpdateLock;
use image_format::{Architecture, Manifest, SystemId, UpdaterVersion};

use crate::apply::{ApplyError, Plan, Request, Traffic};
use crate::doctor;
use crate::exit::with_source;
use crate::firmware_trust::{self, FirmwareTrust};
use crate::guard::take_over_guard_event;
use crate::history::Event;
use crate::host::Host;
use crate::memory::{inconclusive, why_known_bad};
use crate::new_entry::{Place, new_entry};
use crate::plan::{Asked, Broken};
use crate::refuse::{Decision, Facts, KnownBad, Refusal, decide, refers_to_running};
use crate::session::{
    Fencing, Running, Session, SessionError, describe, floor, hex, is_untried, next_generation, note, note_fallbacks,
};

/// What the look before the fence found.
#[derive(Debug)]
pub(crate) enum Preflight {
    /// Nothing speaks against it.
    Go(Box<Plan>),
    /// It runs.
    AlreadyRunning,
    /// It is staged.
    AlreadyStaged,
}

/// What is to be applied; its signatures hold.
#[derive(Debug)]
pub(crate) struct Offered<'i> {
    pub(crate) manifest: &'i Manifest,
    pub(crate) system: SystemId,
    /// Of a delta.
    pub(crate) base: Option<SystemId>,
}

/// Looks at machine and image. Changes nothing but what a cut left half done (UPD-24).
pub(crate) fn look(
    host: &dyn Host,
    lock: &UpdateLock,
    &Offered { manifest, system, base }: &Offered<'_>,
    request: &Request<'_>,
) -> Result<Preflight, ApplyError> {
    host.refuse_lookalikes().map_err(SessionError::from)?;
    let mut session = Session::open(host, lock, Fencing::Target)?;
    let running = session.running()?;
    let mut notes = session.notes().to_vec();
    if host.booted().is_some() {
        if let Err(error) = take_over_guard_event(host, lock, session.state()) {
            notes.push(with_source(&error));
        }
        // The fence takes away the entry that tells of a fallback. What cannot be recorded must not stop an update.
        note(&mut notes, note_fallbacks(session.state(), Some(running.name()), host.records()).map(drop));
    }
    // A history that cannot be read costs its memory, not the update (UPD-42): `/var` may be spoilt.
    let past = host.records().events().unwrap_or_else(|error| {
        note(&mut notes, Err(error));
        Vec::new()
    });
    let facts = facts(host, &mut session, &running, &past, &system.to_string(), request)?;
    match decide(manifest, &system.to_string(), &facts, request.downgrade, request.known_bad)? {
        Decision::Apply => refers_to_running(base.map(|base| base.to_string()), &facts)?,
        Decision::AlreadyRunning => return Ok(Preflight::AlreadyRunning),
        Decision::AlreadyStaged => {
            // "Nothing to do" is said of a system that will be tried: what leads the loader away may have come since.
            if let Some(Ok(entry)) = session.state().live(running.target().slot()).map(|ours| ours.entry.clone()) {
                loader_agrees(host, &mut session, &running, &entry)?;
            }
            return Ok(Preflight::AlreadyStaged);
        }
    }
    fallback_is_whole(&mut session, &running, &facts.firmware)?;
    let generation = next_generation(session.state(), host.booted(), &past)
        .ok_or_else(|| Refusal::PlanBroken { why: "all generations are used up".to_owned() })?;
    let target = running.target();
    let slot = target.slot();
    let place = Place { slot, partuuid: host.layout().slot(slot).unique_guid, generation };
    let entry = new_entry(manifest, system, place, OnCorruption::Restart);
    loader_agrees(host, &mut session, &running, &entry)?;
    session.close()?;
    let retried = facts.known_bad.is_some() || facts.inconclusive > 0 && request.known_bad == KnownBad::Retry;
    Ok(Preflight::Go(Box::new(Plan { target, entry, retried, notes, traffic: Traffic::default() })))
}

fn facts(
    host: &dyn Host,
    session: &mut Session<'_>,
    running: &Running,
    past: &[Event],
    system: &str,
    request: &Request<'_>,
) -> Result<Facts, ApplyError> {
    let target = running.target().slot();
    let space = session.esp().space().map_err(SessionError::State)?;
    let (esp, state) = session.esp_and_state();
    let firmware = FirmwareTrust::of(host);
    // A staged system that is spoilt, or that the firmware would not start, is staged anew.
    let staged = match state.live(target).filter(|ours| staged_system(ours).is_some()) {
        Some(ours) if is_whole(esp, ours).map_err(SessionError::State)? == Wholeness::Whole => {
            let refused = firmware_trust::refusal(&firmware, esp, ours).map_err(SessionError::State)?;
            staged_system(ours).filter(|_| refused.is_none())
        }
        _ => None,
    };
    let in_target = state.live(target);
    Ok(Facts {
        policy: request.policy.clone(),
        architecture: image_architecture(host.layout().architecture),
        updater: this_version(),
        running_version: running.entry().os_version().to_owned(),
        running_system: hex(&running.entry().options.system),
        staged_system: staged,
        floor: floor(state, host.records()),
        known_bad: why_known_bad(state.ours.iter(), past, system),
        inconclusive: inconclusive(past, system),
        slot_len: host.layout().slot(target).len,
        cluster_size: u64::from(space.cluster_size),
        free_clusters: space.free_clusters,
        freed_clusters: state.freed_by_fence(target, space),
        firmware,
        running_unified: matches!(running.entry().payloads, Payloads::Uki(_)),
        // A trial whose other slot is bad or empty has nothing to lose by a new one there (UPD-1).
        running_on_trial: running.is_trial() && in_target.is_some_and(|ours| !ours.name.is_exhausted()),
    })
}

fn staged_system(ours: &OurEntry) -> Option<String> {
    let untried = ours.name.counter.is_some_and(is_untried);
    ours.entry.as_ref().ok().filter(|_| untried).map(|entry| hex(&entry.options.system))
}

/// The running system is what the machine falls back to, so it has to be proven before its only other way to boot is taken away; and
/// the firmware must start it, if it starts that other one (UPD-52).
fn fallback_is_whole(session: &mut Session<'_>, running: &Running, firmware: &FirmwareTrust) -> Result<(), ApplyError> {
    let (vars, architecture) = (session.vars().clone(), session.architecture());
    let (esp, state) = session.esp_and_state();
    match is_whole(esp, running.ours()).map_err(SessionError::State)? {
        Wholeness::Whole => {}
        why => return Err(Refusal::FallbackNotWhole { why: why.to_string() }.into()),
    }
    let refused = firmware_trust::refusal(firmware, esp, running.ours()).map_err(SessionError::State)?;
    let Some(refused) = refused.filter(|refused| refused.certain) else { return Ok(()) };
    // Refused is only where a rollback leads out, without a doubt: else the new system is the way out.
    let slot = running.target().slot();
    let Some(other) = state.live(slot).filter(|_| state.entries(slot).count() == 1) else { return Ok(()) };
    let back = another_whole_entry_boots(esp, state, running.name(), &vars, architecture);
    let proven = back.is_ok_and(|back| back.name == other.name && back.name.counter.is_none());
    if !proven || !matches!(firmware_trust::refusal(firmware, esp, other), Ok(None)) {
        return Ok(());
    }
    let why = format!(
        "this machine's firmware would not start it again ({}), and would start the system in slot {slot}: run `ralph-update rollback` first",
        refused.why
    );
    Err(Refusal::FallbackNotWhole { why }.into())
}

/// What would make the trial pointless, before the target slot is touched: a loader that does not count, a partition table
/// whose disk may not come up again, or a choice that would not try the new entry, or not come back (UPD-1). Who is to
/// blame, and what to do, says the doctor.
fn loader_agrees(
    host: &dyn Host,
    session: &mut Session<'_>,
    running: &Running,
    entry: &Entry,
) -> Result<(), ApplyError> {
    if Entry::parse(&entry.render(Liveness::Live)).map(|(parsed, _)| parsed).as_ref() != Ok(entry) {
        return Err(broken("the image's title or options cannot stand in a boot entry; build it anew".to_owned()));
    }
    if let Some(finding) = doctor::against_a_trial(host) {
        return Err(broken(finding.sentence()));
    }
    if let Some(finding) = doctor::against_a_restart(host, session.esp()) {
        return Err(broken(finding.sentence()));
    }
    let firmware = host.firmware();
    let (vars, architecture) = (session.vars().clone(), session.architecture());
    let (esp, state) = session.esp_and_state();
    let instead = |what: &str, choice| format!("{what}; the loader would boot {}", describe(&choice));
    let mut why = match (Asked { state, vars: &vars, architecture }).check(running.name(), entry) {
        Ok(()) if !doctor::prefers(esp, firmware.as_ref()).map_err(SessionError::State)? => return Ok(()),
        Ok(()) => "the loader prefers an entry by its name, so what it would boot cannot be told".to_owned(),
        Err(Broken::NotTried(choice)) => instead("the new system would not be tried", choice),
        Err(Broken::NotBack(choice)) => {
            instead("if the new system failed, the running one would not come back", choice)
        }
    };
    let blame = doctor::who_misleads(esp, state, (&vars, firmware.as_ref()), (running, entry), &host.command());
    for finding in blame.map_err(SessionError::State)? {
        why.push_str(&format!("; {}", finding.sentence()));
    }
    Err(broken(why))
}

fn broken(why: String) -> ApplyError {
    Refusal::PlanBroken { why }.into()
}

/// The architecture as images call it.
pub(crate) fn image_architecture(architecture: disk_layout::Architecture) -> Architecture {
    match architecture {
        disk_layout::Architecture::X86_64 => Architecture::X86_64,
        disk_layout::Architecture::Aarch64 => Architecture::Aarch64,
    }
}

/// This program's version.
pub fn this_version() -> UpdaterVersion {
    env!("CARGO_PKG_VERSION").parse().unwrap_or(UpdaterVersion(0, 0, 0))
}
