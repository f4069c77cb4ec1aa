//! What the diagnosis is a function of. Only looks: no lock, nothing changed, beside a program that works.

use boot_entries::fat::ClusterFault;
use boot_entries::loader::{ConfLine, choosing_lines};
use boot_entries::names::{entries_dir, payload_dir};
use boot_entries::{
    Entry, EntryArchitecture, EntryName, Esp, EspError, EspPath, EspState, FoundVars, LoaderVars, OurEntry, Prediction,
    Space, Wholeness, another_whole_entry_boots, is_whole,
};
use disk_layout::{DiskLayout, Slot};

use super::entries::why_no_fallback;
use crate::exit::with_source;
use crate::firmware_trust::{FirmwareTrust, refusal};
use crate::host::{Access, Host};
use crate::kernel_refusal::KernelRefusal;
use crate::loader::{Inspected, inspect};
use crate::plan::{Asked, next_update};
use crate::session::{self, Running, SessionError};
use crate::vitals::{Firmware, Vitals};

/// The longest loader.conf that is looked at; real ones have a few lines.
const CONF_MAX: u64 = 1 << 20;

/// Everything.
#[derive(Debug)]
pub(super) struct Facts {
    /// How this program is called.
    pub program: String,
    pub layout: DiskLayout,
    pub vitals: Vitals,
    pub firmware: Option<Firmware>,
    /// What is on the ESP, or why it cannot be read.
    pub esp: Result<EspFacts, String>,
    /// Why there is no boot guard.
    pub guard_missing: Option<String>,
    /// What of the history cannot be read.
    pub records_problem: Option<String>,
}

/// What is on the ESP, and what follows.
#[derive(Debug)]
pub(super) struct EspFacts {
    pub state: EspState,
    pub vars: LoaderVars,
    /// Variables that are there and cannot be read (UPD-50), as sentences.
    pub unreadable: Vec<String>,
    pub architecture: EntryArchitecture,
    pub running: Result<Running, String>,
    /// Something is booted: `running` is not only what would run.
    pub booted: bool,
    pub next: Prediction,
    /// Paths of what the next boot reads.
    pub next_files: Vec<String>,
    /// Of every live entry of ours that can be read; or why its payloads cannot be.
    pub wholeness: Vec<(String, Result<Wholeness, String>)>,
    /// Of every whole live entry of ours, why the firmware would not start its kernel, if so.
    pub refused: Vec<(String, KernelRefusal)>,
    /// Why nothing else would boot, were what boots next bad.
    pub no_fallback: Option<String>,
    /// What is wrong with the clusters of names, or why that cannot be told.
    pub faults: Result<Vec<ClusterFault>, String>,
    pub space: Option<Space>,
    /// The boot loaders; none where the firmware starts another one.
    pub loaders: Option<Inspected>,
    /// Why it cannot be told what the firmware starts.
    pub firmware_unclear: Option<String>,
    pub conf: Vec<ConfLine>,
    /// What an update would stage.
    pub next_update: Option<Entry>,
}

impl Facts {
    /// The ESP can be written to, and may be.
    pub(super) fn writable(&self) -> bool {
        self.vitals.write_protection.is_none() && self.vitals.clashes.is_empty()
    }
}

impl EspFacts {
    /// The entry of the booted system.
    pub(super) fn running_name(&self) -> Option<EntryName> {
        self.running.as_ref().ok().filter(|_| self.booted).map(Running::name)
    }

    /// Names of the entries of ours that are whole, and that the firmware does not refuse for certain.
    pub(super) fn whole(&self) -> Vec<String> {
        let refused = |name: &String| self.refused.iter().any(|(of, refusal)| of == name && refusal.certain);
        let mut names = whole(&self.wholeness);
        names.retain(|name| !refused(name));
        names
    }

    pub(super) fn version(&self, ours: &OurEntry) -> String {
        ours.entry.as_ref().map(|entry| entry.os_version().to_owned()).unwrap_or_default()
    }
}

pub(super) fn gather(host: &dyn Host) -> Facts {
    let vitals = host.vitals();
    Facts {
        program: host.command(),
        layout: host.layout().clone(),
        firmware: host.firmware(),
        esp: read_esp(host).map_err(|error| with_source(&error)),
        guard_missing: host.read_guard().err().map(|error| with_source(&error)),
        records_problem: host.records().problem(),
        vitals,
    }
}

fn read_esp(host: &dyn Host) -> Result<EspFacts, SessionError> {
    let mut open = host.open_esp(Access::ReadOnly)?;
    let found = look(host, open.esp()).map_err(SessionError::State)?;
    open.close()?;
    Ok(found)
}

fn look(host: &dyn Host, esp: &mut dyn Esp) -> Result<EspFacts, EspError> {
    let state = EspState::read(esp)?;
    let FoundVars { vars, unreadable } = host.loader_vars();
    let architecture = host.layout().architecture.into();
    let running = session::running(&state, host.booted()).map_err(|error| with_source(&error));
    let next = state.predict(&vars, architecture);
    let no_fallback = match &next {
        Prediction::Boots { entry: Some(name), .. } => {
            another_whole_entry_boots(esp, &state, *name, &vars, architecture)
                .err()
                .and_then(|why| why_no_fallback(&why))
        }
        _ => None,
    };
    let dirs = [entries_dir(), payload_dir(Slot::A), payload_dir(Slot::B), EspPath::literal("ralphos")];
    let (wholeness, trust) = (wholeness(esp, &state), FirmwareTrust::of(host));
    Ok(EspFacts {
        next_files: next_files(&state, &next),
        refused: refused(&trust, esp, &state, &wholeness),
        wholeness,
        faults: esp.cluster_faults(&dirs).map_err(|error| with_source(&error)),
        space: esp.space().ok(),
        loaders: inspect(host, esp, &trust),
        firmware_unclear: match trust {
            FirmwareTrust::Unclear(why) => Some(why),
            FirmwareTrust::Open | FirmwareTrust::Enforcing(_) => None,
        },
        conf: conf_lines(esp)?,
        next_update: running.as_ref().ok().and_then(|running| next_update(&state, running, host.layout())),
        booted: host.booted().is_some(),
        state,
        vars,
        unreadable: unreadable.iter().map(|variable| with_source(variable)).collect(),
        architecture,
        running,
        next,
        no_fallback,
    })
}

fn next_files(state: &EspState, next: &Prediction) -> Vec<String> {
    let Prediction::Boots { file_name, .. } = next else { return Vec::new() };
    let Some(ours) = state.ours.iter().find(|ours| ours.file_name == *file_name) else { return Vec::new() };
    let files = |entry: &Entry| {
        entry.payloads.files().into_iter().map(|(kind, _)| entry.payload(kind).path().to_string()).collect::<Vec<_>>()
    };
    let payloads = ours.entry.iter().flat_map(files);
    payloads.chain([ours.path().to_string()]).collect()
}

/// Of every live entry of ours that can be read; reads all their payloads. One that cannot be read hides nothing else.
pub(super) fn wholeness(esp: &mut dyn Esp, state: &EspState) -> Vec<(String, Result<Wholeness, String>)> {
    let live = state.ours.iter().filter(|ours| ours.is_live() && ours.entry.is_ok());
    live.map(|ours| (ours.file_name.clone(), is_whole(esp, ours).map_err(|error| with_source(&error)))).collect()
}

/// What is not whole, or cannot be read, is told of already.
fn refused(
    trust: &FirmwareTrust,
    esp: &mut dyn Esp,
    state: &EspState,
    wholeness: &[(String, Result<Wholeness, String>)],
) -> Vec<(String, KernelRefusal)> {
    let whole = whole(wholeness);
    let ours = state.ours.iter().filter(|ours| whole.contains(&ours.file_name));
    ours.filter_map(|ours| Some((ours.file_name.clone(), refusal(trust, esp, ours).ok()??))).collect()
}

pub(super) fn whole(wholeness: &[(String, Result<Wholeness, String>)]) -> Vec<String> {
    wholeness.iter().filter(|(_, how)| *how == Ok(Wholeness::Whole)).map(|(name, _)| name.clone()).collect()
}

pub(super) fn conf_path() -> EspPath {
    EspPath::literal("loader/loader.conf")
}

/// The lines of loader.conf that choose.
pub(super) fn conf_lines(esp: &mut dyn Esp) -> Result<Vec<ConfLine>, EspError> {
    match esp.read(&conf_path(), CONF_MAX) {
        Ok(content) => Ok(choosing_lines(&content)),
        Err(EspError::Missing { .. }) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

impl EspFacts {
    pub(super) fn asked(&self) -> Asked<'_> {
        Asked { state: &self.state, vars: &self.vars, architecture: self.architecture }
    }
}
