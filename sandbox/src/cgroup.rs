//! The cgroup of a sandbox: where it lies, its limits, its end (SBX-3, SBX-23).

mod location;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::{Error, Explain};
use crate::{Limits, Wall};
use location::CALLER;
pub(crate) use location::own_cgroup;

const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// The period of `cpu.max`, in microseconds.
pub(crate) const CPU_PERIOD: u64 = 100_000;

/// How long killed processes may take to be gone.
const GONE: Duration = Duration::from_secs(10);

/// How often to look for processes that are not moved yet.
const MOVES: usize = 20;

/// The cgroup of one sandbox. Dropping it kills all that is in it and removes it.
#[derive(Debug)]
pub(crate) struct Cgroup {
    dir: PathBuf,
}

impl Cgroup {
    /// Makes `sandbox-PID` below the caller's delegated cgroup, with the limits but those left out.
    pub fn create(limits: &Limits, without: &BTreeSet<Wall>) -> Result<Self, Error> {
        let base = delegated(&own_cgroup()?)?;
        enable_controllers(&base)?;
        sweep(&base);
        let dir = base.join(format!("sandbox-{}", std::process::id()));
        fs::create_dir(&dir).at("create", &dir)?;
        let cgroup = Self { dir };
        cgroup.limit(limits, without)?;
        Ok(cgroup)
    }

    fn limit(&self, limits: &Limits, without: &BTreeSet<Wall>) -> Result<(), Error> {
        if !without.contains(&Wall::MemoryLimit) {
            self.write("memory.max", &limits.memory.to_string())?;
            match self.write("memory.swap.max", "0") {
                // The kernel was built without swap.
                Err(Error::Path { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        if !without.contains(&Wall::PidsLimit) {
            self.write("pids.max", &limits.pids.to_string())?;
        }
        if !without.contains(&Wall::CpuLimit) {
            let quota = CPU_PERIOD * u64::from(limits.cpu_percent) / 100;
            self.write("cpu.max", &format!("{quota} {CPU_PERIOD}"))?;
        }
        Ok(())
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Moves a process into it.
    pub fn add(&self, pid: u32) -> Result<(), Error> {
        self.write("cgroup.procs", &pid.to_string())
    }

    /// Kills every process in it.
    pub fn kill(&self) -> Result<(), Error> {
        if self.dir.join("cgroup.kill").exists() {
            return self.write("cgroup.kill", "1");
        }
        // Before Linux 5.14. Processes that are being born escape one round, not all: there are fewer each time.
        for _ in 0..100 {
            let pids = members(&self.dir)?;
            if pids.is_empty() {
                break;
            }
            for pid in pids {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Kills all that is in it, waits until it is gone, and removes it.
    pub fn remove(self) -> Result<(), Error> {
        let result = self.kill_and_remove();
        std::mem::forget(self);
        result
    }

    fn kill_and_remove(&self) -> Result<(), Error> {
        let deadline = Instant::now() + GONE;
        loop {
            self.kill()?;
            match fs::remove_dir(&self.dir) {
                Err(e) if e.raw_os_error() == Some(Errno::EBUSY as i32) && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                other => return other.at("remove the cgroup", &self.dir),
            }
        }
    }

    fn write(&self, file: &'static str, value: &str) -> Result<(), Error> {
        let path = self.dir.join(file);
        fs::write(&path, value).at("write", &path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = self.kill_and_remove();
    }
}

/// The cgroup whose children we may make: the caller's, emptied into `caller`. Nobody is moved before it is known
/// that systemd has delegated it, and that it offers what is needed.
fn delegated(own: &Path) -> Result<PathBuf, Error> {
    let refuse = |why: String| Error::NotDelegated { path: own.to_owned(), why };
    if own.file_name().is_some_and(|name| name == CALLER)
        && let Some(base) = own.parent()
    {
        location::check_delegated(base).map_err(refuse)?;
        check_offered(base)?;
        return Ok(base.to_owned());
    }
    if !own.join("cgroup.type").exists() {
        return Err(refuse("it is the root of all cgroups".to_owned()));
    }
    if location::is_login_session(own) {
        return Err(refuse("it belongs to a login session".to_owned()));
    }
    location::check_delegated(own).map_err(refuse)?;
    check_offered(own)?;
    let caller = own.join(CALLER);
    match fs::create_dir(&caller) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        other => other.at("create", &caller)?,
    }
    // More than once: a process that is moved may just have started another one.
    for _ in 0..MOVES {
        let pids = members(own)?;
        if pids.is_empty() {
            break;
        }
        // With those that are there already, moved by this `run` or by another: they hold the tree together.
        if let Err(why) = location::check_one_tree(&[pids.as_slice(), &members(&caller)?].concat()) {
            // Only succeeds while nobody is in it.
            let _ = fs::remove_dir(&caller);
            return Err(refuse(why));
        }
        pids.into_iter().try_for_each(|pid| move_to(&caller, pid))?;
    }
    Ok(own.to_owned())
}

fn move_to(cgroup: &Path, pid: i32) -> Result<(), Error> {
    match fs::write(cgroup.join("cgroup.procs"), pid.to_string()) {
        // It has ended since.
        Err(e) if e.raw_os_error() == Some(Errno::ESRCH as i32) => Ok(()),
        other => other.at("move processes into", cgroup),
    }
}

fn has(list: &str, controller: &str) -> bool {
    list.split_whitespace().any(|word| word == controller)
}

fn check_offered(base: &Path) -> Result<(), Error> {
    let path = base.join("cgroup.controllers");
    let offered = fs::read_to_string(&path).at("read", &path)?;
    match CONTROLLERS.into_iter().find(|controller| !has(&offered, controller)) {
        None => Ok(()),
        Some(controller) => Err(Error::NoController { controller, path: base.to_owned() }),
    }
}

fn enable_controllers(base: &Path) -> Result<(), Error> {
    let path = base.join("cgroup.subtree_control");
    let enabled = fs::read_to_string(&path).at("read", &path)?;
    for controller in CONTROLLERS.into_iter().filter(|controller| !has(&enabled, controller)) {
        match fs::write(&path, format!("+{controller}")) {
            Err(e) if e.raw_os_error() == Some(Errno::EBUSY as i32) => {
                let why = "it holds processes of others".to_owned();
                return Err(Error::NotDelegated { path: base.to_owned(), why });
            }
            other => other.at("enable controllers in", &path)?,
        }
    }
    Ok(())
}

/// Removes what a `run` that was killed by SIGKILL could not: its processes have died with it, its cgroup has not.
fn sweep(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix("sandbox-"));
        if let Some(pid) = pid.and_then(|pid| pid.parse::<u32>().ok())
            && (pid == std::process::id() || !Path::new("/proc").join(pid.to_string()).exists())
        {
            // Only succeeds on an empty one.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

fn members(dir: &Path) -> Result<Vec<i32>, Error> {
    let path = dir.join("cgroup.procs");
    let text = fs::read_to_string(&path).at("read", &path)?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{XattrFlags, setxattr};

    /// A folder with the files of a cgroup, in which process 1 is.
    fn cgroup(controllers: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (file, content) in [("cgroup.type", "domain"), ("cgroup.controllers", controllers), ("cgroup.procs", "1\n")]
        {
            fs::write(dir.path().join(file), content).unwrap();
        }
        dir
    }

    fn delegate(dir: &Path, value: &str) {
        let set = |name: &str| setxattr(dir, name, value.as_bytes(), XattrFlags::empty());
        set("user.delegate").or_else(|_| set("trusted.delegate")).expect("a temporary folder with attributes");
    }

    /// SBX-23: a cgroup that nobody has delegated is left as it is, whoever is in it.
    #[test]
    fn what_is_not_delegated_is_refused() {
        let dir = cgroup("cpu memory pids");
        let caller = dir.path().join(CALLER);
        for value in [None, Some("0"), Some("10"), Some("")] {
            value.into_iter().for_each(|value| delegate(dir.path(), value));
            let error = delegated(dir.path()).unwrap_err().to_string();
            assert!(error.contains("systemd has not delegated it"), "{error}");
            assert!(error.contains("systemd-run --pipe --wait -p Delegate=yes"), "{error}");
            assert!(!caller.exists(), "it was changed");
        }
        fs::create_dir(&caller).unwrap();
        assert!(delegated(&caller).unwrap_err().to_string().contains("has not delegated"), "a name is no delegation");
        delegate(dir.path(), "1");
        assert_eq!(delegated(&caller).unwrap(), dir.path());
    }

    /// SBX-23: what is missing is known before anybody is moved.
    #[test]
    fn controllers_are_looked_for_before_anybody_is_moved() {
        let dir = cgroup("cpuset cpu pids");
        delegate(dir.path(), "1");
        let error = delegated(dir.path()).unwrap_err();
        assert!(matches!(error, Error::NoController { controller: "memory", .. }), "{error}");
        assert!(!dir.path().join(CALLER).exists());
        // With it, the next look is at who is in there: process 1 is none of ours.
        fs::write(dir.path().join("cgroup.controllers"), "cpuset cpu io memory pids\n").unwrap();
        fs::create_dir(dir.path().join(CALLER)).unwrap();
        fs::write(dir.path().join(CALLER).join("cgroup.procs"), "").unwrap();
        let error = delegated(dir.path()).unwrap_err().to_string();
        assert!(error.contains("it holds a process of others"), "{error}");
    }
}
