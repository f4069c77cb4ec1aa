//! What a slot was last written with, as far as this machine remembers: hints (specs/slot-map.md).
//!
//! A map tells where the bytes of a chunk might be found without fetching them. Nothing depends on it: whatever it leads to is checked by the
//! signed SHA-256 of the chunk before it is used (IMG-56), and without it everything is fetched.

mod reuse;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use disk_layout::{Slot, SlotError};
use image_format::{Chunk, MAX_MAP_LEN, MAX_PIECES, MapState, Piece, STATE_AT, SlotMap, SystemId, THROUGH_AT};

use nix::fcntl::OFlag;

pub use reuse::{KnownSlots, Running};

/// How often the journal is brought up to date, in bytes of root.
const STEP: u64 = 16 << 20;

/// How often it is made durable. Power may be lost at any time, and what was written since is then believed as far as [`SLACK`] reaches.
const SYNC: Duration = Duration::from_secs(1);

/// How far behind the journal's last word the slot may be written: its step, and what all workers have in hand (SLM-3).
const SLACK: u64 = 64 << 20;

/// The maps of both slots.
#[derive(Debug, Clone)]
pub struct SlotMaps {
    dir: PathBuf,
}

impl SlotMaps {
    /// Kept in `dir`, which is made when something is first written.
    pub fn in_dir(dir: impl Into<PathBuf>) -> Self {
        SlotMaps { dir: dir.into() }
    }

    /// `a.map`: what is, or is being, written there. `a.was`: what was there when that began.
    fn path(&self, slot: Slot, suffix: &str) -> PathBuf {
        self.dir.join(format!("{}.{suffix}", slot.to_string().to_ascii_lowercase()))
    }

    /// What the slot that runs should hold: a map of another system is not of what is there (SLM-2).
    fn of_running(&self, slot: Slot, system: SystemId) -> Vec<Piece> {
        let map = read(&self.path(slot, "map")).filter(|map| map.state == MapState::Whole && map.system == system);
        map.map(|map| map.pieces).unwrap_or_default()
    }

    /// What the slot should hold; nothing where no map can be used (SLM-2).
    fn known(&self, slot: Slot) -> Vec<Piece> {
        let Some(map) = read(&self.path(slot, "map")) else { return Vec::new() };
        let MapState::Writing { through } = map.state else { return map.pieces };
        let was = read(&self.path(slot, "was")).map(|was| was.pieces).unwrap_or_default();
        let mut pieces = map.pieces;
        pieces.retain(|piece| piece.offset < through.saturating_add(SLACK));
        let room = MAX_PIECES - pieces.len();
        pieces.extend(was.into_iter().filter(|piece| piece.offset >= through).take(room));
        pieces.sort_unstable_by_key(|piece| piece.offset);
        pieces
    }

    /// A slot is about to be written with the chunks of root of this system: what it holds is put aside, and a journal begun (SLM-3).
    ///
    /// # Errors
    /// What the system says; then there is no journal, and no map of that slot.
    pub fn begin(&self, slot: Slot, holds: &KnownSlots<'_>, system: SystemId, root: &[Chunk]) -> io::Result<Journal> {
        let begun = self.try_begin(slot, holds, system, root);
        if begun.is_err() {
            // What stands there describes a slot that is about to change. To believe it costs a request for every chunk.
            let _ = fs::remove_file(self.path(slot, "map"));
            let _ = fs::remove_file(self.path(slot, "was"));
        }
        begun
    }

    fn try_begin(&self, slot: Slot, holds: &KnownSlots<'_>, system: SystemId, root: &[Chunk]) -> io::Result<Journal> {
        fs::create_dir_all(&self.dir)?;
        let (path, was) = (self.path(slot, "map"), self.path(slot, "was"));
        let known =
            SlotMap { state: MapState::Whole, system: SystemId::from([0; 32]), pieces: holds.in_place().to_vec() };
        replace(&was, &known.to_bytes())?;
        let pieces = root.iter().map(Piece::of_chunk).collect();
        let file = replace(&path, &SlotMap { state: MapState::Writing { through: 0 }, system, pieces }.to_bytes())?;
        File::open(&self.dir)?.sync_all()?;
        Ok(Journal { file, was, told: 0, synced: Instant::now() })
    }
}

/// Reads a map; `None` where there is none, or one that cannot be used.
fn read(path: &Path) -> Option<SlotMap> {
    // Whatever else may lie there by that name must not keep us waiting.
    let plain = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let file = OpenOptions::new().read(true).custom_flags(plain).open(path).ok()?;
    let about = file.metadata().ok().filter(|about| about.is_file() && about.len() <= MAX_MAP_LEN)?;
    let mut bytes = Vec::with_capacity(about.len() as usize);
    file.take(MAX_MAP_LEN + 1).read_to_end(&mut bytes).ok()?;
    SlotMap::parse(&bytes)
}

/// See [`crate::parsers::slot_map`].
pub(crate) fn written_again(bytes: &[u8]) -> Option<Vec<u8>> {
    SlotMap::parse(bytes).map(|map| map.to_bytes())
}

/// Puts a whole file in place of what is there, durably.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let new = path.with_extension("new");
    // Left by a cut, or put there by somebody: it is not written through.
    let _ = fs::remove_file(&new);
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        Ok(file)
    };
    // A full file system is not to be kept full.
    write().inspect_err(|_: &io::Error| drop(fs::remove_file(&new)))
}

/// How far the writing of a slot is.
#[derive(Debug)]
pub struct Journal {
    file: File,
    was: PathBuf,
    told: u64,
    synced: Instant,
}

impl Journal {
    /// Everything before this byte of root is written to the slot. Noted now and then, and made durable, by `flush` the slot first: what the
    /// journal says and the slot lacks would only be read in vain, but what the slot has and the journal does not say is fetched again.
    ///
    /// # Errors
    /// The slot's. A device tells once that it lost something, and the flush at the end may not hear of it again.
    pub fn through(&mut self, bytes: u64, flush: impl FnOnce() -> Result<(), SlotError>) -> Result<(), SlotError> {
        if bytes < self.told + STEP {
            return Ok(());
        }
        if self.synced.elapsed() < SYNC {
            self.note(bytes);
            return Ok(());
        }
        flush()?;
        self.leave(bytes);
        Ok(())
    }

    /// The work ends here, for whatever reason: what it reached is made durable.
    pub fn leave(&mut self, bytes: u64) {
        self.note(bytes);
        let _ = self.file.sync_data();
        self.synced = Instant::now();
    }

    /// The slot was proven to hold the whole system.
    pub fn finish(self) {
        let whole = self.file.write_all_at(&MapState::Whole.to_bytes(), STATE_AT);
        if whole.and_then(|()| self.file.sync_data()).is_ok() {
            let _ = fs::remove_file(&self.was);
        }
    }

    fn note(&mut self, bytes: u64) {
        // What cannot be noted is not known next time, and fetched.
        let _ = self.file.write_all_at(&bytes.to_le_bytes(), THROUGH_AT);
        self.told = bytes;
    }
}

#[cfg(test)]
mod tests;
