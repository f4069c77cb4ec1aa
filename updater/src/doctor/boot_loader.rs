//! The boot loader's own files (specs/loader-update.md): what the next boot begins with.

use boot_entries::{Esp, EspPath};

use super::facts::{EspFacts, Facts};
use super::finding::{Finding, Severity};
use crate::host::Host;
use crate::loader::{LoaderFault, starter_fault};

pub(super) fn find(facts: &Facts, esp: &EspFacts) -> Vec<Finding> {
    let Some(loaders) = &esp.loaders else { return Vec::new() };
    // Its own word is of this boot, and they have not changed places since.
    let on_alternate = (loaders.kept_started && facts.vitals.loaders_swapped == Some(false)).then(|| {
        Finding::new(
            "on-alternate-loader",
            Severity::Warning,
            format!("the firmware started the boot loader that is kept beside {}, and not that one", loaders.default),
            "it could not start the default, or somebody chose otherwise; behind the kept one there is no other",
        )
        .remedy("put a systemd-boot in the default's place that the firmware starts, or take the firmware's other choice back")
    });
    let unusable = loaders.fault.as_ref().map(|fault| unusable(&loaders.default, fault));
    unusable.into_iter().chain(on_alternate).collect()
}

fn unusable(default: &EspPath, fault: &LoaderFault) -> Finding {
    let (severity, meaning) = if fault.certain {
        (
            Severity::Danger,
            "the next boot does not get as far as the entries, unless the firmware turns to another loader",
        )
    } else {
        (Severity::Warning, "the next boot may not get as far as the entries")
    };
    let finding =
        Finding::new("loader-unusable", severity, format!("the boot loader {default} {}", fault.why), meaning);
    finding.remedy("put a systemd-boot there that the firmware starts, before any restart: the one kept beside it (.ALT) where that has started this machine before, or the system's own, /usr/lib/ralph-update/loader.efi, if it has one")
}

/// What would keep the machine from coming back after any restart: what started it is not there any more, for certain (DOC-40).
pub(crate) fn against_a_restart(host: &dyn Host, esp: &mut dyn Esp) -> Option<Finding> {
    let (default, fault) = starter_fault(host, esp)?;
    fault.certain.then(|| unusable(&default, &fault))
}
