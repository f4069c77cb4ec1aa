//! Boots that never reach a verdict of the health check (specs/boot-guard.md): hangs of initrd and init, panics,
//! corruption, and users who do not wait. Where three tries would be three times the same, one is left.

use std::time::Duration;

use crate::common::{self, A, HANG, committed, fallen};
use crate::scenario;
use anyhow::{Context, Result, ensure};
use qemu_tests::guest::{Initrd, Release};
use qemu_tests::machine::{Machine, Off};
use qemu_tests::vm::BOOT_TIMEOUT;
use serde_json::Value;

/// The shortest deadline there is (GRD-21).
const DEADLINE: &str = "ralph.deadline=30";

#[test]
fn an_initrd_that_hangs_is_ended_by_the_deadline_grd_21() -> Result<()> {
    let release = Release::new("2.0.0").with_initrd(Initrd::HangsAfterGuard).with_option(DEADLINE);
    deadline_ends("initrd-hangs-after-guard", &release)
}

#[test]
fn an_init_that_hangs_before_the_health_check_is_ended_by_the_deadline_grd_21() -> Result<()> {
    let release = Release::new("2.0.0").with_unit("hang.service", "sysinit.target", HANG).with_option(DEADLINE);
    deadline_ends("init-hangs", &release)
}

#[test]
fn a_missing_health_check_is_ended_by_the_deadline_grd_21() -> Result<()> {
    let release = Release::new("2.0.0").without("usr/bin/ralph-health-check").with_option(DEADLINE);
    deadline_ends("no-health-check", &release)
}

#[test]
fn a_hang_where_the_efi_variables_cannot_be_read_is_ended_by_the_deadline_grd_12() -> Result<()> {
    let release = Release::new("2.0.0").without("usr/bin/ralph-health-check");
    deadline_ends("hangs-no-efi-variables", &release.with_option(DEADLINE).with_option("efi=noruntime"))
}

/// The only try of `release` comes to no verdict: the guard restarts the machine, and remembers why.
fn deadline_ends(name: &str, release: &Release) -> Result<()> {
    scenario(name, |lab| {
        let mut fallen = fallen(Off::new(lab)?.stage(release)?.one_try()?.start()?)?;
        fallen.ended("fell-back");
        fallen.guard_said("deadline");
        assert_eq!(fallen.machine.vm.boots(), 2);
        assert_eq!(common::events(&mut fallen.machine, "trial-failed")?, 1);
        assert_eq!(fallen.machine.entries()?, [A, "ralphos-b-g2+0-1.conf"]);
        Ok(())
    })
}

#[test]
fn an_initrd_that_hangs_before_the_guard_costs_a_try_for_each_reset_and_is_refused_after_three_updates_upd_45()
-> Result<()> {
    let release = Release::new("2.0.0").with_initrd(Initrd::HangsBeforeGuard);
    scenario("inconclusive-three-times", |lab| {
        let tries = ["ralphos-b-g2+2-1.conf", "ralphos-b-g2+1-2.conf", "ralphos-b-g2+0-3.conf"];
        let mut machine = inconclusive(Off::new(lab)?.stage(&release)?.start()?, &tries, 1)?;
        for times in [2, 3] {
            // One try in place of three.
            let named = |counter| format!("ralphos-b-g{}{counter}.conf", times + 1);
            let off = Off::unplugged(lab, machine)?.stage(&release)?.rename(&named("+3-0"), &named("+1-0"))?;
            machine = inconclusive(off.start()?, &[&named("+0-1")], times)?;
        }

        let url = machine.serve(lab, &release)?;
        let before = machine.entries()?;
        let refused = machine.vm.run(&format!("ralph-update --json apply {url}"))?;
        assert_eq!(refused.code, 3, "{}{}", refused.stdout, refused.stderr);
        let told: Value = serde_json::from_str(&refused.stdout).context("not JSON")?;
        assert_eq!(told["reason"], "inconclusive", "{told:#}");
        assert_eq!(machine.entries()?, before);

        machine.vm.ok(&format!("ralph-update apply --retry-failed {url}"))?;
        assert_eq!(machine.entries()?, [A, "ralphos-b-g5+3-0.conf"]);
        assert_eq!(common::events(&mut machine, "retried")?, 1);
        Ok(())
    })
}

/// The trial of a machine that was switched on hangs before the guard, in each try until the plug is pulled; the loader's counting gives these
/// names. Gives the machine on slot A, which has noticed that for the `times`th time.
fn inconclusive(mut machine: Machine, tries: &[&str], times: u32) -> Result<Machine> {
    for name in tries {
        machine.vm.wait_console("hangs before the guard, as told")?;
        assert_eq!(machine.entries()?, [A, name]);
        // Nothing but a watchdog or somebody at the switch ends this one (GRD-40).
        machine.vm.power_cycle()?;
    }
    assert_eq!(machine.vm.wait_boot(BOOT_TIMEOUT)?.slot, "a");
    let status = machine.settled_status()?;
    assert_eq!(
        (&status["slots"]["b"]["state"], &status["next_boot"]["slot"]),
        (&"bad".into(), &"a".into()),
        "{status:#}"
    );
    assert_eq!(common::events(&mut machine, "fell-back")?, times as usize);
    let update = common::update(&machine.explain()?, times + 1)?;
    assert_eq!((&update["end"], &update["inconclusive"]), (&"inconclusive".into(), &times.into()), "{update:#}");
    assert_eq!(update["tries"].as_array().map(Vec::len), Some(tries.len()), "{update:#}");
    Ok(machine)
}

#[test]
fn an_init_that_stops_altogether_is_ended_by_the_watchdog_hlt_63() -> Result<()> {
    // PID 1 cannot be stopped by a signal, but frozen with its control group. The deadline is the default, ten minutes.
    let freeze = "[Unit]\nDefaultDependencies=no\nBefore=sysinit.target\n\
        [Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo 1 > /sys/fs/cgroup/init.scope/cgroup.freeze'\n";
    let release = Release::new("2.0.0").with_unit("freeze.service", "sysinit.target", freeze);
    scenario("init-frozen", |lab| {
        let fallen = fallen(Off::new(lab)?.stage(&release)?.one_try()?.start()?)?;
        // Whatever ends a machine from outside leaves nothing behind.
        fallen.ended("inconclusive");
        assert_eq!(fallen.machine.vm.boots(), 2);
        Ok(())
    })
}

#[test]
fn a_user_who_power_cycles_twice_gets_a_healthy_trial_committed_on_the_third() -> Result<()> {
    scenario("power-cycles", |lab| {
        let mut machine = Off::new(lab)?.stage(&Release::new("2.0.0").without_sandbox_check())?.start()?;
        for name in ["ralphos-b-g2+2-1.conf", "ralphos-b-g2+1-2.conf"] {
            assert_eq!(machine.vm.wait_boot(BOOT_TIMEOUT)?.slot, "b");
            assert_eq!(machine.entries()?, [A, name]);
            machine.vm.power_cycle()?;
        }
        assert_eq!(machine.vm.wait_boot(BOOT_TIMEOUT)?.slot, "b");
        let update = committed(&mut machine)?;
        let tries = update["tries"].as_array().map_or(0, Vec::len);
        assert_eq!(tries, 3, "{update:#}");
        // HLT-3: what the version before could not read was made after the commit.
        machine.vm.ok("until [ -e /run/ralphd/agents ]; do sleep 0.2; done")?;
        assert_eq!(machine.vm.ok("cat /var/lib/ralphd/db")?.trim(), "2");
        Ok(())
    })
}

#[test]
fn corruption_on_trial_restarts_the_machine_hlt_62() -> Result<()> {
    scenario("corrupt-trial", |lab| {
        let machine = Off::new(lab)?.stage(&Release::new("2.0.0"))?.one_try()?.corrupt("SYSTEM_B")?.start()?;
        let fallen = fallen(machine)?;
        assert_eq!(fallen.machine.entries()?, [A, "ralphos-b-g2+0-1.conf"]);
        assert_eq!(fallen.machine.vm.boots(), 2);
        Ok(())
    })
}

#[test]
fn a_committed_slot_that_can_boot_no_more_is_given_up_for_the_other_grd_12() -> Result<()> {
    scenario("corrupt-committed", |lab| {
        let off = Off::new(lab)?.stage(&Release::new("2.0.0"))?.commit()?;
        assert_eq!(off.esp.entries()?, [A, "ralphos-b-g2.conf"]);
        let mut fallen = fallen(off.corrupt("SYSTEM_B")?.start()?)?;
        fallen.marked_bad("guard");
        // Five boots are granted, the sixth is given up, the seventh is the other slot.
        assert_eq!(fallen.machine.vm.boots(), 7);
        assert_eq!(common::events(&mut fallen.machine, "boot-failed")?, 1);
        let details = fallen.update["end_details"].to_string();
        ensure!(details.contains("guard"), "{details}");
        Ok(())
    })
}

#[test]
fn a_slot_that_can_boot_no_more_and_is_alone_stays_where_it_is_grd_30() -> Result<()> {
    scenario("corrupt-alone", |lab| {
        let machine = Off::new(lab)?.corrupt("SYSTEM_A")?.start()?;
        machine.vm.wait_console("nothing better would boot")?;
        // A loop would show: firmware and initrd take a few seconds.
        std::thread::sleep(Duration::from_secs(10));
        assert_eq!(machine.vm.boots(), 1);
        assert_eq!(machine.entries()?, [A]);
        Ok(())
    })
}
