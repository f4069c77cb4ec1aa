//! Unified kernel images: where nothing is enforced, and under firmware that enforces Secure Boot (ENT-15, ENT-16, SEC-1).

use anyhow::{Context, Result, ensure};
use qemu_tests::guest::{Initrd, Release, Stub, loader_252};
use qemu_tests::lab::Lab;
use qemu_tests::machine::{Machine, Off};
use qemu_tests::secure_boot::{SecureKeys, Signer};
use qemu_tests::vm::BOOT_TIMEOUT;
use serde_json::Value;

use crate::common::{A, back_on_a, commits, fallen};
use crate::{scenario, secure_scenario};

const SECURE_BOOT: &str = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
const STAGED: &str = "loader/entries/ralphos-b-g2+1-0.conf";

/// A version whose unified image the firmware starts.
pub fn signed(version: &str) -> Release {
    Release::new(version).with_unified(Stub::V257, Some(Signer::Ours))
}

/// What `ralph-update apply` says of an image, which it must not stage.
fn refused(machine: &mut Machine, url: &str, code: i32) -> Result<Value> {
    let told = json(machine, &format!("apply {url}"), code)?;
    assert_eq!(machine.entries()?, [A]);
    Ok(told)
}

#[test]
fn what_the_firmware_would_refuse_is_not_staged_and_what_it_starts_is_committed_sec_1() -> Result<()> {
    secure_scenario("signed-update", |lab| {
        let mut machine = Off::new(lab)?.start()?;
        assert_eq!(machine.vm.wait_boot(BOOT_TIMEOUT)?.slot, "a");
        machine.settled_status()?;
        assert_eq!(machine.vm.ok(&format!("od -An -tu1 -j4 {SECURE_BOOT}"))?.trim(), "1");
        for (version, signer, said) in
            [("2.0.1", None, "is not signed"), ("2.0.2", Some(Signer::Stranger), "does not trust")]
        {
            let url = machine.serve(lab, &Release::new(version).with_unified(Stub::V257, signer))?;
            let told = refused(&mut machine, &url, 1)?;
            assert_eq!((&told["reason"], &told["cause"]), (&"fenced".into(), &"kernel-not-trusted".into()), "{told:#}");
            ensure!(told["message"].as_str().is_some_and(|text| text.contains(said)), "{told:#}");
        }
        let apart = machine.serve(lab, &Release::new("2.0.3"))?;
        assert_eq!(refused(&mut machine, &apart, 3)?["reason"], "not-unified");

        let url = machine.serve(lab, &signed("2.1.0"))?;
        machine.vm.ok(&format!("ralph-update apply {url}"))?;
        // Each attempt that got as far as the EFI partition had a generation of its own (ENT-4).
        assert_eq!(machine.entries()?, [A, "ralphos-b-g4+3-0.conf"]);
        assert_eq!(machine.vm.reboot()?.slot, "b");
        let status = machine.settled_status()?;
        assert_eq!(
            (&status["booted"], &status["slots"]["b"]["state"]),
            (&"b".into(), &"committed".into()),
            "{status:#}"
        );
        assert_eq!(machine.entries()?, [A, "ralphos-b-g4.conf"]);
        // The firmware would start the other kernel, too (UPD-51).
        machine.vm.ok("ralph-update rollback")?;
        assert_eq!(machine.entries()?, [A, "ralphos-b-g4+0-0.conf"]);
        Ok(())
    })
}

#[test]
fn a_signed_trial_that_fails_goes_back() -> Result<()> {
    secure_scenario("signed-fallback", |lab| {
        let release = signed("2.0.0").with_ralphd("policy-not-loaded");
        let fallen = fallen(Off::new(lab)?.stage(&release)?.one_try()?.start()?)?;
        fallen.ended("fell-back");
        assert_eq!((fallen.trials(), fallen.machine.vm.boots()), (1, 2));
        Ok(())
    })
}

#[test]
fn an_unsigned_kernel_put_there_by_hand_is_refused_by_the_firmware_and_the_old_slot_comes_back() -> Result<()> {
    secure_scenario("unsigned-by-hand", |lab| {
        // On a disk image nobody knows what the firmware will say.
        let unsigned = Release::new("2.0.0").with_unified(Stub::V257, None);
        let machine = Off::new(lab)?.stage(&unsigned)?.one_try()?.start()?;
        // OVMF comes back to the loader by itself once it has tried everything else; others sit there until somebody pulls the plug (LDR-6).
        let fallen = fallen(machine)?;
        fallen.ended("inconclusive");
        Ok(())
    })
}

#[test]
fn a_rollback_to_a_kernel_that_was_revoked_is_refused_and_an_update_leads_out_upd_51_upd_52() -> Result<()> {
    secure_scenario("revoked", |lab| {
        let [second, third, fourth] =
            ["2.0.0", "3.0.0", "4.0.0"].map(|version| signed(version).without_sandbox_check());
        let off = Off::new(lab)?.stage(&second)?.commit()?.stage(&third)?.commit()?;
        let [second, third] = [off.unified_image(&second)?, off.unified_image(&third)?];
        let mut machine = off.start()?;
        assert_eq!(machine.vm.wait_boot(BOOT_TIMEOUT)?.slot, "a");
        machine.settled_status()?;
        let before = machine.entries()?;
        let keys = SecureKeys::get()?;
        let url = machine.serve(lab, &fourth)?;

        // What runs would not start again; what it could go back to is not to be given for an update.
        machine.vm.ok(&keys.revoke(&third)?)?;
        assert_eq!(kernel_refused(&mut machine)?, ["danger"]);
        assert_eq!(json(&mut machine, &format!("apply {url}"), 3)?["reason"], "fallback-not-whole");

        machine.vm.ok(&keys.revoke(&second)?)?;
        assert_eq!(kernel_refused(&mut machine)?, ["danger", "warning"]);
        for command in ["rollback", "reject a"] {
            let told = json(&mut machine, command, 3)?;
            assert_eq!(told["reason"], "no-fallback", "{told:#}");
            ensure!(told["message"].as_str().is_some_and(|text| text.contains("revoked")), "{told:#}");
        }
        assert_eq!(machine.entries()?, before);
        // Nothing that is installed would start any more: the update is the way out.
        machine.vm.ok(&format!("ralph-update apply {url}"))?;
        assert_eq!(machine.vm.reboot()?.slot, "b");
        let status = machine.settled_status()?;
        assert_eq!(status["slots"]["b"]["state"], "committed", "{status:#}");
        Ok(())
    })
}

/// What a command says, which ends with `code`.
pub fn json(machine: &mut Machine, command: &str, code: i32) -> Result<Value> {
    let ran = machine.vm.run(&format!("ralph-update --json {command}"))?;
    ensure!(ran.code == code, "{command}: exit code {}: {}{}", ran.code, ran.stdout, ran.stderr);
    serde_json::from_str(&ran.stdout).with_context(|| format!("not JSON: {}", ran.stdout))
}

/// How severe the doctor, who sees a danger, finds each kernel that the firmware would not start, slot A's first.
fn kernel_refused(machine: &mut Machine) -> Result<Vec<String>> {
    let diagnosis = json(machine, "doctor", 6)?;
    let findings = diagnosis["findings"].as_array().context("no findings")?;
    let refused = findings.iter().filter(|finding| finding["id"] == "kernel-refused");
    Ok(refused.filter_map(|finding| finding["severity"].as_str().map(str::to_owned)).collect())
}

/// A machine whose staged 2.0.0, with one try, somebody has changed who can write to the ESP, once it is back on slot A.
fn tampered(lab: &Lab, tamper: impl FnOnce(&Off<'_>) -> Result<()>) -> Result<Machine> {
    let off = Off::new(lab)?.stage(&signed("2.0.0"))?.one_try()?;
    tamper(&off)?;
    let mut machine = off.start()?;
    // The first that can be talked to: slot B has never come up.
    assert_eq!(machine.vm.wait_boot(BOOT_TIMEOUT)?.slot, "a");
    assert_eq!(machine.vm.boots(), 2);
    Ok(machine)
}

#[test]
fn a_signed_kernel_of_another_root_opens_none_and_the_old_slot_comes_back_ent_16() -> Result<()> {
    secure_scenario("another-root", |lab| {
        let machine = tampered(lab, |off| {
            let other = off.unified_image(&signed("3.0.0"))?;
            off.esp.copy_in(&other, "ralphos/b/g2-uki")
        })?;
        back_on_a(machine)?.guard_said("initrd: no root on the command line");
        Ok(())
    })
}

#[test]
fn kernel_options_in_the_entry_are_not_the_kernel_s_and_the_old_slot_comes_back() -> Result<()> {
    secure_scenario("tampered-option", |lab| {
        let mut machine = tampered(lab, |off| {
            let mut entry = off.esp.read(STAGED)?;
            entry.extend_from_slice(b"options init=/bin/sh rd.break\n");
            let changed = lab.path("changed.conf");
            std::fs::write(&changed, entry)?;
            off.esp.copy_in(&changed, STAGED)?;
            // This release says with which counter it started the entry, so that it is known that it counted (GRD-32 waits otherwise).
            let loader = lab.path("loader-252.efi");
            SecureKeys::get()?.sign(Signer::Ours, &loader_252(lab.arch)?, &loader)?;
            off.esp.copy_in(&loader, &lab.arch.loader_path())
        })?;
        // What nobody can read has no version, and its tries are used up.
        let status = machine.settled_status()?;
        assert_eq!((&status["booted"], &status["next_boot"]["slot"]), (&"a".into(), &"a".into()), "{status:#}");
        assert_eq!(machine.entries()?, [A, "ralphos-b-g2+0-1.conf"]);
        Ok(())
    })
}

#[test]
fn a_tampered_root_is_not_opened_and_the_old_slot_comes_back() -> Result<()> {
    secure_scenario("tampered-root", |lab| {
        let off = Off::new(lab)?.stage(&signed("2.0.0"))?.corrupt("SYSTEM_B")?;
        let fallen = fallen(off.start()?)?;
        // A unified image's entry is counted as any other.
        assert_eq!((fallen.trials(), fallen.machine.vm.boots()), (3, 4));
        // The kernel restarts at the first corrupt block, and leaves nothing behind.
        fallen.ended("inconclusive");
        Ok(())
    })
}

#[test]
fn a_unified_image_is_committed_where_nothing_is_enforced_by_any_stub() -> Result<()> {
    scenario("unified", |lab| {
        commits(lab, &Release::new("2.0.0").with_unified(Stub::V252, None))?;
        Ok(())
    })
}

#[test]
fn a_unified_image_whose_initrd_fails_goes_back_where_nothing_is_enforced() -> Result<()> {
    scenario("unified-fallback", |lab| {
        let release = Release::new("2.0.0").with_unified(Stub::V257, None).with_initrd(Initrd::Panics);
        let fallen = fallen(Off::new(lab)?.stage(&release)?.one_try()?.start()?)?;
        assert_eq!(fallen.machine.vm.boots(), 2);
        Ok(())
    })
}
