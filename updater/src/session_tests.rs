//! Commit, rollback, reject and what is remembered, on a machine in memory.

use boot_entries::guard::{GuardEvent, GuardRecord};

use super::*;
use crate::guard::take_over_guard_event;
use crate::kernel_refusal::nothing_known;
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
    host.records = Records::in_dir(dir.path(), "boot").taken_for_lasting();
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
    let done = session(&host, |s| s.rollback(&nothing_known)).unwrap();
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
        for error in [
            session(&host, |s| s.rollback(&nothing_known)).unwrap_err(),
            session(&host, |s| s.reject(Slot::B, &nothing_known)).unwrap_err(),
        ] {
            assert!(matches!(error, SessionError::NoFallback { .. }), "case {number}: {error:?}");
        }
        assert_eq!(host.entries(), before);
    }
}

#[test]
fn upd_51_nothing_is_given_up_for_a_system_that_the_firmware_refuses_for_certain() {
    let asked = |certain| {
        move |_: &mut dyn Esp, ours: &OurEntry| {
            assert_eq!(ours.file_name, "ralphos-a-g1.conf");
            Ok(Some(KernelRefusal { certain, why: "it is not signed".to_owned() }))
        }
    };
    let host = on_b("ralphos-b-g2.conf");
    for error in [
        session(&host, |s| s.rollback(&asked(true)).map(drop)).unwrap_err(),
        session(&host, |s| s.reject(Slot::B, &asked(true)).map(drop)).unwrap_err(),
    ] {
        let SessionError::RefusedFallback { fallback, .. } = &error else { panic!("{error:?}") };
        assert_eq!(fallback, "ralphos-a-g1.conf");
    }
    assert_eq!(host.entries(), ["ralphos-a-g1.conf", "ralphos-b-g2.conf"]);
    // A doubt is told, and keeps nobody from going back.
    let done = session(&host, |s| s.rollback(&asked(false))).unwrap();
    assert_eq!(host.entries(), ["ralphos-a-g1.conf", "ralphos-b-g2+0-0.conf"]);
    assert!(done.notes.iter().any(|note| note.contains("not certain") && note.contains("it is not signed")));
}

#[test]
fn upd_23_a_proven_system_is_not_given_up_for_one_never_tried() {
    let host = machine("ralphos-b-g2+3-0.conf");
    for error in [
        session(&host, |s| s.rollback(&nothing_known)).unwrap_err(),
        session(&host, |s| s.reject(Slot::A, &nothing_known)).unwrap_err(),
    ] {
        assert!(matches!(error, SessionError::UnprovenFallback { .. }), "{error:?}");
        assert!(error.to_string().contains("ralph-update reject b"), "{error}");
    }
    assert_eq!(host.entries(), ["ralphos-a-g1.conf", "ralphos-b-g2+3-0.conf"]);
}

#[test]
fn upd_22_a_trial_rolled_back_in_its_last_try_says_so() {
    let host = on_b("ralphos-b-g2+0-3.conf");
    let done = session(&host, |s| s.rollback(&nothing_known)).unwrap();
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
    let done = session(&host, |s| s.reject(Slot::B, &nothing_known)).unwrap().unwrap();
    assert_eq!(done.name.to_string(), "ralphos-b-g2+0-0.conf");
    assert!(session(&host, |s| s.reject(Slot::B, &nothing_known)).unwrap().is_none());
    assert!(matches!(session(&host, |s| s.reject(Slot::A, &nothing_known)), Err(SessionError::NoFallback { .. })));
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
fn upd_46_a_commit_whose_record_was_cut_is_found_once() {
    let (host, _dir) = with_records(on_b("ralphos-b-g2.conf"));
    let running = session(&host, |s| s.running().unwrap());
    let noted = || note_commit(&running, &host.records, None).unwrap().is_some();
    assert!(!noted(), "what came with the disk was never applied");
    host.records.append(event(EventKind::Applied, running.entry(), String::new())).unwrap();
    host.records.append(event(EventKind::TrialFailed, running.entry(), String::new())).unwrap();
    assert!(noted());
    assert!(!noted());
    assert_eq!(kinds(&host), [EventKind::Applied, EventKind::TrialFailed, EventKind::Committed]);
    let (host, _dir) = with_records(on_b("ralphos-b-g2+2-1.conf"));
    let running = session(&host, |s| s.running().unwrap());
    host.records.append(event(EventKind::Applied, running.entry(), String::new())).unwrap();
    assert!(note_commit(&running, &host.records, None).unwrap().is_none(), "a trial proves nothing yet");
}

#[test]
fn hlt_31_a_commit_that_is_known_to_be_ones_own_is_recorded_once_with_what_it_rests_on() {
    let (host, _dir) = with_records(on_b("ralphos-b-g2.conf"));
    let running = session(&host, |s| s.running().unwrap());
    let own = || note_commit(&running, &host.records, Some("policy sha256:5e".into())).unwrap();
    assert_eq!(own().unwrap().detail, "policy sha256:5e");
    assert!(own().is_none());
    assert_eq!(kinds(&host), [EventKind::Committed]);
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
    written.slot.lock().unwrap().as_mut().unwrap().tamper()[1024] = 1;
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

fn guard_event(attempt: Option<u32>, text: &str) -> GuardRecord {
    let generation = Generation::new(2).unwrap();
    let event = GuardEvent { slot: Slot::B, generation, attempt, text: text.parse().unwrap() };
    GuardRecord { boots: 2, ..GuardRecord::default() }.with_event(event)
}

fn taken_over(host: &FakeHost) -> Option<Event> {
    let lock = host.lock().unwrap();
    let state = session(host, |s| s.state().clone());
    take_over_guard_event(host, &lock, &state).unwrap()
}

#[test]
fn upd_44_the_guards_event_is_recorded_once_and_then_taken_out() {
    for (attempt, kind) in [(Some(3), EventKind::TrialFailed), (None, EventKind::BootFailed)] {
        let (host, _dir) = with_records(machine("ralphos-b-g2+0-3.conf"));
        let record = guard_event(attempt, "deadline");
        *host.guard.borrow_mut() = Some(record.clone());
        let event = taken_over(&host).unwrap();
        assert_eq!((event.event, event.attempt, event.detail.as_str()), (kind, attempt, "deadline"));
        assert_eq!((event.version.as_str(), event.system.len()), ("2.0.0", 64));
        assert_eq!(*host.guard.borrow(), Some(record.clone().without_event()), "the count of boots stays");
        // Power was lost between the two writes.
        *host.guard.borrow_mut() = Some(record);
        assert_eq!(taken_over(&host), None);
        assert_eq!(host.guard.borrow().as_ref().unwrap().event, None);
        assert_eq!(kinds(&host), [kind]);
    }
}

#[test]
fn upd_44_the_entry_may_be_gone_and_another_attempt_is_another_event() {
    let (host, _dir) = with_records(machine("ralphos-b-g4+3-0.conf"));
    let entry = host.entry("ralphos-b-g2.conf".parse().unwrap(), "1.5.0");
    host.records.append(event(EventKind::Applied, &entry, String::new())).unwrap();
    for attempt in [1, 2] {
        *host.guard.borrow_mut() = Some(guard_event(Some(attempt), "deadline"));
        assert_eq!(taken_over(&host).unwrap().version, "1.5.0");
    }
    assert_eq!(kinds(&host), [EventKind::Applied, EventKind::TrialFailed, EventKind::TrialFailed]);
}

#[test]
fn upd_44_a_failed_check_that_the_health_check_recorded_itself_is_not_told_twice() {
    let (host, _dir) = with_records(machine("ralphos-b-g2+0-3.conf"));
    let entry = host.entry("ralphos-b-g2.conf".parse().unwrap(), "2.0.0");
    host.records.append(event(EventKind::TrialFailed, &entry, "ralphd: deadline".into())).unwrap();
    *host.guard.borrow_mut() = Some(guard_event(Some(3), "check: ralphd"));
    assert_eq!(taken_over(&host), None);
    assert_eq!(host.guard.borrow().as_ref().unwrap().event, None);
    *host.guard.borrow_mut() = Some(guard_event(Some(3), "check: policy"));
    assert!(taken_over(&host).is_some());
}

#[test]
fn upd_44_without_a_working_var_the_event_stays_in_the_record() {
    let mut host = machine("ralphos-b-g2+0-3.conf");
    *host.guard.borrow_mut() = Some(guard_event(Some(3), "deadline"));
    assert_eq!(taken_over(&host), None);
    host.records = Records::in_dir("/proc/nowhere", "boot");
    let (lock, state) = (host.lock().unwrap(), session(&host, |s| s.state().clone()));
    assert!(take_over_guard_event(&host, &lock, &state).is_err());
    assert!(host.guard.borrow().as_ref().unwrap().event.is_some());
}

#[test]
fn upd_44_an_event_that_is_recorded_in_memory_stays_in_the_record() {
    let shm = std::path::Path::new("/dev/shm");
    assert!(crate::history::in_memory(shm), "this test needs a tmpfs at /dev/shm");
    let folder = tempfile::tempdir_in(shm).unwrap();
    let mut host = machine("ralphos-b-g2+0-3.conf");
    host.records = Records::in_dir(folder.path(), "boot");
    *host.guard.borrow_mut() = Some(guard_event(Some(3), "deadline"));
    assert!(taken_over(&host).is_some());
    assert_eq!(kinds(&host), [EventKind::TrialFailed]);
    assert!(host.guard.borrow().as_ref().unwrap().event.is_some());
}

#[test]
fn grd_1_a_writing_session_makes_the_guards_file_and_a_failure_of_that_is_a_note() {
    let host = machine("ralphos-b-g2+3-0.conf");
    host.with_esp(|esp| esp.take("ralphos/guard"));
    assert!(session(&host, |s| s.notes().is_empty()));
    assert!(host.with_esp(|esp| esp.files().contains(&"ralphos/guard")));
}

#[test]
fn ifc_20_status_tells_of_the_guard_of_inconclusive_systems_and_of_two_bad_slots() {
    let problems = |host: &FakeHost| crate::status::gather(host).unwrap().problems.join("\n");
    let (host, _dir) = with_records(machine("ralphos-b-g2+0-3.conf"));
    assert!(problems(&host).contains("fell back without evidence (1 of 3)"), "{}", problems(&host));
    *host.guard.borrow_mut() = Some(guard_event(Some(3), "deadline"));
    let told = problems(&host);
    assert!(told.contains("the boot guard ended a boot of slot b, generation 2, boot 3 (deadline)"), "{told}");
    assert!(!told.contains("without evidence"), "{told}");
    taken_over(&host);
    assert_eq!(problems(&host), "");
    *host.guard.borrow_mut() = None;
    assert!(problems(&host).contains("there is no boot guard"));
    let (mut host, _dir) = with_records(machine("ralphos-b-g2+0-3.conf"));
    host.with_esp(|esp| esp.take("loader/entries/ralphos-a-g1.conf"));
    host.put_system("ralphos-a-g1+0-4.conf", "1.0.0");
    host.boot("ralphos-a-g1+0-4.conf", "1.0.0");
    assert!(problems(&host).contains("both slots are bad"), "{}", problems(&host));
}

#[test]
fn upd_50_a_variable_that_cannot_be_read_is_told_and_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = machine("ralphos-b-g2+3-0.conf");
    host.efivars = Some(dir.path().join("no-efivars"));
    let told = |host: &FakeHost| {
        let problems = crate::status::gather(host).unwrap().problems;
        (problems.join("\n"), session(host, |s| s.notes().join("\n")))
    };
    let (problems, notes) = told(&host);
    assert!(!problems.contains("EFI variable") && notes.is_empty(), "no efivarfs is no problem: {problems} {notes}");
    std::fs::create_dir(dir.path().join("LoaderEntryDefault-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f")).unwrap();
    host.efivars = Some(dir.path().to_owned());
    let (problems, notes) = told(&host);
    for told in [problems, notes] {
        assert!(told.contains("EFI variable ") && told.contains("/LoaderEntryDefault-4a67b082"), "{told}");
        assert!(told.contains("Is a directory") && told.contains("as if it were not there"), "{told}");
    }
}
