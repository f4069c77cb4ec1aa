//! Power cuts, with the kernel's own vfat and the real boot loader: every flow is recorded write by write; states that a cut
//! could have left are worked from by the real programs, and booted.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use qemu_tests::cuts::bench::{Bench, Payloads};
use qemu_tests::cuts::boots::{self, Booted};
use qemu_tests::cuts::flow::{COMMIT_OF_B, FIRMWARE, FLOWS, flow};
use qemu_tests::cuts::proof::{boot_states, select, work_states};
use qemu_tests::cuts::record::Recording;
use qemu_tests::cuts::twins::{Chain, plant};
use qemu_tests::cuts::work::run_on;
use qemu_tests::esp::Esp;
use qemu_tests::guest;
use qemu_tests::lab::scenario;
use qemu_tests::setup;

/// States of a flow that are worked from here; `cuts work` goes through as many as one likes.
const WORKED: usize = 15;
/// States of a flow that are booted here with each loader; `cuts boot` boots as many as one likes.
const BOOTED: usize = 5;
/// States that are booted in all, at least.
const BOOTED_IN_ALL: usize = 40;

/// A test for each flow, and the list of the flows that have one.
macro_rules! a_test_for_each_flow {
    ($list:ident, $proof:ident: $($test:ident: $flow:literal,)*) => {
        $(
            #[test]
            fn $test() {
                $proof($flow).unwrap();
            }
        )*
        const $list: &[&str] = &[$($flow,)*];
    };
}

a_test_for_each_flow! {
    WORKED_FROM, worked_from:
    cut_a_first_apply_ends_well_when_repeated: "first-apply",
    cut_a_second_apply_ends_well_when_repeated: "second-apply",
    cut_an_apply_over_a_fallen_back_system_ends_well_when_repeated: "apply-over-fallen-back",
    cut_an_apply_that_was_cut_before_ends_well_when_repeated: "apply-repeated",
    cut_an_apply_that_makes_room_ends_well_when_repeated: "apply-makes-room",
    cut_a_commit_ends_well_when_repeated: "commit",
    cut_the_health_check_marking_bad_ends_well_when_repeated: "mark-bad",
    cut_a_rollback_ends_well_when_repeated: "rollback",
    cut_a_rejection_ends_well_when_repeated: "reject",
    cut_the_guard_s_count_ends_well_when_repeated: "guard-counts",
    cut_the_guard_giving_up_ends_well_when_repeated: "guard-gives-up",
    cut_a_repair_ends_well_when_repeated: "doctor-fix",
    cut_a_repair_of_a_cut_rename_ends_well_when_repeated: "doctor-fix-shared",
}

a_test_for_each_flow! {
    BOOTED_FROM, booted_from:
    cut_a_first_apply_boots_the_old_or_the_new_system: "first-apply",
    cut_a_commit_boots_the_new_system: "commit",
    cut_a_rollback_boots_the_old_or_the_new_system: "rollback",
    cut_the_firmware_s_count_boots_and_can_be_committed: "firmware-counts",
}

#[test]
fn every_flow_is_worked_from_and_enough_are_booted() {
    let names: Vec<&str> = FLOWS.iter().map(|flow| flow.name).collect();
    assert_eq!(WORKED_FROM, names);
    assert!(BOOTED_FROM.contains(&FIRMWARE.name));
    assert!(BOOTED_FROM.iter().all(|name| flow(name).is_some()));
    // Each of these tests makes sure that it booted its share.
    let all = BOOTED_FROM.len() * BOOTED * 2;
    assert!(all >= BOOTED_IN_ALL, "{all} states");
}

fn worked_from(name: &str) -> Result<()> {
    scenario(&format!("cuts-{name}"), |lab| {
        let flow = flow(name).context("no such flow")?;
        let bench = Bench::new(lab, Payloads::Small)?;
        let recording = Recording::make(&bench, flow, None, &lab.machine("machine")?)?;
        select(&recording, WORKED)?;
        work_states(&recording, None).map(drop)
    })
}

/// Each loader boots states of a recording on a disk that has it from the beginning.
fn booted_from(name: &str) -> Result<()> {
    scenario(&format!("cuts-boots-{name}"), |lab| {
        let flow = flow(name).context("no such flow")?;
        let bench = Bench::new(lab, Payloads::Real)?;
        for (release, loader) in loaders()? {
            let recording = Recording::make(&bench, flow, Some(&loader), &lab.machine(&format!("machine-{release}"))?)?;
            select(&recording, WORKED)?;
            if name == FIRMWARE.name {
                work_states(&recording, None)?;
            }
            let booted = boot_states(&recording, BOOTED)?;
            ensure!(booted.len() == BOOTED, "systemd-boot {release}: {} states were booted", booted.len());
            for (slot, generation) in [flow.before, flow.after] {
                let came_up = |one: &Booted| (one.slot.as_str(), one.generation) == (slot, generation);
                ensure!(booted.iter().any(came_up), "systemd-boot {release}: slot {slot} never came up: {booted:?}");
            }
        }
        Ok(())
    })
}

/// ENT-20, ENT-22: two names for the trial, on one chain of clusters or on two. Both loaders boot it, and it can be
/// committed afterwards by the kernel's vfat.
#[test]
fn ent22_twins_of_a_cut_rename_are_survived() {
    twins("cuts-twins", "+3-0", "+2-1", &[Chain::Shared, Chain::Own]).unwrap();
}

/// LDR-7: nobody makes these twins, and the loader cannot count them any more. Still one of ours boots, and a commit puts
/// them in order.
#[test]
fn ldr7_twins_that_cannot_be_counted_are_survived() {
    twins("cuts-twins-uncounted", "+1-2", "+0-3", &[Chain::Own]).unwrap();
}

/// Gives the trial in slot B two names with these counters, boots it with each loader, and commits it.
fn twins(name: &str, first: &str, second: &str, chains: &[Chain]) -> Result<()> {
    scenario(name, |lab| {
        let bench = Bench::new(lab, Payloads::Real)?;
        let base = bench.base(&FIRMWARE, &lab.machine("machine")?)?;
        let trial = Booted { slot: "b".to_owned(), generation: 2 };
        let file = |counter: &str| format!("ralphos-b-g2{counter}.conf");
        for chain in chains {
            for (release, loader) in loaders()? {
                let dir = lab.machine(&format!("boot-{release}-{chain:?}"))?;
                let disk = dir.join("disk.raw");
                setup::run(setup::command("cp").arg("--sparse=always").arg(&base).arg(&disk))?;
                let esp = Esp::of_disk(&disk)?;
                esp.copy_in(&loader, "EFI/BOOT/BOOTX64.EFI")?;
                if first != "+3-0" {
                    esp.rename(&format!("loader/entries/{}", file("+3-0")), &file(first))?;
                }
                plant(&disk, &file(first), &file(second), *chain, &dir)?;
                let foretold = boots::predicted(&disk)?;
                ensure!(foretold == trial, "{foretold:?} is foretold for {chain:?} twins");
                let booted = boots::boot(&disk, &dir)?;
                ensure!(booted == trial, "systemd-boot {release} booted {booted:?} with {chain:?} twins");
                eprintln!("{name}: systemd-boot {release}, {chain:?}: {:?}", esp.entries()?);
                run_on(&disk, &FIRMWARE, &COMMIT_OF_B, "b", &dir)?;
            }
        }
        Ok(())
    })
}

fn loaders() -> Result<[(u32, PathBuf); 2]> {
    Ok([(257, guest::base()?.loader), (252, guest::loader_252()?)])
}
