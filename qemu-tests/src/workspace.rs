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
    /// `ralph-sandbox`, in the guest.
    pub sandbox: PathBuf,
    /// `ralph-boot-guard`, a static program, in the guest's initrd.
    pub boot_guard: PathBuf,
    /// `ralph-image`, on the host.
    pub image: PathBuf,
    /// The stand-in for `ralphd`, in the guest.
    pub ralphd: PathBuf,
    /// The agent that runs the harness's commands in the guest.
    pub agent: PathBuf,
}

/// Static programs, which run in an initrd with nothing beside them, and on the host as well.
#[derive(Clone, Debug)]
pub struct StaticPrograms {
    /// `ralph-image`.
    pub image: PathBuf,
    /// `ralph-update`.
    pub update: PathBuf,
    /// `ralph-boot-guard`.
    pub boot_guard: PathBuf,
    /// `ralph-health-check`.
    pub health_check: PathBuf,
    /// What works through the states of a power-cut proof.
    pub cuts_guest: PathBuf,
    /// What makes and checks them, on the host.
    pub power_cuts: PathBuf,
}

/// The root of the workspace's sources.
pub fn source_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"))
}

/// Cargo's target folder: the one this very program was built into.
pub fn target_dir() -> PathBuf {
    if let Ok(exe) = std::env::current_exe() {
        if let Some(dir) = exe.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file()) {
            // A program that was itself built for a target lies one folder deeper.
            return if dir.ends_with(TARGET) { dir.parent().unwrap_or(dir) } else { dir }.to_owned();
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

/// The target of the static programs. The C library is linked in, which only a build with a target asks for without
/// asking it for build scripts, too.
const TARGET: &str = "x86_64-unknown-linux-gnu";

fn build_programs() -> Result<Programs> {
    let target = target_dir();
    let mut dynamic = cargo_build(&target);
    for package in ["updater", "health-check", "image-tools", "sandbox", "qemu-tests"] {
        dynamic.args(["--package", package]);
    }
    for program in ["ralph-update", "ralph-health-check", "ralph-image", "ralph-sandbox", "ralphd", "guest-agent"] {
        dynamic.args(["--bin", program]);
    }
    run(&mut dynamic)?;

    let mut linked = static_build(&target);
    linked.args(["--package", "boot-guard", "--bin", "ralph-boot-guard"]);
    run(&mut linked)?;

    let bin = |folder: &str, name: &str| {
        let path = target.join(folder).join(name);
        if path.is_file() { Ok(path) } else { Err(anyhow!("cargo built no {}", path.display())) }
    };
    Ok(Programs {
        update: bin("debug", "ralph-update")?,
        health_check: bin("debug", "ralph-health-check")?,
        sandbox: bin("debug", "ralph-sandbox")?,
        boot_guard: bin(&format!("{TARGET}/debug"), "ralph-boot-guard")?,
        image: bin("debug", "ralph-image")?,
        ralphd: bin("debug", "ralphd")?,
        agent: bin("debug", "guest-agent")?,
    })
}

/// Builds the programs of the power-cut proof's guest, once per process.
///
/// # Errors
/// When cargo fails; what it said went to standard error.
pub fn static_programs() -> Result<StaticPrograms> {
    static BUILT: OnceLock<std::result::Result<StaticPrograms, String>> = OnceLock::new();
    BUILT.get_or_init(|| build_static().map_err(|e| format!("{e:#}"))).clone().map_err(|e| anyhow!(e))
}

fn build_static() -> Result<StaticPrograms> {
    let target = target_dir();
    let mut linked = static_build(&target);
    for package in ["image-tools", "updater", "boot-guard", "health-check", "power-cuts", "qemu-tests"] {
        linked.args(["--package", package]);
    }
    for program in ["ralph-image", "ralph-update", "ralph-boot-guard", "ralph-health-check", "power-cuts", "cuts-guest"]
    {
        linked.args(["--bin", program]);
    }
    run(&mut linked)?;
    let bin = |name: &str| {
        let path = target.join(TARGET).join("debug").join(name);
        if path.is_file() { Ok(path) } else { Err(anyhow!("cargo built no {}", path.display())) }
    };
    Ok(StaticPrograms {
        image: bin("ralph-image")?,
        update: bin("ralph-update")?,
        boot_guard: bin("ralph-boot-guard")?,
        health_check: bin("ralph-health-check")?,
        cuts_guest: bin("cuts-guest")?,
        power_cuts: bin("power-cuts")?,
    })
}

/// `cargo build` of static programs.
fn static_build(target: &Path) -> Command {
    let mut linked = cargo_build(target);
    linked.args(["--target", TARGET]);
    // The variable wins over what a configuration file says, so what it held is kept.
    let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    linked.env("RUSTFLAGS", format!("{flags} -C target-feature=+crt-static")).env_remove("CARGO_ENCODED_RUSTFLAGS");
    linked
}

/// `cargo build` of this workspace, into `target`.
fn cargo_build(target: &Path) -> Command {
    // Cargo holds no lock on the target folder while it runs tests or a program.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--locked", "--manifest-path"])
        .arg(source_dir().join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target)
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
    command
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}: the programs under test do not build");
    }
    Ok(())
}
