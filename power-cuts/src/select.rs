//! The states most worth setting up on a real disk (`CUT-62`).

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use crate::SECTOR;
use crate::disk::{Disk, State};
use crate::interval::Interval;
use crate::patch::{PatchBoots, PatchState, PatchWriter};
use crate::places::{Kind, Places};
use crate::rng::Rng;
use crate::run::Found;
use crate::store::ReadAt;

/// States that are kept of each sort, to choose from.
const KEPT: usize = 24;

/// States of one sort are alike: same interval, same kinds of sectors torn, same entries, same choice.
type Sort = (usize, BTreeSet<Kind>, Vec<String>, String);

/// How many were seen of a sort, and those that are kept.
type Kept = (usize, Vec<(PatchState, State)>);

/// Sees every state and keeps the interesting ones.
#[derive(Debug)]
pub struct Selection {
    rng: Rng,
    sorts: BTreeMap<Sort, Kept>,
}

impl Selection {
    /// Nothing yet.
    pub fn new(seed: u64) -> Selection {
        Selection { rng: Rng::new(seed, u64::MAX), sorts: BTreeMap::new() }
    }

    /// Looks at a state, and keeps it if it passed and is torn where names, chains, entries or the partition table change, or
    /// other data of the ESP.
    pub fn see(&mut self, found: &Found<'_>, places: &Places, allowed: (bool, bool)) {
        let Some(boots) = found.verdict.boots.as_ref().filter(|_| found.verdict.failures.is_empty()) else { return };
        let Some(interval) = found.interval else { return };
        let kinds = torn(found, interval, places);
        if !kinds.iter().any(|kind| kind.decides() || *kind == Kind::Data) {
            return;
        }
        let sort = (interval.number, kinds, found.verdict.entries.clone(), boots.file.clone());
        let (seen, kept) = self.sorts.entry(sort.clone()).or_default();
        *seen += 1;
        // Each of the sort has the same chance to be kept.
        let place = if kept.len() < KEPT { kept.len() } else { self.rng.below(*seen) };
        if place >= KEPT {
            return;
        }
        let state = PatchState {
            id: found.id.clone(),
            made: found.made.clone(),
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

    /// Up to `count` states, one of each sort in turn: first those in which something changes that decides what boots.
    fn pick(self, count: usize) -> Vec<(PatchState, State)> {
        let (first, second): (Vec<_>, Vec<_>) =
            self.sorts.into_iter().partition(|((_, kinds, _, _), _)| kinds.iter().any(|kind| kind.decides()));
        let mut picked = in_turn(first, count);
        let left = count - picked.len();
        picked.extend(in_turn(second, left));
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

/// Up to `count` states of these sorts. Where not every sort can have its turn, each system and each entry that boots has one,
/// and the others are taken at equal distances.
fn in_turn(sorts: Vec<(Sort, Kept)>, count: usize) -> Vec<(PatchState, State)> {
    let boots: Vec<PatchBoots> = sorts.iter().map(|(_, (_, kept))| kept[0].0.boots.clone()).collect();
    let wanted = places(&boots, count);
    let mut queues: Vec<_> = sorts.into_iter().map(|(_, (_, kept))| kept.into_iter()).collect();
    let mut index = 0;
    queues.retain(|_| {
        index += 1;
        wanted.contains(&(index - 1))
    });
    let mut picked = Vec::new();
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

/// Which of these sorts, by what boots in each, have their turn when `count` can.
fn places(boots: &[PatchBoots], count: usize) -> BTreeSet<usize> {
    if boots.len() <= count {
        return (0..boots.len()).collect();
    }
    let (mut systems, mut files) = (BTreeMap::new(), BTreeMap::new());
    for (index, boots) in boots.iter().enumerate() {
        systems.entry((&boots.slot, boots.generation)).or_insert(index);
        files.entry(&boots.file).or_insert(index);
    }
    let last = boots.len() - 1;
    let even = (0..count).map(|i| i * last / count.saturating_sub(1).max(1));
    let mut wanted = BTreeSet::new();
    // The first and the last, and what lies evenly between them.
    let ends = [0, last].into_iter();
    for index in systems.into_values().chain(files.into_values()).chain(ends).chain(even).chain(0..boots.len()) {
        if wanted.len() < count {
            wanted.insert(index);
        }
    }
    wanted
}

/// The kinds of sectors that change in the interval, when the state is not what it begins with: those that are done, and
/// those that are still missing.
fn torn(found: &Found<'_>, interval: &Interval, places: &Places) -> BTreeSet<Kind> {
    let sectors: BTreeSet<u64> = interval.writes.iter().map(|write| write.sector).collect();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn boots(file: &str, slot: &str, generation: u32) -> PatchBoots {
        PatchBoots { file: file.into(), slot: slot.into(), generation, options: String::new() }
    }

    #[test]
    fn cut62_every_system_that_boots_has_a_turn_and_the_others_are_spread() {
        let mut all = vec![boots("ralphos-a-g1.conf", "a", 1); 57];
        all.extend([boots("ralphos-b-g2+3-0.conf", "b", 2), boots("ralphos-b-g2+3-0.conf", "b", 2)]);
        let wanted = places(&all, 10);
        assert_eq!(wanted.len(), 10);
        assert!(
            wanted.contains(&0) && wanted.contains(&57) && wanted.iter().any(|i| (20..40).contains(i)),
            "{wanted:?}"
        );
        assert!(wanted.contains(&58), "{wanted:?}");
        assert_eq!(places(&all, 2), [0, 57].into());
        assert_eq!(places(&all, 1), [0].into());
        assert_eq!(places(&all, 0), [].into());
        assert_eq!(places(&all, 100).len(), 59);
    }
}
