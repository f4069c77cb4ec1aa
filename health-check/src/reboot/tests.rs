//! The steps from an orderly reboot to a certain one (HLT-36).

use super::*;
use crate::fakes::{FakeClock, FakeReboot, Log};

const WAYS: [&str; 4] = ["force in 180 s", "reboot", "reboot --force", "reboot(2)"];

/// What happens when the ways that this names fail, and what is said.
fn begin_with(failing: &[&'static str]) -> (bool, Vec<String>, Vec<String>) {
    let log = Log::default();
    let mut said = Vec::new();
    let fake = FakeReboot { log: log.clone(), failing: failing.to_vec() };
    let begun = begin(&fake, &mut |text| said.push(text.to_owned()));
    (begun, log.events(), said)
}

#[test]
fn a_shutdown_that_hangs_is_ended_by_a_timer_hlt_36() {
    let (begun, events, said) = begin_with(&[]);
    assert_eq!(events, ["force in 180 s", "reboot"]);
    assert!(begun && said.is_empty());
}

#[test]
fn that_systemd_takes_no_timer_is_said_hlt_36() {
    let (begun, events, said) = begin_with(&["force in 180 s"]);
    assert_eq!(events, ["force in 180 s", "reboot"]);
    assert!(begun && said.len() == 1, "{said:?}");
}

#[test]
fn a_reboot_that_is_refused_is_forced() {
    for refused in 1..=3 {
        let (begun, events, said) = begin_with(&WAYS[1..=refused]);
        let mut expected = vec!["force in 180 s"];
        expected.extend(&WAYS[1..=(refused + 1).min(3)]);
        assert_eq!(events, expected);
        assert_eq!((begun, said.len()), (refused < 3, refused));
    }
}

#[test]
fn a_reboot_that_hangs_is_forced_after_3_minutes_hlt_36() {
    for (failing, said) in [(&[][..], 1), (&["reboot --force"], 2), (&["reboot --force", "reboot(2)"], 3)] {
        let log = Log::default();
        let fake = FakeReboot { log: log.clone(), failing: failing.to_vec() };
        let mut lines = 0;
        outlast(&fake, &FakeClock::logging(&log), &mut |_| lines += 1);
        assert_eq!(log.events(), ["sleep 180000 ms", "reboot --force", "sleep 60000 ms", "reboot(2)"]);
        assert_eq!(lines, said);
    }
}
