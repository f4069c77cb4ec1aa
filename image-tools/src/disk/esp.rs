//! The EFI system partition of a new disk (`DSK-10`).

use std::io::{Cursor, Read};

use anyhow::{Context, Result, bail};
use boot_entries::fat::{FormatOptions, format_esp};
use boot_entries::guard;
use boot_entries::names::default_loader;
use boot_entries::{EntryArchitecture, Esp, Generation, ImageEsp, Liveness, OnCorruption, PayloadKind, PayloadName};
use disk_layout::{DiskLayout, FileWindow, LABEL_ESP, Partition, Seed, Slot};
use image_format::{Architecture, Manifest, PE_HEAD_LEN, PayloadReader, SystemId};

use updater::new_entry::{Place, new_entry};

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

/// What the updater wants to spare besides the next kernel and initrd.
const SPARE: u64 = 1 << 20;
/// Clusters for entries and longer directories, of both systems.
const NAMES: u64 = 16;
/// No FAT has larger clusters.
const LARGEST_CLUSTER: u64 = 32 << 10;
/// `DSK-11`.
const SMALLEST_DEFAULT: u64 = 512 << 20;

/// `DSK-11`: the default length of an ESP for an image with these sizes of payloads, and a loader.
pub fn default_len(payloads: &[u64], loader: u64) -> u64 {
    sufficient_len(payloads, loader).max(SMALLEST_DEFAULT)
}

/// A length that is enough for two such systems, whatever clusters it gets; a little more than the least one.
fn sufficient_len(payloads: &[u64], loader: u64) -> u64 {
    let whole = |size: u64| size.next_multiple_of(LARGEST_CLUSTER);
    // The loader's configuration, the guard's record and eight directories are there from the beginning.
    let names = (NAMES + 10) * LARGEST_CLUSTER;
    let data = 2 * payloads.iter().map(|size| whole(*size)).sum::<u64>() + whole(loader) + SPARE + names;
    // Two FATs take eight bytes for each cluster of at least 512; some sectors stand before them.
    let len = (data + (256 << 10)) * 64 / 63;
    len.next_multiple_of(1 << 20)
}

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
        let mut esp = ImageEsp::new(partition);
        guard::make(&mut esp).context("cannot make the boot guard's record")?;
        Ok(NewEsp { esp })
    }

    /// Puts the boot loader where the firmware looks for it without being told, and its configuration.
    pub fn put_loader(&mut self, loader: &[u8], architecture: EntryArchitecture) -> Result<()> {
        self.put(default_loader(architecture).as_str(), loader)?;
        self.put("loader/loader.conf", LOADER_CONF.as_bytes())
    }

    /// Insists on room for two systems with these sizes of payloads (`DSK-11`): without it the first update would be
    /// refused, and every one after it. To be called when the loader is there and nothing else.
    pub fn demand_room(&mut self, payloads: &[u64], loader: u64) -> Result<()> {
        let space = self.esp.space()?;
        let needed = 2 * payloads.iter().map(|size| space.clusters(*size)).sum::<u64>() + space.clusters(SPARE) + NAMES;
        if needed > space.free_clusters {
            let [needed, free] = [needed, space.free_clusters].map(|n| output::size(n * u64::from(space.cluster_size)));
            bail!(
                "the EFI system partition is too small to be updated: two systems like this one take {needed} with \
                 {} to spare, and {free} would be free (--esp-size {}M)",
                output::size(SPARE),
                sufficient_len(payloads, loader) >> 20,
            );
        }
        Ok(())
    }

    /// Puts a payload of the image.
    pub fn put_payload(&mut self, kind: PayloadKind, size: u64, mut content: impl Read) -> Result<()> {
        let path = PayloadName { slot: Slot::A, generation: Generation::FIRST, kind }.path();
        Ok(self.esp.write_new(&path, size, &mut content)?)
    }

    /// Puts the kernel of the image, which must be one for this machine.
    pub fn put_kernel(&mut self, mut payload: PayloadReader<'_, Source>, architecture: Architecture) -> Result<()> {
        let size = payload.payload().size;
        let mut head = Vec::new();
        (&mut payload).take(PE_HEAD_LEN as u64).read_to_end(&mut head)?;
        source::check_kernel(&head, architecture)?;
        self.put_payload(PayloadKind::Linux, size, Cursor::new(head).chain(payload))
    }

    /// Puts the entry of slot A, committed and live, and flushes everything.
    pub fn put_entry(mut self, manifest: &Manifest, system_id: SystemId, slot: &Partition) -> Result<()> {
        let place = Place { slot: Slot::A, partuuid: slot.unique_guid, generation: Generation::FIRST };
        // Committed from the start.
        let entry = new_entry(manifest, system_id, place, OnCorruption::Fail);
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

#[cfg(test)]
mod tests {
    use disk_layout::NewDisk;

    use super::*;

    #[test]
    fn dsk11_the_length_that_is_named_is_enough_for_two_systems() {
        const MIB: u64 = 1 << 20;
        let loader = vec![0; 1 << 20];
        // Around the sizes at which clusters grow, and where FAT32 becomes possible.
        let sizes = [1, 13 * MIB + 1, 16 * MIB, 60 * MIB, 127 * MIB, 129 * MIB, 250 * MIB, 2000 * MIB, 4094 * MIB];
        for (size, sector_size) in sizes.into_iter().flat_map(|size| [(size, 512), (size, 4096)]) {
            let payloads = &[size, size / 3 + 1];
            let smallest_fat32 = if sector_size == 512 { 34 * MIB } else { 280 * MIB };
            let len = sufficient_len(payloads, MIB);
            let disk = NewDisk {
                architecture: disk_layout::Architecture::X86_64,
                sector_size,
                esp_len: len.max(smallest_fat32),
                slot_len: MIB,
                var_len: MIB,
                seed: Seed::Fixed(1),
            };
            let planned = disk.plan().unwrap();
            let esp = &planned.layout().esp;
            let file = tempfile::tempfile().unwrap();
            planned.set_len(&file).unwrap();
            let window = FileWindow::new(file, esp.start, esp.len).unwrap();
            let mut new = NewEsp::format(window, planned.layout(), Seed::Fixed(1)).unwrap();
            new.put_loader(&loader, EntryArchitecture::X64).unwrap();
            new.demand_room(payloads, MIB).unwrap();
            if len > smallest_fat32 {
                // Neither far more than enough.
                let more = &payloads.map(|size| size + size / 10 + MIB);
                let error = new.demand_room(more, MIB).unwrap_err().to_string();
                assert!(error.contains(&format!("--esp-size {}M", sufficient_len(more, MIB) >> 20)), "{error}");
            }
        }
    }

    #[test]
    fn dsk11_the_default_grows_with_the_image() {
        assert_eq!(default_len(&[12 << 20, 40 << 20], 1 << 20), 512 << 20);
        let large = default_len(&[20 << 20, 300 << 20], 1 << 20);
        assert!((640 << 20..680 << 20).contains(&large) && large.is_multiple_of(1 << 20), "{large}");
        // As large as a manifest can say: no overflow.
        assert!(default_len(&[1 << 48; 2], 1 << 24) > 1 << 50);
    }
}
