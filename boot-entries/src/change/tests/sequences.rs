//! Any sequence of operations and boots, with a failure or a power cut at any event of any of them, ends with a machine that boots
//! one system, whole (UPD-2 to UPD-24, LDR-5).

use proptest::prelude::*;

use super::*;
use crate::entry::EntryArchitecture;
use crate::fat::ClusterFault;
use crate::loader::LoaderVars;
use crate::state::{Prediction, Wholeness, another_whole_entry_boots, is_whole};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    /// An image into the slot that does not run.
    Apply,
    /// Of the running system.
    Commit,
    /// The running trial's health check failed.
    MarkBad,
    /// Away from the running system.
    Rollback,
    /// The system that does not run.
    Reject,
    /// What every writing run begins with, alone.
    Tidy,
    /// The loader chooses, counts, and starts a system.
    Boot,
    /// The same, and power is lost while the firmware renames: both names stand there, on one chain of clusters.
    BootTwin,
}

/// What goes wrong in a step.
#[derive(Debug, Clone, Copy)]
struct Trouble {
    /// The number of the event that fails, if there are so many.
    at: usize,
    /// Which of the volumes that a power cut may then leave; `None`: the error is met with the machine running.
    cut: Option<usize>,
}

/// A machine, and what it runs.
struct World {
    esp: FakeEsp,
    running: (Slot, u32),
    /// Two names stand on one chain.
    twin: bool,
}

fn any_step() -> impl Strategy<Value = (Op, Option<Trouble>)> {
    use Op::{Apply, Boot, BootTwin, Commit, MarkBad, Reject, Rollback, Tidy};
    let op = prop_oneof![
        4 => Just(Apply), 4 => Just(Boot), 3 => Just(Commit), 2 => Just(MarkBad),
        2 => Just(Rollback), 2 => Just(Reject), 1 => Just(Tidy), 1 => Just(BootTwin),
    ];
    let trouble = (0..40_usize, proptest::option::of(any::<usize>())).prop_map(|(at, cut)| Trouble { at, cut });
    (op, proptest::option::of(trouble))
}

impl World {
    fn new() -> World {
        World { esp: machine(&["ralphos-a-g1.conf"]), running: (Slot::A, 1), twin: false }
    }

    /// What an operation does, as the programs do it: lock, tidy, look, ask the model, act. `Ok` also when a rule is against it.
    fn act(&self, esp: &mut FakeEsp, op: Op) -> Result<(), ChangeError> {
        let (lock, vars, x64) = (lock(), LoaderVars::default(), EntryArchitecture::X64);
        let tidied = tidy(&lock, esp)?;
        let (slot, generation) = self.running;
        tidied.refuse_older((op == Op::Apply).then_some(!slot))?;
        let state = EspState::read(esp)?;
        let ours = state.live(slot).filter(|ours| ours.name.generation.get() == generation).cloned();
        // What cannot be read may be an entry for the loader; the programs do not act on it, but for the fence.
        let readable = |ours: &OurEntry| ours.entry.is_ok();
        let Some(ours) = ours.filter(readable) else { return Ok(()) };
        let other = state.live(!slot).cloned();
        match op {
            Op::Apply => {
                let fallback = other.is_some_and(|other| !other.name.is_exhausted());
                let proven = is_whole(esp, &ours)? == Wholeness::Whole;
                if proven && !(ours.name.counter.is_some() && fallback) {
                    let highest = state.highest_generation().map_or(generation, |it| it.get().max(generation));
                    apply_to(esp, !slot, highest + 1)?;
                }
            }
            Op::Commit => drop(commit(&lock, esp, &ours)?),
            Op::MarkBad if ours.name.counter.is_some() => {
                if another_whole_entry_boots(esp, &state, ours.name, &vars, x64).is_ok() {
                    let _ = mark_bad(&lock, esp, &ours, Some("health-check"))?;
                }
            }
            Op::Rollback | Op::Reject => {
                let subject = if op == Op::Rollback { Some(ours) } else { other };
                let Some(subject) = subject.filter(readable) else { return Ok(()) };
                let fallback = another_whole_entry_boots(esp, &state, subject.name, &vars, x64);
                if fallback.is_ok_and(|fallback| fallback.name.counter.is_none()) {
                    let _ = mark_bad(&lock, esp, &subject, Some("rolled-back"))?;
                }
            }
            Op::MarkBad | Op::Tidy | Op::Boot | Op::BootTwin => {}
        }
        Ok(())
    }

    /// LDR-5.
    fn boot(&mut self, cut: bool) {
        self.running = boots(&self.esp).expect("a system that boots");
        let state = EspState::read(&mut self.esp).unwrap();
        let chosen = match state.predict(&LoaderVars::default(), EntryArchitecture::X64) {
            Prediction::Boots { entry: Some(name), .. } => name,
            other => panic!("{other:?}"),
        };
        let Some(counter) = chosen.counter.filter(|_| !self.twin) else { return };
        let (old, new) = (chosen.path(), EntryName { counter: Some(counter.counted()), ..chosen }.path());
        let content = self.esp.content(old.as_str()).expect("the chosen file").to_vec();
        // A name that is taken stops the loader's renaming, and it boots all the same.
        if self.esp.content(new.as_str()).is_some() {
            return;
        }
        self.esp.put(new.as_str(), &content);
        if cut {
            self.esp.set_faults(vec![ClusterFault::Shared { first: old, second: new, same_start: true }]);
            self.twin = true;
        } else {
            self.esp.take(old.as_str());
        }
    }

    fn step(&mut self, op: Op, trouble: Option<Trouble>) {
        if matches!(op, Op::Boot | Op::BootTwin) {
            return self.boot(op == Op::BootTwin);
        }
        let before = boots(&self.esp);
        let mut esp = self.esp.clone();
        esp.take_events();
        esp.fail_at(trouble.map_or(usize::MAX, |trouble| trouble.at));
        let result = self.act(&mut esp, op);
        let failed = esp.events().iter().any(|event| matches!(event, crate::esp::Event::Failed(_)));
        // A fallback that cannot be read is a rule against the operation, and no error.
        assert!(failed || result.is_ok(), "{op:?}: {result:?}");
        esp.fail_at(usize::MAX);
        // Whatever was reached: it boots, and so does whatever a power cut makes of it.
        assert!(boots(&esp).is_some(), "{op:?}, before it {before:?}: {:?}", esp.files());
        let mut volumes = esp.after_power_cut();
        for volume in &volumes {
            assert!(boots(volume).is_some(), "{op:?}, power lost, before it {before:?}: {:?}", volume.files());
        }
        match trouble.and_then(|trouble| trouble.cut) {
            Some(which) => {
                self.esp = volumes.swap_remove(which % volumes.len());
                self.twin = false;
                self.boot(false);
            }
            None => {
                // The program ends and unmounts.
                esp.flush().unwrap();
                self.twin &= failed;
                self.esp = esp;
            }
        }
    }
}

/// As [`super::apply`], for either slot and without tidying.
fn apply_to(esp: &mut dyn Esp, slot: Slot, generation: u32) -> Result<(), ChangeError> {
    let lock = lock();
    let fenced = fence(&lock, esp, slot)?;
    let mut write = |kind| {
        let content = payload(slot, generation, kind);
        let (size, digest) = (content.len() as u64, sha256(&content));
        let generation = Generation::new(generation).expect("not 0");
        fenced.write_payload(&lock, esp, kind, generation, size, &mut content.as_slice(), digest)
    };
    let entry = entry(slot, generation);
    let written = entry.payloads.files().into_iter().map(|(kind, _)| write(kind)).collect::<Result<Vec<_>, _>>()?;
    stage(&lock, esp, fenced, &written, &entry).map(drop)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn any_sequence_of_operations_with_crashes_ends_bootable(steps in prop::collection::vec(any_step(), 1..16)) {
        let mut world = World::new();
        for (op, trouble) in steps {
            world.step(op, trouble);
        }
        // And it can be worked with: an update goes through, boots, and is committed.
        world.boot(false);
        world.step(Op::Tidy, None);
        world.step(Op::Commit, None);
        world.step(Op::Apply, None);
        let staged = boots(&world.esp);
        world.boot(false);
        world.step(Op::Commit, None);
        prop_assert_eq!(staged, Some(world.running));
        prop_assert_eq!(boots(&world.esp), Some(world.running));
    }
}
