//! The order of effects of `run`, as whole lists of events.

mod commit;
mod failure;
mod first_look;
mod guard;
mod soak;

use super::*;
use crate::config::{Action, Level, Policy};
use crate::fakes::{
    FakeClock, FakeGuard, FakeMachine, FakeReboot, FakeRecords, FakeSurroundings, FakeSystemd, Log, Refusal, entry,
    trial,
};
use crate::policy::Verdict;
use crate::reboot;
use crate::records::Medium;
use crate::span::Span;
use crate::systemd::UnitShow;

fn outcome(name: &str, level: Level, passed: bool) -> Outcome {
    Outcome {
        name: name.into(),
        level,
        passed,
        milliseconds: 1,
        tries: 1,
        reason: (!passed).then_some(Reason::Deadline),
        detail: "too late".into(),
        output: String::new(),
        recorded: None,
        seen: None,
    }
}

/// Everything around a run, to be made to go wrong before it begins. All events go into the log.
struct Scene {
    log: Log,
    machine: FakeMachine,
    records: FakeRecords,
    guard: FakeGuard,
    surroundings: FakeSurroundings,
    systemd: FakeSystemd,
    policy: Policy,
    /// How long each round of checks takes; the last of them again and again.
    rounds: Vec<Duration>,
}

impl Scene {
    fn new(booted: Booted) -> Self {
        let log = Log::default();
        Self {
            machine: FakeMachine::new(&log, booted),
            records: FakeRecords::new(&log),
            guard: FakeGuard::new(&log),
            surroundings: FakeSurroundings::default(),
            systemd: FakeSystemd::telling([None]).logging(&log),
            policy: Policy::default(),
            rounds: vec![Duration::ZERO],
            log,
        }
    }

    fn refusing(self, refusals: impl IntoIterator<Item = Refusal>) -> Self {
        Self { machine: self.machine.refusing(refusals), ..self }
    }

    fn telling(self, story: impl IntoIterator<Item = Option<UnitShow>>) -> Self {
        let systemd = FakeSystemd::telling(story).logging(&self.log);
        Self { systemd, ..self }
    }

    /// A run whose rounds of checks end so, the last one again and again, and the reboot it asks for.
    fn run_rounds(&self, rounds: Vec<Vec<Outcome>>) -> (Ran, Vec<String>) {
        let clock = FakeClock::logging(&self.log);
        let world = World {
            clock: &clock,
            records: &self.records,
            systemd: &self.systemd,
            guard: &self.guard,
            surroundings: &self.surroundings,
            policy: self.policy,
        };
        let mut left = rounds.into_iter();
        let (mut last, mut round) = (Vec::new(), 0);
        let ran = run(&self.machine, world, &mut |budget| {
            self.log.add(match budget == self.policy.overall_deadline.duration() {
                true => "checks".to_owned(),
                false => format!("checks within {} s", budget.as_secs()),
            });
            clock.advance(self.rounds[round.min(self.rounds.len() - 1)]);
            round += 1;
            last = left.next().unwrap_or_else(|| last.clone());
            last.clone()
        });
        if ran.settled.verdict.reboots() {
            let fake = FakeReboot { log: self.log.clone(), failing: Vec::new() };
            assert!(reboot::begin(&fake, &mut |_| {}));
        }
        (ran, self.log.events())
    }

    fn run(&self, outcomes: Vec<Outcome>) -> (Ran, Vec<String>) {
        self.run_rounds(vec![outcomes])
    }
}

/// What a reboot looks like, after the session.
const REBOOT: [&str; 2] = ["force in 180 s", "reboot"];
/// Up to the second session.
const BEFORE: [&str; 4] = ["open", "close", "checks", "open"];
/// A commit that goes well.
const COMMITTED: [&str; 7] =
    ["commit", "tell ralphd", "disarm", "guard: count 0", "history: committed: ", "evidence", "close"];
/// A failure that is recorded, `ralphd: too late`.
const RECORDED: [&str; 4] =
    ["guard: event b try1: check: ralphd", "evidence", "history: trial-failed: ralphd: too late", "close"];

/// One list of several.
fn events(parts: &[&[&str]]) -> Vec<String> {
    parts.concat().into_iter().map(str::to_owned).collect()
}

fn passing() -> Vec<Outcome> {
    // A wanted check that fails changes nothing (HLT-33).
    vec![outcome("ralphd", Level::Required, true), outcome("extra", Level::Wanted, false)]
}

fn failing() -> Vec<Outcome> {
    vec![outcome("ralphd", Level::Required, false), outcome("extra", Level::Wanted, true)]
}

fn flow(booted: Booted, outcomes: Vec<Outcome>, prepare: impl FnOnce(&mut FakeMachine)) -> (Ran, Vec<String>) {
    let mut scene = Scene::new(booted);
    prepare(&mut scene.machine);
    scene.run(outcomes)
}

/// A trial that was booted with DONE 0.
fn not_counted() -> Booted {
    Booted::Trial { entry: entry(), attempt: 0 }
}
