//! The power-cut proof by hand: see the README.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use qemu_tests::cuts::bench::{Bench, Payloads};
use qemu_tests::cuts::flow::{FIRMWARE, FLOWS, Flow, flow};
use qemu_tests::cuts::proof::{boot_states, select, work_states};
use qemu_tests::cuts::record::Recording;
use qemu_tests::guest;
use qemu_tests::lab::Lab;

const USAGE: &str = "\
usage: cuts record OUT [FLOW…]         record flows, each into a folder below OUT: base.raw, w.log, flow.json
       cuts record-real OUT [FLOW…]    the same with a real kernel, so that states can be booted
       cuts work COUNT [FLOW…]         record, and work from COUNT states of each flow
       cuts boot COUNT [FLOW…]         record with a real kernel, and boot COUNT states of each flow";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (Some(command), Some(first)) = (args.first(), args.get(1)) else { bail!(USAGE) };
    let flows = flows(&args[2..])?;
    match command.as_str() {
        "record" => record(Payloads::Small, Path::new(first), &flows),
        "record-real" => record(Payloads::Real, Path::new(first), &flows),
        "work" => work(first.parse().context(USAGE)?, &flows),
        "boot" => boot(first.parse().context(USAGE)?, &flows),
        _ => bail!(USAGE),
    }
}

fn flows(names: &[String]) -> Result<Vec<&'static Flow>> {
    if names.is_empty() {
        return Ok(FLOWS.iter().chain([&FIRMWARE]).collect());
    }
    names
        .iter()
        .map(|name| {
            let known = flow(name).or_else(|| (*name == FIRMWARE.name).then_some(&FIRMWARE));
            known.with_context(|| format!("no flow {name}"))
        })
        .collect()
}

fn record_one(lab: &Lab, payloads: Payloads, flow: &Flow, dir: &Path) -> Result<Recording> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    if flow.name == FIRMWARE.name {
        return Recording::of_firmware(&Bench::new(lab, Payloads::Real)?, &guest::base()?.loader, dir);
    }
    Recording::make(&Bench::new(lab, payloads)?, flow, dir)
}

/// What is kept is kept in OUT: the laboratory's own folder is made anew for each flow.
fn record(payloads: Payloads, out: &Path, flows: &[&Flow]) -> Result<()> {
    for flow in flows {
        let lab = Lab::new(&format!("cuts-{}", flow.name))?;
        let recording = record_one(&lab, payloads, flow, &out.join(flow.name))?;
        println!("{}", recording.log.display());
    }
    Ok(())
}

fn work(count: usize, flows: &[&Flow]) -> Result<()> {
    for flow in flows {
        let lab = Lab::new(&format!("cuts-{}", flow.name))?;
        let payloads = if flow.name == FIRMWARE.name { Payloads::Real } else { Payloads::Small };
        let recording = record_one(&lab, payloads, flow, &lab.machine("machine")?)?;
        let states: PathBuf = select(&recording, count, &lab.path("states"))?;
        work_states(&Bench::again(&lab, payloads), flow, &recording, &states, &lab.machine("work")?)?;
    }
    Ok(())
}

fn boot(count: usize, flows: &[&Flow]) -> Result<()> {
    for flow in flows {
        let lab = Lab::new(&format!("cuts-boot-{}", flow.name))?;
        let recording = record_one(&lab, Payloads::Real, flow, &lab.machine("machine")?)?;
        let states = select(&recording, count, &lab.path("states"))?;
        for (release, loader) in [(257, guest::base()?.loader), (252, guest::loader_252()?)] {
            let half = if release == 257 { count.div_ceil(2) } else { count / 2 };
            boot_states(&recording, &states, half, Some(&loader), &lab.machine(&format!("boot-{release}"))?)?;
        }
    }
    Ok(())
}
