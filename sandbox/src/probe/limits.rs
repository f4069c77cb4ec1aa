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
    if status.code() == Some(helper::EXIT_NO_MEMORY.into()) {
        let why = "the system gives it none (vm.overcommit_memory=2?)";
        return Err(format!("a child got no more memory, but was not killed: {why}; expected SIGKILL by the limit"));
    }
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
    let max = read(&format!("{CGROUP}/pids.max"))?;
    let max = max.trim();
    if max.parse::<u32>().map_or(true, |pids| pids > limit) {
        return Err(format!("pids.max is {max}, expected at most {limit}"));
    }
    let before = number("pids.events", "max")?;
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
        Some(e) if e.raw_os_error() == Some(Errno::EAGAIN as i32) => {
            // Another limit, of the user or further up, says EAGAIN too.
            match number("pids.events", "max")? {
                after if after > before => Ok(format!("pids.max is {max}; EAGAIN after {count} children")),
                after => Err(format!("EAGAIN after {count} children, but max in pids.events is still {after}")),
            }
        }
        Some(e) => Err(format!("after {count} children: {e}, expected EAGAIN")),
    }
}

pub(super) fn cpu(percent: u32) -> Found {
    // Where there is no limit of its own, a limit further up would throttle, and be counted there.
    let max = read(&format!("{CGROUP}/cpu.max"))?;
    check_cpu_max(&max, percent)?;
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
            return Ok(format!("cpu.max is {}; throttled", max.trim()));
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

/// `QUOTA PERIOD`, both in microseconds, or `max PERIOD`.
fn check_cpu_max(text: &str, percent: u32) -> Result<(), String> {
    let words: Vec<Option<u64>> = text.split_whitespace().map(|word| word.parse().ok()).collect();
    match words.as_slice() {
        [Some(quota), Some(period)] if quota.saturating_mul(100) <= period.saturating_mul(percent.into()) => Ok(()),
        _ => Err(format!("cpu.max is {}, expected at most {percent} % of its period", text.trim())),
    }
}

fn number(file: &str, name: &str) -> Result<u64, String> {
    counter(&read(&format!("{CGROUP}/{file}"))?, name).ok_or_else(|| format!("no {name} in {CGROUP}/{file}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SBX-12, `cpu-limit`: the quota is compared, whatever the period.
    #[test]
    fn quotas_are_compared() {
        for text in ["50000 100000\n", "49999 100000", "5000 10000", "1000 100000"] {
            assert_eq!(check_cpu_max(text, 50), Ok(()), "{text}");
        }
        for text in ["max 100000\n", "50001 100000", "50000 99999", "", "50000", "50000 100000 1", "-1 100000"] {
            assert!(check_cpu_max(text, 50).unwrap_err().contains("at most 50 %"), "{text}");
        }
        assert_eq!(check_cpu_max("200000 100000", 200), Ok(()));
    }
}
