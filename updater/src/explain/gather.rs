//! What [`explain`](super::explain) is a function of, and where it comes from. Only looks: no lock, nothing changed.

use boot_entries::EspState;
use boot_entries::guard::{GuardError, GuardRecord};
use disk_layout::Slot;

use crate::evidence::{self, Evidence};
use crate::exit::with_source;
use crate::history::Event;
use crate::host::{Access, Host};
use crate::session::{self, SessionError, describe};
use crate::status::{self, SlotStatus, Status};

/// The system that the kernel's command line names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Booted {
    /// Its slot.
    pub slot: Slot,
    /// Its generation.
    pub generation: u32,
    /// Its OS version.
    pub version: String,
    /// Its system id, hex.
    pub system: String,
}

/// Everything that was found.
#[derive(Debug, Clone)]
pub struct Facts {
    /// How the program is called, with `--disk FILE` if it was: what advice begins with.
    pub command: String,
    /// What runs; none for a disk image file.
    pub booted: Option<Booted>,
    /// The booted entry was marked bad before it was booted.
    pub booted_bad: bool,
    /// What `status` says.
    pub status: Status,
    /// What the loader does when it boots nothing that can be named.
    pub no_next_boot: String,
    /// The history, oldest first.
    pub events: Vec<Event>,
    /// The evidence, oldest first.
    pub evidence: Vec<Evidence>,
    /// The history and the evidence could be read (also when there is none).
    pub remembered: bool,
    /// The boot guard's record; none when there is none that can be read.
    pub guard: Option<GuardRecord>,
    /// What could not be read.
    pub unread: Vec<String>,
}

impl Facts {
    /// What `status` says of a slot.
    pub fn slot(&self, slot: Slot) -> &SlotStatus {
        match slot {
            Slot::A => &self.status.slots.a,
            Slot::B => &self.status.slots.b,
        }
    }
}

/// Looks. `command` is what advice begins with.
///
/// # Errors
/// Only when the EFI partition cannot be read: without the entries there is nothing to explain.
pub fn gather(host: &dyn Host, command: &str) -> Result<Facts, SessionError> {
    let status = status::gather(host)?;
    let mut unread = Vec::new();
    let mut remembered = host.records().available();
    if !remembered {
        unread.push("history and evidence: they are kept in the /var of the running machine".to_owned());
    }
    let events = host.records().events().unwrap_or_else(|error| {
        remembered = false;
        unread.push(format!("the history: {}", with_source(&error)));
        Vec::new()
    });
    // Of a machine that was never updated there is nothing to remember.
    let updated = [&status.slots.a, &status.slots.b].iter().any(|slot| slot.generation.is_some_and(|g| g > 1));
    if let Some(why) = host.records().missing().filter(|_| updated) {
        remembered = false;
        unread.push(why);
    }
    let mut evidence = Vec::new();
    for (_, found) in host.records().evidence_dir().iter().flat_map(|dir| evidence::read(dir)) {
        match found {
            Ok(found) => evidence.push(found),
            Err(error) => unread.push(with_source(&error)),
        }
    }
    let guard = match host.read_guard() {
        Ok(record) => Some(record),
        // `status` says so.
        Err(GuardError::Missing) => None,
        Err(error) => {
            unread.push(with_source(&error));
            None
        }
    };
    let booted = host.booted().map(|options| Booted {
        slot: options.slot,
        generation: options.generation.get(),
        version: options.os_version.clone(),
        system: session::hex(&options.system),
    });
    Ok(Facts {
        command: command.to_owned(),
        booted_bad: booted_bad(host, &status),
        booted,
        no_next_boot: if status.next_boot.is_some() { String::new() } else { no_next_boot(host)? },
        status,
        events,
        evidence,
        remembered,
        guard,
        unread,
    })
}

/// The loader boots a bad entry when there is nothing else, and counts on: more done than were ever granted, or a reason
/// on the command line.
fn booted_bad(host: &dyn Host, status: &Status) -> bool {
    let Some(options) = host.booted() else { return false };
    let slot = if options.slot == Slot::A { &status.slots.a } else { &status.slots.b };
    options.failed.is_some() || slot.failed.is_some() || slot.tries_done.is_some_and(|done| done > GRANTED)
}

/// Tries of a new entry (ENT-2).
pub(super) const GRANTED: u32 = 3;

fn no_next_boot(host: &dyn Host) -> Result<String, SessionError> {
    let mut esp = host.open_esp(Access::ReadOnly)?;
    let state = EspState::read(esp.esp()).map_err(SessionError::State)?;
    esp.close()?;
    Ok(describe(&state.predict(&host.loader_vars().vars, host.layout().architecture.into())))
}
