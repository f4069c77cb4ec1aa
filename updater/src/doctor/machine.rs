//! Disk, loader and hardware: what is not on the EFI partition.

use disk_layout::{BootedError, LayoutError};

use super::facts::Facts;
use super::finding::{Finding, Repair, Severity};
use crate::exit::with_source;
use crate::host::{HostError, for_shell};
use crate::vitals::{Firmware, Vitals, Watchdog};

pub(super) fn find(facts: &Facts) -> Vec<Finding> {
    let mut found = table(&facts.vitals, &facts.program);
    found.extend(facts.vitals.clashes.iter().map(|clash| {
        Finding::new(
            "second-disk",
            Severity::Danger,
            clash.clone(),
            "the next boot might take the wrong disk, so nothing is written",
        )
        .remedy("take one of the two disks out, or give its partitions other GUIDs and labels")
    }));
    found.extend(facts.firmware.as_ref().and_then(without_counting));
    found.extend(watchdog(facts.vitals.watchdog));
    found.extend(clock(facts));
    if facts.vitals.bless_boot == Some(true) {
        let why = "it may commit a trial behind the health check's back, and hides a twin";
        found.push(
            Finding::new("bless-boot", Severity::Warning, "systemd-bless-boot is there and not masked", why)
                .remedy("mask it in the image")
                .run("systemctl mask systemd-bless-boot.service"),
        );
    }
    if let Some(why) = &facts.guard_missing {
        let finding = Finding::new("guard-missing", Severity::Warning, why.clone(), "boots that never reach the health check are not counted, and a committed system that cannot boot is never given up")
            .remedy("make its file");
        found.push(if facts.writable() && facts.esp.is_ok() {
            finding.fix(Repair::Guard, &facts.program)
        } else {
            finding
        });
    }
    if let Some(why) = &facts.records_problem {
        let finding = Finding::new(
            "records-unreadable",
            Severity::Warning,
            why.clone(),
            "what failed before is forgotten, and the security floor is only what the entries say",
        );
        found.push(
            finding.remedy("look why /var is not mounted, or spoilt").run("findmnt /var; systemctl status var.mount"),
        );
    }
    found
}

/// Of the copies of the partition table.
pub(super) fn table(vitals: &Vitals, program: &str) -> Vec<Finding> {
    let Some(table) = &vitals.table else { return Vec::new() };
    let mut found = Vec::new();
    // Not without anybody's knowing: the table is written where nothing of ours is looked for otherwise.
    let repaired = |finding: Finding| match table.repairable() {
        Some(which) if vitals.clashes.is_empty() => {
            finding.remedy("rewrite it from the other copy, which is whole").fix(Repair::Table(which), program)
        }
        _ => finding.remedy("see that a copy of the disk exists, then repair the table with `sgdisk`"),
    };
    if let Some(why) = &table.primary {
        let what = format!("the first copy of the partition table is damaged: {why}");
        let why =
            "Linux uses the other copy only when told to (`gpt` on its command line): the next boot may find no root";
        found.push(repaired(Finding::new("gpt-primary-damaged", Severity::Danger, what, why)));
    }
    match &table.backup {
        Some(_) if table.misplaced => {
            let what = "the disk has grown: the second copy of the partition table is not at its end";
            let finding = Finding::new(
                "gpt-backup-misplaced",
                Severity::Note,
                what,
                "it is found by the first copy only: when that is damaged, neither is found",
            );
            let finding = finding.remedy("move it, with `sgdisk -e`");
            found.push(match &vitals.disk {
                Some(disk) => finding.run(format!("sgdisk -e {}", for_shell(disk))),
                None => finding,
            });
        }
        Some(why) => {
            let what = format!("the second copy of the partition table is damaged: {why}");
            found.push(repaired(Finding::new(
                "gpt-backup-damaged",
                Severity::Warning,
                what,
                "when the first copy is damaged, too, the disk is lost",
            )));
        }
        None => {}
    }
    if table.differ {
        let finding = Finding::new(
            "gpt-copies-differ",
            Severity::Danger,
            "the two copies of the partition table are whole and differ",
            "firmware and kernel may see different partitions",
        );
        found.push(
            finding.remedy(
                "find out which is meant (`sgdisk -p` shows the first), and write that one again with `sgdisk`",
            ),
        );
    }
    found
}

/// A loader that says that it does not count boots.
pub(crate) fn without_counting(firmware: &Firmware) -> Option<Finding> {
    if firmware.counts_boots() != Some(false) {
        return None;
    }
    let loader = firmware.loader.as_deref().unwrap_or("the boot loader");
    let finding = Finding::new(
        "loader-without-counting",
        Severity::Danger,
        format!("{loader} does not count boots"),
        "a trial that fails is tried for ever: there is no way back by itself",
    );
    Some(finding.remedy("install systemd-boot as EFI/BOOT/BOOTX64.EFI (BOOTAA64.EFI) on the EFI partition"))
}

fn watchdog(watchdog: Option<Watchdog>) -> Option<Finding> {
    let why = "a machine that hangs before or after the boot guard's watch stays so until somebody resets it";
    match watchdog? {
        Watchdog::Armed => None,
        Watchdog::Absent => {
            let finding = Finding::new("watchdog-absent", Severity::Warning, "there is no hardware watchdog", why);
            Some(finding.remedy("load its driver; a virtual machine can be given one"))
        }
        Watchdog::Idle => {
            let finding = Finding::new(
                "watchdog-idle",
                Severity::Warning,
                "there is a hardware watchdog, and nobody arms it",
                why,
            );
            Some(finding.remedy(
                "set RuntimeWatchdogSec=30 and RebootWatchdogSec=10min in /etc/systemd/system.conf, in the image",
            ))
        }
    }
}

/// A machine whose clock lost its battery wakes up years ago.
fn clock(facts: &Facts) -> Option<Finding> {
    let (now, built) = (facts.vitals.now?, facts.vitals.built?);
    if now >= built {
        return None;
    }
    let when = crate::explain::text::when;
    let what = format!("the clock says {}, which is before this image was built ({})", when(now), when(built));
    let finding = Finding::new(
        "clock-wrong",
        Severity::Warning,
        what,
        "https addresses are refused, and the history is dated wrongly; updates from files work",
    );
    Some(
        finding
            .remedy("set the clock, and see to its battery or to the time service")
            .run("timedatectl set-ntp true; timedatectl"),
    )
}

/// What of the machine or disk keeps it from being worked on at all, where that is for the doctor to tell: the same words as
/// those of every other command, and what to do. None: this is no machine, or no disk, of ours.
pub(super) fn unopened(error: &HostError) -> Option<Finding> {
    let layout = match error {
        HostError::Booted(BootedError::Layout { source, .. }) | HostError::Image { source, .. } => Some(source),
        _ => None,
    };
    let (id, remedy) = match (error, layout) {
        (_, Some(LayoutError::Xbootldr(_))) => ("xbootldr", "remove that partition, or change its type"),
        (_, Some(LayoutError::Twice { .. } | LayoutError::SameGuid { .. })) => {
            ("same-partitions", "give one of the two another label or GUID, with `sgdisk`")
        }
        (HostError::Booted(_), Some(_)) => ("disk-unclear", "repair the partition table, with `sgdisk`"),
        (HostError::Booted(BootedError::TableChanged { .. }), _) => {
            ("table-changed", "reboot, so that the kernel reads the table again")
        }
        (HostError::Booted(BootedError::OtherEsp { .. }), _) => {
            ("other-esp", "remove the other EFI partition's loader, or choose this disk in the firmware's boot menu")
        }
        (HostError::Booted(BootedError::CommandLine { .. }) | HostError::CommandLine(_), _) => {
            ("command-line", "boot an entry of ours, unchanged")
        }
        _ => return None,
    };
    Some(
        Finding::new(
            id,
            Severity::Danger,
            with_source(error),
            "nothing is written while it is so: no update, no commit, no rollback",
        )
        .remedy(remedy),
    )
}
