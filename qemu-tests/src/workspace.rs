//! Where this workspace is built, and building the programs under test into it.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail};

/// The programs that scenarios run, all from this workspace.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `ralph-update`, on the host and in the guest.
    pub update: PathBuf,
    /// `ralph-health-check`, in the guest.
    pub health_check: PathBuf,
    /// `ralph-image`, on the host.
    pub image: PathBuf,
    /// The stand-in for `ralphd`, in the guest.
    pub ralphd: PathBuf,
    /// The agent that runs the harness's commands in the guest.
    pub agent: PathBuf,
}

/// The root of the workspace's sources.
pub fn source_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"))
}

/// Cargo's target folder: the one this very program was built into.
pub fn target_dir() -> PathBuf {
    if let Ok(exe) = std::env::current_exe() {
        if let Some(dir) = exe.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file()) {
            return dir.to_owned();
        }
        // A target folder that cargo did not create itself has no tag: TARGET/PROFILE/deps/TEST.
        if let Some(deps) = exe.parent().filter(|dir| dir.ends_with("deps"))
            && let Some(target) = deps.parent().and_then(Path::parent)
        {
            return target.to_owned();
        }
    }
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| source_dir().join("target"), PathBuf::from)
}

/// The folder under the target folder where the lab keeps what is dear to make.
///
/// # Errors
/// When it cannot be created.
pub fn cache_dir() -> Result<PathBuf> {
    let dir = target_dir().join("qemu-tests");
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

/// Builds the programs under test, once per process.
///
/// # Errors
/// When cargo fails; what it said went to standard error.
pub fn programs() -> Result<Programs> {
    static BUILT: OnceLock<std::result::Result<Programs, String>> = OnceLock::new();
    BUILT.get_or_init(|| build_programs().map_err(|e| format!("{e:#}"))).clone().map_err(|e| anyhow!(e))
}

fn build_programs() -> Result<Programs> {
    let target = target_dir();
    // Cargo holds no lock on the target folder while it runs tests or a program.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .arg("build")
        .arg("--locked")
        .arg("--manifest-path")
        .arg(source_dir().join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .args(["--package", "updater"])
        .args(["--package", "health-check"])
        .args(["--package", "image-tools"])
        .args(["--package", "qemu-tests"])
        .args(["--bin", "ralph-update"])
        .args(["--bin", "ralph-health-check"])
        .args(["--bin", "ralph-image"])
        .args(["--bin", "ralphd"])
        .args(["--bin", "guest-agent"])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    // It takes minutes in a fresh clone: a person may watch, a log need not.
    if !std::io::stderr().is_terminal() {
        command.arg("--quiet");
    }
    // Cargo sets these for the test it runs; they are not this build's.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_BIN_") {
            command.env_remove(&name);
        }
    }
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}: the programs under test do not build");
    }
    let bin = |name: &str| {
        let path = target.join("debug").join(name);
        if path.is_file() { Ok(path) } else { Err(anyhow!("cargo built no {}", path.display())) }
    };
    Ok(Programs {
        update: bin("ralph-update")?,
        health_check: bin("ralph-health-check")?,
        image: bin("ralph-image")?,
        ralphd: bin("ralphd")?,
        agent: bin("guest-agent")?,
    })
}
