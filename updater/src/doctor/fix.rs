//! `doctor --fix`: what is safe to repair, one durable step at a time (DOC-20 to DOC-26).

use boot_entries::guard::{self, Ensured};
use boot_entries::loader::ConfLine;
use boot_entries::{ChangeError, Esp, EspError, tidy};
use disk_layout::{LockError, RepairError, UpdateLock};
use serde::Serialize;

use super::facts::conf_path;
use super::{Diagnosis, Finding, Repair, diagnose};
use crate::exit::with_source;
use crate::host::{Access, Host, HostError};
use crate::inhibit::Inhibitor;
use crate::vars::VariableError;

/// One step that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Repaired {
    /// The finding.
    pub id: &'static str,
    /// What was done.
    pub what: String,
}

/// One step that was tried, and could not be done for now; nothing of it was begun that is not durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotRepaired {
    /// The finding.
    pub id: &'static str,
    /// Why not.
    pub why: String,
}

/// What was repaired, and what is left.
#[derive(Debug)]
pub struct Fixed {
    /// In order.
    pub repaired: Vec<Repaired>,
    /// In order.
    pub not_repaired: Vec<NotRepaired>,
    /// The diagnosis after it.
    pub diagnosis: Diagnosis,
}

/// Why the repair ended early.
#[derive(Debug, thiserror::Error)]
pub enum FixError {
    /// Another program is at work.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Nothing may be written.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A step failed; nothing was done after it.
    #[error("{id} could not be repaired{}", before(done, not_repaired))]
    Step {
        /// The finding.
        id: &'static str,
        /// What was done before.
        done: Vec<Repaired>,
        /// What was tried before it, and could not be done for now.
        not_repaired: Vec<NotRepaired>,
        /// Why.
        source: Box<StepError>,
    },
}

fn before(done: &[Repaired], not_repaired: &[NotRepaired]) -> String {
    let done: Vec<String> = done.iter().map(|step| format!("{} ({})", step.id, step.what)).collect();
    let mut text = match done.as_slice() {
        [] => "; nothing was changed before".to_owned(),
        done => format!("; repaired before it: {}", done.join(", ")),
    };
    for step in not_repaired {
        text.push_str(&format!("; tried, could not: {} ({})", step.id, step.why));
    }
    text
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The ESP cannot be opened.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The entries cannot be changed.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// loader.conf cannot be changed.
    #[error(transparent)]
    Esp(#[from] EspError),
    /// What was read back is not what was written.
    #[error("loader.conf does not hold what was written to it: the disk fails")]
    NotAsWritten,
    /// The variable stays.
    #[error(transparent)]
    Variable(#[from] VariableError),
    /// The table stays.
    #[error(transparent)]
    Table(#[from] RepairError),
}

impl StepError {
    /// Another program, or the system, has the volume in use that must be unmounted for this step. No other step depends on
    /// it: what chooses an entry is judged anew by what is there (DOC-21), and written in place or elsewhere.
    fn is_busy(&self) -> bool {
        let esp = match self {
            StepError::Esp(error)
            | StepError::Change(ChangeError::Esp(error))
            | StepError::Host(HostError::Esp(error)) => error,
            _ => return false,
        };
        matches!(esp, EspError::Busy { .. } | EspError::CannotRepair { .. })
    }
}

/// Repairs what is safe to repair, and diagnoses again.
///
/// Look, do one step, look again: each step is chosen by what the disk says after the one before is durable. A cut between
/// two leaves a state that the next run finds as its own first look, and that boots what the step before left to boot. What
/// was tried and is still there is left as a finding.
///
/// # Errors
/// [`FixError`]; what was done before the step that failed is durable.
pub fn fix(host: &dyn Host) -> Result<Fixed, FixError> {
    let lock = host.lock()?;
    host.refuse_lookalikes()?;
    let _inhibitor = host.booted().map(|_| Inhibitor::take("repairing what endangers the next boot"));
    let mut repaired: Vec<Repaired> = Vec::new();
    let mut not_repaired: Vec<NotRepaired> = Vec::new();
    let mut tried: Vec<Repair> = Vec::new();
    loop {
        let diagnosis = diagnose(host);
        let Some((finding, repair)) = first(&diagnosis, &tried) else {
            return Ok(Fixed { repaired, not_repaired, diagnosis });
        };
        match step(host, &lock, repair) {
            Ok(what) => repaired.push(Repaired { id: finding.id, what }),
            Err(error) if error.is_busy() => {
                not_repaired.push(NotRepaired { id: finding.id, why: with_source(&error) });
            }
            Err(error) => {
                let (id, source) = (finding.id, Box::new(error));
                return Err(FixError::Step { id, done: repaired, not_repaired, source });
            }
        }
        tried.push(repair.clone());
    }
}

fn first<'d>(diagnosis: &'d Diagnosis, tried: &[Repair]) -> Option<(&'d Finding, &'d Repair)> {
    let repairs = diagnosis.findings.iter().filter_map(|finding| Some((finding, finding.repair.as_ref()?)));
    repairs.filter(|(_, repair)| !tried.contains(repair)).min_by_key(|(_, repair)| repair.rank())
}

/// One step, durable and read back when it returns; what was done, in words.
fn step(host: &dyn Host, lock: &UpdateLock, repair: &Repair) -> Result<String, StepError> {
    match repair {
        Repair::Table(which) => {
            host.repair_table(lock, *which)?;
            Ok("the damaged copy of the partition table was rewritten from the whole one".to_owned())
        }
        Repair::Variable(variable) => {
            host.remove_variable(lock, *variable)?;
            Ok(format!("the EFI variable {} was removed", variable.name()))
        }
        Repair::Tidy => on_esp(host, |esp| {
            let tidied = tidy(lock, esp)?;
            Ok(format!("removed from loader/entries: {}", tidied.removed.join(", ")))
        }),
        Repair::Guard => on_esp(host, |esp| {
            Ok(match guard::ensure(lock, esp)? {
                Ensured::Present => "ralphos/guard is there already",
                Ensured::Made => "ralphos/guard was made",
                Ensured::MadeAnew => "ralphos/guard was made anew",
            }
            .to_owned())
        }),
        Repair::ConfLines(lines) => on_esp(host, |esp| {
            for line in lines {
                make_comment(esp, line)?;
            }
            let text: Vec<String> = lines.iter().map(|line| format!("\"{} {}\"", line.key, line.value)).collect();
            Ok(format!("made a comment of each such line in loader/loader.conf: {}", text.join(", ")))
        }),
    }
}

fn on_esp(host: &dyn Host, act: impl FnOnce(&mut dyn Esp) -> Result<String, StepError>) -> Result<String, StepError> {
    let mut open = host.open_esp(Access::ReadWrite)?;
    let what = act(open.esp())?;
    open.close()?;
    Ok(what)
}

/// One byte in place, as an entry is made live (ENT-21): before it the line counts, after it the line is a comment that
/// still tells what stood there. An editor would write a new file and rename it, and a cut between the two updates of a FAT
/// directory leaves no loader.conf, or two on one chain of clusters (ENT-20).
fn make_comment(esp: &mut dyn Esp, line: &ConfLine) -> Result<(), StepError> {
    let path = conf_path();
    let at = usize::try_from(line.offset).unwrap_or(usize::MAX);
    esp.overwrite_byte(&path, line.offset, line.byte, b'#')?;
    esp.flush()?;
    if esp.read_head(&path, at + 1)?.get(at) == Some(&b'#') { Ok(()) } else { Err(StepError::NotAsWritten) }
}
