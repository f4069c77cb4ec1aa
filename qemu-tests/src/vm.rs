//! One virtual machine: QEMU without KVM, OVMF with variables of its own, the scenario's disk, a console that is
//! recorded and a second serial port to the guest's agent.

mod slots;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::agent::{FromGuest, PORT, run_line};
use crate::setup;
use crate::transcript::Transcript;

/// A boot that takes longer hangs. A quiet machine needs 15 s, two guests beside a compiler five times that.
pub const BOOT_TIMEOUT: Duration = Duration::from_secs(120);
/// A command in the guest that takes longer hangs.
const RUN_TIMEOUT: Duration = Duration::from_secs(300);

/// What a reset of the guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnReset {
    /// It boots again, as a machine does.
    Reboot,
    /// QEMU ends, so that the disk can be looked at between two boots.
    Exit,
}

/// A running (or ended) machine. Dropping it switches it off.
#[derive(Debug)]
pub struct Vm {
    qemu: Child,
    dir: PathBuf,
    transcript: Arc<Mutex<Transcript>>,
    to_agent: UnixStream,
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

impl Vm {
    /// Switches on a machine with `disk` (raw, written to). `dir` is for what belongs to this machine: the firmware's
    /// variables, which stay from one start to the next, and the transcript. Waits while two others run.
    ///
    /// # Errors
    /// When QEMU does not start.
    pub fn start(disk: &Path, dir: &Path, on_reset: OnReset) -> Result<Self> {
        setup::ensure_tools()?;
        let slot = slots::take();
        let vars = dir.join("OVMF_VARS.fd");
        if !vars.exists() {
            std::fs::copy(setup::OVMF_VARS, &vars).with_context(|| format!("cannot make {}", vars.display()))?;
        }
        let socket = socket_path();
        let mut qemu = command(disk, &vars, &socket, on_reset)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .context("cannot start qemu-system-x86_64")?;

        let transcript = Arc::new(Mutex::new(Transcript::default()));
        if let Some(console) = qemu.stdout.take() {
            let transcript = Arc::clone(&transcript);
            std::thread::spawn(move || record(console, &transcript));
        }
        let to_agent = connect(&socket, &mut qemu)?;
        let (sender, from_agent) = channel();
        let reading = to_agent.try_clone().context("agent's socket")?;
        std::thread::spawn(move || listen(reading, &sender));
        Ok(Self { qemu, dir: dir.to_owned(), transcript, to_agent, from_agent, next_id: 1, _slot: slot })
    }

    /// Waits until the guest of a new boot can be talked to, and gives its boot id.
    ///
    /// # Errors
    /// When that takes longer than `timeout`, or a script that was to end in a reboot fails instead; the error carries
    /// the transcript of the last boot.
    pub fn wait_boot(&mut self, timeout: Duration) -> Result<String> {
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

    /// Runs a shell script in the guest.
    ///
    /// # Errors
    /// When the guest does not answer, or starts again before it does; with the transcript of the last boot.
    pub fn run(&mut self, script: &str) -> Result<Ran> {
        self.run_for(script, RUN_TIMEOUT)
    }

    /// [`Self::run`] with a time limit of its own.
    ///
    /// # Errors
    /// As `run`.
    pub fn run_for(&mut self, script: &str, timeout: Duration) -> Result<Ran> {
        let id = self.send(script)?;
        let end = Instant::now() + timeout;
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
    pub fn reboot(&mut self) -> Result<String> {
        self.send("systemctl reboot")?;
        self.wait_boot(BOOT_TIMEOUT)
    }

    /// Turns the guest off as an operator does, and waits for QEMU's end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn power_off(mut self) -> Result<Transcript> {
        self.send("systemctl poweroff")?;
        self.wait_end(BOOT_TIMEOUT)
    }

    /// Waits until QEMU ends by itself: the guest turned itself off or, with [`OnReset::Exit`], reset.
    ///
    /// # Errors
    /// When that takes longer than `timeout`.
    pub fn wait_end(mut self, timeout: Duration) -> Result<Transcript> {
        let end = Instant::now() + timeout;
        while self.qemu.try_wait().context("waiting for QEMU")?.is_none() {
            if Instant::now() > end {
                return Err(self.error("the machine neither stopped nor reset"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        // The recorder may have the last lines still to read.
        std::thread::sleep(Duration::from_millis(100));
        Ok(self.transcript())
    }

    /// Waits until a line of the console, of this boot or an earlier one, contains `text`.
    ///
    /// # Errors
    /// When that takes longer than `timeout`.
    pub fn wait_line(&self, text: &str, timeout: Duration) -> Result<()> {
        let end = Instant::now() + timeout;
        while !self.lock().lines().iter().any(|l| l.text.contains(text)) {
            if Instant::now() > end {
                return Err(self.error(&format!("never on the console: {text}")));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// What the console has said so far.
    pub fn transcript(&self) -> Transcript {
        self.lock().clone()
    }

    fn send(&mut self, script: &str) -> Result<u64> {
        let id = self.next_id;
        self.next_id += 1;
        writeln!(self.to_agent, "{}", run_line(id, script)).context("cannot talk to QEMU")?;
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
        anyhow!("{what}\n--- the last boot:\n{}---", self.lock().last_boot())
    }

    fn lock(&self) -> MutexGuard<'_, Transcript> {
        self.transcript.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // Killing loses nothing that the guest has written: the host's page cache outlives QEMU.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
        let transcript = self.lock().last_boot();
        let _ = std::fs::write(self.dir.join("last-boot.txt"), &transcript);
        if std::thread::panicking() {
            eprintln!("--- the last boot:\n{transcript}---");
        }
    }
}

fn command(disk: &Path, vars: &Path, socket: &Path, on_reset: OnReset) -> std::process::Command {
    let mut qemu = setup::command("qemu-system-x86_64");
    qemu.args([
        "-machine",
        "q35,smm=off,sata=off,usb=off,smbus=off,hpet=off,i8042=off,vmport=off",
        // A KVM that is there need not work, and one machine's timing should be every machine's.
        "-accel",
        "tcg,thread=multi",
        // QEMU 7.2 loses a guest's flags around cmpxchg16b now and then, and kernels from 6.12 on use it in every
        // allocation: one boot in three died of it.
        "-cpu",
        "Nehalem,-cx16",
        "-smp",
        "1",
        "-m",
        "512",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-device",
        "virtio-rng-pci",
        "-netdev",
        "user,id=net",
        "-device",
        "virtio-net-pci,netdev=net,romfile=",
        "-chardev",
        "stdio,id=console,signal=off",
        "-serial",
        "chardev:console",
        "-device",
        "virtio-serial-pci",
    ]);
    qemu.arg("-chardev")
        .arg(format!("socket,id=agent,path={},server=on,wait=off", socket.display()))
        .arg("-device")
        .arg(format!("virtserialport,chardev=agent,name={PORT}"))
        .arg("-drive")
        .arg(format!("if=pflash,format=raw,unit=0,readonly=on,file={}", setup::OVMF_CODE))
        .arg("-drive")
        .arg(format!("if=pflash,format=raw,unit=1,file={}", vars.display()))
        .arg("-drive")
        .arg(format!("if=none,id=disk,format=raw,discard=unmap,file={}", disk.display()))
        .args(["-device", "virtio-blk-pci,drive=disk,bootindex=0"]);
    if on_reset == OnReset::Exit {
        qemu.arg("-no-reboot");
    }
    qemu
}

/// In the temporary folder: a socket's path has at most 107 bytes, and a build folder's may be long.
fn socket_path() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("ralph-vm-{}-{number}", std::process::id()))
}

fn connect(socket: &Path, qemu: &mut Child) -> Result<UnixStream> {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => {
                // Connected once and for all: the name is not needed any more.
                let _ = std::fs::remove_file(socket);
                return Ok(stream);
            }
            Err(error) => {
                if let Some(status) = qemu.try_wait().context("waiting for QEMU")? {
                    bail!("qemu-system-x86_64 ended at once: {status}");
                }
                if Instant::now() > end {
                    let _ = qemu.kill();
                    return Err(error).context("QEMU does not open the agent's socket");
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

fn record(mut console: impl Read, transcript: &Mutex<Transcript>) {
    let start = Instant::now();
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = console.read(&mut buffer) {
        transcript.lock().unwrap_or_else(PoisonError::into_inner).push(start.elapsed(), &buffer[..read]);
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
