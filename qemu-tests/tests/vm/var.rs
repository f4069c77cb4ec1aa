//! `/var` is a convenience (HLT-40): read-only, full or lost, a healthy trial is committed, and a failed one falls back;
//! what failed is then told from the guard's record.
//!
//! And the contract's hardest clause (HLT-3): a version on trial changes nothing under `/var` that the one before cannot
//! read. N runs, N+1 is tried and fails, N runs again, all on one `/var`.

use crate::common::{committed, fallen, update};
use crate::scenario;
use anyhow::{Context, Result, ensure};
use qemu_tests::guest::{Initrd, Release};
use qemu_tests::lab::Lab;
use qemu_tests::machine::{Machine, Off};
use qemu_tests::vm::BOOT_TIMEOUT;

/// What is wrong with `/var`.
#[derive(Clone, Copy, Debug)]
enum Var {
    ReadOnly,
    Full,
    Lost,
}

impl Var {
    /// Starts the trial of `release` with such a `/var`.
    fn trial(self, lab: &Lab, release: Release) -> Result<Machine> {
        let off = Off::new(lab)?;
        match self {
            Self::ReadOnly => off.stage(&release.with_initrd(Initrd::VarReadOnly))?.start(),
            Self::Full => {
                let fill = "[Unit]\nDefaultDependencies=no\nBefore=sysinit.target\n\
                    [Service]\nType=oneshot\nExecStart=-/usr/bin/dd if=/dev/zero of=/var/full bs=64K\n";
                off.stage(&release.with_unit("fill.service", "sysinit.target", fill))?.start()
            }
            // Its superblock is gone: the initrd mounts an empty tmpfs in its place.
            Self::Lost => off.stage(&release)?.corrupt("VAR")?.start(),
        }
    }
}

fn commits(name: &str, var: Var) -> Result<()> {
    scenario(name, |lab| {
        let mut machine = var.trial(lab, Release::new("2.0.0").without_sandbox_check())?;
        assert_eq!(machine.vm.wait_boot(BOOT_TIMEOUT)?.slot, "b");
        committed(&mut machine)?;
        Ok(())
    })
}

fn falls_back(name: &str, var: Var) -> Result<()> {
    scenario(name, |lab| {
        let release = Release::new("2.0.0").without_sandbox_check().with_ralphd("policy-not-loaded").given_up_at_once();
        let fallen = fallen(var.trial(lab, release)?)?;
        fallen.marked_bad("checks");
        fallen.guard_said("check: policy");
        let transcript = fallen.machine.vm.transcript();
        let trial = transcript.boots()[0].iter().map(|line| line.text.clone()).collect::<Vec<_>>().join("\n");
        ensure!(trial.contains("policy"), "the console does not say what failed:\n{trial}");
        Ok(())
    })
}

#[test]
fn a_healthy_trial_with_a_read_only_var_is_committed() -> Result<()> {
    commits("var-read-only", Var::ReadOnly)
}

#[test]
fn a_healthy_trial_with_a_full_var_is_committed() -> Result<()> {
    commits("var-full", Var::Full)
}

#[test]
fn a_healthy_trial_with_a_lost_var_is_committed() -> Result<()> {
    commits("var-lost", Var::Lost)
}

#[test]
fn a_failed_trial_with_a_read_only_var_falls_back() -> Result<()> {
    falls_back("var-read-only-failing", Var::ReadOnly)
}

#[test]
fn a_failed_trial_with_a_full_var_falls_back() -> Result<()> {
    falls_back("var-full-failing", Var::Full)
}

#[test]
fn a_failed_trial_with_a_lost_var_falls_back() -> Result<()> {
    falls_back("var-lost-failing", Var::Lost)
}

#[test]
fn after_a_failed_trial_the_old_version_finds_its_database_hlt_3() -> Result<()> {
    scenario("contract", |lab| {
        let mut machine = Off::new(lab)?.start()?;
        machine.vm.wait_boot(BOOT_TIMEOUT)?;
        agents_run(&mut machine)?;
        assert_eq!(database(&mut machine)?, "1");

        // A version that keeps the contract: its trial leaves the database alone, and starts no agents.
        let keeps = Release::new("2.0.0").without_sandbox_check().with_ralphd("policy-not-loaded").given_up_at_once();
        try_and_fall_back(&mut machine, lab, &keeps)?;
        assert_eq!(database(&mut machine)?, "1");
        agents_run(&mut machine)?;
        assert_eq!(machine.vm.ok("systemctl is-active ralphd.service")?.trim(), "active");
        assert_eq!(update(&machine.explain()?, 2)?["end"], "marked-bad");

        // One that breaks it, to see that this would be seen: the old version cannot open what it left.
        let breaks = Release::new("3.0.0")
            .without_sandbox_check()
            .with_ralphd("policy-not-loaded\nmigrates-early")
            .given_up_at_once();
        try_and_fall_back(&mut machine, lab, &breaks)?;
        assert_eq!(database(&mut machine)?, "3");
        assert_eq!(machine.vm.run("systemctl is-active ralphd.service")?.stdout.trim(), "failed");
        let log = machine.vm.ok("journalctl -b -u ralphd.service -o cat")?;
        ensure!(log.contains("cannot be opened"), "{log}");
        // Bad as that is, it is no reboot loop.
        assert_eq!(machine.settled_status()?["slots"]["a"]["state"], "committed");
        Ok(())
    })
}

/// Applies `release`, and waits until slot A is back.
fn try_and_fall_back(machine: &mut Machine, lab: &Lab, release: &Release) -> Result<()> {
    let url = machine.serve(lab, release)?;
    machine.vm.ok(&format!("ralph-update apply {url}"))?;
    let trial = machine.vm.reboot()?;
    assert_eq!(trial.slot, "b");
    ensure!(machine.vm.run("[ -e /run/ralphd/agents ]")?.code != 0, "agents run during a trial");
    machine.vm.wait_slot("a").context("it does not fall back")?;
    machine.settled_status().map(drop)
}

fn database(machine: &mut Machine) -> Result<String> {
    Ok(machine.vm.ok("cat /var/lib/ralphd/db")?.trim().to_owned())
}

/// They start a moment after the health check has said that they may.
fn agents_run(machine: &mut Machine) -> Result<()> {
    machine.vm.ok("until [ -e /run/ralphd/agents ]; do sleep 0.2; done").map(drop)
}
