//! A machine with firmware and disks and nothing else, for programs that run before any operating system.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{qemu, slots, vars_of};
use crate::arch::Arch;
use crate::board::Board;
use crate::setup;

/// Starts the firmware of `arch` on the first of `disks` (raw, written to) and waits until the machine turns itself off.
/// Gives what was written to the debug port: I/O port 0xe9 on a PC, semihosting on Arm. `dir` is for what belongs to this machine: the firmware's variables,
/// which stay from one start to the next, and the consoles.
///
/// # Errors
/// When QEMU does not start, or the machine does not turn itself off within `timeout`; with what it said.
pub fn run_bare(arch: Arch, disks: &[PathBuf], dir: &Path, timeout: Duration) -> Result<String> {
    setup::ensure_tools()?;
    let _slot = slots::take();
    let (console, debug) = (dir.join("console.txt"), dir.join("debug.txt"));
    let mut qemu = Board::from(arch).qemu(qemu::MEMORY, &vars_of(arch.into(), dir)?);
    qemu.arg("-serial").arg(format!("file:{}", console.display()));
    qemu.arg("-chardev").arg(format!("file,id=debug,path={}", debug.display()));
    qemu.args(match arch {
        Arch::X86_64 => ["-device", "isa-debugcon,iobase=0xe9,chardev=debug"],
        Arch::Aarch64 => ["-semihosting-config", "enable=on,target=native,chardev=debug"],
    });
    for (n, disk) in disks.iter().enumerate() {
        qemu.arg("-drive").arg(format!("if=none,id=disk{n},format=raw,cache=unsafe,file={}", disk.display()));
        let first = if n == 0 { ",bootindex=0" } else { "" };
        qemu.arg("-device").arg(format!("virtio-blk-pci,drive=disk{n}{first}"));
    }
    let errors = dir.join("qemu.txt");
    let file = File::create(&errors).with_context(|| format!("cannot create {}", errors.display()))?;
    let child = qemu.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn();
    let ended = wait(child.context("cannot start QEMU")?, timeout)?;
    let said = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
    if !ended {
        bail!("the machine did not turn itself off in {timeout:?}\n{}\n{}", said(&errors), said(&debug));
    }
    Ok(said(&debug))
}

/// False when it had to be killed.
fn wait(mut qemu: Child, timeout: Duration) -> Result<bool> {
    let end = Instant::now() + timeout;
    while qemu.try_wait().context("waiting for QEMU")?.is_none() {
        if Instant::now() > end {
            qemu.kill().context("cannot kill QEMU")?;
            qemu.wait().context("waiting for QEMU")?;
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(true)
}
