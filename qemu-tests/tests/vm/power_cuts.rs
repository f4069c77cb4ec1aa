//! Power cuts, with the kernel's own vfat and the real boot loader: every flow is recorded write by write; states that a cut
//! could have left are worked from by the real programs, and booted.

use std::path::PathBuf;

use crate::{ARCH, scenario};
use anyhow::{Context, Result, ensure};
use qemu_tests::cuts::bench::{Bench, Payloads};
use qemu_tests::cuts::boots::{self, Booted};
use qemu_tests::cuts::flow::{COMMIT_OF_B, FIRMWARE, FLOWS, flow};
use qemu_tests::cuts::proof::{BOOTED_OF, CHOSEN_FROM, boot_states, select, work_states};
use qemu_tests::cuts::record::Recording;
use qemu_tests::cuts::twins::{Chain, plant};
use qemu_tests::cuts::work::run_on;
use qemu_tests::esp::Esp;
use qemu_tests::guest;
use qemu_tests::setup;

/// States of a flow that are worked from here; `cuts work` goes through as many as one likes.
const WORKED: usize = 15;
/// States that are booted in all, at least, on guests of this machine's own architecture.
const BOOTED_IN_ALL: usize = 40;
/// States that are checked in all, at least, no two of one flow equal.
const CHECKED_IN_ALL: u64 = 10_000;

/// A test for each flow, and the list of these: the flow, how many of its states are checked at least, and what else the proof
/// wants to know.
macro_rules! a_test_for_each_flow {
    ($list:ident: [$row:ty], $proof:ident: $($test:ident: $($told:expr),+;)*) => {
        $(
            #[test]
            fn $test() {
                $proof($($told),+).unwrap();
            }
        )*
        const $list: &[$row] = &[$(($($told),+),)*];
    };
}

a_test_for_each_flow! {
    WORKED_FROM: [(&str, u64)], worked_from:
    cut_a_first_apply_ends_well_when_repeated: "first-apply", 2500;
    cut_a_second_apply_ends_well_when_repeated: "second-apply", 2500;
    cut_an_apply_over_a_fallen_back_system_ends_well_when_repeated: "apply-over-fallen-back", 2500;
    cut_an_apply_that_was_cut_before_ends_well_when_repeated: "apply-repeated", 2500;
    cut_an_apply_that_makes_room_ends_well_when_repeated: "apply-makes-room", 2000;
    cut_an_apply_of_a_unified_image_ends_well_when_repeated: "apply-unified", 1500;
    cut_a_second_apply_of_a_unified_image_ends_well_when_repeated: "second-apply-unified", 1500;
    cut_a_commit_of_a_unified_image_ends_well_when_repeated: "commit-unified", 60;
    cut_a_commit_ends_well_when_repeated: "commit", 60;
    cut_the_health_check_marking_bad_ends_well_when_repeated: "mark-bad", 60;
    cut_the_health_check_marking_bad_on_the_last_try_ends_well_when_repeated: "mark-bad-last-try", 60;
    cut_a_rollback_ends_well_when_repeated: "rollback", 60;
    cut_a_rejection_ends_well_when_repeated: "reject", 60;
    cut_the_guard_s_count_ends_well_when_repeated: "guard-counts", 2;
    cut_the_guard_giving_up_ends_well_when_repeated: "guard-gives-up", 60;
    cut_a_repair_ends_well_when_repeated: "doctor-fix", 50;
    cut_a_repair_of_a_cut_rename_ends_well_when_repeated: "doctor-fix-shared", 25;
    cut_an_update_of_the_boot_loader_ends_well_when_repeated: "loader", 200;
}

// Releases of systemd-boot, and how many states each boots; `cuts boot` boots as many as one likes. The rename is the loader's own.
a_test_for_each_flow! {
    BOOTED_FROM: [(&str, u64, &[(u32, usize)])], booted_from:
    cut_a_first_apply_boots_the_old_or_the_new_system: "first-apply", 400, &[(257, 10)];
    cut_a_commit_boots_the_new_system: "commit", 60, &[(252, 10)];
    cut_a_rollback_boots_the_old_or_the_new_system: "rollback", 60, &[(257, 10)];
    cut_the_firmware_s_count_boots_and_can_be_committed: "firmware-counts", 2, &[(257, 5), (252, 5)];
}

#[test]
fn every_flow_is_worked_from_and_enough_states_are_checked_and_booted() {
    let names: Vec<&str> = FLOWS.iter().map(|flow| flow.name).collect();
    assert_eq!(WORKED_FROM.iter().map(|(name, _)| *name).collect::<Vec<_>>(), names);
    assert!(BOOTED_FROM.iter().any(|(name, ..)| *name == FIRMWARE.name));
    // Each of these tests makes sure that it checked and booted its share.
    let checked: u64 = WORKED_FROM.iter().map(|(_, at_least)| at_least).sum();
    assert!(checked >= CHECKED_IN_ALL, "{checked} states");
    let booted: usize = BOOTED_FROM.iter().flat_map(|(_, _, loaders)| loaders.iter().map(|(_, count)| count)).sum();
    assert!(booted >= BOOTED_IN_ALL, "{booted} states");
}

/// How many of so many states: half of them on guests of another architecture than this machine's. As many are checked there, and the same
/// programs write the same bytes; what is seen by doing it are other firmware and another build of loader and kernel.
fn share(states: usize) -> usize {
    if ARCH.is_host() { states } else { states.div_ceil(2) }
}

fn worked_from(name: &str, at_least: u64) -> Result<()> {
    scenario(&format!("cuts-{name}"), |lab| {
        let flow = flow(name).context("no such flow")?;
        let bench = Bench::new(lab, Payloads::Small)?;
        let recording = Recording::make(&bench, flow, None, &lab.machine("machine")?)?;
        let checked = select(&recording, share(WORKED), CHOSEN_FROM)?;
        ensure!(checked >= at_least, "{name}: {checked} states were checked");
        work_states(&recording, None).map(drop)
    })
}

/// Loaders boot states of a recording on a disk that has them from the beginning.
fn booted_from(name: &str, at_least: u64, releases: &[(u32, usize)]) -> Result<()> {
    scenario(&format!("cuts-boots-{name}"), |lab| {
        let flow = flow(name).context("no such flow")?;
        let bench = Bench::new(lab, Payloads::Real)?;
        for (release, count) in releases {
            let count = share(*count);
            let (_, loader) = loaders()?.into_iter().find(|(known, _)| known == release).context("no such loader")?;
            let recording = Recording::make(&bench, flow, Some(&loader), &lab.machine(&format!("machine-{release}"))?)?;
            let checked = select(&recording, share(WORKED), BOOTED_OF)?;
            ensure!(checked >= at_least, "{name}: {checked} states were checked");
            if name == FIRMWARE.name {
                work_states(&recording, None)?;
            }
            let booted = boot_states(&recording, count)?;
            ensure!(booted.len() == count, "systemd-boot {release}: {} states were booted", booted.len());
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
                esp.copy_in(&loader, &ARCH.loader_path())?;
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
    Ok([(257, guest::base(ARCH)?.loader), (252, guest::loader_252(ARCH)?)])
}
