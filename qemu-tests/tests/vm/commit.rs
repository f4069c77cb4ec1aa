//! What a commit takes, and who else may not commit: healthy trials with both sandbox runners, an ESP that cannot be
//! written, systemd's own way to commit; and machines with nothing better, which must stay up.

use std::time::Duration;

use crate::common::{self, A, commits, fallen, update};
use crate::scenario;
use anyhow::{Context, Result, ensure};
use qemu_tests::guest::Release;
use qemu_tests::machine::{Machine, Off};
use qemu_tests::vm::BOOT_TIMEOUT;
use serde_json::Value;

#[test]
fn a_healthy_trial_is_committed_and_costs_so_much() -> Result<()> {
    scenario("healthy-trial", |lab| {
        let (mut machine, update) = commits(lab, &Release::new("2.0.0"))?;
        let details = update["end_details"].to_string();
        ensure!(details.contains("sha256:"), "the policy's digest is not recorded (HLT-6): {details}");
        let record = evidence(&mut machine, "g2-try1")?;
        assert_eq!(record["verdict"], "commit");
        print_costs(&mut machine)?;
        // The watchdog is armed (HLT-63).
        assert_eq!(machine.vm.ok("cat /sys/class/watchdog/watchdog0/state")?.trim(), "active");
        // The guard's process has been told, and is gone (GRD-22).
        machine.vm.ok("! pgrep -f '^@ralph-boot-guard'")?;

        // Every wall, then each of them left out, with systemd, kernel and tools of the guest (SBX-22).
        let test = machine.vm.run("systemd-run --quiet --pipe --wait -p Delegate=yes ralph-sandbox self-test")?;
        eprintln!("{}", test.stdout);
        assert_eq!(test.code, 0, "{}{}", test.stdout, test.stderr);
        Ok(())
    })
}

/// The evidence of a boot (HLT-40).
fn evidence(machine: &mut Machine, name: &str) -> Result<Value> {
    let text = machine.vm.ok(&format!("cat /var/lib/ralph-update/evidence/{name}.json"))?;
    serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
}

/// Prints what the health check costs: time from `ralphd` ready to the commit, and CPU.
fn print_costs(machine: &mut Machine) -> Result<()> {
    let text = machine.vm.ok("systemctl show -P ActiveEnterTimestampMonotonic ralphd.service
         systemctl show -P CPUUsageNSec ralph-health-check.service
         stat -c %.3Z /run/ralphos/committed
         date +%s.%N
         cut -d ' ' -f 1 /proc/uptime")?;
    let numbers = text.lines().map(str::parse::<f64>).collect::<Result<Vec<_>, _>>();
    let numbers = numbers.with_context(|| format!("not numbers: {text}"))?;
    let [ready, cpu, committed, now, uptime] = numbers[..] else { anyhow::bail!("not five numbers: {text}") };
    let committed = committed - (now - uptime);
    eprintln!(
        "ralphd ready to commit: {:.1} s (stable-for is 2 s here); CPU of the health check: {:.2} s (emulated)",
        committed - ready / 1e6,
        cpu / 1e9
    );
    let checks = machine.vm.ok("journalctl -b -u ralph-health-check.service -o cat")?;
    eprintln!("{checks}");
    Ok(())
}

#[test]
fn ralphds_own_sandbox_is_the_one_that_is_tried_where_it_is_offered_hlt_7() -> Result<()> {
    scenario("ralphds-sandbox", |lab| {
        let (mut machine, _) = commits(lab, &Release::new("2.0.0").with_ralphd("sandbox-offered"))?;
        let record = evidence(&mut machine, "g2-try1")?;
        let checks = record["checks"].as_array().context("no checks")?;
        let sandbox = checks.iter().find(|check| check["name"] == "sandbox").context("no check sandbox")?;
        assert_eq!(sandbox["verdict"], "passed");
        ensure!(sandbox["detail"].to_string().contains("ralphd"), "{sandbox:#}");
        Ok(())
    })
}

#[test]
fn a_wanted_check_changes_no_verdict_and_leaves_no_process_behind_hlt_20_hlt_33() -> Result<()> {
    let stubborn = r#"
[check.stubborn]
kind = "command"
level = "wanted"
command = ["/bin/sh", "-c", "trap '' TERM; setsid sh -c 'trap \"\" TERM; while :; do sleep 7777; done' & while :; do sleep 7777; done"]
deadline = "2s"
"#;
    scenario("wanted-stubborn", |lab| {
        let (mut machine, _) = commits(lab, &Release::new("2.0.0").with_checks("60-stubborn", stubborn))?;
        machine.vm.ok("! pgrep -f '[s]leep 7777'")?;
        Ok(())
    })
}

#[test]
fn systemds_own_way_to_commit_is_noticed_loudly_hlt_38() -> Result<()> {
    scenario("bless-boot", |lab| {
        let (machine, _) = commits(lab, &Release::new("2.0.0").with_bless_boot())?;
        let transcript = machine.vm.transcript();
        let warned = transcript.lines().iter().find(|line| line.text.contains("WARNING"));
        let warned = warned.with_context(|| format!("no warning:\n{}", transcript.last_boot()))?;
        ensure!(warned.text.contains("bless-boot"), "{}", warned.text);
        Ok(())
    })
}

#[test]
fn an_esp_that_cannot_be_written_is_no_commit_hlt_31() -> Result<()> {
    let unit = "[Unit]\nDefaultDependencies=no\nBefore=sysinit.target\n\
        [Service]\nType=oneshot\nExecStart=/usr/sbin/blockdev --setro /dev/vda1\n";
    let release = Release::new("2.0.0").with_unit("esp-read-only.service", "sysinit.target", unit);
    scenario("esp-read-only", |lab| {
        let fallen = fallen(Off::new(lab)?.stage(&release)?.one_try()?.start()?)?;
        fallen.ended("fell-back");
        fallen.failed(&[("commit", "commit")]);
        Ok(())
    })
}

#[test]
fn a_soft_reboot_of_a_trial_proves_nothing_hlt_37() -> Result<()> {
    scenario("soft-reboot", |lab| {
        // It fails and stays up, and is healthy the next time: what `/var` says goes before the image's own word.
        let release = Release::new("2.0.0")
            .with_ralphd("policy-not-loaded")
            .with_checks("00-policy", "[policy]\non-failure = \"stay\"\n");
        let mut machine = Off::new(lab)?.stage(&release)?.start()?;
        machine.vm.wait_boot(BOOT_TIMEOUT)?;
        stays(&mut machine)?;
        machine.vm.ok("mkdir -p /var/lib/ralphd && echo ready > /var/lib/ralphd/behave")?;

        machine.vm.start_script("systemctl soft-reboot")?;
        machine.vm.wait_boot(BOOT_TIMEOUT)?;
        let status = machine.settled_status()?;
        assert_eq!((&status["booted"], &status["on_trial"]), (&"b".into(), &true.into()), "{status:#}");
        assert_eq!(machine.entries()?, [A, "ralphos-b-g2+2-1.conf"]);
        assert_eq!(machine.vm.boots(), 1, "that was no soft reboot");

        // Not by `systemctl reboot`: after a soft reboot it waits 50 s for a logind that the guest has no use for.
        machine.vm.start_script("systemctl start --no-block --job-mode=replace-irreversibly reboot.target")?;
        machine.vm.wait_boot(BOOT_TIMEOUT)?;
        common::committed(&mut machine)?;
        assert_eq!(machine.vm.boots(), 2);
        Ok(())
    })
}

#[test]
fn two_bad_slots_are_no_reboot_loop_and_an_update_is_taken_hlt_30_row_7() -> Result<()> {
    scenario("both-bad", |lab| {
        let release = Release::new("2.0.0").with_ralphd("policy-not-loaded").given_up_at_once();
        let off = Off::new(lab)?.stage(&release)?.rename(A, "ralphos-a-g1+0-3.conf")?;
        let mut machine = off.rename("ralphos-b-g2+3-0.conf", "ralphos-b-g2+0-3.conf")?.start()?;
        assert_eq!(machine.vm.wait_boot(BOOT_TIMEOUT)?.slot, "b");
        stays(&mut machine)?;
        let explained = machine.explain()?;
        assert_eq!(explained["running"]["slot"], "b");
        let first = explained["advice"][0]["command"].to_string();
        ensure!(first.contains("apply"), "{explained:#}");
        for refused in ["rollback", "reject b"] {
            let ran = machine.vm.run(&format!("ralph-update {refused}"))?;
            assert_eq!(ran.code, 3, "{refused}: {}{}", ran.stdout, ran.stderr);
        }

        let url = machine.serve(lab, &Release::new("3.0.0"))?;
        machine.vm.ok(&format!("ralph-update apply {url}"))?;
        assert_eq!(machine.vm.reboot()?.slot, "a");
        let status = machine.settled_status()?;
        assert_eq!(status["slots"]["a"]["state"], "committed", "{status:#}");
        assert_eq!(status["slots"]["a"]["version"], "3.0.0");
        Ok(())
    })
}

#[test]
fn a_committed_slot_that_fails_is_not_rebooted_hlt_30_row_10() -> Result<()> {
    scenario("committed-failing", |lab| {
        // Slot A is whole: there would be something to reboot into.
        let release = Release::new("2.0.0").with_ralphd("policy-not-loaded").given_up_at_once();
        let mut machine = Off::new(lab)?.stage(&release)?.commit()?.start()?;
        assert_eq!(machine.vm.wait_boot(BOOT_TIMEOUT)?.slot, "b");
        stays(&mut machine)?;
        assert_eq!(machine.entries()?, [A, "ralphos-b-g2.conf"]);
        let explained = machine.explain()?;
        assert_eq!(explained["running"]["slot"], "b");
        assert_eq!(explained["next_boot"]["slot"], "b");
        assert_eq!(update(&explained, 2)?["end"], "committed");
        // Agents may run: it is committed all the same (HLT-39).
        machine.vm.ok("[ -e /run/ralphos/committed ]")?;
        Ok(())
    })
}

/// The health check has failed, and the machine stays up.
fn stays(machine: &mut Machine) -> Result<()> {
    machine.vm.run("systemctl is-system-running --wait")?;
    let result = machine.vm.ok("systemctl show -P Result ralph-health-check.service")?;
    assert_eq!(result.trim(), "exit-code");
    std::thread::sleep(Duration::from_secs(5));
    machine.vm.ok("true")?;
    assert_eq!(machine.vm.boots(), 1);
    Ok(())
}
