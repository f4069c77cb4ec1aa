//! Which way a system comes: the image that was named, or a delta that lies beside it (FET-60 to FET-62).
//!
//! Nobody has signed the list of deltas: it can make an update dearer, and never another one. What it leads to is authenticated as
//! everything is, must carry the very system that the named image carries, and where it fails in any way the image itself is taken.

use boot_entries::EspState;
use disk_layout::Slot;
use image_format::{Reuse, SystemId};

use crate::apply::{ApplyError, FencedError, Outcome, Request, Trusted, apply_trusted, read_asked};
use crate::exit::with_source;
use crate::fetch::{BadList, Delta, Told, cheapest, without_credentials};
use crate::host::{Access, Host};
use crate::progress::{Progress, Step};
use crate::refuse::Refusal;
use crate::session;
use crate::slot_content::SlotContentError;
use crate::slot_map::{KnownSlots, Running, SlotMaps};
use crate::source::{ImageStream, Source, Stream};

/// How what is not here is fetched.
#[allow(missing_debug_implementations, reason = "closures")]
pub struct Ways<'w> {
    /// Opens an image or a delta.
    pub open: &'w dyn Fn(&Source) -> anyhow::Result<Stream>,
    /// The list beside the image at this address.
    pub deltas_beside: &'w dyn Fn(&str) -> Result<Vec<Delta>, BadList>,
}

/// How the system came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// By the image or delta that was named: there was nothing to choose from.
    Named {
        /// It is a delta.
        is_delta: bool,
    },
    /// By the image that was named, though there are deltas from the running system.
    Image {
        /// What is fetched of it, its head left aside.
        image_bytes: u64,
        /// The length of the shortest delta.
        delta_bytes: u64,
    },
    /// By a delta beside it.
    Delta {
        /// What would have been fetched of the image, its head left aside.
        image_bytes: u64,
        /// Its length.
        delta_bytes: u64,
        /// Its address, without credentials.
        url: String,
    },
}

/// What became of it.
#[derive(Debug)]
pub struct Applied {
    /// The outcome.
    pub outcome: Outcome,
    /// Which way it came.
    pub way: Way,
    /// What was tried and did not work, for a person.
    pub notes: Vec<String>,
    /// Of everybody who was asked.
    pub told: Vec<Told>,
}

/// Why a delta of a list is not used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("it cannot be opened")]
    Open(#[source] anyhow::Error),
    #[error("it is no delta")]
    NoDelta,
    #[error("it carries system {delta}, the image carries {image}")]
    Another { delta: String, image: String },
}

/// Applies the system in `image` in the cheapest way there is.
///
/// # Errors
/// As [`crate::apply::apply`].
pub fn apply_cheapest(
    host: &dyn Host,
    image: &Source,
    ways: &Ways<'_>,
    request: &Request<'_>,
    progress: &mut dyn Progress,
) -> anyhow::Result<Applied> {
    progress.begin(Step::Check, None);
    let (mut told, mut notes) = (Vec::new(), Vec::new());
    let full = read_asked(open(image, ways, &mut told)?, request)?;
    let found = match image {
        Source::Url(url) if full.base().is_none() => find_delta(host, &full, url, ways, &mut notes),
        _ => None,
    };
    let by_image = match &found {
        None => Way::Named { is_delta: full.base().is_some() },
        Some((delta, image_bytes)) => Way::Image { image_bytes: *image_bytes, delta_bytes: delta.bytes },
    };
    let Some((delta, image_bytes)) = found.filter(|(delta, image_bytes)| delta.bytes < *image_bytes) else {
        let outcome = apply_trusted(host, full, request, progress)?;
        return Ok(Applied { outcome, way: by_image, notes, told });
    };
    let (delta_bytes, name) = (delta.bytes, without_credentials(&delta.url));
    let system = full.system_id();
    // Two tables in memory would be one too many (IMG-60).
    drop(full);
    let tried = open_delta(&Source::Url(delta.url), system.to_string(), ways, request, &mut told)
        .and_then(|delta| Ok(apply_trusted(host, delta, request, progress)?));
    let error = match tried {
        Ok(outcome) => {
            return Ok(Applied { outcome, way: Way::Delta { image_bytes, delta_bytes, url: name }, notes, told });
        }
        Err(error) if request.stop.is_asked() || !is_of_the_delta(&error) => return Err(error),
        Err(error) => error,
    };
    let reason = format!("{error:#}");
    progress.begin(Step::Check, None);
    let again = open(image, ways, &mut told)
        .and_then(|image| Ok(apply_trusted(host, read_asked(image, request)?, request, progress)?));
    let outcome = again.map_err(|second| still_fenced(&error, &reason, second))?;
    notes.push(format!("the delta {name} could not be used, and the full image was taken: {reason}"));
    Ok(Applied { outcome, way: by_image, notes, told })
}

/// Opens an image or a delta; `told` keeps what its source can tell afterwards.
fn open(source: &Source, ways: &Ways<'_>, told: &mut Vec<Told>) -> anyhow::Result<Box<dyn ImageStream>> {
    let stream = (ways.open)(source)?;
    told.push(stream.told);
    Ok(stream.reader)
}

/// What the second attempt says of the disk is only half of it where the first one has fenced the slot (IFC-2).
fn still_fenced(first: &anyhow::Error, reason: &str, second: anyhow::Error) -> anyhow::Error {
    let Some(ApplyError::Fenced { slot, .. }) = first.downcast_ref() else { return second };
    if matches!(second.downcast_ref(), Some(ApplyError::Fenced { .. } | ApplyError::Uncertain { .. })) {
        return second;
    }
    let source = match second.downcast_ref() {
        Some(ApplyError::Interrupted) => FencedError::Interrupted,
        _ => FencedError::Again { delta: reason.to_owned(), source: second },
    };
    ApplyError::Fenced { slot: *slot, source: Box::new(source) }.into()
}

/// The shortest delta from the running system, and what would be fetched of the image itself. What is looked at here is looked at
/// again under the lock, before anything depends on it.
fn find_delta(
    host: &dyn Host,
    full: &Trusted,
    url: &str,
    ways: &Ways<'_>,
    notes: &mut Vec<String>,
) -> Option<(Delta, u64)> {
    let (slot, running) = running(host)?;
    if running == *full.system_id().as_bytes() {
        return None;
    }
    let list = (ways.deltas_beside)(url).unwrap_or_else(|error| {
        notes.push(format!("the list of deltas beside the image is of no use: {}", with_source(&error)));
        Vec::new()
    });
    let delta = cheapest(&list, &[running], u64::MAX)?.clone();
    Some((delta, to_fetch(host, full, slot, running.into())))
}

/// The slot and the system that run, or count as running (UPD-60).
fn running(host: &dyn Host) -> Option<(Slot, [u8; 32])> {
    let mut esp = host.open_esp(Access::ReadOnly).ok()?;
    let state = EspState::read(esp.esp()).ok()?;
    let running = session::running(&state, host.booted()).ok()?;
    Some((running.entry().slot(), running.entry().options.system))
}

/// What would be fetched of a full image, its head left aside (SLM-4).
fn to_fetch(host: &dyn Host, full: &Trusted, running: Slot, system: SystemId) -> u64 {
    let maps = host.records().slots_dir().map(SlotMaps::in_dir);
    let (target, other) = (host.read_slot(!running), host.read_slot(running));
    let read = |at, into: &mut [u8]| target.as_ref().is_some_and(|slot| slot.read_at(at, into).is_ok());
    let other = other.as_deref().map(|slot| Running { slot, system });
    let known = maps.map(|maps| KnownSlots::by_reading(&maps, !running, read, other));
    let is_here = |number, chunk: &_| known.as_ref().is_some_and(|known| known.claims(number, chunk).is_some());
    let chunks = full.chunks().iter().enumerate();
    let missing = chunks.filter(|(number, chunk)| chunk.payload != 0 || !is_here(*number, chunk));
    missing.map(|(_, chunk)| u64::from(chunk.encoded_len)).sum()
}

fn open_delta(
    source: &Source,
    image: String,
    ways: &Ways<'_>,
    request: &Request<'_>,
    told: &mut Vec<Told>,
) -> anyhow::Result<Trusted> {
    // Whatever speaks against its address, the mirrors of this machine included, speaks against the list that named it.
    let delta = read_asked(open(source, ways, told).map_err(Unusable::Open)?, request)?;
    let system = delta.system_id().to_string();
    if system != image {
        return Err(Unusable::Another { delta: system, image }.into());
    }
    if delta.base().is_none() {
        return Err(Unusable::NoDelta.into());
    }
    Ok(delta)
}

/// Is it the delta, or what it refers to, that the full image does without? What speaks against the system or the machine would speak
/// against the full image, too.
fn is_of_the_delta(error: &anyhow::Error) -> bool {
    if error.is::<Unusable>() {
        return true;
    }
    match error.downcast_ref() {
        Some(ApplyError::Head(_) | ApplyError::Untrusted(_) | ApplyError::Nobody { .. } | ApplyError::Source(_)) => {
            true
        }
        Some(ApplyError::Refused(refusal)) => {
            matches!(refusal, Refusal::DeltaBase { .. } | Refusal::DeltaBaseUnread { .. })
        }
        // A table of its own, signed by keys that may sign deltas only, may also be wrong about the root.
        Some(ApplyError::Fenced { source, .. }) => {
            source.is_of_source() || matches!(**source, FencedError::Content(SlotContentError::RootHash { .. }))
        }
        _ => false,
    }
}
