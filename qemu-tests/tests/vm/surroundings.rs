//! Trials in surroundings that are not the usual ones: started by another kernel, with an ESP that the system mounts,
//! without EFI variables.

use crate::common::{A, commits};
use crate::{ARCH, scenario};
use anyhow::{Context, Result, ensure};
use qemu_tests::arch::Arch;
use qemu_tests::guest::Release;
use qemu_tests::machine::{Machine, Off};
use qemu_tests::vm::BOOT_TIMEOUT;
use serde_json::Value;

/// A version whose `ralphd` has to start, and nothing else: what is tried here is what comes after the checks.
fn quickly_judged() -> Release {
    let check = "[check.ralphd]\nkind = \"unit\"\nunit = \"ralphd.service\"\nstable-for = \"1s\"\n";
    Release::new("2.0.0").with_checks("50-ralphos", check)
}

#[test]
fn a_kexec_into_a_trial_is_no_trial_grd_13_hlt_37() -> Result<()> {
    // Passes where a kernel started this one, and nowhere else: the boot by the firmware comes to no verdict, and nothing
    // but its origin keeps the other from a commit.
    let trace = match ARCH {
        Arch::X86_64 => r#""-qx", "208", "/proc/sys/kernel/bootloader_type""#,
        Arch::Aarch64 => r#""-qa", "linux,initrd-start", "/sys/firmware/fdt""#,
    };
    let check = &format!(
        "[check.kexec]\nkind = \"command\"\ncommand = [\"/usr/bin/grep\", {trace}]\n\
         tries = 100\ninterval = \"3s\"\ndeadline = \"5min\"\n"
    );
    let trial = "ralphos-b-g2+2-1.conf";
    scenario("kexec", |lab| {
        let release = quickly_judged().with_checks("60-kexec", check);
        let mut machine = Off::new(lab)?.stage(&release)?.start()?;
        assert_eq!(machine.vm.wait_boot(BOOT_TIMEOUT)?.slot, "b");
        assert_eq!(machine.entries()?, [A, trial]);
        machine.vm.ok("[ -e /run/ralphos/trial ] && pgrep -f '^@ralph-boot-guard'")?;
        let record = machine.esp.read("ralphos/guard")?;

        // It is busy as long as the health check has it mounted for writing.
        machine.vm.ok("set -e
             mkdir /run/payload
             until mount -o ro /dev/vda1 /run/payload; do sleep 0.2; done
             cd /run/payload/ralphos/b
             kexec --load g2-linux --initrd=g2-initrd --command-line=\"$(cat /proc/cmdline)\"
             cd /
             umount /run/payload")?;
        machine.vm.start_script("systemctl start --no-block --job-mode=replace-irreversibly kexec.target")?;
        assert_eq!(machine.vm.wait_boot(BOOT_TIMEOUT)?.slot, "b");
        let status = machine.settled_status()?;
        assert_eq!((&status["booted"], &status["on_trial"]), (&"b".into(), &true.into()), "{status:#}");
        assert_eq!(machine.vm.boots(), 1, "that was no kexec");

        // Not counted, by the loader or the guard; no deadline of the guard or of systemd; not committed, not given up.
        assert_eq!(machine.entries()?, [A, trial]);
        assert_eq!(machine.esp.read("ralphos/guard")?, record);
        machine.vm.ok("[ ! -e /run/ralphos/trial ] && ! pgrep -f '^@ralph-boot-guard'")?;
        machine.vm.ok("[ ! -e /run/systemd/system/boot-complete.target.d ] && [ ! -e /run/ralphos/committed ]")?;
        ensure!(machine.vm.ok("dmesg")?.contains("started by another one: the boot is not counted"));
        let said = machine.vm.ok("journalctl -b -u ralph-health-check.service -o cat")?;
        ensure!(said.contains("started by kexec"), "{said}");
        let evidence: Value = serde_json::from_str(&machine.vm.ok("cat /var/lib/ralph-update/evidence/g2-try1.json")?)?;
        assert_eq!(evidence["verdict"], "report", "{evidence:#}");
        let checks = evidence["checks"].as_array().context("no checks")?;
        assert_eq!(checks.len(), 2);
        ensure!(checks.iter().all(|check| check["verdict"] == "passed"), "{evidence:#}");
        Ok(())
    })
}

/// `systemd.mount(5)` of the ESP.
fn mount_unit(point: &str) -> String {
    format!("[Mount]\nWhat=/dev/vda1\nWhere={point}\nType=vfat\nOptions=umask=0077,nodev,nosuid,noexec\n")
}

#[test]
fn an_esp_that_the_system_has_mounted_is_used_and_left_ent_25() -> Result<()> {
    scenario("esp-mounted", |lab| {
        let release = quickly_judged().with_unit("boot.mount", "local-fs.target", &mount_unit("/boot"));
        let (mut machine, _) = commits(lab, &release)?;
        assert_eq!(machine.vm.ok("ls /boot/loader/entries")?, format!("{A}\nralphos-b-g2.conf\n"));
        given_up_and_left(&mut machine, "/boot")
    })
}

#[test]
fn an_esp_that_the_system_mounts_when_asked_for_is_committed_on_all_the_same_ent_25() -> Result<()> {
    scenario("esp-automounted", |lab| {
        let automount = "[Automount]\nWhere=/efi\n";
        let release = quickly_judged()
            .with_file("usr/lib/systemd/system/efi.mount", &mount_unit("/efi"))
            .with_unit("efi.automount", "local-fs.target", automount)
            .with_file("efi/.keep", "");
        let (mut machine, _) = commits(lab, &release)?;
        // Nobody has asked: it was committed beside the system's mount.
        machine.vm.ok("grep ' /efi autofs ' /proc/mounts && ! grep ' /efi vfat ' /proc/mounts")?;
        assert_eq!(machine.vm.ok("ls /efi/loader/entries")?, format!("{A}\nralphos-b-g2.conf\n"));
        given_up_and_left(&mut machine, "/efi")
    })
}

/// Another change of the names, while the system has the ESP mounted at `point`: it is seen there and on the disk, and
/// the mount stays.
fn given_up_and_left(machine: &mut Machine, point: &str) -> Result<()> {
    let mounted =
        format!("systemctl is-active $(systemd-escape --path --suffix=mount {point}) && grep {point} /proc/mounts");
    let before = machine.vm.ok(&mounted)?;
    machine.vm.ok("ralph-update rollback")?;
    assert_eq!(machine.vm.ok(&mounted)?, before);
    assert_eq!(machine.vm.ok(&format!("ls {point}/loader/entries"))?, format!("{A}\nralphos-b-g2+0-0.conf\n"));
    assert_eq!(machine.entries()?, [A, "ralphos-b-g2+0-0.conf"]);
    machine.vm.ok("[ -z \"$(ls -A /run/ralph-update/esp 2>/dev/null)\" ]")?;
    Ok(())
}

#[test]
fn a_trial_that_cannot_read_the_efi_variables_is_committed_all_the_same_hlt_30_row_2() -> Result<()> {
    scenario("no-efi-variables", |lab| {
        let (mut machine, _) = commits(lab, &quickly_judged().with_option("efi=noruntime"))?;
        machine.vm.ok("[ -d /sys/firmware/efi ] && [ -z \"$(ls -A /sys/firmware/efi/efivars)\" ]")?;
        ensure!(machine.vm.ok("dmesg")?.contains("it is not known whether another system would boot"));
        machine.vm.ok("[ -e /run/ralphos/committed ] && ! pgrep -f '^@ralph-boot-guard'")?;
        let shown = machine.vm.ok("ralph-update status")?;
        ensure!(shown.contains("slot b: committed, booted, version 2.0.0"), "{shown}");
        assert_eq!(machine.status()?["next_boot"]["slot"], "b");
        Ok(())
    })
}
