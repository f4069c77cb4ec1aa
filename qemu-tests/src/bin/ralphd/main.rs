//! A stand-in for `ralphd`: a real service that keeps the contract of specs/health.md (HLT-1 to HLT-9), or breaks it in
//! the way it is told to ([`behaviour`]).

mod answers;
mod behaviour;
mod http;
mod sandbox;
mod state;

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::behaviour::{Behaviour, Life};

/// The status socket (HLT-4).
const STATUS: &str = "/run/ralphd/status.sock";
/// The northbound API (HLT-9).
const NORTHBOUND: &str = "127.0.0.1:7340";
/// How often is looked whether the slot has been committed: cheap, and soon enough for what waits for it.
const LOOK: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    match serve() {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("ralphd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs until something fails, or it is told to.
fn serve() -> Result<std::convert::Infallible> {
    let behaviour = Arc::new(behaviour::told()?);
    println!("ralphd: {behaviour:?}");
    let version = version()?;
    state::prepare(version.format, behaviour.migrates_early)?;

    listen(&behaviour, &version.text)?;
    match behaviour.life {
        Life::NeverReady => {}
        Life::Ready => notify_ready()?,
        Life::CrashAfter(time) => {
            notify_ready()?;
            std::thread::sleep(time);
            anyhow::bail!("crashes, as told");
        }
    }
    while !state::committed() {
        std::thread::sleep(LOOK);
    }
    state::after_commit(version.format)?;
    loop {
        std::thread::park();
    }
}

fn listen(behaviour: &Arc<Behaviour>, version: &str) -> Result<()> {
    let path = Path::new(STATUS);
    let folder = path.parent().context("the socket has a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    // Left over from a run that was killed.
    let _ = fs::remove_file(path);
    let status = UnixListener::bind(path).with_context(|| format!("cannot listen on {STATUS}"))?;
    fs::set_permissions(path, Permissions::from_mode(0o600)).with_context(|| format!("cannot restrict {STATUS}"))?;
    let answering = answers::Answers::new(behaviour, version);
    http::serve(move || status.accept().map(|(stream, _)| stream), answering.clone());
    if behaviour.api {
        let api = TcpListener::bind(NORTHBOUND).with_context(|| format!("cannot listen on {NORTHBOUND}"))?;
        http::serve(move || api.accept().map(|(stream, _)| stream), answering);
    }
    Ok(())
}

/// The version of the system that this program is a part of.
struct Version {
    text: String,
    /// The major version: the format of the database that this version writes.
    format: u32,
}

fn version() -> Result<Version> {
    const PATH: &str = "/usr/lib/os-release";
    let release = fs::read_to_string(PATH).with_context(|| format!("cannot read {PATH}"))?;
    let text = release.lines().find_map(|line| line.strip_prefix("VERSION_ID=")).unwrap_or("0");
    let format = text.split('.').next().and_then(|major| major.parse().ok());
    Ok(Version { text: text.to_owned(), format: format.with_context(|| format!("{PATH}: version {text:?}"))? })
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
