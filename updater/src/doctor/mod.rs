//! `ralph-update doctor`: what boots next and why, each thing that endangers it, and what to do (specs/doctor.md).
//!
//! Gather once ([`facts`]), judge purely ([`boot_loader`], [`choosing`], [`entries`], [`volume`], [`machine`]), act separately ([`fix`]).
//! `apply` asks the same judges before it touches anything (DOC-40).

mod boot_loader;
mod choosing;
mod entries;
mod facts;
mod finding;
pub mod fix;
mod machine;
pub mod text;
mod unpredictable;
mod volume;

use boot_entries::{Entry, Esp, EspError, EspState, LoaderVars};
use serde::Serialize;

use crate::host::{Host, HostError};
use crate::plan::Asked;
use crate::session::{Running, describe};
use crate::status::{NextBoot, next_boot};
use crate::vitals::Firmware;
pub(crate) use boot_loader::against_a_restart;
use choosing::Choosing;
use facts::{EspFacts, Facts};
pub use finding::{Finding, Repair, Severity};

/// What was found (IFC-50).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// What boots next; null when that cannot be told, or nothing does.
    pub next_boot: Option<NextBoot>,
    /// The same as a sentence, or why it cannot be told.
    pub next_boot_why: String,
    /// The worst first.
    pub findings: Vec<Finding>,
    /// What was not looked at, and why.
    pub left_out: Vec<String>,
}

impl Diagnosis {
    /// The next boot or update may fail.
    pub fn is_endangered(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Danger)
    }
}

/// Looks at everything; changes nothing, and takes no lock (DOC-1).
pub fn diagnose(host: &dyn Host) -> Diagnosis {
    let facts = facts::gather(host);
    let mut findings = machine::find(&facts);
    findings.extend(volume::find(&facts));
    let mut left_out = facts.vitals.left_out.clone();
    let (mut next, mut why) = (None, "it cannot be told: the EFI partition cannot be read".to_owned());
    match &facts.esp {
        Ok(esp) => {
            next = next_boot(&esp.next);
            why = describe(&esp.next);
            findings.extend(volume::find_inside(&facts, esp));
            findings.extend(entries::find(&facts, esp));
            findings.extend(choosing::unreadable(&esp.unreadable));
            findings.extend(boot_loader::find(&facts, esp));
            findings.extend(choosing::find(&Choosing {
                asked: esp.asked(),
                conf: &esp.conf,
                next: esp.next_update.as_ref(),
                firmware: facts.firmware.as_ref(),
                whole: &esp.whole(),
                program: &facts.program,
                writable: facts.writable(),
            }));
        }
        Err(_) => left_out.push("everything on the EFI partition".to_owned()),
    }
    left_out.extend(not_asked(host, &facts));
    // The worst first; within one severity, as they were found.
    findings.sort_by_key(|finding| finding.severity);
    Diagnosis { next_boot: next, next_boot_why: why, findings, left_out }
}

fn not_asked(host: &dyn Host, facts: &Facts) -> Vec<String> {
    let mut left_out = Vec::new();
    if host.booted().is_some() && facts.firmware.is_none() {
        left_out
            .push("EFI variables and what the boot loader can do: /sys/firmware/efi/efivars cannot be read".to_owned());
    }
    if let Ok(EspFacts { firmware_unclear: Some(why), .. }) = &facts.esp {
        left_out.push(format!("whether the firmware would start boot loader and kernels: {why}"));
    }
    if let Some(pid) = facts.vitals.busy.filter(|pid| *pid != std::process::id()) {
        left_out
            .push(format!("another program is at work (process {pid}): what it is changing may look wrong for now"));
    }
    left_out
}

/// What is wrong with a machine or disk that could not even be opened; none where it is no matter for the doctor.
pub fn diagnose_unopened(error: &HostError) -> Option<Diagnosis> {
    let finding = machine::unopened(error)?;
    let left_out = vec!["everything else: first this must be put right".to_owned()];
    let next_boot_why = "it cannot be told: see below".to_owned();
    Some(Diagnosis { next_boot: None, next_boot_why, findings: vec![finding], left_out })
}

/// What makes any trial pointless or fatal, whatever the loader would choose (DOC-40).
pub(crate) fn against_a_trial(host: &dyn Host) -> Option<Finding> {
    let counting = host.firmware().and_then(|firmware| machine::without_counting(&firmware));
    let table = || machine::table(&host.vitals(), &host.command());
    counting.or_else(|| table().into_iter().find(|finding| finding.severity == Severity::Danger))
}

/// Does the loader prefer an entry by name, which the model knows nothing of?
pub(crate) fn prefers(esp: &mut dyn Esp, firmware: Option<&Firmware>) -> Result<bool, EspError> {
    Ok(choosing::obeys_preferred(firmware, &facts::conf_lines(esp)?))
}

/// Who is to blame when the loader would not carry out the plan for this new entry (DOC-40).
pub(crate) fn who_misleads(
    esp: &mut dyn Esp,
    state: &EspState,
    (vars, firmware): (&LoaderVars, Option<&Firmware>),
    (running, entry): (&Running, &Entry),
    program: &str,
) -> Result<Vec<Finding>, EspError> {
    let conf = facts::conf_lines(esp)?;
    let whole = facts::whole(&facts::wholeness(esp, state));
    let mut found = choosing::find(&Choosing {
        asked: Asked { state, vars, architecture: running.entry().architecture },
        conf: &conf,
        next: Some(entry),
        firmware,
        whole: &whole,
        program,
        writable: true,
    });
    found.retain(|finding| finding.severity == Severity::Danger);
    Ok(found)
}

#[cfg(test)]
mod tests;
