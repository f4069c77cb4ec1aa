//! Rebooting, as a seam.

use std::time::Duration;

use crate::systemd::{SystemdError, systemctl};

/// How long systemctl may take to pass the order on.
const ORDER: Duration = Duration::from_secs(60);

/// The two ways to reboot that we use.
pub trait Reboot {
    /// Stops everything in order, then reboots. Returns once the order is given.
    fn orderly(&self) -> Result<(), SystemdError>;
    /// Does not wait for units to stop; file systems are still synced and unmounted.
    fn forced(&self) -> Result<(), SystemdError>;
}

/// systemctl of this machine.
#[derive(Debug)]
pub struct Systemctl;

impl Reboot for Systemctl {
    fn orderly(&self) -> Result<(), SystemdError> {
        systemctl(&["reboot"], ORDER).map(drop)
    }

    fn forced(&self) -> Result<(), SystemdError> {
        systemctl(&["reboot", "--force"], ORDER).map(drop)
    }
}
