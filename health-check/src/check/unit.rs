//! The check kind `unit` (HLT-22): a unit is active and has stayed so without a restart (HLT-2).

use std::time::Duration;

use super::{Finding, Limit, Reason, Tools};
use crate::clock::Clock;
use crate::systemd::{Systemd, UnitShow};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// How long systemd may take to answer one question; after that it is asked again.
const ANSWER: Duration = Duration::from_secs(10);

/// Looks at the unit until it has passed or failed, or the deadline is over.
pub fn run(unit: &str, stable_for: Duration, limit: Limit, tools: &Tools) -> Finding {
    let until = tools.clock.monotonic().saturating_add(limit.within);
    let mut watch = Watch::new(stable_for);
    let mut last = "systemd has not answered".to_owned();
    loop {
        // What the answer tells was true when we asked, and nobody knows for how long after that.
        let now = tools.clock.monotonic();
        let left = until.saturating_sub(now);
        if left.is_zero() {
            return Finding::failed(limit.reason, format!("not passed within {} ms: {last}", limit.within.as_millis()));
        }
        let mut pause = PAUSE;
        match tools.systemd.show(unit, left.min(ANSWER)) {
            Err(error) => last = crate::chain(&error),
            Ok(show) => match watch.judge(&show, now) {
                Step::Passed(detail) => {
                    let seen = Seen { unit: unit.to_owned(), active_since: show.active_since, restarts: show.restarts };
                    return Finding { seen: Some(seen), ..Finding::passed(format!("{unit} {detail}")) };
                }
                Step::Failed(reason, detail) => return Finding::failed(reason, format!("{unit} {detail}")),
                Step::Wait { detail, for_ } => {
                    last = format!("{unit} {detail}");
                    pause = for_;
                }
            },
        }
        tools.clock.sleep(pause.min(until.saturating_sub(tools.clock.monotonic())));
    }
}

/// The run of a unit that a check has seen; the check holds as long as that run lasts (HLT-23).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Name of the unit.
    pub unit: String,
    /// When it became active.
    pub active_since: Option<Duration>,
    /// How often it had been restarted by then.
    pub restarts: Option<u32>,
}

/// Does this run of the unit still last? An answer is waited for until `until`; why not, if not.
pub fn still(seen: &Seen, until: Duration, systemd: &dyn Systemd, clock: &dyn Clock) -> Result<(), String> {
    let unit = &seen.unit;
    loop {
        let left = until.saturating_sub(clock.monotonic());
        let error = match systemd.show(unit, left.clamp(PAUSE, ANSWER)) {
            Ok(show) if show.active != "active" => {
                return Err(format!("{unit} passed, but now is {} ({})", show.active, show.sub));
            }
            Ok(show) if (show.active_since, show.restarts) != (seen.active_since, seen.restarts) => {
                return Err(format!("{unit} passed, but was started anew since"));
            }
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        if clock.monotonic() >= until {
            return Err(format!("{unit} passed, but whether it still runs is not known: {}", crate::chain(&error)));
        }
        clock.sleep(PAUSE);
    }
}

/// What one look tells.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Passed(String),
    Failed(Reason, String),
    Wait { detail: String, for_: Duration },
}

/// What is remembered from one look to the next.
#[derive(Debug)]
struct Watch {
    stable_for: Duration,
    restarts: Option<u32>,
    /// The wait begins no earlier than this: when a restart was noticed, or when the unit was first seen active.
    not_before: Option<Duration>,
}

impl Watch {
    fn new(stable_for: Duration) -> Self {
        Self { stable_for, restarts: None, not_before: None }
    }

    /// Judges a look at `now` (`CLOCK_MONOTONIC`).
    fn judge(&mut self, show: &UnitShow, now: Duration) -> Step {
        if self.restarts.is_some() && show.restarts != self.restarts {
            self.not_before = Some(now);
        }
        self.restarts = show.restarts;
        let state = format!("is {} ({})", show.active, show.sub);
        let wait = |detail| Step::Wait { detail, for_: PAUSE };
        match show.load.as_str() {
            "not-found" => return Step::Failed(Reason::UnitMissing, "does not exist".to_owned()),
            // A file that could not be read may be read the next time.
            "error" => return wait("cannot be loaded: error".to_owned()),
            "masked" | "bad-setting" => {
                return Step::Failed(Reason::UnitMissing, format!("cannot be loaded: {}", show.load));
            }
            _ => {}
        }
        // systemd 254 and later pass through `failed-before-auto-restart` on the way to the next start.
        if show.sub.ends_with("auto-restart") {
            return wait(format!("is being restarted ({})", show.sub));
        }
        match show.active.as_str() {
            "failed" => {
                let result = show.result.as_deref().unwrap_or("no result");
                Step::Failed(Reason::UnitFailed, format!("has failed: {result}"))
            }
            "active" => {
                let since = show.active_since.unwrap_or_else(|| *self.not_before.get_or_insert(now));
                let held = now.saturating_sub(since.max(self.not_before.unwrap_or_default()));
                match self.stable_for.checked_sub(held) {
                    None | Some(Duration::ZERO) => {
                        Step::Passed(format!("is active ({}) for {} ms", show.sub, held.as_millis()))
                    }
                    Some(rest) => Step::Wait {
                        detail: format!("{state} for {} ms of {} ms", held.as_millis(), self.stable_for.as_millis()),
                        for_: rest.min(PAUSE),
                    },
                }
            }
            _ => {
                self.not_before = None;
                wait(state)
            }
        }
    }
}

#[cfg(test)]
mod tests;
