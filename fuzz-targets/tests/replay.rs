//! What is kept in `fuzz/seeds` holds, and so do some blind mutations of it, in every run of the tests.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use fuzz_targets::{TARGETS, mutate};

/// Of each target: as many as can be had in the time, but some on every machine.
const RUNS: Range<u64> = 50..3000;
const TIME: Duration = Duration::from_secs(4);

#[test]
fn every_target_holds_on_what_is_kept_and_on_mutations_of_it() {
    mutate::save_failures();
    let days = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() / 86_400;
    for target in TARGETS {
        let runs = mutate::shake(&target, days, TIME, RUNS);
        println!("{}: {runs} runs, seed {days}", target.name);
    }
}

#[test]
fn the_seeds_of_the_builders_are_kept_and_fit() {
    for target in TARGETS {
        for (name, bytes) in (target.seeds)() {
            let path = mutate::kept(&target).join(name);
            assert!(path.is_file(), "{}: run `cargo run -p fuzz-targets -- seeds`", path.display());
            assert!(bytes.len() <= target.max_len, "{}: {} bytes", path.display(), bytes.len());
        }
    }
}

#[test]
fn every_target_has_its_fuzzer() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    for target in TARGETS {
        let file = folder.join("fuzz_targets").join(target.name).with_extension("rs");
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(text.contains(&format!("fuzz_targets::{}(", target.name)), "{}", file.display());
        assert!(manifest.contains(&format!("name = \"{}\"", target.name)), "{}", target.name);
    }
}
