//! Building for an architecture that is not this machine's: cargo needs a standard library for it, and a C compiler.
//!
//! The compiler is Debian's (`setup`). The standard library is rustup's where it has one or can fetch it (which adds it
//! to the user's toolchain); a machine whose rustup cannot gets a whole second compiler from Debian ([`debian`]).

mod debian;

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow};

use crate::arch::Arch;
use crate::{setup, workspace};

/// How cargo builds for an architecture.
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// Variables of cargo's environment.
    pub env: Vec<(String, OsString)>,
    /// Another compiler builds: its files must not lie beside the usual one's, or each would build all anew.
    pub other_compiler: bool,
}

/// What it takes to build for `arch`, found once per process.
///
/// # Errors
/// When there is no compiler for it, and none can be had.
pub fn toolchain(arch: Arch) -> Result<Toolchain> {
    static FOUND: [OnceLock<std::result::Result<Toolchain, String>>; 2] = [const { OnceLock::new() }; 2];
    FOUND[arch as usize].get_or_init(|| find(arch).map_err(|e| format!("{e:#}"))).clone().map_err(|e| anyhow!(e))
}

fn find(arch: Arch) -> Result<Toolchain> {
    setup::ensure_tools()?;
    let mut toolchain = Toolchain { env: Vec::new(), other_compiler: false };
    if arch.is_host() {
        return Ok(toolchain);
    }
    let gcc = format!("{}-gcc", arch.multiarch());
    let name = arch.target().replace('-', "_");
    toolchain.env.push((format!("CARGO_TARGET_{}_LINKER", name.to_uppercase()), gcc.clone().into()));
    toolchain.env.push((format!("CC_{name}"), gcc.into()));
    toolchain.env.push((format!("CARGO_TARGET_{}_RUNNER", name.to_uppercase()), format!("qemu-{arch}-static").into()));
    // Of two programs that ask at once, one gets it and the other finds it.
    let path = workspace::cache_dir()?.join("toolchain.lock");
    let lock = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    if has_library(arch)? {
        return Ok(toolchain);
    }
    if !debian::is_there(arch)? {
        ask_rustup(arch);
        if has_library(arch)? {
            return Ok(toolchain);
        }
    }
    toolchain.env.extend(debian::compiler(arch)?);
    toolchain.other_compiler = true;
    Ok(toolchain)
}

/// The usual compiler has a standard library for `arch`.
fn has_library(arch: Arch) -> Result<bool> {
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut rustc = Command::new(compiler);
    let place = setup::run(rustc.args(["--print", "target-libdir", "--target", arch.target()]))?;
    let place = PathBuf::from(String::from_utf8(place).context("rustc's answer is a path")?.trim());
    Ok(is_full(&place))
}

fn is_full(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut files| files.next().is_some())
}

/// Has rustup fetch it. There may be no rustup, or no way from here to where it fetches from: whoever asks looks again.
fn ask_rustup(arch: Arch) {
    eprintln!("cross: asking rustup for the standard library of {}", arch.target());
    let mut rustup = setup::command("timeout");
    rustup.args(["300", "rustup", "target", "add", arch.target()]).env("RUSTUP_MAX_RETRIES", "0");
    let _ = rustup.stdin(Stdio::null()).stdout(Stdio::null()).status();
}
