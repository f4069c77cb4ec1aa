//! Every state of the table is run under both, and a number of random ones. `RALPH_ALL=1` runs many more of those;
//! `RALPH_SEED` begins at another place. See `qemu_tests::loaders` for how a loader is run.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use boot_entries::Release;
use qemu_tests::guest;
use qemu_tests::lab::Lab;
use qemu_tests::loaders::{Kind, Loaders, PER_MACHINE, Place, Ran, programs};

use super::compare::{Before, compare};
use super::state::{Expect, Programs, State};
use super::{random, table};
use crate::{ARCH, scenario};

/// Random states in every run, and with `RALPH_ALL=1`.
const RANDOM: [usize; 2] = [60, 2000];
/// On a quiet machine the firmware needs 3 s and a loader a fifth of one; on one that has other things to do twenty times that.
const TIMEOUT: Duration = Duration::from_secs(3600);

#[test]
fn ldr1_to_10_systemd_boot_252_does_what_the_model_says() -> Result<()> {
    scenario("model-252", |lab| all_states(lab, guest::loader_252(ARCH)?))
}

#[test]
fn ldr1_to_10_systemd_boot_257_does_what_the_model_says() -> Result<()> {
    scenario("model-257", |lab| all_states(lab, guest::loader_257(ARCH)?))
}

/// A loader that the firmware starts does what one does that the launcher starts.
#[test]
fn the_launcher_changes_nothing() -> Result<()> {
    scenario("model-launcher", |lab| {
        for (release, loader) in [(252, guest::loader_252(ARCH)?), (257, guest::loader_257(ARCH)?)] {
            let rig = Rig::new(lab, loader)?;
            let states: Vec<State> = table::table().into_iter().filter(|s| COLD.contains(&s.name.as_str())).collect();
            ensure!(states.len() == COLD.len(), "a state of {COLD:?} is not in the table");
            for (n, state) in states.iter().enumerate() {
                // A folder for each: the firmware's variables stay in it.
                let dir = lab.machine(&format!("cold-{release}-{n}"))?;
                rig.cold(state, &dir).with_context(|| format!("systemd-boot {release}: {}", state.name))?;
            }
        }
        Ok(())
    })
}

/// Tells releases apart.
const PROBE: &str = "a trial";
/// States that are also booted from cold: counting, order, a variable that stays.
const COLD: [&str; 3] = [PROBE, "many entries", "the variable before loader.conf"];

fn all_states(lab: &Lab, loader: PathBuf) -> Result<()> {
    let rig = Rig::new(lab, loader)?;
    let table = table::table();
    let names: BTreeSet<&str> = table.iter().map(|state| state.name.as_str()).collect();
    ensure!(names.len() == table.len(), "two states have one name");
    let (halting, running): (Vec<State>, Vec<State>) =
        table.into_iter().partition(|state| state.expect == Expect::Halt);
    let mut wrong = rig.compare_all(&running)?;
    // Each ends the machine it runs in.
    for state in halting {
        wrong.extend(rig.compare_all(&[state])?);
    }
    let all = std::env::var_os("RALPH_ALL").is_some_and(|v| v == "1");
    let seed = std::env::var("RALPH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let count = RANDOM[usize::from(all)];
    eprintln!("{count} random states from seed {seed} (RALPH_SEED)");
    let random: Vec<State> = (0..count as u64).map(|n| random::state(seed + n)).collect();
    for some in random.chunks(PER_MACHINE) {
        wrong.extend(rig.compare_all(some)?);
    }
    ensure!(wrong.is_empty(), "{} states differ:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

/// What ESPs were before and where they lie, in the order of the states; and what the loaders did, by the state's name.
type Runs = (Vec<(Before, Place)>, BTreeMap<String, Ran>);

struct Rig<'a> {
    lab: &'a Lab,
    loader: Vec<u8>,
    programs: Programs,
    release: OnceCell<Release>,
}

impl<'a> Rig<'a> {
    fn new(lab: &'a Lab, loader: PathBuf) -> Result<Self> {
        let built = programs(ARCH)?;
        let programs = Programs { kernel: std::fs::read(built.kernel)?, unified: std::fs::read(built.unified)? };
        let loader = std::fs::read(&loader).with_context(|| format!("cannot read {}", loader.display()))?;
        Ok(Self { lab, loader, programs, release: OnceCell::new() })
    }

    /// Which of the releases this loader is, from what it did with the state [`PROBE`]: its version, and whether the id has
    /// the counter (LDR-9).
    fn learn_release(&self, ran: &Ran) -> Result<()> {
        let with_counter = ran.selected.as_ref().with_context(|| format!("nothing chosen: {ran:?}"))?.contains('+');
        let release = match (ran.info.contains("systemd-boot 252"), with_counter) {
            (true, true) => Release::V252,
            (false, true) => Release::V257,
            (false, false) => Release::V257Stripped,
            (true, false) => bail!("a release that is not known: {ran:?}"),
        };
        eprintln!("{} is taken for release {release}", ran.info);
        // Learned once: the same loader is the same release.
        let _ = self.release.set(release);
        Ok(())
    }

    fn release(&self) -> Result<Release> {
        self.release.get().copied().with_context(|| format!("the state {PROBE:?} was not run yet"))
    }

    /// Runs states in one machine. Gives what their ESPs were before, and what the loaders did.
    fn run(&self, states: &[State]) -> Result<Runs> {
        let dir = self.lab.machine("machine")?;
        let mut loaders = Loaders::new(ARCH, &dir)?;
        let (beside, alone): (Vec<&State>, Vec<&State>) = states.iter().partition(|state| state.beside.is_some());
        let volumes = alone.iter().map(|state| state.volume(&self.loader, &self.programs)).collect();
        let mut places: BTreeMap<&str, Place> =
            alone.iter().map(|state| state.name.as_str()).zip(loaders.add(volumes)?).collect();
        for state in beside {
            let other = state.volume_beside(&self.programs).unwrap_or_default();
            let volumes = [(Kind::Esp, state.volume(&self.loader, &self.programs)), (Kind::Xbootldr, other)];
            places.insert(&state.name, loaders.add_disk(&volumes)?.swap_remove(0));
        }
        let mut befores = Vec::new();
        for state in states {
            let place = places.remove(state.name.as_str()).context("placed twice")?;
            befores.push((Before::read(&place, state).with_context(|| state.name.clone())?, place));
        }
        let ran = loaders.run(TIMEOUT)?;
        Ok((befores, ran))
    }

    /// What differs, a text each.
    fn compare_all(&self, states: &[State]) -> Result<Vec<String>> {
        let (befores, mut ran) = self.run(states)?;
        if let Some(probe) = ran.get(PROBE) {
            self.learn_release(probe)?;
        }
        let mut wrong = Vec::new();
        for (state, (before, place)) in states.iter().zip(befores) {
            let ran = ran.remove(&state.name).with_context(|| format!("{} was not run", state.name))?;
            let what = compare(state, self.release()?, &before, &place, &ran)?;
            if !what.is_empty() {
                let text = format!("{}:\n  {}\n  {ran:?}\n  {:?}", state.name, what.join("\n  "), before.listing);
                eprintln!("{text}");
                wrong.push(text);
            }
        }
        Ok(wrong)
    }

    /// Boots a state from cold, in a machine of its own in `dir`, and compares.
    fn cold(&self, state: &State, dir: &Path) -> Result<()> {
        let mut loaders = Loaders::new(ARCH, dir)?;
        if !state.vars.is_empty() {
            // A launcher sets the variables, but finds no loader there.
            let mut sets_variables = state.volume(&self.loader, &self.programs);
            sets_variables.files.remove(&ARCH.loader_path());
            loaders.add(vec![sets_variables])?;
            loaders.run(TIMEOUT)?;
        }
        let place = loaders.add(vec![state.volume(&self.loader, &self.programs)])?.swap_remove(0);
        let before = Before::read(&place, state)?;
        let ran = loaders.boot(&place, TIMEOUT)?;
        if state.name == PROBE {
            self.learn_release(&ran)?;
        }
        let what = compare(state, self.release()?, &before, &place, &ran)?;
        ensure!(what.is_empty(), "{}\n{ran:?}", what.join("\n"));
        Ok(())
    }
}
