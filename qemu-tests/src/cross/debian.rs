//! A compiler from Debian, for machines whose rustup knows no other architecture's standard library.
//!
//! Debian 12 has a recent one beside its own old one (`rustc-web`, kept up for browsers), and its standard library for each
//! architecture. Its packages are unpacked into the cache: nothing is installed, and apt's own state is left alone.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::arch::Arch;
use crate::guest::{apt_options, cached, fingerprint, mirror, remove, security_mirror};
use crate::setup::{self, run};
use crate::workspace::cache_dir;

/// Its version decides what the cache holds.
const RECIPE: &str = include_str!("debian.rs");

/// Gets the compiler, with standard libraries for this machine and for `arch`. Gives variables for cargo.
///
/// # Errors
/// When the packages cannot be had.
pub(super) fn compiler(arch: Arch) -> Result<Vec<(String, OsString)>> {
    let dir = cached(&format!("compiler-{arch}"), &key(arch), |dir| unpack(dir, arch))?;
    Ok(vec![("RUSTC".to_owned(), dir.join("rustc").into())])
}

/// It was got before.
pub(super) fn is_there(arch: Arch) -> Result<bool> {
    Ok(cache_dir()?.join(format!("compiler-{arch}-{}", key(arch))).is_dir())
}

fn key(arch: Arch) -> String {
    fingerprint(&(RECIPE, std::env::consts::ARCH, arch.debian()))
}

fn unpack(dir: &Path, arch: Arch) -> Result<()> {
    let host = Arch::ALL.into_iter().find(|arch| arch.is_host()).context("no packages for this machine")?;
    eprintln!("cross: rustup has no {}; getting Debian's compiler", arch.target());
    let apt = Apt::new(dir, [host, arch])?;
    let version = apt.ask(&["policy", "rustc-web"], "Candidate:")?;
    let library = apt.ask(&["depends", "libstd-rust-web-dev"], "Depends: libstd-rust-web-")?;
    let library = format!("libstd-rust-web-{library}");
    let llvm = apt.ask(&["depends", &library], "Depends: libllvm")?;
    let debs = dir.join("debs");
    std::fs::create_dir(&debs)?;
    let of = |package: &str, arch: Arch| format!("{package}:{}={version}", arch.debian());
    let mut wanted = vec![
        of("rustc-web", host),
        of("libstd-rust-web-dev", host),
        of(&library, host),
        of("libstd-rust-web-dev", arch),
    ];
    wanted.extend(apt.closure(&format!("libllvm{llvm}"))?.iter().map(|name| format!("{name}:{}", host.debian())));
    run(apt.command("apt-get").current_dir(&debs).args(["--quiet", "download"]).args(wanted))?;
    let root = dir.join("root");
    for deb in std::fs::read_dir(&debs)? {
        run(setup::command("dpkg-deb").arg("--extract").arg(deb?.path()).arg(&root))?;
    }
    remove(&debs)?;
    remove(&dir.join("apt"))?;
    // The folder gets its name when it is whole, so the program finds its libraries from where it lies.
    let program = dir.join("rustc");
    let libraries = format!("$here/root/usr/lib/{}", host.multiarch());
    let script = format!(
        "#!/bin/sh\nhere=$(dirname \"$0\")\nLD_LIBRARY_PATH=\"{libraries}\" exec \"$here/root/usr/bin/rustc\" \"$@\"\n"
    );
    std::fs::write(&program, script)?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    run(Command::new(&program).arg("-vV")).context("Debian's compiler does not start here")?;
    Ok(())
}

/// An apt of its own, for packages of Debian 12 of two architectures.
struct Apt {
    config: std::path::PathBuf,
}

impl Apt {
    fn new(dir: &Path, [host, other]: [Arch; 2]) -> Result<Self> {
        let apt = dir.join("apt");
        for folder in ["etc/apt.conf.d", "etc/preferences.d", "etc/sources.list.d", "state/lists/partial"] {
            std::fs::create_dir_all(apt.join(folder))?;
        }
        std::fs::create_dir_all(apt.join("cache/archives/partial"))?;
        std::fs::write(apt.join("status"), "")?;
        let source = |uri: &str, suite: &str| {
            format!(
                "Types: deb\nURIs: {uri}\nSuites: {suite}\nComponents: main\nArchitectures: {} {}\n\
                 Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n",
                host.debian(),
                other.debian()
            )
        };
        let sources = source(&mirror(), "bookworm") + &source(&security_mirror(), "bookworm-security");
        std::fs::write(apt.join("etc/sources.list.d/d.sources"), sources)?;
        let at = apt.display();
        let mut config = format!(
            "Dir::Etc \"{at}/etc\";\nDir::State \"{at}/state\";\nDir::State::status \"{at}/status\";\nDir::Cache \"{at}/cache\";\n\
             APT::Architecture \"{}\";\nAPT::Architectures {{\"{}\"; \"{}\";}};\nAPT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\n",
            host.debian(),
            host.debian(),
            other.debian()
        );
        for option in apt_options() {
            config += &format!("{option};\n");
        }
        let path = apt.join("apt.conf");
        std::fs::write(&path, config)?;
        let apt = Self { config: path };
        run(apt.command("apt-get").args(["--quiet", "update"])).context("cannot get Debian 12's package lists")?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = setup::command(program);
        command.env("APT_CONFIG", &self.config);
        command
    }

    /// A package and all that it needs, but for what every system has, which must be this system's own.
    fn closure(&self, package: &str) -> Result<Vec<String>> {
        const EVERYWHERE: [&str; 5] = ["libc6", "libcrypt1", "libgcc-s1", "libstdc++6", "gcc-12-base"];
        let answer = run(self.command("apt-cache").args(["depends", "--recurse", "--important", package]))?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        // Names begin a line; what each needs is indented below it, and virtual packages stand in angle brackets.
        let names = answer.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_alphanumeric()));
        let own = names.filter(|name| !name.contains(':') && !EVERYWHERE.contains(name));
        Ok(own.map(str::to_owned).collect())
    }

    /// The word behind `label` in what apt-cache answers.
    fn ask(&self, question: &[&str], label: &str) -> Result<String> {
        let answer = run(self.command("apt-cache").args(question))?;
        let answer = String::from_utf8_lossy(&answer);
        let word = answer.lines().find_map(|line| line.trim().strip_prefix(label));
        let word = word.with_context(|| format!("apt-cache {}: no {label} in {answer}", question.join(" ")))?;
        Ok(word.trim().to_owned())
    }
}
