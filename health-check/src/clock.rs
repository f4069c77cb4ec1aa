//! Time, as a seam: the clocks of the machine, or a fake that jumps.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// The clocks we use.
pub trait Clock: Send + Sync {
    /// `CLOCK_MONOTONIC`, the clock of systemd's `…TimestampMonotonic` properties. Never goes back.
    fn monotonic(&self) -> Duration;
    /// Seconds since 1970 as the machine believes; may be wrong, used for records alone.
    fn unix(&self) -> u64;
    /// Waits.
    fn sleep(&self, how_long: Duration);
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        // The clock exists on every Linux; were it refused, deadlines would pass at once rather than never.
        clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::MAX, Duration::from)
    }

    fn unix(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    fn sleep(&self, how_long: Duration) {
        std::thread::sleep(how_long);
    }
}
