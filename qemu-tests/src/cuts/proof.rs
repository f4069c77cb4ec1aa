//! From a recording to a verdict: states are chosen by `power-cuts`, worked from in the guest, and booted.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::boots::{self, Booted};
use super::record::Recording;
use super::states::{State, States};
use super::work::work;
use crate::setup::{self, run};
use crate::workspace;

/// What the states are chosen by. The same seed chooses the same ones from the same recording.
pub const SEED: u64 = 4;

/// Different states of a flow that are checked, at most.
pub const CHOSEN_FROM: u32 = 3000;
/// The same where a few of them are booted: with a kernel that starts on the disk, each takes the checker ten times as long.
pub const BOOTED_OF: u32 = 500;

/// Disks of failed states that are kept.
const KEPT: usize = 5;

/// Has `power-cuts` choose the `count` states most worth setting up (CUT-62) of at most `of`. It checks all of these: a state that breaks
/// the promise is an error here.
///
/// Gives the number of states that it checked, no two of them equal (CUT-15).
///
/// # Errors
/// When it does not build, a state fails, or none is chosen.
pub fn select(recording: &Recording, count: usize, of: u32) -> Result<u64> {
    let power_cuts = workspace::host_programs()?.power_cuts;
    let of_recording = |verb: &str| {
        let mut command = Command::new(&power_cuts);
        command.arg(verb).arg("--base").arg(&recording.base).arg("--log").arg(&recording.log);
        command.arg("--flow").arg(&recording.about).args([
            "--seed",
            &SEED.to_string(),
            "--max-states",
            &of.to_string(),
        ]);
        command
    };
    let report = recording.dir.join("report.json");
    let mut select = of_recording("select");
    select.args(["--count", &count.to_string()]).arg("--report").arg(&report).arg("--output").arg(recording.states());
    let said = run(&mut select).or_else(|error| {
        // Once more, to keep the disks of what fails; it tells how to look at each again.
        let kept = of_recording("check").arg("--save").arg(recording.dir.join("failed")).output()?;
        Err(error.context(String::from_utf8_lossy(&kept.stdout).into_owned()))
    })?;
    eprint!("{}", String::from_utf8_lossy(&said));
    ensure!(States::open(&recording.states())?.left() > 0, "{}: no state was chosen", recording.flow.name);
    let report: Value = serde_json::from_slice(&std::fs::read(&report)?).context("the report of power-cuts")?;
    report["distinct"].as_u64().with_context(|| format!("no number of states in {report}"))
}

/// Repeats the flow in every chosen state, or the one named `only`, in the tiny guest. Gives how many.
///
/// # Errors
/// When it does not end well in one of them; with all of those, and how to run them again.
pub fn work_states(recording: &Recording, only: Option<&str>) -> Result<usize> {
    let (flow, dir, began) = (recording.flow.name, recording.dir.display(), Instant::now());
    let worked = work(recording, only)
        .with_context(|| format!("working from states of {flow}; once more: {}", again("work-from", recording, "")))?;
    ensure!(!worked.is_empty(), "{flow}: no state to work from");
    let failed: Vec<_> = worked.iter().filter(|one| !one.ok).collect();
    let seconds = began.elapsed().as_secs_f32() / worked.len() as f32;
    eprintln!("{flow}: worked from {} states, {seconds:.1} s each", worked.len());
    if failed.is_empty() {
        return Ok(worked.len());
    }
    for one in failed.iter().take(KEPT) {
        let state = States::open(&recording.states())?.find(&one.id)?;
        boots::disk_in_state(&recording.base, &state.patch, &disk_of(recording, &one.id))?;
    }
    let told: Vec<String> = failed
        .iter()
        .map(|one| format!("{}: {}\n    {}", one.id, one.said, again("work-from", recording, &one.id)))
        .collect();
    let (told, all) = (told.join("\n"), worked.len());
    bail!("{flow}: {} of {all} states cannot be worked from (disks are in {dir}):\n{told}", failed.len())
}

/// Boots up to `count` of the chosen states, as different as they are, by the loader that is on the disk. Each must come up
/// with the system that is foretold, which is the old or the new one. Gives what came up.
///
/// # Errors
/// When one does not; its disk is kept.
pub fn boot_states(recording: &Recording, count: usize) -> Result<Vec<Booted>> {
    let names: Vec<(Booted, String)> = States::open(&recording.states())?.names();
    let wanted = spread(names, count);
    let mut file = States::open(&recording.states())?;
    let mut booted = Vec::new();
    while let Some(state) = file.next_state()? {
        if wanted.contains(&state.id) {
            booted.push(boot_state(recording, &state)?);
        }
    }
    ensure!(!booted.is_empty(), "{}: no state to boot", recording.flow.name);
    eprintln!("{}: booted {} states", recording.flow.name, booted.len());
    Ok(booted)
}

/// Up to `count` names, the first, the last and what lies evenly between them when they are put in the order of what boots:
/// where two systems boot, both do.
fn spread(mut names: Vec<(Booted, String)>, count: usize) -> Vec<String> {
    names.sort_by_key(|(boots, _)| (boots.generation, boots.slot.clone()));
    let (count, last) = (count.min(names.len()), names.len().saturating_sub(1));
    (0..count).map(|at| names[at * last / (count - 1).max(1)].1.clone()).collect()
}

/// Boots a state; its disk is kept as it was before when something else comes up than is foretold.
///
/// # Errors
/// Then, with how to do it again.
pub fn boot_state(recording: &Recording, state: &State) -> Result<Booted> {
    let (disk, copy) = (disk_of(recording, &state.id), recording.dir.join("booted.raw"));
    boots::disk_in_state(&recording.base, &state.patch, &disk)?;
    run(setup::command("cp").args(["--sparse=always", "--reflink=auto"]).arg(&disk).arg(&copy))?;
    let foretold = Booted { slot: state.slot.clone(), generation: state.generation };
    let told =
        || format!("state {} ({}); once more: {}", state.id, disk.display(), again("boot-from", recording, &state.id));
    let booted = boots::boot(&copy, &recording.dir).with_context(told)?;
    ensure!(booted == foretold, "{booted:?} came up, and {foretold:?} should have: {}", told());
    for path in [&disk, &copy] {
        std::fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(booted)
}

fn disk_of(recording: &Recording, id: &str) -> std::path::PathBuf {
    recording.dir.join(format!("{id}.raw"))
}

/// The command that runs one state again.
fn again(command: &str, recording: &Recording, id: &str) -> String {
    format!("cargo run -p qemu-tests --bin cuts -- {command} {} {id}", Path::display(&recording.dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_that_are_booted_are_spread_over_what_boots() {
        let system = |slot: &str, generation| Booted { slot: slot.to_owned(), generation };
        let mut names: Vec<_> = (0..9).map(|n| (system("a", 1), format!("old-{n}"))).collect();
        names.insert(3, (system("b", 2), "new".to_owned()));
        assert_eq!(spread(names.clone(), 2), ["old-0", "new"]);
        assert_eq!(spread(names.clone(), 4), ["old-0", "old-3", "old-6", "new"]);
        assert_eq!(spread(names.clone(), 1), ["old-0"]);
        assert_eq!(spread(names.clone(), 99).len(), 10);
        assert!(spread(names, 0).is_empty());
        assert!(spread(Vec::new(), 5).is_empty());
    }
}
