//! Which check may begin (HLT-25).

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

use super::{Finding, Reason};
use crate::config::Check;

/// How far all checks are; each tells it when it ends.
#[derive(Debug)]
pub struct Board {
    names: Vec<String>,
    passed: Mutex<Vec<Option<bool>>>,
    changed: Condvar,
}

impl Board {
    /// None has ended.
    pub fn new(checks: &[Check]) -> Self {
        Self {
            names: checks.iter().map(|check| check.name.clone()).collect(),
            passed: Mutex::new(vec![None; checks.len()]),
            changed: Condvar::new(),
        }
    }

    /// This one has ended.
    pub fn ended(&self, index: usize, passed: bool) {
        // Nothing panics while it holds the lock, and what is behind it is never half changed.
        self.passed.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(passed);
        self.changed.notify_all();
    }

    /// Waits until all that this check comes after have passed; the finding if one has failed, or the time is over.
    pub fn wait_for_turn(&self, check: &Check, overall: Instant) -> Result<(), Box<Finding>> {
        // The configuration lets no name pass that is nowhere.
        let after: Vec<usize> =
            check.after.iter().filter_map(|after| self.names.iter().position(|name| name == after)).collect();
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(&failed) = after.iter().find(|&&index| passed[index] == Some(false)) {
                let detail = format!("never began: it comes after `{}`, which failed", self.names[failed]);
                return Err(Box::new(Finding::failed(Reason::After, detail)));
            }
            let Some(&waits) = after.iter().find(|&&index| passed[index].is_none()) else { return Ok(()) };
            let left = overall.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let detail = format!("never began: `{}`, which it comes after, has not ended", self.names[waits]);
                return Err(Box::new(Finding::failed(Reason::OverallDeadline, detail)));
            }
            passed = self.changed.wait_timeout(passed, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
