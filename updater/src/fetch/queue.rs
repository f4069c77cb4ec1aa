//! What is fetched next, what has come, and what the reader has taken: bounded however long the file is (FET-22).

use std::collections::{BTreeMap, BTreeSet};

use super::ranges::Span;

/// Bytes of one piece, and which server sent them.
#[derive(Debug, PartialEq, Eq)]
pub struct Got {
    /// From the piece's beginning; all of it, or as far as it came.
    pub bytes: Vec<u8>,
    /// By number.
    pub mirror: usize,
}

/// One piece to fetch.
#[derive(Debug, PartialEq, Eq)]
pub struct Job {
    /// Its number among the pieces.
    pub index: usize,
    /// All of it.
    pub span: Span,
    /// What of it has come before.
    pub bytes: Vec<u8>,
}

/// The pieces in order. At most `window` of them, counted from the reader's, are held or fetched at a time.
#[derive(Debug)]
pub struct Queue {
    pieces: Vec<Span>,
    window: usize,
    /// The first piece that was never taken.
    fresh: usize,
    /// Taken once and to be taken again.
    again: BTreeSet<usize>,
    partial: BTreeMap<usize, Got>,
    done: BTreeMap<usize, Got>,
    /// The piece the reader is at.
    reading: usize,
}

impl Queue {
    /// All of these are to be fetched; they ascend.
    pub fn new(pieces: Vec<Span>, window: usize) -> Self {
        let (partial, done) = (BTreeMap::new(), BTreeMap::new());
        Queue { pieces, window: window.max(1), fresh: 0, again: BTreeSet::new(), partial, done, reading: 0 }
    }

    /// The next piece to fetch from `mirror`, the earliest first; `None` while the window is full, or when all are taken. What another
    /// server sent of it is forgotten: their files may differ.
    pub fn take(&mut self, mirror: usize) -> Option<Job> {
        let index = match self.again.pop_first() {
            Some(index) => index,
            None if self.fresh < self.pieces.len().min(self.reading + self.window) => {
                self.fresh += 1;
                self.fresh - 1
            }
            None => return None,
        };
        let bytes = self.partial.remove(&index).filter(|got| got.mirror == mirror).map(|got| got.bytes);
        Some(Job { index, span: self.pieces[index], bytes: bytes.unwrap_or_default() })
    }

    /// Is there anything to take now?
    pub fn has_work(&self) -> bool {
        !self.again.is_empty() || self.fresh < self.pieces.len().min(self.reading + self.window)
    }

    /// Every piece has come, or is on its way.
    pub fn all_taken(&self) -> bool {
        self.again.is_empty() && self.fresh >= self.pieces.len()
    }

    /// The piece is whole.
    pub fn finish(&mut self, index: usize, got: Got) {
        if index >= self.reading {
            self.done.insert(index, got);
        }
    }

    /// The piece has to be taken again; so much of it has come.
    pub fn put_back(&mut self, index: usize, got: Got) {
        if index < self.reading {
            return;
        }
        self.again.insert(index);
        if !got.bytes.is_empty() {
            self.partial.insert(index, got);
        }
    }

    /// Forgets what `mirror` sent and the reader has not passed: it was found to have other bytes.
    pub fn forget(&mut self, mirror: usize) {
        self.partial.retain(|_, got| got.mirror != mirror);
        let theirs: Vec<usize> = self.done.iter().filter(|(_, got)| got.mirror == mirror).map(|(at, _)| *at).collect();
        for index in theirs {
            self.done.remove(&index);
            self.again.insert(index);
        }
    }

    /// The piece that the reader is at, if there is one.
    pub fn piece(&self) -> Option<Span> {
        self.pieces.get(self.reading).copied()
    }

    /// That piece's bytes, if they are there.
    pub fn ready(&self) -> Option<&Got> {
        self.done.get(&self.reading)
    }

    /// The reader goes on to the next piece; what this one held is freed.
    pub fn pass(&mut self) {
        self.done.remove(&self.reading);
        self.partial.remove(&self.reading);
        self.again.remove(&self.reading);
        self.reading += 1;
        self.fresh = self.fresh.max(self.reading);
    }

    /// Bytes held.
    #[cfg(test)]
    fn held(&self) -> usize {
        self.done.values().chain(self.partial.values()).map(|got| got.bytes.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn queue(pieces: u64, window: usize) -> Queue {
        Queue::new((0..pieces).map(|at| Span::new(at * 10, 10)).collect(), window)
    }

    fn whole(mirror: usize) -> Got {
        Got { bytes: vec![mirror as u8; 10], mirror }
    }

    #[test]
    fn fet_22_no_more_than_the_window_is_taken_before_the_reader_moves() {
        let mut queue = queue(5, 2);
        assert_eq!(queue.take(0).unwrap().index, 0);
        assert_eq!(queue.take(0).unwrap().index, 1);
        assert_eq!(queue.take(0), None);
        queue.finish(1, whole(0));
        assert!(queue.ready().is_none(), "the first has not come");
        queue.finish(0, whole(0));
        assert!(queue.ready().is_some());
        queue.pass();
        assert_eq!(queue.take(0).unwrap().index, 2);
        assert_eq!(queue.take(0), None);
    }

    #[test]
    fn fet_27_what_came_is_kept_for_the_same_server_only() {
        let mut queue = queue(2, 2);
        for mirror in [0, 1] {
            let job = queue.take(0).unwrap();
            queue.put_back(job.index, Got { bytes: vec![1, 2, 3], mirror: 0 });
            let job = queue.take(mirror).unwrap();
            assert_eq!(job.bytes, if mirror == 0 { vec![1, 2, 3] } else { Vec::new() });
            queue.put_back(job.index, Got { bytes: Vec::new(), mirror });
        }
    }

    #[test]
    fn fet_28_all_that_a_wrong_server_sent_is_asked_for_again() {
        let mut queue = queue(4, 4);
        for mirror in [0, 1, 0] {
            let job = queue.take(mirror).unwrap();
            queue.finish(job.index, whole(mirror));
        }
        queue.pass();
        queue.forget(0);
        assert_eq!(queue.take(1).unwrap().index, 2);
        assert_eq!(queue.ready().unwrap().mirror, 1);
    }

    proptest! {
        /// However pieces come, fail and are taken: the reader gets each once, in order, and the window holds.
        #[test]
        fn fet_22_order_and_bound(pieces in 1_u64..30, window in 1_usize..6, steps in prop::collection::vec((0_u8..4, any::<prop::sample::Index>()), 0..400)) {
            let mut queue = queue(pieces, window);
            let mut taken: Vec<Job> = Vec::new();
            let mut read = Vec::new();
            let all = steps.into_iter().map(|(what, index)| (what, index.index(usize::MAX))).chain((0..pieces * 4).flat_map(|_| [(0, 0), (1, 0), (3, 0)]));
            for (what, pick) in all {
                match what {
                    0 => taken.extend(queue.take(0)),
                    1 if !taken.is_empty() => {
                        let job = taken.swap_remove(pick % taken.len());
                        queue.finish(job.index, whole(0));
                    }
                    2 if !taken.is_empty() => {
                        let job = taken.swap_remove(pick % taken.len());
                        queue.put_back(job.index, Got { bytes: vec![0; 5], mirror: 0 });
                    }
                    3 if queue.ready().is_some() => {
                        read.push(queue.piece().unwrap());
                        queue.pass();
                    }
                    _ => {}
                }
                prop_assert!(queue.held() <= window * 10);
                prop_assert!(taken.len() <= window);
            }
            prop_assert_eq!(read, (0..pieces).map(|at| Span::new(at * 10, 10)).collect::<Vec<_>>());
        }
    }
}
