//! Runs the cases round by round, so that a machine that grows slower or faster touches them all alike.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use qemu_tests::setup;

use crate::case::{Case, Fetched};
use crate::measure::{Sample, measure_apart};
use crate::server::Server;

/// A case with what was measured, or why it cannot be.
#[derive(Debug)]
pub struct Measured {
    /// What was run.
    pub case: Case,
    /// One for each round.
    pub samples: Vec<Sample>,
    /// Why it was given up.
    pub failed: Option<String>,
}

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct Rounds {
    /// How many.
    pub count: usize,
    /// All on one processor core.
    pub one_core: bool,
}

/// Runs everything. A case that fails is told, and left out from then on.
pub fn run(cases: Vec<Case>, rounds: Rounds, server: &Server) -> Vec<Measured> {
    let mut all: Vec<_> = cases.into_iter().map(|case| Measured { case, samples: Vec::new(), failed: None }).collect();
    for round in 0..rounds.count {
        for measured in all.iter_mut().filter(|measured| measured.failed.is_none()) {
            let name = measured.case.name();
            match once(&measured.case, rounds, server, round == 0) {
                Ok(sample) => {
                    eprintln!("round {}: {name}: {:.2} s, {:.2} s CPU", round + 1, sample.wall, sample.cpu);
                    measured.samples.push(sample);
                }
                Err(error) => {
                    eprintln!("round {}: {name}: {error:#}", round + 1);
                    measured.failed = Some(format!("{error:#}"));
                }
            }
        }
    }
    all
}

fn once(case: &Case, rounds: Rounds, server: &Server, check: bool) -> Result<Sample> {
    for command in &case.reset {
        run_words(command).context("cannot reset")?;
    }
    case.warm.iter().try_for_each(|path| warm(path))?;
    let (before, asked) = server.sent();
    let mut sample = measure_apart(&case.command, Some(&case.flush), rounds.one_core)?;
    sample.fetched = match &case.fetched {
        Fetched::Files(paths) => paths.iter().map(|path| size(path)).sum::<Result<u64>>()?,
        Fetched::Served => server.sent().0 - before,
    };
    sample.requests = server.sent().1 - asked;
    if check {
        run_words(&case.check).context("it ended well, but the slot does not hold what it should")?;
    }
    Ok(sample)
}

fn run_words(words: &[String]) -> Result<()> {
    let (program, args) = words.split_first().context("no command")?;
    setup::run(setup::command(program).args(args)).map(drop)
}

/// All files at or below `path`.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    let look = || format!("cannot look at {}", path.display());
    if !path.metadata().with_context(look)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).with_context(look)? {
        found.extend(files(&entry.with_context(look)?.path())?);
    }
    Ok(found)
}

/// Reads everything once, so that the page cache holds it.
fn warm(path: &Path) -> Result<()> {
    for file in files(path)? {
        let mut from = std::fs::File::open(&file).with_context(|| format!("cannot open {}", file.display()))?;
        // Not io::copy into a sink, which the library may do without reading.
        let mut buffer = vec![0; 1 << 20];
        while std::io::Read::read(&mut from, &mut buffer).with_context(|| format!("cannot read {}", file.display()))?
            > 0
        {}
    }
    Ok(())
}

fn size(path: &Path) -> Result<u64> {
    files(path)?.iter().map(|file| Ok(file.metadata()?.len())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{Target, Theme};

    fn case(dir: &Path, command: &str) -> Case {
        let sh = |script: &str| ["sh", "-c", script].map(str::to_owned).to_vec();
        let slot = dir.join("slot");
        Case {
            contender: "test",
            what: "writes",
            theme: Theme::Full,
            target: Target::File,
            reset: vec![sh(&format!("echo old > {}", slot.display()))],
            warm: vec![dir.to_owned()],
            command: sh(&command.replace("SLOT", &slot.display().to_string())),
            check: sh(&format!("grep -q new {}", slot.display())),
            flush: slot,
            fetched: Fetched::Files(vec![dir.join("slot")]),
        }
    }

    #[test]
    fn a_store_counts_with_all_its_files() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("a"), "12345").unwrap();
        std::fs::write(dir.path().join("sub/b"), "123").unwrap();
        assert_eq!(size(dir.path()).unwrap(), 8);
    }

    #[test]
    fn what_did_not_do_its_work_is_found_out() {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(dir.path()).unwrap();
        let rounds = Rounds { count: 1, one_core: false };
        std::fs::write(dir.path().join("slot"), "old").unwrap();
        // What measures is the program itself, which a unit test is not: the parts around it are tried here.
        let lazy = case(dir.path(), "true");
        run_words(&lazy.reset[0]).unwrap();
        assert!(run_words(&lazy.check).is_err());
        let busy = case(dir.path(), "echo new > SLOT");
        run_words(&busy.command).unwrap();
        run_words(&busy.check).unwrap();
        let failing = Case { reset: vec![vec!["false".to_owned()]], ..busy };
        let measured = run(vec![failing], rounds, &server);
        assert!(measured[0].samples.is_empty() && measured[0].failed.as_ref().unwrap().contains("reset"));
    }
}
