//! One virtual machine: QEMU without KVM, firmware with variables of its own, the scenario's disk, a console that is
//! recorded and a second serial port to the guest's agent.

mod bare;
mod power;
mod qemu;
pub(crate) mod slots;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

pub use self::bare::run_bare;
use self::power::Power;
use crate::agent::{Boot, FromGuest, run_line};
use crate::board::Board;
use crate::setup;
use crate::transcript::Transcript;

/// A boot, or a row of boots that do not reach the agent, that takes longer hangs. A quiet machine needs 15 s for one,
/// three guests beside a compiler five times that; up to seven are in a row.
pub const BOOT_TIMEOUT: Duration = Duration::from_secs(480);
/// The firmware's variables, in a machine's folder.
pub(crate) const VARIABLES: &str = "variables.fd";
/// A command in the guest that takes longer hangs.
const RUN_TIMEOUT: Duration = Duration::from_secs(300);

/// What a reset of the guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnReset {
    /// It boots again, as a machine does.
    Reboot,
    /// The machine stays off, so that the disk can be looked at between two boots.
    Exit,
}

/// A running (or ended) machine. Dropping it switches it off.
#[derive(Debug)]
pub struct Vm {
    power: Power,
    dir: PathBuf,
    from_agent: Receiver<FromGuest>,
    next_id: u64,
    _slot: slots::Slot,
}

/// What a script in the guest did.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Its exit code.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// The firmware's variables of the machine whose folder this is, empty at first.
fn vars_of(board: Board, dir: &Path) -> Result<PathBuf> {
    let vars = dir.join(VARIABLES);
    if !vars.exists() {
        std::fs::copy(board.flash().1, &vars).with_context(|| format!("cannot make {}", vars.display()))?;
    }
    Ok(vars)
}

impl Vm {
    /// Switches on such a machine with `disk` (raw, written to). `dir` is for what belongs to this machine: the firmware's
    /// variables, which stay from one start to the next, and the transcript. Waits while three others run.
    ///
    /// # Errors
    /// When QEMU does not start.
    pub fn start(board: impl Into<Board>, disk: &Path, dir: &Path, on_reset: OnReset) -> Result<Self> {
        let board = board.into();
        setup::ensure_tools()?;
        let slot = slots::take();
        let vars = vars_of(board, dir)?;
        let (power, from_agent) = Power::on(board, disk, &vars, on_reset)?;
        Ok(Self { power, dir: dir.to_owned(), from_agent, next_id: 1, _slot: slot })
    }

    /// Waits until the guest of a new boot can be talked to.
    ///
    /// # Errors
    /// When that takes longer than `timeout`, or a script that was to end in a reboot fails instead; the error carries
    /// the transcript of the last boot.
    pub fn wait_boot(&mut self, timeout: Duration) -> Result<Boot> {
        let end = Instant::now() + timeout;
        let mut said = Vec::new();
        loop {
            match self.next(end, "the guest's agent to start")? {
                FromGuest::Hello(boot) => return Ok(boot),
                FromGuest::Out(_, text) | FromGuest::Err(_, text) => said.extend(text),
                // A shutdown that ends the script by a signal is what was asked for.
                FromGuest::Exit(_, 0 | 128..) => {}
                FromGuest::Exit(_, code) => {
                    bail!("in the guest: exit code {code} in place of a reboot\n{}", String::from_utf8_lossy(&said))
                }
            }
        }
    }

    /// Waits until a guest of this slot can be talked to, through as many boots of the other one as that takes.
    ///
    /// # Errors
    /// As `wait_boot`; each boot has the usual time.
    pub fn wait_slot(&mut self, slot: &str) -> Result<Boot> {
        loop {
            let boot = self.wait_boot(BOOT_TIMEOUT)?;
            if boot.slot == slot {
                return Ok(boot);
            }
        }
    }

    /// Runs a shell script in the guest.
    ///
    /// # Errors
    /// When the guest does not answer, or starts again before it does; with the transcript of the last boot.
    pub fn run(&mut self, script: &str) -> Result<Ran> {
        let id = self.send(script)?;
        let end = Instant::now() + RUN_TIMEOUT;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        loop {
            match self.next(end, script)? {
                FromGuest::Out(of, text) if of == id => stdout.extend(text),
                FromGuest::Err(of, text) if of == id => stderr.extend(text),
                FromGuest::Exit(of, code) if of == id => {
                    return Ok(Ran {
                        code,
                        stdout: String::from_utf8_lossy(&stdout).into_owned(),
                        stderr: String::from_utf8_lossy(&stderr).into_owned(),
                    });
                }
                FromGuest::Hello(_) => {
                    return Err(self.error(&format!("the guest started again during: {script}")));
                }
                // Left over from a script that a reset cut.
                _ => {}
            }
        }
    }

    /// Runs a script that must succeed, and gives its output.
    ///
    /// # Errors
    /// As `run`, and when the script's exit code is not 0.
    pub fn ok(&mut self, script: &str) -> Result<String> {
        let ran = self.run(script)?;
        if ran.code != 0 {
            bail!("in the guest: {script}: exit code {}\n{}{}", ran.code, ran.stdout, ran.stderr);
        }
        Ok(ran.stdout)
    }

    /// Starts a script in the guest that ends in a reboot, and does not wait for it.
    ///
    /// # Errors
    /// When QEMU is gone.
    pub fn start_script(&mut self, script: &str) -> Result<()> {
        self.send(script).map(drop)
    }

    /// Reboots the guest as an operator does, and waits for the next boot's agent.
    ///
    /// # Errors
    /// When it does not come up in time.
    pub fn reboot(&mut self) -> Result<Boot> {
        self.send("systemctl reboot")?;
        self.wait_boot(BOOT_TIMEOUT)
    }

    /// Pulls the plug and puts it in again, as a user does with a machine that takes too long. What the guest's agent
    /// said before is forgotten.
    ///
    /// # Errors
    /// When the machine is off.
    pub fn power_cycle(&mut self) -> Result<()> {
        let boots = self.boots();
        self.power.cycle()?;
        // The firmware of the next life has spoken: nothing that comes from now on is of the last one.
        self.wait_for("the machine to start again", |vm| vm.boots() > boots)?;
        while self.from_agent.try_recv().is_ok() {}
        Ok(())
    }

    /// How often the machine has started so far.
    pub fn boots(&self) -> usize {
        self.power.transcript().boots().len()
    }

    /// Waits until the console of the boot that runs has said `text`: for boots that never get as far as the agent.
    ///
    /// # Errors
    /// When that takes too long; with the transcript of the last boot.
    pub fn wait_console(&self, text: &str) -> Result<()> {
        self.wait_for(text, |vm| {
            let transcript = vm.power.transcript();
            transcript.boots().last().is_some_and(|lines| lines.iter().any(|line| line.text.contains(text)))
        })
    }

    fn wait_for(&self, what: &str, happened: impl Fn(&Self) -> bool) -> Result<()> {
        let end = Instant::now() + BOOT_TIMEOUT;
        while !happened(self) {
            if Instant::now() > end {
                return Err(self.error(&format!("waited too long for: {what}")));
            }
            if self.power.is_off() {
                return Err(self.error(&format!("the machine is off while waiting for: {what}")));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Turns the guest off as an operator does, and waits for QEMU's end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn power_off(mut self) -> Result<Transcript> {
        self.power.stay_off();
        self.send("systemctl poweroff")?;
        self.wait_end(BOOT_TIMEOUT)
    }

    /// Waits until the machine is off for good: the guest turned itself off or, with [`OnReset::Exit`], reset.
    ///
    /// # Errors
    /// When that takes longer than `timeout`.
    pub fn wait_end(self, timeout: Duration) -> Result<Transcript> {
        let end = Instant::now() + timeout;
        while !self.power.is_off() {
            if Instant::now() > end {
                return Err(self.error("the machine neither stopped nor reset"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(self.transcript())
    }

    /// What the console has said so far.
    pub fn transcript(&self) -> Transcript {
        self.power.transcript().clone()
    }

    fn send(&mut self, script: &str) -> Result<u64> {
        let id = self.next_id;
        self.next_id += 1;
        self.power.tell(&run_line(id, script))?;
        Ok(id)
    }

    fn next(&self, end: Instant, what: &str) -> Result<FromGuest> {
        let left = end.saturating_duration_since(Instant::now());
        match self.from_agent.recv_timeout(left) {
            Ok(message) => Ok(message),
            Err(RecvTimeoutError::Timeout) => Err(self.error(&format!("waited too long for: {what}"))),
            Err(RecvTimeoutError::Disconnected) => Err(self.error(&format!("QEMU ended while waiting for: {what}"))),
        }
    }

    fn error(&self, what: &str) -> anyhow::Error {
        anyhow!("{what}\n--- the last boot:\n{}---", self.power.transcript().last_boot())
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.power.cut();
        let transcript = self.power.transcript();
        let _ = std::fs::write(self.dir.join("console.txt"), transcript.all());
        if std::thread::panicking() {
            eprintln!("--- the last boot:\n{}---", transcript.last_boot());
        }
    }
}
