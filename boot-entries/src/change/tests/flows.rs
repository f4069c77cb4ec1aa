//! Apply, commit, marking bad and rollback.

use super::*;
use crate::names::Counter;
use crate::options::OnCorruption;

#[test]
fn upd2_to_upd6_apply_over_a_bad_system() {
    Flow {
        before: machine(&["ralphos-a-g1.conf", "ralphos-b-g2+0-3.conf"]),
        act: &|esp| apply(esp, 3),
        events: &[
            // Tidy.
            "read loader/entries/ralphos-a-g1.conf",
            "read loader/entries/ralphos-b-g2+0-3.conf",
            "read loader/loader.conf",
            // Fence: the entry, then its payloads.
            "check clusters",
            "remove loader/entries/ralphos-b-g2+0-3.conf",
            "flush",
            "check clusters",
            "remove ralphos/b/g2-initrd",
            "remove ralphos/b/g2-linux",
            "flush",
            // The directory will not grow while somebody boots from it (ENT-28).
            "make room for 256 in loader/entries",
            // Payloads, each durable and read back.
            "write ralphos/b/g3-linux",
            "flush",
            "read ralphos/b/g3-linux",
            "write ralphos/b/g3-initrd",
            "flush",
            "read ralphos/b/g3-initrd",
            // The entry, inert, durable and read back; then the commit point.
            "write loader/entries/ralphos-b-g3+3-0.conf",
            "flush",
            "read loader/entries/ralphos-b-g3+3-0.conf",
            "overwrite loader/entries/ralphos-b-g3+3-0.conf ' '",
            "flush",
            "read loader/entries/ralphos-b-g3+3-0.conf",
        ],
        may_boot: &[(Slot::A, 1), (Slot::B, 3)],
        after: &["ralphos-a-g1.conf", "ralphos-b-g3+3-0.conf"],
    }
    .check();
}

#[test]
fn upd2_to_upd6_apply_over_an_older_committed_system() {
    Flow {
        before: machine(&["ralphos-a-g3.conf", "ralphos-b-g2.conf"]),
        act: &|esp| apply(esp, 4),
        events: &[
            "read loader/entries/ralphos-a-g3.conf",
            "read loader/entries/ralphos-b-g2.conf",
            "read loader/loader.conf",
            "check clusters",
            "remove loader/entries/ralphos-b-g2.conf",
            "flush",
            "check clusters",
            "remove ralphos/b/g2-initrd",
            "remove ralphos/b/g2-linux",
            "flush",
            "make room for 256 in loader/entries",
            "write ralphos/b/g4-linux",
            "flush",
            "read ralphos/b/g4-linux",
            "write ralphos/b/g4-initrd",
            "flush",
            "read ralphos/b/g4-initrd",
            "write loader/entries/ralphos-b-g4+3-0.conf",
            "flush",
            "read loader/entries/ralphos-b-g4+3-0.conf",
            "overwrite loader/entries/ralphos-b-g4+3-0.conf ' '",
            "flush",
            "read loader/entries/ralphos-b-g4+3-0.conf",
        ],
        may_boot: &[(Slot::A, 3), (Slot::B, 4)],
        after: &["ralphos-a-g3.conf", "ralphos-b-g4+3-0.conf"],
    }
    .check();
}

#[test]
fn upd2_to_upd6_apply_to_a_slot_that_was_never_used() {
    Flow {
        before: machine(&["ralphos-a-g1.conf"]),
        act: &|esp| apply(esp, 2),
        events: &[
            "read loader/entries/ralphos-a-g1.conf",
            "read loader/loader.conf",
            "mkdir ralphos/b",
            "flush",
            "make room for 256 in loader/entries",
            "write ralphos/b/g2-linux",
            "flush",
            "read ralphos/b/g2-linux",
            "write ralphos/b/g2-initrd",
            "flush",
            "read ralphos/b/g2-initrd",
            "write loader/entries/ralphos-b-g2+3-0.conf",
            "flush",
            "read loader/entries/ralphos-b-g2+3-0.conf",
            "overwrite loader/entries/ralphos-b-g2+3-0.conf ' '",
            "flush",
            "read loader/entries/ralphos-b-g2+3-0.conf",
        ],
        may_boot: &[(Slot::A, 1), (Slot::B, 2)],
        after: &["ralphos-a-g1.conf", "ralphos-b-g2+3-0.conf"],
    }
    .check();
}

/// Tidy, then the act on the entry that stands for slot B.
pub(super) fn on_slot_b(
    esp: &mut dyn Esp,
    act: impl FnOnce(&UpdateLock, &mut dyn Esp, &OurEntry) -> Result<(), ChangeError>,
) -> Result<(), ChangeError> {
    let lock = lock();
    let _ = tidy(&lock, esp)?;
    let state = EspState::read(esp)?;
    act(&lock, esp, state.live(Slot::B).expect("an entry for slot B"))
}

/// The events of a new name for slot B's entry, after those of `on_slot_b`.
const COMMIT: [&str; 20] = [
    // Tidy, then the state that the caller decides by.
    "read loader/entries/ralphos-a-g1.conf",
    "read loader/entries/ralphos-b-g2+2-1.conf",
    "read loader/loader.conf",
    "read loader/entries/ralphos-a-g1.conf",
    "read loader/entries/ralphos-b-g2+2-1.conf",
    "read loader/loader.conf",
    // It is still the same.
    "read loader/entries/ralphos-b-g2+2-1.conf",
    // Before anything is changed: the old name will be able to go.
    "check clusters",
    // The new name inert, durable, read back, live, durable; then the old one goes.
    "write loader/entries/ralphos-b-g2.conf",
    "flush",
    "read loader/entries/ralphos-b-g2.conf",
    "overwrite loader/entries/ralphos-b-g2.conf ' '",
    "flush",
    "read loader/entries/ralphos-b-g2.conf",
    "check clusters",
    "remove loader/entries/ralphos-b-g2+2-1.conf",
    "flush",
    // It is so.
    "read loader/entries/ralphos-a-g1.conf",
    "read loader/entries/ralphos-b-g2.conf",
    "read loader/loader.conf",
];

fn commit_b(esp: &mut dyn Esp) -> Result<(), ChangeError> {
    on_slot_b(esp, |lock, esp, booted| commit(lock, esp, booted).map(drop))
}

#[test]
fn upd20_upd21_commit() {
    Flow {
        before: machine(&["ralphos-a-g1.conf", "ralphos-b-g2+2-1.conf"]),
        act: &commit_b,
        events: &COMMIT,
        may_boot: &[(Slot::B, 2)],
        after: &["ralphos-a-g1.conf", "ralphos-b-g2.conf"],
    }
    .check();
}

/// The clusters of the new name may hold what an older entry held, here the trial of the other slot: until its own content
/// is durable the new name then starts a whole system all the same.
#[test]
fn upd20_commit_over_the_remains_of_another_entry() {
    let mut before = machine(&["ralphos-a-g1.conf", "ralphos-a-g1+2-1.conf", "ralphos-b-g2+2-1.conf"]);
    before.remove(&"loader/entries/ralphos-a-g1+2-1.conf".parse().unwrap()).unwrap();
    before.flush().unwrap();
    before.take_events();
    Flow {
        before,
        act: &commit_b,
        events: &COMMIT,
        may_boot: &[(Slot::B, 2)],
        after: &["ralphos-a-g1.conf", "ralphos-b-g2.conf"],
    }
    .check();
}

#[test]
fn upd22_mark_a_trial_bad() {
    let act = |esp: &mut dyn Esp| {
        on_slot_b(esp, |lock, esp, trial| mark_bad(lock, esp, trial, Some("health-check")).map(drop))
    };
    Flow {
        before: machine(&["ralphos-a-g1.conf", "ralphos-b-g2+2-1.conf"]),
        act: &act,
        events: &[
            "read loader/entries/ralphos-a-g1.conf",
            "read loader/entries/ralphos-b-g2+2-1.conf",
            "read loader/loader.conf",
            "read loader/entries/ralphos-a-g1.conf",
            "read loader/entries/ralphos-b-g2+2-1.conf",
            "read loader/loader.conf",
            "read loader/entries/ralphos-b-g2+2-1.conf",
            // Before anything is changed: the old name will be able to go.
            "check clusters",
            "write loader/entries/ralphos-b-g2+0-1.conf",
            "flush",
            "read loader/entries/ralphos-b-g2+0-1.conf",
            "overwrite loader/entries/ralphos-b-g2+0-1.conf ' '",
            "flush",
            "read loader/entries/ralphos-b-g2+0-1.conf",
            "check clusters",
            "remove loader/entries/ralphos-b-g2+2-1.conf",
            "flush",
        ],
        may_boot: &[(Slot::B, 2), (Slot::A, 1)],
        after: &["ralphos-a-g1.conf", "ralphos-b-g2+0-1.conf"],
    }
    .check();

    let mut esp = machine(&["ralphos-a-g1.conf", "ralphos-b-g2+2-1.conf"]);
    act(&mut esp).unwrap();
    assert_eq!(boots(&esp), Some((Slot::A, 1)));
    let bad = find(&mut esp, "ralphos-b-g2+0-1.conf").unwrap();
    assert_eq!(bad.entry.unwrap().options.failed.as_deref(), Some("health-check"));
}

#[test]
fn upd23_rollback_of_a_committed_system() {
    Flow {
        before: machine(&["ralphos-a-g1.conf", "ralphos-b-g2.conf"]),
        act: &|esp| on_slot_b(esp, |lock, esp, booted| mark_bad(lock, esp, booted, None).map(drop)),
        events: &[
            "read loader/entries/ralphos-a-g1.conf",
            "read loader/entries/ralphos-b-g2.conf",
            "read loader/loader.conf",
            "read loader/entries/ralphos-a-g1.conf",
            "read loader/entries/ralphos-b-g2.conf",
            "read loader/loader.conf",
            "read loader/entries/ralphos-b-g2.conf",
            // Before anything is changed: the old name will be able to go.
            "check clusters",
            "write loader/entries/ralphos-b-g2+0-0.conf",
            "flush",
            "read loader/entries/ralphos-b-g2+0-0.conf",
            "overwrite loader/entries/ralphos-b-g2+0-0.conf ' '",
            "flush",
            "read loader/entries/ralphos-b-g2+0-0.conf",
            "check clusters",
            "remove loader/entries/ralphos-b-g2.conf",
            "flush",
        ],
        may_boot: &[(Slot::B, 2), (Slot::A, 1)],
        after: &["ralphos-a-g1.conf", "ralphos-b-g2+0-0.conf"],
    }
    .check();
}

#[test]
fn upd21_a_committed_entry_is_left_as_it_is() {
    let mut esp = machine(&["ralphos-a-g1.conf"]);
    let booted = find(&mut esp, "ralphos-a-g1.conf").unwrap();
    let done = commit(&lock(), &mut esp, &booted).unwrap();
    assert_eq!((done.name, done.changed), (booted.name, false));
    assert!(esp.take_events().iter().all(|event| event.starts_with("read ")));
}

#[test]
fn upd22_an_entry_without_tries_changes_only_to_say_why() {
    let mut esp = machine(&["ralphos-a-g1.conf", "ralphos-b-g2+0-3.conf"]);
    let bad = find(&mut esp, "ralphos-b-g2+0-3.conf").unwrap();
    esp.take_events();
    let done = mark_bad(&lock(), &mut esp, &bad, None).unwrap();
    assert_eq!((done.name, done.changed), (bad.name, false));
    assert_eq!(esp.take_events(), Vec::<String>::new());
    // Given up in its last try: the reason must be there to read for whoever judges this boot.
    let done = mark_bad(&lock(), &mut esp, &bad, Some("rolled-back")).unwrap();
    assert_eq!((done.name.to_string().as_str(), done.changed), ("ralphos-b-g2+0-4.conf", true));
    let said = find(&mut esp, "ralphos-b-g2+0-4.conf").unwrap();
    assert_eq!(said.entry.as_ref().unwrap().options.failed.as_deref(), Some("rolled-back"));
    esp.take_events();
    assert!(!mark_bad(&lock(), &mut esp, &said, Some("rejected")).unwrap().changed);
    assert_eq!(esp.take_events(), Vec::<String>::new());
}

/// However often the loader counts between the programs' runs, no name of ours stands in the way of its next one (`LDR-7`).
#[test]
fn ldr7_a_bad_twin_is_never_the_name_the_loader_counts_to() {
    for left in 1..4 {
        for done in 0..4 {
            let counter = Counter::new(left, done).unwrap();
            let mut counting = counter;
            while !counting.is_exhausted() {
                counting = counting.counted();
                assert_ne!(counting, counter.bad_keeping_done());
            }
        }
    }
}

#[test]
fn upd21_another_name_of_the_system_is_told() {
    let mut esp = machine(&["ralphos-a-g1.conf", "ralphos-b-g2.conf", "ralphos-b-g2+1-2.conf"]);
    let booted = find(&mut esp, "ralphos-b-g2.conf").unwrap();
    match commit(&lock(), &mut esp, &booted) {
        Err(ChangeError::NotCommitted { slot: Slot::B, expected, found }) => {
            assert_eq!(expected, booted.name);
            assert_eq!(found, ["ralphos-b-g2+1-2.conf", "ralphos-b-g2.conf"]);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_reason_must_be_one() {
    let mut esp = machine(&["ralphos-a-g1.conf", "ralphos-b-g2.conf"]);
    let entry = find(&mut esp, "ralphos-b-g2.conf").unwrap();
    esp.take_events();
    assert!(matches!(mark_bad(&lock(), &mut esp, &entry, Some("No!")), Err(ChangeError::Reason(_))));
    assert_eq!(esp.take_events(), Vec::<String>::new());
}

#[test]
fn what_was_read_too_long_ago_is_not_acted_on() {
    let mut esp = machine(&["ralphos-a-g1.conf", "ralphos-b-g2+2-1.conf"]);
    let trial = find(&mut esp, "ralphos-b-g2+2-1.conf").unwrap();
    for change in [
        // The loader has counted, the slot was fenced, the entry was written anew.
        (&|esp: &mut FakeEsp| esp.take("loader/entries/ralphos-b-g2+2-1.conf")) as &dyn Fn(&mut FakeEsp),
        &|esp| esp.put("loader/entries/ralphos-b-g2+2-1.conf", b"#"),
    ] {
        let mut esp = esp.clone();
        change(&mut esp);
        let before = esp.files().join(" ");
        assert!(matches!(commit(&lock(), &mut esp, &trial), Err(ChangeError::Changed { .. })));
        assert_eq!(esp.files().join(" "), before);
    }
}

#[test]
fn an_unreadable_or_inert_entry_gets_no_other_name() {
    let mut esp = machine(&["ralphos-a-g1.conf", "ralphos-b-g2+2-1.conf"]);
    let readable = esp.content("loader/entries/ralphos-b-g2+2-1.conf").unwrap().to_vec();
    esp.put("loader/entries/ralphos-b-g2+2-1.conf", &[&readable[..], b"options x\n"].concat());
    let unreadable = find(&mut esp, "ralphos-b-g2+2-1.conf").unwrap();
    assert!(matches!(commit(&lock(), &mut esp, &unreadable), Err(ChangeError::Unreadable { .. })));
    assert!(matches!(mark_bad(&lock(), &mut esp, &unreadable, None), Err(ChangeError::Unreadable { .. })));

    esp.put("loader/entries/ralphos-b-g2+2-1.conf", &[b"#", &readable[1..]].concat());
    let inert = find(&mut esp, "ralphos-b-g2+2-1.conf").unwrap();
    assert!(matches!(commit(&lock(), &mut esp, &inert), Err(ChangeError::Inert { .. })));
    assert!(matches!(mark_bad(&lock(), &mut esp, &inert, None), Err(ChangeError::Inert { .. })));
}

#[test]
fn ent11_a_corrupt_block_restarts_a_trial_and_not_a_committed_system() {
    let on_corruption = |esp: &FakeEsp, file: &str| {
        let (entry, _) = Entry::parse(esp.content(&format!("loader/entries/{file}")).unwrap()).unwrap();
        entry.options.on_corruption
    };
    let mut esp = machine(&["ralphos-a-g1.conf"]);
    apply(&mut esp, 2).unwrap();
    assert_eq!(on_corruption(&esp, "ralphos-b-g2+3-0.conf"), OnCorruption::Restart);
    commit_b(&mut esp).unwrap();
    assert_eq!(on_corruption(&esp, "ralphos-b-g2.conf"), OnCorruption::Fail);
    // Given up later: it boots only when nothing better is there, and must not restart for ever then.
    on_slot_b(&mut esp, |lock, esp, booted| mark_bad(lock, esp, booted, None).map(drop)).unwrap();
    assert_eq!(on_corruption(&esp, "ralphos-b-g2+0-0.conf"), OnCorruption::Fail);
}
