//! A stand-in for `ralphd`: a real service that gets ready, or fails in the way it is told to.
//!
//! What to do stands in `/var/lib/ralphd/behave`, else in `/usr/lib/ralphd/behave` (so that an image can carry a bad
//! version), else it is `ready`:
//!
//! - `ready`: tells systemd that it is ready and stays;
//! - `never-ready`: stays, and never tells;
//! - `crash-after SECONDS`: gets ready, and ends with code 1 after that time.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

const STATE: &str = "/var/lib/ralphd";

#[derive(Debug, PartialEq, Eq)]
enum Behaviour {
    Ready,
    NeverReady,
    CrashAfter(Duration),
}

fn main() -> ExitCode {
    match serve() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ralphd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<ExitCode> {
    // A full or read-only /var is no reason to leave the machine without its control plane.
    if let Err(error) = remember_first_start() {
        eprintln!("ralphd: keeps no state: {error:#}");
    }
    let behaviour = told()?;
    println!("ralphd: {behaviour:?}");
    match behaviour {
        Behaviour::Ready => {
            notify_ready()?;
            loop {
                std::thread::park();
            }
        }
        Behaviour::NeverReady => loop {
            std::thread::park();
        },
        Behaviour::CrashAfter(time) => {
            notify_ready()?;
            std::thread::sleep(time);
            eprintln!("ralphd: crashes, as told");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Leaves the boot id of the very first start: a test sees by it that `/var` survives an update.
fn remember_first_start() -> Result<()> {
    let path = Path::new(STATE).join("first-start");
    if path.exists() {
        return Ok(());
    }
    std::fs::create_dir_all(STATE).with_context(|| format!("cannot create {STATE}"))?;
    let boot = std::fs::read("/proc/sys/kernel/random/boot_id").context("cannot read boot_id")?;
    std::fs::write(&path, boot).with_context(|| format!("cannot write {}", path.display()))
}

fn told() -> Result<Behaviour> {
    for path in ["/var/lib/ralphd/behave", "/usr/lib/ralphd/behave"] {
        match std::fs::read_to_string(path) {
            Ok(text) => return parse(&text).with_context(|| path.to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read {path}")),
        }
    }
    Ok(Behaviour::Ready)
}

fn parse(text: &str) -> Result<Behaviour> {
    let words: Vec<&str> = text.split_whitespace().collect();
    Ok(match words[..] {
        ["ready"] => Behaviour::Ready,
        ["never-ready"] => Behaviour::NeverReady,
        ["crash-after", seconds] => Behaviour::CrashAfter(Duration::from_secs(seconds.parse().context("seconds")?)),
        _ => bail!("no such behaviour: {text:?}"),
    })
}

/// `sd_notify(3)` in a few lines: one datagram to the socket that systemd names.
fn notify_ready() -> Result<()> {
    let name = std::env::var_os("NOTIFY_SOCKET").context("not started by systemd")?;
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest),
        _ => SocketAddr::from_pathname(Path::new(&name)),
    }
    .with_context(|| format!("no socket address: {}", name.display()))?;
    UnixDatagram::unbound()
        .and_then(|socket| socket.send_to_addr(b"READY=1", &address))
        .with_context(|| format!("cannot tell {}", name.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_behaviour_is_an_error_and_not_ready() {
        assert_eq!(parse("ready\n").expect("known"), Behaviour::Ready);
        assert_eq!(parse("crash-after 7").expect("known"), Behaviour::CrashAfter(Duration::from_secs(7)));
        assert!(parse("redy").is_err());
        assert!(parse("crash-after soon").is_err());
    }
}
