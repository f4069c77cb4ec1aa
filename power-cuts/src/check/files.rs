//! Digests of files on the ESP, each computed once for the sectors that it covers.

use std::collections::HashMap;
use std::io::{self, Read};
use std::ops::Range;
use std::rc::Rc;

use boot_entries::fat::{Extents, FatError, RawItem, Volume};
use sha2::{Digest, Sha256};

use super::sectors;
use crate::disk::{Disk, Fingerprint, State};
use crate::places::Places;
use crate::store::ReadAt;
use crate::view::View;

/// First cluster of a chain, and the FATs it was read from.
type ChainKey = (u32, Fingerprint);
/// A chain, a length, and what was written to it.
type ContentKey = (ChainKey, u32, Fingerprint);

/// What is known of chains and files.
#[derive(Debug)]
pub(super) struct Files {
    esp_start: u64,
    fats: Range<u64>,
    chains: HashMap<ChainKey, Rc<Extents>>,
    digests: HashMap<ContentKey, Option<[u8; 32]>>,
}

impl Files {
    pub(super) fn new(places: &Places) -> Files {
        let (chains, digests) = (HashMap::new(), HashMap::new());
        Files { esp_start: places.esp().start, fats: sectors(&places.fats()), chains, digests }
    }

    /// SHA-256 of a file; None when its chain ends before it does (`CUT-24`).
    pub(super) fn sha256<B: ReadAt, L: ReadAt>(
        &mut self,
        disk: &Disk<B, L>,
        state: &State,
        volume: &mut Volume<View<'_, B, L>>,
        item: &RawItem,
    ) -> io::Result<Option<[u8; 32]>> {
        let (chain_key, extents) = self.chain(disk, state, volume, item.first_cluster)?;
        let mut content = 0;
        for range in &extents.ranges {
            content ^= state.fingerprint_of(disk, sectors(&self.on_disk(range))).0;
        }
        let key = (chain_key, item.size, Fingerprint(content));
        if let Some(known) = self.digests.get(&key) {
            return Ok(*known);
        }
        let digest = self.digest(disk, state, &extents, u64::from(item.size))?;
        self.digests.insert(key, digest);
        Ok(digest)
    }

    /// The chain that begins at a cluster.
    pub(super) fn extents<B: ReadAt, L: ReadAt>(
        &mut self,
        disk: &Disk<B, L>,
        state: &State,
        volume: &mut Volume<View<'_, B, L>>,
        first_cluster: u32,
    ) -> io::Result<Rc<Extents>> {
        Ok(self.chain(disk, state, volume, first_cluster)?.1)
    }

    fn chain<B: ReadAt, L: ReadAt>(
        &mut self,
        disk: &Disk<B, L>,
        state: &State,
        volume: &mut Volume<View<'_, B, L>>,
        first_cluster: u32,
    ) -> io::Result<(ChainKey, Rc<Extents>)> {
        let key = (first_cluster, state.fingerprint_of(disk, self.fats.clone()));
        if let Some(known) = self.chains.get(&key) {
            return Ok((key, Rc::clone(known)));
        }
        let found = Rc::new(volume.extents(first_cluster).map_err(medium)?);
        self.chains.insert(key, Rc::clone(&found));
        Ok((key, found))
    }

    fn on_disk(&self, range: &Range<u64>) -> Range<u64> {
        self.esp_start + range.start..self.esp_start + range.end
    }

    fn digest<B: ReadAt, L: ReadAt>(
        &self,
        disk: &Disk<B, L>,
        state: &State,
        extents: &Extents,
        size: u64,
    ) -> io::Result<Option<[u8; 32]>> {
        let mut digest = Sha256::new();
        let mut left = size;
        let mut buffer = vec![0; 64 * 1024];
        for range in &extents.ranges {
            let on_disk = self.on_disk(range);
            let end = on_disk.end.min(on_disk.start + left);
            left -= end - on_disk.start;
            let mut part = View::new(disk, state, on_disk.start..end);
            loop {
                let got = part.read(&mut buffer)?;
                if got == 0 {
                    break;
                }
                digest.update(&buffer[..got]);
            }
        }
        Ok((left == 0).then(|| digest.finalize().into()))
    }
}

/// What went wrong with base or log while the volume was read.
pub(super) fn medium(error: FatError) -> io::Error {
    match error {
        FatError::Io { source, .. } => source,
        other => io::Error::other(other),
    }
}
