//! What the scenarios of failing trials share: the way down, and what must be true afterwards.

use anyhow::{Context, Result, ensure};
use qemu_tests::guest::Release;
use qemu_tests::lab::Lab;
use qemu_tests::machine::{Machine, Off};
use qemu_tests::vm::BOOT_TIMEOUT;
use serde_json::Value;

/// The entry of the healthy 1.0.0 in slot A.
pub const A: &str = "ralphos-a-g1.conf";

/// A unit that never comes to an end, and keeps the system from going on.
pub const HANG: &str = "[Unit]\nDefaultDependencies=no\nBefore=sysinit.target\n\
    [Service]\nType=oneshot\nExecStart=/usr/bin/sleep infinity\nTimeoutStartSec=infinity\n";

/// A machine whose trial of slot B, generation 2, has ended, and that is back on slot A.
#[derive(Debug)]
pub struct Fallen {
    /// The machine, on slot A.
    pub machine: Machine,
    /// What `explain` tells of generation 2.
    pub update: Value,
}

/// Starts a trial of `release`, which is marked bad, and waits until slot A runs again. All that tells of the trial is on the disk by then:
/// slot A need not come to a verdict of its own.
pub fn gives_up(lab: &Lab, release: &Release) -> Result<Fallen> {
    let mut machine = Off::new(lab)?.stage(release)?.start()?;
    machine.vm.wait_slot("a")?;
    let status = machine.status()?;
    told(machine, &status)
}

/// Waits until slot A runs again and has settled: committed, B out of the way, and everybody says so.
pub fn fallen(mut machine: Machine) -> Result<Fallen> {
    machine.vm.wait_slot("a")?;
    back_on_a(machine)
}

/// The same for a machine that has said already that slot A runs.
pub fn back_on_a(mut machine: Machine) -> Result<Fallen> {
    let status = machine.settled_status()?;
    told(machine, &status)
}

fn told(mut machine: Machine, status: &Value) -> Result<Fallen> {
    assert_eq!(status["booted"], "a");
    assert_eq!(status["on_trial"], false);
    assert_eq!(status["slots"]["a"]["state"], "committed");
    assert_eq!(status["slots"]["b"]["state"], "bad", "{status}");
    assert_eq!(status["next_boot"]["slot"], "a");
    let explained = machine.explain()?;
    assert_eq!(explained["running"]["slot"], "a");
    assert_eq!(explained["running"]["version"], "1.0.0");
    assert_eq!(explained["next_boot"]["slot"], "a");
    let update = update(&explained, 2)?;
    assert_eq!(update["slot"], "b");
    assert_eq!(update["version"], "2.0.0");
    ensure!(explained["advice"].as_array().is_some_and(|advice| !advice.is_empty()), "no advice: {explained}");
    Ok(Fallen { machine, update })
}

/// What `explained` tells of a generation.
pub fn update(explained: &Value, generation: u32) -> Result<Value> {
    let updates = explained["updates"].as_array().context("no updates")?;
    let found = updates.iter().find(|update| update["generation"] == generation);
    Ok(found.with_context(|| format!("nothing of generation {generation}: {explained:#}"))?.clone())
}

/// Starts a trial of `release` that must be committed, and gives the machine on slot B and what `explain` tells of it.
pub fn commits(lab: &Lab, release: &Release) -> Result<(Machine, Value)> {
    let mut machine = Off::new(lab)?.stage(release)?.start()?;
    assert_eq!(machine.vm.wait_boot(BOOT_TIMEOUT)?.slot, "b");
    let update = committed(&mut machine)?;
    Ok((machine, update))
}

/// Waits for the verdict on slot B, which must be a commit.
pub fn committed(machine: &mut Machine) -> Result<Value> {
    let status = machine.settled_status()?;
    assert_eq!(status["booted"], "b");
    assert_eq!(status["slots"]["b"]["state"], "committed", "{status:#}");
    assert_eq!(machine.entries()?, [A, "ralphos-b-g2.conf"]);
    let explained = machine.explain()?;
    assert_eq!(explained["running"]["slot"], "b");
    assert_eq!(explained["running"]["on_trial"], false);
    let update = update(&explained, 2)?;
    assert_eq!(update["end"], "committed");
    Ok(update)
}

/// The events of `kind` in the history.
pub fn events(machine: &mut Machine, kind: &str) -> Result<usize> {
    Ok(machine.events()?.iter().filter(|event| *event == kind).count())
}

impl Fallen {
    /// Its entry was marked bad for this reason, and `explain` says so.
    pub fn marked_bad(&self, reason: &str) {
        assert_eq!(self.update["end"], "marked-bad", "{:#}", self.update);
        let entries = self.machine.entries().expect("the ESP can be read");
        let bad = entries.iter().find(|name| name.starts_with("ralphos-b-g2+0-")).expect("a bad entry");
        let content = self.machine.esp.read(&format!("loader/entries/{bad}")).expect("it can be read");
        let content = String::from_utf8_lossy(&content).into_owned();
        assert!(content.contains(&format!("ralph.failed={reason}")), "{content}");
    }

    /// Just these checks failed in the last try, for these reasons, in any order.
    pub fn failed(&self, expected: &[(&str, &str)]) {
        let tries = self.update["tries"].as_array().expect("tries");
        let last = tries.iter().max_by_key(|one| one["attempt"].as_u64()).expect("a try");
        let checks = last["failed_checks"].as_array().expect("failed checks");
        let text = |check: &Value, key: &str| check[key].as_str().unwrap_or_default().to_owned();
        let mut failed: Vec<_> = checks.iter().map(|check| (text(check, "name"), text(check, "reason"))).collect();
        failed.sort();
        let mut wanted: Vec<_> = expected.iter().map(|(name, reason)| (name.to_string(), reason.to_string())).collect();
        wanted.sort();
        assert_eq!(failed, wanted, "{checks:#?}");
    }

    /// Its tries are used up, with (`fell-back`) or without (`inconclusive`) evidence why.
    pub fn ended(&self, end: &str) {
        assert_eq!(self.update["end"], end, "{:#}", self.update);
    }

    /// This is what the boot guard's record said of the last try.
    pub fn guard_said(&self, text: &str) {
        let tries = self.update["tries"].as_array().expect("tries");
        let last = tries.iter().max_by_key(|one| one["attempt"].as_u64()).expect("a try");
        assert_eq!(last["guard"], text, "{:#}", self.update);
    }

    /// How many tries `explain` knows of.
    pub fn trials(&self) -> usize {
        self.update["tries"].as_array().map_or(0, Vec::len)
    }
}
