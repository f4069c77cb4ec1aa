//! What ends a trial when the first way out is blocked (specs/boot-guard.md; HLT-36): a reboot that hangs, a guard that
//! was killed, an initrd whose systemd ends what is left of its services. One try each, with the shortest deadline that
//! leaves time for what is to be shown.

use crate::common::{self, A, Fallen, HANG, commits, fallen};
use crate::scenario;
use anyhow::Result;
use qemu_tests::guest::{Initrd, Release};
use qemu_tests::machine::{Machine, Off};

/// What the guard says when it ends a trial.
const GUARD_ENDS: &str = "no verdict by the deadline; restarting";

/// A check that fails at once.
const BROKEN: &str = "[check.broken]\nkind = \"command\"\ncommand = [\"/usr/bin/false\"]\n";

/// A unit whose stop takes for ever, and which nobody may end: a reboot in order waits for it.
const STAYS: &str = "[Service]\nExecStart=/usr/bin/sleep infinity\n\
    ExecStop=/bin/sh -c 'echo never stops; sleep infinity'\nTimeoutStopSec=infinity\nStandardOutput=journal+console\n";

/// A failed check in place of those of a healthy system, so that the verdict comes soon, and a reboot that cannot end in
/// order.
fn hanging_reboot() -> Release {
    Release::new("2.0.0").with_checks("50-ralphos", BROKEN).with_unit("stays.service", "sysinit.target", STAYS)
}

/// The only try of `release` ends; gives what is left of it on slot A, and what its console said.
fn ends(off: Off, release: &Release) -> Result<(Fallen, String)> {
    // The console shows what the guard says.
    let release = release.clone().with_option("loglevel=5");
    let fallen = fallen(off.stage(&release)?.one_try()?.start()?)?;
    assert_eq!(fallen.machine.vm.boots(), 2);
    assert_eq!(fallen.machine.entries()?, [A, "ralphos-b-g2+0-1.conf"]);
    let said = said(&fallen.machine);
    Ok((fallen, said))
}

/// What the console said in the first boot.
fn said(machine: &Machine) -> String {
    machine.vm.transcript().boots()[0].iter().map(|line| format!("{}\n", line.text)).collect()
}

#[test]
fn a_failed_trial_whose_reboot_hangs_is_ended_by_the_guard_hlt_36() -> Result<()> {
    let release = hanging_reboot().with_option("ralph.deadline=75");
    scenario("reboot-hangs-guard", |lab| {
        let (mut fallen, said) = ends(Off::new(lab)?, &release)?;
        assert!(said.contains("never stops") && said.contains(GUARD_ENDS), "{said}");
        evidence_is_kept(&mut fallen)
    })
}

#[test]
fn a_failed_trial_whose_reboot_hangs_is_ended_by_the_timer_hlt_36() -> Result<()> {
    // The health check's own timer, but for its three minutes. The guard would come after ten.
    let impatient = "[Timer]\nOnActiveSec=\nOnActiveSec=15s\n";
    let release = hanging_reboot().with_file("usr/lib/systemd/system/run-.timer.d/50-impatient.conf", impatient);
    scenario("reboot-hangs-timer", |lab| {
        let (mut fallen, said) = ends(Off::new(lab)?, &release)?;
        let began = |line: &str| line.contains("Started run-") && line.contains(".service");
        assert!(said.contains("never stops") && said.lines().any(began) && !said.contains(GUARD_ENDS), "{said}");
        evidence_is_kept(&mut fallen)
    })
}

/// The verdict had been recorded before the reboot was asked for, and nothing that came later took its place (GRD-21).
fn evidence_is_kept(fallen: &mut Fallen) -> Result<()> {
    fallen.ended("fell-back");
    fallen.failed(&[("broken", "exit-code")]);
    assert_eq!(fallen.update["tries"][0]["verdict"], "record-and-reboot");
    assert!(fallen.update["tries"][0]["guard"].is_null(), "{:#}", fallen.update);
    assert_eq!(common::events(&mut fallen.machine, "trial-failed")?, 1);
    Ok(())
}

/// What both halves of a boot say when their systemd starts.
const HALVES: [&str; 2] = ["Booting initrd of the lab with systemd", "Welcome to RalphOS 2.0.0"];

#[test]
fn a_trial_with_systemd_in_its_initrd_is_committed_grd_20() -> Result<()> {
    let release = Release::new("2.0.0").with_initrd(Initrd::Systemd).without_sandbox_check();
    scenario("systemd-initrd", |lab| {
        let (mut machine, _) = commits(lab, &release)?;
        let said = said(&machine);
        assert!(HALVES.iter().all(|half| said.contains(half)), "{said}");
        // The verdict has disarmed what the initrd left behind (GRD-22).
        machine.vm.ok("! pgrep -f ^@ralph-boot-guard")?;
        Ok(())
    })
}

#[test]
fn the_guard_of_an_initrd_with_systemd_outlives_it_and_ends_a_hang_grd_20() -> Result<()> {
    let release = Release::new("2.0.0")
        .with_initrd(Initrd::Systemd)
        .with_unit("hang.service", "sysinit.target", HANG)
        .with_option("ralph.deadline=60");
    scenario("systemd-initrd-hangs", |lab| {
        let (fallen, said) = ends(Off::new(lab)?, &release)?;
        assert!(HALVES.iter().all(|half| said.contains(half)) && said.contains(GUARD_ENDS), "{said}");
        fallen.ended("fell-back");
        fallen.guard_said("deadline");
        Ok(())
    })
}

#[test]
fn a_trial_whose_guard_was_killed_is_ended_by_systemd_grd_23() -> Result<()> {
    let kill = "[Unit]\nDefaultDependencies=no\nBefore=sysinit.target\n\
        [Service]\nType=oneshot\nExecStart=/usr/bin/pkill -9 -f ^@ralph-boot-guard\nStandardOutput=journal+console\n";
    // In place of the health check, what never comes to an end.
    let hangs = "[Service]\nExecStart=\nExecStart=/usr/bin/sleep infinity\n";
    let release = Release::new("2.0.0")
        .with_required_unit("kill-guard.service", "sysinit.target", kill)
        .with_file("usr/lib/systemd/system/ralph-health-check.service.d/50-hangs.conf", hangs)
        .with_option("ralph.deadline=45");
    scenario("guard-killed", |lab| {
        let (fallen, said) = ends(Off::new(lab)?, &release)?;
        let killed = said.contains("without a verdict in") && said.contains("Finished kill-guard.service");
        assert!(killed && !said.contains(GUARD_ENDS), "{said}");
        // Nobody was left to write anything down.
        fallen.ended("inconclusive");
        Ok(())
    })
}
