//! Processes that left the group of the check that started them.
//!
//! A process that makes a session of its own (`setsid`) is out of reach of its group's signal. As a *child subreaper* we become
//! the parent of every such process once its own parent is gone, and find it there when all checks have ended (HLT-20).

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

/// How long killing may take; a process that is stuck in the kernel is left to the service's cgroup.
const LONGEST: Duration = Duration::from_secs(2);

/// The children that this process had before any check began: a program may be executed in place of one that had started some. They are no
/// strays. We never reap them, so their numbers cannot go to others.
#[derive(Debug)]
pub struct Spared(Vec<Pid>);

/// Makes this process the parent of orphans that its children leave; call it before the first check. Without it (it is refused nowhere on
/// Linux 3.4 or later) strays go to the system's own reaper and only the service's cgroup ends them.
pub fn adopt_strays() -> (Spared, nix::Result<()>) {
    (Spared(children()), nix::sys::prctl::set_child_subreaper(true))
}

/// Kills every child of this process that is not spared, and those that become children thereby; says how many. Call it only while nobody
/// waits for a child.
pub fn kill_strays(spared: &Spared) -> usize {
    let until = Instant::now() + LONGEST;
    let mut killed = 0;
    loop {
        let mut children = children();
        children.retain(|child| !spared.0.contains(child));
        if children.is_empty() || Instant::now() > until {
            return killed;
        }
        for child in children {
            // A child stays ours until we reap it: its number cannot have gone to somebody else.
            let _ = kill(child, Signal::SIGKILL);
            match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
                Ok(nix::sys::wait::WaitStatus::StillAlive) => {}
                Ok(_) | Err(nix::Error::EINVAL) => killed += 1,
                Err(_) => {}
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn children() -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let own = Pid::this();
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw))
        .filter(|pid| {
            let stat = fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
            parent(&stat) == Some(own)
        })
        .collect()
}

/// The parent in the text of `/proc/PID/stat`: the second field behind the name, which stands in parentheses and may hold any byte.
fn parent(stat: &[u8]) -> Option<Pid> {
    let name_ends = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(&stat[name_ends + 1..]).ok()?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok().map(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_pose_as_the_parent() {
        assert_eq!(parent(b"7 (sh) S 42 7 7 0"), Some(Pid::from_raw(42)));
        assert_eq!(parent(b"7 (a) S 1 (b) R 42 7 7"), Some(Pid::from_raw(42)));
        assert_eq!(parent(b"7 (\xff) Z 42 7 7"), Some(Pid::from_raw(42)));
        assert_eq!(parent(b""), None);
        assert_eq!(parent(b"7 (sh)"), None);
    }

    #[test]
    fn our_own_children_are_found() {
        let mut child = std::process::Command::new("/bin/sleep").arg("60").spawn().expect("sleep");
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        assert!(children().contains(&pid));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!children().contains(&pid));
    }
}
