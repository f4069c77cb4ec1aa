//! Power cuts, with the kernel's own vfat and the real boot loader: every flow is recorded write by write; states that a cut
//! could have left are worked from by the real programs, and booted.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use qemu_tests::cuts::bench::{Bench, Payloads};
use qemu_tests::cuts::boots::{self, Booted};
use qemu_tests::cuts::flow::{FIRMWARE, Flow, flow};
use qemu_tests::cuts::proof::{boot_states, select, work_states};
use qemu_tests::cuts::record::Recording;
use qemu_tests::cuts::twins::{Chain, plant};
use qemu_tests::cuts::work::commit_on;
use qemu_tests::guest;
use qemu_tests::lab::{Lab, scenario};

/// States of a flow that are worked from here; `cuts work` goes through as many as one likes.
const WORKED: usize = 40;
/// States of a flow that are booted here.
const BOOTED: usize = 10;

fn worked_from(name: &str) -> Result<()> {
    scenario(&format!("cuts-{name}"), |lab| {
        let flow = flow(name).expect("a flow of the list");
        let bench = Bench::new(lab, Payloads::Small)?;
        let dir = lab.machine("machine")?;
        let recording = Recording::make(&bench, flow, &dir)?;
        work(lab, &bench, flow, &recording)
    })
}

fn work(lab: &Lab, bench: &Bench<'_>, flow: &Flow, recording: &Recording) -> Result<()> {
    let states = select(recording, WORKED, &lab.path("states"))?;
    work_states(bench, flow, recording, &states, &lab.machine("work")?)
}

#[test]
fn cut_a_first_apply_ends_well_when_repeated() {
    worked_from("first-apply").unwrap();
}

#[test]
fn cut_a_second_apply_ends_well_when_repeated() {
    worked_from("second-apply").unwrap();
}

#[test]
fn cut_an_apply_over_a_fallen_back_system_ends_well_when_repeated() {
    worked_from("apply-over-fallen-back").unwrap();
}

#[test]
fn cut_an_apply_that_was_cut_before_ends_well_when_repeated() {
    worked_from("apply-repeated").unwrap();
}

/// ENT-28, on the kernel's own mount: unmounted, made longer, mounted again, gone on.
#[test]
fn cut_an_apply_that_makes_room_ends_well_when_repeated() {
    worked_from("apply-makes-room").unwrap();
}

#[test]
fn cut_a_commit_ends_well_when_repeated() {
    worked_from("commit").unwrap();
}

#[test]
fn cut_the_health_check_marking_bad_ends_well_when_repeated() {
    worked_from("mark-bad").unwrap();
}

#[test]
fn cut_a_rollback_ends_well_when_repeated() {
    worked_from("rollback").unwrap();
}

#[test]
fn cut_a_rejection_ends_well_when_repeated() {
    worked_from("reject").unwrap();
}

#[test]
fn cut_the_guard_s_count_ends_well_when_repeated() {
    worked_from("guard-counts").unwrap();
}

#[test]
fn cut_the_guard_giving_up_ends_well_when_repeated() {
    worked_from("guard-gives-up").unwrap();
}

#[test]
fn cut_the_doctor_s_repairs_end_well_when_repeated() {
    worked_from("doctor-fix").unwrap();
}

#[test]
fn cut_the_firmware_s_count_leaves_what_can_be_committed() {
    scenario("cuts-firmware", |lab| {
        let bench = Bench::new(lab, Payloads::Real)?;
        for (release, loader) in loaders()? {
            let dir = lab.machine(&format!("machine-{release}"))?;
            let recording = Recording::of_firmware(&bench, &loader, &dir)?;
            let states = select(&recording, WORKED, &lab.path("states"))?;
            work_states(&bench, &FIRMWARE, &recording, &states, &lab.machine(&format!("work-{release}"))?)?;
            boot_states(&recording, &states, BOOTED, None, &lab.machine(&format!("boot-{release}"))?)?;
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn cut_flows_boot_the_old_or_the_new_system() {
    scenario("cuts-boots", |lab| {
        let bench = Bench::new(lab, Payloads::Real)?;
        for (name, (release, loader)) in ["first-apply", "commit"].into_iter().zip(loaders()?) {
            let flow = flow(name).expect("a flow of the list");
            let recording = Recording::make(&bench, flow, &lab.machine(name)?)?;
            let states = select(&recording, BOOTED, &lab.path("states"))?;
            boot_states(&recording, &states, BOOTED, Some(&loader), &lab.machine(&format!("boot-{release}"))?)?;
        }
        Ok(())
    })
    .unwrap();
}

/// ENT-20, ENT-22, LDR-7: two names for the trial, on one chain of clusters or on two. Both loaders boot it, and it can be
/// committed afterwards by the kernel's vfat.
#[test]
fn ent22_twins_of_a_cut_rename_are_survived() {
    scenario("cuts-twins", |lab| {
        let bench = Bench::new(lab, Payloads::Real)?;
        let base = bench.base(&FIRMWARE, &lab.machine("machine")?)?;
        let trial = Booted { slot: "b".to_owned(), generation: 2 };
        for chain in [Chain::Shared, Chain::Own] {
            for (release, loader) in loaders()? {
                let dir = lab.machine(&format!("boot-{release}-{chain:?}"))?;
                let disk = dir.join("disk.raw");
                boots::disk_in_state(&base, &Vec::new(), Some(&loader), &disk)?;
                plant(&disk, "ralphos-b-g2+3-0.conf", "ralphos-b-g2+2-1.conf", chain, &dir)?;
                let booted = boots::boot(&disk, &dir)?;
                ensure!(booted == trial, "systemd-boot {release} booted {booted:?} with {chain:?} twins");
                commit_on(&disk, &dir)?;
            }
        }
        Ok(())
    })
    .unwrap();
}

fn loaders() -> Result<[(u32, PathBuf); 2]> {
    Ok([(257, guest::base()?.loader), (252, guest::loader_252()?)])
}
