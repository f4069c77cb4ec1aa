//! The loader model against the loaders: what `boot-entries` says systemd-boot 252 and 257 will do with an ESP, and what
//! they do (LDR-1 to LDR-10), on OVMF.

mod compare;
mod random;
mod rig;
mod state;
mod table;

use anyhow::Result;
use qemu_tests::arch::Arch;
use qemu_tests::lab::Lab;

const ARCH: Arch = Arch::X86_64;

fn scenario(name: &str, steps: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    qemu_tests::lab::scenario(ARCH, name, steps)
}
