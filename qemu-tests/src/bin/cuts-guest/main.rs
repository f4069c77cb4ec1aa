//! In the tiny guest of the power-cut proof: runs one operation on the disk under test while the host records every
//! write, or puts that disk into one state after another and shows that the operation, repeated, ends well in each.
//!
//! `/job/job.json` says what is to be done:
//!
//! - `{"mode": "record", "slot": "a", "op": OP}`: slot A is what runs; runs OP once.
//! - `{"mode": "work", "ops": {"a": OP, "b": OP}, "keep": {PATH: SHA-256, …}}`: for each state of the disk `/dev/vdb`, runs
//!   what stands for the slot that the boot loader would start in it.
//!
//! OP is `{"argv": [PROGRAM, …], "restarts": BOOL, "exits": [0, …], "slots": {"a": [STATE, …], "b": […]}}`: what to run, whether
//! it may restart the machine, and what must be true afterwards (the slots' states as in IFC-21).

mod check;
mod disk;
mod job;
mod system;

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use qemu_tests::cuts::states::{State, States};

use check::check;
use disk::Disk;
use job::{Job, Op};
use system::System;

/// The disk under test.
const DISK: &str = "/dev/vda";
/// The states.
const STATES: &str = "/dev/vdb";

fn main() {
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
        Job::Record { slot, op } => {
            system.starts_slot(slot)?;
            let ran = system.run(&op)?;
            println!("cuts: {} ended with {:?}\n{}", op.argv.join(" "), ran.code, ran.output);
            check(&system, &op, &ran, &[])?;
            Ok("recorded".to_owned())
        }
        Job::Work { ops, keep } => work(&mut system, &ops, &keep),
    }
}

/// Goes through all states; one that fails is told and does not end the others.
fn work(system: &mut System, ops: &job::Ops, keep: &[(String, String)]) -> Result<String> {
    let began = Instant::now();
    let mut disk = Disk::open(DISK)?;
    let mut states = States::open(Path::new(STATES))?;
    let (mut worked, mut failed) = (0, 0);
    while let Some(state) = states.next_state()? {
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
        bail!("{STATES} holds no states");
    }
    let seconds = began.elapsed().as_secs_f32();
    Ok(format!("{worked} states, {failed} failed, {seconds:.1} s"))
}

fn one(system: &mut System, state: &State, ops: &job::Ops, keep: &[(String, String)]) -> Result<String> {
    let boots = system.boot_as_the_loader_would(state)?;
    let op: &Op = ops.of(boots.name.slot);
    let ran = system.run(op).with_context(|| format!("{} was booted", boots.name))?;
    check(system, op, &ran, keep).with_context(|| {
        format!("{} was booted; {} ended with {:?}: {}", boots.name, op.argv.join(" "), ran.code, ran.output.trim())
    })?;
    Ok(format!("{} {}", boots.name, ran.code.map_or_else(|| "killed".to_owned(), |code| code.to_string())))
}
