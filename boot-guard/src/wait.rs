//! The process that `start` leaves behind on a trial (`GRD-20` to `GRD-22`): what it takes with it, and what it does at the
//! deadline. Once the root is switched it has neither `/dev` nor `/proc`, and what hangs then must not be asked for anything.

use std::fmt::Debug;
use std::fs::{self, File};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use boot_entries::guard::{GuardDevice, GuardError, GuardEvent, GuardRecord, GuardText, is_committed};
use boot_entries::running_options;
use disk_layout::{FileWindow, SysRoot};
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::time::{ClockId, clock_gettime};

use crate::client::SOCKET;
use crate::machine::{Console, RealMachine, restart};
use crate::resident::{Clock, Outcome, Watch, watch};
use crate::start::{DISK_WAIT_FAILED, told};
use crate::trial::Trial;

/// What the last acts before a restart may take together.
const LAST_ACTS: Duration = Duration::from_secs(10);
/// What the look for a commit may take before them.
const LAST_LOOK: Duration = Duration::from_secs(5);
/// A thread's stack is locked in memory.
const STACK: usize = 256 << 10;

/// `CLOCK_BOOTTIME`: it goes on while the machine sleeps.
#[derive(Debug)]
pub struct BootTime;

impl Clock for BootTime {
    fn now(&self) -> Duration {
        // The clock is part of every kernel we know; without one the deadline is far and not past.
        clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
    }
}

/// `ralph-boot-guard wait TRIAL`, started by [`crate::launch::start`] alone.
pub fn wait(text: &str) {
    let mut console = Console::open();
    // Fails when this process leads a session already, which is as good.
    let _ = nix::unistd::setsid();
    if let Err(error) = crate::cgroup::leave() {
        console.say(&format!("the deadline's process may end with the service that started it: {error}"));
    }
    if let Err(error) = fs::write("/proc/self/oom_score_adj", "-1000") {
        console.say(&format!("the deadline's process may be killed when memory runs out: {error}"));
    }
    if let Err(errno) = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE) {
        console.say(&format!("the deadline's process is not locked in memory: {}", errno.desc()));
    }
    let trial = match Trial::parse(text) {
        Ok(trial) => trial,
        Err(error) => return console.say(&told(&error)),
    };
    let listener = SocketAddr::from_abstract_name(SOCKET).and_then(|address| UnixListener::bind_addr(&address));
    let listener = match listener {
        Ok(listener) => listener,
        // Without a way to disarm it, it must not be armed.
        Err(error) => return console.say(&format!("the deadline is not armed: {error}")),
    };
    // In threads: a disk that hangs holds up neither the answers nor the deadline.
    let last_acts = LastActs::prepare(move || LastDisk::open(trial), nix::unistd::sync);
    let watched = Watch { deadline: trial.deadline(), another: trial.another, user: 0 };
    let mut ended = watch_or_wait(&mut console, &listener, &watched);
    let Trial { slot, generation, .. } = trial;
    let mut committed = false;
    if ended == Outcome::Deadline && trial.another {
        committed = last_acts.is_committed(LAST_LOOK);
        // The look took its time, and somebody may have come.
        ended = watch_or_wait(&mut console, &listener, &watched);
    }
    match ended {
        // Closed here, because a thread that hangs on a disk would keep the process, and with it the socket.
        Outcome::Disarmed => drop(listener),
        Outcome::Deadline if !trial.another => {
            console.say(&format!(
                "slot {slot}, generation {generation}: no verdict, and a restart would boot nothing else"
            ));
        }
        Outcome::Deadline if committed => {
            console.say(&format!("slot {slot}, generation {generation} is committed: the deadline does nothing"));
        }
        Outcome::Deadline => {
            console.say(&format!("slot {slot}, generation {generation}: no verdict by the deadline; restarting"));
            last_acts.run(LAST_ACTS);
            loop {
                restart(&mut console);
                thread::sleep(Duration::from_secs(5));
            }
        }
    }
}

fn watch_or_wait(console: &mut Console, listener: &UnixListener, watched: &Watch) -> Outcome {
    watch(listener, watched, &BootTime).unwrap_or_else(|error| {
        console.say(&format!("the deadline can no longer be disarmed: {error}"));
        while BootTime.now() < watched.deadline {
            thread::sleep(Duration::from_secs(1));
        }
        Outcome::Deadline
    })
}

/// What the disk is needed for at the deadline.
trait Last: Debug {
    /// The trial was committed since. False when that cannot be seen.
    fn is_committed(&mut self) -> bool;
    /// Leaves the event.
    fn event(&mut self);
}

/// The disk, open since before the root was switched.
#[derive(Debug)]
struct LastDisk {
    trial: Trial,
    esp: FileWindow,
    guard: Option<GuardDevice>,
}

impl LastDisk {
    fn open(trial: Trial) -> Option<LastDisk> {
        let mut console = Console::open();
        let opened = find_disk();
        let (esp, guard) =
            opened.inspect_err(|text| console.say(&format!("the deadline will leave no record: {text}"))).ok()?;
        let guard =
            guard.inspect_err(|error| console.say(&format!("the deadline will leave no record: {}", told(error)))).ok();
        Some(LastDisk { trial, esp, guard })
    }
}

fn find_disk() -> Result<(FileWindow, Result<GuardDevice, GuardError>), String> {
    let booted = running_options(&SysRoot::real()).map_err(|error| told(&error))?;
    let disk = RealMachine::default().find(&booted, DISK_WAIT_FAILED).map_err(|error| told(&error))?;
    let esp = File::open(disk.esp_dev()).and_then(|file| FileWindow::new(file, 0, disk.layout.esp.len));
    let esp = esp.map_err(|error| format!("{}: {error}", disk.esp_dev().display()))?;
    Ok((esp, GuardDevice::open_partition(disk.esp_dev(), &disk.layout)))
}

impl Last for LastDisk {
    fn is_committed(&mut self) -> bool {
        is_committed(&mut self.esp, self.trial.slot, self.trial.generation).unwrap_or(false)
    }

    fn event(&mut self) {
        if let Some(guard) = &mut self.guard {
            // Nobody is left to tell.
            let _ = write_event(guard, &self.trial, "deadline");
        }
    }
}

/// Writes what ended a trial into the record, where the file lies now.
///
/// # Errors
/// [`GuardError`].
pub fn write_event(guard: &mut GuardDevice, trial: &Trial, text: &str) -> Result<(), GuardError> {
    guard.look_again()?;
    let text = GuardText::sanitised(text);
    let event = GuardEvent { slot: trial.slot, generation: trial.generation, attempt: Some(trial.attempt), text };
    match with_event(guard.read()?, event) {
        Some(record) => guard.write(&record),
        None => Ok(()),
    }
}

/// The record with an event; `None` if it holds one of the same attempt: what the health check wrote of a reboot that hangs says more.
fn with_event(record: GuardRecord, event: GuardEvent) -> Option<GuardRecord> {
    let of = |event: &GuardEvent| (event.slot, event.generation, event.attempt);
    if record.event.as_ref().is_some_and(|found| of(found) == of(&event)) {
        return None;
    }
    Some(record.with_event(event))
}

#[derive(Debug)]
enum Step {
    Look,
    Event,
}

/// Threads that wait for the end, made while there was memory for them. One that could not be made does nothing; the
/// restart comes all the same.
#[derive(Debug)]
struct LastActs {
    disk: Sender<Step>,
    committed: Receiver<bool>,
    sync: Sender<()>,
    done: Receiver<()>,
}

impl LastActs {
    /// Returns at once: `open` runs in the thread that uses what it gives.
    fn prepare<L: Last>(
        open: impl FnOnce() -> Option<L> + Send + 'static,
        sync: impl FnOnce() + Send + 'static,
    ) -> LastActs {
        let (disk, steps) = mpsc::channel();
        let (answers, committed) = mpsc::channel();
        let (sync_gate, synced) = mpsc::channel();
        let (finished, done) = mpsc::channel();
        let also_finished = finished.clone();
        let thread = || thread::Builder::new().stack_size(STACK);
        // Nobody hears of a send that fails: whoever asked does not wait any more.
        let _ = thread().spawn(move || {
            let mut last = open();
            for step in steps {
                match step {
                    Step::Look => drop(answers.send(last.as_mut().is_some_and(Last::is_committed))),
                    Step::Event => {
                        if let Some(last) = &mut last {
                            last.event();
                        }
                        let _ = finished.send(());
                    }
                }
            }
        });
        let _ = thread().spawn(move || {
            if synced.recv().is_ok() {
                sync();
                let _ = also_finished.send(());
            }
        });
        LastActs { disk, committed, sync: sync_gate, done }
    }

    /// Whether the trial is committed by now, as far as that can be seen within `bound`.
    fn is_committed(&self, bound: Duration) -> bool {
        self.disk.send(Step::Look).is_ok() && self.committed.recv_timeout(bound).unwrap_or(false)
    }

    /// Lets them go, and waits for them no longer than `bound`: a disk that hangs must not keep the machine from its restart.
    fn run(self, bound: Duration) {
        let began = Instant::now();
        let going = usize::from(self.disk.send(Step::Event).is_ok()) + usize::from(self.sync.send(()).is_ok());
        for _ in 0..going {
            if self.done.recv_timeout(bound.saturating_sub(began.elapsed())).is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Told(Sender<&'static str>, bool);

    impl Last for Told {
        fn is_committed(&mut self) -> bool {
            self.0.send("look").unwrap();
            self.1
        }

        fn event(&mut self) {
            self.0.send("event").unwrap();
        }
    }

    #[test]
    fn grd21_the_last_acts_are_done_and_a_hanging_one_is_not_waited_for() {
        let (sender, receiver) = mpsc::channel();
        let (hang, never) = mpsc::channel::<()>();
        let acts = LastActs::prepare(move || Some(Told(sender, false)), move || never.recv().unwrap_or(()));
        thread::sleep(Duration::from_millis(50));
        assert!(receiver.try_recv().is_err(), "nothing is done before the deadline");
        assert!(!acts.is_committed(Duration::from_secs(5)));
        let began = Instant::now();
        acts.run(Duration::from_millis(300));
        assert!(began.elapsed() < Duration::from_secs(2));
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), ["look", "event"]);
        drop(hang);
        // Dropped without a run, as after a verdict: nothing is done.
        let (sender, receiver) = mpsc::channel();
        let also = sender.clone();
        drop(LastActs::prepare(move || Some(Told(sender, true)), move || also.send("sync").unwrap()));
        assert!(receiver.recv_timeout(Duration::from_secs(5)).is_err());
    }

    #[test]
    fn grd20_a_disk_that_hangs_while_it_is_opened_holds_nothing_up() {
        let (hang, never) = mpsc::channel::<()>();
        let (sender, synced) = mpsc::channel();
        let open = move || never.recv().ok().and(None::<Told>);
        let began = Instant::now();
        let acts = LastActs::prepare(open, move || sender.send(()).unwrap());
        // It cannot be read, so it goes on as armed.
        assert!(!acts.is_committed(Duration::from_millis(100)));
        acts.run(Duration::from_millis(300));
        assert!(began.elapsed() < Duration::from_secs(2));
        synced.recv_timeout(Duration::from_secs(5)).unwrap();
        drop(hang);
    }

    #[test]
    fn grd21_a_committed_system_is_seen() {
        let (sender, receiver) = mpsc::channel();
        let acts = LastActs::prepare(move || Some(Told(sender, true)), || ());
        assert!(acts.is_committed(Duration::from_secs(5)));
        drop(acts);
        assert_eq!(receiver.iter().collect::<Vec<_>>(), ["look"]);
    }
}
