//! Keeps a machine on: QEMU ends when the guest resets, and is started again.
//!
//! A reset inside one QEMU would do, but under TCG the firmware is many times slower after it than in a new process
//! (25 s to the boot loader in place of 3), and each start from cold is a boot with nothing left in memory.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, Result};

use super::OnReset;
use super::qemu::{self, Started};
use crate::agent::FromGuest;
use crate::board::Board;
use crate::transcript::Transcript;

/// A machine with its power switch.
#[derive(Debug)]
pub(super) struct Power {
    shared: Arc<Shared>,
    keeper: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    board: Board,
    disk: PathBuf,
    vars: PathBuf,
    switched_on: Instant,
    transcript: Mutex<Transcript>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The next end of QEMU is the last one.
    stays_off: bool,
    running: Option<Running>,
}

/// One life of QEMU.
#[derive(Debug)]
struct Running {
    qemu: Child,
    agent: UnixStream,
    listener: JoinHandle<()>,
}

impl Running {
    fn start(shared: &Shared, sender: &Sender<FromGuest>) -> Result<(Self, ChildStdout)> {
        let Started { child, console, agent } = qemu::start(shared.board, &shared.disk, &shared.vars)?;
        let stream = agent.try_clone().context("cannot clone the agent's socket")?;
        let sender = sender.clone();
        let listener = std::thread::spawn(move || listen(stream, &sender));
        Ok((Self { qemu: child, agent, listener }, console))
    }
}

impl Power {
    /// Switches on. What the guest's agent says comes through the channel, which ends with the machine.
    pub fn on(board: Board, disk: &Path, vars: &Path, on_reset: OnReset) -> Result<(Self, Receiver<FromGuest>)> {
        let shared = Arc::new(Shared {
            board,
            disk: disk.to_owned(),
            vars: vars.to_owned(),
            switched_on: Instant::now(),
            transcript: Mutex::default(),
            state: Mutex::new(State { stays_off: on_reset == OnReset::Exit, running: None }),
        });
        let (sender, receiver) = channel();
        let (running, console) = Running::start(&shared, &sender)?;
        lock(&shared.state).running = Some(running);
        let keeping = Arc::clone(&shared);
        let keeper = std::thread::spawn(move || keep(&keeping, &sender, console));
        Ok((Self { shared, keeper: Some(keeper) }, receiver))
    }

    /// Writes a line to the agent.
    pub fn tell(&self, line: &str) -> Result<()> {
        let state = lock(&self.shared.state);
        let machine = state.running.as_ref().context("the machine is off")?;
        writeln!(&mut &machine.agent, "{line}").context("cannot write to the agent's port")
    }

    /// When the guest turns itself off or resets next, the machine stays off.
    pub fn stay_off(&self) {
        lock(&self.shared.state).stays_off = true;
    }

    /// The machine is off, and will not come on again by itself.
    pub fn is_off(&self) -> bool {
        self.keeper.as_ref().is_none_or(JoinHandle::is_finished)
    }

    pub fn transcript(&self) -> MutexGuard<'_, Transcript> {
        lock(&self.shared.transcript)
    }

    /// Pulls the plug and puts it in again: QEMU is killed, and the keeper starts it anew.
    pub fn cycle(&self) -> Result<()> {
        let mut state = lock(&self.shared.state);
        let machine = state.running.as_mut().context("the machine is off")?;
        machine.qemu.kill().context("cannot kill QEMU")
    }

    /// Pulls the plug. Nothing is lost that the guest has written: the host's page cache outlives QEMU.
    pub fn cut(&mut self) {
        {
            let mut state = lock(&self.shared.state);
            state.stays_off = true;
            if let Some(machine) = &mut state.running {
                let _ = machine.qemu.kill();
            }
        }
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

/// Runs QEMU over and over.
fn keep(shared: &Shared, sender: &Sender<FromGuest>, mut console: ChildStdout) {
    loop {
        record(console, shared);
        // QEMU has closed its standard output: it has ended. Under the lock, so that `cut` finds what it has to kill.
        let mut state = lock(&shared.state);
        if let Some(mut machine) = state.running.take() {
            let _ = machine.qemu.wait();
            let _ = machine.listener.join();
        }
        if state.stays_off {
            return;
        }
        match Running::start(shared, sender) {
            Ok((running, new_console)) => {
                state.running = Some(running);
                console = new_console;
            }
            Err(error) => {
                eprintln!("vm: cannot switch on again: {error:#}");
                return;
            }
        }
    }
}

fn record(mut console: impl Read, shared: &Shared) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = console.read(&mut buffer) {
        lock(&shared.transcript).push(shared.switched_on.elapsed(), &buffer[..read]);
    }
}

fn listen(stream: UnixStream, sender: &Sender<FromGuest>) {
    for line in BufReader::new(stream).split(b'\n') {
        let Ok(line) = line else { return };
        // A line that a reset cut parses as nothing.
        if let Ok(message) = FromGuest::parse(String::from_utf8_lossy(&line).trim())
            && sender.send(message).is_err()
        {
            return;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
