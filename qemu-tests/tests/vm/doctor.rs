//! The doctor on a machine that runs: the firmware's own variables, the disk under the running system, the mounted ESP
//! (specs/doctor.md).

use crate::scenario;
use anyhow::{Context, Result};
use qemu_tests::guest::Release;
use qemu_tests::machine::{Machine, Off};
use qemu_tests::setup::{command, run};
use qemu_tests::vm::BOOT_TIMEOUT;
use serde_json::Value;

const DEFAULT: &str = "/sys/firmware/efi/efivars/LoaderEntryDefault-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// What the doctor says, as `severity id`, and the whole of it.
fn doctor(machine: &mut Machine, more: &str, code: i32) -> Result<(Vec<String>, Value)> {
    let ran = machine.vm.run(&format!("ralph-update --json doctor {more}"))?;
    assert_eq!(ran.code, code, "{}{}", ran.stdout, ran.stderr);
    let said: Value = serde_json::from_str(&ran.stdout).with_context(|| format!("not JSON: {}", ran.stdout))?;
    let findings = said["findings"].as_array().context("no findings")?;
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let ids = findings.iter().map(|f| format!("{} {}", text(f, "severity"), text(f, "id"))).collect();
    Ok((ids, said))
}

/// A script that sets `LoaderEntryDefault`, kept over reboots: attributes and UTF-16 in one write.
fn set_default(pattern: &str) -> String {
    let text = format!("{pattern}\0");
    let bytes = [7, 0, 0, 0].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes));
    let octal: String = bytes.map(|byte| format!("\\{byte:03o}")).collect();
    format!("printf '{octal}' > /run/variable && dd if=/run/variable of={DEFAULT} bs=4096")
}

#[test]
fn the_doctor_repairs_a_running_machine_doc_20() -> Result<()> {
    scenario("doctor", |lab| {
        let off = Off::new(lab)?.stage(&Release::new("2.0.0").without_sandbox_check())?.commit()?;
        let disk = off.disk.clone();
        let mut machine = off.start()?;
        assert_eq!(machine.vm.wait_boot(BOOT_TIMEOUT)?.slot, "b");
        machine.settled_status()?;
        let (well, said) = doctor(&mut machine, "", 0)?;
        assert!(!well.iter().any(|id| id.starts_with("danger")), "{said:#}");
        assert!(!well.contains(&"warning watchdog-absent".to_owned()), "{said:#}");
        assert_eq!(said["left_out"].as_array().map(Vec::len), Some(0), "{said:#}");
        eprintln!("a healthy machine: {well:?}");

        // Somebody chose a system by hand, twice, and the disk lost its last sector.
        machine.vm.ok(&set_default("ralphos-b*"))?;
        machine.vm.ok(&format!("! rm -f {DEFAULT}")).context("the kernel should protect it")?;
        machine.vm.ok("mkdir -p /run/esp && mount -t vfat /dev/vda1 /run/esp
             printf 'default ralphos-b*\\n' >> /run/esp/loader/loader.conf && umount /run/esp
             dd if=/dev/zero of=/dev/vda bs=512 seek=$(( $(blockdev --getsz /dev/vda) - 1 )) count=1 conv=fsync")?;
        let (ill, said) = doctor(&mut machine, "", 6)?;
        for id in ["danger default-variable", "danger default-in-conf", "warning gpt-backup-damaged"] {
            assert!(ill.contains(&id.to_owned()), "{id}: {said:#}");
        }
        let url = machine.serve(lab, &Release::new("3.0.0").without_sandbox_check())?;
        let refused = machine.vm.run(&format!("ralph-update apply {url}"))?;
        assert_eq!(refused.code, 3, "{}", refused.stderr);
        assert!(refused.stderr.contains("`ralph-update doctor --fix`"), "{}", refused.stderr);

        let (left, said) = doctor(&mut machine, "--fix", 0)?;
        let steps = said["repaired"].as_array().context("nothing repaired")?;
        let steps: Vec<&str> = steps.iter().filter_map(|step| step["id"].as_str()).collect();
        assert_eq!(steps, ["gpt-backup-damaged", "default-in-conf", "default-variable"], "{said:#}");
        assert_eq!(left, well, "{said:#}");
        machine.vm.ok(&format!("! test -e {DEFAULT}"))?;

        // The firmware has forgotten it, too, and the update is tried.
        machine.vm.ok(&format!("ralph-update apply {url}"))?;
        assert_eq!(machine.vm.reboot()?.slot, "a");
        machine.vm.ok(&format!("! test -e {DEFAULT}"))?;
        assert_eq!(machine.settled_status()?["slots"]["a"]["state"], "committed");
        doctor(&mut machine, "", 0)?;
        machine.vm.power_off()?;
        let verified = String::from_utf8_lossy(&run(command("sgdisk").arg("-v").arg(disk))?).into_owned();
        assert!(verified.contains("No problems found"), "{verified}");
        Ok(())
    })
}
