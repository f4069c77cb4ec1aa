//! Rebooting, as a seam, and so that it happens: in order if that works, by force if it does not come to an end (HLT-36).

#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use nix::sys::reboot::{RebootMode, reboot as reboot_now};

use crate::clock::Clock;
use crate::limit;
use crate::machine::Fault;
use crate::process::{self, End};
use crate::systemd::systemctl;

/// How long systemctl may take to pass the order on.
const ORDER: Duration = Duration::from_secs(60);
/// A reboot that has not happened by then is forced (HLT-36).
const FORCED_AFTER: Duration = Duration::from_secs(180);
/// How long what is not yet written may take to reach the disks before the last resort.
const SYNC: Duration = Duration::from_secs(10);
/// The program that makes the timer.
const SYSTEMD_RUN: &str = "/usr/bin/systemd-run";

/// The ways to reboot that we use, from gentle to certain.
pub trait Reboot {
    /// Has systemd force the reboot when this time is over, whatever stops or does not stop meanwhile, this program included.
    fn forced_after(&self, time: Duration) -> Result<(), Fault>;
    /// Stops everything in order, then reboots. Returns once the order is given.
    fn orderly(&self) -> Result<(), Fault>;
    /// Does not wait for units to stop; file systems are still synced and unmounted.
    fn forced(&self) -> Result<(), Fault>;
    /// The kernel's own, without systemd. Returns only if it is refused.
    fn at_once(&self) -> Result<(), Fault>;
}

/// Reboots, in order. From here on systemd is bounded by a timer, and at last by the guard, which stays armed. `false` if nothing of it could be
/// asked for.
pub fn begin(reboot: &dyn Reboot, say: &mut dyn FnMut(&str)) -> bool {
    if let Err(error) = reboot.forced_after(FORCED_AFTER) {
        say(&format!("systemd takes no timer for a forced reboot: {}", crate::chain(error.as_ref())));
    }
    let Err(error) = reboot.orderly() else { return true };
    say(&format!("cannot reboot in order, now by force: {}", crate::chain(error.as_ref())));
    let Err(error) = reboot.forced() else { return true };
    say(&format!("cannot reboot by force, now without systemd: {}", crate::chain(error.as_ref())));
    let Err(error) = reboot.at_once() else { return true };
    say(&format!("cannot reboot: {}", crate::chain(error.as_ref())));
    false
}

/// After [`begin`]: an orderly reboot ends this program. One that does not is forced.
pub fn outlast(reboot: &dyn Reboot, clock: &dyn Clock, say: &mut dyn FnMut(&str)) {
    clock.sleep(FORCED_AFTER);
    say("the reboot has not come to an end, now by force");
    if let Err(error) = reboot.forced() {
        say(&format!("cannot reboot by force: {}", crate::chain(error.as_ref())));
    }
    clock.sleep(ORDER);
    if let Err(error) = reboot.at_once() {
        say(&format!("cannot reboot: {}", crate::chain(error.as_ref())));
    }
}

/// This machine.
#[derive(Debug)]
pub struct ThisMachine;

impl Reboot for ThisMachine {
    fn forced_after(&self, time: Duration) -> Result<(), Fault> {
        // Without default dependencies both units outlive the shutdown's stopping of everything, and are no reason for it to wait.
        let args = [
            "--quiet",
            "--collect",
            &format!("--on-active={}s", time.as_secs()),
            "--timer-property=DefaultDependencies=no",
            "--timer-property=AccuracySec=1s",
            "--property=DefaultDependencies=no",
            "--",
            crate::systemd::SYSTEMCTL,
            "reboot",
            "--force",
        ]
        .map(str::to_owned);
        let ended = process::run(Path::new(SYSTEMD_RUN), &args, ORDER)?;
        match ended.end {
            End::Code(0) => Ok(()),
            end => Err(format!("systemd-run: {end:?}: {}", ended.output.trim()).into()),
        }
    }

    fn orderly(&self) -> Result<(), Fault> {
        // What `systemctl reboot` comes to in the end, without asking logind first: that may hang where /var is broken (measured: 45 s).
        Ok(systemctl(&["--no-block", "--job-mode=replace-irreversibly", "start", "reboot.target"], ORDER).map(drop)?)
    }

    fn forced(&self) -> Result<(), Fault> {
        Ok(systemctl(&["reboot", "--force"], ORDER).map(drop)?)
    }

    fn at_once(&self) -> Result<(), Fault> {
        let _ = limit::within(SYNC, nix::unistd::sync);
        match reboot_now(RebootMode::RB_AUTOBOOT) {
            Err(errno) => Err(errno.into()),
            Ok(never) => match never {},
        }
    }
}
