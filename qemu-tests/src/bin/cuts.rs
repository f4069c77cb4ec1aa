//! The power-cut proof by hand: see the README.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use qemu_tests::arch::Arch;
use qemu_tests::cuts::bench::{Bench, Payloads};
use qemu_tests::cuts::boots::Booted;
use qemu_tests::cuts::flow::{FIRMWARE, FLOWS, Flow, flow};
use qemu_tests::cuts::proof::{CHOSEN_FROM, boot_state, boot_states, select, work_states};
use qemu_tests::cuts::record::Recording;
use qemu_tests::cuts::states::States;
use qemu_tests::guest;
use qemu_tests::lab::Lab;

const USAGE: &str = "\
usage: cuts record OUT [FLOW…]         record flows, each into a folder below OUT: base.raw, w.log, flow.json
       cuts record-real OUT [FLOW…]    the same with a real kernel, so that states can be booted
       cuts work COUNT [FLOW…]         record, and work from COUNT states of each flow
       cuts boot COUNT [FLOW…]         record with a real kernel, and boot COUNT states of each flow
       cuts work-from DIR [ID]         work once more from the states of the recording in DIR, or from one
       cuts boot-from DIR ID           boot a state of the recording in DIR once more
RALPH_VM_ARCH names the architecture of the guests (x86_64, aarch64); else it is this machine's";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (Some(command), Some(first)) = (args.first(), args.get(1)) else { bail!(USAGE) };
    let (dir, rest) = (Path::new(first), &args[2..]);
    match (command.as_str(), rest) {
        ("record", names) => record(Payloads::Small, dir, &flows(names)?),
        ("record-real", names) => record(Payloads::Real, dir, &flows(names)?),
        ("work", names) => work(first.parse().context(USAGE)?, &flows(names)?),
        ("boot", names) => boot(first.parse().context(USAGE)?, &flows(names)?),
        ("work-from", []) => work_states(&Recording::open(dir)?, None).map(drop),
        ("work-from", [id]) => work_states(&Recording::open(dir)?, Some(id)).map(drop),
        ("boot-from", [id]) => {
            let recording = Recording::open(dir)?;
            let booted = boot_state(&recording, &States::open(&recording.states())?.find(id)?)?;
            println!("{id}: {booted:?} came up, as foretold");
            Ok(())
        }
        _ => bail!(USAGE),
    }
}

fn arch() -> Result<Arch> {
    Arch::to_show()
}

fn flows(names: &[String]) -> Result<Vec<&'static Flow>> {
    if names.is_empty() {
        return Ok(FLOWS.iter().chain([&FIRMWARE]).collect());
    }
    names.iter().map(|name| flow(name).with_context(|| format!("no flow {name}"))).collect()
}

fn record_one(
    lab: &Lab,
    payloads: Payloads,
    flow: &'static Flow,
    loader: Option<&Path>,
    dir: &Path,
) -> Result<Recording> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    // What the firmware boots is a real kernel.
    let payloads = if flow.name == FIRMWARE.name { Payloads::Real } else { payloads };
    Recording::make(&Bench::new(lab, payloads)?, flow, loader, dir)
}

/// What is kept is kept in OUT: the laboratory's own folder is made anew for each flow.
fn record(payloads: Payloads, out: &Path, flows: &[&'static Flow]) -> Result<()> {
    for flow in flows {
        let lab = Lab::new(arch()?, &format!("by-hand-record-{}", flow.name))?;
        let recording = record_one(&lab, payloads, flow, None, &out.join(flow.name))?;
        println!("{}", recording.log.display());
        lab.remove()?;
    }
    Ok(())
}

/// Folders of flows that pass are removed; a failure ends this and names its own.
fn work(count: usize, flows: &[&'static Flow]) -> Result<()> {
    let mut sum = 0;
    for flow in flows {
        let lab = Lab::new(arch()?, &format!("by-hand-work-{}", flow.name))?;
        let recording = record_one(&lab, Payloads::Small, flow, None, &lab.machine("machine")?)?;
        select(&recording, count, CHOSEN_FROM)?;
        sum += work_states(&recording, None)?;
        lab.remove()?;
    }
    println!("worked from {sum} states of {} flows", flows.len());
    Ok(())
}

fn boot(count: usize, flows: &[&'static Flow]) -> Result<()> {
    let loaders: [(u32, PathBuf); 2] = [(257, guest::base(arch()?)?.loader), (252, guest::loader_252(arch()?)?)];
    let mut sum = 0;
    for flow in flows {
        let mut all: Vec<Booted> = Vec::new();
        for (release, loader) in &loaders {
            let share = if *release == 257 { count.div_ceil(2) } else { count / 2 };
            if share == 0 {
                continue;
            }
            let lab = Lab::new(arch()?, &format!("by-hand-boot-{}-{release}", flow.name))?;
            let recording = record_one(&lab, Payloads::Real, flow, Some(loader), &lab.machine("machine")?)?;
            select(&recording, count, CHOSEN_FROM)?;
            all.extend(boot_states(&recording, share)?);
            lab.remove()?;
        }
        let old = all.iter().filter(|one| (one.slot.as_str(), one.generation) == flow.before).count();
        println!("{}: {} states booted, {old} of them the system before", flow.name, all.len());
        ensure!(!all.is_empty(), "{}: no state was booted", flow.name);
        sum += all.len();
    }
    println!("booted {sum} states of {} flows", flows.len());
    Ok(())
}
