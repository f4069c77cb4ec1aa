//! What the stand-in is told to do, in `/var/lib/ralphd/behave`, else in `/usr/lib/ralphd/behave` (so that an image can
//! carry a bad version). One instruction a line; an empty file, or none, is a `ralphd` that keeps the contract:
//!
//! - `ready`: nothing special;
//! - `never-ready`: stays, and never tells systemd that it is up (HLT-1);
//! - `crash-after SECONDS`: gets ready, and ends with code 1 after that time (HLT-2);
//! - `health-failed`: says so on `/v1/health` (HLT-5);
//! - `policy-not-loaded`, `policy-hangs`: no policy, or no answer on `/v1/policy` (HLT-6);
//! - `wrong-contract`: every answer has a contract number that nobody knows (HLT-4);
//! - `no-api`: no northbound API (HLT-9);
//! - `sandbox-offered`: runs commands in its own sandbox (HLT-7, HLT-8);
//! - `sandbox-without WALL`: the same, with that wall left out, each such line one more;
//! - `migrates-early`: changes its database before the commit, which HLT-3 forbids.

use std::time::Duration;

use anyhow::{Context, Result, bail};

/// All instructions, put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behaviour {
    /// How it gets ready and how long it lives.
    pub life: Life,
    /// What `/v1/policy` says.
    pub policy: Policy,
    /// `/v1/health` says `failed`.
    pub health_failed: bool,
    /// Answers carry an unknown contract number.
    pub wrong_contract: bool,
    /// The northbound API answers.
    pub api: bool,
    /// It runs commands in a sandbox, which lacks these walls.
    pub sandbox: Option<Vec<String>>,
    /// The database is migrated before the commit.
    pub migrates_early: bool,
}

/// How it gets ready, and how long it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// At once, for good.
    Ready,
    /// Never ready.
    NeverReady,
    /// Ready at once, and dead after this time.
    CrashAfter(Duration),
}

/// What the policy engine says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// A policy is loaded.
    Loaded,
    /// None is.
    NotLoaded,
    /// It takes the question and never answers.
    Hangs,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            life: Life::Ready,
            policy: Policy::Loaded,
            health_failed: false,
            wrong_contract: false,
            api: true,
            sandbox: None,
            migrates_early: false,
        }
    }
}

/// Reads what it is told.
pub fn told() -> Result<Behaviour> {
    for path in ["/var/lib/ralphd/behave", "/usr/lib/ralphd/behave"] {
        match std::fs::read_to_string(path) {
            Ok(text) => return parse(&text).with_context(|| path.to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read {path}")),
        }
    }
    Ok(Behaviour::default())
}

fn parse(text: &str) -> Result<Behaviour> {
    let mut told = Behaviour::default();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [] | ["ready"] => {}
            ["never-ready"] => told.life = Life::NeverReady,
            ["crash-after", seconds] => {
                told.life = Life::CrashAfter(Duration::from_secs(seconds.parse().context("seconds")?));
            }
            ["health-failed"] => told.health_failed = true,
            ["policy-not-loaded"] => told.policy = Policy::NotLoaded,
            ["policy-hangs"] => told.policy = Policy::Hangs,
            ["wrong-contract"] => told.wrong_contract = true,
            ["no-api"] => told.api = false,
            ["sandbox-offered"] => told.sandbox = Some(told.sandbox.unwrap_or_default()),
            ["sandbox-without", wall] => told.sandbox.get_or_insert_default().push(wall.to_owned()),
            ["migrates-early"] => told.migrates_early = true,
            _ => bail!("no such behaviour: {line:?}"),
        }
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_behaviour_is_an_error_and_not_ready() {
        assert_eq!(parse("ready\n").expect("known"), Behaviour::default());
        assert!(parse("redy").is_err());
        assert!(parse("crash-after soon").is_err());
        assert!(parse("policy-hangs\nwhatever").is_err());
    }

    #[test]
    fn behaviours_combine() {
        let told =
            parse("crash-after 7\npolicy-not-loaded\nno-api\nsandbox-without seccomp\nsandbox-without overlay\n");
        let expected = Behaviour {
            life: Life::CrashAfter(Duration::from_secs(7)),
            policy: Policy::NotLoaded,
            api: false,
            sandbox: Some(vec!["seccomp".into(), "overlay".into()]),
            ..Behaviour::default()
        };
        assert_eq!(told.expect("known"), expected);
        assert_eq!(parse("sandbox-offered").expect("known").sandbox, Some(vec![]));
    }
}
