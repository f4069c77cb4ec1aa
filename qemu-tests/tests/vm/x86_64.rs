//! Scenarios on real firmware: OVMF, systemd-boot, systemd. One program for all of them, so that guests run side by side at any
//! time until the last is done.

mod boot_loader;
mod commit;
mod common;
mod doctor;
mod hangs;
mod health;
mod loader_model;
mod loader_update;
mod power_cuts;
mod reuse;
mod scenarios;
mod secure_boot;
mod surroundings;
mod var;
mod ways_out;

use anyhow::Result;
use qemu_tests::arch::Arch;
use qemu_tests::lab::Lab;

const ARCH: Arch = Arch::X86_64;

fn scenario(name: &str, steps: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    qemu_tests::lab::scenario(ARCH, name, steps)
}

fn secure_scenario(name: &str, steps: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    qemu_tests::lab::secure_scenario(ARCH, name, steps)
}
