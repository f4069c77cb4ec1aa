//! Runs the harness's commands in the guest and answers over the second serial port (see `qemu_tests::agent`).

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};
use qemu_tests::agent::{Boot, FromGuest, PORT, parse_run};

/// So much of a script's output goes into one line.
const PIECE: usize = 1024;

fn main() -> Result<()> {
    let path = port()?;
    let port = File::options()
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    // A unified image's command line does not say the slot (ENT-16).
    let left = std::fs::read_to_string("/run/ralphos/options");
    let options = left.or_else(|_| std::fs::read_to_string("/proc/cmdline"))?;
    let slot = options.split_whitespace().find_map(|word| word.strip_prefix("ralph.slot=")).unwrap_or("?");
    // The line before may have been cut by a reset: begin a new one.
    writeln!(&port, "\n{}", FromGuest::Hello(Boot { id: id.trim().to_owned(), slot: slot.to_owned() }).line())?;
    for line in BufReader::new(&port).lines() {
        let line = line?;
        // What is left of a line that was meant for the boot before is not a command.
        let Ok((id, script)) = parse_run(&line) else {
            continue;
        };
        answer(&port, id, &run(script)?)?;
    }
    Ok(())
}

/// The device of the port, by its name in sysfs: udev's links may not be there yet.
fn port() -> Result<PathBuf> {
    const PORTS: &str = "/sys/class/virtio-ports";
    for entry in std::fs::read_dir(PORTS).context(PORTS)? {
        let entry = entry?;
        let name = std::fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim() == PORT {
            return Ok(PathBuf::from("/dev").join(entry.file_name()));
        }
    }
    bail!("no port {PORT} in {PORTS}");
}

fn run(script: Vec<u8>) -> Result<Output> {
    use std::os::unix::ffi::OsStringExt;
    Command::new("/bin/sh")
        .arg("-c")
        .arg(std::ffi::OsString::from_vec(script))
        .stdin(Stdio::null())
        .output()
        .context("cannot start /bin/sh")
}

fn answer(mut port: &File, id: u64, output: &Output) -> Result<()> {
    for piece in output.stdout.chunks(PIECE) {
        writeln!(port, "{}", FromGuest::Out(id, piece.to_vec()).line())?;
    }
    for piece in output.stderr.chunks(PIECE) {
        writeln!(port, "{}", FromGuest::Err(id, piece.to_vec()).line())?;
    }
    let code = output.status.code().or(output.status.signal().map(|signal| 128 + signal)).unwrap_or(-1);
    writeln!(port, "{}", FromGuest::Exit(id, code).line())?;
    Ok(())
}
