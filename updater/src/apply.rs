//! `apply`: an image into the target slot, in the order of specs/boot-entries.md section 5.
//!
//! Each step is a type, made only by the step before it: what was not verified cannot be written, what was not fenced
//! cannot be overwritten, and what was not read back cannot be staged. The order is forced by what a power cut at any
//! instant may leave; the story stands at each step.

use std::num::NonZeroUsize;

use boot_entries::esp::ReadSeek;
use boot_entries::{
    ChangeError, Counter, Entry, EntryName, EspState, Fenced, PayloadKind, Staged, WrittenPayload, fence, stage,
};
use disk_layout::{Changed, Look, SlotIo, UpdateLock};
use image_format::{
    Boot, Chunk, ChunkError, Manifest, NoReuse, PE_HEAD_LEN, Reuse, Taken, TrustPolicy, UnverifiedImage, VerifiedImage,
    pe_machine,
};

use crate::config::Policy;
use crate::exit::with_source;
use crate::firmware_trust::{self, FirmwareTrust};
use crate::history::EventKind;
use crate::host::{Access, Host, TargetSlot};
use crate::inhibit::Inhibitor;
use crate::loader;
use crate::preflight::{self, Offered, Preflight};
use crate::progress::{Progress, Step};
use crate::refuse::{Downgrade, KnownBad, Refusal};
use crate::session::{self, event};
use crate::slot_content::{self, Done, How, Proven, SlotContentError, SlotRoot, Written};
use crate::slot_map::{Journal, KnownSlots, Running, SlotMaps};
use crate::source::{Chunks, ImageStream, with_chunks};
use crate::stop::Stop;

#[path = "apply_error.rs"]
mod error;

pub use error::{ApplyError, FencedError};

/// What the operator asks for.
#[derive(Debug)]
pub struct Request<'a> {
    /// Whom to trust.
    pub trust: &'a TrustPolicy,
    /// What the machine accepts.
    pub policy: &'a Policy,
    /// Older images.
    pub downgrade: Downgrade,
    /// Images that failed here.
    pub known_bad: KnownBad,
    /// Ends the work when it is asked to, up to the commit point; the slot is fenced then (UPD-8).
    pub stop: &'a Stop,
    /// Threads that work on the slot; by the machine where it is not said.
    pub workers: Option<NonZeroUsize>,
}

impl Request<'_> {
    /// Who asks for an end before the fence loses nothing by it (UPD-9).
    pub(crate) fn check_stop(&self) -> Result<(), ApplyError> {
        if self.stop.is_asked() { Err(ApplyError::Interrupted) } else { Ok(()) }
    }
}

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The new system is staged and boots next.
    Staged(Box<Summary>),
    /// Nothing to do: it runs.
    AlreadyRunning,
    /// Nothing to do: it is staged.
    AlreadyStaged,
}

/// A staged system.
#[derive(Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its entry as written.
    pub entry: Entry,
    /// The entry's file name.
    pub file_name: String,
    /// What did not work and stopped nothing, for a person.
    pub notes: Vec<String>,
    /// Where root came from, and what of it was written.
    pub traffic: Traffic,
}

/// How many bytes went which way for root, its tree left aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// From where.
    pub taken: Taken,
    /// Into the slot.
    pub changed: Changed,
}

/// What every step needs.
struct Context<'c> {
    host: &'c dyn Host,
    lock: &'c UpdateLock,
    progress: &'c mut dyn Progress,
    stop: &'c Stop,
    workers: Option<NonZeroUsize>,
}

impl Context<'_> {
    fn check_stop(&self) -> Result<(), FencedError> {
        if self.stop.is_asked() { Err(FencedError::Interrupted) } else { Ok(()) }
    }
}

/// What will be staged where; decided before anything is changed.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) target: TargetSlot,
    pub(crate) entry: Entry,
    /// The history has to hear that a failed system is tried again.
    pub(crate) retried: bool,
    /// What could not be read or recorded before, for a person.
    pub(crate) notes: Vec<String>,
    pub(crate) traffic: Traffic,
}

/// An image or a delta whose head is trusted, and of which nothing more was read.
pub type Trusted = VerifiedImage<Box<dyn ImageStream>>;

/// Reads the head that `source` begins with, and trusts it or not. Where the source has mirrors, one that sends a head of no use keeps
/// nobody from the good ones (FET-28); if there is none, the error is that of the first.
pub fn read_trusted(mut source: Box<dyn ImageStream>, trust: &TrustPolicy) -> Result<Trusted, ApplyError> {
    let mut first: Option<ApplyError> = None;
    loop {
        let read = UnverifiedImage::read_head(&mut source).map_err(ApplyError::from);
        match read.and_then(|head| Ok(head.verify_any(trust)?.map_source(|_| ()))) {
            Ok(image) => return Ok(image.map_source(|()| source)),
            Err(error) => match (source.begin_anew(), first.take()) {
                (Ok(()), before) => first = Some(before.unwrap_or(error)),
                (Err(Some(others)), Some(before)) => {
                    return Err(ApplyError::Nobody { others, first: Box::new(before) });
                }
                (Err(_), before) => return Err(before.unwrap_or(error)),
            },
        }
    }
}

/// As [`read_trusted`], for an apply: whatever failed, failed because of the signal, if there was one.
pub(crate) fn read_asked(source: Box<dyn ImageStream>, request: &Request<'_>) -> Result<Trusted, ApplyError> {
    let image = read_trusted(source, request.trust);
    request.check_stop()?;
    image
}

/// Applies the image or delta that `source` holds.
pub fn apply(
    host: &dyn Host,
    source: Box<dyn ImageStream>,
    request: &Request<'_>,
    progress: &mut dyn Progress,
) -> Result<Outcome, ApplyError> {
    progress.begin(Step::Check, None);
    apply_trusted(host, read_asked(source, request)?, request, progress)
}

/// As [`apply`]. Takes the lock when the head is read and trusted, and not before, and holds it to the end: whoever sends a head slowly
/// must not keep a trial from its commit.
pub fn apply_trusted(
    host: &dyn Host,
    image: Trusted,
    request: &Request<'_>,
    progress: &mut dyn Progress,
) -> Result<Outcome, ApplyError> {
    let image = with_chunks(image);
    request.check_stop()?;
    let image = image.map_err(ApplyError::Source)?;
    let lock = host.lock()?;
    let mut context = Context { host, lock: &lock, progress, stop: request.stop, workers: request.workers };
    let mut checked = match Checked::new(image, &context, request)? {
        Ok(checked) => checked,
        Err(nothing_to_do) => return Ok(nothing_to_do),
    };
    request.check_stop()?;
    // A boot that fails must have one cause (LUP-3).
    checked.plan.notes.extend(loader::stand_back(host));
    let name = checked.plan.entry.name(Some(Counter::fresh()));
    let slot = name.slot;
    let manifest = checked.image.manifest().clone();
    let fenced =
        checked.fence(&mut context).map_err(|error| ApplyError::NotFenced { slot, source: Box::new(error) })?;
    let staged = fenced
        .write(&mut context, &manifest)
        .and_then(|it| it.read_back(&mut context, &manifest))
        .and_then(|it| it.payloads(&mut context, &manifest))
        .and_then(|it| it.stage(&mut context));
    let staged = staged.map_err(|error| {
        // A source is hung up on when somebody asks for an end.
        let error = if request.stop.is_asked() && error.is_of_source() { FencedError::Interrupted } else { error };
        let source = Box::new(error);
        if is_live(host, name) { ApplyError::Uncertain { slot, source } } else { ApplyError::Fenced { slot, source } }
    })?;
    context.progress.end();
    Ok(Outcome::Staged(Box::new(staged.record(&context))))
}

/// After a failure: does the ESP show the new entry as live? Then the commit point may have been passed.
fn is_live(host: &dyn Host, name: EntryName) -> bool {
    let state = host.open_esp(Access::ReadOnly).map(|mut esp| EspState::read(esp.esp()));
    let Ok(Ok(state)) = state else { return false };
    state.live(name.slot).is_some_and(|ours| ours.name.same_system(name))
}

type Image = VerifiedImage<Chunks>;

/// Gives a delta the slot that it refers to, which is the one that runs.
fn on_base(image: Image, host: &dyn Host, target: TargetSlot) -> Result<Image, Refusal> {
    let slot = !target.slot();
    match image.base().map(|_| host.read_slot(slot)) {
        None => Ok(image),
        Some(Some(root)) => Ok(image.on_base(SlotRoot(root))),
        Some(None) => Err(Refusal::DeltaBaseUnread { slot: slot.to_string() }),
    }
}

/// UPD-1 holds: the image is trusted and nothing speaks against it. Nothing was changed.
#[must_use]
struct Checked {
    image: Image,
    plan: Plan,
}

impl Checked {
    fn new(image: Image, context: &Context<'_>, request: &Request<'_>) -> Result<Result<Self, Outcome>, ApplyError> {
        let system = image.system_id();
        let offered = Offered { manifest: image.manifest(), system, base: image.base() };
        match preflight::look(context.host, context.lock, &offered, request)? {
            Preflight::Go(plan) => Ok(Ok(Checked { image: on_base(image, context.host, plan.target)?, plan: *plan })),
            Preflight::AlreadyRunning => Ok(Err(Outcome::AlreadyRunning)),
            Preflight::AlreadyStaged => Ok(Err(Outcome::AlreadyStaged)),
        }
    }

    /// UPD-2. Power lost while the slot is half written must find no entry that starts it.
    fn fence(mut self, context: &mut Context<'_>) -> Result<SlotFenced, FencedError> {
        context.progress.begin(Step::Fence, None);
        let mut esp = context.host.open_esp(Access::ReadWrite)?;
        let fenced = fence(context.lock, esp.esp(), self.plan.target.slot())?;
        esp.close()?;
        if let Some(error) = fenced.crowded() {
            self.plan.notes.push(format!("{CROWDED}: {}", with_source(error)));
        }
        Ok(SlotFenced { image: self.image, plan: self.plan, fenced })
    }
}

/// ENT-28.
const CROWDED: &str = "loader/entries has little room left and may have to grow during the trial; if power is lost at that \
    instant, nothing boots any more. To avoid it, unmount the EFI system partition before the next update, which then makes room";

/// No entry starts the target slot.
#[must_use]
struct SlotFenced {
    image: Image,
    plan: Plan,
    fenced: Fenced,
}

impl SlotFenced {
    /// UPD-3.
    fn write(mut self, context: &mut Context<'_>, manifest: &Manifest) -> Result<SlotWritten, FencedError> {
        context.progress.begin(Step::Write, Some(manifest.root().0.size));
        let mut slot = context.host.open_slot(self.plan.target)?;
        let look = look(&mut *slot);
        let target = self.plan.target.slot();
        let maps = context.host.records().slots_dir().map(SlotMaps::in_dir);
        let other = context.host.read_slot(!target);
        let running = other.as_deref().zip(context.host.booted());
        let running = running.map(|(slot, booted)| Running { slot, system: booted.system.into() });
        let known = maps.as_ref().map(|maps| KnownSlots::new(maps, target, &mut *slot, running));
        let reuse = known.as_ref().map_or(&NoReuse as &dyn Reuse, |known| known);
        let mut journal = None;
        if let Some((maps, known)) = maps.as_ref().zip(known.as_ref()) {
            let begun = maps.begin(target, known, self.image.system_id(), root_chunks(&self.image));
            let failed = |error| self.plan.notes.push(format!("what slot {target} holds is not recorded: {error}"));
            journal = begun.map_err(failed).ok();
        }
        let mut flusher = slot.another();
        let (mut last, mut flushed) = (Done::default(), Ok(()));
        let mut done = |done: Done| {
            last = done;
            if let (Some(journal), Ok(())) = (&mut journal, &flushed) {
                flushed = journal.through(done.through, || flusher.as_mut().map_or(Ok(()), |slot| slot.flush()));
            }
            context.progress.done(done.bytes);
        };
        let how = How { look, stop: context.stop, workers: context.workers };
        let written = slot_content::write(&mut self.image, reuse, &mut *slot, &how, &mut done);
        journal.iter_mut().for_each(|journal| journal.leave(last.through));
        let written = written?;
        flushed?;
        self.plan.traffic = Traffic { taken: written.taken, changed: written.changed };
        Ok(SlotWritten { image: self.image, plan: self.plan, fenced: self.fenced, look, journal, written })
    }
}

/// The chunks of the first payload.
fn root_chunks(image: &Image) -> &[Chunk] {
    let count = image.chunks().iter().take_while(|chunk| chunk.payload == 0).count();
    &image.chunks()[..count]
}

/// A slot that was never written to holds nothing that could be left as it is (DSK-44). One whose first block cannot be read was
/// written to, and may well be cured by it.
fn look(slot: &mut dyn SlotIo) -> Look {
    if slot.is_blank().unwrap_or(false) { Look::Never } else { Look::First }
}

/// The slot was written and flushed.
#[must_use]
struct SlotWritten {
    image: Image,
    plan: Plan,
    fenced: Fenced,
    look: Look,
    journal: Option<Journal>,
    written: Written,
}

impl SlotWritten {
    /// UPD-4. Disks lie; without this dm-verity would find out only on the trial boot.
    fn read_back(mut self, context: &mut Context<'_>, manifest: &Manifest) -> Result<SlotProven, FencedError> {
        context.progress.begin(Step::ReadBack, Some(manifest.slot_bytes));
        let mut slot = context.host.open_slot(self.plan.target)?;
        let how = How { look: self.look, stop: context.stop, workers: context.workers };
        let done = &mut |bytes| context.progress.done(bytes);
        let proven = self.written.prove(root_chunks(&self.image), &mut *slot, &how, done);
        let proven = proven.map_err(|error| whose_fault(error, &mut self.image))?;
        self.journal.into_iter().for_each(Journal::finish);
        Ok(SlotProven { image: self.image, plan: self.plan, fenced: self.fenced, proven })
    }
}

/// Asks for the chunk once more: an image that contradicts itself is not the disk's fault.
fn whose_fault(error: SlotContentError, image: &mut Image) -> SlotContentError {
    let SlotContentError::Differs { chunk } = error else { return error };
    if image.base().is_some() {
        // Its plain SHA-256 was found right before it was written (IMG-73).
        return SlotContentError::ReadBack { what: "data" };
    }
    match image.recheck(chunk) {
        Ok(()) => SlotContentError::ReadBack { what: "data" },
        Err(source @ ChunkError::PlainDigest { .. }) => SlotContentError::Image { source },
        // A pipe gives nothing twice: both stay possible, and the error says so.
        Err(_) => error,
    }
}

/// The medium holds the signed root and its tree.
#[must_use]
struct SlotProven {
    image: Image,
    plan: Plan,
    fenced: Fenced,
    proven: Proven,
}

impl SlotProven {
    /// UPD-5. The loader counts a try and then parks the machine in the firmware when a kernel is no program or an initrd
    /// is missing (LDR-6): neither may ever be staged.
    fn payloads(mut self, context: &mut Context<'_>, manifest: &Manifest) -> Result<Ready, FencedError> {
        context.progress.begin(Step::Payloads, Some(manifest.esp_bytes));
        let mut esp = context.host.open_esp(Access::ReadWrite)?;
        let mut written = Vec::new();
        let mut done = 0;
        while let Some(mut reader) = self.image.next_payload()? {
            context.check_stop()?;
            let payload = reader.payload().clone();
            let kind = match payload.kind {
                image_format::PayloadKind::Linux { .. } => PayloadKind::Linux,
                image_format::PayloadKind::Initrd => PayloadKind::Initrd,
                image_format::PayloadKind::Uki { .. } => PayloadKind::Uki,
                // The manifest has exactly one root, and it is behind us; what is unknown is authenticated and dropped (IMG-14).
                image_format::PayloadKind::Root(_) | image_format::PayloadKind::Unknown(_) => {
                    reader.drain()?;
                    continue;
                }
            };
            written.push(self.fenced.write_payload(
                context.lock,
                esp.esp(),
                kind,
                self.plan.entry.generation(),
                payload.size,
                &mut reader,
                *payload.sha256.as_bytes(),
            )?);
            done += payload.size;
            context.progress.done(done);
        }
        let head = esp.esp().read_head(&self.plan.entry.kernel_path(), PE_HEAD_LEN).map_err(ChangeError::Esp)?;
        let (kernel, machine) = (pe_machine(&head)?, preflight::image_architecture(context.host.layout().architecture));
        if kernel != machine {
            return Err(FencedError::KernelMachine { kernel, machine });
        }
        // Of a kernel and an initrd nothing more is known than that they are what was signed as an image.
        if let Boot::Uki(_) = manifest.boot() {
            let (mut checked, trust) = (Ok(()), FirmwareTrust::of(context.host));
            let mut look = |file: &mut dyn ReadSeek| checked = firmware_trust::check(manifest, &trust, file);
            esp.esp().examine(&self.plan.entry.kernel_path(), &mut look).map_err(ChangeError::Esp)?;
            checked?;
        }
        esp.close()?;
        // Nothing of the image is left unread: its end is part of what was promised (IMG-3).
        self.image.finish()?;
        Ok(Ready { plan: self.plan, fenced: self.fenced, proven: self.proven, written })
    }
}

/// Everything the new system needs is on the medium.
#[must_use]
struct Ready {
    plan: Plan,
    fenced: Fenced,
    proven: Proven,
    written: Vec<WrittenPayload>,
}

impl Ready {
    /// UPD-6: the entry whole but inert, then one byte in place.
    fn stage(self, context: &mut Context<'_>) -> Result<Live, FencedError> {
        // The last moment (UPD-9): what follows is a few writes, and is not broken off in between.
        if !context.stop.commit() {
            return Err(FencedError::Interrupted);
        }
        context.progress.begin(Step::Stage, None);
        // The proof ends here: only what was read back is staged.
        let Proven { .. } = self.proven;
        let _inhibitor = context.host.booted().map(|_| Inhibitor::take("staging a new boot entry"));
        let mut esp = context.host.open_esp(Access::ReadWrite)?;
        let staged = stage(context.lock, esp.esp(), self.fenced, &self.written, &self.plan.entry)?;
        esp.close()?;
        Ok(Live { plan: self.plan, staged })
    }
}

/// The new system boots next, on trial.
#[must_use]
struct Live {
    plan: Plan,
    staged: Staged,
}

impl Live {
    /// UPD-7. A history that cannot be written changes nothing else.
    fn record(self, context: &Context<'_>) -> Summary {
        let records = context.host.records();
        let mut notes = self.plan.notes;
        let kinds = self.plan.retried.then_some(EventKind::Retried).into_iter().chain([EventKind::Applied]);
        for kind in kinds {
            session::note(&mut notes, records.append(event(kind, &self.plan.entry, self.staged.name.to_string())));
        }
        notes.dedup();
        Summary { entry: self.plan.entry, file_name: self.staged.name.to_string(), notes, traffic: self.plan.traffic }
    }
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "apply_uki_tests.rs"]
mod uki_tests;
