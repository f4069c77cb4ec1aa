//! The update of the boot loader (specs/loader-update.md), from its staging to its place, in a guest that no firmware has started: a folder
//! stands in the place of the firmware's variables, and it is said there which loader would have started the machine.
//!
//! The variables are new each time: what a power cut leaves of them is the firmware's business (CUT-75), and none at all is the least.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use boot_entries::vars::{EFIVARS, LOADER_GUID};
use qemu_tests::arch::Arch;

use crate::DISK;
use crate::system::busybox;

/// Of the firmware's own variables.
const GLOBAL_GUID: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Exit codes (IFC-9): it was staged or put in its place, it is not done unless somebody insists, and nothing was to be done.
const STAGED: i32 = 0;
const REFUSED: i32 = 3;
const NOTHING_TO_DO: i32 = 4;
/// What the running system carries.
const SHIPPED: &str = "/usr/lib/ralph-update/loader.efi";

/// Runs `ralph-update loader` as a system that the default has started, and, if the firmware was asked for the alternate, once more as one
/// that this has started. In a mount namespace of its own: all other programs find a guest without EFI.
pub fn update() -> Result<()> {
    busybox(&["mount", "-t", "tmpfs", "firmware", "/sys/firmware"])?;
    busybox(&["mkdir", "-p", EFIVARS, "/usr/lib/ralph-update"])?;
    fs::copy("/job/loader.efi", SHIPPED).with_context(|| format!("cannot make {SHIPPED}"))?;
    let arch = Arch::of_disk(Path::new(DISK))?;
    started_by(&arch.loader_path())?;
    if update_loader(&[], &[STAGED, NOTHING_TO_DO, REFUSED])? == REFUSED {
        // It is there, whole, and nothing says that it was never tried: somebody has to insist (LUP-4).
        update_loader(&["--retry"], &[STAGED])?;
    }
    // The firmware takes its next choice away, and starts that.
    if fs::remove_file(format!("{EFIVARS}/BootNext-{GLOBAL_GUID}")).is_ok() {
        started_by(&arch.alternate_loader_path())?;
        update_loader(&[], &[STAGED])?;
    }
    Ok(())
}

/// Gives the exit code, which must be one of these.
fn update_loader(args: &[&str], exits: &[i32]) -> Result<i32> {
    let status = Command::new("/bin/ralph-update").arg("loader").args(args).status().context("ralph-update")?;
    let code = status.code().filter(|code| exits.contains(code));
    code.with_context(|| format!("ralph-update loader {}: {status}, and not one of {exits:?}", args.join(" ")))
}

/// As the loader says it, in a variable that does not outlive the boot.
fn started_by(path: &str) -> Result<()> {
    let path = format!("/{path}").replace('/', "\\");
    let utf16 = path.encode_utf16().chain([0]).flat_map(u16::to_le_bytes);
    let value: Vec<u8> = [6, 0, 0, 0].into_iter().chain(utf16).collect();
    let variable = format!("{EFIVARS}/LoaderImageIdentifier-{LOADER_GUID}");
    fs::write(&variable, value).with_context(|| format!("cannot write {variable}"))
}
