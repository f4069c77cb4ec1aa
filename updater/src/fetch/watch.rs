//! Whether servers bring enough while they are waited for (THR-9, FET-26). Pure: the clock is the caller's.

use std::time::Duration;

use super::client::Patience;

/// Counts the time in which anything is waited for: a connection, an answer, a body. What we do ourselves does not count.
#[derive(Debug, Default)]
pub struct Watch {
    /// For whom: a mirror for each request that is under way.
    busy: Vec<usize>,
    /// Since when without a break.
    since: Duration,
    /// Before that, since the last judgement.
    waited: Duration,
    /// Bytes that had come at the last judgement.
    judged: u64,
}

/// Too little came.
#[derive(Debug, PartialEq, Eq)]
pub struct TooSlow {
    /// In so long.
    pub waited: Duration,
    /// Not a byte.
    pub silent: bool,
    /// Who was being waited for, maybe more than once.
    pub busy: Vec<usize>,
}

impl Watch {
    /// From `now` on `mirror` is waited for.
    pub fn enter(&mut self, mirror: usize, now: Duration) {
        if self.busy.is_empty() {
            self.since = now;
        }
        self.busy.push(mirror);
    }

    /// It has done something, or failed.
    pub fn leave(&mut self, mirror: usize, now: Duration) {
        if let Some(at) = self.busy.iter().position(|busy| *busy == mirror) {
            self.busy.swap_remove(at);
        }
        if self.busy.is_empty() {
            self.waited += now.saturating_sub(self.since);
        }
    }

    /// Counts from `now` on: `received` bytes have come.
    pub fn start_over(&mut self, now: Duration, received: u64) {
        (self.since, self.waited, self.judged) = (now, Duration::ZERO, received);
    }

    /// Each time we have waited for as long as a server may keep us: did too little come?
    pub fn judge(&mut self, now: Duration, received: u64, patience: Patience) -> Option<TooSlow> {
        let current = if self.busy.is_empty() { Duration::ZERO } else { now.saturating_sub(self.since) };
        let (waited, came) = (self.waited + current, received - self.judged);
        // A connection without a byte is ended by its own time limit first, which knows better what it waited for.
        let stall = if came == 0 { patience.stall + patience.stall / 4 } else { patience.stall };
        if waited < stall {
            return None;
        }
        self.start_over(now, received);
        (came < patience.least).then(|| TooSlow { waited, silent: came == 0, busy: self.busy.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { stall: Duration::from_secs(60), least: 1000 };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn fet_26_only_time_in_which_somebody_is_waited_for_counts() {
        let mut watch = Watch::default();
        watch.enter(0, at(0));
        watch.enter(1, at(10));
        watch.leave(0, at(20));
        watch.leave(1, at(30));
        assert_eq!(watch.judge(at(10_000), 5, PATIENCE), None, "we were busy ourselves");
        watch.enter(1, at(10_000));
        assert_eq!(watch.judge(at(10_029), 5, PATIENCE), None);
        let slow = TooSlow { waited: at(60), silent: false, busy: vec![1] };
        assert_eq!(watch.judge(at(10_030), 5, PATIENCE), Some(slow));
        assert_eq!(watch.judge(at(10_031), 5, PATIENCE), None, "it counts from there on");
    }

    #[test]
    fn fet_26_enough_is_enough_and_silence_is_left_to_the_connection_first() {
        let mut watch = Watch::default();
        watch.enter(0, at(0));
        assert_eq!(watch.judge(at(60), 1000, PATIENCE), None);
        assert_eq!(watch.judge(at(120), 1000, PATIENCE), None);
        assert!(watch.judge(at(135), 1000, PATIENCE).is_some_and(|slow| slow.silent));
    }
}
