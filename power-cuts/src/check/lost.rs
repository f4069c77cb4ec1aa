//! Clusters that the FAT has given away and that no name leads to (`CUT-41`).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use boot_entries::RawEsp;
use boot_entries::fat::{FatError, FatKind};

use super::files::{Files, medium};
use super::{Checker, Name, Verdict, sectors};
use crate::SECTOR;
use crate::disk::{Content, Disk, State};
use crate::interval::Interval;
use crate::store::ReadAt;
use crate::view::View;

/// Directories are followed so deep; ours are two levels deep.
const DEPTH_MAX: usize = 16;
/// Entries of a FAT32 in a sector.
const ENTRIES: usize = SECTOR / 4;
/// What marks a bad cluster.
const BAD: u32 = 0x0fff_fff7;

/// The FAT that counts, and what is known of it.
#[derive(Debug)]
pub(super) struct Clusters {
    /// The sectors of the FAT on the disk.
    fat: Range<u64>,
    cluster_size: u64,
    /// Entries of the FAT: one for each cluster, and two more in front.
    entries: u64,
    /// Where cluster 2 begins, from the start of the volume.
    data_start: u64,
    /// Clusters that are given away in the base.
    in_base: u64,
    counts: HashMap<(u64, Content), u64>,
}

impl Clusters {
    /// The FAT of the base; None when the volume is no FAT32, as every ESP of ours is.
    pub(super) fn new<B: ReadAt, L: ReadAt>(
        disk: &Disk<B, L>,
        esp: &Range<u64>,
        raw: &mut RawEsp<View<'_, B, L>>,
        mut boot: View<'_, B, L>,
    ) -> io::Result<Option<Clusters>> {
        let geometry = raw.volume().geometry();
        if geometry.kind != FatKind::Fat32 {
            return Ok(None);
        }
        let mut sector = [0; SECTOR];
        boot.seek(SeekFrom::Start(0))?;
        boot.read_exact(&mut sector)?;
        let fats = geometry.fats();
        let one = (fats.end - fats.start) / u64::from(sector[16]).max(1);
        // Bit 7: only the FAT with this number is kept.
        let flags = u16::from_le_bytes([sector[40], sector[41]]);
        let active = if flags & 0x80 == 0 { 0 } else { u64::from(flags & 0x0f) };
        let start = esp.start + fats.start + active * one;
        let entries = u64::from(geometry.clusters) + 2;
        let used = (entries * 4).min(one);
        let mut clusters = Clusters {
            fat: sectors(&(start..start + used)),
            cluster_size: u64::from(geometry.cluster_size),
            entries,
            data_start: fats.end,
            in_base: 0,
            counts: HashMap::new(),
        };
        for sector in clusters.fat.clone() {
            clusters.in_base += clusters.given(disk, sector, Content::Base)?;
        }
        Ok(Some(clusters))
    }

    /// Entries of a sector of the FAT that give their cluster away.
    fn given<B: ReadAt, L: ReadAt>(&mut self, disk: &Disk<B, L>, sector: u64, content: Content) -> io::Result<u64> {
        if let Some(known) = self.counts.get(&(sector, content)) {
            return Ok(*known);
        }
        let count = self.bits(disk, sector, content)?.into_iter().filter(|given| *given).count() as u64;
        self.counts.insert((sector, content), count);
        Ok(count)
    }

    fn bits<B: ReadAt, L: ReadAt>(
        &self,
        disk: &Disk<B, L>,
        sector: u64,
        content: Content,
    ) -> io::Result<[bool; ENTRIES]> {
        let mut bytes = [0; SECTOR];
        disk.read(sector, content, &mut bytes)?;
        let mut bits: [bool; ENTRIES] = std::array::from_fn(|i| {
            let entry = u32::from_le_bytes([0, 1, 2, 3].map(|byte| bytes[i * 4 + byte])) & 0x0fff_ffff;
            entry != 0 && entry != BAD
        });
        // The first two belong to no cluster, nor do those behind the entry of the last.
        let first = (sector - self.fat.start) * ENTRIES as u64;
        for (entry, bit) in (first..).zip(&mut bits) {
            *bit &= (2..self.entries).contains(&entry);
        }
        Ok(bits)
    }

    /// Clusters that the flow takes or frees: entries that are free in one content of their sector and not in another.
    pub(super) fn changing<B: ReadAt, L: ReadAt>(&self, disk: &Disk<B, L>, intervals: &[Interval]) -> io::Result<u64> {
        let mut contents: HashMap<u64, BTreeSet<Content>> = HashMap::new();
        for write in intervals.iter().flat_map(|interval| &interval.writes) {
            if self.fat.contains(&write.sector) {
                contents.entry(write.sector).or_insert_with(|| [Content::Base].into()).insert(write.content);
            }
        }
        let mut changing = 0;
        for (sector, contents) in contents {
            let all: Vec<_> =
                contents.into_iter().map(|content| self.bits(disk, sector, content)).collect::<io::Result<_>>()?;
            changing += (0..ENTRIES).filter(|i| all.iter().any(|bits| bits[*i] != all[0][*i])).count() as u64;
        }
        Ok(changing)
    }

    /// Clusters of a state that are given away, and not in one of these chains, which may share some.
    fn outside<B: ReadAt, L: ReadAt>(
        &mut self,
        disk: &Disk<B, L>,
        state: &State,
        mut chains: Vec<Range<u64>>,
    ) -> io::Result<u64> {
        let mut given = self.in_base;
        for (sector, content) in state.changed_in(self.fat.clone()) {
            given += self.given(disk, sector, content)?;
            given -= self.given(disk, sector, Content::Base)?;
        }
        chains.sort_by_key(|range| range.start);
        let (mut free, mut inside) = (0, 0);
        for range in chains {
            let start = range.start.max(free);
            inside += range.end.saturating_sub(start) / self.cluster_size;
            free = free.max(range.end);
        }
        Ok(given.saturating_sub(inside))
    }

    /// The last cluster of a broken chain may be a free one.
    fn is_free<B: ReadAt, L: ReadAt>(&self, disk: &Disk<B, L>, state: &State, at: u64) -> io::Result<bool> {
        let cluster = (at - self.data_start) / self.cluster_size + 2;
        let sector = self.fat.start + cluster / ENTRIES as u64;
        let bits = self.bits(disk, sector, state.get(sector))?;
        Ok(!bits[usize::try_from(cluster % ENTRIES as u64).unwrap_or(0)])
    }
}

impl<B: ReadAt, L: ReadAt> Checker<'_, B, L> {
    /// Foresees how many clusters a cut may lose: those that the base has lost, and those that the flow takes or frees.
    ///
    /// # Errors
    /// When base or log cannot be read.
    pub fn foresee(&mut self, base: &State, intervals: &[Interval]) -> io::Result<()> {
        let Some(clusters) = &self.clusters else { return Ok(()) };
        let changing = clusters.changing(self.disk, intervals)?;
        let mut verdict = Verdict::default();
        self.check_lost(base, &mut verdict)?;
        self.lost_bound = Some(verdict.lost + changing);
        Ok(())
    }

    /// How many clusters a state may have lost, when that is foreseen.
    pub fn lost_bound(&self) -> Option<u64> {
        self.lost_bound
    }

    /// Takes what was foreseen before.
    pub fn set_lost_bound(&mut self, bound: Option<u64>) {
        self.lost_bound = bound;
    }

    /// `CUT-41`
    pub(super) fn check_lost(&mut self, state: &State, verdict: &mut Verdict) -> io::Result<()> {
        let Some(clusters) = &mut self.clusters else { return Ok(()) };
        let esp = View::new(self.disk, state, self.esp.clone());
        let Ok(mut raw) = RawEsp::open(esp) else { return Ok(()) };
        let mut chains = Vec::new();
        for extents in chains_of(self.disk, state, &mut self.files, &mut raw)? {
            let mut ranges = extents.ranges.clone();
            if let Some(last) = ranges.last_mut().filter(|_| !extents.whole)
                && clusters.is_free(self.disk, state, last.end - clusters.cluster_size)?
            {
                last.end -= clusters.cluster_size;
            }
            chains.append(&mut ranges);
        }
        verdict.lost = clusters.outside(self.disk, state, chains)?;
        if let Some(bound) = self.lost_bound.filter(|bound| verdict.lost > *bound) {
            let lost = verdict.lost;
            verdict.fail(Name::Lost, format!("{lost} clusters are lost, and the flow itself uses and frees {bound}"));
        }
        Ok(())
    }
}

/// The chains of every name of the volume, and of the root directory.
fn chains_of<B: ReadAt, L: ReadAt>(
    disk: &Disk<B, L>,
    state: &State,
    files: &mut Files,
    raw: &mut RawEsp<View<'_, B, L>>,
) -> io::Result<Vec<std::rc::Rc<boot_entries::fat::Extents>>> {
    let mut chains = vec![raw.volume().root_extents().map_err(medium)?.into()];
    let (mut open, mut seen) = (vec![String::new()], HashSet::new());
    while let Some(dir) = open.pop() {
        let items = match raw.volume().list(&dir) {
            Ok(items) => items.unwrap_or_default(),
            // Nothing in it is found (`CUT-23`).
            Err(FatError::Directory(_)) => continue,
            Err(error) => return Err(medium(error)),
        };
        for item in items.into_iter().filter(|item| item.first_cluster != 0) {
            chains.push(files.extents(disk, state, raw.volume(), item.first_cluster)?);
            let path = if dir.is_empty() { item.name } else { format!("{dir}/{}", item.name) };
            if item.is_dir && seen.insert(item.first_cluster) && path.split('/').count() < DEPTH_MAX {
                open.push(path);
            }
        }
    }
    Ok(chains)
}
