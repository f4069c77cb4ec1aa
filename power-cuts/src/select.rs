//! The states most worth setting up on a real disk (`CUT-62`).

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use crate::SECTOR;
use crate::disk::{Disk, State};
use crate::patch::{PatchBoots, PatchState, PatchWriter};
use crate::places::{Kind, Places};
use crate::rng::Rng;
use crate::run::Found;
use crate::store::ReadAt;

/// States that are kept of each sort, to choose from.
const KEPT: usize = 24;

/// States of one sort are alike: same interval, same kinds of sectors torn, same entries, same choice.
type Sort = (usize, BTreeSet<Kind>, Vec<String>, String);

/// Sees every state and keeps the interesting ones.
#[derive(Debug)]
pub struct Selection {
    rng: Rng,
    sorts: BTreeMap<Sort, (usize, Vec<(PatchState, State)>)>,
}

impl Selection {
    /// Nothing yet.
    pub fn new(seed: u64) -> Selection {
        Selection { rng: Rng::new(seed, u64::MAX), sorts: BTreeMap::new() }
    }

    /// Looks at a state, and keeps it if it passed and is torn where names, chains or entries change.
    pub fn see(&mut self, found: &Found<'_>, places: &Places, allowed: (bool, bool)) {
        let Some(boots) = found.verdict.boots.as_ref().filter(|_| found.verdict.failures.is_empty()) else { return };
        let kinds = torn(found, places);
        if !kinds.iter().any(|kind| matches!(kind, Kind::Directory | Kind::Fat | Kind::Entry)) {
            return;
        }
        let sort = (found.interval.number, kinds, found.verdict.entries.clone(), boots.file.clone());
        let (seen, kept) = self.sorts.entry(sort.clone()).or_default();
        *seen += 1;
        // Each of the sort has the same chance to be kept.
        let place = if kept.len() < KEPT { kept.len() } else { self.rng.below(*seen) };
        if place >= KEPT {
            return;
        }
        let state = PatchState {
            id: found.id.clone(),
            made: found.made(),
            kinds: sort.1.iter().map(|kind| kind.as_str().to_owned()).collect(),
            runs: Vec::new(),
            boots: PatchBoots {
                file: boots.file.clone(),
                slot: boots.system.slot.to_string(),
                generation: boots.system.generation.get(),
                options: boots.options(),
            },
            entries: found.verdict.entries.clone(),
            before: allowed.0,
            after: allowed.1,
        };
        let one = (state, found.state.clone());
        match kept.get_mut(place) {
            Some(old) => *old = one,
            None => kept.push(one),
        }
    }

    /// Up to `count` states, one of each sort in turn.
    fn pick(self, count: usize) -> Vec<(PatchState, State)> {
        let mut queues: Vec<_> = self.sorts.into_values().map(|(_, kept)| kept.into_iter()).collect();
        let mut picked = Vec::new();
        // Where not every sort can have its turn, they are taken at equal distances.
        if queues.len() > count {
            let total = queues.len();
            let wanted: BTreeSet<usize> = (0..count).map(|i| i * total / count.max(1)).collect();
            let mut index = 0;
            queues.retain(|_| {
                index += 1;
                wanted.contains(&(index - 1))
            });
        }
        while picked.len() < count {
            let before = picked.len();
            for queue in &mut queues {
                if picked.len() < count {
                    picked.extend(queue.next());
                }
            }
            if picked.len() == before {
                break;
            }
        }
        picked
    }

    /// Writes a state file of up to `count` states, and says how many there are.
    ///
    /// # Errors
    /// When base or log cannot be read, or the file cannot be written.
    pub fn write<B: ReadAt, L: ReadAt>(
        self,
        disk: &Disk<B, L>,
        flow: &str,
        seed: u64,
        count: usize,
        out: &mut dyn Write,
    ) -> io::Result<usize> {
        let mut writer = PatchWriter::new();
        for (patch, state) in self.pick(count) {
            let mut sectors = Vec::new();
            for (sector, content) in state.changed() {
                let mut bytes = [0; SECTOR];
                disk.read(sector, content, &mut bytes)?;
                sectors.push((sector, bytes));
            }
            writer.add(patch, sectors);
        }
        let states = writer.len();
        writer.write(flow, seed, disk.bytes(), out)?;
        Ok(states)
    }
}

/// The kinds of sectors that change in the interval, when the state is not what it begins with: those that are done, and
/// those that are still missing.
fn torn(found: &Found<'_>, places: &Places) -> BTreeSet<Kind> {
    let sectors: BTreeSet<u64> = found.interval.writes.iter().map(|write| write.sector).collect();
    let (mut done, mut missing) = (BTreeSet::new(), BTreeSet::new());
    for sector in sectors {
        let content = found.state.get(sector);
        let (start, end) = (found.start.get(sector), found.end.get(sector));
        if content != start {
            done.insert(places.kind(sector));
        }
        if content != end && start != end {
            missing.insert(places.kind(sector));
        }
    }
    if done.is_empty() { BTreeSet::new() } else { done.union(&missing).copied().collect() }
}
