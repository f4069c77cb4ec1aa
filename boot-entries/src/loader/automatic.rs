//! What the loader offers besides entries (`LDR-8`).

use super::glob::matches;

/// Which of its own offers loader.conf leaves on. Whether they are really there depends on other disks, the firmware and
/// files that the model does not look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Automatic {
    /// Other systems and loaders.
    entries: bool,
    /// The firmware's menu.
    firmware: bool,
    /// Switching off.
    poweroff: bool,
    /// Starting again.
    reboot: bool,
    /// Keys for Secure Boot.
    keys: bool,
}

impl Default for Automatic {
    /// Without loader.conf.
    fn default() -> Automatic {
        Automatic { entries: true, firmware: true, poweroff: false, reboot: false, keys: true }
    }
}

impl Automatic {
    /// Takes a line of loader.conf. What is no yes or no changes nothing.
    pub(super) fn set(&mut self, key: &[u8], value: &[u8]) {
        let yes_or_no = match value {
            b"1" | b"yes" | b"y" | b"true" | b"t" | b"on" => Some(true),
            b"0" | b"no" | b"n" | b"false" | b"f" | b"off" => Some(false),
            _ => None,
        };
        match (key, yes_or_no) {
            (b"auto-entries", Some(on)) => self.entries = on,
            (b"auto-firmware", Some(on)) => self.firmware = on,
            (b"auto-poweroff", Some(on)) => self.poweroff = on,
            (b"auto-reboot", Some(on)) => self.reboot = on,
            (b"secure-boot-enroll", _) if value == b"off" => self.keys = false,
            (b"secure-boot-enroll", _) if [&b"manual"[..], b"force", b"if-safe"].contains(&value) => self.keys = true,
            _ => {}
        }
    }

    /// True when this pattern may name something that is no entry. By order alone no such thing boots before an entry.
    pub(super) fn may_match(self, pattern: &str) -> bool {
        let ids = [
            (self.entries, "auto-osx"),
            (self.entries, "auto-windows"),
            (self.entries, "auto-efi-shell"),
            (self.entries, "auto-efi-default"),
            (self.firmware, "auto-reboot-to-firmware-setup"),
            (self.poweroff, "auto-poweroff"),
            (self.reboot, "auto-reboot"),
        ];
        ids.iter().any(|(on, id)| *on && matches(pattern, id))
            || (self.keys && may_begin_with(pattern, "secure-boot-keys-"))
    }
}

/// True when the pattern may match a text with this beginning.
fn may_begin_with(pattern: &str, beginning: &str) -> bool {
    // Up to the first mark the pattern is text.
    let plain = pattern.split(['*', '?', '[', '\\']).next().unwrap_or_default();
    plain.starts_with(beginning) || (plain.len() < pattern.len() && beginning.starts_with(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(lines: &[(&str, &str)]) -> Automatic {
        let mut automatic = Automatic::default();
        lines.iter().for_each(|(key, value)| automatic.set(key.as_bytes(), value.as_bytes()));
        automatic
    }

    #[test]
    fn ldr8_patterns_that_may_name_no_entry() {
        let plain = with(&[]);
        for pattern in ["auto-windows", "auto-*", "*", "*-windows", "secure-boot-keys-auto", "sec*", "?*", "*.conf"] {
            assert!(plain.may_match(pattern), "{pattern}");
        }
        for pattern in ["", "ralphos-*", "ralphos-a-g1.conf", "auto", "auto-windows.conf", "auto-poweroff", "s"] {
            assert!(!plain.may_match(pattern), "{pattern}");
        }
        assert!(with(&[("auto-poweroff", "yes")]).may_match("auto-poweroff"));
    }

    #[test]
    fn ldr8_with_our_loader_conf_there_is_nothing_but_entries() {
        let ours = [("auto-entries", "no"), ("auto-firmware", "no"), ("secure-boot-enroll", "off")];
        for pattern in ["auto-windows", "*", "auto-reboot-to-firmware-setup", "secure-boot-keys-auto"] {
            assert!(!with(&ours).may_match(pattern), "{pattern}");
            assert!(
                with(&[&ours[..], &[("auto-entries", "1"), ("auto-entries", "maybe")]].concat()).may_match("auto-osx")
            );
        }
    }
}
