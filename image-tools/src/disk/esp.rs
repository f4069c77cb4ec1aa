//! The EFI system partition of a new disk (`DSK-10`).

use std::io::Read;

use anyhow::{Context, Result, bail};
use boot_entries::fat::{FormatOptions, format_esp};
use boot_entries::{
    BootOptions, Entry, EntryArchitecture, Esp, EspPath, Generation, ImageEsp, Liveness, PayloadKind, PayloadName,
};
use disk_layout::{DiskLayout, FileWindow, LABEL_ESP, Partition, Seed, Slot};
use image_format::{Architecture, Manifest, PE_HEAD_LEN, PayloadReader, SystemId};

use crate::output;
use crate::source::{self, Source};

/// `ENT-60`.
const LOADER_CONF: &str = "\
timeout 0
editor no
auto-entries no
auto-firmware no
secure-boot-enroll off
reboot-on-error yes
";

/// A new ESP, being filled.
#[derive(Debug)]
pub struct NewEsp {
    esp: ImageEsp<FileWindow>,
}

impl NewEsp {
    /// Makes the file system and its directories.
    pub fn format(mut partition: FileWindow, layout: &DiskLayout, seed: Seed) -> Result<NewEsp> {
        let sector_size = u16::try_from(layout.sector_size).context("the sectors are too large for FAT")?;
        let options = FormatOptions { label: LABEL_ESP, serial: seed.number("EFI file system"), sector_size };
        format_esp(&mut partition, options).with_context(|| {
            let len = output::size(layout.esp.len);
            format!("cannot make a FAT32 file system of {len}; --esp-size 512M is a good size")
        })?;
        Ok(NewEsp { esp: ImageEsp::new(partition) })
    }

    /// Puts the boot loader where the firmware looks for it without being told, and its configuration.
    pub fn put_loader(&mut self, loader: &[u8], architecture: Architecture) -> Result<()> {
        let name = match architecture {
            Architecture::X86_64 => "BOOTX64.EFI",
            Architecture::Aarch64 => "BOOTAA64.EFI",
        };
        self.put(&format!("EFI/BOOT/{name}"), loader)?;
        self.put("loader/loader.conf", LOADER_CONF.as_bytes())
    }

    /// Puts the kernel of the image, and checks that it is one.
    pub fn put_kernel(&mut self, payload: PayloadReader<'_, Source>, architecture: Architecture) -> Result<()> {
        let path = payload_path(PayloadKind::Linux);
        self.put_payload(&path, payload)?;
        let head = self.esp.read_head(&path, PE_HEAD_LEN)?;
        Ok(source::check_kernel(&head, architecture)?)
    }

    /// Puts the initrd of the image.
    pub fn put_initrd(&mut self, payload: PayloadReader<'_, Source>) -> Result<()> {
        self.put_payload(&payload_path(PayloadKind::Initrd), payload)
    }

    fn put_payload(&mut self, path: &EspPath, mut payload: PayloadReader<'_, Source>) -> Result<()> {
        let size = payload.payload().size;
        let space = self.esp.space()?;
        if space.clusters(size) > space.free_clusters {
            let free = output::size(space.free_clusters * u64::from(space.cluster_size));
            bail!(
                "the EFI system partition is too small: {path} has {} and there are {free} left; choose a larger --esp-size",
                output::size(size)
            );
        }
        Ok(self.esp.write_new(path, size, &mut payload)?)
    }

    /// Puts the entry of slot A, committed and live, and flushes everything.
    pub fn put_entry(mut self, manifest: &Manifest, system_id: SystemId, slot: &Partition) -> Result<()> {
        let (_, verity) = manifest.root();
        let entry = Entry {
            title: manifest.title.clone(),
            architecture: match manifest.architecture {
                Architecture::X86_64 => EntryArchitecture::X64,
                Architecture::Aarch64 => EntryArchitecture::Aa64,
            },
            options: BootOptions {
                root_hash: *verity.root_hash.as_bytes(),
                partuuid: slot.unique_guid,
                hash_offset: verity.hash_offset,
                slot: Slot::A,
                generation: Generation::FIRST,
                system: *system_id.as_bytes(),
                epoch: manifest.epoch,
                os_version: manifest.version.clone(),
                failed: None,
                extra: manifest.options.clone(),
            },
            linux_sha256: *manifest.linux().sha256.as_bytes(),
            initrd_sha256: *manifest.initrd().sha256.as_bytes(),
        };
        entry.check().context("the image gives no valid boot entry")?;
        let path = entry.name(None).path();
        self.put(path.as_str(), &entry.render(Liveness::Live))?;
        Ok(self.esp.flush()?)
    }

    fn put(&mut self, path: &str, mut bytes: &[u8]) -> Result<()> {
        let size = bytes.len() as u64;
        let content: &mut dyn Read = &mut bytes;
        Ok(self.esp.write_new(&path.parse()?, size, content)?)
    }
}

fn payload_path(kind: PayloadKind) -> EspPath {
    PayloadName { slot: Slot::A, generation: Generation::FIRST, kind }.path()
}
