//! The QEMU process: its command line, its console and the socket to the agent.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::agent::PORT;
use crate::arch::Arch;
use crate::board::Board;

/// MiB that a guest with systemd has.
pub(super) const MEMORY: u32 = 512;

/// A process that was just started, and what leads out of it.
#[derive(Debug)]
pub(super) struct Started {
    pub child: Child,
    pub console: ChildStdout,
    pub agent: UnixStream,
}

/// Starts QEMU on `disk` with the firmware's variables in `vars`; it ends when the guest resets or turns itself off.
pub(super) fn start(board: Board, disk: &Path, vars: &Path) -> Result<Started> {
    let socket = socket_path();
    let mut child = command(board, disk, vars, &socket)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .context("cannot start QEMU")?;
    let console = child.stdout.take().context("QEMU has no standard output")?;
    let agent = connect(&socket, &mut child)?;
    Ok(Started { child, console, agent })
}

fn command(board: Board, disk: &Path, vars: &Path, socket: &Path) -> Command {
    let mut qemu = board.qemu(MEMORY, vars);
    if board.arch == Arch::X86_64 {
        // A watchdog, as a machine in a rack has one.
        qemu.args(["-device", "i6300esb", "-action", "watchdog=reset"]);
    }
    qemu.args([
        "-netdev",
        "user,id=net",
        "-device",
        "virtio-net-pci,netdev=net,romfile=",
        "-chardev",
        "stdio,id=console,signal=off",
        "-serial",
        "chardev:console",
        "-device",
        "virtio-serial-pci",
    ]);
    qemu.arg("-chardev")
        .arg(format!("socket,id=agent,path={},server=on,wait=off", socket.display()))
        .arg("-device")
        .arg(format!("virtserialport,chardev=agent,name={PORT}"))
        .arg("-drive")
        .arg(format!("if=none,id=disk,format=raw,cache=unsafe,discard=unmap,file={}", disk.display()))
        .args(["-device", "virtio-blk-pci,drive=disk,bootindex=0"]);
    qemu
}

/// In the temporary folder: a socket's path has at most 107 bytes, and a build folder's may be long.
fn socket_path() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("ralph-vm-{}-{number}", std::process::id()))
}

fn connect(socket: &Path, qemu: &mut Child) -> Result<UnixStream> {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => {
                // Connected once and for all: the name is not needed any more.
                let _ = std::fs::remove_file(socket);
                return Ok(stream);
            }
            Err(error) => {
                if let Some(status) = qemu.try_wait().context("waiting for QEMU")? {
                    bail!("QEMU ended at once: {status}");
                }
                if Instant::now() > end {
                    let _ = qemu.kill();
                    return Err(error).context("QEMU does not open the agent's socket");
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}
