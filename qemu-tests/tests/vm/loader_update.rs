//! The boot loader's own update (specs/loader-update.md): tried once by the firmware, kept when it has started the system.

use anyhow::{Context, Result, ensure};
use qemu_tests::guest::{CarriedLoader, Release, loader_252};
use qemu_tests::lab::Lab;
use qemu_tests::machine::{Machine, Off};
use qemu_tests::secure_boot::{SecureKeys, Signer};
use qemu_tests::vm::BOOT_TIMEOUT;
use serde_json::Value;

use crate::secure_boot::{json, signed};
use crate::{scenario, secure_scenario};

/// A machine whose loader is systemd-boot 252, and whose committed system, in slot B, carries another one.
fn machine(lab: &Lab, release: &Release, old: &std::path::Path) -> Result<Machine> {
    let off = Off::new(lab)?.stage(release)?.commit()?;
    off.esp.copy_in(old, &lab.arch.loader_path())?;
    let mut machine = off.start()?;
    assert_eq!(machine.vm.wait_boot(BOOT_TIMEOUT)?.slot, "b");
    machine.settled_status()?;
    Ok(machine)
}

fn alternate(lab: &Lab) -> String {
    lab.arch.alternate_loader_path()
}

/// What `ralph-update loader` says, with this exit code.
fn asked(machine: &mut Machine, code: i32) -> Result<Value> {
    json(machine, "loader", code)
}

/// What the doctor finds about the loaders' files; it ends with this exit code.
fn found(machine: &mut Machine, code: i32) -> Result<Vec<String>> {
    let diagnosis = json(machine, "doctor", code)?;
    let findings = diagnosis["findings"].as_array().context("no findings")?;
    let ids = findings.iter().filter_map(|finding| finding["id"].as_str().map(str::to_owned));
    Ok(ids.filter(|id| ["loader-unusable", "on-alternate-loader"].contains(&id.as_str())).collect())
}

/// The release that the loader of this boot says it is.
fn booted_by(machine: &mut Machine) -> Result<String> {
    let variable = "/sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
    let text = machine.vm.ok(&format!("tr -d '\\000' < {variable}"))?;
    let release = text.split("systemd-boot ").nth(1).with_context(|| format!("no systemd-boot: {text:?}"))?;
    Ok(release.split(['.', '-']).next().unwrap_or_default().to_owned())
}

#[test]
fn a_loader_is_tried_once_then_kept_and_the_one_before_it_is_the_fallback_lup_4() -> Result<()> {
    scenario("loader-update", |lab| {
        let old = loader_252(lab.arch)?;
        let release = Release::new("2.0.0").without_sandbox_check().with_loader(CarriedLoader::V257);
        let mut machine = machine(lab, &release, &old)?;
        let old = std::fs::read(old)?;
        // The unit has staged it; the default is as it was.
        assert_eq!(booted_by(&mut machine)?, "252");
        assert_eq!(asked(&mut machine, 4)?["reason"], "loader-waits");
        assert!(machine.esp.read(&lab.arch.loader_path())? == old);
        let new = machine.esp.read(&alternate(lab))?;
        assert!(new != old);

        // The firmware tries it, it starts the system, and so it is the default.
        assert_eq!(machine.vm.reboot()?.slot, "b");
        machine.settled_status()?;
        assert_eq!(booted_by(&mut machine)?, "257");
        assert_eq!(asked(&mut machine, 4)?["reason"], "loader-current");
        assert!(machine.esp.read(&lab.arch.loader_path())? == new && machine.esp.read(&alternate(lab))? == old);
        ensure!(machine.events()?.iter().any(|event| event == "loader-updated"), "not in the history");
        // The firmware's word is still that the alternate one started this boot (DOC-12).
        ensure!(found(&mut machine, 0)?.is_empty());

        // Now from its own place. Then that is damaged, and the firmware turns to the other one by itself.
        assert_eq!(machine.vm.reboot()?.slot, "b");
        machine.settled_status()?;
        assert_eq!(booted_by(&mut machine)?, "257");
        let garbage = lab.path("garbage");
        std::fs::write(&garbage, b"no program")?;
        machine.vm.ok("sync")?;
        let off = Off::unplugged(lab, machine)?;
        off.esp.copy_in(&garbage, &lab.arch.loader_path())?;
        let mut machine = off.start()?;
        assert_eq!(machine.vm.wait_boot(BOOT_TIMEOUT)?.slot, "b");
        machine.settled_status()?;
        assert_eq!(booted_by(&mut machine)?, "252");
        assert_eq!(asked(&mut machine, 3)?["reason"], "on-alternate-loader");
        assert_eq!(found(&mut machine, 6)?, ["loader-unusable", "on-alternate-loader"]);
        assert!(machine.esp.read(&alternate(lab))? == old, "the only loader that works");
        Ok(())
    })
}

#[test]
fn a_loader_that_does_not_start_the_system_is_tried_twice_and_not_kept_lup_6() -> Result<()> {
    scenario("loader-fails", |lab| {
        let old = loader_252(lab.arch)?;
        let release = Release::new("2.0.0").without_sandbox_check().with_loader(CarriedLoader::ReturnsAtOnce);
        let mut machine = machine(lab, &release, &old)?;
        assert_eq!(asked(&mut machine, 4)?["reason"], "loader-waits");
        for said in [Some("loader-waits"), None] {
            // The firmware goes on to the default, in the same boot.
            assert_eq!(machine.vm.reboot()?.slot, "b");
            machine.settled_status()?;
            assert_eq!(booted_by(&mut machine)?, "252");
            let told = asked(&mut machine, if said.is_some() { 4 } else { 3 })?;
            assert_eq!(told["reason"], said.unwrap_or("loader-did-not-start"), "{told:#}");
        }
        let tried = machine.vm.transcript().all();
        for one in ["loading Boot0FFF \"RalphOS alternate boot loader (try 1, ", "(try 2, "] {
            ensure!(tried.contains(one), "the firmware has not tried it: {one}\n{tried}");
        }
        assert!(machine.esp.read(&lab.arch.loader_path())? == std::fs::read(&old)?);
        Ok(())
    })
}

#[test]
fn a_loader_that_the_firmware_would_refuse_is_not_staged_lup_2() -> Result<()> {
    secure_scenario("loader-unsigned", |lab| {
        let old = lab.path("loader-252.efi");
        SecureKeys::get()?.sign(Signer::Ours, &loader_252(lab.arch)?, &old)?;
        let release = signed("2.0.0").without_sandbox_check().with_loader(CarriedLoader::V257);
        let mut machine = machine(lab, &release, &old)?;
        let told = asked(&mut machine, 3)?;
        assert_eq!(told["reason"], "loader-refused");
        ensure!(told["message"].as_str().is_some_and(|text| text.contains("is not signed")), "{told:#}");
        assert_eq!(booted_by(&mut machine)?, "252");
        Ok(())
    })
}
