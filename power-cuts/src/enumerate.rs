//! The states of an interval: all of them, or chosen ones (`CUT-14`).

use std::fmt;
use std::ops::ControlFlow;
use std::rc::Rc;

use crate::disk::{Disk, Layer, State};
use crate::interval::{Choice, Interval, count};
use crate::places::{Kind, Places};
use crate::rng::Rng;
use crate::store::ReadAt;

/// Data sectors that are left out, or there, alone; and the boundaries of a long request at which it is torn.
const DATA_ALONE: usize = 64;
const TORN_MAX: usize = 64;
const TORN_SAMPLES: usize = 8;

/// How a state was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// Everything before this request.
    Prefix(usize),
    /// Everything before this request, and of that the first, or the last, sectors.
    Torn {
        /// The request.
        request: usize,
        /// How many sectors of it.
        sectors: usize,
        /// The last ones, not the first.
        from_end: bool,
    },
    /// The one with this number of all.
    All(u64),
    /// Everything but this sector.
    Without(u64, Kind),
    /// Nothing but this sector.
    Alone(u64, Kind),
    /// All metadata, and no data.
    MetadataOnly,
    /// All data, and no metadata.
    DataOnly,
    /// The combination of metadata with this number, and all data or none.
    Metadata {
        /// Which.
        number: u64,
        /// With all data.
        data: bool,
    },
    /// By chance.
    Chance(u64),
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            How::Prefix(request) => write!(f, "all before request {request}"),
            How::Torn { request, sectors, from_end } => {
                let which = if *from_end { "last" } else { "first" };
                write!(f, "all before request {request}, and the {which} {sectors} sectors of it")
            }
            How::All(number) => write!(f, "number {number} of all"),
            How::Without(sector, kind) => write!(f, "all but sector {sector} ({kind})"),
            How::Alone(sector, kind) => write!(f, "only sector {sector} ({kind})"),
            How::MetadataOnly => f.write_str("all metadata and no data"),
            How::DataOnly => f.write_str("all data and no metadata"),
            How::Metadata { number, data } => {
                write!(f, "metadata combination {number} with {} data", if *data { "all" } else { "no" })
            }
            How::Chance(number) => write!(f, "by chance, number {number}"),
        }
    }
}

/// Takes states; Break when it has enough.
pub type Take<'t> = dyn FnMut(State, How) -> ControlFlow<()> + 't;

/// An interval with what it begins with.
#[derive(Debug)]
pub struct Source<'a, B, L> {
    /// The disk.
    pub disk: &'a Disk<B, L>,
    /// The interval.
    pub interval: &'a Interval,
    /// What is durable at its beginning.
    pub start: &'a Rc<Layer>,
    /// What each sector may hold.
    pub choices: &'a [Choice],
    /// What sectors are for.
    pub places: &'a Places,
}

impl<B: ReadAt, L: ReadAt> Source<'_, B, L> {
    /// Hands every state to `take`, each once.
    pub fn all(&self, take: &mut Take<'_>) -> ControlFlow<()> {
        let mut picks = vec![0; self.choices.len()];
        for number in 0..count(self.choices) {
            if self.is_possible(&picks) {
                take(self.state(&picks), How::All(number))?;
            }
            advance(&mut picks, self.choices);
        }
        ControlFlow::Continue(())
    }

    /// Hands chosen states to `take`, which may see one twice, until it breaks.
    pub fn chosen(&self, seed: u64, few: u64, take: &mut Take<'_>) -> ControlFlow<()> {
        let mut rng = Rng::new(seed, self.interval.number as u64);
        let last: Vec<usize> = self.choices.iter().map(Choice::last).collect();
        let none = vec![0; last.len()];
        let metadata: Vec<bool> = self.choices.iter().map(|c| self.places.kind(c.sector).is_metadata()).collect();
        let split = |wanted: bool| -> Vec<usize> {
            last.iter().zip(&metadata).map(|(last, own)| if *own == wanted { *last } else { 0 }).collect()
        };
        let (only_metadata, only_data) = (split(true), split(false));
        self.prefixes(&mut rng, take)?;
        self.give(&only_metadata, How::MetadataOnly, take)?;
        self.give(&only_data, How::DataOnly, take)?;
        let which: Vec<usize> = (0..last.len()).filter(|i| metadata[*i]).collect();
        let data: Vec<usize> = (0..last.len()).filter(|i| !metadata[*i]).collect();
        let few_data: Vec<usize> = rng.sample(DATA_ALONE, data.len()).into_iter().map(|i| data[i]).collect();
        for index in which.iter().chain(&few_data).copied() {
            let sector = self.choices[index].sector;
            let kind = self.places.kind(sector);
            let (mut without, mut alone) = (last.clone(), none.clone());
            without[index] = 0;
            alone[index] = last[index];
            self.give(&without, How::Without(sector, kind), take)?;
            self.give(&alone, How::Alone(sector, kind), take)?;
        }
        let small: Vec<Choice> = which.iter().map(|index| self.choices[*index].clone()).collect();
        let combinations = count(&small);
        if combinations <= few {
            self.combinations(&which, &small, [&none, &only_data], take)?;
        }
        for number in 0.. {
            let picks = self.by_chance(&mut rng, &last, &metadata);
            self.give(&picks, How::Chance(number), take)?;
        }
        ControlFlow::Continue(())
    }

    fn combinations(
        &self,
        which: &[usize],
        small: &[Choice],
        below: [&Vec<usize>; 2],
        take: &mut Take<'_>,
    ) -> ControlFlow<()> {
        for (data, below) in [(false, below[0]), (true, below[1])] {
            let mut picks = vec![0; small.len()];
            for number in 0..count(small) {
                let mut all = below.clone();
                for (index, pick) in which.iter().zip(&picks) {
                    all[*index] = *pick;
                }
                self.give(&all, How::Metadata { number, data }, take)?;
                advance(&mut picks, small);
            }
        }
        ControlFlow::Continue(())
    }

    /// Mostly all or nothing of the data, so that it is the metadata that differs; sometimes anything.
    fn by_chance(&self, rng: &mut Rng, last: &[usize], metadata: &[bool]) -> Vec<usize> {
        let often = [10, 50, 90];
        let percent = often[rng.below(3)];
        let data = [0, 100, 50, 99][rng.below(4)];
        let any_version = rng.chance(30);
        let mut pick = |index: usize| {
            let chance = if metadata[index] { percent } else { data };
            match rng.chance(chance) {
                false => 0,
                true if any_version => rng.below(self.choices[index].contents.len()),
                true => last[index],
            }
        };
        (0..last.len()).map(&mut pick).collect()
    }

    fn prefixes(&self, rng: &mut Rng, take: &mut Take<'_>) -> ControlFlow<()> {
        for request in self.interval.requests.clone() {
            let before = self.interval.prefix(self.disk, self.start, request);
            let from = self.interval.writes.partition_point(|write| write.request < request);
            let to = self.interval.writes.partition_point(|write| write.request <= request);
            let own = &self.interval.writes[from..to];
            if own.is_empty() {
                continue;
            }
            let inner = own.len() - 1;
            let places = if own.len() <= TORN_MAX { inner } else { TORN_SAMPLES };
            let torn: Vec<usize> = rng.sample(places, inner).into_iter().map(|place| place + 1).collect();
            take(before.clone(), How::Prefix(request))?;
            for sectors in torn {
                for from_end in [false, true] {
                    let range = if from_end { own.len() - sectors..own.len() } else { 0..sectors };
                    let mut state = before.clone();
                    for write in &own[range] {
                        state.put(self.disk, write.sector, write.content);
                    }
                    take(state, How::Torn { request, sectors, from_end })?;
                }
            }
        }
        let end = self.interval.prefix(self.disk, self.start, self.interval.requests.end);
        take(end, How::Prefix(self.interval.requests.end))
    }

    fn give(&self, picks: &[usize], how: How, take: &mut Take<'_>) -> ControlFlow<()> {
        if self.is_possible(picks) { take(self.state(picks), how) } else { ControlFlow::Continue(()) }
    }

    fn state(&self, picks: &[usize]) -> State {
        let mut state = State::of(Rc::clone(self.start));
        for (choice, pick) in self.choices.iter().zip(picks).filter(|(_, pick)| **pick > 0) {
            state.put(self.disk, choice.sector, choice.contents[*pick].0);
        }
        state
    }

    /// `CUT-12`: nothing behind a request with FUA is there without it.
    fn is_possible(&self, picks: &[usize]) -> bool {
        if self.interval.fua.is_empty() {
            return true;
        }
        let chosen = || self.choices.iter().zip(picks).filter(|(_, pick)| **pick > 0);
        let latest = chosen().map(|(choice, pick)| choice.contents[*pick].1).max();
        let Some(latest) = latest else { return true };
        self.interval.fua.iter().filter(|(request, _)| latest > *request).all(|(request, sector)| {
            let at = self.choices.binary_search_by_key(sector, |choice| choice.sector);
            at.is_ok_and(|at| self.choices[at].contents[picks[at]].2 >= *request) || at.is_err()
        })
    }
}

/// Counts up: each place has as many digits as its sector has contents.
fn advance(picks: &mut [usize], choices: &[Choice]) {
    for (pick, choice) in picks.iter_mut().zip(choices) {
        *pick += 1;
        if *pick < choice.contents.len() {
            return;
        }
        *pick = 0;
    }
}

#[cfg(test)]
mod tests;
