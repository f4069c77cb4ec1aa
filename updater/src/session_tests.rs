//! Commit, rollback, reject and what is remembered, on a machine in memory.

use super::*;
use crate::testing::FakeHost;

/// A runs from generation 1, B from generation 2 and under this name.
fn machine(b: &str) -> FakeHost {
    let mut host = FakeHost::new();
    host.put_system(b, "2.0.0");
    host
}

fn on_b(b: &str) -> FakeHost {
    let mut host = machine(b);
    host.boot(b, "2.0.0");
    host
}

fn session<T>(host: &FakeHost, act: impl FnOnce(&mut Session<'_>) -> T) -> T {
    let lock = host.lock().unwrap();
    let mut session = Session::open(host, &lock, Fencing::None).unwrap();
    act(&mut session)
}

fn with_records(mut host: FakeHost) -> (FakeHost, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    host.records = Records::in_dir(dir.path(), "boot");
    (host, dir)
}

fn fallbacks(host: &FakeHost) -> Vec<Event> {
    let (state, running) = session(host, |s| (s.state().clone(), s.running().unwrap().name()));
    note_fallbacks(&state, Some(running), &host.records).unwrap()
}

fn kinds(host: &FakeHost) -> Vec<EventKind> {
    host.records.events().unwrap().iter().map(|event| event.event).collect()
}

#[test]
fn upd_21_a_commit_takes_the_counter_raises_the_floor_and_is_idempotent() {
    let (host, _dir) = with_records(on_b("ralphos-b-g2+0-3.conf"));
    let done = session(&host, |s| s.commit()).unwrap();
    assert!(!done.already && done.notes.is_empty());
    assert_eq!(host.entries(), ["ralphos-a-g1.conf", "ralphos-b-g2.conf"]);
    assert_eq!(host.records.floor(), 1);
    let again = session(&host, |s| s.commit()).unwrap();
    assert!(again.already);
    assert_eq!(kinds(&host), [EventKind::Committed]);
}

#[test]
fn upd_41_a_var_that_cannot_be_written_stops_no_commit_and_is_told_once() {
    let mut host = on_b("ralphos-b-g2+2-1.conf");
    host.records = Records::in_dir("/proc/nowhere", "boot");
    let done = session(&host, |s| s.commit()).unwrap();
    assert!(!done.notes.is_empty());
    assert_eq!(host.entries(), ["ralphos-a-g1.conf", "ralphos-b-g2.conf"]);
}

#[test]
fn upd_60_of_a_disk_image_the_entry_that_boots_next_is_committed() {
    let mut host = machine("ralphos-b-g2+2-1.conf");
    host.booted = None;
    assert_eq!(session(&host, |s| s.running()).unwrap().name().to_string(), "ralphos-a-g1.conf");
    let done = session(&host, |s| s.commit()).unwrap();
    assert_eq!(done.name.to_string(), "ralphos-b-g2.conf");
}

#[test]
fn upd_23_a_rollback_marks_the_running_system_bad_and_remembers_it() {
    let (host, _dir) = with_records(on_b("ralphos-b-g2.conf"));
    let done = session(&host, |s| s.rollback()).unwrap();
    assert_eq!(done.fallback.file_name, "ralphos-a-g1.conf");
    assert_eq!(host.entries(), ["ralphos-a-g1.conf", "ralphos-b-g2+0-0.conf"]);
    assert_eq!(kinds(&host), [EventKind::RolledBack]);
    let bad = session(&host, |s| s.state().live(Slot::B).cloned()).unwrap();
    assert_eq!(bad.entry.unwrap().options.failed.as_deref(), Some("rolled-back"));
    let status = crate::status::gather(&host).unwrap();
    assert_eq!(status.next_boot.unwrap().slot, Some(Slot::A));
}

#[test]
fn upd_23_nothing_is_given_up_unless_another_whole_system_boots() {
    type Spoil = fn(&mut FakeHost);
    let cases: &[Spoil] = &[
        |host| host.with_esp(|esp| esp.take("loader/entries/ralphos-a-g1.conf")),
        |host| host.with_esp(|esp| esp.put("ralphos/a/g1-linux", b"altered")),
        |host| host.with_esp(|esp| esp.take("ralphos/a/g1-initrd")),
        |host| {
            host.with_esp(|esp| esp.take("loader/entries/ralphos-a-g1.conf"));
            host.put_system("ralphos-a-g1+0-3.conf", "1.0.0");
        },
        |host| host.vars = LoaderVars { default: Some("ralphos-b*".into()), ..LoaderVars::default() },
    ];
    for (number, spoil) in cases.iter().enumerate() {
        let mut host = on_b("ralphos-b-g2.conf");
        spoil(&mut host);
        let before = host.entries();
        for error in [session(&host, |s| s.rollback()).unwrap_err(), session(&host, |s| s.reject(Slot::B)).unwrap_err()]
        {
            assert!(matches!(error, SessionError::NoFallback { .. }), "case {number}: {error:?}");
        }
        assert_eq!(host.entries(), before);
    }
}

#[test]
fn upd_23_a_proven_system_is_not_given_up_for_one_never_tried() {
    let host = machine("ralphos-b-g2+3-0.conf");
    for error in [session(&host, |s| s.rollback()).unwrap_err(), session(&host, |s| s.reject(Slot::A)).unwrap_err()] {
        assert!(matches!(error, SessionError::UnprovenFallback { .. }), "{error:?}");
        assert!(error.to_string().contains("ralph-update reject b"), "{error}");
    }
    assert_eq!(host.entries(), ["ralphos-a-g1.conf", "ralphos-b-g2+3-0.conf"]);
}

#[test]
fn upd_22_a_trial_rolled_back_in_its_last_try_says_so() {
    let host = on_b("ralphos-b-g2+0-3.conf");
    let done = session(&host, |s| s.rollback()).unwrap();
    assert_eq!(done.name.to_string(), "ralphos-b-g2+0-4.conf");
    let running = session(&host, |s| s.running()).unwrap();
    assert_eq!(running.entry().options.failed.as_deref(), Some("rolled-back"));
}

#[test]
fn upd_40_a_floor_whose_record_was_lost_with_the_power_is_raised_by_the_next_run() {
    let (host, _dir) = with_records(on_b("ralphos-b-g2.conf"));
    session(&host, |_| ());
    assert_eq!(host.records.floor(), 1);
}

#[test]
fn upd_23_a_slot_that_does_not_run_can_be_rejected_once() {
    let host = machine("ralphos-b-g2+3-0.conf");
    let done = session(&host, |s| s.reject(Slot::B)).unwrap().unwrap();
    assert_eq!(done.name.to_string(), "ralphos-b-g2+0-0.conf");
    assert!(session(&host, |s| s.reject(Slot::B)).unwrap().is_none());
    assert!(matches!(session(&host, |s| s.reject(Slot::A)), Err(SessionError::NoFallback { .. })));
}

#[test]
fn upd_43_a_fallback_is_noticed_once() {
    let (host, _dir) = with_records(machine("ralphos-b-g2+0-3.conf"));
    assert_eq!(fallbacks(&host).len(), 1);
    assert_eq!(fallbacks(&host), []);
    assert_eq!(kinds(&host), [EventKind::FellBack]);
}

#[test]
fn upd_43_the_booted_trial_on_its_last_try_has_not_fallen_back() {
    let (host, _dir) = with_records(on_b("ralphos-b-g2+0-3.conf"));
    assert_eq!(fallbacks(&host), []);
    let (host, _dir) = with_records(machine("ralphos-b-g2+1-2.conf"));
    assert_eq!(fallbacks(&host), []);
}

#[test]
fn upd_40_the_floor_is_the_highest_of_committed_entries_and_the_record() {
    let (host, _dir) = with_records(machine("ralphos-b-g2+3-0.conf"));
    host.records.raise_floor(4).unwrap();
    let state = session(&host, |s| s.state().clone());
    assert_eq!(floor(&state, &host.records), 4);
    assert_eq!(floor(&state, &Records::none()), 1);
}

#[test]
fn ent_4_generations_are_never_used_twice() {
    let host = machine("ralphos-b-g2+3-0.conf");
    let state = session(&host, |s| s.state().clone());
    let next = |past: &[Event]| next_generation(&state, host.booted(), past).unwrap().get();
    assert_eq!(next(&[]), 3);
    let mut old = event(EventKind::Applied, &host.entry("ralphos-b-g9.conf".parse().unwrap(), "x"), String::new());
    assert_eq!(next(&[old.clone()]), 10);
    old.generation = u32::MAX;
    assert_eq!(next_generation(&state, host.booted(), &[old]), None);
}

#[test]
fn upd_24_what_a_cut_left_is_tidied_before_anything_else() {
    let host = machine("ralphos-b-g2+2-1.conf");
    // A commit was cut between the new name and the removal of the old one.
    let mut host = FakeHost { booted: None, ..host };
    host.put_system("ralphos-b-g2.conf", "2.0.0");
    host.boot("ralphos-b-g2.conf", "2.0.0");
    assert!(!session(&host, |s| s.running()).unwrap().is_trial());
    assert_eq!(host.entries(), ["ralphos-a-g1.conf", "ralphos-b-g2.conf"]);
}

#[test]
fn ifc_21_states_of_slots() {
    use crate::status::{SlotState, gather};
    let state = |host: &FakeHost| gather(host).unwrap().slots.b.state;
    assert_eq!(state(&FakeHost::new()), SlotState::Empty);
    let written = FakeHost::new();
    written.slot.borrow_mut().as_mut().unwrap().tamper()[1024] = 1;
    assert_eq!(state(&written), SlotState::Fenced);
    for (name, expected) in [
        ("ralphos-b-g2+3-0.conf", SlotState::Staged),
        ("ralphos-b-g2+2-1.conf", SlotState::Trial),
        ("ralphos-b-g2+0-3.conf", SlotState::Bad),
        ("ralphos-b-g2.conf", SlotState::Committed),
    ] {
        assert_eq!(state(&machine(name)), expected, "{name}");
    }
    assert_eq!(state(&on_b("ralphos-b-g2+0-3.conf")), SlotState::Trial, "its last try runs as +0-3");
}
