//! Boots of unified kernel images, whose command line is the same in both slots (`ENT-15`, `ENT-16`).

use super::*;

impl Fake {
    /// Turns the system of an entry into one with a unified kernel image.
    fn unify(&mut self, name: &str, change: impl FnOnce(&mut Entry)) {
        let name: EntryName = name.parse().unwrap();
        let mut entry = self.content(name);
        entry.payloads = Payloads::Uki(sha(b"a unified image"));
        change(&mut entry);
        let mut esp = self.esp();
        let (image, bytes) = (entry.payload(PayloadKind::Uki).path(), entry.render(Liveness::Live));
        if !esp.exists(&image).unwrap() {
            esp.write_new(&image, 15, &mut &b"a unified image"[..]).unwrap();
        }
        if esp.exists(&name.path()).unwrap() {
            esp.remove(&name.path()).unwrap();
        }
        esp.write_new(&name.path(), bytes.len() as u64, &mut bytes.as_slice()).unwrap();
    }

    /// Both slots hold the same system; the firmware starts it, and the loader says this of the entry.
    fn unified(selected: &str) -> Fake {
        let mut fake = Fake::new(&[B, A]);
        fake.unify(A, |_| ());
        fake.unify(B, |_| ());
        fake.command_line = fake.content(A.parse().unwrap()).options.signed_line();
        fake.selected = Some(selected.to_owned());
        fake
    }
}

#[test]
fn ent16_the_entry_that_the_loader_names_is_counted_although_both_slots_hold_the_same() {
    // As releases of the loader say it: with the counter before or after counting, or without.
    for selected in ["ralphos-b-g2+3-0.conf", "ralphos-b-g2+2-1.conf", "ralphos-b-g2.conf", "RALPHOS-B-G2+3-0.CONF"] {
        let mut fake = Fake::unified(selected);
        fake.start();
        assert_eq!(fake.record().entry, Some((Slot::B, generation(2))), "{selected}: {:?}", fake.said);
        assert_eq!(fake.trials.last().map(|trial| trial.another), Some(true));
        let left = BootOptions::parse(fake.left.as_deref().unwrap()).unwrap();
        assert_eq!((left.slot, left.partuuid), (Slot::B, fake.layout.slot(Slot::B).unique_guid));
    }
    let mut fake = Fake::unified(A);
    fake.start();
    assert_eq!((fake.record().entry, fake.trials.len()), (Some((Slot::A, generation(1))), 0));
}

#[test]
fn ent16_of_twins_it_is_the_one_that_the_loader_said() {
    const MARKED: &str = "ralphos-b-g2+0-1.conf";
    let failed = |selected: &str| {
        let mut fake = Fake::unified(selected);
        fake.unify(MARKED, |entry| entry.options.failed = Some("guard".into()));
        fake.start();
        BootOptions::parse(fake.left.as_deref().unwrap()).unwrap().failed
    };
    assert_eq!(failed("ralphos-b-g2+3-0.conf"), None, "+3-0 is +2-1 once it is counted");
    assert_eq!(failed(MARKED).as_deref(), Some("guard"));
    assert_eq!(failed("ralphos-b-g2.conf").as_deref(), Some("guard"), "the one that UPD-24 keeps");
}

#[test]
fn ent16_without_agreement_there_is_no_root() {
    let nothing = |fake: &mut Fake, said: &str| {
        fake.start();
        assert!(fake.said(said), "{said}: {:?}", fake.said);
        assert_eq!((&fake.left, fake.trials.len(), fake.record()), (&None, 0, GuardRecord::default()));
    };
    let mut fake = Fake::unified(B);
    fake.selected = None;
    nothing(&mut fake, "the boot loader has not told LoaderEntrySelected");
    nothing(&mut Fake::unified("windows.conf"), "started \"windows.conf\", which is no entry of ours");
    nothing(&mut Fake::unified("ralphos-b-g3.conf"), "ralphos-b-g3.conf, cannot be read");
    let unreadable = |selected: &str| {
        let fake = Fake::unified(selected);
        fake.esp().overwrite_byte(&format!("loader/entries/{B}").parse().unwrap(), 1, b'l', b'L').unwrap();
        fake
    };
    nothing(&mut unreadable(B), "cannot be read");
    // Its tries run down: the loader has counted this one.
    for (selected, restarts) in [("ralphos-b-g2+3-0.conf", 1), ("ralphos-b-g2.conf", 0), (B, 0), (A, 0)] {
        let mut fake = unreadable(selected);
        if selected == A {
            fake.esp().overwrite_byte(&format!("loader/entries/{A}").parse().unwrap(), 1, b'l', b'L').unwrap();
        }
        failed(&mut fake, "no-root");
        assert_eq!(fake.log.iter().filter(|line| line.starts_with("reboot")).count(), restarts, "{selected}");
    }
}

#[test]
fn ent16_an_entry_of_another_system_is_counted_and_given_up_and_no_root_is_opened() {
    for change in [
        (|entry| entry.options.root_hash = [9; 32]) as fn(&mut Entry),
        |entry| entry.options.epoch = 9,
        |entry| entry.options.os_version = "9".into(),
        |entry| entry.options.extra = "quiet".into(),
        |entry| entry.options.extra = format!("x=\" roothash={}\"", "9".repeat(64)),
    ] {
        let mut fake = Fake::unified(B);
        fake.unify(B, change);
        fake.start();
        assert!(fake.said("the root is not opened"), "{:?}", fake.said);
        assert_eq!((&fake.left, fake.record().boots), (&None, 1));
        failed(&mut fake, "no-root");
        assert!(fake.log.iter().any(|line| line.starts_with("reboot")), "{:?} {:?}", fake.log, fake.said);
    }
}

#[test]
fn ent16_what_was_left_serves_for_the_rest_of_the_boot() {
    let mut fake = Fake::unified(B);
    fake.start();
    // The health check may have committed by now: the name that the loader said is gone.
    fake.selected = None;
    assert!(booted_options(&mut fake, Duration::ZERO).is_ok());
}

#[test]
fn ent16_grd13_a_kexec_is_not_counted_and_finds_its_root() {
    let mut fake = Fake::unified(B);
    fake.kexec = true;
    fake.start();
    assert_eq!((fake.record(), fake.trials.len()), (GuardRecord::default(), 0));
    assert!(fake.left.is_some());
    // Into another system than the loader started: its entry is not blamed.
    let mut fake = Fake::unified(B);
    fake.unify(B, |entry| entry.options.root_hash = [9; 32]);
    fake.kexec = true;
    fake.start();
    failed(&mut fake, "no-root");
    assert_eq!((fake.record(), fake.log.len(), &fake.left), (GuardRecord::default(), 0, &None));
}
