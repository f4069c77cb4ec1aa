//! What the boot guard must have done: counted this boot, or given the entry up.

use anyhow::{Context, Result, ensure};
use boot_entries::EntryName;
use boot_entries::guard::{GuardDevice, GuardRecord};

use crate::system::{Ran, System};

/// Boots that the guard counts before it gives an entry up (GRD-12).
const PATIENCE: u32 = 5;

/// What stood in the record when it began.
#[derive(Debug)]
pub struct Counting {
    before: GuardRecord,
    booted: EntryName,
}

impl Counting {
    /// Before the guard runs in the system that was booted.
    pub fn begin(system: &System) -> Result<Counting> {
        Ok(Counting { before: record(system)?, booted: system.booted()? })
    }

    /// After it: the record has one boot more (GRD-10), or, after too many of them, the entry was given up, the record
    /// says so, and the machine restarted (GRD-12).
    pub fn end(self, system: &System, ran: &Ran, boots: EntryName) -> Result<()> {
        let (slot, generation) = (self.booted.slot, self.booted.generation);
        // Not by the guard's own arithmetic: one more for the entry that was counted before, else the first.
        let boots_before = if self.before.entry == Some((slot, generation)) { self.before.boots } else { 0 };
        let counted = GuardRecord {
            boots: boots_before + 1,
            entry: Some((slot, generation)),
            done: self.booted.counter.map(|counter| counter.done()),
            event: self.before.event.clone(),
        };
        let after = record(system)?;
        let story = || format!("the guard made of {:?}: {after:?}", self.before);
        if counted.boots <= PATIENCE {
            ensure!(after == counted, "{}, and not {counted:?}", story());
            ensure!(!ran.restarted() && boots == self.booted, "{}, {boots} would boot next, {}", story(), ran.end());
            return Ok(());
        }
        let event = after.event.as_ref().with_context(|| format!("{}, and no event", story()))?;
        let same = (event.slot, event.generation, event.text.as_str()) == (slot, generation, "guard");
        ensure!(same && after.boots == counted.boots, "{}", story());
        ensure!(ran.restarted() && boots.slot != slot, "{}, {boots} would boot next, {}", story(), ran.end());
        Ok(())
    }
}

fn record(system: &System) -> Result<GuardRecord> {
    let mut device = GuardDevice::open_partition(&system.esp_device(), &system.layout)?;
    device.read().context("the boot guard's record cannot be read")
}
