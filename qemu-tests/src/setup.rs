//! Makes sure the programs that tests run on the host are there, on a bare Debian 12 or 13.
//!
//! As root, what is missing is installed with apt-get. Otherwise the error is one line to copy. The benchmark's
//! programs stand in the same list, and are asked for by it alone. Tests never skip
//! for want of a tool; only a person who sets `RALPH_SKIP_VM=1` leaves the virtual machines out.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail};

use crate::arch::Arch;
use crate::workspace;

/// What a tool is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// Making and checking disk images and image files; every member's tests.
    Files,
    /// Building and running guests.
    Vm,
    /// Running guests of this architecture.
    Guest(Arch),
    /// Building what goes into guests of this architecture, on a machine of another.
    Cross(Arch),
    /// As `Vm`, by a user who is not root (mmdebstrap in a user namespace).
    VmUnprivileged,
    /// The benchmark: the peers, and what packs for them.
    Bench,
}

/// What is going to be done: which part of the list it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// The tests, with guests of these architectures.
    Tests { guests: &'static [Arch] },
    /// The benchmark, which needs what makes a guest besides.
    Bench,
}

/// The one list: Debian package, what proves that it is there (a program, or a file by absolute path), its use.
const TOOLS: &[(&str, &str, Need)] = &[
    ("erofs-utils", "mkfs.erofs", Need::Files),
    ("cryptsetup-bin", "veritysetup", Need::Files),
    ("gdisk", "sgdisk", Need::Files),
    ("dosfstools", "mkfs.vfat", Need::Files),
    ("dosfstools", "fsck.vfat", Need::Files),
    ("e2fsprogs", "mke2fs", Need::Files),
    ("e2fsprogs", "e2fsck", Need::Files),
    ("mtools", "mcopy", Need::Files),
    ("mount", "mount", Need::Files),
    ("zstd", "zstd", Need::Files),
    ("openssl", "openssl", Need::Files),
    ("sbsigntool", "sbsign", Need::Files),
    // The folder: a test program of the other architecture runs here, too, and finds its stub nowhere.
    ("systemd-boot-efi", STUBS, Need::Files),
    ("binutils", "objcopy", Need::Files),
    ("qemu-system-x86", "qemu-system-x86_64", Need::Guest(Arch::X86_64)),
    ("ovmf", OVMF_CODE, Need::Guest(Arch::X86_64)),
    ("ovmf", OVMF_VARS, Need::Guest(Arch::X86_64)),
    ("gcc-x86-64-linux-gnu", "x86_64-linux-gnu-gcc", Need::Cross(Arch::X86_64)),
    ("libc6-dev-amd64-cross", "/usr/x86_64-linux-gnu/lib/libc.a", Need::Cross(Arch::X86_64)),
    ("qemu-user-static", "qemu-x86_64-static", Need::Cross(Arch::X86_64)),
    ("ovmf", OVMF_SECURE_CODE, Need::Guest(Arch::X86_64)),
    ("qemu-system-arm", "qemu-system-aarch64", Need::Guest(Arch::Aarch64)),
    ("qemu-efi-aarch64", AAVMF_CODE, Need::Guest(Arch::Aarch64)),
    ("qemu-efi-aarch64", AAVMF_VARS, Need::Guest(Arch::Aarch64)),
    ("gcc-aarch64-linux-gnu", "aarch64-linux-gnu-gcc", Need::Cross(Arch::Aarch64)),
    ("libc6-dev-arm64-cross", "/usr/aarch64-linux-gnu/lib/libc.a", Need::Cross(Arch::Aarch64)),
    ("qemu-user-static", "qemu-aarch64-static", Need::Cross(Arch::Aarch64)),
    ("mmdebstrap", "mmdebstrap", Need::Vm),
    ("debian-archive-keyring", "/usr/share/keyrings/debian-archive-keyring.gpg", Need::Vm),
    ("ca-certificates", "/etc/ssl/certs/ca-certificates.crt", Need::Vm),
    ("kmod", "depmod", Need::Vm),
    ("xz-utils", "xz", Need::Vm),
    ("binutils", "strip", Need::Vm),
    ("gcc", "gcc", Need::Vm),
    ("efitools", "sign-efi-sig-list", Need::Vm),
    ("sbsigntool", "sbsign", Need::Files),
    ("tar", "tar", Need::Vm),
    ("uidmap", "newuidmap", Need::VmUnprivileged),
    ("swupdate", "swupdate", Need::Bench),
    ("cpio", "cpio", Need::Bench),
    ("rauc", "rauc", Need::Bench),
    ("squashfs-tools", "mksquashfs", Need::Bench),
    ("dbus", "dbus-run-session", Need::Bench),
    ("casync", "casync", Need::Bench),
    ("util-linux", "taskset", Need::Bench),
];

/// Where [`STUB`] and [`LOADER`] lie.
const STUBS: &str = "/usr/lib/systemd/boot/efi";
/// What a unified kernel image for this machine's own architecture is made of.
pub const STUB: &str = match cfg!(target_arch = "aarch64") {
    true => "/usr/lib/systemd/boot/efi/linuxaa64.efi.stub",
    false => "/usr/lib/systemd/boot/efi/linuxx64.efi.stub",
};
/// Its boot loader, which lies beside it.
pub const LOADER: &str = match cfg!(target_arch = "aarch64") {
    true => "/usr/lib/systemd/boot/efi/systemd-bootaa64.efi",
    false => "/usr/lib/systemd/boot/efi/systemd-bootx64.efi",
};
/// The firmware that x86-64 guests start from.
pub const OVMF_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
/// The same with Secure Boot, as soon as keys are enrolled.
pub const OVMF_SECURE_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd";
/// Its empty variable store; every guest gets a copy of its own.
pub const OVMF_VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
/// The firmware that 64-bit Arm guests start from.
pub const AAVMF_CODE: &str = "/usr/share/AAVMF/AAVMF_CODE.fd";
/// Its empty variable store.
pub const AAVMF_VARS: &str = "/usr/share/AAVMF/AAVMF_VARS.fd";

/// Where programs are looked for besides `PATH`: file system tools live here, and a user's `PATH` may lack it.
const SBIN: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// True when a person asked for no virtual machines by `RALPH_SKIP_VM=1`.
pub fn skip_vm() -> bool {
    std::env::var_os("RALPH_SKIP_VM").is_some_and(|v| v == "1")
}

/// Makes sure every tool of the list is there, once per process.
///
/// # Errors
/// When something is missing and cannot be installed; the message holds one line that a person can copy.
pub fn ensure_tools() -> Result<()> {
    static DONE: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    DONE.get_or_init(|| ensure_for_tests().map_err(|e| format!("{e:#}"))).clone().map_err(|e| anyhow!(e))
}

fn ensure_for_tests() -> Result<()> {
    ensure(Work::Tests { guests: if skip_vm() { &[] } else { Arch::wanted()? } })
}

/// Makes sure that what the benchmark runs is there besides.
///
/// # Errors
/// As [`ensure_tools`].
pub fn ensure_bench_tools() -> Result<()> {
    ensure(Work::Bench)
}

/// A command for `program`, with the folders of system administration in its `PATH`.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(find(program).unwrap_or_else(|| program.into()));
    command.env("PATH", search_path());
    command
}

/// Runs `command` to its end and gives its standard output.
///
/// # Errors
/// When it cannot start or does not succeed; the error carries the command and what it said.
pub fn run(command: &mut Command) -> Result<Vec<u8>> {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {shown}"))?;
    if !output.status.success() {
        bail!(
            "{shown}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(output.stdout)
}

/// True when this process is root, told from the owner of its own folder in `/proc`.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}

fn ensure(work: Work) -> Result<()> {
    if missing(is_root(), work, present).is_empty() {
        return Ok(());
    }
    // Two test binaries may get here at once: the second waits, then finds everything there.
    let path = workspace::cache_dir()?.join("setup.lock");
    let lock = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;

    let packages = missing(is_root(), work, present);
    if packages.is_empty() {
        return Ok(());
    }
    if !is_root() {
        bail!("programs that this runs are missing. Install them with:\n    {}", advice(&packages));
    }
    eprintln!("setup: installing {}", packages.join(" "));
    install(&packages)
        .with_context(|| format!("cannot install what this needs. Try by hand:\n    {}", advice(&packages)))?;
    let still = missing(true, work, present);
    if !still.is_empty() {
        bail!("installed, and yet these packages do not hold what is expected: {}", still.join(" "));
    }
    Ok(())
}

/// The packages that are missing, in the list's order, each once.
fn missing(root: bool, work: Work, present: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let mut packages = Vec::new();
    for &(package, proof, need) in TOOLS {
        let (makes_guests, guests): (bool, &[Arch]) = match work {
            Work::Tests { guests } => (!guests.is_empty(), guests),
            Work::Bench => (true, &[]),
        };
        let wanted = match need {
            Need::Files => true,
            Need::Vm => makes_guests,
            Need::Guest(arch) => guests.contains(&arch),
            Need::Cross(arch) => guests.contains(&arch) && !arch.is_host(),
            Need::VmUnprivileged => makes_guests && !root,
            Need::Bench => work == Work::Bench,
        };
        if wanted && !present(proof) && !packages.contains(&package) {
            packages.push(package);
        }
    }
    packages
}

fn advice(packages: &[&str]) -> String {
    format!("sudo apt-get update && sudo apt-get install -y --no-install-recommends {}", packages.join(" "))
}

fn install(packages: &[&str]) -> Result<()> {
    let apt = || {
        let mut apt = command("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive").args(["-q", "-y", "-o", "DPkg::Lock::Timeout=300"]);
        apt
    };
    run(apt().arg("update"))?;
    run(apt().args(["install", "--no-install-recommends"]).args(packages))?;
    Ok(())
}

fn present(proof: &str) -> bool {
    if proof.starts_with('/') { Path::new(proof).exists() } else { find(proof).is_some() }
}

/// Where a program lies.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&search_path()).map(|dir| dir.join(program)).find(|path| path.is_file())
}

fn search_path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(SBIN.iter().map(PathBuf::from));
    // The parts came out of split_paths, so none of them can hold a separator.
    std::env::join_paths(dirs).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_machine_misses_each_package_once() {
        let packages = missing(true, Work::Tests { guests: &Arch::ALL }, |_| false);
        assert!(packages.contains(&"qemu-system-x86"));
        assert!(packages.contains(&"qemu-efi-aarch64"));
        assert!(!packages.contains(&"uidmap"), "root needs no user namespace");
        assert!(!packages.contains(&"rauc"), "only the benchmark runs the peers");
        assert_eq!(packages.iter().filter(|p| **p == "dosfstools").count(), 1);
    }

    #[test]
    fn without_virtual_machines_only_the_file_tools_are_needed() {
        let packages = missing(false, Work::Tests { guests: &[] }, |_| false);
        assert!(packages.contains(&"erofs-utils"));
        assert!(!packages.contains(&"qemu-system-x86"));
    }

    #[test]
    fn guests_of_one_architecture_need_nothing_of_the_other_s() {
        let packages = missing(true, Work::Tests { guests: &[Arch::X86_64] }, |_| false);
        assert!(packages.contains(&"qemu-system-x86"));
        assert!(!packages.iter().any(|name| name.contains("arm") || name.contains("aarch64")), "{packages:?}");
    }

    #[test]
    fn the_benchmark_needs_the_peers_and_what_makes_a_tree() {
        let packages = missing(true, Work::Bench, |_| false);
        assert!(["swupdate", "rauc", "casync", "mmdebstrap"].iter().all(|name| packages.contains(name)));
        assert!(!packages.contains(&"qemu-system-x86"), "it starts no guest");
    }

    #[test]
    fn only_what_is_missing_is_asked_for() {
        let packages = missing(true, Work::Tests { guests: &[] }, |proof| proof != "sgdisk");
        assert_eq!(packages, ["gdisk"]);
        assert!(advice(&packages).ends_with("--no-install-recommends gdisk"));
    }

    #[test]
    fn a_failing_command_is_told_with_what_it_said() {
        let error = run(command("sh").args(["-c", "echo out; echo err >&2; exit 3"])).expect_err("exit code 3");
        let text = format!("{error:#}");
        assert!(text.contains("out\nerr"), "{text}");
    }
}
