//! How long to wait before a server is asked again, and when to give up: pure (FET-27).

use std::time::Duration;

/// How patiently servers are asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// The wait after the first failure; it doubles with each that follows.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
    /// Failures in a row, nothing having come in between, after which it is over. (With mirrors: so many rounds through all of them.)
    pub rounds: u32,
    /// And so long after the last byte came it is over, too.
    pub dry: Duration,
}

/// Before a byte of the image has come: an address may be mistyped, and somebody is waiting.
pub const OPENING: Retry =
    Retry { first: Duration::from_secs(1), longest: Duration::from_secs(4), rounds: 3, dry: Duration::from_secs(200) };

/// With the slot fenced and some of it fetched.
pub const FETCHING: Retry = Retry {
    first: Duration::from_millis(250),
    longest: Duration::from_secs(30),
    rounds: 12,
    dry: Duration::from_secs(600),
};

impl Retry {
    /// The wait after `failures` rounds (1 or more) in a row without a byte, or `None`: it is over. `asked`: what the server wants
    /// (Retry-After), which is honoured up to the longest wait. `dice` (any number) spreads a fleet's machines over the upper half of the
    /// wait: they all failed in the same moment.
    pub fn wait(&self, failures: u32, dry_for: Duration, asked: Option<Duration>, dice: u64) -> Option<Duration> {
        if failures >= self.rounds || dry_for >= self.dry {
            return None;
        }
        let doubled = self.first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.longest);
        let half = doubled / 2;
        let spread = half.mul_f64((dice % 1024) as f64 / 1023.0);
        Some((half + spread).max(asked.unwrap_or_default().min(self.longest)))
    }
}

/// A number that differs from machine to machine and from call to call. Nothing secret hangs on it.
pub fn dice() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fet_27_waits_double_to_the_longest_and_end() {
        let waits: Vec<_> = (1..=12).map(|n| FETCHING.wait(n, Duration::ZERO, None, 1023)).collect();
        let millis = |n| Some(Duration::from_millis(n));
        assert_eq!(waits[..9], [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000].map(millis));
        assert_eq!(waits[11], None);
        assert_eq!(FETCHING.wait(1, FETCHING.dry, None, 0), None);
    }

    #[test]
    fn fet_27_a_server_that_asks_for_time_gets_it_within_limits() {
        let asked = |n| OPENING.wait(1, Duration::ZERO, Some(Duration::from_secs(n)), 0).unwrap();
        assert_eq!(asked(3), Duration::from_secs(3));
        assert_eq!(asked(86_400), OPENING.longest);
    }

    #[test]
    fn dice_are_not_always_the_same() {
        assert!((0..20).any(|_| dice() != dice()));
    }

    proptest! {
        #[test]
        fn fet_27_every_wait_is_between_half_and_all_of_its_step(failures in 1_u32..12, dice: u64) {
            let wait = FETCHING.wait(failures, Duration::ZERO, None, dice).unwrap();
            let full = (FETCHING.first * (1 << (failures - 1))).min(FETCHING.longest);
            prop_assert!(wait >= full / 2 && wait <= full, "{wait:?} of {full:?}");
        }
    }
}
