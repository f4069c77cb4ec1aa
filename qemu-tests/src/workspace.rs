//! Where this workspace is built, and building the programs under test into it.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail};

use crate::arch::Arch;
use crate::cross;

/// The programs that scenarios run on the host.
#[derive(Clone, Debug)]
pub struct HostPrograms {
    /// `ralph-image`.
    pub image: PathBuf,
    /// `ralph-update`.
    pub update: PathBuf,
    /// What makes and checks the states of a power-cut proof.
    pub power_cuts: PathBuf,
}

/// The programs that go into a guest. Of this machine's own architecture they find the C library in the guest, as in a
/// package; of another they have it linked in.
#[derive(Clone, Debug)]
pub struct GuestPrograms {
    /// `ralph-update`.
    pub update: PathBuf,
    /// `ralph-health-check`.
    pub health_check: PathBuf,
    /// `ralph-sandbox`.
    pub sandbox: PathBuf,
    /// `ralph-boot-guard`, a static program, in the initrd.
    pub boot_guard: PathBuf,
    /// The stand-in for `ralphd`.
    pub ralphd: PathBuf,
    /// The agent that runs the harness's commands.
    pub agent: PathBuf,
}

/// Static programs, which run in an initrd with nothing beside them.
#[derive(Clone, Debug)]
pub struct StaticPrograms {
    /// `ralph-update`.
    pub update: PathBuf,
    /// `ralph-boot-guard`.
    pub boot_guard: PathBuf,
    /// `ralph-health-check`.
    pub health_check: PathBuf,
    /// What works through the states of a power-cut proof.
    pub cuts_guest: PathBuf,
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
            let for_target = Arch::ALL.iter().any(|arch| dir.ends_with(arch.target()));
            return if for_target { dir.parent().unwrap_or(dir) } else { dir }.to_owned();
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

/// What was built, or why not, once per process.
type Built<T> = OnceLock<std::result::Result<T, String>>;

fn once<T: Clone>(built: &Built<T>, build: impl FnOnce() -> Result<T>) -> Result<T> {
    built.get_or_init(|| build().map_err(|e| format!("{e:#}"))).clone().map_err(|e| anyhow!(e))
}

/// Builds the programs that scenarios run here, once per process.
///
/// # Errors
/// When cargo fails; what it said went to standard error.
pub fn host_programs() -> Result<HostPrograms> {
    static BUILT: Built<HostPrograms> = OnceLock::new();
    once(&BUILT, || {
        let cargo = native()?;
        Ok(HostPrograms {
            image: cargo.program("ralph-image")?,
            update: cargo.program("ralph-update")?,
            power_cuts: cargo.program("power-cuts")?,
        })
    })
}

/// What guests run of this workspace, besides the guard: packages and programs.
const GUEST: [(&str, &str); 5] = [
    ("updater", "ralph-update"),
    ("health-check", "ralph-health-check"),
    ("sandbox", "ralph-sandbox"),
    ("qemu-tests", "ralphd"),
    ("qemu-tests", "guest-agent"),
];
const GUARD: (&str, &str) = ("boot-guard", "ralph-boot-guard");
const CUTS: (&str, &str) = ("qemu-tests", "cuts-guest");

/// Builds what runs here and what guests of this architecture run, in one go and once per process: two builds that choose
/// other packages may choose other features, and would take turns in putting their program at the same place.
fn native() -> Result<Cargo> {
    static BUILT: Built<()> = OnceLock::new();
    once(&BUILT, || {
        let host = [("image-tools", "ralph-image"), ("power-cuts", "power-cuts")];
        Cargo::new()?.build(&[&GUEST[..], &host[..]].concat())
    })?;
    Cargo::new()
}

/// Builds what has the C library in it, for the same reason in one go: for this machine's own architecture what runs in an initrd, for
/// another all there is.
fn linked(arch: Arch) -> Result<Cargo> {
    static BUILT: [Built<()>; 2] = [const { OnceLock::new() }; 2];
    once(&BUILT[arch as usize], || {
        let in_initrd = [("updater", "ralph-update"), ("health-check", "ralph-health-check")];
        let most = if arch.is_host() { &in_initrd[..] } else { &GUEST[..] };
        Cargo::with_c_library(arch)?.build(&[most, &[GUARD, CUTS]].concat())
    })?;
    Cargo::with_c_library(arch)
}

/// Builds the programs of guests of `arch`, once per process.
///
/// # Errors
/// When cargo fails, what it said went to standard error; or when there is no compiler for `arch`.
pub fn guest_programs(arch: Arch) -> Result<GuestPrograms> {
    let linked = linked(arch)?;
    let others = if arch.is_host() { &native()? } else { &linked };
    Ok(GuestPrograms {
        update: others.program("ralph-update")?,
        health_check: others.program("ralph-health-check")?,
        sandbox: others.program("ralph-sandbox")?,
        boot_guard: linked.program("ralph-boot-guard")?,
        ralphd: others.program("ralphd")?,
        agent: others.program("guest-agent")?,
    })
}

/// Builds the programs of the power-cut proof's guest, once per process.
///
/// # Errors
/// As [`guest_programs`].
pub fn static_programs(arch: Arch) -> Result<StaticPrograms> {
    let linked = linked(arch)?;
    Ok(StaticPrograms {
        update: linked.program("ralph-update")?,
        boot_guard: linked.program("ralph-boot-guard")?,
        health_check: linked.program("ralph-health-check")?,
        cuts_guest: linked.program("cuts-guest")?,
    })
}

/// Runs the unit tests of these packages' libraries as programs of `arch`, under QEMU's user emulation where that is not
/// this machine's own.
///
/// # Errors
/// When one fails, what it said went to standard error; or when there is no compiler for `arch`.
pub fn test_libraries(arch: Arch, packages: &[&str]) -> Result<()> {
    let mut cargo = Cargo::static_work("test", arch)?;
    cargo.command.arg("--lib").env("PROPTEST_CASES", EMULATED_CASES).stdout(std::io::stderr());
    // Their tools are the host's, and there already; to an emulated program this machine looks like a bare one of its own kind.
    cargo.command.env("RALPH_SKIP_VM", "1");
    for package in packages {
        cargo.command.args(["--package", package]);
    }
    run(&mut cargo.command, "the libraries' tests fail")
}

/// Cases of each property: emulation takes ten times as long, and the same properties are tried on the host.
const EMULATED_CASES: &str = "24";

/// `cargo` in this workspace.
struct Cargo {
    command: Command,
    /// Where the programs come to lie.
    folder: PathBuf,
}

impl Cargo {
    /// For this machine.
    fn new() -> Result<Self> {
        let target = target_dir();
        Ok(Self { command: Self::command("build", &target), folder: target.join("debug") })
    }

    /// Static programs for `arch`. Only a build with a target asks for that without asking it for build scripts, too.
    fn with_c_library(arch: Arch) -> Result<Self> {
        Self::static_work("build", arch)
    }

    fn static_work(verb: &str, arch: Arch) -> Result<Self> {
        let toolchain = cross::toolchain(arch)?;
        let mut target = target_dir();
        if toolchain.other_compiler {
            target = cache_dir()?.join(format!("target-{arch}"));
        }
        let mut command = Self::command(verb, &target);
        command.args(["--target", arch.target()]).envs(toolchain.env);
        // The variable wins over what a configuration file says, so what it held is kept; but flags for this machine's
        // processor are none for another.
        let flags = if arch.is_host() { std::env::var("RUSTFLAGS").unwrap_or_default() } else { String::new() };
        command
            .env("RUSTFLAGS", format!("{flags} -C target-feature=+crt-static"))
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        Ok(Self { command, folder: target.join(arch.target()).join("debug") })
    }

    fn command(verb: &str, target: &Path) -> Command {
        // Cargo holds no lock on the target folder while it runs tests or a program.
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command
            .args([verb, "--locked", "--manifest-path"])
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

    /// Builds these programs (package, program).
    fn build(&mut self, programs: &[(&str, &str)]) -> Result<()> {
        for (package, program) in programs {
            self.command.args(["--package", package, "--bin", program]);
        }
        run(&mut self.command, "the programs under test do not build")
    }

    /// One that was built.
    fn program(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        if path.is_file() { Ok(path) } else { Err(anyhow!("cargo built no {}", path.display())) }
    }
}

fn run(command: &mut Command, otherwise: &str) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}: {otherwise}");
    }
    Ok(())
}
