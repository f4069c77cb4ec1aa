//! The EFI partition as a volume: whether it can be read, written, filled, and what is wrong with its clusters.

use boot_entries::fat::ClusterFault;
use boot_entries::{EntryName, EspPath};
use disk_layout::Slot;
use image_format::slot_bytes;

use super::facts::{EspFacts, Facts};
use super::finding::{Finding, Severity};
use crate::refuse::ESP_SPARE;
use crate::vitals::{EspVolume, NoVolume, WriteProtection};

/// Slots behind the end of `loader/entries` that a trial may use up: six names of at most four slots each (staged, counted
/// three times, ended, and a rollback), and some to spare. The fence sees to many more (ENT-28).
const TRIAL_ROOM: usize = 32;

/// Of the EFI partition's file system itself; also when nothing on it can be read.
pub(super) fn find(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    let (check, unmounted) = (|finding| check(facts, finding), UNMOUNTED);
    match &facts.vitals.volume {
        Some(Err(NoVolume::NotFat(why))) => found.push(
            Finding::new(
                "esp-not-fat",
                Severity::Danger,
                format!("the EFI partition holds no FAT file system: {why}"),
                "the firmware finds no boot loader on it, and nothing can be installed",
            )
            .remedy("restore this partition alone, from a copy of it; to make the disk anew with `ralph-image disk` erases /var, too"),
        ),
        Some(Ok(EspVolume { health, .. })) => {
            if health.medium_failed {
                let what = "a driver met errors of the medium under the EFI partition";
                found.push(check(
                    Finding::new("esp-dirty", Severity::Danger, what, "the disk is failing")
                        .remedy(format!("replace the disk; {unmounted}")),
                ));
            } else if health.dirty {
                let what = "the EFI partition was not unmounted, or is in use right now";
                let why = "a power cut in the middle of a write may have lost clusters; what is needed to boot is checked on its own here";
                found.push(check(
                    Finding::new("esp-dirty", Severity::Note, what, why)
                        .remedy(format!("nothing, if it is in use; else, {unmounted}")),
                ));
            }
            if health.copies_differ {
                let what = "the two copies of the FAT differ";
                let why =
                    "whoever reads the other copy sees other files: a power cut in the middle of a write leaves that";
                found.push(check(Finding::new("fat-copies-differ", Severity::Warning, what, why).remedy(unmounted)));
            }
        }
        // Told below.
        Some(Err(NoVolume::Unreadable(_))) | None => {}
    }
    let unreadable = match (&facts.vitals.volume, &facts.esp) {
        (Some(Err(NoVolume::NotFat(_))), _) => None,
        (_, Err(why)) | (Some(Err(NoVolume::Unreadable(why))), _) => Some(why),
        _ => None,
    };
    if let Some(why) = unreadable {
        let finding = Finding::new(
            "esp-unreadable",
            Severity::Danger,
            format!("the EFI partition cannot be read: {why}"),
            "the disk is failing, or the volume damaged: the firmware may not find what it needs, and nothing can be installed",
        );
        found.push(check(finding.remedy(unmounted)));
    }
    found.extend(facts.vitals.write_protection.as_ref().map(|protection| read_only(facts, protection)));
    found
}

const UNMOUNTED: &str = "with the volume unmounted, and after `doctor --fix`, check it";

fn check(facts: &Facts, finding: Finding) -> Finding {
    match &facts.vitals.esp_device {
        Some(device) => finding.run(format!("fsck.vfat -a {}", device.display())),
        None => finding,
    }
}

fn read_only(facts: &Facts, protection: &WriteProtection) -> Finding {
    let why = "no trial can be committed, counted or marked bad, and no update installed";
    let finding = |what| Finding::new("esp-read-only", Severity::Danger, what, why);
    match (protection, &facts.vitals.esp_device) {
        (WriteProtection::Mounted(point), Some(device)) => {
            finding(format!("the system has the EFI partition mounted read-only on {}", point.display()))
                .remedy("unmount it and check it: the kernel turns a damaged volume read-only")
                .run(format!("umount {} && fsck.vfat -a {}", point.display(), device.display()))
        }
        (WriteProtection::Mounted(path) | WriteProtection::Medium(path), _) => {
            finding(format!("{} cannot be written to", path.display())).remedy(
                "take the write protection off the disk (or the file); a disk that turned read-only by itself is dying",
            )
        }
    }
}

/// Room and clusters, once the volume could be read.
pub(super) fn find_inside(facts: &Facts, esp: &EspFacts) -> Vec<Finding> {
    let mut found = match &esp.faults {
        Ok(faults) => faults.iter().map(|fault| cluster_fault(facts, esp, fault)).collect(),
        Err(why) => {
            let what = format!("the clusters of the names on the EFI partition cannot be looked at: {why}");
            let why = "nothing is removed before it is known that no two names share clusters, so every update, commit and rollback is refused";
            let finding = Finding::new("directory-unreadable", Severity::Danger, what, why);
            vec![check(facts, finding.remedy(format!("save what is needed of it; {UNMOUNTED}")))]
        }
    };
    found.extend(room(facts, esp));
    found.extend(entries_room(facts, esp));
    found
}

/// Is there room for the names that a trial puts at the end of `loader/entries`?
fn entries_room(facts: &Facts, esp: &EspFacts) -> Option<Finding> {
    let free = facts.vitals.volume.as_ref()?.as_ref().ok()?.entries_room?;
    if free >= TRIAL_ROOM {
        return None;
    }
    let on_trial = esp.state.ours.iter().any(|ours| ours.is_live() && ours.name.counter.is_some_and(|c| c.left() > 0));
    let severity = if on_trial { Severity::Warning } else { Severity::Note };
    let what = format!("loader/entries has room for {free} more slots of names before it must grow");
    let why =
        "the firmware puts a name there at each try, and a power cut while the directory grows may leave it empty";
    Some(Finding::new("entries-room", severity, what, why).remedy(
        "nothing: the next apply makes room; it cannot where the system keeps the EFI partition mounted, so unmount it before",
    ))
}

fn cluster_fault(facts: &Facts, esp: &EspFacts, fault: &ClusterFault) -> Finding {
    let entry = |path: &EspPath| path.as_str().strip_prefix("loader/entries/")?.parse::<EntryName>().ok();
    match fault {
        ClusterFault::Shared { first, second, same_start } => {
            let what = format!("{first} and {second} share clusters");
            let cut = match (entry(first), entry(second)) {
                (Some(a), Some(b)) => {
                    *same_start && a.same_system(b) && a.counter.is_some() && b.counter.is_some() && a != b
                }
                _ => false,
            };
            if cut {
                let why = "the firmware's counting was cut; to remove either name as usual would destroy the other";
                let finding = Finding::new("cut-rename", Severity::Warning, what, why);
                return esp.tidy(facts, finding, "take the name away that the cut rename was to replace");
            }
            let why = "to remove or change either destroys the other, so updates are refused";
            Finding::new("shared-clusters", Severity::Danger, what, why)
                .remedy("save what is needed of the two, then check the unmounted volume with fsck.vfat")
        }
        ClusterFault::Broken { path } => {
            let booted = esp.next_files.iter().any(|file| file.eq_ignore_ascii_case(path.as_str()));
            let severity = if booted { Severity::Danger } else { Severity::Warning };
            let why = "its end is lost, as after a cut while it was written; removed as usual, it would turn the volume read-only";
            Finding::new("broken-chain", severity, format!("the clusters of {path} are no chain"), why)
                .remedy("the next apply to its slot takes it away safely")
                .run(format!("{} apply IMAGE", facts.program))
        }
    }
}

/// Would an image fit that is as large as the largest one installed, and one a tenth larger? DSK-22 promises more.
fn room(facts: &Facts, esp: &EspFacts) -> Vec<Finding> {
    let mut found = Vec::new();
    let target = esp.running.as_ref().ok().map(|running| running.target().slot());
    let grown = |bytes: u64| bytes + bytes / 10;
    let payloads = |slot: Slot| -> u64 {
        let newest = esp.state.payloads(slot).iter().filter_map(|file| Some(file.name?.generation)).max();
        let of_newest = esp.state.payloads(slot).iter().filter(|file| file.name.map(|name| name.generation) == newest);
        of_newest.map(|file| file.size).sum()
    };
    if let (Some(target), Some(space), Some(largest)) = (target, esp.space, Slot::ALL.into_iter().map(payloads).max()) {
        let free = (space.free_clusters + esp.state.freed_by_fence(target, space)) * u64::from(space.cluster_size);
        let needs = |bytes: u64| bytes + 4 * u64::from(space.cluster_size) + ESP_SPARE;
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let severity = if needs(largest) > free {
            Some(Severity::Danger)
        } else {
            (needs(grown(largest)) > free).then_some(Severity::Warning)
        };
        if let Some(severity) = severity {
            let what = format!(
                "the EFI partition has room for {} MiB of kernel and initrd; the largest here have {} MiB",
                mib(free.saturating_sub(ESP_SPARE)),
                mib(largest)
            );
            let why = if severity == Severity::Danger {
                "an update of today's size is refused"
            } else {
                "an update that is a tenth larger is refused"
            };
            found.push(Finding::new("esp-full", severity, what, why).remedy("remove files that are not ours from it; if there are none, power cuts have lost clusters: check the unmounted volume with fsck.vfat"));
        }
    }
    let roots =
        esp.state.ours.iter().filter_map(|ours| ours.entry.as_ref().ok()).map(|entry| entry.options.hash_offset);
    if let Some(root) = roots.filter(|size| *size <= 1 << 48).max() {
        let slots: Vec<Slot> = target.map_or(Slot::ALL.to_vec(), |target| vec![target]);
        for slot in slots {
            let has = facts.layout.slot(slot).len;
            let severity = if slot_bytes(root) > has {
                Some(Severity::Danger)
            } else {
                (slot_bytes(grown(root)) > has).then_some(Severity::Warning)
            };
            if let Some(severity) = severity {
                let what = format!(
                    "slot {slot} has {} MiB, the largest root here needs {}",
                    has >> 20,
                    slot_bytes(root).div_ceil(1 << 20)
                );
                let why = if severity == Severity::Danger {
                    "an update of today's size is refused"
                } else {
                    "an update that is a tenth larger is refused"
                };
                found.push(Finding::new("slot-too-small", severity, what, why).remedy(
                    "build smaller images, or make the disk anew with larger slots: `ralph-image disk --slot-size`",
                ));
            }
        }
    }
    found
}
