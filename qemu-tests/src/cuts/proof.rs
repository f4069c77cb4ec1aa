//! From a recording to a verdict: states are chosen by `power-cuts`, worked from in the guest, and booted.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::bench::Bench;
use super::boots::{self, Booted};
use super::flow::Flow;
use super::record::Recording;
use super::states::{State, States};
use super::work::work;
use crate::setup::run;
use crate::workspace;

/// What the states are chosen by. The same seed chooses the same ones from the same recording.
pub const SEED: u64 = 4;

/// Of so many states at most some are chosen; how many are checked is `power-cuts`' own business.
const CHOSEN_FROM: &str = "3000";

/// Has `power-cuts` choose the states most worth setting up, into the file `out` (CUT-62). It checks them, too: a state that
/// breaks the promise is an error here.
///
/// # Errors
/// When it does not build, or a state fails.
pub fn select(recording: &Recording, count: usize, out: &Path) -> Result<PathBuf> {
    let mut select = Command::new(workspace::static_programs()?.power_cuts);
    select.arg("select").arg("--base").arg(&recording.base).arg("--log").arg(&recording.log);
    select.arg("--flow").arg(&recording.about).args(["--seed", &SEED.to_string(), "--count", &count.to_string()]);
    let said = run(select.args(["--max-states", CHOSEN_FROM]).arg("--output").arg(out))?;
    eprint!("{}", String::from_utf8_lossy(&said));
    Ok(out.to_owned())
}

/// Repeats the flow in every state of the file, in the tiny guest.
///
/// # Errors
/// When it does not end well in one of them; with all of those.
pub fn work_states(bench: &Bench<'_>, flow: &Flow, recording: &Recording, states: &Path, dir: &Path) -> Result<()> {
    let worked = work(bench, flow, &recording.base, states, dir)?;
    let failed: Vec<String> =
        worked.iter().filter(|one| !one.ok).map(|one| format!("{}: {}", one.id, one.said)).collect();
    eprintln!("{}: worked from {} states", flow.name, worked.len());
    if failed.is_empty() {
        return Ok(());
    }
    bail!("{}: {} of {} states cannot be worked from:\n{}", flow.name, failed.len(), worked.len(), failed.join("\n"))
}

/// Boots up to `count` states of the file, spread over it, by the loader that is on the disk or by `loader`. Each must come up
/// with the system that is foretold, which is the old or the new one.
///
/// # Errors
/// When one does not; its disk is kept in `dir` under its name.
pub fn boot_states(
    recording: &Recording,
    states: &Path,
    count: usize,
    loader: Option<&Path>,
    dir: &Path,
) -> Result<()> {
    let mut file = States::open(states)?;
    let (all, mut booted) = (file.left(), 0);
    while let Some(state) = file.next_state()? {
        let at = all - file.left() - 1;
        // The first, the last and what lies evenly between them.
        if at * count / all == (at + 1) * count / all && all > count {
            continue;
        }
        boot_state(recording, &state, loader, dir).with_context(|| format!("state {}", state.id))?;
        booted += 1;
    }
    eprintln!("{}: booted {booted} states", recording.about.display());
    Ok(())
}

fn boot_state(recording: &Recording, state: &State, loader: Option<&Path>, dir: &Path) -> Result<()> {
    let disk = dir.join(format!("{}.raw", state.id));
    boots::disk_in_state(&recording.base, &state.patch, loader, &disk)?;
    let foretold = Booted { slot: state.slot.clone(), generation: state.generation };
    let booted = boots::boot(&disk, dir)?;
    if booted != foretold {
        bail!("{booted:?} came up, and {foretold:?} should have");
    }
    std::fs::remove_file(&disk).with_context(|| format!("cannot remove {}", disk.display()))
}
