//! One flow: every state that is taken, each checked once (`CUT-14` to `CUT-16`).

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::io;
use std::ops::{ControlFlow, Range};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::check::{CheckError, Checker, Failure, Name, Verdict};
use crate::disk::{Disk, Layer, State};
use crate::enumerate::{How, Source};
use crate::flow::Flow;
use crate::interval::{Interval, count, intervals, share};
use crate::log::Log;
use crate::places::{Kind, Places};
use crate::store::ReadAt;
use crate::view::View;

/// What a run may cost.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// What states are chosen with where not all are taken.
    pub seed: u64,
    /// States in all.
    pub max_states: u64,
    /// Of a larger interval, all combinations of metadata sectors are taken where they are at most so many.
    pub few: u64,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { seed: 1, max_states: 20_000, few: 1024 }
    }
}

/// A distinct state, and what was found in it.
#[derive(Debug)]
pub struct Found<'a> {
    /// Its name: flow, interval, number.
    pub id: String,
    /// Its interval.
    pub interval: &'a Interval,
    /// What was durable at the interval's beginning.
    pub start: &'a Rc<Layer>,
    /// What is durable at its end.
    pub end: &'a Rc<Layer>,
    /// How it was made.
    pub how: How,
    /// The state.
    pub state: State,
    /// What was found.
    pub verdict: &'a Verdict,
}

impl Found<'_> {
    /// How it was made, in a sentence.
    pub fn made(&self) -> String {
        let requests = &self.interval.requests;
        let last = requests.end.saturating_sub(1);
        format!("interval {} (requests {} to {last}): {}", self.interval.number, requests.start, self.how)
    }
}

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
    /// How many were taken.
    pub taken: u64,
}

impl fmt::Display for IntervalLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sectors: Vec<String> = self.sectors.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        let states = if self.states == u64::MAX { "countless".to_owned() } else { self.states.to_string() };
        let last = self.requests.end.saturating_sub(1);
        let (number, first) = (self.number, self.requests.start);
        write!(
            f,
            "interval {number}, requests {first} to {last}: {}; {} of {states} states",
            sectors.join(", "),
            self.taken
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
    /// States taken.
    pub enumerated: u64,
    /// Different ones, each checked.
    pub distinct: u64,
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
    /// How the first of those was made.
    pub first_explained: String,
    /// What each interval has and how much of it was taken.
    pub lines: Vec<IntervalLine>,
    /// Time for all.
    pub time: Duration,
    /// Processor time for all.
    pub processor: Duration,
}

impl Report {
    /// No state failed.
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }

    /// True when a state failed by this name.
    pub fn found(&self, name: Name) -> bool {
        self.failures.contains_key(&name)
    }

    fn add(&mut self, id: &str, made: &str, verdict: &Verdict) {
        self.distinct += 1;
        let booted = verdict.system().map_or_else(|| "nothing".to_owned(), |system| system.to_string());
        *self.booted.entry(booted).or_default() += 1;
        if verdict.explained {
            self.explained += 1;
            if self.explained == 1 {
                self.first_explained = format!(" (the first: {id}, {made})");
            }
        }
        self.with_broken_names += u64::from(verdict.broken_names > 0);
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
            "{} requests, {} flushes; {} states enumerated, {} distinct and checked; {} of {} intervals whole; {:.1} s, {seconds:.1} s of a processor ({:.0} states a second)",
            self.requests,
            self.flushes,
            self.enumerated,
            self.distinct,
            self.whole_intervals,
            self.intervals,
            self.time.as_secs_f64(),
            self.distinct as f64 / seconds.max(0.001),
        )?;
        let booted: Vec<String> = self.booted.iter().map(|(system, states)| format!("{system} {states}")).collect();
        writeln!(f, "boots: {}", booted.join(", "))?;
        writeln!(
            f,
            "explained differences {}{}, with broken names {}, with cut renames {}",
            self.explained, self.first_explained, self.with_broken_names, self.with_cut_renames
        )?;
        for (name, states) in &self.failures {
            let example = self.examples.get(name).map_or("", String::as_str);
            writeln!(f, "FAILED {name} in {states} states; the first: {example}")?;
        }
        Ok(())
    }
}

/// Sees every distinct state.
pub type Observe<'o, B, L> = dyn FnMut(&Disk<B, L>, &Found<'_>, &Places) -> io::Result<()> + 'o;

/// Takes the states of a flow and checks each; `observe` sees every distinct one.
///
/// # Errors
/// When base or log cannot be read, or the base is no disk of ours.
pub fn run<B: ReadAt, L: ReadAt>(
    disk: &mut Disk<B, L>,
    log: &Log<impl ReadAt>,
    flow: &Flow,
    bounds: Bounds,
    observe: &mut Observe<'_, B, L>,
) -> Result<Report, CheckError> {
    let (begun, processor) = (Instant::now(), processor_time());
    let intervals = intervals(disk, log)?;
    let disk = &*disk;
    let mut report = Report {
        requests: log.requests().len(),
        flushes: log.requests().iter().filter(|request| request.flush).count(),
        intervals: intervals.len(),
        ..Report::default()
    };
    let shares = shares(disk, &intervals, bounds.max_states);
    let mut checker = Checker::new(disk, flow)?;
    let base = State::of(Layer::default().into());
    let mut places = Places::new(checker.layout(), checker.esp(&base))?;
    let mut seen = HashSet::new();

    let mut verdict = checker.check(&base)?;
    if !verdict.system().is_some_and(|system| flow.before.contains(&system)) {
        verdict.failures.push(Failure { name: Name::Base, text: "the base boots no system of before".to_owned() });
    }
    report.add(&format!("{}-base", flow.name), "the base", &verdict);
    seen.insert(base.fingerprint());
    report.enumerated += 1;

    let mut start: Rc<Layer> = Rc::new(Layer::default());
    let mut committed = false;
    for (interval, share) in intervals.iter().zip(shares) {
        let end = interval.end(disk, &start);
        let esp = checker.layout().esp.start..checker.layout().esp.end();
        for layer in [&start, &end] {
            places.learn(View::new(disk, &State::of(Rc::clone(layer)), esp.clone()));
        }
        let durable = checker.check(&State::of(Rc::clone(&start)))?;
        let (before, after) = durable.system().map_or((false, false), |system| checker.allowed(system));
        if after && !before && !committed {
            committed = true;
            checker.commit();
            // What was good before may not come back.
            seen.clear();
        }
        let choices = interval.choices(&start);
        let source = Source { disk, interval, start: &start, choices: &choices, places: &places };
        let whole = count(&choices) <= share;
        report.whole_intervals += usize::from(whole);
        let mut line = IntervalLine {
            number: interval.number,
            requests: interval.requests.clone(),
            sectors: BTreeMap::new(),
            states: count(&choices),
            taken: 0,
        };
        for choice in &choices {
            *line.sectors.entry(places.kind(choice.sector)).or_default() += 1;
        }
        let mut failed = None;
        let mut left = share;
        let mut number = 0;
        let mut take = |state: State, how: How| {
            if left == 0 {
                return ControlFlow::Break(());
            }
            left -= 1;
            line.taken += 1;
            report.enumerated += 1;
            if !seen.insert(state.fingerprint()) {
                return ControlFlow::Continue(());
            }
            let id = format!("{}-i{:03}-s{number:05}", flow.name, interval.number);
            number += 1;
            let verdict = match checker.check(&state) {
                Ok(verdict) => verdict,
                Err(error) => {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
            };
            let found = Found { id, interval, start: &start, end: &end, how, state, verdict: &verdict };
            report.add(&found.id, &found.made(), &verdict);
            match observe(disk, &found, &places) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        };
        let _ = if whole { source.all(&mut take) } else { source.chosen(bounds.seed, bounds.few, &mut take) };
        if let Some(error) = failed {
            return Err(error.into());
        }
        report.lines.push(line);
        start = end;
    }
    let last = checker.check(&State::of(start))?;
    if !last.system().is_some_and(|system| flow.after.contains(&system)) {
        let made = "the whole log";
        let text = "the end boots no system of after".to_owned();
        let verdict = Verdict { failures: vec![Failure { name: Name::End, text }], ..last };
        report.add(&format!("{}-end", flow.name), made, &verdict);
    }
    report.time = begun.elapsed();
    report.processor = processor_time().saturating_sub(processor);
    Ok(report)
}

/// What this process has used of processors: on a busy machine the clock tells little.
fn processor_time() -> Duration {
    let Ok(used) = getrusage(UsageWho::RUSAGE_SELF) else { return Duration::ZERO };
    let micros = |time: TimeVal| u64::try_from(time.num_microseconds()).unwrap_or(0);
    Duration::from_micros(micros(used.user_time()) + micros(used.system_time()))
}

fn shares<B: ReadAt, L: ReadAt>(disk: &Disk<B, L>, intervals: &[Interval], max_states: u64) -> Vec<u64> {
    let mut layer = Layer::default();
    let mut counts = Vec::with_capacity(intervals.len());
    for interval in intervals {
        counts.push(count(&interval.choices(&layer)));
        for write in &interval.writes {
            layer.put(disk, write.sector, write.content);
        }
    }
    share(&counts, max_states)
}
