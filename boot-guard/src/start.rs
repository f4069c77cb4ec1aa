//! What the guard decides about a boot (`GRD-10` to `GRD-14`, `GRD-30`). The machine stands behind [`Machine`].

use std::fmt;
use std::time::Duration;

use boot_entries::guard::{GIVEN_UP, GuardDevice, GuardError, GuardEvent, GuardRecord, GuardText};
use boot_entries::options::OptionsError;
use boot_entries::{
    BootOptions, EntryArchitecture, EntryName, EspError, EspState, ImageEsp, LoaderVars, MarkedBad, NoFallback,
    another_whole_entry_boots,
};
use disk_layout::{BootedError, Clash, FileWindow, SysError};

use crate::mark::{MarkError, booted_entry};
use crate::selected::{NotSelected, Selected, booted_options, is_counted_down};
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
    /// For a unified kernel image: waits for the EFI partition that the loader was started from, and says what it chose there (`ENT-16`).
    ///
    /// # Errors
    /// When it has not told, or the partition does not come.
    fn selected(&mut self, wait: Duration) -> Result<Selected, Stop>;
    /// What [`Machine::leave_options`] left in this boot.
    fn left_options(&mut self) -> Option<String>;
    /// Leaves the options of this boot for all that comes after (`ENT-16`).
    fn leave_options(&mut self, options: &BootOptions);
    /// The kernel was started by another kernel and not by the firmware (`GRD-13`).
    fn is_kexec(&mut self) -> bool;
    /// Waits for the disk and opens it.
    ///
    /// # Errors
    /// When it does not come, or cannot be told from another.
    fn disk(&mut self, booted: &BootOptions, wait: Duration) -> Result<OpenDisk, Stop>;
    /// The loader's EFI variables; None when there are variables and they cannot be read.
    fn loader_vars(&mut self) -> Option<LoaderVars>;
    /// Whether this boot was counted already, and what was seen then.
    fn counted(&mut self) -> Option<Counted>;
    /// This boot is counted, and its record is on the medium.
    fn set_counted(&mut self, counted: Counted);
    /// False once this process should have come to its end: then it changes nothing any more (`GRD-14`).
    fn in_time(&mut self) -> bool;
    /// Looks whether the disk is still the only one that can be meant.
    ///
    /// # Errors
    /// As for [`Machine::disk`].
    fn look_again(&mut self, booted: &BootOptions) -> Result<(), Stop>;
    /// Says something on the console.
    fn say(&mut self, text: &str);
    /// Hands on what is known of the trial, for whoever arms the deadline. A later call takes the place of an earlier one.
    fn trial(&mut self, trial: &Trial);
    /// Marks the entry of the booted slot and generation bad, under the lock, after asking the model again (`UPD-22`, `UPD-50`).
    ///
    /// # Errors
    /// When that fails: the boot goes on.
    fn mark_bad(&mut self, booted: &BootOptions) -> Result<MarkedBad, MarkError>;
    /// Restarts the machine. It returns only when that fails.
    fn reboot(&mut self);
}

/// What is kept of the count for the rest of the boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// The loader did not count this boot: DONE is what it was at the last one.
    pub stalled: bool,
}

/// Whether another whole entry boots (`UPD-50`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Another {
    Yes,
    No,
    /// What decides it cannot be read.
    Unknown,
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
    /// The entry of a unified kernel image.
    #[error("it is not known which boot entry was started")]
    Selected(#[from] NotSelected),
    /// There is one, of another system.
    #[error("{0} is not the entry that this boot was started from")]
    OtherEntry(String),
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

/// The record of a boot that is counted, as it is on the medium.
#[derive(Debug)]
struct Count {
    record: GuardRecord,
    stalled: bool,
}

impl Boot {
    fn find(machine: &mut dyn Machine, wait: Duration) -> Result<Boot, Stop> {
        let options = booted_options(machine, wait)?;
        let mut disk = machine.disk(&options, wait)?;
        let state = EspState::read(&mut disk.esp)?;
        let name = booted_entry(&state, &options)?;
        Ok(Boot { options, disk, state, name })
    }

    /// Counts this boot, if nobody has (`GRD-10`); None when nothing can be remembered, which is said.
    fn count(&mut self, machine: &mut dyn Machine) -> Option<Count> {
        let read = match &mut self.disk.guard {
            Ok(guard) => guard.read().map_err(|error| told(&error)),
            Err(error) => Err(told(error)),
        };
        let before = match read {
            Ok(before) => before,
            Err(text) => {
                machine.say(&format!("{text}: the boot is not counted"));
                return None;
            }
        };
        if let Some(Counted { stalled }) = machine.counted() {
            return Some(Count { record: before, stalled });
        }
        if machine.is_kexec() {
            return Some(Count { record: before, stalled: false });
        }
        let own = Some((self.name.slot, self.name.generation));
        let stalled = before.entry == own && self.done().is_some() && before.done == self.done();
        let record = before.counted(self.name.slot, self.name.generation, self.done());
        if !self.write(machine, &record) {
            return None;
        }
        machine.set_counted(Counted { stalled });
        Some(Count { record, stalled })
    }

    /// `GRD-12`: how many boots without a verdict make this entry one to be given up; None while they are few.
    fn worn(&self, count: Option<&Count>) -> Option<u32> {
        let record = &count?.record;
        let own = record.entry == Some((self.name.slot, self.name.generation));
        Some(record.boots).filter(|boots| own && *boots > BOOTS_MAX)
    }

    /// Why a restart would only boot this entry again, whatever the model says.
    fn hopeless(&self, stalled: bool) -> Option<&'static str> {
        // The entry that was booted, and not a twin of it: when a cut left the name that was to go, the mark had no effect yet.
        let booted = self.state.entries(self.name.slot).find(|ours| ours.name == self.name);
        let marked =
            booted.and_then(|ours| ours.entry.as_ref().ok()).is_some_and(|entry| entry.options.failed.is_some());
        let given_up = self.options.failed.is_some() || marked;
        if given_up {
            Some("it was given up before and is booted all the same")
        } else if self.name.is_exhausted() && stalled {
            Some("it has no tries left and the boot loader does not count them")
        } else {
            None
        }
    }

    /// Why a restart is not worth it (`GRD-12`, `GRD-30`). `written`: it will be remembered that there was one.
    fn why_stay(&self, another: Another, count: Option<&Count>, written: bool) -> Option<&'static str> {
        let trial = self.name.counter.is_some();
        let stalled = count.is_some_and(|count| count.stalled);
        let worn = self.worn(count).is_some();
        match another {
            Another::No => Some("nothing better would boot"),
            Another::Unknown if !trial => Some("it is not known what would boot"),
            Another::Unknown if worn => Some("it is not known what would boot, and restarts changed nothing so far"),
            _ => self.hopeless(stalled).or({
                // The loader counts a trial. What the record alone counts, or nothing, would come back for ever.
                if !trial && !written {
                    Some("nothing can be remembered")
                } else if worn && (!trial || stalled) {
                    Some("it cannot be given up")
                } else {
                    None
                }
            }),
        }
    }

    /// Writes the record; says so and gives false when that fails.
    fn write(&mut self, machine: &mut dyn Machine, record: &GuardRecord) -> bool {
        if !machine.in_time() {
            machine.say("the disk was too slow: nothing is written any more");
            return false;
        }
        let written = match &mut self.disk.guard {
            Ok(guard) => guard.write(record).map_err(|error| told(&error)),
            Err(error) => Err(told(error)),
        };
        written.inspect_err(|error| machine.say(error)).is_ok()
    }

    fn another(&mut self, machine: &mut dyn Machine) -> Another {
        let vars = machine.loader_vars();
        let (known, vars) = (vars.is_some(), vars.unwrap_or_default());
        let architecture = self.disk.architecture;
        let answer = another_whole_entry_boots(&mut self.disk.esp, &self.state, self.name, &vars, architecture);
        // Without the variables the answer may be another one, if there is one of ours that they could name.
        let other = self.state.live(!self.name.slot).is_some_and(|ours| !ours.name.is_exhausted());
        let open = !known && other;
        let unreadable = "the EFI variables cannot be read".to_owned();
        let why = match answer {
            Ok(_) if known => return Another::Yes,
            Ok(_) => unreadable,
            Err(NoFallback::Same { .. } | NoFallback::Foreign { .. } | NoFallback::Bad { .. }) if open => unreadable,
            Err(error @ (NoFallback::Esp(_) | NoFallback::Unknown { .. })) => told(&error),
            Err(error) => {
                machine.say(&format!("no other system would boot: {}", told(&error)));
                return Another::No;
            }
        };
        machine.say(&format!("it is not known whether another system would boot: {why}"));
        Another::Unknown
    }

    fn done(&self) -> Option<u32> {
        self.name.counter.map(|counter| counter.done())
    }

    fn event(&self, text: &str) -> GuardEvent {
        let text = GuardText::sanitised(text);
        GuardEvent { slot: self.name.slot, generation: self.name.generation, attempt: self.done(), text }
    }
}

/// Two disks that may be meant: the second one may come late.
fn second_disk(machine: &mut dyn Machine, booted: &BootOptions) -> Option<Stop> {
    let stop = machine.look_again(booted).err()?;
    matches!(stop, Stop::Disk(BootedError::TwoDisks { .. }) | Stop::Clash(_)).then_some(stop)
}

fn restart(machine: &mut dyn Machine) {
    if machine.in_time() {
        machine.reboot();
    } else {
        machine.say("the disk was too slow: the machine is not restarted any more");
    }
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
        // The root of a unified kernel image is not known otherwise.
        if let Err(stop) = booted_options(machine, DISK_WAIT) {
            machine.say(&told(&stop));
        }
        return;
    }
    match Boot::find(machine, DISK_WAIT) {
        Ok(boot) => judge(machine, boot),
        Err(stop) => machine.say(&format!("{}: the boot is not counted", told(&stop))),
    }
}

fn judge(machine: &mut dyn Machine, mut boot: Boot) {
    // GRD-10: before anything else of this boot, so that whatever it comes to, it was one.
    let count = boot.count(machine);
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
    let worn = boot.worn(count.as_ref()).is_some();
    if trial.is_none() && !worn {
        return;
    }
    let another = boot.another(machine);
    if worn && let Some(count) = &count {
        give_up(machine, &mut boot, count, another);
    }
    if let Some(trial) = trial {
        // The record was written if it was counted.
        let why_stay = boot.why_stay(another, count.as_ref(), count.is_some());
        machine.trial(&Trial { another: why_stay.is_none(), ..trial });
    }
}

/// `GRD-12`: true when the entry was given up; then it returns only when the machine cannot be restarted.
fn give_up(machine: &mut dyn Machine, boot: &mut Boot, count: &Count, another: Another) -> bool {
    let (boots, name) = (count.record.boots, boot.name);
    let why_not = match another {
        Another::Yes => boot.hopeless(count.stalled),
        Another::No => Some("nothing better would boot"),
        Another::Unknown => Some("it is not known what would boot"),
    };
    let why_not = why_not.map(str::to_owned).or_else(|| Some(told(&second_disk(machine, &boot.options)?)));
    if let Some(why_not) = why_not {
        machine.say(&format!("boot {boots} of {name} without a verdict, but {why_not}; the boot goes on"));
        return false;
    }
    machine.say(&format!("boot {boots} of {name} without a verdict: it is given up"));
    // The mark is what counts; a record that cannot be written keeps no evidence.
    let written = boot.write(machine, &count.record.clone().with_event(boot.event(GIVEN_UP)));
    let why_not = match machine.mark_bad(&boot.options) {
        Ok(marked) if marked.changed => {
            machine.say(&format!("the entry is {} now; restarting", marked.name));
            restart(machine);
            return true;
        }
        Ok(marked) => format!("{} was marked already", marked.name),
        Err(error) => told(&error),
    };
    machine.say(&format!("{why_not}; the boot goes on"));
    if written {
        // It did not happen.
        boot.write(machine, &count.record);
    }
    false
}

/// The initrd gives up (`GRD-30`). It returns when the machine should stay as it is.
pub fn failed(machine: &mut dyn Machine, reason: &str) {
    let mut boot = match Boot::find(machine, DISK_WAIT_FAILED) {
        Ok(boot) => boot,
        // Somebody has changed the entry of a unified image: nothing of it can be used, and its tries run down.
        Err(Stop::Selected(unread @ NotSelected::NoEntry(_))) if is_counted_down(machine, DISK_WAIT_FAILED) => {
            machine.say(&format!("{unread}: restarting"));
            restart(machine);
            return;
        }
        Err(stop) => {
            machine.say(&format!("{}: the machine stays as it is", told(&stop)));
            return;
        }
    };
    let mut count = boot.count(machine);
    let mut written = false;
    if let Some(count) = &mut count {
        count.record = count.record.clone().with_event(boot.event(&format!("initrd: {reason}")));
        written = boot.write(machine, &count.record);
    }
    let another = boot.another(machine);
    let worn = boot.worn(count.as_ref()).is_some();
    if worn
        && let Some(count) = &count
        && give_up(machine, &mut boot, count, another)
    {
        return;
    }
    let why_not = boot.why_stay(another, count.as_ref(), written);
    let why_not = why_not.map(str::to_owned).or_else(|| Some(told(&second_disk(machine, &boot.options)?)));
    match why_not {
        Some(why_not) => machine.say(&format!("{why_not}: the machine stays as it is")),
        None => {
            machine.say("the boot is given up: restarting");
            restart(machine);
        }
    }
}

#[cfg(test)]
#[path = "start_tests.rs"]
mod tests;
