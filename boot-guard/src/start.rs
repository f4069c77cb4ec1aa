//! What the guard decides about a boot (`GRD-10` to `GRD-14`, `GRD-30`). The machine stands behind [`Machine`].

use std::fmt;
use std::time::Duration;

use boot_entries::guard::{GuardDevice, GuardError, GuardEvent, GuardRecord, GuardText};
use boot_entries::options::OptionsError;
use boot_entries::{
    BootOptions, EntryArchitecture, EntryName, EspError, EspState, ImageEsp, LoaderVars, another_whole_entry_boots,
};
use disk_layout::{BootedError, Clash, FileWindow, SysError};

use crate::trial::Trial;

/// `GRD-12`: more boots than these without a verdict, and the entry is given up.
pub const BOOTS_MAX: u32 = 5;
/// `GRD-10`: how long `start` waits for the disk.
pub const DISK_WAIT: Duration = Duration::from_secs(30);
/// `failed` is called when whoever waits for disks has done so already.
pub const DISK_WAIT_FAILED: Duration = Duration::from_secs(5);

const DEADLINE: &str = "ralph.deadline=";
const DEADLINE_DEFAULT: u32 = 600;
const DEADLINE_RANGE: std::ops::RangeInclusive<u32> = 30..=7200;

/// The disk that the command line names, open.
#[derive(Debug)]
pub struct OpenDisk {
    /// The record, or why there is none.
    pub guard: Result<GuardDevice, GuardError>,
    /// The ESP, to read.
    pub esp: ImageEsp<FileWindow>,
    /// The machine's, as its slots say.
    pub architecture: EntryArchitecture,
}

/// The machine, and everything that is done to it apart from writing the record.
pub trait Machine: fmt::Debug {
    /// `/proc/cmdline`.
    ///
    /// # Errors
    /// When it cannot be read.
    fn command_line(&mut self) -> Result<String, Stop>;
    /// The kernel was started by another kernel and not by the firmware (`GRD-13`).
    fn is_kexec(&mut self) -> bool;
    /// Waits for the disk and opens it.
    ///
    /// # Errors
    /// When it does not come, or cannot be told from another.
    fn disk(&mut self, booted: &BootOptions, wait: Duration) -> Result<OpenDisk, Stop>;
    /// The loader's EFI variables, as far as they can be read.
    fn loader_vars(&mut self) -> LoaderVars;
    /// Says something on the console.
    fn say(&mut self, text: &str);
    /// Hands on what is known of the trial, for whoever arms the deadline. A later call takes the place of an earlier one.
    fn trial(&mut self, trial: &Trial);
    /// Marks the entry of the booted slot and generation bad, under the lock, after asking the model again (`UPD-22`, `UPD-50`).
    ///
    /// # Errors
    /// When that fails: the boot goes on.
    fn mark_bad(&mut self, booted: &BootOptions) -> Result<EntryName, MarkError>;
    /// Restarts the machine. It returns only when that fails.
    fn reboot(&mut self);
}

/// Why the guard can do nothing for this boot. The boot goes on (`GRD-14`).
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// The kernel's files.
    #[error("cannot look at this machine")]
    Sys(#[from] SysError),
    /// The command line is not one of our entries'.
    #[error("the kernel was not started from one of our entries")]
    CommandLine(#[from] OptionsError),
    /// The disk.
    #[error("the disk of this boot is not found")]
    Disk(#[from] BootedError),
    /// Two disks might be taken for one another.
    #[error("nothing is written")]
    Clash(#[from] Clash),
    /// The ESP cannot be opened.
    #[error("cannot open the EFI system partition {}", path.display())]
    Open {
        /// Its device.
        path: std::path::PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The ESP cannot be read.
    #[error("the boot entries cannot be read")]
    Entries(#[from] EspError),
    /// There is no entry for what was booted.
    #[error("no boot entry is that of slot {0}, generation {1}")]
    NoEntry(disk_layout::Slot, boot_entries::Generation),
    /// There is one, of another system.
    #[error("{0} is not the entry that this boot was started from")]
    OtherEntry(String),
}

/// The entry could not be marked bad.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    /// The disk.
    #[error(transparent)]
    Stop(#[from] Stop),
    /// The lock.
    #[error("the boot entries are not changed")]
    Lock(#[from] disk_layout::LockError),
    /// The ESP cannot be mounted: most likely the initrd has no module for FAT.
    #[error("the EFI system partition cannot be mounted (does the initrd have vfat and its nls modules?)")]
    Mount(#[from] disk_layout::MountError),
    /// The ESP.
    #[error("the EFI system partition cannot be used")]
    Esp(#[from] EspError),
    /// Nothing better boots, as seen under the lock.
    #[error("nothing better would boot")]
    NoFallback(#[from] boot_entries::NoFallback),
    /// The entries.
    #[error("the boot entries cannot be changed")]
    Change(#[from] boot_entries::ChangeError),
}

/// An error with what caused it, in one line.
pub fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// What is known of this boot.
#[derive(Debug)]
struct Boot {
    options: BootOptions,
    disk: OpenDisk,
    state: EspState,
    name: EntryName,
}

impl Boot {
    fn find(machine: &mut dyn Machine, wait: Duration) -> Result<Boot, Stop> {
        let options = BootOptions::parse(&machine.command_line()?)?;
        let mut disk = machine.disk(&options, wait)?;
        let state = EspState::read(&mut disk.esp)?;
        let name = booted_entry(&state, &options)?;
        Ok(Boot { options, disk, state, name })
    }

    fn record(&mut self) -> Result<GuardRecord, String> {
        match &mut self.disk.guard {
            Ok(guard) => guard.read().map_err(|error| told(&error)),
            Err(error) => Err(told(error)),
        }
    }

    /// Writes the record; says so and gives false when that fails.
    fn write(&mut self, machine: &mut dyn Machine, record: &GuardRecord) -> bool {
        let written = match &mut self.disk.guard {
            Ok(guard) => guard.write(record).map_err(|error| told(&error)),
            Err(error) => Err(told(error)),
        };
        written.inspect_err(|error| machine.say(error)).is_ok()
    }

    fn another(&mut self, machine: &mut dyn Machine) -> bool {
        let vars = machine.loader_vars();
        let architecture = self.disk.architecture;
        match another_whole_entry_boots(&mut self.disk.esp, &self.state, self.name, &vars, architecture) {
            Ok(_) => true,
            Err(error) => {
                machine.say(&format!("no other system would boot: {}", told(&error)));
                false
            }
        }
    }

    fn done(&self) -> Option<u32> {
        self.name.counter.map(|counter| counter.done())
    }

    fn event(&self, text: &str) -> GuardEvent {
        let text = GuardText::sanitised(text);
        GuardEvent { slot: self.name.slot, generation: self.name.generation, attempt: self.done(), text }
    }
}

/// The entry that this boot was started from.
///
/// # Errors
/// [`Stop::NoEntry`] and [`Stop::OtherEntry`].
pub fn booted_entry(state: &EspState, options: &BootOptions) -> Result<EntryName, Stop> {
    let (slot, generation) = (options.slot, options.generation);
    let found = state.live(slot).filter(|ours| ours.name.generation == generation);
    let found = found.ok_or(Stop::NoEntry(slot, generation))?;
    let same = found.entry.as_ref().is_ok_and(|entry| {
        let theirs = &entry.options;
        (theirs.root_hash, theirs.partuuid, theirs.system) == (options.root_hash, options.partuuid, options.system)
    });
    if same { Ok(found.name) } else { Err(Stop::OtherEntry(found.file_name.clone())) }
}

/// `GRD-21`: the deadline in seconds that the command line asks for, and whether it had to be put right.
fn deadline(options: &BootOptions) -> (u32, bool) {
    match options.extra.split(' ').filter_map(|word| word.strip_prefix(DEADLINE)).next_back() {
        None => (DEADLINE_DEFAULT, false),
        Some(text) => match text.parse().ok().filter(|seconds| DEADLINE_RANGE.contains(seconds)) {
            Some(seconds) => (seconds, false),
            None => (DEADLINE_DEFAULT, true),
        },
    }
}

/// Counts this boot, gives its entry up when there were too many, and hands a trial on (`GRD-10` to `GRD-20`).
pub fn start(machine: &mut dyn Machine) {
    if machine.is_kexec() {
        machine.say("this kernel was started by another one: the boot is not counted");
        return;
    }
    match Boot::find(machine, DISK_WAIT) {
        Ok(boot) => count(machine, boot),
        Err(stop) => machine.say(&format!("{}: the boot is not counted", told(&stop))),
    }
}

fn count(machine: &mut dyn Machine, mut boot: Boot) {
    let mut record = match boot.record() {
        Ok(record) => Some(record.counted(boot.name.slot, boot.name.generation, boot.done())),
        Err(text) => {
            machine.say(&format!("{text}: the boot is not counted"));
            None
        }
    };
    // GRD-10: before anything else of this boot, so that whatever it comes to, it was one.
    if let Some(counted) = &record
        && !boot.write(machine, counted)
    {
        record = None;
    }
    let boots = record.as_ref().map_or(0, |record| record.boots);
    let trial = boot.done().map(|attempt| {
        let (deadline_seconds, odd) = deadline(&boot.options);
        if odd {
            machine.say("ralph.deadline= is not a number from 30 to 7200: 600 is used");
        }
        let (slot, generation) = (boot.name.slot, boot.name.generation);
        Trial { slot, generation, attempt, deadline_seconds, another: false }
    });
    if let Some(trial) = &trial {
        // To look for another system takes reading it: a disk that hangs there must not leave the trial unwatched.
        machine.trial(trial);
    }
    let worn = boots > BOOTS_MAX;
    if trial.is_none() && !worn {
        return;
    }
    let another = boot.another(machine);
    if worn && another {
        give_up(machine, &mut boot, record.unwrap_or_default());
    } else if worn {
        machine.say(&format!("boot {boots} of {} without a verdict; the boot goes on", boot.name));
    }
    if let Some(trial) = trial {
        machine.trial(&Trial { another, ..trial });
    }
}

/// `GRD-12`. It returns when the entry cannot be given up.
fn give_up(machine: &mut dyn Machine, boot: &mut Boot, record: GuardRecord) {
    machine.say(&format!("boot {} of {} without a verdict: it is given up", record.boots, boot.name));
    let record = record.with_event(boot.event("guard"));
    // The mark is what counts; a record that cannot be written keeps no evidence.
    boot.write(machine, &record);
    match machine.mark_bad(&boot.options) {
        Ok(name) => {
            machine.say(&format!("the entry is {name} now; restarting"));
            machine.reboot();
        }
        Err(error) => machine.say(&format!("{}; the boot goes on", told(&error))),
    }
}

/// The initrd gives up (`GRD-30`). It returns when the machine should stay as it is.
pub fn failed(machine: &mut dyn Machine, reason: &str) {
    let mut boot = match Boot::find(machine, DISK_WAIT_FAILED) {
        Ok(boot) => boot,
        Err(stop) => {
            machine.say(&format!("{}: the machine stays as it is", told(&stop)));
            return;
        }
    };
    let written = match boot.record() {
        Ok(record) => {
            let record = record.with_event(boot.event(&format!("initrd: {reason}")));
            boot.write(machine, &record)
        }
        Err(text) => {
            machine.say(&text);
            false
        }
    };
    if !boot.another(machine) {
        machine.say("the machine stays as it is");
    } else if boot.name.counter.is_none() && !written {
        // The loader counts a trial. A committed entry is counted by the record alone, and would come back for ever.
        machine.say("nothing can be remembered, so the machine stays as it is");
    } else {
        machine.say("another system can boot: restarting");
        machine.reboot();
    }
}

#[cfg(test)]
#[path = "start_tests.rs"]
mod tests;
