//! The log, cut at its flushes (`CUT-11` to `CUT-13`).

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::rc::Rc;

use crate::SECTOR;
use crate::disk::{Content, Disk, Layer, State};
use crate::log::{Log, Request};
use crate::store::ReadAt;

/// A content that a request gave to a sector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Write {
    /// The request's number.
    pub request: usize,
    /// The sector.
    pub sector: u64,
    /// What it holds then.
    pub content: Content,
}

/// What lies between two flushes.
#[derive(Debug)]
pub struct Interval {
    /// From 0.
    pub number: usize,
    /// The requests, the closing flush included.
    pub requests: Range<usize>,
    /// In the order of the log; a sector that a request discards may stand here, too.
    pub writes: Vec<Write>,
    /// Request and sector of the writes that are durable when they are finished.
    pub fua: Vec<(usize, u64)>,
    /// A flush ends it, and not the end of the log.
    pub flushed: bool,
}

/// The contents that one sector may have at the end of an interval, what was durable first.
#[derive(Debug, Clone)]
pub struct Choice {
    /// The sector.
    pub sector: u64,
    /// Different contents, in the order in which they came, and the first and last request that wrote each.
    pub contents: Vec<(Content, usize, usize)>,
}

impl Choice {
    /// The content written last.
    pub fn last(&self) -> usize {
        let latest = self.contents.iter().enumerate().max_by_key(|(_, (_, _, last))| *last);
        latest.map_or(0, |(index, _)| index)
    }
}

/// Cuts a log into intervals, and learns every content that it gives to a sector. Intervals without a write are left out.
///
/// # Errors
/// When base or log cannot be read.
pub fn intervals<B: ReadAt, L: ReadAt>(disk: &mut Disk<B, L>, log: &Log<impl ReadAt>) -> io::Result<Vec<Interval>> {
    let mut found = Vec::new();
    let mut open = Interval { number: 0, requests: 0..0, writes: Vec::new(), fua: Vec::new(), flushed: false };
    for (number, request) in log.requests().iter().enumerate() {
        if request.flush {
            open.requests.end = number + 1;
            open.flushed = true;
            close(&mut found, &mut open, number + 1);
        }
        if request.changes_the_disk() {
            learn(disk, number, request, &mut open)?;
        }
    }
    open.requests.end = log.requests().len();
    close(&mut found, &mut open, log.requests().len());
    Ok(found)
}

fn close(found: &mut Vec<Interval>, open: &mut Interval, next: usize) {
    let fresh =
        Interval { number: found.len() + 1, requests: next..next, writes: Vec::new(), fua: Vec::new(), flushed: false };
    if open.writes.is_empty() {
        *open = Interval { number: found.len(), ..fresh };
    } else {
        found.push(std::mem::replace(open, fresh));
    }
}

fn learn<B: ReadAt, L: ReadAt>(
    disk: &mut Disk<B, L>,
    number: usize,
    request: &Request,
    open: &mut Interval,
) -> io::Result<()> {
    for index in 0..request.count {
        let sector = request.sector + index;
        let at = (!request.discard).then_some(request.data + index * SECTOR as u64);
        let content = disk.learn(sector, at)?;
        open.writes.push(Write { request: number, sector, content });
        if request.fua {
            open.fua.push((number, sector));
        }
    }
    Ok(())
}

impl Interval {
    /// What each sector may hold, ascending; sectors whose content never changes are left out.
    pub fn choices(&self, start: &Layer) -> Vec<Choice> {
        let mut sectors: BTreeMap<u64, Choice> = BTreeMap::new();
        for write in &self.writes {
            let choice = sectors.entry(write.sector).or_insert_with(|| {
                let durable = (start.get(write.sector), self.requests.start, self.requests.start);
                Choice { sector: write.sector, contents: vec![durable] }
            });
            match choice.contents.iter_mut().find(|(content, _, _)| *content == write.content) {
                Some((_, _, last)) => *last = write.request,
                None => choice.contents.push((write.content, write.request, write.request)),
            }
        }
        sectors.into_values().filter(|choice| choice.contents.len() > 1).collect()
    }

    /// What the disk holds at its end.
    pub fn end<B: ReadAt, L: ReadAt>(&self, disk: &Disk<B, L>, start: &Rc<Layer>) -> Rc<Layer> {
        let mut end = Layer::clone(start);
        for write in &self.writes {
            end.put(disk, write.sector, write.content);
        }
        Rc::new(end)
    }

    /// What is durable at its end: all of it where a flush ends it, and else only what the disk was told to write through.
    pub fn durable<B: ReadAt, L: ReadAt>(&self, disk: &Disk<B, L>, start: &Rc<Layer>) -> Rc<Layer> {
        if self.flushed {
            return self.end(disk, start);
        }
        let mut durable = Layer::clone(start);
        for write in self.writes.iter().filter(|write| self.fua.contains(&(write.request, write.sector))) {
            durable.put(disk, write.sector, write.content);
        }
        Rc::new(durable)
    }

    /// The disk when every request before `request` has reached it and no other.
    pub fn prefix<B: ReadAt, L: ReadAt>(&self, disk: &Disk<B, L>, start: &Rc<Layer>, request: usize) -> State {
        let mut state = State::of(Rc::clone(start));
        for write in self.writes.iter().take_while(|write| write.request < request) {
            state.put(disk, write.sector, write.content);
        }
        state
    }
}

/// How many states an interval has, as far as can be counted.
pub fn count(choices: &[Choice]) -> u64 {
    choices.iter().fold(1, |states: u64, choice| states.saturating_mul(choice.contents.len() as u64))
}

/// How many states of each interval are taken, by how many it has and whether it decides what is read (`CUT-16`): those that
/// do first, and a tenth is kept for the others. Of each group small intervals are taken whole and the rest is spread evenly.
pub fn share(intervals: &[(u64, bool)], total: u64) -> Vec<u64> {
    let mut shares = vec![0; intervals.len()];
    let group = |wanted: bool| (0..intervals.len()).filter(move |index| intervals[*index].1 == wanted);
    let others = group(false).fold(0u64, |all, index| all.saturating_add(intervals[index].0));
    let left = spread(intervals, group(true).collect(), total - others.min(total / 10), &mut shares);
    spread(intervals, group(false).collect(), left + others.min(total / 10), &mut shares);
    shares
}

/// Shares `total` out among the intervals of `order`; what is left.
fn spread(intervals: &[(u64, bool)], mut order: Vec<usize>, total: u64, shares: &mut [u64]) -> u64 {
    order.sort_by_key(|index| intervals[*index].0);
    let (mut left, all) = (total, order.len());
    for (done, index) in order.into_iter().enumerate() {
        let share = intervals[index].0.min(left / (all - done) as u64);
        shares[index] = share;
        left -= share;
    }
    left
}

#[cfg(test)]
mod tests;
