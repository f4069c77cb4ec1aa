//! `/var` is a convenience (HLT-40): read-only, full or lost, a healthy trial is committed, and a failed one falls back;
//! what failed is then told from the guard's record.

mod common;

use anyhow::{Result, ensure};
use common::{committed, fallen};
use qemu_tests::guest::{Initrd, Release};
use qemu_tests::lab::{Lab, scenario};
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
        let mut machine = var.trial(lab, Release::new("2.0.0"))?;
        assert_eq!(machine.vm.wait_boot(BOOT_TIMEOUT)?.slot, "b");
        committed(&mut machine)?;
        Ok(())
    })
}

fn falls_back(name: &str, var: Var) -> Result<()> {
    scenario(name, |lab| {
        let release = Release::new("2.0.0").with_ralphd("policy-not-loaded").given_up_at_once();
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
