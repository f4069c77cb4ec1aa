//! systemd, as a seam: what is known of a unit, asked of `systemctl show`.

#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use crate::process::{self, End, StartError};

/// Absolute, because the environment we were started in is not ours to trust.
pub const SYSTEMCTL: &str = "/usr/bin/systemctl";

/// The properties we ask for, in systemd's spelling.
const PROPERTIES: &str = "LoadState,ActiveState,SubState,NRestarts,ActiveEnterTimestampMonotonic,Result";

/// What systemd says of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitShow {
    /// `LoadState`: `loaded`, `not-found`, `masked`, …
    pub load: String,
    /// `ActiveState`: `active`, `activating`, `failed`, …
    pub active: String,
    /// `SubState`: depends on the kind of the unit.
    pub sub: String,
    /// `NRestarts`: automatic restarts; services alone have it.
    pub restarts: Option<u32>,
    /// `ActiveEnterTimestampMonotonic`: when it last became active, on `CLOCK_MONOTONIC`; `None` if it never did.
    pub active_since: Option<Duration>,
    /// `Result`: how its last run ended; not every kind has it.
    pub result: Option<String>,
}

/// Why nothing is known of a unit.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// systemctl did not start.
    #[error("cannot ask systemd")]
    Start(#[source] StartError),
    /// systemctl did not succeed.
    #[error("systemctl {how}: {output}")]
    Failed {
        /// How it ended.
        how: String,
        /// What it printed.
        output: String,
    },
    /// systemctl left out a property that every unit has.
    #[error("systemctl did not print {0}")]
    Missing(&'static str),
    /// A property that is a number is none.
    #[error("systemctl printed {key}={value}, which is not a number")]
    Number {
        /// The property.
        key: &'static str,
        /// Its value.
        value: String,
    },
}

/// What we ask of systemd about units.
pub trait Systemd: Send + Sync {
    /// Asks for one unit; gives up after `within`.
    fn show(&self, unit: &str, within: Duration) -> Result<UnitShow, SystemdError>;
}

/// systemctl of this machine.
#[derive(Debug)]
pub struct Systemctl;

impl Systemd for Systemctl {
    fn show(&self, unit: &str, within: Duration) -> Result<UnitShow, SystemdError> {
        let properties = format!("--property={PROPERTIES}");
        parse_show(&systemctl(&["show", "--no-pager", &properties, "--", unit], within)?)
    }
}

/// Runs systemctl; its output if it exits 0.
pub fn systemctl(args: &[&str], within: Duration) -> Result<String, SystemdError> {
    let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
    let ended = process::run(Path::new(SYSTEMCTL), &args, within).map_err(SystemdError::Start)?;
    let how = match ended.end {
        End::Code(0) => return Ok(ended.output),
        End::Code(code) => format!("exited with code {code}"),
        End::Signal(signal) => format!("was ended by signal {signal}"),
        End::Deadline => format!("did not answer within {} ms", within.as_millis()),
    };
    Err(SystemdError::Failed { how, output: ended.output.trim().to_owned() })
}

/// Reads the `Key=value` lines of `systemctl show`; keys may come in any order, unknown ones are passed over.
pub fn parse_show(text: &str) -> Result<UnitShow, SystemdError> {
    let value = |key: &'static str| {
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).filter(|value| !value.is_empty())
    };
    let needed = |key| value(key).map(str::to_owned).ok_or(SystemdError::Missing(key));
    let micros = match value("ActiveEnterTimestampMonotonic") {
        None => 0,
        Some(text) => number("ActiveEnterTimestampMonotonic", text)?,
    };
    Ok(UnitShow {
        load: needed("LoadState")?,
        active: needed("ActiveState")?,
        sub: needed("SubState")?,
        restarts: value("NRestarts").map(|text| number("NRestarts", text)).transpose()?,
        active_since: (micros > 0).then(|| Duration::from_micros(micros)),
        result: value("Result").map(str::to_owned),
    })
}

fn number<N: std::str::FromStr>(key: &'static str, value: &str) -> Result<N, SystemdError> {
    value.parse().map_err(|_| SystemdError::Number { key, value: value.to_owned() })
}
