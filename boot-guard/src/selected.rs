//! Which entry a unified kernel image was started from (`ENT-16`): its command line is the same in both slots.

use std::time::Duration;

use boot_entries::signed::{agree, is_unified};
use boot_entries::state::survivor;
use boot_entries::vars::Unreadable;
use boot_entries::{BootOptions, Counter, EntryName, EspState, ImageEsp, OurEntry};
use disk_layout::FileWindow;

use crate::start::{Machine, Stop};

/// What the loader told of the entry that it started.
#[derive(Debug)]
pub struct Selected {
    /// The entry's name, with or without its counter (`LDR-9`).
    pub entry: String,
    /// The EFI partition that it lies on, to read.
    pub esp: ImageEsp<FileWindow>,
}

/// Why the entry of a unified kernel image is not known: then there is no root to open.
#[derive(Debug, thiserror::Error)]
pub enum NotSelected {
    /// The variable is not there, or there are none.
    #[error("the boot loader has not told {0}, and a unified kernel image needs it")]
    Untold(&'static str),
    /// The variable is there.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// The loader has started something else.
    #[error("the boot loader says that it started {0:?}, which is no entry of ours")]
    Foreign(String),
    /// A kernel started this one, of another system, and the loader knows of that kernel alone.
    #[error("this kernel was started by another system's, and no entry tells of its root")]
    Kexec,
    /// The variable is not the loader's: it sets them for one boot.
    #[error("the EFI variable {0} outlasts a restart, so the boot loader cannot have set it: remove it")]
    Forged(&'static str),
    /// The entry that the loader started cannot be read.
    #[error("the entry that the boot loader says it started, {0}, cannot be read")]
    NoEntry(EntryName),
}

/// The options of the entry that this boot was started from: the command line's, or, for a unified kernel image, those of the entry that
/// the loader chose. These are left for all that comes after if they are of the system that was signed; if not, there is no root to open,
/// which is said, and the entry is the one to count, and to give up.
///
/// # Errors
/// [`Stop`].
pub fn booted_options(machine: &mut dyn Machine, wait: Duration) -> Result<BootOptions, Stop> {
    let line = machine.command_line()?;
    if !is_unified(&line) {
        return Ok(BootOptions::parse(&line)?);
    }
    if let Some(left) = machine.left_options() {
        return Ok(BootOptions::parse(&left)?);
    }
    let mut selected = machine.selected(wait)?;
    let options = selected_options(&EspState::read(&mut selected.esp)?, &selected.entry)?;
    match agree(&line, &options) {
        Ok(()) => machine.leave_options(&options),
        // Another kernel's entry is not to be blamed for this one.
        Err(_) if machine.is_kexec() => return Err(NotSelected::Kexec.into()),
        Err(differs) => machine.say(&format!("{differs}: the root is not opened")),
    }
    Ok(options)
}

/// The loader has counted this try of an entry that cannot be read here: to restart costs one more, and they come to an end.
pub fn is_counted_down(machine: &mut dyn Machine, wait: Duration) -> bool {
    let Ok(mut selected) = machine.selected(wait) else { return false };
    let Ok(name) = selected.entry.parse::<EntryName>() else { return false };
    let Ok(state) = EspState::read(&mut selected.esp) else { return false };
    state.entries(name.slot).any(|ours| {
        // A loader that does not say the counter does not say whether it counted.
        let counted = |counter: Counter| name.counter.is_some_and(|said| said.counted() == counter && said != counter);
        // Beyond the tries that it was given, nothing else is left to boot.
        let tries = |counter: Counter| (1..=Counter::fresh().left()).contains(&counter.done());
        ours.name.same_system(name) && ours.name.counter.is_some_and(|counter| tries(counter) && counted(counter))
    })
}

/// Of twins the one with the name that the loader said, or what its counting makes of that name; else the one that stays (`UPD-24`).
fn selected_options(state: &EspState, selected: &str) -> Result<BootOptions, NotSelected> {
    let name: EntryName = selected.parse().map_err(|_| NotSelected::Foreign(selected.to_owned()))?;
    let counted = name.counter.map(|counter| counter.counted());
    let said = |ours: &&OurEntry| ours.name.counter == name.counter || ours.name.counter == counted;
    let twins = || state.entries(name.slot).filter(|ours| ours.is_live() && ours.name.same_system(name));
    let ours = twins().find(said).or_else(|| survivor(twins())).ok_or(NotSelected::NoEntry(name))?;
    ours.entry.as_ref().map(|entry| entry.options.clone()).map_err(|_| NotSelected::NoEntry(name))
}
