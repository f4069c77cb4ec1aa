//! Chance that can be had again: the same seed gives the same states (`CUT-14`).

/// The generator "splitmix64".
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// A generator for this purpose; other purposes have other numbers.
    pub fn new(seed: u64, purpose: u64) -> Rng {
        let mut rng = Rng(seed ^ purpose.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        rng.next();
        rng
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, 0 when that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        // The bias of the remainder is of no weight here.
        usize::try_from(self.next() % (end as u64).max(1)).unwrap_or(0)
    }

    /// True in `percent` of a hundred cases.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// Up to `count` different numbers below `end`, ascending.
    pub fn sample(&mut self, count: usize, end: usize) -> Vec<usize> {
        if count >= end {
            return (0..end).collect();
        }
        let mut found = std::collections::BTreeSet::new();
        while found.len() < count {
            found.insert(self.below(end));
        }
        found.into_iter().collect()
    }
}
