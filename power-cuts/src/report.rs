//! What a run did and found (`CUT-60`).

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use serde::Serialize;

use crate::check::{Name, Verdict};
use crate::flow::Flow;
use crate::places::Kind;
use crate::run::Bounds;

/// An interval in the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntervalLine {
    /// Its number.
    pub number: usize,
    /// Its requests.
    pub requests: Range<usize>,
    /// Sectors that change in it, by what they are for.
    pub sectors: BTreeMap<Kind, usize>,
    /// How many states it has, `u64::MAX` for more than can be counted.
    pub states: u64,
    /// How many were taken that no interval before it has.
    pub taken: u64,
    /// All of them were.
    pub whole: bool,
}

impl fmt::Display for IntervalLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sectors: Vec<String> = self.sectors.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        let states = if self.states == u64::MAX { "countless".to_owned() } else { self.states.to_string() };
        let last = self.requests.end.saturating_sub(1);
        let (number, first) = (self.number, self.requests.start);
        write!(
            f,
            "interval {number}, requests {first} to {last}: {}; {} of {states} states{}",
            sectors.join(", "),
            self.taken,
            if self.whole { ", whole" } else { "" },
        )
    }
}

/// What a run did and found.
#[derive(Debug, Default)]
pub struct Report {
    /// Requests in the log.
    pub requests: usize,
    /// Flushes among them.
    pub flushes: usize,
    /// Intervals with a write.
    pub intervals: usize,
    /// Those of which every state was taken.
    pub whole_intervals: usize,
    /// States made, some of them more than once.
    pub enumerated: u64,
    /// Different ones among them.
    pub distinct: u64,
    /// Checks: each different state once, and once more when it came again after the new system was durable.
    pub checked: u64,
    /// States by what boots in them.
    pub booted: BTreeMap<String, u64>,
    /// States with a failure, by its name.
    pub failures: BTreeMap<Name, u64>,
    /// The first failure of each name: the state, how it was made, what is wrong.
    pub examples: BTreeMap<Name, String>,
    /// States in which the readers differ as the firmware's rules explain.
    pub explained: u64,
    /// States with a broken name that does not boot.
    pub with_broken_names: u64,
    /// States with a cut rename.
    pub with_cut_renames: u64,
    /// The most clusters that a state has lost (`CUT-41`).
    pub lost: u64,
    /// More may not be.
    pub lost_bound: Option<u64>,
    /// How the first explained difference was made.
    pub first_explained: String,
    /// What each interval has and how much of it was taken.
    pub lines: Vec<IntervalLine>,
    /// Time for all.
    pub time: Duration,
    /// Processor time for all.
    pub processor: Duration,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Summary<'a> {
    flow: &'a str,
    seed: u64,
    max_states: u64,
    requests: usize,
    flushes: usize,
    intervals: usize,
    whole_intervals: usize,
    enumerated: u64,
    distinct: u64,
    checked: u64,
    lost: u64,
    lost_bound: Option<u64>,
    booted: &'a BTreeMap<String, u64>,
    failures: BTreeMap<&'static str, u64>,
    seconds: f64,
    processor_seconds: f64,
}

impl Report {
    /// No state failed.
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }

    /// The report for a program that reads it (`CUT-60`): one JSON object and a line end.
    pub fn json(&self, flow: &Flow, bounds: Bounds) -> String {
        let summary = Summary {
            flow: &flow.name,
            seed: bounds.seed,
            max_states: bounds.max_states,
            requests: self.requests,
            flushes: self.flushes,
            intervals: self.intervals,
            whole_intervals: self.whole_intervals,
            enumerated: self.enumerated,
            distinct: self.distinct,
            checked: self.checked,
            lost: self.lost,
            lost_bound: self.lost_bound,
            booted: &self.booted,
            failures: self.failures.iter().map(|(name, states)| (name.as_str(), *states)).collect(),
            seconds: self.time.as_secs_f64(),
            processor_seconds: self.processor.as_secs_f64(),
        };
        let mut text = serde_json::to_string(&summary).expect("strings and numbers are JSON");
        text.push('\n');
        text
    }

    /// True when a state failed by this name.
    pub fn found(&self, name: Name) -> bool {
        self.failures.contains_key(&name)
    }

    /// Counts what was found in a state.
    pub(crate) fn add(&mut self, id: &str, made: &str, verdict: &Verdict) {
        self.checked += 1;
        let booted = verdict.system().map_or_else(|| "nothing".to_owned(), |system| system.to_string());
        *self.booted.entry(booted).or_default() += 1;
        if verdict.explained {
            self.explained += 1;
            if self.explained == 1 {
                self.first_explained = format!(" (the first: {id}, {made})");
            }
        }
        self.with_broken_names += u64::from(verdict.broken_names > 0);
        self.lost = self.lost.max(verdict.lost);
        self.with_cut_renames += u64::from(verdict.cut_renames > 0);
        let names: HashSet<Name> = verdict.failures.iter().map(|failure| failure.name).collect();
        for name in names {
            *self.failures.entry(name).or_default() += 1;
        }
        for failure in &verdict.failures {
            self.examples.entry(failure.name).or_insert_with(|| format!("{id}, {made}: {}", failure.text));
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.processor.as_secs_f64();
        writeln!(
            f,
            "{} requests, {} flushes; {} states enumerated, {} distinct, {} checked; {} of {} intervals whole; {:.1} s, {seconds:.1} s of a processor ({:.0} states a second)",
            self.requests,
            self.flushes,
            self.enumerated,
            self.distinct,
            self.checked,
            self.whole_intervals,
            self.intervals,
            self.time.as_secs_f64(),
            self.checked as f64 / seconds.max(0.001),
        )?;
        let booted: Vec<String> = self.booted.iter().map(|(system, states)| format!("{system} {states}")).collect();
        writeln!(f, "boots: {}", booted.join(", "))?;
        writeln!(
            f,
            "explained differences {}{}, with broken names {}, with cut renames {}; at most {} clusters lost{}",
            self.explained,
            self.first_explained,
            self.with_broken_names,
            self.with_cut_renames,
            self.lost,
            self.lost_bound.map_or_else(String::new, |bound| format!(" of {bound}"))
        )?;
        for (name, states) in &self.failures {
            let example = self.examples.get(name).map_or("", String::as_str);
            writeln!(f, "FAILED {name} in {states} states; the first: {example}")?;
        }
        Ok(())
    }
}
