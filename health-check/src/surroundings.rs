//! What else of the machine a verdict depends on, or a person must know, as a seam: who booted it, who else would commit, what has failed.

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use boot_entries::kexec::started_by_kexec;

use crate::machine::Fault;
use crate::systemd::systemctl;

/// How long systemd may take to answer one question.
const ANSWER: Duration = Duration::from_secs(10);
/// The unit that would commit without asking (HLT-38).
const BLESS_BOOT: &str = "systemd-bless-boot.service";

/// Questions about the machine that are asked once a boot.
pub trait Surroundings {
    /// Why this boot proves nothing about the firmware, if it does not (HLT-37).
    fn not_firmware(&self) -> Result<Option<String>, Fault>;
    /// The state of `systemd-bless-boot.service`, if it is not masked and is there (HLT-38).
    fn bless_boot(&self) -> Result<Option<String>, Fault>;
    /// The failed units, as systemd lists them (HLT-64).
    fn failed_units(&self) -> Result<String, Fault>;
}

/// Those of this machine.
#[derive(Debug)]
pub struct ThisMachine {
    root: PathBuf,
}

impl ThisMachine {
    /// With `/proc` and `/sys` below `root`, which is `/` but for tests.
    pub fn below(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }
}

impl Surroundings for ThisMachine {
    fn not_firmware(&self) -> Result<Option<String>, Fault> {
        // As the boot guard asks.
        if started_by_kexec(&self.root)? {
            return Ok(Some("the kernel was started by kexec".to_owned()));
        }
        let shown = systemctl(&["show", "--no-pager", "--property=SoftRebootsCount"], ANSWER)?;
        Ok(match soft_reboots(&shown)? {
            0 => None,
            count => Some(format!("systemd has made {count} soft-reboots since the firmware booted")),
        })
    }

    fn bless_boot(&self) -> Result<Option<String>, Fault> {
        let properties = "--property=LoadState,UnitFileState,ActiveState";
        Ok(not_masked(&systemctl(&["show", "--no-pager", properties, "--", BLESS_BOOT], ANSWER)?))
    }

    fn failed_units(&self) -> Result<String, Fault> {
        Ok(systemctl(&["list-units", "--failed", "--no-pager", "--plain", "--no-legend", "--full"], ANSWER)?)
    }
}

/// systemd before 254 makes no soft-reboots and knows no such property.
fn soft_reboots(shown: &str) -> Result<u32, Fault> {
    match shown.lines().find_map(|line| line.strip_prefix("SoftRebootsCount=")) {
        None => Ok(0),
        Some(count) => Ok(count.parse().map_err(|_| format!("systemd counts its soft-reboots as {count:?}"))?),
    }
}

/// Its state, unless it cannot run: masked, or not there at all.
fn not_masked(shown: &str) -> Option<String> {
    let value = |key| shown.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap_or_default();
    let load = value("LoadState");
    if matches!(load, "masked" | "not-found") {
        return None;
    }
    let states = ["LoadState", "UnitFileState", "ActiveState"].map(value);
    Some(states.into_iter().filter(|state| !state.is_empty()).collect::<Vec<_>>().join(", "))
}
