//! The loader model against the loaders: what `boot-entries` says systemd-boot 252 and 257 will do with an ESP, and what
//! they do (LDR-1 to LDR-10).
//!
//! Every state of the table is run under both, and a number of random ones. `RALPH_ALL=1` runs many more of those;
//! `RALPH_SEED` begins at another place. See `qemu_tests::loaders` for how a loader is run.

mod compare;
mod random;
mod state;
mod table;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use boot_entries::Release;
use qemu_tests::guest;
use qemu_tests::lab::{Lab, scenario};
use qemu_tests::loaders::{Kind, Loaders, PER_MACHINE, Place, Ran, Volume, programs};

use self::compare::{Before, compare};
use self::state::{Expect, Programs, State};

/// Random states in every run, and with `RALPH_ALL=1`.
const RANDOM: [usize; 2] = [60, 2000];
/// On a quiet machine the firmware needs 3 s and a loader a fifth of one.
const TIMEOUT: Duration = Duration::from_secs(1200);

#[test]
fn ldr1_to_10_systemd_boot_252_does_what_the_model_says() -> Result<()> {
    scenario("model-252", |lab| all_states(lab, guest::loader_252()?))
}

#[test]
fn ldr1_to_10_systemd_boot_257_does_what_the_model_says() -> Result<()> {
    scenario("model-257", |lab| all_states(lab, guest::base()?.loader))
}

/// A loader that the firmware starts does what one does that the launcher starts.
#[test]
fn the_launcher_changes_nothing() -> Result<()> {
    scenario("model-launcher", |lab| {
        for loader in [guest::loader_252()?, guest::base()?.loader] {
            let rig = Rig::new(lab, loader)?;
            for state in table::table().into_iter().filter(|state| COLD.contains(&state.name.as_str())) {
                rig.cold(&state).with_context(|| state.name.clone())?;
            }
        }
        Ok(())
    })
}

/// States that are also booted from cold: order, counting, a variable that stays, one that is used up.
const COLD: [&str; 4] = ["a trial", "many entries", "the variable before loader.conf", "one-shot boots a bad one"];

fn all_states(lab: &Lab, loader: PathBuf) -> Result<()> {
    let rig = Rig::new(lab, loader)?;
    let table = table::table();
    let names: std::collections::BTreeSet<&str> = table.iter().map(|state| state.name.as_str()).collect();
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

struct Rig<'a> {
    lab: &'a Lab,
    loader: Vec<u8>,
    programs: Programs,
    release: Release,
}

impl<'a> Rig<'a> {
    fn new(lab: &'a Lab, loader: PathBuf) -> Result<Self> {
        let built = programs()?;
        let programs = Programs { kernel: std::fs::read(built.kernel)?, unified: std::fs::read(built.unified)? };
        let loader = std::fs::read(&loader).with_context(|| format!("cannot read {}", loader.display()))?;
        let mut rig = Self { lab, loader, programs, release: Release::V252 };
        rig.release = rig.find_release()?;
        Ok(rig)
    }

    /// Which of the releases this loader is: its version, and whether the id has the counter (LDR-9).
    fn find_release(&self) -> Result<Release> {
        let state = State::new("release").plain(&["x+2-1.conf"]);
        let ran = self.run(&[state])?.1.remove("release").context("not run")?;
        let release = match (ran.info.contains("systemd-boot 252"), ran.selected.as_deref()) {
            (true, Some("x+2-1.conf")) => Release::V252,
            (false, Some("x+2-1.conf")) => Release::V257,
            (false, Some("x.conf")) => Release::V257Stripped,
            _ => anyhow::bail!("a release that is not known: {ran:?}"),
        };
        eprintln!("{} is taken for release {release}", ran.info);
        Ok(release)
    }

    /// Runs states in one machine. Gives what their ESPs were before, and what the loaders did.
    fn run(&self, states: &[State]) -> Result<(Vec<(Before, Place)>, BTreeMap<String, Ran>)> {
        let dir = self.lab.machine("machine")?;
        let mut loaders = Loaders::new(&dir)?;
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
        let mut wrong = Vec::new();
        for (state, (before, place)) in states.iter().zip(befores) {
            let ran = ran.remove(&state.name).with_context(|| format!("{} was not run", state.name))?;
            let what = compare(state, self.release, &before, &place, &ran)?;
            if !what.is_empty() {
                let text = format!("{}:\n  {}\n  {ran:?}\n  {:?}", state.name, what.join("\n  "), before.listing);
                eprintln!("{text}");
                wrong.push(text);
            }
        }
        Ok(wrong)
    }

    /// Boots a state from cold, and compares.
    fn cold(&self, state: &State) -> Result<()> {
        let dir = self.lab.machine("cold")?;
        // A launcher sets the variables, but finds no loader there.
        let mut loaders = Loaders::new(&dir)?;
        let mut sets_variables = state.volume(&self.loader, &self.programs);
        sets_variables.files.remove("EFI/BOOT/BOOTX64.EFI");
        loaders.add(vec![sets_variables])?;
        loaders.run(TIMEOUT)?;
        let volume: Volume = state.volume(&self.loader, &self.programs);
        let place = loaders.add(vec![volume])?.swap_remove(0);
        let before = Before::read(&place, state)?;
        let ran = loaders.boot(&place, TIMEOUT)?;
        let what = compare(state, self.release, &before, &place, &ran)?;
        ensure!(what.is_empty(), "{}\n{ran:?}", what.join("\n"));
        Ok(())
    }
}
