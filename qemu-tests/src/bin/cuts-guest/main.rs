//! In the tiny guest of the power-cut proof: runs one operation on the disk under test while the host records every
//! write, or puts that disk into one state after another and shows that the operation, repeated, ends well in each.
//!
//! `/job/job.json` says what is to be done:
//!
//! - `{"mode": "record", "slot": "a", "op": OP, "keep": KEEP}`: slot A is what runs; runs OP once.
//! - `{"mode": "work", "ops": {"a": OP, "b": OP}, "keep": KEEP, "only": ID or null}`: for each state of the disk `/dev/vdb`
//!   (or for one), runs what stands for the slot that the boot loader would start in it.
//!
//! OP is `{"argv": [PROGRAM, …], "restarts": BOOL, "exits": [0, …], "guards": BOOL, "boots": [["a", 1], …],
//! "slots": {"a": [STATE, …], "b": […]}}`: what to run, and what must be true of it and afterwards (the slots' states as in
//! IFC-21). KEEP is `{PATH: SHA-256, …}`: what files of the ESP must hold afterwards.

mod check;
mod disk;
mod fsck;
mod guard;
mod job;
mod loader;
mod system;

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use qemu_tests::cuts::states::{State, States};

use check::check;
use disk::Disk;
use guard::Counting;
use job::{Job, Keep, Op};
use system::System;

/// The disk under test.
const DISK: &str = "/dev/vda";
/// The states.
const STATES: &str = "/dev/vdb";

fn main() {
    if std::env::args().nth(1).as_deref() == Some("update-loader") {
        // An operation of a job, which ends by its exit code.
        if let Err(error) = loader::update() {
            println!("{error:#}");
            std::process::exit(1);
        }
        return;
    }
    match run() {
        // The harness waits for one of these lines.
        Ok(said) => println!("cuts: done: {said}"),
        Err(error) => println!("cuts: failed: {error:#}"),
    }
}

fn run() -> Result<String> {
    let text = fs::read_to_string("/job/job.json").context("cannot read /job/job.json")?;
    let mut system = System::new(DISK)?;
    match Job::parse(&text)? {
        Job::Record { slot, op, keep } => {
            system.starts_slot(slot)?;
            let said = run_and_check(&system, &op, &keep)?;
            Ok(format!("recorded: {said}"))
        }
        Job::Work { ops, keep, only } => work(&mut system, &ops, &keep, only.as_deref()),
    }
}

/// Goes through all states; one that fails is told and does not end the others.
fn work(system: &mut System, ops: &job::Ops, keep: &Keep, only: Option<&str>) -> Result<String> {
    let began = Instant::now();
    let mut disk = Disk::open(DISK)?;
    let mut states = States::open(Path::new(STATES))?;
    let (mut worked, mut failed) = (0, 0);
    while let Some(state) = states.next_state()? {
        if only.is_some_and(|id| id != state.id) {
            continue;
        }
        disk.put(&state.patch)?;
        let result = one(system, &state, ops, keep);
        worked += 1;
        match result {
            Ok(said) => println!("cuts: state {} ok {said}", state.id),
            Err(error) => {
                failed += 1;
                println!("cuts: state {} FAILED {}", state.id, format!("{error:#}").replace('\n', " | "));
            }
        }
    }
    if worked == 0 {
        bail!("{STATES} holds no such states");
    }
    let seconds = began.elapsed().as_secs_f32();
    Ok(format!("{worked} states, {failed} failed, {seconds:.1} s"))
}

fn one(system: &mut System, state: &State, ops: &job::Ops, keep: &Keep) -> Result<String> {
    let boots = system.boot_as_the_loader_would(state)?;
    let said = run_and_check(system, ops.of(boots.name.slot), keep);
    said.map(|said| format!("{} {said}", boots.name)).with_context(|| format!("{} was booted", boots.name))
}

/// Runs `op`, and tells how it ended when that is as it should be.
fn run_and_check(system: &System, op: &Op, keep: &Keep) -> Result<String> {
    let counting = if op.guards { Some(Counting::begin(system)?) } else { None };
    let ran = system.run(op)?;
    check(system, op, &ran, keep, counting)
        .map(|boots| format!("{}; {boots} boots", ran.end()))
        .with_context(|| format!("{}: {}: {}", op.argv.join(" "), ran.end(), ran.output.trim()))
}
