//! The loader's choice while a slot is being changed: never a slot that is fenced, inert or half written.

use proptest::prelude::*;

use super::*;
use crate::entry::EntryArchitecture;
use crate::loader::{LoaderVars, Outcome, Release};
use crate::names::Counter;
use crate::state::Prediction;

/// Values that a variable or loader.conf may hold, stale or not.
fn any_pattern() -> impl Strategy<Value = String> {
    "(ralphos-[ab*]-?g?[1-7*](\\+[0-3]-[0-3])?(\\.conf|\\*)?)|[a-b*0-9g?.+-]{1,6}|@saved|\\[ab\\]*"
}

/// The old system of slot B, as it may be found.
fn any_old_b() -> impl Strategy<Value = Option<String>> {
    let counters = prop_oneof![Just(""), Just("+3-0"), Just("+1-2"), Just("+0-3"), Just("+0-0")];
    proptest::option::of(counters.prop_map(|counter| format!("ralphos-b-g2{counter}.conf")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// From the end of the fence to the commit point, whatever is stale, whatever fails, and wherever the power is cut.
    #[test]
    fn upd2_a_fenced_slot_is_never_chosen_before_its_commit_point(
        old in any_old_b(),
        one_shot in proptest::option::of(any_pattern()),
        default in proptest::option::of(any_pattern()),
        last_booted in proptest::option::of(any_pattern()),
        conf in proptest::option::of(any_pattern()),
        at in any::<proptest::sample::Index>(),
    ) {
        let mut before = machine(&[Some("ralphos-a-g1.conf"), old.as_deref()].into_iter().flatten().collect::<Vec<_>>());
        let lines = conf.map(|pattern| format!("default {pattern}\n")).unwrap_or_default();
        before.put("loader/loader.conf", format!("timeout 0\nauto-entries no\nauto-firmware no\n{lines}").as_bytes());
        let vars = LoaderVars { one_shot, default, last_booted };

        let mut whole = before.clone();
        apply(&mut whole, 7).unwrap();
        let events = whole.take_events();
        let fenced = events.iter().position(|event| event.starts_with("write ralphos/b/g7-linux"));
        let commit_point = events.iter().position(|event| event.starts_with("overwrite"));
        let (fenced, commit_point) = (fenced.expect("a kernel is written"), commit_point.expect("an entry goes live"));

        let mut failed = before.clone();
        failed.fail_at(fenced + at.index(commit_point + 1 - fenced));
        apply(&mut failed, 7).expect_err("an event was told to fail");
        for mut esp in failed.after_power_cut().into_iter().chain([failed]) {
            let state = EspState::read(&mut esp).unwrap();
            // Each release by itself: where they differ there is no prediction, and yet one of them boots.
            for release in Release::ALL {
                match state.outcome(release, &vars, EntryArchitecture::X64) {
                    Outcome::Boots(choice) => {
                        let name: EntryName = choice.name.parse().expect("there are entries of ours alone");
                        prop_assert_eq!(name.slot, Slot::A, "{}", release);
                    }
                    // A pattern that names no entry may name what the loader offers besides.
                    Outcome::Automatic { .. } => {}
                    Outcome::Nothing => prop_assert!(false, "{release}: {:?}", esp.files()),
                }
            }
        }
    }

    /// Entries that boot are live and their kernel is there, in any mixture of them.
    #[test]
    fn ldr1_what_is_chosen_is_live_and_has_a_kernel(
        systems in proptest::collection::vec((any::<bool>(), 1..6u32, 0..4u32, 0..4u32, 0..4usize), 0..6),
        default in proptest::option::of(any_pattern()),
        one_shot in proptest::option::of(any_pattern()),
    ) {
        let mut esp = machine(&[]);
        for (a, generation, left, done, kind) in systems {
            let slot = if a { Slot::A } else { Slot::B };
            let generation = Generation::new(generation).unwrap();
            let counter = (left < 3).then(|| Counter::new(left, done)).flatten();
            let name = EntryName { slot, generation, counter };
            let content = entry(slot, generation.get());
            // Whole, inert, without its kernel, cut short.
            let bytes = content.render(if kind == 1 { Liveness::Inert } else { Liveness::Live });
            esp.put(name.path().as_str(), if kind == 3 { &bytes[..bytes.len() / 2] } else { &bytes });
            let kernel = content.payload(PayloadKind::Linux).path();
            if kind != 2 {
                esp.put(kernel.as_str(), b"a kernel");
            }
        }
        let state = EspState::read(&mut esp).unwrap();
        let vars = LoaderVars { one_shot, default, last_booted: None };
        if let Prediction::Boots { file_name, entry: Some(name), .. } = state.predict(&vars, EntryArchitecture::X64) {
            let found = state.ours.iter().find(|other| other.file_name == file_name).unwrap();
            prop_assert!(found.is_live());
            let kernel = entry(name.slot, name.generation.get()).payload(PayloadKind::Linux).path();
            prop_assert!(esp.content(kernel.as_str()).is_some());
        }
    }
}
