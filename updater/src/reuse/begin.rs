//! An apply begins: what the slots are thought to hold is gathered, and the target's map says from now on what is being written.

use disk_layout::Slot;
use image_format::Chunk;

use crate::exit::with_source;
use crate::host::Host;

use super::journal::{Journal, SlotMaps};
use super::slots::{BootedSlot, SlotReuse};

/// What an apply needs to know of the slots' content.
#[derive(Debug)]
pub struct Begun {
    /// Where each chunk of root is taken from.
    pub reuse: SlotReuse,
    /// Hears of each flush of the target slot.
    pub journal: Journal,
    /// What could not be recorded, for a person.
    pub notes: Vec<String>,
}

/// Call it when the target slot is fenced and before anything is written to it. `table`: the SHA-256 of the image's table body, by its
/// transport record; `root`: the chunks of the first payload.
pub fn begin(host: &dyn Host, target: Slot, system: &[u8; 32], table: &[u8; 32], root: &[Chunk]) -> Begun {
    let maps = SlotMaps::beside(host.records().dir());
    let before = maps.read(target);
    let booted = host.booted().and_then(|options| {
        // The layout says which bytes are the slot's; whoever is being written is never the one that runs.
        let slot = Some(options.slot).filter(|slot| *slot != target)?;
        let (file, start) = host.open_running(slot)?;
        Some((BootedSlot::new(file, start, host.layout().slot(slot).len), maps.read(slot)?))
    });
    let running = host.booted().map(|options| &options.system);
    let reuse = SlotReuse::new(root, before.as_ref(), booted, running);
    match maps.begin(target, system, table, root) {
        Ok(journal) => Begun { reuse, journal, notes: Vec::new() },
        Err(error) => Begun { reuse, journal: Journal::nowhere(), notes: vec![with_source(&error)] },
    }
}
