//! The base, the contents that the log gives to sectors, and states as overlays over the base (`CUT-15`).

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Range;
use std::rc::Rc;

use sha2::{Digest, Sha256};

use crate::SECTOR;
use crate::store::ReadAt;

/// What a sector holds: the base's content, or one that was written to it. Equal contents of one sector are equal here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Content {
    /// What the base holds.
    Base,
    /// The content with this number.
    Written(u32),
}

/// A fingerprint of what differs from the base: equal for equal disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Fingerprint(pub u128);

impl Fingerprint {
    fn toggle(&mut self, other: u128) {
        self.0 ^= other;
    }
}

#[derive(Debug)]
struct Version {
    /// Where in the log it lies; None for zeros.
    at: Option<u64>,
    hash: u128,
}

/// Base and log, as sectors.
#[derive(Debug)]
pub struct Disk<B, L> {
    base: B,
    log: L,
    bytes: u64,
    versions: Vec<Version>,
    known: HashMap<(u64, u128), u32>,
    /// Fingerprints of ranges of layers.
    ranges: RefCell<HashMap<(Fingerprint, u64, u64), Fingerprint>>,
}

impl<B: ReadAt, L: ReadAt> Disk<B, L> {
    /// A disk of the base's length.
    ///
    /// # Errors
    /// When the length cannot be found.
    pub fn new(base: B, log: L) -> io::Result<Disk<B, L>> {
        let bytes = base.length()?;
        Ok(Disk { base, log, bytes, versions: Vec::new(), known: HashMap::new(), ranges: RefCell::default() })
    }

    /// Length in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The base.
    pub fn base(&self) -> &B {
        &self.base
    }

    /// Learns what is written to `sector`: the bytes of the log at `at`, or zeros.
    ///
    /// # Errors
    /// When base or log cannot be read.
    pub fn learn(&mut self, sector: u64, at: Option<u64>) -> io::Result<Content> {
        let (mut old, mut new) = ([0; SECTOR], [0; SECTOR]);
        if let Some(at) = at {
            self.log.read_exact_at(&mut new, at)?;
        }
        self.base.read_exact_at(&mut old, sector * SECTOR as u64)?;
        if old == new {
            return Ok(Content::Base);
        }
        let digest = Sha256::new().chain_update(sector.to_le_bytes()).chain_update(new).finalize();
        let mut half = [0; 16];
        half.copy_from_slice(&digest[..16]);
        let hash = u128::from_le_bytes(half);
        let next = u32::try_from(self.versions.len()).map_err(io::Error::other)?;
        let number = *self.known.entry((sector, hash)).or_insert(next);
        if number == next {
            self.versions.push(Version { at, hash });
        }
        Ok(Content::Written(number))
    }

    /// Reads what a sector holds.
    ///
    /// # Errors
    /// When base or log cannot be read.
    pub fn read(&self, sector: u64, content: Content, buffer: &mut [u8; SECTOR]) -> io::Result<()> {
        match content {
            Content::Base => self.base.read_exact_at(buffer, sector * SECTOR as u64),
            Content::Written(number) => match self.versions[number as usize].at {
                Some(at) => self.log.read_exact_at(buffer, at),
                None => {
                    buffer.fill(0);
                    Ok(())
                }
            },
        }
    }

    /// A layer holds many sectors, and is asked for the same ranges by many states.
    fn fingerprint_of(&self, layer: &Layer, sectors: &Range<u64>) -> Fingerprint {
        let key = (layer.fingerprint, sectors.start, sectors.end);
        if let Some(known) = self.ranges.borrow().get(&key) {
            return *known;
        }
        let mut fingerprint = Fingerprint::default();
        for content in layer.sectors.range(sectors.clone()).map(|(_, content)| content) {
            fingerprint.toggle(self.hash(*content));
        }
        self.ranges.borrow_mut().insert(key, fingerprint);
        fingerprint
    }

    fn hash(&self, content: Content) -> u128 {
        match content {
            Content::Base => 0,
            Content::Written(number) => self.versions[number as usize].hash,
        }
    }
}

/// Many sectors that differ from the base, shared by many states.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    sectors: BTreeMap<u64, Content>,
    fingerprint: Fingerprint,
}

impl Layer {
    /// What a sector holds.
    pub fn get(&self, sector: u64) -> Content {
        self.sectors.get(&sector).copied().unwrap_or(Content::Base)
    }

    /// What differs from the base.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Puts a content there.
    pub fn put<B: ReadAt, L: ReadAt>(&mut self, disk: &Disk<B, L>, sector: u64, content: Content) {
        let old = match content {
            Content::Base => self.sectors.remove(&sector),
            written => self.sectors.insert(sector, written),
        };
        self.fingerprint.toggle(disk.hash(old.unwrap_or(Content::Base)) ^ disk.hash(content));
    }
}

/// A disk that a cut could leave.
#[derive(Debug, Clone)]
pub struct State {
    layer: Rc<Layer>,
    /// What differs from the layer.
    delta: BTreeMap<u64, Content>,
    fingerprint: Fingerprint,
}

impl State {
    /// The disk as the layer says.
    pub fn of(layer: Rc<Layer>) -> State {
        let fingerprint = layer.fingerprint;
        State { layer, delta: BTreeMap::new(), fingerprint }
    }

    /// Puts a content there.
    pub fn put<B: ReadAt, L: ReadAt>(&mut self, disk: &Disk<B, L>, sector: u64, content: Content) {
        let old = self.delta.insert(sector, content).unwrap_or_else(|| self.layer.get(sector));
        self.fingerprint.toggle(disk.hash(old) ^ disk.hash(content));
    }

    /// What a sector holds.
    pub fn get(&self, sector: u64) -> Content {
        match self.delta.get(&sector) {
            Some(content) => *content,
            None => self.layer.get(sector),
        }
    }

    /// The whole disk's fingerprint.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The fingerprint of some sectors alone.
    pub fn fingerprint_of<B: ReadAt, L: ReadAt>(&self, disk: &Disk<B, L>, sectors: Range<u64>) -> Fingerprint {
        let mut fingerprint = disk.fingerprint_of(&self.layer, &sectors);
        for (sector, content) in self.delta.range(sectors) {
            fingerprint.toggle(disk.hash(self.layer.get(*sector)) ^ disk.hash(*content));
        }
        fingerprint
    }

    /// Sectors of a range and what they hold, where that is not known to be what the base holds; ascending.
    pub fn changed_in(&self, sectors: Range<u64>) -> BTreeMap<u64, Content> {
        let all = self.layer.sectors.range(sectors.clone()).chain(self.delta.range(sectors));
        all.map(|(sector, content)| (*sector, *content)).collect()
    }

    /// The sectors that differ from the base, ascending.
    pub fn changed(&self) -> Vec<(u64, Content)> {
        let mut all = self.layer.sectors.clone();
        all.extend(self.delta.iter().map(|(sector, content)| (*sector, *content)));
        all.into_iter().filter(|(_, content)| *content != Content::Base).collect()
    }
}
