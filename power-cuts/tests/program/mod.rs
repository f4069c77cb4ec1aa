//! The program, run on files.

use std::path::Path;
use std::process::{Command, Output};

use power_cuts::Flow;

use crate::common::Bench;

pub fn power_cuts(dir: &Path, command: &str, more: &[&str]) -> Output {
    let mut run = Command::new(env!("CARGO_BIN_EXE_power-cuts"));
    run.current_dir(dir).arg(command);
    if ["check", "select"].contains(&command) {
        run.args(["--base", "base.raw", "--log", "w.log", "--flow", "flow.json", "--seed", "3", "--max-states", "600"]);
    }
    run.args(more).output().unwrap()
}

/// Base, log and flow as files.
pub fn files(flow: &Flow, bench: &Bench, act: &dyn Fn(&Bench)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let bench = bench.again();
    std::fs::write(dir.path().join("base.raw"), bench.recorder.bytes()).unwrap();
    act(&bench);
    std::fs::write(dir.path().join("w.log"), bench.recorder.log()).unwrap();
    std::fs::write(dir.path().join("flow.json"), flow.render()).unwrap();
    dir
}

pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
