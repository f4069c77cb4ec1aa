//! Trials that fail, and entries that are marked bad for it (HLT-32, HLT-34, UPD-50).

use super::*;

#[test]
fn a_failed_trial_that_the_loader_did_not_count_is_marked_bad_hlt_32() {
    let machine = TestMachine::new(&["ralphos-a-g6.conf", "ralphos-b-g7+3-0.conf"], Slot::B, 7);
    let ran = machine.run(false);
    assert_eq!(ran.settled.verdict, Verdict::MarkBadAndReboot, "{:?}", ran.notes);
    assert_eq!(machine.entries(), ["ralphos-a-g6.conf", "ralphos-b-g7+0-0.conf"]);
    let path = "ralphos-b-g7+0-0.conf".parse::<EntryName>().unwrap().path();
    let text = machine.esp.borrow_mut().read(&path, 1 << 20).unwrap();
    let (entry, liveness) = BootEntry::parse(&text).unwrap();
    assert_eq!((entry.options.failed.as_deref(), liveness), (Some("not-counted"), Liveness::Live));
    assert_eq!(machine.history(), [(EventKind::TrialFailed, 7, "ralphd: too late".into())]);
}

#[test]
fn a_failed_trial_that_is_not_counted_and_cannot_be_marked_stays_up_hlt_32() {
    // The ESP cannot be written; nothing whole is beside it; it has no tries left and was booted all the same.
    let uncounted = "ralphos-b-g7+3-0.conf";
    let mut read_only = TestMachine::new(&["ralphos-a-g6.conf", uncounted], Slot::B, 7);
    read_only.read_only = true;
    let alone = TestMachine::new(&[uncounted], Slot::B, 7);
    let marked_already = TestMachine::new(&["ralphos-a-g6.conf", "ralphos-b-g7+0-0.conf"], Slot::B, 7);
    for machine in [read_only, alone, marked_already] {
        let before = machine.entries();
        let ran = machine.run(false);
        assert_eq!(ran.settled.verdict, Verdict::RecordAndStay, "{:?}", ran.notes);
        assert_eq!(machine.entries(), before);
        assert_eq!(machine.changes(), [""; 0]);
    }
}

#[test]
fn a_failure_that_the_next_boot_would_show_again_gives_the_entry_up_hlt_34() {
    // Also in its last try, which stands as +0-3 already (UPD-22).
    for (counted, given_up) in [("+2-1", "+0-1"), ("+0-3", "+0-4")] {
        let name = format!("ralphos-b-g7{counted}.conf");
        let mut machine = TestMachine::new(&["ralphos-a-g6.conf", &name], Slot::B, 7);
        machine.reason = Reason::Contract;
        let ran = machine.run(false);
        assert_eq!(ran.settled.verdict, Verdict::MarkBadAndReboot, "{:?}", ran.notes);
        let marked = format!("ralphos-b-g7{given_up}.conf");
        assert_eq!(machine.entries(), ["ralphos-a-g6.conf", &marked]);
        let path = marked.parse::<EntryName>().unwrap().path();
        let text = machine.esp.borrow_mut().read(&path, 1 << 20).unwrap();
        assert_eq!(BootEntry::parse(&text).unwrap().0.options.failed.as_deref(), Some("checks"));
        assert_eq!(machine.history(), [(EventKind::TrialFailed, 7, "ralphd: too late".into())]);
    }
    // An ESP that cannot be written: the counter runs down all the same (row 3).
    let entries = ["ralphos-a-g6.conf", "ralphos-b-g7+2-1.conf"];
    let mut machine = TestMachine::new(&entries, Slot::B, 7);
    (machine.reason, machine.read_only) = (Reason::Contract, true);
    assert_eq!(machine.run(false).settled.verdict, Verdict::RecordAndReboot);
    assert_eq!(machine.entries(), entries);
}

#[test]
fn a_trial_that_fails_with_nothing_whole_beside_it_stays_up_upd_50() {
    for break_it in [
        (|esp: &mut FakeEsp| esp.take("loader/entries/ralphos-a-g6.conf")) as fn(&mut FakeEsp),
        |esp| esp.put("ralphos/a/g6-initrd", b"rotten"),
        |esp| esp.take("ralphos/a/g6-linux"),
    ] {
        let machine = TestMachine::new(&["ralphos-a-g6.conf", "ralphos-b-g7+2-1.conf"], Slot::B, 7);
        break_it(&mut machine.esp.borrow_mut());
        let ran = machine.run(false);
        assert_eq!(ran.settled.verdict, Verdict::RecordAndStay, "{:?}", ran.notes);
        assert_eq!(machine.history().len(), 1);
    }
}
