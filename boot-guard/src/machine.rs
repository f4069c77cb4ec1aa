//! The machine itself: the initrd's view of it, or that of a running system.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use boot_entries::esp::Remount;
use boot_entries::guard::GuardDevice;
use boot_entries::kexec::started_by_kexec;
use boot_entries::vars::{is_kept, read_text};
use boot_entries::{
    BootOptions, EntryArchitecture, ImageEsp, KernelEsp, LoaderVars, MarkedBad, RUNNING_OPTIONS, RUNNING_ROOT,
    read_vars, running_options,
};
use disk_layout::{
    BootedDisk, BootedError, DEVICE_LOCK, FileWindow, MountMode, PrivateMount, SysRoot, UpdateLock, find_esp,
    find_named,
};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::reboot::{RebootMode, reboot};

use crate::mark::{MarkError, give_up};
use crate::selected::{NotSelected, Selected};
use crate::start::{Counted, OpenDisk, Stop, told};
use crate::trial::Trial;

const EFI: &str = "/sys/firmware/efi";
/// `GRD-10`: this boot is counted; what it says is [`Counted`].
pub const COUNTED: &str = "/run/ralphos/boot-counted";
const STALLED: &str = "stalled\n";
/// `GRD-14`: whoever started this process goes on after 45 s; what it might still do must not come later.
const CHANGES: Duration = Duration::from_secs(43);
const POLL: Duration = Duration::from_millis(100);

/// The console: the kernel's log, which reaches it, or standard error where that cannot be opened.
#[derive(Debug)]
pub struct Console(Option<File>);

impl Console {
    /// Opened once, because `/dev` is another one after the root was switched.
    pub fn open() -> Console {
        Console(OpenOptions::new().write(true).open("/dev/kmsg").ok())
    }

    /// One line. Nobody could be told of an error.
    pub fn say(&mut self, text: &str) {
        let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        // The kernel takes at most about 1000 bytes in a line; 4 is "warning", which a quiet console still hides.
        let line: String = line.chars().take(300).collect();
        let written = self.0.as_mut().map(|kmsg| kmsg.write_all(format!("<4>ralph-boot-guard: {line}\n").as_bytes()));
        if !matches!(written, Some(Ok(()))) {
            let _ = writeln!(io::stderr(), "ralph-boot-guard: {line}");
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct RealMachine {
    sys: SysRoot,
    console: Console,
    began: Instant,
    /// Where the EFI variables are to be read, once they were looked for.
    vars: Option<EfiVars>,
}

/// Whether there are EFI variables.
#[derive(Debug, Clone, PartialEq, Eq)]
enum EfiVars {
    /// This machine was not started by EFI.
    None,
    /// In this directory.
    At(PathBuf),
    /// They cannot be read.
    Unreadable,
}

impl Default for RealMachine {
    fn default() -> RealMachine {
        RealMachine { sys: SysRoot::real(), console: Console::open(), began: Instant::now(), vars: None }
    }
}

impl RealMachine {
    /// Finds the disk, and refuses where another might be taken for it (`DSK-32`, `DSK-33`).
    ///
    /// # Errors
    /// [`Stop`].
    pub fn find(&self, booted: &BootOptions, wait: Duration) -> Result<BootedDisk, Stop> {
        let disk = wait_for(wait, || find_named(&self.sys, booted.partuuid))?;
        disk.check_command_line(booted.slot, booted.partuuid)?;
        disk.check_loader_partition(&self.sys)?;
        match disk.clashes(&self.sys)?.into_iter().next() {
            Some(clash) => Err(clash.into()),
            None => Ok(disk),
        }
    }
}

impl RealMachine {
    /// Once, in a mount namespace of this process.
    fn efi_vars(&mut self) -> EfiVars {
        if let Some(vars) = &self.vars {
            return vars.clone();
        }
        let (vars, error) = find_vars(Path::new(EFI), mount_vars);
        if let Some(error) = error {
            self.console.say(&format!("the EFI variables cannot be read: {error}"));
        }
        self.vars = Some(vars.clone());
        vars
    }
}

impl crate::start::Machine for RealMachine {
    fn command_line(&mut self) -> Result<String, Stop> {
        Ok(self.sys.command_line()?)
    }

    fn selected(&mut self, wait: Duration) -> Result<Selected, Stop> {
        let EfiVars::At(dir) = self.efi_vars() else { return Err(NotSelected::Untold("LoaderEntrySelected").into()) };
        for name in ["LoaderEntrySelected", "LoaderDevicePartUUID"] {
            if is_kept(&dir, name) {
                return Err(NotSelected::Forged(name).into());
            }
        }
        let entry = read_text(&dir, "LoaderEntrySelected").map_err(NotSelected::from)?;
        let entry = entry.ok_or(NotSelected::Untold("LoaderEntrySelected"))?;
        let guid = self.sys.loader_partition()?.ok_or(NotSelected::Untold("LoaderDevicePartUUID"))?;
        let (path, len) = wait_for(wait, || find_esp(&self.sys, guid))?;
        let esp = File::open(&path).and_then(|file| FileWindow::new(file, 0, len));
        let esp = esp.map_err(|source| Stop::Open { path, source })?;
        Ok(Selected { entry, esp: ImageEsp::new(esp) })
    }

    fn left_options(&mut self) -> Option<String> {
        std::fs::read_to_string(self.sys.run().join(RUNNING_OPTIONS)).ok().map(|text| text.trim_end().to_owned())
    }

    fn leave_options(&mut self, options: &BootOptions) {
        for (name, text) in [(RUNNING_ROOT, options.running_root()), (RUNNING_OPTIONS, format!("{options}\n"))] {
            let path = self.sys.run().join(name);
            if let Err(error) = write_new(&path, &text) {
                self.console.say(&format!("cannot write {}: {error}", path.display()));
            }
        }
    }

    fn is_kexec(&mut self) -> bool {
        // Files that do not tell are no reason to leave a boot uncounted.
        started_by_kexec(Path::new("/")).unwrap_or(false)
    }

    fn disk(&mut self, booted: &BootOptions, wait: Duration) -> Result<OpenDisk, Stop> {
        // Before: the loader told there which partition it was started from (DSK-32).
        self.efi_vars();
        open_disk(&self.find(booted, wait)?)
    }

    fn loader_vars(&mut self) -> Option<LoaderVars> {
        match self.efi_vars() {
            EfiVars::None => Some(LoaderVars::default()),
            EfiVars::Unreadable => None,
            EfiVars::At(dir) => {
                let found = read_vars(&dir);
                for unreadable in &found.unreadable {
                    self.console.say(&told(unreadable));
                }
                found.unreadable.is_empty().then_some(found.vars)
            }
        }
    }

    fn counted(&mut self) -> Option<Counted> {
        let text = std::fs::read_to_string(COUNTED).ok()?;
        Some(Counted { stalled: text == STALLED })
    }

    fn set_counted(&mut self, counted: Counted) {
        if let Err(error) = write_new(Path::new(COUNTED), if counted.stalled { STALLED } else { "counted\n" }) {
            self.console.say(&format!("cannot write {COUNTED}: {error}"));
        }
    }

    fn in_time(&mut self) -> bool {
        self.began.elapsed() < CHANGES
    }

    fn look_again(&mut self, booted: &BootOptions) -> Result<(), Stop> {
        self.find(booted, Duration::ZERO).map(drop)
    }

    fn say(&mut self, text: &str) {
        self.console.say(text);
    }

    fn trial(&mut self, trial: &Trial) {
        // Standard output leads to the process that arms the deadline, see `launch`.
        let mut out = io::stdout();
        let written = out.write_all(format!("{trial}{}\n", crate::launch::END).as_bytes()).and_then(|()| out.flush());
        if let Err(error) = written {
            self.console.say(&format!("the deadline is not armed: {error}"));
        }
    }

    fn mark_bad(&mut self, booted: &BootOptions) -> Result<MarkedBad, MarkError> {
        let lock = UpdateLock::acquire(DEVICE_LOCK)?;
        let disk = self.find(booted, Duration::ZERO)?;
        let vars = self.loader_vars().ok_or(MarkError::Vars)?;
        let device = disk.esp_dev().to_owned();
        let mounted = PrivateMount::esp(&device, MountMode::ReadWrite)?;
        let point = mounted.point().to_owned();
        let mut esp =
            KernelEsp::mounted(&point, &device, Box::new(Mounted { device: device.clone(), mount: Some(mounted) }))?;
        // To mount it may have taken long.
        let asked = (&vars, EntryArchitecture::from(disk.layout.architecture));
        give_up(&lock, &mut esp, booted, asked, &mut || self.in_time())
    }

    fn reboot(&mut self) {
        restart(&mut self.console);
    }
}

/// Asks until the disk is there. Devices come and go while they are looked at, and the kernel may not have read the table yet.
fn wait_for<T>(wait: Duration, mut find: impl FnMut() -> Result<T, BootedError>) -> Result<T, BootedError> {
    let began = Instant::now();
    loop {
        match find() {
            Err(BootedError::NotThere(_) | BootedError::Sys(_) | BootedError::TableChanged { .. })
                if began.elapsed() < wait =>
            {
                sleep(POLL);
            }
            found => return found,
        }
    }
}

/// Writes a file below `/run`, and the folder that it is in.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
    std::fs::write(path, text)
}

/// Restarts the machine; returns when the kernel refuses.
pub fn restart(console: &mut Console) {
    let Err(errno) = reboot(RebootMode::RB_AUTOBOOT);
    console.say(&format!("the machine cannot be restarted: {}", errno.desc()));
}

/// Opens the record and the ESP of a disk.
///
/// # Errors
/// [`Stop::Open`]. A record that cannot be found is no error here.
pub fn open_disk(disk: &BootedDisk) -> Result<OpenDisk, Stop> {
    let path = disk.esp_dev();
    // To read only: nothing but the record is written without the kernel's file system.
    let esp = File::open(path).and_then(|file| FileWindow::new(file, 0, disk.layout.esp.len));
    let esp = esp.map_err(|source| Stop::Open { path: path.to_owned(), source })?;
    Ok(OpenDisk {
        guard: GuardDevice::open_partition(path, &disk.layout),
        esp: ImageEsp::new(esp),
        architecture: disk.layout.architecture.into(),
    })
}

/// Looks for the variables below `efi`, with `mount` where their directory is empty; and what went wrong.
fn find_vars(efi: &Path, mount: impl FnOnce(&Path) -> io::Result<()>) -> (EfiVars, Option<io::Error>) {
    if !efi.exists() {
        return (EfiVars::None, None);
    }
    let dir = efi.join("efivars");
    let found = std::fs::read_dir(&dir).and_then(|mut names| match names.next() {
        Some(_) => Ok(()),
        None => mount(&dir),
    });
    match found {
        Ok(()) => (EfiVars::At(dir), None),
        Err(error) => (EfiVars::Unreadable, Some(error)),
    }
}

/// In a namespace of this process, so that nothing is in the way of the system's own mount.
fn mount_vars(dir: &Path) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    Ok(mount(Some("efivarfs"), dir, Some("efivarfs"), flags, None::<&str>)?)
}

/// The private mount, for repairs that need the volume unmounted (`ENT-22`).
#[derive(Debug)]
struct Mounted {
    device: PathBuf,
    mount: Option<PrivateMount>,
}

impl Remount for Mounted {
    fn unmount(&mut self) -> io::Result<()> {
        self.mount.take().map_or(Ok(()), |mount| mount.unmount().map_err(io::Error::other))
    }

    fn mount(&mut self) -> io::Result<()> {
        self.mount = Some(PrivateMount::esp(&self.device, MountMode::ReadWrite).map_err(io::Error::other)?);
        Ok(())
    }
}

/// The record of the machine's disk as text (`GRD-31`).
///
/// # Errors
/// A sentence.
pub fn show() -> Result<String, String> {
    let machine = RealMachine::default();
    let booted = running_options(&machine.sys).map_err(|error| told(&error))?;
    let disk = machine.find(&booted, Duration::ZERO).map_err(|error| told(&error))?;
    let mut guard = GuardDevice::open_partition(disk.esp_dev(), &disk.layout).map_err(|error| told(&error))?;
    let sector = guard.read_sector().map_err(|error| told(&error))?;
    Ok(crate::launch::describe(&sector))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grd12_variables_that_are_there_and_cannot_be_read_are_not_taken_for_none() {
        let dir = tempfile::tempdir().unwrap();
        let efi = dir.path().join("efi");
        let never = |_: &Path| -> io::Result<()> { panic!("not mounted") };
        assert_eq!(find_vars(&efi, never).0, EfiVars::None);
        std::fs::create_dir(&efi).unwrap();
        assert_eq!(find_vars(&efi, never).0, EfiVars::Unreadable, "no directory for them");
        let vars = efi.join("efivars");
        std::fs::create_dir(&vars).unwrap();
        let (found, error) = find_vars(&efi, |_| Err(io::ErrorKind::Unsupported.into()));
        assert_eq!((found, error.map(|error| error.kind())), (EfiVars::Unreadable, Some(io::ErrorKind::Unsupported)));
        assert_eq!(find_vars(&efi, |_| Ok(())).0, EfiVars::At(vars.clone()));
        let one_shot = vars.join("LoaderEntryOneShot-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f");
        std::fs::create_dir(&one_shot).unwrap();
        assert_eq!(find_vars(&efi, never).0, EfiVars::At(vars.clone()), "the system has mounted them");
        let mut machine =
            RealMachine { vars: Some(EfiVars::At(vars)), console: Console(None), ..RealMachine::default() };
        assert_eq!(crate::start::Machine::loader_vars(&mut machine), None);
        std::fs::remove_dir(&one_shot).unwrap();
        assert_eq!(crate::start::Machine::loader_vars(&mut machine), Some(LoaderVars::default()));
    }
}
