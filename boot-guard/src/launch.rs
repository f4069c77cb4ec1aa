//! The program around the decisions: what bounds their time, what is left behind to watch the deadline.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use boot_entries::RUNNING_OPTIONS;
use boot_entries::guard::{GuardEvent, GuardRecord};
use boot_entries::signed::is_unified;
use disk_layout::SysRoot;

use crate::client::GuardClient;
use crate::machine::{COUNTED, Console, restart};
use crate::trial::{DROP_IN, TRIAL_FILE, Trial};

/// `GRD-14`: whatever hangs, the boot goes on after this.
const BOUND: Duration = Duration::from_secs(45);
/// `GRD-32`
const SLOWLY: Duration = Duration::from_secs(300);
/// A line that ends the text of a trial on the worker's standard output.
pub const END: &str = ".";

/// `ralph-boot-guard start`. The work is done by another process: a disk that hangs keeps a thread of it for ever, and a
/// process with such a thread cannot be waited for.
pub fn start() {
    let mut console = Console::open();
    if Path::new(COUNTED).exists() {
        console.say("this boot was counted already");
        return;
    }
    let (sender, receiver) = mpsc::channel();
    let worker = worker(&["work-start"], Stdio::piped()).and_then(|mut child| {
        let out = child.stdout.take().ok_or_else(|| io::Error::other("no pipe"))?;
        thread::Builder::new().spawn(move || trials(BufReader::new(out), &sender))?;
        Ok(child)
    });
    let mut worker = match worker {
        Ok(worker) => worker,
        Err(error) => return console.say(&format!("the boot is not counted: {error}")),
    };
    let (trial, complete) = last_of(&receiver, BOUND);
    if !complete {
        end(&mut worker);
        console.say("the disk gives no answer; the boot goes on");
    }
    if let Some(trial) = trial {
        arm(&mut console, &trial);
    }
}

/// `ralph-boot-guard failed REASON`. Returns when the machine stays as it is.
pub fn failed(reason: &str) {
    give_up(reason);
    // GRD-32: nothing is known of this boot, not even whether it is a trial. The loader counts one, and what keeps a committed system
    // from its root may pass.
    let sys = SysRoot::real();
    let unknown = sys.command_line().is_ok_and(|line| is_unified(&line)) && !sys.run().join(RUNNING_OPTIONS).exists();
    if unknown {
        let mut console = Console::open();
        console.say("the root of this boot is not known: restarting in five minutes");
        thread::sleep(SLOWLY);
        restart(&mut console);
    }
}

fn give_up(reason: &str) {
    let mut console = Console::open();
    let mut child = match worker(&["work-failed", reason], Stdio::null()) {
        Ok(child) => child,
        Err(error) => return console.say(&format!("nothing can be done: {error}")),
    };
    let began = Instant::now();
    while began.elapsed() < BOUND {
        match child.try_wait() {
            Ok(None) => thread::sleep(Duration::from_millis(50)),
            _ => return,
        }
    }
    end(&mut child);
    console.say("the disk gives no answer; the machine stays as it is");
}

/// Ends a worker that took too long, so that it does nothing to a boot that has gone on. It is not waited for: a process that
/// hangs on a disk ends when the disk answers, before it does anything else.
fn end(worker: &mut Child) {
    // Fails when it has ended by itself.
    let _ = worker.kill();
}

fn worker(args: &[&str], out: Stdio) -> io::Result<Child> {
    // `--` last: a reason may begin with a dash.
    let (command, rest) = args.split_first().ok_or_else(|| io::Error::other("no command"))?;
    Command::new("/proc/self/exe").arg(command).arg("--").args(rest).stdin(Stdio::null()).stdout(out).spawn()
}

/// Reads trials, each ended by [`END`], until the worker is done.
fn trials(out: impl BufRead, sender: &Sender<Trial>) {
    let mut text = String::new();
    for line in out.lines().map_while(Result::ok) {
        if line != END {
            text = format!("{text}{line}\n");
            continue;
        }
        if let Ok(trial) = Trial::parse(&text)
            && sender.send(trial).is_err()
        {
            return;
        }
        text.clear();
    }
}

/// What was sent last, and whether the sender came to its end within `bound`.
fn last_of(receiver: &Receiver<Trial>, bound: Duration) -> (Option<Trial>, bool) {
    let began = Instant::now();
    let mut last = None;
    loop {
        match receiver.recv_timeout(bound.saturating_sub(began.elapsed())) {
            Ok(trial) => last = Some(trial),
            Err(mpsc::RecvTimeoutError::Disconnected) => return (last, true),
            Err(mpsc::RecvTimeoutError::Timeout) => return (last, false),
        }
    }
}

/// `GRD-20`, `GRD-23`: tells the running system of the trial, and leaves a process behind.
fn arm(console: &mut Console, trial: &Trial) {
    let spawn = || {
        Command::new("/proc/self/exe")
            // systemd spares a process whose name begins so when it switches the root.
            .arg0("@ralph-boot-guard")
            .args(["wait", "--", &trial.to_string()])
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map(drop)
    };
    arm_with(console, trial, Path::new("/"), &GuardClient::new(), spawn);
}

/// [`arm`] with the files below `root`; `spawn` starts the process that `client` finds.
fn arm_with(
    console: &mut Console,
    trial: &Trial,
    root: &Path,
    client: &GuardClient,
    spawn: impl FnOnce() -> io::Result<()>,
) {
    let put = |console: &mut Console, path: &str, text: &str| {
        let path = root.join(path.trim_start_matches('/'));
        if let Err(error) = make_dirs(&path).and_then(|()| fs::write(&path, text)) {
            console.say(&format!("cannot write {}: {error}", path.display()));
        }
    };
    put(console, TRIAL_FILE, &trial.to_string());
    if let Err(error) = spawn() {
        console.say(&format!("the deadline is not armed: {error}"));
        return;
    }
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        if let Ok(Some(status)) = client.status(Duration::from_secs(1)) {
            // The second way is there only where the first one is: nobody else would know why systemd did it.
            if status.another {
                put(console, DROP_IN, &trial.drop_in());
            }
            let then = if status.another {
                "the machine restarts"
            } else {
                "nothing happens, for a restart would boot nothing else"
            };
            let (left, attempt) = (status.left.as_secs(), trial.attempt);
            console.say(&format!("try {attempt} of slot {}: without a verdict in {left} s {then}", trial.slot));
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    console.say("the deadline is not armed: its process does not answer");
}

fn make_dirs(file: &Path) -> io::Result<()> {
    file.parent().map_or(Ok(()), fs::create_dir_all)
}

/// The record's sector as text (`GRD-31`).
pub fn describe(sector: &[u8]) -> String {
    let record = match GuardRecord::decode(sector) {
        Ok(record) => record,
        Err(damage) => return format!("{damage}\n"),
    };
    let tries = |done: Option<u32>| done.map_or_else(|| "no counter".to_owned(), |done| format!("try {done}"));
    let boots = match record.entry {
        None => "no boot was counted yet\n".to_owned(),
        Some((slot, generation)) => {
            let (boots, tries) = (record.boots, tries(record.done));
            format!("boots without a verdict: {boots} (slot {slot}, generation {generation}, {tries})\n")
        }
    };
    let event = record.event.map_or_else(String::new, |event| {
        let GuardEvent { slot, generation, attempt, text } = event;
        format!("last event: {text} (slot {slot}, generation {generation}, {})\n", tries(attempt))
    });
    format!("{boots}{event}")
}

/// Prints, and lets it be when nobody reads.
pub fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};

    use boot_entries::Generation;
    use boot_entries::guard::GuardText;
    use disk_layout::Slot;

    use super::*;
    use crate::resident::{Clock, Outcome, Watch, watch};
    use crate::wait::BootTime;

    fn trial(another: bool) -> Trial {
        let generation = Generation::new(7).unwrap();
        Trial { slot: Slot::B, generation, attempt: 1, deadline_seconds: 600, another }
    }

    #[test]
    fn grd14_of_a_worker_that_hangs_the_last_word_counts() {
        let (sender, receiver) = mpsc::channel();
        let text = format!("{}{END}\nslot=b\n{END}\n{}{END}\n{}", trial(false), trial(true), trial(false));
        trials(text.as_bytes(), &sender);
        let began = Instant::now();
        assert_eq!(last_of(&receiver, Duration::from_millis(50)), (Some(trial(true)), false));
        assert!(began.elapsed() < Duration::from_secs(1));
        sender.send(trial(false)).unwrap();
        drop(sender);
        assert_eq!(last_of(&receiver, BOUND), (Some(trial(false)), true));
        assert_eq!(last_of(&receiver, BOUND), (None, true));
    }

    #[test]
    fn grd14_a_worker_that_takes_too_long_is_ended() {
        use std::os::unix::process::ExitStatusExt;
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        end(&mut child);
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        end(&mut child);
    }

    #[test]
    fn grd23_the_second_way_is_made_when_the_first_one_answers() {
        let dir = tempfile::tempdir().unwrap();
        let drop_in = dir.path().join(DROP_IN.trim_start_matches('/'));
        let name = format!("ralphos-guard-arm-{}", std::process::id());
        let client = GuardClient::named(&name);
        let mut console = Console::open();
        arm_with(&mut console, &trial(true), dir.path(), &client, || Ok(()));
        assert!(dir.path().join("run/ralphos/trial").exists() && !drop_in.exists(), "nobody answered");
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for another in [false, true] {
            let user = nix::unistd::Uid::current().as_raw();
            let watched = Watch { deadline: BootTime.now() + Duration::from_secs(60), another, user };
            let listener = listener.try_clone().unwrap();
            let thread = thread::spawn(move || watch(&listener, &watched, &BootTime).unwrap());
            arm_with(&mut console, &trial(another), dir.path(), &client, || Ok(()));
            assert_eq!(drop_in.exists(), another);
            client.disarm(Duration::from_secs(1)).unwrap();
            assert_eq!(thread.join().unwrap(), Outcome::Disarmed);
        }
        assert_eq!(fs::read_to_string(drop_in).unwrap(), trial(true).drop_in());
    }

    #[test]
    fn grd31_the_record_as_text() {
        let generation = Generation::new(7).unwrap();
        let empty = GuardRecord::default();
        assert_eq!(describe(&empty.encode()), "no boot was counted yet\n");
        assert!(describe(&[1; 512]).contains("counts as empty"));
        let text = GuardText::sanitised("deadline");
        let event = GuardEvent { slot: Slot::B, generation, attempt: Some(2), text };
        let record = empty.counted(Slot::A, generation, None).with_event(event);
        let text = "boots without a verdict: 1 (slot a, generation 7, no counter)\n\
                    last event: deadline (slot b, generation 7, try 2)\n";
        assert_eq!(describe(&record.encode()), text);
    }
}
