//! The command line inside a unified kernel image, and the options that such a boot was started with (`ENT-15`, `ENT-16`).
//!
//! What is signed is the same in both slots and on all machines. Which slot, generation and system it is stands in the entry that
//! the loader chose, which nobody has signed: it may choose among what is signed, and nothing else.

use disk_layout::{SysError, SysRoot};

use crate::options::{BootOptions, OnCorruption, OptionsError, hex, words};

/// The word that says: the rest stands in the entry (`ENT-15`).
const MARK: &str = "ralph.entry=2";
/// The partition of the slot, by the name that the initrd gives it.
const DEVICE: &str = "/dev/ralphos/root";
/// systemd's own way for whoever writes to the ESP to hand it units and files is closed.
const NO_CREDENTIALS: &str = "systemd.import_credentials=no";
/// Where the guard leaves the options of the entry of this boot, for all that come after it, below `/run` (`ENT-16`).
pub const RUNNING_OPTIONS: &str = "ralphos/options";
/// The same for the initrd, a word a line: `partuuid=UUID` and perhaps `restart-on-corruption`. Nobody need take an entry's text
/// apart, which is not signed.
pub const RUNNING_ROOT: &str = "ralphos/root";

/// The options that this boot was started with cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum RunningError {
    /// The command line cannot be read.
    #[error(transparent)]
    Sys(#[from] SysError),
    /// It is not one of ours.
    #[error("the kernel's command line is not that of a RalphOS boot entry")]
    Options(#[from] OptionsError),
    /// The guard left nothing.
    #[error(
        "the boot guard has not left the options of this boot in /run/{RUNNING_OPTIONS}: was it started in the initrd?"
    )]
    NoGuard,
    /// The entry is of another system than the image that runs.
    #[error(transparent)]
    Differs(#[from] Differs),
}

/// An entry is not of the system whose command line was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the boot entry is of another system than the one whose command line was signed")]
pub struct Differs;

impl BootOptions {
    /// The text of [`RUNNING_ROOT`].
    pub fn running_root(&self) -> String {
        let restart = match self.on_corruption {
            OnCorruption::Restart => "restart-on-corruption\n",
            OnCorruption::Fail => "",
        };
        format!("partuuid={}\n{restart}", self.partuuid.hyphenated())
    }

    /// The command line of a unified kernel image for this system (`ENT-15`): the same whatever slot, generation and machine.
    pub fn signed_line(&self) -> String {
        let (hash, offset) = (hex(&self.root_hash), self.hash_offset);
        let line = format!(
            "root=/dev/mapper/root ro roothash={hash} systemd.verity_root_data={DEVICE} systemd.verity_root_hash={DEVICE} \
             systemd.verity_root_options=hash-offset={offset} {MARK} ralph.epoch={} ralph.version={} {NO_CREDENTIALS} {}",
            self.epoch, self.os_version, self.extra,
        );
        line.trim_end().to_owned()
    }
}

/// The kernel's command line is that of a unified kernel image of ours, so that the rest stands in the entry.
pub fn is_unified(line: &str) -> bool {
    words(line).any(|word| word == MARK)
}

/// An entry is of the system whose signed command line this is: to the byte, so that nothing that the entry says of it was made up.
///
/// # Errors
/// [`Differs`].
pub fn agree(line: &str, options: &BootOptions) -> Result<(), Differs> {
    if line.trim() == options.signed_line() { Ok(()) } else { Err(Differs) }
}

/// The options of the entry that this boot was started from: from the command line, or, for a unified kernel image, what the
/// guard left (`ENT-16`).
///
/// # Errors
/// When the kernel was not started from one of our entries, or what the guard left is not of the system that was signed.
pub fn running_options(sys: &SysRoot) -> Result<BootOptions, RunningError> {
    let line = sys.command_line()?;
    if !is_unified(&line) {
        return Ok(BootOptions::parse(&line)?);
    }
    let left = std::fs::read_to_string(sys.run().join(RUNNING_OPTIONS)).map_err(|_| RunningError::NoGuard)?;
    let options = BootOptions::parse(left.trim_end())?;
    agree(&line, &options)?;
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::with_default_words;
    use crate::testing::{any_options, options};
    use disk_layout::Slot;
    use proptest::prelude::*;

    const LINE: &str = "root=/dev/mapper/root ro \
        roothash=1111111111111111111111111111111111111111111111111111111111111111 \
        systemd.verity_root_data=/dev/ralphos/root systemd.verity_root_hash=/dev/ralphos/root \
        systemd.verity_root_options=hash-offset=1048576 ralph.entry=2 ralph.epoch=3 ralph.version=1.2.0 \
        systemd.import_credentials=no panic=10 oops=panic quiet";

    fn literal() -> BootOptions {
        BootOptions { extra: with_default_words("quiet"), ..options(Slot::B, 7) }
    }

    #[test]
    fn ent15_the_line_is_the_same_for_every_slot_and_machine() {
        assert_eq!(literal().signed_line(), LINE);
        let elsewhere = BootOptions { slot: Slot::A, failed: Some("guard".into()), ..literal() };
        assert_eq!(elsewhere.signed_line(), LINE);
        let bare = BootOptions { extra: String::new(), ..literal() };
        assert!(bare.signed_line().ends_with("=no"), "no blank at the end");
    }

    #[test]
    fn ent15_an_entry_must_say_what_was_signed() {
        agree(&format!("{LINE}\n"), &literal()).unwrap();
        assert!(is_unified(LINE) && !is_unified(&literal().to_string()));
        // A quoted blank is none to us, and is one to a shell: nothing may be in the entry that was not signed.
        let smuggled = format!("{} x=\" roothash={}\"", literal().extra, "9".repeat(64));
        for options in [
            BootOptions { root_hash: [9; 32], ..literal() },
            BootOptions { hash_offset: 4096, ..literal() },
            BootOptions { epoch: 2, ..literal() },
            BootOptions { os_version: "9".into(), ..literal() },
            BootOptions { extra: smuggled, ..literal() },
            BootOptions { extra: String::new(), ..literal() },
        ] {
            assert_eq!(agree(LINE, &options), Err(Differs), "{options}");
        }
    }

    #[test]
    fn ent16_what_the_guard_left_counts_only_if_it_agrees() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let sys = SysRoot::at(root.path());
        let left = "run/ralphos/options";
        put("proc/cmdline", &format!("{LINE}\n"));
        assert!(matches!(running_options(&sys), Err(RunningError::NoGuard)));
        put(left, &format!("{}\n", literal()));
        assert_eq!(running_options(&sys).unwrap(), literal());
        put(left, &BootOptions { root_hash: [9; 32], ..literal() }.to_string());
        assert!(matches!(running_options(&sys), Err(RunningError::Differs(_))));
        // Without a unified image nobody asks for the file.
        put("proc/cmdline", &literal().to_string());
        assert_eq!(running_options(&sys).unwrap(), literal());
    }

    proptest! {
        #[test]
        fn ent15_every_line_agrees_with_its_options_alone(options in any_options(), other in any_options()) {
            let line = options.signed_line();
            prop_assert!(is_unified(&line));
            prop_assert_eq!(agree(&line, &options), Ok(()));
            prop_assert_eq!(agree(&line, &other).is_ok(), line == other.signed_line());
        }
    }
}
