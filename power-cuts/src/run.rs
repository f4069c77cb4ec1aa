//! One flow: every state that is taken, each checked once (`CUT-14` to `CUT-16`).

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::check::{CheckError, Checker, Failure, Name, Verdict};
use crate::disk::{Disk, Fingerprint, Layer, State};
use crate::enumerate::{How, Source};
use crate::flow::Flow;
use crate::interval::{Interval, count, intervals, share};
use crate::kept::Judged;
use crate::log::Log;
use crate::places::Places;
use crate::report::{IntervalLine, Report};
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
    /// Its interval; None for the base, and for what the flow leaves.
    pub interval: Option<&'a Interval>,
    /// As what it was judged.
    pub judged: Judged,
    /// The new system was durable already.
    pub committed: bool,
    /// How many clusters it may have lost.
    pub lost_bound: Option<u64>,
    /// What was durable at the interval's beginning.
    pub start: &'a Rc<Layer>,
    /// What is durable at its end.
    pub end: &'a Rc<Layer>,
    /// How it was made, in a sentence.
    pub made: String,
    /// The state.
    pub state: State,
    /// What was found.
    pub verdict: &'a Verdict,
}

fn made(interval: &Interval, how: &How) -> String {
    let requests = &interval.requests;
    let last = requests.end.saturating_sub(1);
    format!("interval {} (requests {} to {last}): {how}", interval.number, requests.start)
}

/// Sees every state that is checked.
pub type Observe<'o, B, L> = dyn FnMut(&Disk<B, L>, &Found<'_>, &Places) -> io::Result<()> + 'o;

/// So many states are made for each one of the share before an interval is given up: the rest is known already.
const DRAWS: u64 = 20;

/// Takes the states of a flow and checks each; `observe` sees every one that is checked.
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
    let base = State::of(Layer::default().into());
    let mut checker = Checker::new(disk, flow)?;
    checker.foresee(&base, &intervals)?;
    let places = Places::new(checker.layout(), checker.esp(&base))?;
    let report = Report {
        requests: log.requests().len(),
        flushes: log.requests().iter().filter(|request| request.flush).count(),
        intervals: intervals.len(),
        lost_bound: checker.lost_bound(),
        ..Report::default()
    };
    let mut run = Run { disk, flow, bounds, checker, places, report, known: HashSet::new(), fresh: HashSet::new() };
    run.base(&Rc::default(), observe)?;
    let layers = layers(disk, &intervals);
    let counts = run.counts(&intervals, &layers);
    let mut committed = false;
    for (number, interval) in intervals.iter().enumerate() {
        let (start, end) = (&layers[number], &layers[number + 1]);
        let durable = run.checker.check(&State::of(Rc::clone(start)))?;
        let (before, after) = durable.system().map_or((false, false), |system| run.checker.allowed(system));
        if after && !before && !committed {
            committed = true;
            run.checker.commit();
            // What was good before may not come back.
            run.fresh.clear();
        }
        // What earlier intervals did not use is there for this one and those behind it.
        let left = bounds.max_states.saturating_sub(run.report.distinct);
        let share = share(&counts[number..], left)[0];
        run.interval(interval, start, end, share, observe)?;
    }
    let start = &layers[intervals.len().saturating_sub(1)];
    let durable = intervals.last().map_or_else(|| Rc::clone(start), |last| last.durable(disk, start));
    run.end(durable, &layers[intervals.len()], observe)?;
    let mut report = run.report;
    report.time = begun.elapsed();
    report.processor = processor_time().saturating_sub(processor);
    Ok(report)
}

/// What is known while a flow's states are taken.
struct Run<'a, B, L> {
    disk: &'a Disk<B, L>,
    flow: &'a Flow,
    bounds: Bounds,
    checker: Checker<'a, B, L>,
    places: Places,
    report: Report,
    /// Every state so far (`CUT-15`).
    known: HashSet<Fingerprint>,
    /// Those that need no other check: all, or since the new system was durable.
    fresh: HashSet<Fingerprint>,
}

impl<B: ReadAt, L: ReadAt> Run<'_, B, L> {
    fn base(&mut self, base: &Rc<Layer>, observe: &mut Observe<'_, B, L>) -> io::Result<()> {
        self.known.insert(base.fingerprint());
        self.fresh.insert(base.fingerprint());
        self.report.enumerated += 1;
        self.report.distinct += 1;
        let verdict = self.checker.check_base(&State::of(Rc::clone(base)))?;
        self.see("base", "the base", Judged::Base, base, &verdict, observe)
    }

    /// Reports a state that is no interval's.
    fn see(
        &mut self,
        id: &str,
        made: &str,
        judged: Judged,
        layer: &Rc<Layer>,
        verdict: &Verdict,
        observe: &mut Observe<'_, B, L>,
    ) -> io::Result<()> {
        let found = Found {
            id: format!("{}-{id}", self.flow.name),
            interval: None,
            judged,
            committed: self.checker.is_committed(),
            lost_bound: self.checker.lost_bound(),
            start: layer,
            end: layer,
            made: made.to_owned(),
            state: State::of(Rc::clone(layer)),
            verdict,
        };
        self.report.add(&found.id, &found.made, verdict);
        observe(self.disk, &found, &self.places)
    }

    /// How many states each interval has, and whether it decides what boots. Learns where things lie at its ends.
    fn counts(&mut self, intervals: &[Interval], layers: &[Rc<Layer>]) -> Vec<(u64, bool)> {
        let esp = self.checker.layout().esp.start..self.checker.layout().esp.end();
        for layer in layers {
            self.places.learn(View::new(self.disk, &State::of(Rc::clone(layer)), esp.clone()));
        }
        let mut counts = Vec::with_capacity(intervals.len());
        for (interval, start) in intervals.iter().zip(layers) {
            let choices = interval.choices(start);
            let decides = choices.iter().any(|choice| self.places.kind(choice.sector).decides());
            counts.push((count(&choices), decides));
        }
        counts
    }

    fn interval(
        &mut self,
        interval: &Interval,
        start: &Rc<Layer>,
        end: &Rc<Layer>,
        share: u64,
        observe: &mut Observe<'_, B, L>,
    ) -> io::Result<()> {
        let Run { disk, flow, bounds, checker, places, report, known, fresh } = self;
        let choices = interval.choices(start);
        let source = Source { disk, interval, start, choices: &choices, places };
        let whole = count(&choices) <= share;
        report.whole_intervals += usize::from(whole);
        let mut line = IntervalLine {
            number: interval.number,
            requests: interval.requests.clone(),
            sectors: BTreeMap::new(),
            states: count(&choices),
            taken: 0,
            whole,
        };
        for choice in &choices {
            *line.sectors.entry(places.kind(choice.sector)).or_default() += 1;
        }
        let (mut failed, mut number) = (None, 0);
        let mut draws = share.saturating_mul(DRAWS);
        let mut take = |state: State, how: How| {
            if draws == 0 || line.taken == share {
                return ControlFlow::Break(());
            }
            draws -= 1;
            report.enumerated += 1;
            if known.insert(state.fingerprint()) {
                line.taken += 1;
                report.distinct += 1;
            }
            if !fresh.insert(state.fingerprint()) {
                return ControlFlow::Continue(());
            }
            let id = format!("{}-i{:03}-s{number:05}", flow.name, interval.number);
            number += 1;
            let check = || {
                let verdict = checker.check(&state)?;
                let (judged, committed, lost_bound) = (Judged::State, checker.is_committed(), checker.lost_bound());
                let (interval, made) = (Some(interval), made(interval, &how));
                let verdict = &verdict;
                let found = Found { id, interval, judged, committed, lost_bound, start, end, made, state, verdict };
                report.add(&found.id, &found.made, verdict);
                observe(disk, &found, places)
            };
            match check() {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        };
        let _ = if whole { source.all(&mut take) } else { source.chosen(bounds.seed, bounds.few, &mut take) };
        report.lines.push(line);
        failed.map_or(Ok(()), Err)
    }

    /// `end`: what the flow left durable, and what the disk holds if the rest arrives, too.
    fn end(&mut self, durable: Rc<Layer>, end: &Rc<Layer>, observe: &mut Observe<'_, B, L>) -> io::Result<()> {
        let unflushed = durable.fingerprint() != end.fingerprint();
        let whole = unflushed.then(|| ("end", "the whole log", Rc::clone(end)));
        for (id, made, layer) in [("durable", "what is durable at the end", durable)].into_iter().chain(whole) {
            let verdict = self.checker.check_end(&State::of(Rc::clone(&layer)))?;
            // The other failures are told already where this state was taken, which it was not by an interval without a share.
            let taken = self.fresh.contains(&layer.fingerprint());
            let told = |failure: &&Failure| failure.name == Name::End || !taken;
            let failures: Vec<Failure> = verdict.failures.iter().filter(told).cloned().collect();
            if !failures.is_empty() {
                self.see(id, made, Judged::End, &layer, &Verdict { failures, ..verdict }, observe)?;
            }
        }
        Ok(())
    }
}

/// What the disk holds before each interval, and after the last.
fn layers<B: ReadAt, L: ReadAt>(disk: &Disk<B, L>, intervals: &[Interval]) -> Vec<Rc<Layer>> {
    let mut layers = vec![Rc::new(Layer::default())];
    for interval in intervals {
        let end = interval.end(disk, &layers[layers.len() - 1]);
        layers.push(end);
    }
    layers
}

/// What this process has used of processors: on a busy machine the clock tells little.
fn processor_time() -> Duration {
    let Ok(used) = getrusage(UsageWho::RUSAGE_SELF) else { return Duration::ZERO };
    let micros = |time: TimeVal| u64::try_from(time.num_microseconds()).unwrap_or(0);
    Duration::from_micros(micros(used.user_time()) + micros(used.system_time()))
}
