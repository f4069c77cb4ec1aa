//! What the host wants done.

use anyhow::{Context, Result, bail};
use disk_layout::Slot;
use serde_json::Value;

/// See the program's own description.
#[derive(Debug)]
pub enum Job {
    Record {
        slot: Slot,
        op: Op,
        keep: Keep,
    },
    /// All states, or the one of this name.
    Work {
        ops: Ops,
        keep: Keep,
        only: Option<String>,
    },
}

/// Files and their SHA-256 afterwards.
pub type Keep = Vec<(String, String)>;

/// What to run, and what is expected of it.
#[derive(Debug)]
pub struct Op {
    pub argv: Vec<String>,
    /// It calls for a restart of the machine, or may, which then ends it and nothing else.
    pub restarts: bool,
    /// Exit codes, where no restart ends it.
    pub exits: Vec<i64>,
    /// It is the boot guard.
    pub guards: bool,
    /// The loader must take one of these afterwards: slot and generation.
    pub boots: Vec<(String, u64)>,
    /// For slot A and B: the states of which it must have one.
    pub slots: [Vec<String>; 2],
}

/// What to run in a state, by the slot that boots in it.
#[derive(Debug)]
pub struct Ops([Op; 2]);

impl Ops {
    pub fn of(&self, slot: Slot) -> &Op {
        &self.0[usize::from(slot == Slot::B)]
    }
}

impl Job {
    pub fn parse(text: &str) -> Result<Job> {
        let job: Value = serde_json::from_str(text).context("the job is not JSON")?;
        let keep = job["keep"].as_object().context("keep")?.iter();
        let keep = keep.map(|(path, digest)| (path.clone(), text_of(digest))).collect();
        match job["mode"].as_str() {
            Some("record") => {
                let slot = job["slot"].as_str().unwrap_or_default();
                Ok(Job::Record { slot: slot.parse()?, op: Op::of(&job["op"])?, keep })
            }
            Some("work") => {
                let ops = Ops([Op::of(&job["ops"]["a"])?, Op::of(&job["ops"]["b"])?]);
                Ok(Job::Work { ops, keep, only: job["only"].as_str().map(str::to_owned) })
            }
            other => bail!("a job of mode {other:?}"),
        }
    }
}

impl Op {
    fn of(value: &Value) -> Result<Op> {
        let argv = texts(&value["argv"]).context("argv")?;
        let exits = value["exits"].as_array().context("exits")?.iter().filter_map(Value::as_i64).collect();
        let slots = [texts(&value["slots"]["a"]).context("slots")?, texts(&value["slots"]["b"]).context("slots")?];
        let system = |one: &Value| Some((one[0].as_str()?.to_owned(), one[1].as_u64()?));
        let boots = value["boots"].as_array().context("boots")?.iter().filter_map(system).collect();
        Ok(Op { argv, restarts: value["restarts"] == true, exits, guards: value["guards"] == true, boots, slots })
    }
}

fn texts(value: &Value) -> Option<Vec<String>> {
    Some(value.as_array()?.iter().map(text_of).collect())
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
