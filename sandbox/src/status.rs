//! Parsers for the files of `/proc/self` that tell what a process is and sees.

use std::path::PathBuf;

/// One mount, as `/proc/self/mountinfo` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// What of its file system is mounted.
    pub root: PathBuf,
    /// Where.
    pub point: PathBuf,
    /// The type of the file system.
    pub kind: String,
    /// The flags of this mount.
    pub options: Vec<String>,
    /// The options of the file system, wherever it is mounted.
    pub super_options: Vec<String>,
}

impl Mount {
    /// Whether the mount has this flag.
    pub fn has(&self, flag: &str) -> bool {
        self.options.iter().any(|option| option == flag)
    }

    /// Whether the mount, or the file system wherever it is mounted, is read-only.
    pub fn is_read_only(&self) -> bool {
        self.has("ro") || self.super_options.iter().any(|option| option == "ro")
    }
}

/// Reads `/proc/self/mountinfo`; lines of another shape are left out.
pub(crate) fn parse_mountinfo(text: &str) -> Vec<Mount> {
    text.lines().filter_map(parse_mount).collect()
}

fn parse_mount(line: &str) -> Option<Mount> {
    let mut words = line.split(' ');
    let root = words.nth(3)?;
    let point = words.next()?;
    let options = words.next()?;
    let mut words = words.skip_while(|word| *word != "-");
    let kind = words.nth(1)?;
    let super_options = words.nth(1).unwrap_or_default();
    let list = |text: &str| text.split(',').map(str::to_owned).collect();
    Some(Mount {
        root: unescape(root).into(),
        point: unescape(point).into(),
        kind: kind.to_owned(),
        options: list(options),
        super_options: list(super_options),
    })
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// The value of one line of `/proc/PID/status`.
pub(crate) fn status_field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// The number after `name` in a file of lines `NAME NUMBER`, as `cpu.stat` and `memory.events` are.
pub(crate) fn counter(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn mounts_are_read() {
        let text =
            "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime shared:1 master:2 - ext3 /dev/root rw,errors=continue\nx\n\n";
        let list = |words: [&str; 2]| words.map(str::to_owned).to_vec();
        let mount = Mount {
            root: "/mnt1".into(),
            point: "/mnt 2".into(),
            kind: "ext3".to_owned(),
            options: list(["rw", "noatime"]),
            super_options: list(["rw", "errors=continue"]),
        };
        assert!(mount.has("noatime") && !mount.has("noa") && !mount.is_read_only());
        assert_eq!(parse_mountinfo(text), [mount]);
    }

    #[test]
    fn fields_and_counters_are_read() {
        let status = "Name:\tx\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\nGroups:\t \n";
        assert_eq!(status_field(status, "Seccomp"), Some("2"));
        assert_eq!(status_field(status, "Groups"), Some(""));
        assert_eq!(status_field(status, "Sec"), None);
        assert_eq!(counter("oom 4\noom_kill 3\noom_kill_x 9\n", "oom_kill"), Some(3));
        assert_eq!(counter("oom_kill x\n", "oom_kill"), None);
    }

    proptest! {
        #[test]
        fn no_text_upsets_the_parsers(text in "[ -~\n]{0,200}") {
            parse_mountinfo(&text);
            counter(&text, "oom_kill");
            status_field(&text, "Seccomp");
        }
    }
}
