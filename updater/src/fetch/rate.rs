//! `--limit-rate`: a token bucket (FET-50). The clock is the caller's: what happens is a function of the times it is told.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A rate in bytes a second, as an operator writes it: `500k`, `2M`, `1G` (powers of 1024; a `B` and `/s` behind it are tolerated), or a
/// number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(u64);

impl Rate {
    /// Slower than this an image would take weeks, and no server would wait.
    pub const LEAST: u64 = 1024;

    /// Bytes a second.
    pub fn bytes_a_second(self) -> u64 {
        self.0
    }
}

/// Not a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a rate is a number of bytes a second, at least 1024, such as 500k, 2M or 1G")]
pub struct NotARate;

impl std::str::FromStr for Rate {
    type Err = NotARate;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.strip_suffix("/s").unwrap_or(text);
        let text = text.strip_suffix(['B', 'b']).unwrap_or(text);
        let (number, shift) = match text.chars().last() {
            Some('k' | 'K') => (&text[..text.len() - 1], 10),
            Some('m' | 'M') => (&text[..text.len() - 1], 20),
            Some('g' | 'G') => (&text[..text.len() - 1], 30),
            _ => (text, 0),
        };
        // `u64::from_str` takes a plus sign.
        if !number.bytes().all(|b| b.is_ascii_digit()) {
            return Err(NotARate);
        }
        let number: u64 = number.parse().map_err(|_| NotARate)?;
        let rate = number.checked_mul(1 << shift).filter(|rate| *rate >= Self::LEAST).ok_or(NotARate)?;
        Ok(Rate(rate))
    }
}

/// Tells who has taken bytes how long to wait before taking more. What was not used piles up for a tenth of a second at most, so that
/// after a pause there is no burst.
#[derive(Debug)]
pub struct Bucket {
    rate: u64,
    /// When all that was taken is paid for.
    paid: Duration,
}

impl Bucket {
    const PILE: Duration = Duration::from_millis(100);

    /// An empty bucket for `rate`.
    pub fn new(rate: Rate) -> Self {
        Bucket { rate: rate.0, paid: Duration::ZERO }
    }

    /// `bytes` were taken at `now` (since any fixed moment): how long to wait before the next are.
    pub fn take(&mut self, bytes: u64, now: Duration) -> Duration {
        let cost = Duration::from_nanos(
            u64::try_from(u128::from(bytes) * 1_000_000_000 / u128::from(self.rate)).unwrap_or(u64::MAX),
        );
        self.paid = self.paid.max(now.saturating_sub(Self::PILE)).saturating_add(cost);
        self.paid.saturating_sub(now)
    }
}

/// One bucket for all connections of a run, by the machine's own clock; or none. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Limit(Option<Arc<(Instant, Mutex<Bucket>)>>);

impl Limit {
    /// At most `rate`; `None`: as fast as it comes.
    pub fn new(rate: Option<Rate>) -> Self {
        Limit(rate.map(|rate| Arc::new((Instant::now(), Mutex::new(Bucket::new(rate))))))
    }

    /// How long whoever took `bytes` just now has to wait.
    pub fn wait_for(&self, bytes: usize) -> Duration {
        let Some(shared) = &self.0 else { return Duration::ZERO };
        let (began, bucket) = &**shared;
        bucket.lock().unwrap_or_else(PoisonError::into_inner).take(bytes as u64, began.elapsed())
    }

    /// So slow that one connection is enough, and more would each be so slow that servers give them up.
    pub fn is_slow(&self) -> bool {
        const SLOW: u64 = 1 << 20;
        self.rate().is_some_and(|rate| rate < SLOW)
    }

    /// What it lets through in a time.
    pub fn in_time(&self, time: Duration) -> Option<u64> {
        self.rate().map(|rate| rate.saturating_mul(time.as_secs()))
    }

    fn rate(&self) -> Option<u64> {
        self.0.as_ref().map(|shared| shared.1.lock().unwrap_or_else(PoisonError::into_inner).rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fet_50_rates_as_operators_write_them() {
        for (text, bytes) in
            [("2048", 2048), ("500k", 512_000), ("2M", 2 << 20), ("1G", 1 << 30), ("2MB/s", 2 << 20), ("64K", 65_536)]
        {
            assert_eq!(text.parse::<Rate>().map(Rate::bytes_a_second), Ok(bytes), "{text}");
        }
        for text in ["", "k", "-1", "+2048", "1.5M", "0", "100", "2T", "99999999999G", "2 M"] {
            assert_eq!(text.parse::<Rate>(), Err(NotARate), "{text}");
        }
    }

    #[test]
    fn fet_50_after_a_pause_there_is_no_burst() {
        let mut bucket = Bucket::new(Rate(1_000_000));
        assert_eq!(bucket.take(1_000_000, Duration::ZERO), Duration::from_secs(1));
        // An hour later: only a tenth of a second was saved up.
        let hour = Duration::from_secs(3600);
        assert_eq!(bucket.take(1_000_000, hour), Duration::from_millis(900));
    }

    proptest! {
        #[test]
        fn fet_50_over_any_time_no_more_than_the_rate(
            rate in 1024_u64..100_000_000, takes in prop::collection::vec((1_u64..300_000, 0_u64..50), 1..200),
        ) {
            let mut bucket = Bucket::new(Rate(rate));
            let (mut now, mut taken) = (Duration::ZERO, 0_u64);
            for (bytes, idle) in takes {
                let wait = bucket.take(bytes, now);
                taken += bytes;
                now += wait;
                // Once the wait is over, all that was taken fits into the time that passed, and the pile.
                let allowed = (now + Bucket::PILE).as_secs_f64() * rate as f64;
                prop_assert!(taken as f64 <= allowed + 1.0, "{taken} in {now:?}");
                now += Duration::from_millis(idle);
            }
        }
    }
}
