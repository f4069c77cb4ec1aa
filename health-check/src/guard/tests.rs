//! What a verdict leaves in the guard's record (GRD-3, GRD-11, HLT-36).

use super::*;
use crate::config::Level;
use crate::fakes::entry;
use disk_layout::Slot;

fn failed(name: &str, reason: Reason) -> Outcome {
    Outcome::own_failure(name, reason, "too late".into())
}

#[test]
fn the_first_required_check_that_failed_is_named_grd_3() {
    let mut wanted = failed("extra", Reason::Deadline);
    wanted.level = Level::Wanted;
    let outcomes = [wanted, failed("ralphd", Reason::Deadline), failed("policy", Reason::Json)];
    assert_eq!(Failure::of(&entry(), 2, &outcomes).text, "check: ralphd");
    assert_eq!(Failure::of(&entry(), 2, &[failed("emergency", Reason::Emergency)]).text, "emergency");
    assert_eq!(Failure::of(&entry(), 2, &[]).text, "check: configuration");
}

#[test]
fn a_verdict_sets_the_count_to_0_and_keeps_an_event_grd_11() {
    let counted = GuardRecord::default().counted(Slot::A, Generation::FIRST, None);
    let earlier =
        GuardEvent { slot: Slot::A, generation: Generation::FIRST, attempt: None, text: GuardText::sanitised("guard") };
    let record = with_verdict(counted.with_event(earlier.clone()), None);
    assert_eq!((record.boots, record.event), (0, Some(earlier)));
}

#[test]
fn a_failed_trial_is_the_event_of_the_record_grd_3() {
    let name = "n".repeat(64);
    let failure = Failure::of(&entry(), 2, &[failed(&name, Reason::Deadline)]);
    let record = with_verdict(GuardRecord::default().counted(Slot::B, Generation::FIRST, Some(2)), Some(&failure));
    let event = record.event.clone().unwrap();
    assert_eq!((event.slot, event.generation.get(), event.attempt), (Slot::B, 7, Some(2)));
    assert_eq!(event.text.as_str(), format!("check: {}", "n".repeat(41)), "cut to the 48 bytes there are");
    assert_eq!(record.boots, 0);
    assert_eq!(GuardRecord::decode(&record.encode()).unwrap(), record);
}
