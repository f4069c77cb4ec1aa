//! `ralph-image disk`: a bootable disk with an image in slot A, committed, and an empty slot B.

mod esp;
mod root;
mod secure_boot;
mod var;

use std::fmt::Write as _;
use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use disk_layout::{Architecture, DiskLayout, FileWindow, NewDisk, PlannedDisk, Seed, Slot, parse_size};
use image_format::{Manifest, PayloadKind, PayloadReader, SlotMap, SystemId, pe_machine};

use crate::keys::TrustArgs;
use crate::output::{self, NewFile, OutputArgs};
use crate::progress::Progress;
use crate::source::{self, Source};
use crate::uki::read_short;

const MIB: u64 = 1 << 20;
/// `DSK-22`: the slot is at least this long unless told otherwise.
const SMALLEST_DEFAULT_SLOT: u64 = 1 << 30;
/// No boot loader is longer.
const LOADER_MAX: u64 = 16 * MIB;

/// Make a bootable disk image: EFI partition, the image in slot A, an empty slot B, /var
///
/// The image is verified as a device would. Without --seed every disk gets GUIDs of its own; with it the same inputs
/// give the same disk, byte for byte. Needs mke2fs and debugfs (Debian package e2fsprogs).
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image for slot A; "-" is standard input.
    #[arg(long, value_name = "IMAGE")]
    image: PathBuf,
    #[command(flatten)]
    trust: TrustArgs,
    /// systemd-boot for the image's architecture, such as /usr/lib/systemd/boot/efi/systemd-bootx64.efi.
    #[arg(long, value_name = "FILE")]
    loader: PathBuf,
    /// Length of each slot. Default: twice what the image needs, at least 1G.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    slot_size: Option<u64>,
    /// Length of the partition for /var.
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "1G")]
    var_size: u64,
    /// Length of the EFI system partition. Default: room for two systems like the image, at least 512M.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    esp_size: Option<u64>,
    /// Bytes in a logical sector of the disk, 512 or 4096.
    #[arg(long, value_name = "BYTES", default_value = "512")]
    sector_size: u64,
    /// Derive all GUIDs from this number, for a reproducible disk. Never use two such disks in one machine.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    #[command(flatten)]
    secure_boot: secure_boot::SecureBootArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let tools = var::Tools::find()?;
    let policy = args.trust.policy()?;
    let loader = read_short(&args.loader, "boot loader", LOADER_MAX)?;
    let mut image = source::open_verified(&args.image, &policy)?;
    let (manifest, system_id) = (image.manifest().clone(), image.system_id());
    check_loader(args, &loader, &manifest)?;
    args.secure_boot.check_before(&args.loader, &loader, &args.image, &manifest)?;
    let seed = args.seed.map_or(Seed::Random, Seed::Fixed);
    let (payloads, loader_len) = (manifest.boot().sizes(), loader.len() as u64);
    let esp_len = args.esp_size.unwrap_or_else(|| esp::default_len(&payloads, loader_len));
    let planned = plan(args, &manifest, esp_len, seed)?;
    let layout = planned.layout();

    let mut new = NewFile::create(&args.output)?;
    let place = args.output.output.display();
    let cannot_write = || format!("cannot write {place}");
    // Everything that is not written stays a hole.
    planned.set_len(new.file()).with_context(cannot_write)?;
    let refused = || format!("cannot make a disk of {}", args.image.display());
    let progress = Progress::new("writing", manifest.root().0.size);
    let window = FileWindow::new(duplicate(&mut new)?, layout.esp.start, layout.esp.len);
    let mut esp = esp::NewEsp::format(window.with_context(cannot_write)?, layout, seed)?;
    esp.put_loader(&loader, layout.architecture.into())?;
    esp.demand_room(&payloads, loader_len)?;
    while let Some(payload) = image.next_payload().with_context(refused)? {
        match payload.payload().kind.clone() {
            PayloadKind::Root(verity) => root::write(payload, &verity, new.path(), layout, &progress),
            PayloadKind::Linux { .. } => esp.put_kernel(payload, manifest.architecture),
            PayloadKind::Initrd => {
                let size = payload.payload().size;
                esp.put_payload(boot_entries::PayloadKind::Initrd, size, payload)
            }
            PayloadKind::Uki { .. } => put_uki(args, &mut esp, payload, &manifest),
            PayloadKind::Unknown(_) => payload.drain().map_err(Into::into),
        }
        .with_context(refused)?;
    }
    let map = SlotMap::whole(system_id, image.chunks());
    image.finish().with_context(refused)?;
    esp.put_entry(&manifest, system_id, layout.slot(Slot::A))?;
    drop(progress);
    if let Some(var) = &layout.var {
        tools.make_var(new.file(), var, seed, &map).context("cannot make the file system for /var")?;
    }
    // Last: a disk that was cut short has no partition table and is taken for a disk by nobody.
    planned.write_table(new.file()).with_context(cannot_write)?;
    new.finish()?;
    let mut text = summary(&place.to_string(), layout, &manifest, system_id);
    if let Some(signed) = args.secure_boot.summary() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {signed}");
    }
    output::print(text.as_bytes())
}

fn put_uki(args: &Args, esp: &mut esp::NewEsp, payload: PayloadReader<'_, Source>, manifest: &Manifest) -> Result<()> {
    let size = payload.payload().size;
    let uki = source::read_uki(payload, manifest, &mut |_| ())?;
    args.secure_boot.check_uki(&uki)?;
    esp.put_payload(boot_entries::PayloadKind::Uki, size, uki.file)
}

fn duplicate(new: &mut NewFile) -> Result<File> {
    new.file().try_clone().context("cannot duplicate a file handle")
}

/// A loader for another machine would be ignored by the firmware: the disk would not boot, and nobody would be told why.
fn check_loader(args: &Args, loader: &[u8], manifest: &Manifest) -> Result<()> {
    let shown = args.loader.display();
    let found = pe_machine(loader).with_context(|| format!("{shown} is not an EFI boot loader"))?;
    if found != manifest.architecture {
        bail!("the boot loader {shown} is for {found}, but the image is for {}", manifest.architecture);
    }
    Ok(())
}

fn architecture(manifest: &Manifest) -> Architecture {
    match manifest.architecture {
        image_format::Architecture::X86_64 => Architecture::X86_64,
        image_format::Architecture::Aarch64 => Architecture::Aarch64,
    }
}

fn plan(args: &Args, manifest: &Manifest, esp_len: u64, seed: Seed) -> Result<PlannedDisk> {
    let needed = manifest.slot_bytes;
    let slot_len = args.slot_size.unwrap_or_else(|| (2 * needed).max(SMALLEST_DEFAULT_SLOT));
    if slot_len < needed {
        bail!(
            "a slot of {} is too small: the image needs {} of it (--slot-size {}M)",
            output::size(slot_len),
            output::size(needed),
            needed.div_ceil(MIB),
        );
    }
    let disk = NewDisk {
        architecture: architecture(manifest),
        sector_size: args.sector_size,
        esp_len,
        slot_len,
        var_len: args.var_size,
        seed,
    };
    disk.plan().context("cannot lay out the disk")
}

fn summary(place: &str, layout: &DiskLayout, manifest: &Manifest, system_id: SystemId) -> String {
    let mut text = format!("{place}: {}\n", output::size(layout.disk_len));
    let [a, b] = Slot::ALL.map(|slot| layout.slot(slot));
    let slot_a = format!("{} {}, committed", manifest.os_id, manifest.version);
    let rows = [(&layout.esp, "boot loader, kernel, initrd"), (a, &slot_a), (b, "empty")];
    for (partition, content) in rows.into_iter().chain(layout.var.as_ref().map(|var| (var, "ext4"))) {
        let (number, label, guid) = (partition.number, &partition.label, partition.unique_guid);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {number} {label:8} {:>9}  {guid}  {content}", output::size(partition.len));
    }
    let _ = writeln!(text, "  system id  {system_id}");
    text
}
