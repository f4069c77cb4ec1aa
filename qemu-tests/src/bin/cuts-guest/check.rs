//! What must be true after an operation, whatever state it began in.

use std::fs::File;
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail, ensure};
use boot_entries::fat::{Volume, cluster_faults};
use boot_entries::names::{entries_dir, payload_dir};
use boot_entries::options::hex;
use boot_entries::{Esp, EspPath, EspState, OurEntry, Wholeness, is_whole};
use disk_layout::Slot;
use qemu_tests::cuts::room;
use serde_json::Value;

use crate::fsck::fsck;
use crate::guard::Counting;
use crate::job::{Keep, Op};
use crate::system::{Ran, System, output};

/// Checks all of it, and gives the file name of what boots next. `counting` is what the boot guard should have done.
pub fn check(system: &System, op: &Op, ran: &Ran, keep: &Keep, counting: Option<Counting>) -> Result<String> {
    let exits = || ran.code.is_some_and(|code| op.exits.contains(&i64::from(code)));
    let ended = exits() || (op.restarts && ran.restarted());
    ensure!(ended, "it should end with {:?}{}", op.exits, if op.restarts { " or a restart" } else { "" });
    fsck(&system.esp_device())?;
    clusters(system)?;
    let free = room::of(system.esp_window()?)?;
    ensure!(free >= room::ROOM, "{free} slots are free in loader/entries (ENT-28)");
    let mut esp = system.esp()?;
    for (path, digest) in keep {
        let path: EspPath = path.parse()?;
        let (found, _) = esp.hash_file(&path).with_context(|| format!("{path} is gone"))?;
        ensure!(hex(&found) == *digest, "{path} has another content");
    }
    let state = EspState::read(&mut esp)?;
    for ours in &state.ours {
        ensure!(ours.is_live(), "{} is inert and still there", ours.file_name);
        let whole = is_whole(&mut esp, ours)?;
        ensure!(whole == Wholeness::Whole, "{}: {whole}", ours.file_name);
        let names = state.ours.iter().filter(|other| other.name.slot == ours.name.slot).count();
        ensure!(names == 1, "slot {} has {names} entries", ours.name.slot);
    }
    let boots = system.choice()?;
    let found = (boots.name.slot.to_string(), u64::from(boots.name.generation.get()));
    ensure!(op.boots.contains(&found), "{} would boot, and not one of {:?}", boots.file_name, op.boots);
    verified(system, &boots)?;
    if let Some(counting) = counting {
        counting.end(system, ran, boots.name)?;
    }
    slots(op)?;
    Ok(boots.file_name)
}

/// No two names on one chain, and no chain that leads nowhere (ENT-22).
fn clusters(system: &System) -> Result<()> {
    let device = system.esp_device();
    let mut volume = Volume::open(File::open(&device)?).with_context(|| format!("{}", device.display()))?;
    let mut dirs = vec![entries_dir(), payload_dir(Slot::A), payload_dir(Slot::B)];
    for dir in ["EFI", "EFI/BOOT", "loader", "ralphos"] {
        dirs.push(dir.parse()?);
    }
    match cluster_faults(&mut volume, &dirs)?.first() {
        None => Ok(()),
        Some(fault) => bail!("clusters: {fault:?}"),
    }
}

/// The data of what boots next are those that its entry names; so are those of what boots after a failed trial.
fn verified(system: &System, boots: &OurEntry) -> Result<()> {
    let slot_of = |ours: &OurEntry| {
        let entry = ours.entry.as_ref().map_err(|error| anyhow!("{}: {error}", ours.file_name))?;
        system.verify(&entry.options).with_context(|| format!("{}: the data of its slot", ours.file_name))
    };
    slot_of(boots)?;
    if boots.name.counter.is_none_or(|counter| counter.is_exhausted()) {
        return Ok(());
    }
    let fallback = system.fallback(boots.name).with_context(|| format!("once {} is bad", boots.file_name))?;
    ensure!(fallback.name.slot != boots.name.slot, "once {} is bad, {} boots", boots.file_name, fallback.file_name);
    slot_of(&fallback)
}

/// What `ralph-update status` says of the slots.
fn slots(op: &Op) -> Result<()> {
    let ran = output(Command::new("/bin/ralph-update").args(["status", "--json"]))?;
    ensure!(ran.code == Some(0), "ralph-update status: {:?}: {}", ran.code, ran.output);
    let status: Value = serde_json::from_str(&ran.output).with_context(|| format!("not JSON: {}", ran.output))?;
    for (slot, allowed) in ["a", "b"].into_iter().zip(&op.slots) {
        let state = status["slots"][slot]["state"].as_str().unwrap_or_default();
        ensure!(allowed.iter().any(|one| one == state), "slot {slot} is {state}, and not one of {allowed:?}");
    }
    Ok(())
}
