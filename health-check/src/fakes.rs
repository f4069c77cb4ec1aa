//! Fakes of every seam. They write what is asked of them into one log, because the order is what the tests compare.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use updater::evidence::{Evidence, PreviousEnd};

use crate::clock::Clock;
use crate::guard::{Count, Failure, Guard, Watch};
use crate::machine::{Bad, Booted, Entry, Fault, Machine, NoOther, OpenError, Session};
use crate::reboot::Reboot;
use crate::records::{FileRecords, Kept, Medium, RecordError, Records, Traces};
use crate::surroundings::Surroundings;
use crate::systemd::{Systemd, SystemdError, UnitShow};

/// What happened, in order.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Mutex<Vec<String>>>, Arc<Mutex<Vec<String>>>);

impl Log {
    pub fn add(&self, event: impl Into<String>) {
        self.0.lock().unwrap().push(event.into());
    }

    pub fn events(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// How long something may take, in a list of its own.
    fn limit(&self, what: &str, within: Duration) {
        self.1.lock().unwrap().push(format!("{what} {} ms", within.as_millis()));
    }

    pub fn limits(&self) -> Vec<String> {
        self.1.lock().unwrap().clone()
    }
}

/// A clock that jumps when somebody sleeps.
#[derive(Debug, Default)]
pub struct FakeClock {
    now: Mutex<Duration>,
    log: Log,
}

impl FakeClock {
    pub fn at(now: Duration) -> Self {
        Self { now: Mutex::new(now), log: Log::default() }
    }

    pub fn logging(log: &Log) -> Self {
        Self { now: Mutex::default(), log: log.clone() }
    }

    /// Lets time pass, unlogged.
    pub fn advance(&self, by: Duration) {
        *self.now.lock().unwrap() += by;
    }
}

impl Clock for FakeClock {
    fn monotonic(&self) -> Duration {
        *self.now.lock().unwrap()
    }

    fn unix(&self) -> u64 {
        1_700_000_000
    }

    fn sleep(&self, how_long: Duration) {
        *self.now.lock().unwrap() += how_long;
        self.log.add(format!("sleep {} ms", how_long.as_millis()));
    }
}

/// A systemd that tells a unit's story; the last part of it is repeated for ever. `None`: systemd does not answer.
#[derive(Debug)]
pub struct FakeSystemd {
    story: Mutex<VecDeque<Option<UnitShow>>>,
    log: Log,
}

impl FakeSystemd {
    pub fn telling(story: impl IntoIterator<Item = Option<UnitShow>>) -> Self {
        Self { story: Mutex::new(story.into_iter().collect()), log: Log::default() }
    }

    pub fn logging(self, log: &Log) -> Self {
        Self { log: log.clone(), ..self }
    }
}

impl Systemd for FakeSystemd {
    fn show(&self, unit: &str, _within: Duration) -> Result<UnitShow, SystemdError> {
        self.log.add(format!("ask for {unit}"));
        let mut story = self.story.lock().unwrap();
        let part = if story.len() > 1 { story.pop_front().unwrap() } else { story[0].clone() };
        part.ok_or_else(|| SystemdError::Failed { how: "exited with code 1".into(), output: "no bus".into() })
    }
}

pub fn entry() -> Entry {
    Entry { slot: "b".into(), generation: 7, system: "5e".repeat(32), version: "1.2.0".into() }
}

pub fn trial() -> Booted {
    Booted::Trial { entry: entry(), attempt: 1 }
}

/// A machine whose state is `booted`, with things that can be made to go wrong.
#[derive(Debug)]
pub struct FakeMachine {
    pub log: Log,
    /// What each session finds; the last one is found for ever.
    pub booted: Vec<Booted>,
    /// The first sessions fail so.
    pub refusals: Mutex<VecDeque<Refusal>>,
    /// The first commits fail.
    pub failing_commits: usize,
    /// A commit is half done, and is ended by this many attempts; 0: it is not.
    pub halves: Mutex<usize>,
    /// Would something better boot?
    pub another: bool,
    /// So often that cannot be asked.
    pub not_asked: Mutex<usize>,
    /// The entry cannot be marked bad.
    pub mark_bad_fails: bool,
    /// The history takes no events.
    pub history_fails: bool,
    /// The ESP does not unmount.
    pub close_fails: bool,
    /// An event that the guard left over.
    pub guard_event: Option<String>,
    sessions: Mutex<usize>,
    commits: Mutex<usize>,
}

/// How a session is refused.
#[derive(Debug, Clone, Copy)]
pub enum Refusal {
    Busy,
    Broken,
    /// Not refused: to let the first sessions pass.
    Not,
}

impl FakeMachine {
    pub fn new(log: &Log, booted: Booted) -> Self {
        Self {
            log: log.clone(),
            booted: vec![booted],
            refusals: Mutex::default(),
            failing_commits: 0,
            halves: Mutex::default(),
            another: true,
            not_asked: Mutex::default(),
            mark_bad_fails: false,
            history_fails: false,
            close_fails: false,
            guard_event: None,
            sessions: Mutex::default(),
            commits: Mutex::default(),
        }
    }

    pub fn refusing(self, refusals: impl IntoIterator<Item = Refusal>) -> Self {
        Self { refusals: Mutex::new(refusals.into_iter().collect()), ..self }
    }
}

impl Machine for FakeMachine {
    fn session(&self, work: &mut dyn FnMut(&mut dyn Session)) -> Result<Option<Fault>, OpenError> {
        match self.refusals.lock().unwrap().pop_front() {
            Some(Refusal::Busy) => {
                self.log.add("busy");
                return Err(OpenError::Busy("held by process 99".into()));
            }
            Some(Refusal::Broken) => {
                self.log.add("broken");
                return Err(OpenError::Other("input/output error".into()));
            }
            Some(Refusal::Not) | None => {}
        }
        let mut sessions = self.sessions.lock().unwrap();
        let booted = self.booted[(*sessions).min(self.booted.len() - 1)].clone();
        *sessions += 1;
        self.log.add("open");
        work(&mut FakeSession { machine: self, booted, unrecorded: None });
        self.log.add("close");
        Ok(self.close_fails.then(|| "target is busy".into()))
    }

    fn glance(&self) -> Result<Booted, OpenError> {
        self.log.add("glance");
        Ok(self.booted[0].clone())
    }
}

struct FakeSession<'a> {
    machine: &'a FakeMachine,
    booted: Booted,
    /// What is to be recorded of a commit: its event, or of one that was ended only the floor, for the entry had its name.
    unrecorded: Option<Unrecorded>,
}

enum Unrecorded {
    Committed,
    Finished,
}

impl Session for FakeSession<'_> {
    fn booted(&self) -> Booted {
        self.booted.clone()
    }

    fn cut_mark(&self) -> Option<String> {
        None
    }

    fn commit_entry(&mut self) -> Result<Vec<String>, Fault> {
        let mut commits = self.machine.commits.lock().unwrap();
        *commits += 1;
        if *commits <= self.machine.failing_commits {
            self.machine.log.add("commit fails");
            return Err("read-only file system".into());
        }
        self.machine.log.add("commit");
        self.unrecorded = Some(Unrecorded::Committed);
        Ok(Vec::new())
    }

    fn record_commit(&mut self, detail: &str, within: Duration) -> Vec<String> {
        let Some(unrecorded) = self.unrecorded.take() else { return Vec::new() };
        self.machine.log.limit("history", within);
        self.machine.log.add(match unrecorded {
            Unrecorded::Committed => format!("history: committed: {detail}"),
            Unrecorded::Finished => "raise the floor".to_owned(),
        });
        Vec::new()
    }

    fn finish_commit(&mut self) -> Result<Vec<String>, Fault> {
        let mut halves = self.machine.halves.lock().unwrap();
        if *halves == 0 {
            return Ok(Vec::new());
        }
        *halves -= 1;
        self.machine.log.add("finish the commit");
        if *halves > 0 {
            return Err("still read-only".into());
        }
        self.unrecorded = Some(Unrecorded::Finished);
        Ok(Vec::new())
    }

    fn another(&mut self) -> Result<String, NoOther> {
        let mut not_asked = self.machine.not_asked.lock().unwrap();
        if *not_asked > 0 {
            *not_asked -= 1;
            self.machine.log.add("the model cannot be asked");
            return Err(NoOther::NotKnown("input/output error".into()));
        }
        self.machine.log.add("ask the model");
        if self.machine.another {
            Ok("generation 6 in slot a".into())
        } else {
            Err(NoOther::None("slot a is fenced".into()))
        }
    }

    fn mark_bad(&mut self, why: Bad) -> Result<Vec<String>, Fault> {
        if self.machine.mark_bad_fails {
            self.machine.log.add("mark bad fails");
            return Err("read-only file system".into());
        }
        self.machine.log.add(format!("mark bad: {}", why.word()));
        Ok(Vec::new())
    }

    fn take_over_guard_event(&mut self) -> Result<Vec<String>, Fault> {
        let Some(event) = &self.machine.guard_event else { return Ok(Vec::new()) };
        self.machine.log.add(format!("history: the guard's {event}"));
        Ok(vec![format!("the guard's {event}")])
    }

    fn note_unrecorded(&mut self, own: Option<&str>) -> Vec<String> {
        self.machine.log.add("note fallbacks");
        if let Some(detail) = own {
            self.machine.log.add(format!("history, if it is not there: committed: {detail}"));
        }
        Vec::new()
    }

    fn record_trial_failed(&mut self, detail: &str, within: Duration) -> Result<(), Fault> {
        self.machine.log.limit("history", within);
        if self.machine.history_fails {
            self.machine.log.add("history fails");
            return Err("no space left on device".into());
        }
        self.machine.log.add(format!("history: trial-failed: {detail}"));
        Ok(())
    }
}

/// Records that are only logged.
#[derive(Debug)]
pub struct FakeRecords {
    pub log: Log,
    pub evidence_fails: bool,
    pub mark_fails: bool,
    pub medium: Medium,
    pub kept: Mutex<Vec<Evidence>>,
}

impl FakeRecords {
    pub fn new(log: &Log) -> Self {
        Self {
            log: log.clone(),
            evidence_fails: false,
            mark_fails: false,
            medium: Medium::Lasting,
            kept: Mutex::default(),
        }
    }

    /// A real error, from a folder that cannot be made.
    fn error() -> RecordError {
        FileRecords::below("/dev/null".as_ref()).mark_committed(&entry()).unwrap_err()
    }
}

impl Records for FakeRecords {
    fn boot_id(&self) -> String {
        "boot".into()
    }

    fn traces(&self, within: Duration) -> Traces {
        self.log.limit("traces", within);
        let previous_end = Some(PreviousEnd { source: "pstore".into(), text: "Kernel panic".into() });
        Traces { kernel_log: "[    1.000000] hello\n".into(), previous_end }
    }

    fn keep(&self, evidence: &Evidence, within: Duration) -> Result<Kept, RecordError> {
        self.log.limit("evidence", within);
        if self.evidence_fails {
            self.log.add("evidence fails");
            return Err(Self::error());
        }
        self.log.add("evidence");
        self.kept.lock().unwrap().push(evidence.clone());
        Ok(Kept { path: PathBuf::from("/evidence.json"), medium: self.medium })
    }

    fn mark_committed(&self, _entry: &Entry) -> Result<(), RecordError> {
        if self.mark_fails {
            self.log.add("mark fails");
            return Err(Self::error());
        }
        self.log.add("tell ralphd");
        Ok(())
    }
}

/// A machine that can refuse to reboot, in the ways that are named as they are logged.
#[derive(Debug)]
pub struct FakeReboot {
    pub log: Log,
    pub failing: Vec<&'static str>,
}

impl FakeReboot {
    fn ask(&self, event: String) -> Result<(), Fault> {
        let fails = self.failing.contains(&event.as_str());
        self.log.add(event);
        if fails { Err("refused".into()) } else { Ok(()) }
    }
}

impl Reboot for FakeReboot {
    fn forced_after(&self, time: Duration) -> Result<(), Fault> {
        self.ask(format!("force in {} s", time.as_secs()))
    }

    fn orderly(&self) -> Result<(), Fault> {
        self.ask("reboot".to_owned())
    }

    fn forced(&self) -> Result<(), Fault> {
        self.ask("reboot --force".to_owned())
    }

    fn at_once(&self) -> Result<(), Fault> {
        self.ask("reboot(2)".to_owned())
    }
}

/// A guard that logs what it is told.
#[derive(Debug)]
pub struct FakeGuard {
    pub log: Log,
    /// Is this boot watched?
    pub watch: Watch,
    /// It does not answer, and its record cannot be written.
    pub fails: bool,
}

impl FakeGuard {
    /// One that waits for ten minutes.
    pub fn new(log: &Log) -> Self {
        Self { log: log.clone(), watch: Watch::Armed { left: Duration::from_secs(600), another: true }, fails: false }
    }
}

impl Guard for FakeGuard {
    fn watch(&self) -> Watch {
        self.watch.clone()
    }

    fn disarm(&self) -> Vec<String> {
        self.log.add("disarm");
        if self.fails { vec!["the boot guard is still armed".to_owned()] } else { Vec::new() }
    }

    fn record(&self, count: Count, failure: Option<&Failure>, within: Duration) -> Result<(), Fault> {
        self.log.limit("guard", within);
        let count = (count == Count::Zero).then(|| "count 0".to_owned());
        let event =
            failure.map(|failure| format!("event {} try{}: {}", failure.entry.slot, failure.attempt, failure.text));
        let parts: Vec<String> = count.into_iter().chain(event).collect();
        self.log.add(format!("guard: {}", parts.join(", ")));
        if self.fails { Err("no such file".into()) } else { Ok(()) }
    }
}

/// A machine that was started as told. Nothing is logged: it only answers.
#[derive(Debug, Default)]
pub struct FakeSurroundings {
    pub not_firmware: Option<String>,
    pub bless_boot: Option<String>,
}

impl Surroundings for FakeSurroundings {
    fn not_firmware(&self) -> Result<Option<String>, Fault> {
        Ok(self.not_firmware.clone())
    }

    fn bless_boot(&self) -> Result<Option<String>, Fault> {
        Ok(self.bless_boot.clone())
    }

    fn failed_units(&self) -> Result<String, Fault> {
        Ok("var.mount loaded failed failed /var\n".to_owned())
    }
}
