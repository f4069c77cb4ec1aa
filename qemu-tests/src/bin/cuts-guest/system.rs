//! Makes this guest the system that the boot loader would have started, as far as our programs look: its command line, and
//! the device-mapper device `root` over its slot (DSK-30).

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use boot_entries::loader::LoaderVars;
use boot_entries::names::entries_dir;
use boot_entries::options::hex;
use boot_entries::{BootOptions, EntryArchitecture, EntryName, EspState, ImageEsp, OurEntry, Prediction};
use disk_layout::{DiskLayout, FileWindow, Slot};
use qemu_tests::cuts::states::State;

use crate::job::Op;

/// Bound over `/proc/cmdline`.
const COMMAND_LINE: &str = "/run/cmdline";
/// What a boot leaves and the next one does not find.
const VOLATILE: [&str; 3] = ["/run/ralphos", "/run/systemd", "/var/lib"];

/// The guest.
#[derive(Debug)]
pub struct System {
    disk: String,
    pub layout: DiskLayout,
    /// What `root` is: slot and root hash.
    root: Option<(Slot, [u8; 32])>,
    /// The entry that this guest was booted by.
    booted: Option<EntryName>,
}

/// What a program did.
#[derive(Debug)]
pub struct Ran {
    /// None: it was killed by a signal.
    pub code: Option<i32>,
    signal: Option<i32>,
    pub output: String,
}

impl Ran {
    /// It was ended by a restart of its process namespace (`reboot(2)`: its first process gets SIGHUP).
    pub fn restarted(&self) -> bool {
        const SIGHUP: i32 = 1;
        self.signal == Some(SIGHUP)
    }

    /// For a person.
    pub fn end(&self) -> String {
        match (self.code, self.signal) {
            (Some(code), _) => format!("exit code {code}"),
            (None, _) if self.restarted() => "a restart".to_owned(),
            (None, signal) => format!("killed by signal {signal:?}"),
        }
    }
}

impl System {
    pub fn new(disk: &str) -> Result<System> {
        let layout = DiskLayout::open(disk).with_context(|| format!("no layout on {disk}"))?;
        fs::write(COMMAND_LINE, "\n").context("cannot write the command line")?;
        busybox(&["mount", "-o", "bind", COMMAND_LINE, "/proc/cmdline"])?;
        Ok(System { disk: disk.to_owned(), layout, root: None, booted: None })
    }

    /// The device of the ESP.
    pub fn esp_device(&self) -> PathBuf {
        self.partition(self.layout.esp.number)
    }

    fn partition(&self, number: u32) -> PathBuf {
        PathBuf::from(format!("{}{number}", self.disk))
    }

    /// The ESP as it lies on the disk, read by the FAT library and not by the kernel.
    pub fn esp(&self) -> Result<ImageEsp<FileWindow>> {
        Ok(ImageEsp::new(self.esp_window()?))
    }

    /// The bytes of the ESP, to read.
    pub fn esp_window(&self) -> Result<FileWindow> {
        let device = self.esp_device();
        let cannot = || format!("cannot open {}", device.display());
        let file = File::open(&device).with_context(cannot)?;
        FileWindow::new(file, 0, self.layout.esp.len).with_context(cannot)
    }

    /// The entry that the loader takes in this state.
    pub fn choice(&self) -> Result<OurEntry> {
        let state = self.entries()?;
        let prediction = state.predict(&LoaderVars::default(), self.architecture());
        of_ours(state, prediction)
    }

    /// The entry that the loader takes once `trial` is bad.
    pub fn fallback(&self, trial: EntryName) -> Result<OurEntry> {
        let state = self.entries()?;
        let prediction = state.predict_if_bad(trial, &LoaderVars::default(), self.architecture());
        of_ours(state, prediction)
    }

    fn architecture(&self) -> EntryArchitecture {
        self.layout.architecture.into()
    }

    fn entries(&self) -> Result<EspState> {
        EspState::read(&mut self.esp()?).context("the boot entries cannot be read")
    }

    /// From now on this is the system that the loader would start in this state. Whoever made the state reads names as the
    /// firmware does, which tells a torn long name otherwise than our own programs; the system must be the same for all.
    pub fn boot_as_the_loader_would(&mut self, state: &State) -> Result<OurEntry> {
        let chosen = self.choice()?;
        let options = BootOptions::parse(&state.options).with_context(|| format!("the options of {}", state.file))?;
        let same = (chosen.name.slot, chosen.name.generation) == (options.slot, options.generation);
        ensure!(same, "{} would boot, and {} should", chosen.file_name, state.file);
        self.booted = Some(self.count_a_try(&chosen)?);
        self.starts(&options)?;
        Ok(chosen)
    }

    /// Renames what the loader starts, as the firmware does before the kernel runs (LDR-5): no program of ours ever sees the
    /// name that the loader chose. Where the new name is taken, the old one stays (LDR-7). Gives the name that was booted.
    fn count_a_try(&self, chosen: &OurEntry) -> Result<EntryName> {
        let Some(counter) = chosen.name.counter else { return Ok(chosen.name) };
        let counted = EntryName { counter: Some(counter.counted()), ..chosen.name };
        let device = self.esp_device();
        let cannot = || format!("cannot count a try of {} on {}", chosen.file_name, device.display());
        let mut file = File::options().read(true).write(true).open(&device).with_context(cannot)?;
        let library = fatfs::FileSystem::new(&mut file, fatfs::FsOptions::new()).with_context(cannot)?;
        let entries = library.root_dir().open_dir(entries_dir().as_str()).with_context(cannot)?;
        let renamed = match entries.rename(&chosen.file_name, &entries, &counted.to_string()) {
            Ok(()) => counted,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => chosen.name,
            Err(error) => return Err(error).with_context(cannot),
        };
        drop(entries);
        library.unmount().with_context(cannot)?;
        file.sync_data().with_context(cannot)?;
        Ok(renamed)
    }

    /// The entry that was booted.
    pub fn booted(&self) -> Result<EntryName> {
        self.booted.context("nothing was booted yet")
    }

    /// From now on this is the system in `slot`. No try is counted: this is for a recording, and its log must hold what the
    /// program writes and nothing else. What the firmware writes before it is recorded by itself (`firmware-counts`).
    pub fn starts_slot(&mut self, slot: Slot) -> Result<()> {
        let state = self.entries()?;
        let ours = state.live(slot).with_context(|| format!("slot {slot} has no entry"))?;
        let entry = ours.entry.as_ref().map_err(|error| anyhow::anyhow!("{}: {error}", ours.file_name))?;
        self.booted = Some(ours.name);
        self.starts(&entry.options)
    }

    fn starts(&mut self, options: &BootOptions) -> Result<()> {
        fs::write(COMMAND_LINE, format!("{options}\n")).context("cannot write the command line")?;
        for dir in VOLATILE {
            if Path::new(dir).exists() {
                fs::remove_dir_all(dir).with_context(|| format!("cannot empty {dir}"))?;
            }
        }
        fs::create_dir_all("/var/lib").context("cannot make /var/lib")?;
        self.open_root(options)
    }

    fn open_root(&mut self, options: &BootOptions) -> Result<()> {
        let root = (options.slot, options.root_hash);
        if self.root == Some(root) {
            return Ok(());
        }
        if self.root.take().is_some() {
            verity(&["close", "root"])?;
        }
        let (device, offset) = self.place_of(options)?;
        verity(&["open", &offset, &device, "root", &device, &hex(&options.root_hash)])?;
        self.root = Some(root);
        Ok(())
    }

    /// Reads the slot that these options start, all of it, and compares it with their root hash.
    pub fn verify(&self, options: &BootOptions) -> Result<()> {
        let (device, offset) = self.place_of(options)?;
        verity(&["verify", &offset, &device, &device, &hex(&options.root_hash)])
    }

    /// The slot's device, and where in it the hashes are, as `veritysetup` wants to know it.
    fn place_of(&self, options: &BootOptions) -> Result<(String, String)> {
        let device = self.partition(self.layout.slot(options.slot).number);
        let device = device.to_str().context("a device")?.to_owned();
        Ok((device, format!("--hash-offset={}", options.hash_offset)))
    }

    /// Runs the operation to its end.
    pub fn run(&self, op: &Op) -> Result<Ran> {
        let mut command = if op.restarts {
            // A restart in a process namespace of its own ends that, and not the guest.
            let mut command = Command::new("/bin/busybox");
            command.args(["unshare", "--pid", "--fork"]);
            command.args(&op.argv);
            command
        } else {
            let (program, args) = op.argv.split_first().context("nothing to run")?;
            let mut command = Command::new(program);
            command.args(args);
            command
        };
        output(&mut command)
    }
}

/// The entry behind a prediction.
fn of_ours(state: EspState, prediction: Prediction) -> Result<OurEntry> {
    let file_name = match prediction {
        Prediction::Boots { file_name, entry: Some(_), .. } => file_name,
        other => bail!("the loader would boot no entry of ours: {other:?}"),
    };
    state.ours.into_iter().find(|ours| ours.file_name == file_name).context("the entry is not there")
}

/// Runs a program whose success is taken for granted.
pub fn busybox(args: &[&str]) -> Result<()> {
    must(Command::new("/bin/busybox").args(args))
}

fn verity(args: &[&str]) -> Result<()> {
    must(Command::new("/bin/veritysetup").args(args))
}

fn must(command: &mut Command) -> Result<()> {
    let ran = output(command)?;
    ensure!(ran.code == Some(0), "{command:?}: {:?}: {}", ran.code, ran.output);
    Ok(())
}

/// Runs `command`, with both outputs into one file: a process that it leaves behind holds no pipe.
pub fn output(command: &mut Command) -> Result<Ran> {
    const OUTPUT: &str = "/run/output";
    let file = File::create(OUTPUT).context("cannot write to /run")?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    let mut bytes = Vec::new();
    File::open(OUTPUT)?.read_to_end(&mut bytes)?;
    Ok(Ran { code: status.code(), signal: status.signal(), output: String::from_utf8_lossy(&bytes).into_owned() })
}
