//! A machine as it is bought: its architecture, and whether its firmware asks for signatures.

use std::path::Path;
use std::process::Command;

use crate::arch::Arch;
use crate::setup;

/// The firmware of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Firmware {
    /// It starts any program.
    Open,
    /// UEFI Secure Boot: once keys are enrolled, it starts what they have signed, and nothing else.
    SecureBoot,
}

impl Firmware {
    /// In words, for a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::SecureBoot => "Secure Boot",
        }
    }
}

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Board {
    /// Its architecture.
    pub arch: Arch,
    /// Its firmware.
    pub firmware: Firmware,
}

impl From<Arch> for Board {
    fn from(arch: Arch) -> Self {
        Self { arch, firmware: Firmware::Open }
    }
}

impl Board {
    /// The firmware's program, and its empty store of variables: no keys are enrolled there.
    pub fn flash(self) -> (&'static Path, &'static Path) {
        let (code, vars) = match (self.arch, self.firmware) {
            (Arch::X86_64, Firmware::Open) => (setup::OVMF_CODE, setup::OVMF_VARS),
            (Arch::X86_64, Firmware::SecureBoot) => (setup::OVMF_SECURE_CODE, setup::OVMF_VARS),
            // Debian's for Arm asks for signatures as soon as there are keys.
            (Arch::Aarch64, _) => (setup::AAVMF_CODE, setup::AAVMF_VARS),
        };
        (Path::new(code), Path::new(vars))
    }

    /// QEMU with `memory` MiB and this firmware, whose variables are in `vars`.
    pub fn qemu(self, memory: u32, vars: &Path) -> Command {
        let mut qemu = self.arch.qemu(memory);
        if (self.arch, self.firmware) == (Arch::X86_64, Firmware::SecureBoot) {
            // The variables can be written to in system management mode alone: else the guest's kernel could enrol keys.
            qemu.args(["-machine", "smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on"]);
            qemu.args(["-global", "ICH9-LPC.disable_s3=1"]);
        }
        qemu.arg("-drive")
            .arg(format!("if=pflash,format=raw,unit=0,readonly=on,file={}", self.flash().0.display()))
            .arg("-drive")
            .arg(format!("if=pflash,format=raw,unit=1,cache=unsafe,file={}", vars.display()));
        if self.arch == Arch::Aarch64 {
            // AAVMF waits five seconds for somebody to press a key, if it is not told for how long; OVMF does not.
            qemu.args(["-boot", "menu=on,splash-time=0"]);
        }
        qemu
    }
}
