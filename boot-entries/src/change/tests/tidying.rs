//! Tidy: every leftover of a cut, and what it must not touch.

use proptest::prelude::*;

use super::*;
use crate::entry::Liveness;
use crate::testing::put_payloads;

fn inert(esp: &mut FakeEsp, name: &str) {
    let parsed: EntryName = name.parse().unwrap();
    let content = entry(parsed.slot, parsed.generation.get()).render(Liveness::Inert);
    esp.put(parsed.path().as_str(), &content);
}

fn entries(esp: &FakeEsp) -> Vec<&str> {
    esp.files().into_iter().filter_map(|path| path.strip_prefix("loader/entries/")).collect()
}

#[test]
fn upd24_of_live_twins_one_stays() {
    for (twins, stays) in [
        // A rollback was cut: finish it.
        (["ralphos-b-g2+0-0.conf", "ralphos-b-g2.conf"], "ralphos-b-g2+0-0.conf"),
        // A commit was cut.
        (["ralphos-b-g2+2-1.conf", "ralphos-b-g2.conf"], "ralphos-b-g2.conf"),
        (["ralphos-b-g2+0-3.conf", "ralphos-b-g2.conf"], "ralphos-b-g2.conf"),
        // Marking bad was cut.
        (["ralphos-b-g2+0-1.conf", "ralphos-b-g2+2-1.conf"], "ralphos-b-g2+0-1.conf"),
        // The firmware's counting was cut.
        (["ralphos-b-g2+1-2.conf", "ralphos-b-g2+2-1.conf"], "ralphos-b-g2+1-2.conf"),
        (["ralphos-b-g2+0-3.conf", "ralphos-b-g2+0-4.conf"], "ralphos-b-g2+0-4.conf"),
    ] {
        let mut esp = machine(&["ralphos-a-g1.conf", twins[0], twins[1]]);
        let tidied = tidy(&lock(), &mut esp).unwrap();
        assert_eq!(entries(&esp), ["ralphos-a-g1.conf", stays], "{twins:?}");
        assert_eq!(tidied.removed.len(), 1);
        assert_eq!(tidied.older, []);
    }
}

#[test]
fn upd24_inert_entries_go_whatever_stands_beside_them() {
    let mut esp = machine(&["ralphos-a-g1.conf", "ralphos-b-g2+2-1.conf"]);
    inert(&mut esp, "ralphos-b-g2.conf");
    inert(&mut esp, "ralphos-b-g3+3-0.conf");
    let tidied = tidy(&lock(), &mut esp).unwrap();
    assert_eq!(tidied.removed, ["ralphos-b-g2.conf", "ralphos-b-g3+3-0.conf"]);
    assert_eq!(entries(&esp), ["ralphos-a-g1.conf", "ralphos-b-g2+2-1.conf"]);
    assert_eq!(
        esp.take_events()[5..],
        [
            "check clusters",
            "remove loader/entries/ralphos-b-g2.conf",
            "remove loader/entries/ralphos-b-g3+3-0.conf",
            "flush"
        ]
    );
}

#[test]
fn upd24_an_unreadable_new_name_goes_and_an_unreadable_only_name_stays() {
    let mut esp = machine(&["ralphos-a-g1.conf", "ralphos-b-g2+2-1.conf"]);
    esp.put("loader/entries/ralphos-b-g2.conf", &[0xa5; 600]);
    esp.put("loader/entries/ralphos-b-g3+3-0.conf", b"");
    let tidied = tidy(&lock(), &mut esp).unwrap();
    assert_eq!(tidied.removed, ["ralphos-b-g2.conf"]);
    assert_eq!(entries(&esp), ["ralphos-a-g1.conf", "ralphos-b-g2+2-1.conf", "ralphos-b-g3+3-0.conf"]);
}

#[test]
fn upd24_a_tidy_volume_is_only_read() {
    let mut esp = machine(&["ralphos-a-g1.conf", "ralphos-b-g2+0-3.conf"]);
    esp.put("loader/entries/other.conf", b"linux /k\n");
    let tidied = tidy(&lock(), &mut esp).unwrap();
    assert_eq!(tidied, Tidied { removed: vec![], older: vec![] });
    assert!(esp.take_events().iter().all(|event| event.starts_with("read ")));
}

#[test]
fn upd24_older_generations_stop_every_run_but_the_apply_that_fences_them() {
    let mut esp = machine(&["ralphos-a-g1.conf", "ralphos-b-g2.conf", "ralphos-b-g3+3-0.conf"]);
    let tidied = tidy(&lock(), &mut esp).unwrap();
    assert_eq!(tidied.older, [(Slot::B, "ralphos-b-g2.conf".to_owned())]);
    assert!(tidied.refuse_older(Some(Slot::B)).is_ok());
    for fenced in [None, Some(Slot::A)] {
        let error = tidied.refuse_older(fenced).unwrap_err();
        assert!(error.to_string().contains("ralphos-b-g2.conf"), "{error}");
    }
    apply(&mut esp, 4).unwrap();
    assert_eq!(entries(&esp), ["ralphos-a-g1.conf", "ralphos-b-g4+3-0.conf"]);
}

#[test]
fn ent1_foreign_files_are_never_touched() {
    let mut esp = machine(&["ralphos-a-g1.conf", "ralphos-b-g2.conf"]);
    for foreign in ["ralphos-b-g02.conf", "ralphos-b-g2+x.conf", "ralphos-c-g2.conf", "other.conf", "README"] {
        esp.put(&format!("loader/entries/{foreign}"), b"linux /missing\n");
    }
    apply(&mut esp, 3).unwrap();
    assert_eq!(
        entries(&esp),
        [
            "other.conf",
            "ralphos-a-g1.conf",
            "ralphos-b-g02.conf",
            "ralphos-b-g2+x.conf",
            "ralphos-b-g3+3-0.conf",
            "ralphos-c-g2.conf",
            "README"
        ]
    );
}

#[test]
fn upd2_the_fence_takes_every_leftover_of_its_slot() {
    let mut esp = machine(&["ralphos-a-g1.conf", "ralphos-b-g2.conf", "RALPHOS-B-G2+0-1.CONF"]);
    inert(&mut esp, "ralphos-b-g5+3-0.conf");
    esp.put("loader/entries/ralphos-b-g6+3-0.conf", &[0xa5; 100]);
    put_payloads(&mut esp, "ralphos-b-g4.conf");
    esp.put("ralphos/b/leftover.tmp", b"x");
    let fenced = fence(&lock(), &mut esp, Slot::B).unwrap();
    assert_eq!(fenced.slot(), Slot::B);
    assert_eq!(
        esp.files(),
        ["loader/entries/ralphos-a-g1.conf", "loader/loader.conf", "ralphos/a/g1-initrd", "ralphos/a/g1-linux"]
    );
}

proptest! {
    /// Whatever lies there, tidy leaves a live name of every system that had a readable one, touches nothing else, and has
    /// nothing to do the second time.
    #[test]
    fn upd24_tidy_never_takes_a_systems_last_name(
        names in proptest::collection::vec(
            (any::<bool>(), 1..4u32, proptest::option::of((0..3u32, 0..3u32)), 0..4u8), 0..8),
    ) {
        let mut esp = machine(&[]);
        for (a, generation, counter, kind) in names {
            let slot = if a { Slot::A } else { Slot::B };
            let entry = entry(slot, generation);
            let counter = counter.map(|(left, done)| crate::names::Counter::new(left, done).unwrap());
            let content = match kind {
                0 => vec![0xa5; 10],
                1 => entry.render(Liveness::Inert),
                _ => entry.render(Liveness::Live),
            };
            esp.put(entry.name(counter).path().as_str(), &content);
        }
        let before = EspState::read(&mut esp).unwrap();
        let _ = tidy(&lock(), &mut esp).unwrap();
        let after = EspState::read(&mut esp).unwrap();
        for entry in before.ours.iter().filter(|entry| entry.is_live()) {
            let left: Vec<&OurEntry> = after.ours.iter().filter(|other| other.name.same_system(entry.name)).collect();
            prop_assert_eq!(left.len(), 1);
            prop_assert!(left[0].is_live());
        }
        prop_assert!(after.ours.iter().all(|entry| before.ours.contains(entry)));
        let again = tidy(&lock(), &mut esp).unwrap();
        prop_assert_eq!(again.removed, Vec::<String>::new());
    }
}
