//! What the guard tells the running system about a trial (`GRD-20`, `GRD-23`).

use std::fmt;
use std::time::Duration;

use boot_entries::Generation;
use disk_layout::Slot;

/// Where [`Trial`] lies; there is none on a committed boot. The initrd hands `/run` over to the system.
pub const TRIAL_FILE: &str = "/run/ralphos/trial";
/// A drop-in for systemd, written when another system would boot and somebody watches the deadline. Whoever disarms the
/// guard removes it.
pub const DROP_IN: &str = "/run/systemd/system/boot-complete.target.d/50-ralph-trial.conf";

/// Seconds by which [`DROP_IN`] is later than the deadline: the guard, which leaves an event, is the first way.
const SECOND_WAY: u32 = 60;

/// A boot on trial whose deadline is watched. Shown and parsed as one `key=value` a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trial {
    /// The slot that was booted.
    pub slot: Slot,
    /// Its generation.
    pub generation: Generation,
    /// Which try this is: DONE of the entry's counter.
    pub attempt: u32,
    /// Seconds from the start of the kernel to the deadline.
    pub deadline_seconds: u32,
    /// A restart is worth it: another whole entry boots if this one is given up, or may (`GRD-12`). Else nothing happens at the deadline.
    pub another: bool,
}

/// The text is not that of a [`Trial`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the boot guard's trial file has no valid {0}")]
pub struct NotATrial(pub &'static str);

impl Trial {
    /// Reads the text of [`TRIAL_FILE`]. Keys that are not known are passed over.
    ///
    /// # Errors
    /// The first key that is missing, stands twice or has no valid value.
    pub fn parse(text: &str) -> Result<Trial, NotATrial> {
        let value = |key: &'static str| {
            let mut found = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            match (found.next(), found.next()) {
                (Some(value), None) => Ok(value),
                _ => Err(NotATrial(key)),
            }
        };
        let number = |key| value(key)?.parse().map_err(|_| NotATrial(key));
        Ok(Trial {
            slot: value("slot")?.parse().map_err(|_| NotATrial("slot"))?,
            generation: value("generation")?.parse().map_err(|_| NotATrial("generation"))?,
            attempt: number("attempt")?,
            deadline_seconds: number("deadline-seconds")?,
            another: match value("another")? {
                "yes" => true,
                "no" => false,
                _ => return Err(NotATrial("another")),
            },
        })
    }

    /// The deadline, from the start of the kernel.
    pub fn deadline(&self) -> Duration {
        Duration::from_secs(self.deadline_seconds.into())
    }

    /// The text of [`DROP_IN`]: a second way to the same end, in systemd's own hands.
    pub fn drop_in(&self) -> String {
        format!(
            "# This boot is a trial: without a verdict by then the machine goes back to the other system.\n[Unit]\n\
             JobTimeoutSec={}\nJobTimeoutAction=reboot-force\n",
            self.deadline_seconds.saturating_add(SECOND_WAY)
        )
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let another = if self.another { "yes" } else { "no" };
        writeln!(f, "slot={}\ngeneration={}\nattempt={}", self.slot, self.generation, self.attempt)?;
        writeln!(f, "deadline-seconds={}\nanother={another}", self.deadline_seconds)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn trial() -> Trial {
        let generation = Generation::new(7).unwrap();
        Trial { slot: Slot::B, generation, attempt: 1, deadline_seconds: 600, another: true }
    }

    #[test]
    fn grd20_the_file_is_one_key_a_line() {
        let text = "slot=b\ngeneration=7\nattempt=1\ndeadline-seconds=600\nanother=yes\n";
        assert_eq!(trial().to_string(), text);
        assert_eq!(Trial::parse(text), Ok(trial()));
        assert_eq!(Trial::parse(&format!("new=1\n{text}")), Ok(trial()));
        for key in ["slot", "generation", "attempt", "deadline-seconds", "another"] {
            let line = text.lines().find(|line| line.starts_with(&format!("{key}="))).unwrap();
            assert_eq!(Trial::parse(&text.replace(line, "")), Err(NotATrial(key)));
            assert_eq!(Trial::parse(&format!("{text}{line}\n")), Err(NotATrial(key)), "twice");
            assert_eq!(Trial::parse(&text.replace(line, &format!("{key}=x"))), Err(NotATrial(key)));
        }
    }

    #[test]
    fn grd23_the_drop_in_ends_the_boot_by_force() {
        let text = trial().drop_in();
        assert!(text.ends_with("[Unit]\nJobTimeoutSec=660\nJobTimeoutAction=reboot-force\n"), "{text}");
    }

    proptest! {
        #[test]
        fn grd20_all_trials_round_trip(a: bool, n in 1..=u32::MAX, attempt: u32, deadline_seconds: u32, another: bool) {
            let slot = if a { Slot::A } else { Slot::B };
            let trial = Trial { slot, generation: Generation::new(n).unwrap(), attempt, deadline_seconds, another };
            prop_assert_eq!(Trial::parse(&trial.to_string()), Ok(trial));
        }

        #[test]
        fn any_text_never_panics(text in "\\PC*") {
            let _ = Trial::parse(&text);
        }
    }
}
