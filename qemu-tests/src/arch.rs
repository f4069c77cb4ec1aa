//! The architectures that guests have, and all that differs between them.
//!
//! Which one a guest has is said by whoever asks for a lab; nothing here looks at the machine that this runs on, but for
//! [`Arch::is_host`].

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use boot_entries::EntryArchitecture;
use disk_layout::{Architecture, DiskLayout};

use crate::setup;

/// An architecture of guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arch {
    /// x86-64: OVMF on a PC of QEMU's.
    X86_64,
    /// 64-bit Arm: AAVMF on QEMU's machine for virtualization.
    Aarch64,
}

/// Options of the kernel that make a boot under software emulation faster, on any machine. QEMU translates code for each address that
/// it is found at: with libraries at one address, what one process ran is there for the next.
const FASTER: &str = "mitigations=off cryptomgr.notests random.trust_cpu=on apparmor=0 selinux=0 nokaslr init_on_alloc=0 \
    hardened_usercopy=off audit=0 psi=0 rcupdate.rcu_expedited=1 norandmaps";

impl Arch {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// Its name, as the kernel and `ralph-image --arch` have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// True when programs of this architecture run here as they are.
    pub fn is_host(self) -> bool {
        std::env::consts::ARCH == self.name()
    }

    /// The guests that tests run: all, or those that somebody asked for by `RALPH_VM_ARCH`.
    ///
    /// # Errors
    /// When that names no architecture.
    pub fn wanted() -> Result<&'static [Self]> {
        match std::env::var("RALPH_VM_ARCH").as_deref() {
            Ok("x86_64") => Ok(&[Self::X86_64]),
            Ok("aarch64") => Ok(&[Self::Aarch64]),
            Ok(asked) => bail!("RALPH_VM_ARCH={asked}: an architecture is x86_64 or aarch64"),
            Err(_) => Ok(&Self::ALL),
        }
    }

    /// The one to show something on: this machine's, if it is wanted.
    ///
    /// # Errors
    /// As [`wanted`](Self::wanted).
    pub fn to_show() -> Result<Self> {
        let wanted = Self::wanted()?;
        wanted.iter().copied().find(|arch| arch.is_host()).or(wanted.first().copied()).context("no architecture")
    }

    /// What the slots of a disk say that they are for.
    ///
    /// # Errors
    /// When it is no disk of ours.
    pub fn of_disk(disk: &Path) -> Result<Self> {
        let layout = DiskLayout::open(disk).with_context(|| format!("cannot read {}", disk.display()))?;
        Ok(match layout.architecture {
            Architecture::X86_64 => Self::X86_64,
            Architecture::Aarch64 => Self::Aarch64,
        })
    }

    /// What cargo calls it.
    pub fn target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Aarch64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// What Debian's packages call it.
    pub fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// The folder of its libraries below `usr/lib`, and the beginning of the names of its compiler and linker.
    pub fn multiarch(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-linux-gnu",
            Self::Aarch64 => "aarch64-linux-gnu",
        }
    }

    /// The path that programs have in them for the dynamic linker, without the first slash.
    pub fn dynamic_linker(self) -> &'static str {
        match self {
            Self::X86_64 => "lib64/ld-linux-x86-64.so.2",
            Self::Aarch64 => "lib/ld-linux-aarch64.so.1",
        }
    }

    /// What a boot entry calls it.
    pub fn entry(self) -> EntryArchitecture {
        match self {
            Self::X86_64 => EntryArchitecture::X64,
            Self::Aarch64 => EntryArchitecture::Aa64,
        }
    }

    /// What UEFI calls it, in the names of loaders.
    pub fn efi(self) -> &'static str {
        match self {
            Self::X86_64 => "x64",
            Self::Aarch64 => "aa64",
        }
    }

    /// Where the firmware looks for a loader on an EFI partition.
    pub fn loader_path(self) -> String {
        format!("EFI/BOOT/BOOT{}.EFI", self.efi().to_uppercase())
    }

    /// Where another loader is kept beside that one (LUP-1).
    pub fn alternate_loader_path(self) -> String {
        format!("EFI/BOOT/BOOT{}.ALT", self.efi().to_uppercase())
    }

    /// The machine type in the head of a PE program.
    pub fn pe_machine(self) -> u16 {
        match self {
            Self::X86_64 => 0x8664,
            Self::Aarch64 => 0xaa64,
        }
    }

    /// The kernel's options for its console, and for a fast boot.
    pub fn kernel_options(self) -> String {
        match self {
            // String instructions are emulated step by step: without REP_GOOD the kernel clears and copies pages by plain moves.
            Self::X86_64 => format!("console=ttyS0 no_timer_check tsc=reliable clearcpuid=rep_good {FASTER}"),
            Self::Aarch64 => format!("console=ttyAMA0 {FASTER}"),
        }
    }

    /// The kernel's driver of the watchdog. Debian has none for Arm that QEMU's machine has a device for: there the kernel's
    /// own clock stands in, which outlives everything but the kernel.
    pub fn watchdog_module(self) -> &'static str {
        match self {
            Self::X86_64 => "i6300esb",
            Self::Aarch64 => "softdog",
        }
    }

    /// A tool of binutils that reads and writes this architecture's programs.
    pub fn binutils(self, tool: &str) -> Command {
        if self.is_host() { setup::command(tool) } else { setup::command(&format!("{}-{tool}", self.multiarch())) }
    }

    /// QEMU with this processor and `memory` MiB; neither firmware nor devices.
    pub fn qemu(self, memory: u32) -> Command {
        // A KVM that is there need not work, and one machine's timing should be every machine's.
        let (program, machine, processor) = match self {
            Self::X86_64 => (
                "qemu-system-x86_64",
                "q35,smm=off,sata=off,usb=off,smbus=off,hpet=off,i8042=off,vmport=off",
                // QEMU 7.2 loses a guest's flags around cmpxchg16b now and then, and kernels from 6.12 on use it in every
                // allocation: one boot in three died of it.
                "Nehalem,-cx16",
            ),
            // A processor with pointer authentication takes twice as long.
            Self::Aarch64 => ("qemu-system-aarch64", "virt", "cortex-a57"),
        };
        let mut qemu = setup::command(program);
        qemu.args(["-machine", machine, "-accel", "tcg,thread=multi", "-cpu", processor, "-smp", "1"]);
        qemu.args(["-m", &memory.to_string(), "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        qemu.args(["-device", "virtio-rng-pci"]);
        qemu
    }

    /// Where systemd-boot lies in the package of that name.
    pub fn systemd_boot(self) -> PathBuf {
        PathBuf::from(format!("usr/lib/systemd/boot/efi/systemd-boot{}.efi", self.efi()))
    }

    /// Where systemd-stub lies in the same package.
    pub fn systemd_stub(self) -> PathBuf {
        PathBuf::from(format!("usr/lib/systemd/boot/efi/linux{}.efi.stub", self.efi()))
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_firmware_finds_its_own_loader() {
        assert_eq!(Arch::X86_64.loader_path(), "EFI/BOOT/BOOTX64.EFI");
        assert_eq!(Arch::Aarch64.loader_path(), "EFI/BOOT/BOOTAA64.EFI");
    }

    #[test]
    fn one_architecture_is_the_host_s() {
        assert_eq!(Arch::ALL.iter().filter(|arch| arch.is_host()).count(), 1);
    }
}
