//! Giving an entry up (`GRD-12`): which one was booted, and how its tries are taken away.

use boot_entries::guard::GIVEN_UP;
use boot_entries::{
    BootOptions, EntryArchitecture, EntryName, Esp, EspError, EspState, LoaderVars, MarkedBad, OurEntry,
    another_whole_entry_boots, mark_bad, tidy,
};
use disk_layout::UpdateLock;

use crate::start::Stop;

/// The entry could not be marked bad.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    /// The disk.
    #[error(transparent)]
    Stop(#[from] Stop),
    /// The lock.
    #[error("the boot entries are not changed")]
    Lock(#[from] disk_layout::LockError),
    /// The ESP cannot be mounted: most likely the initrd has no module for FAT.
    #[error("the EFI system partition cannot be mounted (does the initrd have vfat and its nls modules?)")]
    Mount(#[from] disk_layout::MountError),
    /// They can no longer be read.
    #[error("the EFI variables cannot be read")]
    Vars,
    /// It took too long.
    #[error("the disk was too slow")]
    Late,
    /// The ESP.
    #[error("the EFI system partition cannot be used")]
    Esp(#[from] EspError),
    /// Nothing better boots, as seen under the lock.
    #[error("nothing better would boot")]
    NoFallback(#[from] boot_entries::NoFallback),
    /// The entries.
    #[error("the boot entries cannot be changed")]
    Change(#[from] boot_entries::ChangeError),
}

/// The entry that this boot was started from. Of twins (`ENT-20`) the one whose mark is that of the command line: a cut while an
/// entry was given up leaves the marked name beside the one that boots.
///
/// # Errors
/// [`Stop::NoEntry`] and [`Stop::OtherEntry`].
pub fn booted_entry(state: &EspState, options: &BootOptions) -> Result<EntryName, Stop> {
    let (slot, generation) = (options.slot, options.generation);
    let survivor = state.live(slot).filter(|ours| ours.name.generation == generation);
    let survivor = survivor.ok_or(Stop::NoEntry(slot, generation))?;
    let same = |ours: &OurEntry| {
        ours.entry.as_ref().is_ok_and(|entry| {
            let theirs = &entry.options;
            (theirs.root_hash, theirs.partuuid, theirs.system) == (options.root_hash, options.partuuid, options.system)
        })
    };
    let marked_alike = |ours: &OurEntry| ours.entry.as_ref().is_ok_and(|entry| entry.options.failed == options.failed);
    let twins = state.entries(slot).filter(|ours| ours.is_live() && ours.name.generation == generation);
    let booted = std::iter::once(survivor).chain(twins).find(|ours| same(ours) && marked_alike(ours));
    match booted {
        Some(ours) => Ok(ours.name),
        None if same(survivor) => Ok(survivor.name),
        None => Err(Stop::OtherEntry(survivor.file_name.clone())),
    }
}

/// Marks the booted entry bad. Where a cut interrupted that, tidying ends it, and that is a change, too: the machine must be
/// restarted then.
///
/// # Errors
/// [`MarkError`]; also when `in_time` says that it would come too late.
pub fn give_up(
    lock: &UpdateLock,
    esp: &mut dyn Esp,
    booted: &BootOptions,
    (vars, architecture): (&LoaderVars, EntryArchitecture),
    in_time: &mut dyn FnMut() -> bool,
) -> Result<MarkedBad, MarkError> {
    if !in_time() {
        return Err(MarkError::Late);
    }
    let was = booted_entry(&EspState::read(esp)?, booted)?;
    let removed = tidy(lock, esp)?.removed;
    let state = EspState::read(esp)?;
    let name = booted_entry(&state, booted)?;
    another_whole_entry_boots(esp, &state, name, vars, architecture)?;
    let ended = removed.iter().any(|name| name.parse() == Ok(was));
    // `booted_entry` found it, and it has no twin any more.
    let entry = state.live(name.slot).ok_or(Stop::NoEntry(name.slot, name.generation))?;
    if !in_time() {
        return Err(MarkError::Late);
    }
    let marked = mark_bad(lock, esp, entry, Some(GIVEN_UP))?;
    Ok(MarkedBad { changed: marked.changed || ended, ..marked })
}
