//! The program, on files (`CUT-60` to `CUT-62`).

mod common;
mod program;

use std::collections::HashSet;
use std::fs::File;

use boot_entries::Esp;
use common::*;
use disk_layout::Slot;
use power_cuts::SECTOR;
use power_cuts::check::Checker;
use power_cuts::disk::{Disk, Layer, State};
use power_cuts::patch::PatchReader;
use program::{files, power_cuts, text};

#[test]
fn cut60_a_flow_that_passes() {
    let a = system(Slot::A, 1);
    let dir = files(&flow("slot", &[a], &[a]), &Bench::new(), &|bench| bench.write_slot(Slot::B, 2));
    let done = power_cuts(dir.path(), "check", &["--intervals"]);
    let told = text(&done);
    assert_eq!(done.status.code(), Some(0), "{told}");
    for part in [
        "slot: seed 3; 7 requests, 1 flushes; ",
        "0 of 1 intervals whole",
        "boots: a-g1 ",
        "interval 0, requests 0 to 6: slot ",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let again = power_cuts(dir.path(), "reproduce", &["missing.json"]);
    assert_eq!(again.status.code(), Some(2), "{}", text(&again));
}

#[test]
fn cut60_the_report_is_json_and_the_bound_is_one_of_different_states() {
    let (a, b) = (system(Slot::A, 1), system(Slot::B, 2));
    let dir = files(&flow("apply", &[a], &[b]), &Bench::new(), &|bench| bench.apply(Slot::B, 2));
    let done = power_cuts(dir.path(), "check", &["--report", "report.json"]);
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.path().join("report.json")).unwrap()).unwrap();
    assert_eq!((report["flow"].as_str(), report["seed"].as_u64()), (Some("apply"), Some(3)), "{}", text(&done));
    // CUT-16: an apply has far more states than the bound, so all of it is used.
    let number = |name: &str| report[name].as_u64().unwrap();
    assert!((580..=601).contains(&number("distinct")), "{report}");
    assert!(number("enumerated") > number("distinct") && number("checked") >= number("distinct"), "{report}");
    assert!(number("flushes") > 5 && number("requests") > number("flushes"), "{report}");
}

#[test]
fn cut61_a_failing_state_is_kept_and_reproduced_by_the_command_that_is_printed() {
    let a = system(Slot::A, 1);
    let dir = files(&flow("removed", &[a], &[a]), &Bench::new(), &|bench| {
        bench.esp().remove(&"loader/entries/ralphos-a-g1.conf".parse().unwrap()).unwrap();
    });
    let done = power_cuts(dir.path(), "check", &["--save", "kept"]);
    let told = text(&done);
    assert_eq!(done.status.code(), Some(1), "{told}");
    assert!(told.contains("FAILED nothing-boots in "), "{told}");
    let command = told.lines().find(|line| line.starts_with("power-cuts reproduce ")).unwrap();
    let file = command.strip_prefix("power-cuts reproduce ").unwrap();
    let again = power_cuts(dir.path(), "reproduce", &[file]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again).contains("FAILED nothing-boots: the loader finds nothing to boot"), "{}", text(&again));
    let how = std::fs::read_to_string(dir.path().join(file).with_extension("txt")).unwrap();
    assert!(how.contains("interval ") && how.contains("FAILED nothing-boots"), "{how}");
}

#[test]
fn cut62_selected_states_boot_what_the_file_says() {
    let (a, b) = (system(Slot::A, 1), system(Slot::B, 2));
    let flow = flow("apply", &[a], &[b]);
    let dir = files(&flow, &Bench::new(), &|bench| bench.apply(Slot::B, 2));
    let path = dir.path().join("states");
    let done = power_cuts(dir.path(), "select", &["--count", "25", "--output", "states"]);
    assert!(matches!(done.status.code(), Some(0 | 1)), "{}", text(&done));
    let mut reader = PatchReader::open(File::open(&path).unwrap()).unwrap();
    let header = reader.header().clone();
    assert_eq!((header.flow.as_str(), header.seed, header.states.len()), ("apply", 3, 25), "{}", text(&done));
    let ids: HashSet<&String> = header.states.iter().map(|state| &state.id).collect();
    assert_eq!(ids.len(), 25);
    assert!(header.states.iter().any(|state| state.before && !state.after));
    assert!(header.states.iter().any(|state| state.after && !state.before), "the new system boots in some, too");
    let base = std::fs::read(dir.path().join("base.raw")).unwrap();
    for (number, wanted) in header.states.iter().enumerate() {
        let mut image = base.clone();
        reader
            .apply(number, &mut |offset, bytes| {
                let at = usize::try_from(offset).unwrap();
                image[at..at + bytes.len()].copy_from_slice(bytes);
                Ok(())
            })
            .unwrap();
        let disk = Disk::new(image, Vec::new()).unwrap();
        let found = Checker::new(&disk, &flow).unwrap().check(&State::of(Layer::default().into())).unwrap();
        assert_eq!(found.failures, [], "{}", wanted.id);
        let boots = found.boots.unwrap();
        let same = (boots.file.as_str(), boots.options()) == (wanted.boots.file.as_str(), wanted.boots.options.clone());
        assert!(same, "{boots:?} {wanted:?}");
        assert_eq!(found.entries, wanted.entries);
        assert!(wanted.kinds.iter().any(|kind| ["directory", "fat", "entry"].contains(&kind.as_str())));
        assert!(wanted.runs.iter().all(|(sector, _, count)| (sector + count) * SECTOR as u64 <= header.disk_bytes));
    }
}

/// CUT-62: few states are chosen of many, and the new system boots in the last of them only.
#[test]
fn cut62_old_and_new_system_are_chosen_where_only_few_states_are() {
    let (a, b) = (system(Slot::A, 1), system(Slot::B, 2));
    let dir = files(&flow("apply", &[a], &[b]), &Bench::new(), &|bench| bench.apply(Slot::B, 2));
    let done = power_cuts(dir.path(), "select", &["--count", "10", "--output", "states"]);
    let reader = PatchReader::open(File::open(dir.path().join("states")).unwrap()).unwrap();
    let states = &reader.header().states;
    assert_eq!(states.len(), 10, "{}", text(&done));
    assert!(states.iter().any(|state| state.before) && states.iter().any(|state| state.after), "{states:?}");
}

/// CUT-62: one sector of a file's data, as the boot guard's record is.
#[test]
fn cut62_states_of_data_alone_are_chosen_where_a_flow_has_no_others() {
    let a = system(Slot::A, 1);
    let bench = Bench::new();
    put(&mut bench.esp(), "ralphos/guard", &[1; 512]);
    let act = |bench: &Bench| {
        bench.esp().overwrite_byte(&"ralphos/guard".parse().unwrap(), 0, 1, 2).unwrap();
        bench.recorder.flush();
    };
    let dir = files(&flow("guard", &[a], &[a]), &bench, &act);
    let done = power_cuts(dir.path(), "select", &["--output", "states"]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done));
    let reader = PatchReader::open(File::open(dir.path().join("states")).unwrap()).unwrap();
    let kinds: Vec<&[String]> = reader.header().states.iter().map(|state| state.kinds.as_slice()).collect();
    // The boot sector holds the mark that the volume is in use.
    let known = |kinds: &[String]| kinds.iter().all(|kind| ["boot", "data"].contains(&kind.as_str()));
    assert!(kinds.contains(&["data".to_owned()].as_slice()), "{kinds:?} {}", text(&done));
    assert!(kinds.iter().all(|kinds| known(kinds)), "{kinds:?}");
    // The partition table, half written.
    let end = bench.layout.disk_len - 512;
    let dir = files(&flow("gpt", &[a], &[a]), &bench, &|bench| bench.recorder.write(end, &[0; 512]));
    let done = power_cuts(dir.path(), "select", &["--output", "states"]);
    let reader = PatchReader::open(File::open(dir.path().join("states")).unwrap()).unwrap();
    assert_eq!(reader.header().states[0].kinds, ["gpt"], "{}", text(&done));
    // Nothing at all is an error.
    let dir = files(&flow("nothing", &[a], &[a]), &bench, &|bench| bench.write_slot(Slot::B, 2));
    let done = power_cuts(dir.path(), "select", &["--output", "states"]);
    assert_eq!(done.status.code(), Some(2), "{}", text(&done));
    assert!(text(&done).contains("no state of nothing is worth"), "{}", text(&done));
}

/// CUT-63: a state that passed here and fails elsewhere has a disk of its own.
#[test]
fn cut63_the_disk_of_a_state_is_exported() {
    let (a, b) = (system(Slot::A, 1), system(Slot::B, 2));
    let flow = flow("apply", &[a], &[b]);
    let dir = files(&flow, &Bench::new(), &|bench| bench.apply(Slot::B, 2));
    let done = power_cuts(dir.path(), "select", &["--count", "4", "--output", "states"]);
    let reader = PatchReader::open(File::open(dir.path().join("states")).unwrap()).unwrap();
    let export = |id: &str, base: &str, output: &str| {
        power_cuts(dir.path(), "export", &["--states", "states", "--id", id, "--base", base, "--output", output])
    };
    for (number, wanted) in reader.header().states.iter().enumerate() {
        let output = format!("{number}.raw");
        let told = export(&wanted.id, "base.raw", &output);
        assert_eq!(told.status.code(), Some(0), "{} {}", text(&told), text(&done));
        let disk = Disk::new(File::open(dir.path().join(output)).unwrap(), Vec::new()).unwrap();
        let found = Checker::new(&disk, &flow).unwrap().check(&State::of(Layer::default().into())).unwrap();
        assert_eq!((found.boots.unwrap().file, found.entries), (wanted.boots.file.clone(), wanted.entries.clone()));
    }
    let id = &reader.header().states[0].id;
    let short = dir.path().join("short.raw");
    std::fs::write(short, [0; 1024]).unwrap();
    for (id, base, output, said) in [
        ("apply-i999-s00000", "base.raw", "x.raw", "has no state apply-i999-s00000"),
        (id.as_str(), "short.raw", "x.raw", "has 1024 bytes"),
        (id.as_str(), "base.raw", "base.raw", "cannot write base.raw"),
    ] {
        let told = export(id, base, output);
        assert_eq!(told.status.code(), Some(2));
        assert!(text(&told).contains(said), "{}", text(&told));
    }
    assert!(std::fs::metadata(dir.path().join("base.raw")).unwrap().len() > 1024, "the base is as it was");
}
