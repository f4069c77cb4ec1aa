//! What the probe may use.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::{Found, helper, read};
use crate::status::counter;

const CGROUP: &str = "/sys/fs/cgroup";

/// How long to try to be throttled: on a busy machine it takes a while until there is that much CPU to use.
const BURN: Duration = Duration::from_secs(10);

/// How long threads that ended may still count.
const GONE: Duration = Duration::from_secs(2);

/// Bytes of stack of a thread that only waits.
const STACK: usize = 64 << 10;

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
    let tasks = tasks()?;
    let tried = threads_until_refused(limit);
    wait_until_gone(tasks);
    match tried {
        (count, None) => Err(format!("{count} threads could be started, expected EAGAIN before")),
        (count, Some(e)) if e.raw_os_error() == Some(Errno::EAGAIN as i32) => {
            // Another limit, of the user or further up, says EAGAIN too.
            match number("pids.events", "max")? {
                after if after > before => Ok(format!("pids.max is {max}; EAGAIN after {count} threads")),
                after => Err(format!("EAGAIN after {count} threads, but max in pids.events is still {after}")),
            }
        }
        (count, Some(e)) => Err(format!("after {count} threads: {e}, expected EAGAIN")),
    }
}

/// How many there are in the sandbox.
fn tasks() -> Result<u32, String> {
    let text = read(&format!("{CGROUP}/pids.current"))?;
    text.trim().parse().map_err(|_| format!("pids.current is {}, expected a number", text.trim()))
}

/// A thread that ended counts until the kernel has let go of it; the walls that are tried next must not run into that.
fn wait_until_gone(tasks_before: u32) {
    let end = Instant::now() + GONE;
    while Instant::now() < end && tasks().is_ok_and(|tasks| tasks > tasks_before) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Starts threads that only wait, `limit` at most. Gives how many there were, and why there were no more. The controller
/// counts each as it counts a process; a process would have to be executed, which takes a hundred times as long.
fn threads_until_refused(limit: u32) -> (u32, Option<io::Error>) {
    let gate = Mutex::new(());
    let closed = gate.lock();
    std::thread::scope(|scope| {
        // Opened when this ends: then they end.
        let _closed = closed;
        for count in 0..limit {
            let thread = std::thread::Builder::new().stack_size(STACK);
            if let Err(error) = thread.spawn_scoped(scope, || drop(gate.lock())) {
                return (count, Some(error));
            }
        }
        (limit, None)
    })
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
                std::thread::Builder::new().spawn_scoped(scope, burn)?;
            }
            burn();
            Ok(())
        })
        .map_err(|e: io::Error| format!("cannot start a thread: {e}"))?;
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

    /// SBX-12, `pids-limit`: where nothing refuses them, all are started, and they end.
    #[test]
    fn threads_that_nobody_refuses_are_counted() {
        assert!(matches!(threads_until_refused(5), (5, None)));
    }

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
