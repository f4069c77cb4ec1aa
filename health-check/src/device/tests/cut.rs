//! A cut between the two steps of marking an entry bad (UPD-22): both names are live, and the loader took the one without the mark.

use std::cell::Cell;

use super::*;
use crate::span::Span;

/// Both names of generation 7 in slot B; the one is what the loader took, the other the marked one.
fn cut(booted: &str, marked: &str, reason: &str) -> TestMachine {
    let machine = TestMachine::new(&["ralphos-a-g6.conf", &format!("ralphos-b-g7{booted}.conf")], Slot::B, 7);
    put(&mut machine.esp.borrow_mut(), &format!("ralphos-b-g7{marked}.conf"), Some(reason));
    machine
}

#[test]
fn a_trial_whose_marking_was_cut_is_given_up_whatever_its_checks_say_now_hlt_32() {
    // Also where the loader took the last try: then neither name has tries left (UPD-24).
    for (booted, attempt, marked) in [("+2-1", 1, "+0-1"), ("+0-3", 3, "+0-2"), ("+0-3", 3, "+0-4")] {
        for healthy in [true, false] {
            let machine = cut(booted, marked, "checks");
            let ran = machine.run(healthy);
            // Of a failed check that the next boot may pass the policy says that the tries run down.
            let verdict = if healthy { Verdict::MarkBadAndReboot } else { Verdict::RecordAndReboot };
            assert_eq!(ran.settled.verdict, verdict, "{booted}: {:?}", ran.notes);
            let Booted::Trial { attempt: which, .. } = ran.settled.booted else { panic!("{:?}", ran.settled.booted) };
            assert_eq!(which, attempt, "{booted}");
            let recorded: Vec<_> = machine.records.events().unwrap().into_iter().map(|event| event.attempt).collect();
            assert_eq!(recorded, [Some(attempt)], "HLT-40: the try that was booted, not that of the mark");
            if healthy {
                assert_eq!(machine.entries(), ["ralphos-a-g6.conf", &format!("ralphos-b-g7{marked}.conf")]);
            }
        }
    }
}

/// Tidying leaves `+0-0`, and that is not a name that was booted without tries.
#[test]
fn a_trial_that_is_not_counted_and_whose_marking_was_cut_is_given_up_hlt_32() {
    for healthy in [true, false] {
        let machine = cut("+3-0", "+0-0", "not-counted");
        let ran = machine.run(healthy);
        assert_eq!(ran.settled.verdict, Verdict::MarkBadAndReboot, "{:?}", ran.notes);
        assert_eq!(machine.entries(), ["ralphos-a-g6.conf", "ralphos-b-g7+0-0.conf"]);
    }
    // The one name that is there was booted all the same: it would be again, for ever.
    for failed in [None, Some("not-counted")] {
        let mut machine = TestMachine::new(&["ralphos-a-g6.conf"], Slot::B, 7);
        put(&mut machine.esp.borrow_mut(), "ralphos-b-g7+0-0.conf", failed);
        machine.booted.failed = failed.map(str::to_owned);
        let ran = machine.run(false);
        assert_eq!(ran.settled.verdict, Verdict::RecordAndStay, "{:?}", ran.notes);
    }
}

/// The guard says nothing against the system, and nor may what ends its mark: the same image applied again is the cure.
#[test]
fn what_the_guard_was_to_give_up_is_not_known_bad_upd_42() {
    for (reason, known_bad) in [("guard", false), ("checks", true)] {
        for healthy in [true, false] {
            let machine = cut("+2-1", "+0-1", reason);
            let log = Log::default();
            machine.run_with(&log, healthy, || {});
            let history = machine.records.events().unwrap();
            let [failed] = &history[..] else { panic!("{history:?}") };
            assert_eq!(failed.event, EventKind::TrialFailed);
            let found = updater::memory::known_bad(&history, &"22".repeat(32));
            assert_eq!(found.is_some(), known_bad, "{reason}: {history:?}");
            // What the record holds is taken over as an event, too (UPD-44).
            let guards = log.events().iter().any(|event| event == "guard: event b try1: guard");
            assert_eq!(guards, !known_bad, "{reason}: {:?}", log.events());
        }
    }
}

#[test]
fn a_trial_whose_marking_was_cut_does_not_soak_hlt_35() {
    let rounds = |mut machine: TestMachine| {
        machine.policy.soak = Span::seconds(60);
        let rounds = Cell::new(0);
        machine.run_with(&Log::default(), true, || rounds.set(rounds.get() + 1));
        rounds.get()
    };
    assert_eq!(rounds(cut("+2-1", "+0-1", "checks")), 1);
    assert!(rounds(TestMachine::new(&["ralphos-a-g6.conf", "ralphos-b-g7+2-1.conf"], Slot::B, 7)) > 1);
}

#[test]
fn a_committed_entry_whose_rollback_was_cut_is_unknown_and_the_remedy_is_told_hlt_32() {
    let machine = cut("", "+0-0", "rolled-back");
    for healthy in [true, false] {
        let ran = machine.run(healthy);
        assert_eq!(ran.settled.verdict, Verdict::Unknown);
        let Booted::Unknown(why) = &ran.settled.booted else { panic!("{:?}", ran.settled.booted) };
        assert!(
            why.contains("marking bad (rolled-back) was cut: ralphos-b-g7.conf and ralphos-b-g7+0-0.conf"),
            "{why}"
        );
        assert!(why.ends_with("repeat `ralph-update rollback`"), "{why}");
    }
    assert_eq!(machine.changes(), [""; 0]);
    // And that ends it.
    let lock = UpdateLock::for_tests();
    let mut session = session::Session::open(&machine, &lock, Fencing::None).unwrap();
    let given_up = session.rollback(&updater::kernel_refusal::nothing_known).unwrap();
    session.close().unwrap();
    assert_eq!(given_up.fallback.file_name, "ralphos-a-g6.conf");
    assert_eq!(machine.entries(), ["ralphos-a-g6.conf", "ralphos-b-g7+0-0.conf"]);
}
