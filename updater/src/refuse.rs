//! The refusals of UPD-1 that follow from the manifest and gathered facts: a pure function.

use boot_entries::loader::compare_versions;
use image_format::{Architecture, Boot, Manifest, UpdaterVersion};

use crate::config::Policy;
use crate::firmware_trust::FirmwareTrust;
use crate::memory::INCONCLUSIVE_MAX;

/// What an ESP must have free beyond the new payloads.
pub const ESP_SPARE: u64 = 1 << 20;

/// May an image older than the running system be applied?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Downgrade {
    /// No (the default).
    Refuse,
    /// Yes: the operator said `--allow-downgrade`. The floor holds all the same.
    Allow,
}

/// May a system that failed on this machine, or fell back too often without evidence, be applied again?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownBad {
    /// No (the default).
    Refuse,
    /// Yes: the operator said `--retry-failed`.
    Retry,
}

/// What the machine is and has, gathered before the decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The machine's policy.
    pub policy: Policy,
    /// Of the machine's slots.
    pub architecture: Architecture,
    /// This program's version.
    pub updater: UpdaterVersion,
    /// Version of the running system.
    pub running_version: String,
    /// System id of the running system, hex.
    pub running_system: String,
    /// System id staged in the target slot, not yet booted, hex.
    pub staged_system: Option<String>,
    /// The floor (UPD-40).
    pub floor: u32,
    /// Why the system in question is known bad here (UPD-42).
    pub known_bad: Option<String>,
    /// How often it fell back without evidence (UPD-45).
    pub inconclusive: usize,
    /// Size of the target slot in bytes.
    pub slot_len: u64,
    /// Bytes in one cluster of the ESP.
    pub cluster_size: u64,
    /// Clusters free on the ESP now.
    pub free_clusters: u64,
    /// Clusters the fence will free.
    pub freed_clusters: u64,
    /// What the firmware asks of a kernel.
    pub firmware: FirmwareTrust,
    /// The running system was started as a unified kernel image.
    pub running_unified: bool,
    /// The running system is on trial, so that the target slot is its fallback.
    pub running_on_trial: bool,
}

/// Why an image is not applied, with nothing changed (UPD-1). The message says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Made for another OS.
    #[error("the image is for {image:?}, this machine runs {machine:?}")]
    WrongOs {
        /// The image's os-id.
        image: String,
        /// The machine's.
        machine: String,
    },
    /// Made for another processor.
    #[error("the image is for {image}, this machine is {machine}")]
    WrongArchitecture {
        /// The image's.
        image: String,
        /// The machine's.
        machine: String,
    },
    /// Made for other hardware.
    #[error(
        "the image fits only {image:?}, this machine is {machine:?}: get the image for this hardware, or set `hardware` in update.toml"
    )]
    WrongHardware {
        /// What the image fits.
        image: Vec<String>,
        /// What the machine is.
        machine: Vec<String>,
    },
    /// Needs a newer ralph-update.
    #[error("the image needs ralph-update {needs} or newer, this is {have}: apply an intermediate release first")]
    UpdaterTooOld {
        /// What the image asks for.
        needs: String,
        /// What this is.
        have: String,
    },
    /// Below the floor.
    #[error("the image's security epoch is {image}, this machine accepts {floor} and above: it has known holes")]
    BelowFloor {
        /// The image's epoch.
        image: u32,
        /// The floor.
        floor: u32,
    },
    /// Far above the floor.
    #[error(
        "the image's security epoch is {image}, more than {step} above this machine's floor of {floor}: applied and committed it would shut out every release below; raise max-epoch-step in update.toml if that is meant"
    )]
    EpochJump {
        /// The image's epoch.
        image: u32,
        /// The floor.
        floor: u32,
        /// The allowed step.
        step: u32,
    },
    /// Older than the running system.
    #[error("the image's version {image} is older than the running {running}: say --allow-downgrade if that is meant")]
    Downgrade {
        /// The image's version.
        image: String,
        /// The running system's.
        running: String,
    },
    /// Failed here before.
    #[error("this very system failed on this machine before ({why}): say --retry-failed to try it again")]
    KnownBad {
        /// What happened.
        why: String,
    },
    /// Fell back too often, and nobody knows why.
    #[error(
        "this very system fell back on this machine {times} times and left no evidence: look for power cuts and hangs (`ralph-update explain`), then say --retry-failed to try it again"
    )]
    Inconclusive {
        /// How often.
        times: usize,
    },
    /// The slot is too small.
    #[error("the image needs {needs} bytes of slot, the slot has {has}")]
    SlotTooSmall {
        /// Bytes needed.
        needs: u64,
        /// Bytes there.
        has: u64,
    },
    /// The ESP is too small.
    #[error(
        "the image needs {needs} bytes on the EFI partition, with {ESP_SPARE} to spare; {has} would be free: remove files that are not ours from it; if there are none, power cuts have lost clusters: check it with fsck.vfat"
    )]
    EspTooSmall {
        /// Bytes needed, in whole clusters, with the spare.
        needs: u64,
        /// Bytes free once the target's old files are gone.
        has: u64,
    },
    /// The running system is a trial.
    #[error(
        "the running system is on trial itself, and the other slot is what it would fall back to: wait for the health check to commit it (or run `ralph-update rollback`)"
    )]
    OnTrial,
    /// The running system's own entry cannot be relied on.
    #[error("the running system could not be fallen back to: {why}")]
    FallbackNotWhole {
        /// What is wrong with it.
        why: String,
    },
    /// A delta for machines that run something else.
    #[error(
        "the delta is made for a machine that runs system {base}, this one runs {running}: apply the full image, or the delta from {running}"
    )]
    DeltaBase {
        /// What it refers to, hex.
        base: String,
        /// What runs, hex.
        running: String,
    },
    /// A delta refers to what cannot be read.
    #[error("slot {slot}, which the delta refers to, cannot be opened for reading: apply the full image")]
    DeltaBaseUnread {
        /// The slot that runs.
        slot: String,
    },
    /// Kernel and initrd apart, and a firmware that asks for signatures.
    #[error(
        "this machine's firmware enforces Secure Boot, and the image has kernel and initrd apart, whose command line and initrd nobody could sign: build it with a signed unified kernel image (ralph-image build --uki)"
    )]
    NotUnified,
    /// It cannot be told whether the firmware would start it.
    #[error("it cannot be told whether this machine's firmware would start the image's kernel: {why}")]
    FirmwareUnclear {
        /// Why not.
        why: String,
    },
    /// The loader would not do what is planned.
    #[error("the boot loader would not carry out the plan: {why}")]
    PlanBroken {
        /// What it would do instead, and what to mend.
        why: String,
    },
}

impl Refusal {
    /// A stable name for programs (`reason` in JSON).
    pub fn reason(&self) -> &'static str {
        match self {
            Refusal::WrongOs { .. } => "wrong-os",
            Refusal::WrongArchitecture { .. } => "wrong-architecture",
            Refusal::WrongHardware { .. } => "wrong-hardware",
            Refusal::UpdaterTooOld { .. } => "updater-too-old",
            Refusal::BelowFloor { .. } => "below-floor",
            Refusal::EpochJump { .. } => "epoch-jump",
            Refusal::Downgrade { .. } => "downgrade",
            Refusal::KnownBad { .. } => "known-bad",
            Refusal::Inconclusive { .. } => "inconclusive",
            Refusal::SlotTooSmall { .. } => "slot-too-small",
            Refusal::EspTooSmall { .. } => "esp-too-small",
            Refusal::OnTrial => "on-trial",
            Refusal::FallbackNotWhole { .. } => "fallback-not-whole",
            Refusal::DeltaBase { .. } | Refusal::DeltaBaseUnread { .. } => "delta-base",
            Refusal::NotUnified => "not-unified",
            Refusal::FirmwareUnclear { .. } => "firmware-unclear",
            Refusal::PlanBroken { .. } => "plan-broken",
        }
    }
}

/// The outcome of [`decide`] when nothing is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Go on.
    Apply,
    /// The very system is running.
    AlreadyRunning,
    /// The very system is staged and waits for a reboot.
    AlreadyStaged,
}

/// UPD-1, from the manifest of an image whose signatures hold.
pub fn decide(
    manifest: &Manifest,
    system: &str,
    facts: &Facts,
    downgrade: Downgrade,
    known_bad: KnownBad,
) -> Result<Decision, Refusal> {
    fits_machine(manifest, facts)?;
    epoch_allowed(manifest.epoch, facts)?;
    if system == facts.running_system {
        return Ok(Decision::AlreadyRunning);
    }
    if facts.staged_system.as_deref() == Some(system) {
        return Ok(Decision::AlreadyStaged);
    }
    if downgrade == Downgrade::Refuse && compare_versions(&manifest.version, &facts.running_version).is_lt() {
        return Err(Refusal::Downgrade { image: manifest.version.clone(), running: facts.running_version.clone() });
    }
    if let (KnownBad::Refuse, Some(why)) = (known_bad, &facts.known_bad) {
        return Err(Refusal::KnownBad { why: why.clone() });
    }
    if known_bad == KnownBad::Refuse && facts.inconclusive >= INCONCLUSIVE_MAX {
        return Err(Refusal::Inconclusive { times: facts.inconclusive });
    }
    enough_space(manifest, facts)?;
    if facts.running_on_trial { Err(Refusal::OnTrial) } else { Ok(Decision::Apply) }
}

/// IMG-71, of what would be applied otherwise: a delta refers to the running system, and to no other.
pub fn refers_to_running(base: Option<String>, facts: &Facts) -> Result<(), Refusal> {
    match base.filter(|base| *base != facts.running_system) {
        None => Ok(()),
        Some(base) => Err(Refusal::DeltaBase { base, running: facts.running_system.clone() }),
    }
}

fn fits_machine(manifest: &Manifest, facts: &Facts) -> Result<(), Refusal> {
    if let Some(machine) = facts.policy.os_id.as_ref().filter(|os| **os != manifest.os_id) {
        return Err(Refusal::WrongOs { image: manifest.os_id.clone(), machine: machine.clone() });
    }
    if manifest.architecture != facts.architecture {
        return Err(Refusal::WrongArchitecture {
            image: manifest.architecture.to_string(),
            machine: facts.architecture.to_string(),
        });
    }
    if !manifest.compatible.is_empty() && !manifest.compatible.iter().any(|c| facts.policy.hardware.contains(c)) {
        return Err(Refusal::WrongHardware {
            image: manifest.compatible.clone(),
            machine: facts.policy.hardware.clone(),
        });
    }
    let unified = matches!(manifest.boot(), Boot::Uki(_));
    match &facts.firmware {
        FirmwareTrust::Enforcing(_) if !unified => return Err(Refusal::NotUnified),
        // That firmware has started a kernel apart, and this is another.
        FirmwareTrust::Unclear(_) if !unified && !facts.running_unified => {}
        FirmwareTrust::Unclear(why) => return Err(Refusal::FirmwareUnclear { why: why.clone() }),
        _ => {}
    }
    if manifest.min_updater > facts.updater {
        return Err(Refusal::UpdaterTooOld {
            needs: manifest.min_updater.to_string(),
            have: facts.updater.to_string(),
        });
    }
    Ok(())
}

fn epoch_allowed(image: u32, facts: &Facts) -> Result<(), Refusal> {
    let (floor, step) = (facts.floor, facts.policy.max_epoch_step);
    if image < floor {
        return Err(Refusal::BelowFloor { image, floor });
    }
    if image - floor > step {
        return Err(Refusal::EpochJump { image, floor, step });
    }
    Ok(())
}

fn enough_space(manifest: &Manifest, facts: &Facts) -> Result<(), Refusal> {
    if manifest.slot_bytes > facts.slot_len {
        return Err(Refusal::SlotTooSmall { needs: manifest.slot_bytes, has: facts.slot_len });
    }
    // Each file fills whole clusters; the entry itself and a longer directory need one each.
    let clusters: u64 = manifest.boot().sizes().iter().map(|size| size.div_ceil(facts.cluster_size)).sum::<u64>() + 2;
    let needs = clusters.saturating_mul(facts.cluster_size).saturating_add(ESP_SPARE);
    let has = (facts.free_clusters + facts.freed_clusters).saturating_mul(facts.cluster_size);
    if needs > has { Err(Refusal::EspTooSmall { needs, has }) } else { Ok(()) }
}

#[cfg(test)]
#[path = "refuse_tests.rs"]
mod tests;
