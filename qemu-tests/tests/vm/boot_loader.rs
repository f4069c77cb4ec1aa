//! What the order of effects rests on, shown with the real boot loaders of Debian 12 and 13: an inert entry is no
//! entry, and one byte makes it live (ENT-10, ENT-21, LDR-1, LDR-5).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::{ARCH, scenario};
use anyhow::{Context, Result, ensure};
use qemu_tests::esp::Esp;
use qemu_tests::guest;
use qemu_tests::lab::Lab;
use qemu_tests::setup::{command, run};
use qemu_tests::vm::{BOOT_TIMEOUT, OnReset, Vm};

const COMMITTED: &str = "ralphos-a-g1.conf";
const STAGED: &str = "ralphos-b-g7+3-0.conf";

#[test]
fn systemd_boot_252_skips_an_inert_entry_and_one_byte_makes_it_live() -> Result<()> {
    scenario("loader-252", |lab| inert_then_live(lab, &guest::loader_252(ARCH)?))
}

#[test]
fn systemd_boot_257_skips_an_inert_entry_and_one_byte_makes_it_live() -> Result<()> {
    scenario("loader-257", |lab| inert_then_live(lab, &guest::base(ARCH)?.loader))
}

fn inert_then_live(lab: &Lab, loader: &Path) -> Result<()> {
    let (disk, esp) = make_disk(lab, loader)?;

    // Inert: the loader takes the other entry and counts nothing.
    assert_eq!(booted(lab, &disk)?, "a");
    assert_eq!(esp.entries()?, [COMMITTED, STAGED]);

    make_live(&disk)?;
    let content = esp.read(&format!("loader/entries/{STAGED}"))?;
    assert!(content.starts_with(b" linux /ralphos/b/g7-linux\n"));

    // Live: it is newer, so it boots, and each try is counted before the kernel starts.
    for counted in ["ralphos-b-g7+2-1.conf", "ralphos-b-g7+1-2.conf", "ralphos-b-g7+0-3.conf"] {
        assert_eq!(booted(lab, &disk)?, "b");
        assert_eq!(esp.entries()?, [COMMITTED, counted]);
    }
    // Used up: bad sorts last.
    assert_eq!(booted(lab, &disk)?, "a");
    assert_eq!(esp.entries()?, [COMMITTED, "ralphos-b-g7+0-3.conf"]);
    Ok(())
}

/// Boots once, and tells which entry's options the kernel was given.
fn booted(lab: &Lab, disk: &Path) -> Result<String> {
    let vm = Vm::start(ARCH, disk, &lab.machine("machine")?, OnReset::Exit)?;
    let transcript = vm.wait_end(BOOT_TIMEOUT)?;
    let printed = transcript.lines().iter().find_map(|line| line.text.split_once("which="));
    let (_, slot) = printed.with_context(|| format!("no command line on the console:\n{}", transcript.last_boot()))?;
    Ok(slot.split_whitespace().next().unwrap_or_default().to_owned())
}

/// A disk with an ESP alone: slot A's entry committed, slot B's staged but inert.
fn make_disk(lab: &Lab, loader: &Path) -> Result<(PathBuf, Esp)> {
    const MIB: u64 = 1 << 20;
    let disk = lab.path("disk.raw");
    let volume = lab.path("esp.fat");
    File::create(&volume)?.set_len(96 * MIB)?;
    run(command("mkfs.vfat").args(["-F", "32", "-s", "1"]).arg(&volume))?;
    let esp = Esp::at(&volume, 0);
    esp.make_folders(&["EFI", "EFI/BOOT", "loader", "loader/entries", "ralphos", "ralphos/a", "ralphos/b"])?;
    esp.copy_in(loader, &ARCH.loader_path())?;
    let base = guest::base(ARCH)?;
    for (slot, generation, name, live_byte) in [("a", 1, COMMITTED, ' '), ("b", 7, STAGED, '#')] {
        esp.copy_in(&base.linux, &format!("ralphos/{slot}/g{generation}-linux"))?;
        esp.copy_in(&base.initrd_that_prints, &format!("ralphos/{slot}/g{generation}-initrd"))?;
        let text = format!(
            "{live_byte}linux /ralphos/{slot}/g{generation}-linux\n\
             initrd /ralphos/{slot}/g{generation}-initrd\n\
             title RalphOS\n\
             version {generation}-1.0.0\n\
             sort-key ralphos\n\
             architecture {}\n\
             options {} quiet which={slot}\n\
             # ralphos-entry 1\n",
            ARCH.efi(),
            ARCH.kernel_options()
        );
        let file = lab.path(name);
        std::fs::write(&file, text)?;
        esp.copy_in(&file, &format!("loader/entries/{name}"))?;
    }
    let conf = lab.path("loader.conf");
    std::fs::write(&conf, "timeout 0\neditor no\nauto-entries no\nauto-firmware no\n")?;
    esp.copy_in(&conf, "loader/loader.conf")?;

    let file = File::create(&disk)?;
    file.set_len(98 * MIB)?;
    run(command("sgdisk").args(["--new=1:2048:+96M", "--typecode=1:ef00", "--change-name=1:EFI"]).arg(&disk))?;
    file.write_all_at(&std::fs::read(&volume)?, MIB)?;
    Ok((disk.clone(), Esp::of_disk(&disk)?))
}

/// Overwrites the live byte of slot B's entry where it lies on the medium, and nothing else.
fn make_live(disk: &Path) -> Result<()> {
    const INERT: &[u8] = b"#linux /ralphos/b/g7-linux";
    let bytes = std::fs::read(disk)?;
    let places: Vec<usize> = (0..bytes.len()).step_by(512).filter(|&at| bytes[at..].starts_with(INERT)).collect();
    ensure!(places.len() == 1, "the entry's data stands {} times on the disk", places.len());
    File::options().write(true).open(disk)?.write_all_at(b" ", places[0] as u64)?;
    Ok(())
}
