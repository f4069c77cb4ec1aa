//! What the history does not take is told, each by its name (HLT-31, HLT-41).

use super::*;

/// A machine whose history cannot be written: a file stands where its folder should be.
fn without_history(entries: &[&str], slot: Slot, generation: u32) -> TestMachine {
    let machine = TestMachine::new(entries, slot, generation);
    std::fs::write(machine.folder.path().join("ralph-update"), "").unwrap();
    machine
}

#[test]
fn a_commit_of_this_boot_that_is_not_recorded_is_told_as_such_hlt_31() {
    // Somewhere on its way a commit that fails has got through half way, and is found committed by the next attempt.
    let notes = (0..100).find_map(|at| {
        let machine = without_history(&["ralphos-a-g6.conf", "ralphos-b-g7+2-1.conf"], Slot::B, 7);
        let ran = machine.run_with(&Log::default(), true, || {
            let mut esp = machine.esp.borrow_mut();
            esp.take_events();
            esp.fail_at(at);
        });
        (ran.settled.verdict == Verdict::Healthy).then_some(ran.notes)
    });
    let notes = notes.expect("no failure leaves the commit half done");
    assert!(notes.iter().any(|note| note.starts_with("the commit of this boot is not recorded: ")), "{notes:?}");
}

#[test]
fn a_fallback_that_is_not_recorded_is_told_as_such_hlt_41() {
    let machine = without_history(&["ralphos-a-g6.conf", "ralphos-b-g7+0-3.conf"], Slot::A, 6);
    let notes = machine.run(true).notes;
    assert!(notes.iter().any(|note| note.starts_with("fallbacks are not recorded: ")), "{notes:?}");
    assert!(!notes.iter().any(|note| note.contains("the commit of this boot")), "{notes:?}");
}
