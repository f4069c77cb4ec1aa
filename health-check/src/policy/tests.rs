//! The table of HLT-30: one test a row, and one that every combination of facts falls under exactly one row.

use super::Another::{No, NotKnown, Whole};
use super::Booted::{Committed, NotCounted, NotFirmware, Trial, Unknown};
use super::Required::{AllPassed, OneFailed, Pending};
use super::*;
use crate::config::Action::{MarkBad, Reboot, Stay};

const BOOTED: [Booted; 5] = [Trial, NotCounted, NotFirmware, Committed, Unknown];
const REQUIRED: [Required; 3] = [Pending, AllPassed, OneFailed];
const ANOTHER: [Another; 3] = [Whole, No, NotKnown];
const ACTION: [Action; 3] = [Reboot, MarkBad, Stay];

/// One row of the specification: which facts it is about, and what follows. An empty column stands for *any*.
struct Row {
    number: usize,
    booted: &'static [Booted],
    required: &'static [Required],
    another: &'static [Another],
    action: &'static [Action],
    verdict: Verdict,
}

#[rustfmt::skip]
const TABLE: [Row; 12] = [
    row(1, &[Trial, NotCounted, NotFirmware, Committed], &[Pending], &[], &[], Verdict::KeepTrying),
    row(2, &[Trial, NotCounted], &[AllPassed], &[], &[], Verdict::Commit),
    row(3, &[Trial], &[OneFailed], &[Whole], &[Reboot], Verdict::RecordAndReboot),
    row(4, &[Trial], &[OneFailed], &[Whole], &[MarkBad], Verdict::MarkBadAndReboot),
    row(5, &[Trial, NotCounted], &[OneFailed], &[Whole], &[Stay], Verdict::RecordAndStay),
    row(6, &[NotCounted], &[OneFailed], &[Whole], &[Reboot, MarkBad], Verdict::MarkBadAndReboot),
    row(7, &[Trial, NotCounted], &[OneFailed], &[No], &[], Verdict::RecordAndStay),
    row(8, &[NotFirmware], &[AllPassed, OneFailed], &[], &[], Verdict::Report),
    row(9, &[Committed], &[AllPassed], &[], &[], Verdict::Healthy),
    row(10, &[Committed], &[OneFailed], &[], &[], Verdict::Report),
    row(11, &[Unknown], &[], &[], &[], Verdict::Unknown),
    row(12, &[Trial, NotCounted], &[OneFailed], &[NotKnown], &[], Verdict::RecordAndStay),
];

const fn row(
    number: usize,
    booted: &'static [Booted],
    required: &'static [Required],
    another: &'static [Another],
    action: &'static [Action],
    verdict: Verdict,
) -> Row {
    Row { number, booted, required, another, action, verdict }
}

fn holds<T: PartialEq>(column: &[T], fact: &T) -> bool {
    column.is_empty() || column.contains(fact)
}

fn every() -> impl Iterator<Item = Facts> {
    BOOTED.into_iter().flat_map(|booted| {
        REQUIRED.into_iter().flat_map(move |required| {
            ANOTHER.into_iter().flat_map(move |another| {
                ACTION.into_iter().map(move |action| Facts { booted, required, another, action })
            })
        })
    })
}

fn of(booted: Booted, required: Required, another: Another, action: Action) -> Verdict {
    verdict(Facts { booted, required, another, action })
}

#[test]
fn every_combination_falls_under_exactly_one_row_hlt_30() {
    let mut seen = 0;
    for facts in every() {
        let rows: Vec<&Row> = TABLE
            .iter()
            .filter(|row| holds(row.booted, &facts.booted) && holds(row.required, &facts.required))
            .filter(|row| holds(row.another, &facts.another) && holds(row.action, &facts.action))
            .collect();
        let numbers: Vec<usize> = rows.iter().map(|row| row.number).collect();
        assert_eq!(rows.len(), 1, "{facts:?} falls under the rows {numbers:?}");
        assert_eq!(verdict(facts), rows[0].verdict, "{facts:?}, row {}", rows[0].number);
        seen += 1;
    }
    assert_eq!(seen, 5 * 3 * 3 * 3);
}

#[test]
fn hlt_30_row_1_while_something_is_open_it_goes_on() {
    for booted in [Trial, NotCounted, NotFirmware, Committed] {
        assert_eq!(of(booted, Pending, Whole, Reboot), Verdict::KeepTrying);
    }
}

#[test]
fn hlt_30_row_2_a_trial_that_passes_is_committed() {
    assert_eq!(of(Trial, AllPassed, Whole, Reboot), Verdict::Commit);
    // Also if nobody counted: that is no reason not to commit what works.
    assert_eq!(of(NotCounted, AllPassed, No, Stay), Verdict::Commit);
}

#[test]
fn hlt_30_row_3_a_failed_trial_reboots_if_something_better_boots() {
    assert_eq!(of(Trial, OneFailed, Whole, Reboot), Verdict::RecordAndReboot);
}

#[test]
fn hlt_30_row_4_a_failed_trial_is_marked_bad_if_the_policy_wants_it() {
    assert_eq!(of(Trial, OneFailed, Whole, MarkBad), Verdict::MarkBadAndReboot);
}

#[test]
fn hlt_30_row_5_a_failed_trial_stays_up_if_the_policy_wants_it() {
    assert_eq!(of(Trial, OneFailed, Whole, Stay), Verdict::RecordAndStay);
    assert_eq!(of(NotCounted, OneFailed, Whole, Stay), Verdict::RecordAndStay);
}

#[test]
fn hlt_30_row_6_a_failed_trial_that_nobody_counts_is_marked_bad() {
    assert_eq!(of(NotCounted, OneFailed, Whole, Reboot), Verdict::MarkBadAndReboot);
    assert_eq!(of(NotCounted, OneFailed, Whole, MarkBad), Verdict::MarkBadAndReboot);
}

#[test]
fn hlt_30_row_7_a_failed_trial_stays_up_if_nothing_better_boots() {
    for action in ACTION {
        assert_eq!(of(Trial, OneFailed, No, action), Verdict::RecordAndStay);
        assert_eq!(of(NotCounted, OneFailed, No, action), Verdict::RecordAndStay);
    }
}

#[test]
fn hlt_30_row_8_a_trial_that_the_firmware_did_not_boot_is_neither_committed_nor_given_up() {
    assert_eq!(of(NotFirmware, AllPassed, Whole, Reboot), Verdict::Report);
    assert_eq!(of(NotFirmware, OneFailed, Whole, MarkBad), Verdict::Report);
}

#[test]
fn hlt_30_row_9_a_committed_system_that_passes_is_healthy() {
    assert_eq!(of(Committed, AllPassed, No, Reboot), Verdict::Healthy);
}

#[test]
fn hlt_30_row_10_a_committed_system_never_reboots() {
    assert_eq!(of(Committed, OneFailed, Whole, Reboot), Verdict::Report);
    assert!(every().filter(|facts| facts.booted == Committed).all(|facts| !verdict(facts).reboots()));
}

#[test]
fn hlt_30_row_11_an_unknown_boot_changes_nothing() {
    assert_eq!(of(Unknown, Pending, Whole, Reboot), Verdict::Unknown);
    assert_eq!(of(Unknown, AllPassed, Whole, Reboot), Verdict::Unknown);
    assert_eq!(of(Unknown, OneFailed, Whole, MarkBad), Verdict::Unknown);
}

#[test]
fn hlt_30_row_12_a_failed_trial_stays_up_if_what_boots_is_not_known() {
    for action in ACTION {
        assert_eq!(of(Trial, OneFailed, NotKnown, action), Verdict::RecordAndStay);
        assert_eq!(of(NotCounted, OneFailed, NotKnown, action), Verdict::RecordAndStay);
    }
}

#[test]
fn nothing_reboots_without_something_better_upd_50() {
    assert!(every().filter(|facts| facts.another != Whole).all(|facts| !verdict(facts).reboots()));
}

#[test]
fn the_model_is_asked_for_a_failed_trial_alone() {
    for Facts { booted, required, action, .. } in every() {
        // With `stay` nothing depends on what else would boot.
        let expected = matches!((booted, required), (Trial | NotCounted, OneFailed)) && action != Stay;
        assert_eq!(depends_on_another(booted, required, action), expected, "{booted:?} {required:?} {action:?}");
    }
}

#[test]
fn the_guard_waits_on_while_the_trial_is_open_hlt_36() {
    for facts in every() {
        let (verdict, open) = (verdict(facts), [Pending].contains(&facts.required) && facts.booted != Unknown);
        let reported_trial = facts.booted == NotFirmware;
        // Of a reboot it is what ends a shutdown that hangs.
        let stays_up = !open && !reported_trial && !verdict.reboots();
        assert_eq!(verdict.stays_up(facts.booted), stays_up, "{facts:?}");
    }
}
