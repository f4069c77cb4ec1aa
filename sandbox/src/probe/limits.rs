//! What the probe may use.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::{Found, helper, read};
use crate::status::counter;

const CGROUP: &str = "/sys/fs/cgroup";

/// How long to try to be throttled: on a busy machine it takes a while until there is that much CPU to use.
const BURN: Duration = Duration::from_secs(10);

pub(super) fn memory(limit: u64) -> Found {
    let max = read(&format!("{CGROUP}/memory.max"))?;
    let max = max.trim();
    if max.parse::<u64>().map_or(true, |bytes| bytes > limit) {
        return Err(format!("memory.max is {max}, expected at most {limit}"));
    }
    let before = number("memory.events", "oom_kill")?;
    let status = helper::allocate_in_child(limit.saturating_mul(2))?;
    if status.signal() != Some(Signal::SIGKILL as i32) {
        return Err(format!("a child that uses {limit} bytes twice ended with {status}, expected SIGKILL"));
    }
    let after = number("memory.events", "oom_kill")?;
    if after > before {
        Ok(format!("memory.max is {max}; a child that used more was killed"))
    } else {
        Err(format!("a child was killed, but oom_kill is still {after}"))
    }
}

pub(super) fn pids(limit: u32) -> Found {
    let mut children = Vec::new();
    let refused = loop {
        if children.len() >= limit as usize {
            break None;
        }
        match helper::Sleeper::start() {
            Ok(child) => children.push(child),
            Err(error) => break Some(error),
        }
    };
    let count = children.len();
    drop(children);
    match refused {
        None => Err(format!("{count} children could be started, expected EAGAIN before")),
        Some(e) if e.raw_os_error() == Some(Errno::EAGAIN as i32) => Ok(format!("EAGAIN after {count} children")),
        Some(e) => Err(format!("after {count} children: {e}, expected EAGAIN")),
    }
}

pub(super) fn cpu(percent: u32) -> Found {
    // Where there is no limit of its own, a limit further up would throttle, and be counted there.
    read(&format!("{CGROUP}/cpu.max"))?;
    let before = number("cpu.stat", "nr_throttled")?;
    let start = Instant::now();
    // One more than the limit lets run, and one for what else the machine does.
    let threads = percent / 100 + 2;
    let burn = || {
        let slice = Instant::now();
        while slice.elapsed() < Duration::from_millis(25) {
            std::hint::spin_loop();
        }
    };
    let used_before = number("cpu.stat", "usage_usec")?;
    loop {
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(burn);
            }
            burn();
        });
        if number("cpu.stat", "nr_throttled")? > before {
            return Ok("throttled".to_owned());
        }
        let used = Duration::from_micros(number("cpu.stat", "usage_usec")?.saturating_sub(used_before));
        let wall = start.elapsed();
        // Two periods (of 100 ms) have passed, and more was used than the limit allows in the time.
        let allowed = (wall + Duration::from_millis(200)) * percent / 100;
        if used > allowed || wall > BURN {
            let (used, wall) = (used.as_millis(), wall.as_millis());
            return Err(format!("{used} ms of CPU time used in {wall} ms and not throttled, expected {percent} %"));
        }
    }
}

fn number(file: &str, name: &str) -> Result<u64, String> {
    counter(&read(&format!("{CGROUP}/{file}"))?, name).ok_or_else(|| format!("no {name} in {CGROUP}/{file}"))
}
