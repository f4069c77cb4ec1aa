//! That no entry is restarted for ever, and that nothing is done late or on the wrong disk.

use super::*;

const COMMITTED: &str = "ralphos-b-g2.conf";
const LAST: &str = "ralphos-b-g2+0-3.conf";

impl Fake {
    fn failed(&mut self) {
        self.counted = None;
        failed(self, "no-root");
    }

    /// A cut left this name, too, and it says that the guard gave the entry up.
    fn put_marked(&self, name: &str) {
        let bad: EntryName = name.parse().unwrap();
        let mut content = self.content(bad);
        content.options.failed = Some("guard".into());
        let bytes = content.render(Liveness::Live);
        self.esp().write_new(&bad.path(), bytes.len() as u64, &mut bytes.as_slice()).unwrap();
    }

    /// How often the machine was restarted since this was asked last.
    fn reboots(&mut self) -> usize {
        self.log.drain(..).filter(|line| line.starts_with("reboot")).count()
    }
}

#[test]
fn grd30_failed_counts_the_boot_that_start_did_not_and_gives_the_entry_up_itself() {
    let mut fake = Fake::new(&[COMMITTED, A]);
    for boots in 1..=5 {
        fake.failed();
        assert_eq!((fake.record().boots, fake.reboots()), (boots, 1));
    }
    fake.failed();
    assert_eq!(fake.log[1..], ["mark bad [6 guard]", "reboot [6 guard]"]);
    assert_eq!(fake.names(), [A, "ralphos-b-g2+0-0.conf"]);
    // What start has counted is not counted twice.
    let mut fake = Fake::new(&[COMMITTED, A]);
    fake.start();
    failed(&mut fake, "no-root");
    assert_eq!((fake.record().boots, fake.reboots()), (1, 1));
}

#[test]
fn grd30_a_committed_entry_that_cannot_be_marked_is_not_restarted_for_ever() {
    let mut fake = Fake::new(&[COMMITTED, A]);
    fake.cannot_mark = true;
    for _ in 0..8 {
        fake.failed();
    }
    assert_eq!(fake.reboots(), 5);
    assert!(fake.said("it cannot be given up: the machine stays as it is"), "{:?}", fake.said);
    assert_eq!(fake.record().event.unwrap().text.as_str(), "initrd: no-root", "not the mark that failed");
}

#[test]
fn grd12_an_entry_that_was_given_up_and_is_booted_all_the_same_is_not_restarted_for() {
    let mut fake = Fake::new(&[LAST, A]);
    fake.command_line.push_str(" ralph.failed=guard");
    // The command line may say so, or the entry.
    for _ in 0..8 {
        fake.start();
        fake.failed();
    }
    let mut marked = Fake::new(&[COMMITTED, A]);
    let mut esp = marked.esp();
    let state = EspState::read(&mut esp).unwrap();
    let lock = UpdateLock::for_tests();
    let _ = mark_bad(&lock, &mut esp, state.live(Slot::B).unwrap(), Some("guard")).unwrap();
    for _ in 0..8 {
        marked.start();
        marked.failed();
    }
    for fake in [&mut fake, &mut marked] {
        assert_eq!(fake.reboots(), 0);
        assert!(fake.said("it was given up before"), "{:?}", fake.said);
    }
}

/// The new name is live and the old one not yet gone (UPD-22): the loader boots the old one, which is given up again.
#[test]
fn grd12_a_cut_while_an_entry_is_given_up_does_not_leave_it_booting_for_ever() {
    let mut fake = Fake::new(&[COMMITTED, A]);
    for _ in 0..5 {
        fake.start();
    }
    fake.put_marked("ralphos-b-g2+0-0.conf");
    fake.start();
    assert_eq!(fake.log, ["ask [6]", "mark bad [6 guard]", "reboot [6 guard]"]);
    assert_eq!(fake.names(), [A, "ralphos-b-g2+0-0.conf"]);
    assert!(fake.trials.is_empty(), "a committed boot is no trial: {:?}", fake.trials);
}

/// The same, and the loader took the last try, so that neither name has one left: that the booted name goes is a change.
#[test]
fn grd12_a_cut_while_the_last_but_one_try_is_given_up_is_brought_to_its_end() {
    let mut fake = Fake::new(&[LAST, A]);
    fake.put_marked("ralphos-b-g2+0-2.conf");
    let booted = BootOptions::parse(&fake.command_line).unwrap();
    let marked = fake.mark_bad(&booted).unwrap();
    assert!(marked.changed, "{marked:?}");
    assert_eq!(fake.names(), [A, "ralphos-b-g2+0-2.conf"]);
    // Booted by the mark itself, it had no effect.
    fake.command_line.push_str(" ralph.failed=guard");
    let booted = BootOptions::parse(&fake.command_line).unwrap();
    assert!(!fake.mark_bad(&booted).unwrap().changed);
}

#[test]
fn grd12_tries_that_the_loader_does_not_count_end() {
    let mut fake = Fake::new(&[LAST, A]);
    fake.failed();
    assert_eq!(fake.reboots(), 1, "it may have been counted");
    for _ in 0..8 {
        fake.start();
        failed(&mut fake, "no-root");
    }
    assert_eq!(fake.reboots(), 0);
    assert!(fake.said("the boot loader does not count them"), "{:?}", fake.said);
    // Tries left, and neither the loader nor the guard can write the entry.
    let mut fake = Fake::new(&[B, A]);
    fake.cannot_mark = true;
    for _ in 0..8 {
        fake.failed();
    }
    assert_eq!(fake.reboots(), 5);
}

#[test]
fn grd12_variables_that_cannot_be_read_leave_the_answer_open() {
    let mut fake = Fake::new(&[COMMITTED, A]);
    fake.no_vars = true;
    for _ in 0..8 {
        fake.start();
        failed(&mut fake, "no-root");
    }
    assert_eq!((fake.names(), fake.reboots()), (vec![A.to_owned(), COMMITTED.to_owned()], 0));
    assert!(fake.said("it is not known what would boot"), "{:?}", fake.said);
    // A trial's counter runs down, so what hangs or fails is restarted.
    let mut trial = Fake::new(&[B, A]);
    trial.no_vars = true;
    trial.start();
    assert!(trial.trials.last().unwrap().another);
    trial.failed();
    assert_eq!(trial.reboots(), 1);
    // Beside nothing that they could name it is known all the same.
    let mut alone = Fake::new(&[B]);
    alone.no_vars = true;
    alone.start();
    assert!(!alone.trials.last().unwrap().another);
    alone.failed();
    assert_eq!(alone.reboots(), 0);
    assert!(alone.said("no other system would boot"), "{:?}", alone.said);
}

/// What a trial that hangs is restarted for at its deadline, in boot after boot of the same entry.
fn deadlines(fake: &mut Fake, boots: usize) -> Vec<bool> {
    let mut restarts = Vec::new();
    for _ in 0..boots {
        fake.counted = None;
        fake.start();
        restarts.push(fake.trials.last().unwrap().another);
    }
    restarts
}

#[test]
fn grd12_a_trial_of_which_nothing_is_known_is_not_restarted_for_ever() {
    // The loader does not count.
    let mut fake = Fake::new(&[B, A]);
    fake.no_vars = true;
    assert_eq!(deadlines(&mut fake, 8), [true, true, true, true, true, false, false, false]);
    fake.failed();
    assert_eq!(fake.reboots(), 0);
    // It counts, and a default that cannot be read holds it at the entry all the same: DONE rises without end.
    let mut fake = Fake::new(&[LAST, A]);
    fake.no_vars = true;
    let mut restarts = Vec::new();
    for done in 3..10 {
        restarts.extend(deadlines(&mut fake, 1));
        let mut esp = fake.esp();
        esp.remove(&format!("loader/entries/ralphos-b-g2+0-{done}.conf").parse().unwrap()).unwrap();
        let next: EntryName = format!("ralphos-b-g2+0-{}.conf", done + 1).parse().unwrap();
        let entry = fake.content(next).render(Liveness::Live);
        esp.write_new(&next.path(), entry.len() as u64, &mut entry.as_slice()).unwrap();
    }
    assert_eq!(restarts, [true, true, true, true, true, false, false]);
    assert!(fake.said("it is not known what would boot; the boot goes on"), "{:?}", fake.said);
    fake.boot("ralphos-b-g2+0-10.conf");
    fake.failed();
    assert_eq!(fake.reboots(), 0);
    assert!(fake.said("restarts changed nothing so far: the machine stays as it is"), "{:?}", fake.said);
}

#[test]
fn grd12_a_deadline_restarts_nothing_where_it_has_no_effect() {
    // The last try was not counted, so it would come again.
    let mut fake = Fake::new(&[LAST, A]);
    assert_eq!(deadlines(&mut fake, 3), [true, false, false]);
    let mut fake = Fake::new(&[B, A]);
    fake.cannot_mark = true;
    assert_eq!(deadlines(&mut fake, 7), [true, true, true, true, true, false, false]);
    assert_eq!(deadlines(&mut Fake::new(&[B]), 1), [false], "nothing better would boot");
}

#[test]
fn grd12_a_foreign_entry_that_would_boot_is_no_answer_without_the_variables() {
    let foreign = |fake: &Fake| {
        let (path, text) = ("loader/entries/zz.conf", "linux /ralphos/a/g1-linux\nsort-key aa\n");
        fake.esp().write_new(&path.parse().unwrap(), text.len() as u64, &mut text.as_bytes()).unwrap();
    };
    let mut fake = Fake::new(&[B, A]);
    foreign(&fake);
    assert_eq!(deadlines(&mut fake, 1), [false], "the foreign one would boot");
    let mut fake = Fake::new(&[B, A]);
    foreign(&fake);
    fake.no_vars = true;
    assert_eq!(deadlines(&mut fake, 1), [true], "a default may name ours");
}

#[test]
fn grd10_a_second_disk_that_comes_late_is_noticed() {
    let mut fake = Fake::new(&[COMMITTED, A]);
    fake.second = true;
    for _ in 0..6 {
        fake.start();
        failed(&mut fake, "no-root");
    }
    assert!(fake.said("nothing will be written"), "{:?}", fake.said);
    assert_eq!((fake.names(), fake.reboots()), (vec![A.to_owned(), COMMITTED.to_owned()], 0));
}

#[test]
fn grd14_what_comes_late_changes_nothing() {
    let mut fake = Fake::new(&[COMMITTED, A]);
    for _ in 0..5 {
        fake.start();
    }
    let before = fake.record();
    fake.late = true;
    fake.start();
    fake.failed();
    assert_eq!((fake.record(), fake.reboots(), fake.counted), (before, 0, None));
    assert!(fake.said("the disk was too slow"), "{:?}", fake.said);
}
