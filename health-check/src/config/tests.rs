//! What a configuration may hold (HLT-10 … HLT-13); the refused ones are in `tests/fixtures/refused`.

mod kinds;

use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::fakes::{FakeClock, Log};
use proptest::prelude::*;

/// File name without its ending, and what the error must say.
const REFUSED: &[(&str, &str)] = &[
    ("after-a-wanted-check", "check `c` in "),
    ("after-in-a-circle", "a after c after b after a"),
    ("after-itself", "c after c"),
    ("after-nothing-there", "after: there is no check `d`"),
    ("command-as-a-shell-line", "expected a sequence"),
    ("command-empty", "`c`: command: it is empty"),
    ("command-missing", "kind = \"command\" needs `command`"),
    ("command-of-a-unit", "`command` does not belong to kind = \"unit\""),
    ("command-relative", "not an absolute path"),
    ("command-with-nul", "NUL byte"),
    ("deadline-a-number", "expected a string"),
    ("deadline-bad-duration", "check `c`: deadline: \"1.5s\" is not a length of time"),
    ("deadline-too-long", "deadline 31min is not between 1s and 30min"),
    ("deadline-too-short", "deadline 999ms is not between 1s and 30min"),
    ("default-stable-for-beyond-the-deadline", "stable-for 5s is not less than the deadline 3s"),
    ("http-expects-a-float", "a float cannot be expected"),
    ("http-expects-nothing", "of an empty list nothing can be there"),
    ("http-host-name", "no name is looked up"),
    ("http-path-of-a-url", "path: it belongs to `socket`"),
    ("http-pointer-bad-escape", "not a JSON pointer: behind ~"),
    ("http-pointer-without-slash", "check `c`: json: \"a\" is not a JSON pointer"),
    ("http-socket-and-url", "socket: it stands instead of `url`"),
    ("http-socket-relative", "socket: \"run/s\" is not an absolute path"),
    ("http-socket-too-long", "longer than 107 bytes"),
    ("http-socket-without-path", "socket: it needs `path`"),
    ("http-status-out-of-bounds", "status: 99 is not between 200 and 599"),
    ("http-tls", "does not begin with http://"),
    ("http-without-a-server", "needs `url` or `socket`"),
    ("interval-too-short", "interval: 99ms is not between 100ms and 5min"),
    ("kvm-of-a-command", "`kvm` does not belong to kind = \"command\""),
    ("name-emergency", "`emergency` is taken"),
    ("name-empty", "the check `` is not"),
    ("name-in-upper-case", "the check `Ralphd` is not"),
    ("name-of-our-own", "`commit` is taken"),
    ("no-checks", "no required check in "),
    ("no-kind", "missing field `kind`"),
    ("not-toml", "TOML parse error"),
    ("not-utf8", "is not UTF-8"),
    ("overall-deadline-bad-duration", "policy: overall-deadline: \"soon\" is not"),
    ("overall-deadline-too-long", "overall-deadline 61min is not between 1s and 60min"),
    ("path-free-without-unit", "free: \"64\" is not a size"),
    ("path-missing", "kind = \"path\" needs `path`"),
    ("path-relative", "path: \"var\" is not an absolute path"),
    ("path-unknown-type", "unknown variant `socket`"),
    ("policy-soak-too-long", "policy: soak 61min is longer than 60min"),
    ("policy-unknown-action", "unknown variant `panic`"),
    ("same-name-twice-in-a-file", "duplicate key"),
    ("sandbox-exit-of-the-runner", "exit: 125 is how a sandbox"),
    ("sandbox-exit-out-of-bounds", "exit: 256 is not between 0 and 255"),
    ("sandbox-unknown-runner", "unknown variant `docker`"),
    ("sandbox-without-command", "kind = \"sandbox\" needs `command`"),
    ("stable-for-as-long-as-the-deadline", "stable-for 1min is not less than the deadline 1min"),
    ("stable-for-as-long-as-the-overall-deadline", "stable-for 2min is not less than the overall deadline 2min"),
    ("stable-for-of-a-command", "`stable-for` does not belong to kind = \"command\""),
    ("tries-of-a-unit", "`tries` does not belong to kind = \"unit\""),
    ("tries-too-many", "tries: 101 is not between 1 and 100"),
    ("tries-zero", "tries: 0 is not between 1 and 100"),
    ("unit-missing", "kind = \"unit\" needs `unit`"),
    ("unit-of-a-command", "`unit` does not belong to kind = \"command\""),
    ("unit-pattern", "is not the full name of one systemd unit"),
    ("unit-that-is-an-option", "is not the full name of one systemd unit"),
    ("unit-without-its-kind", "is not the full name of one systemd unit"),
    ("unknown-key", "unknown field `stable_for`"),
    ("unknown-kind", "unknown variant `https`"),
    ("unknown-level", "unknown variant `optional`"),
    ("unknown-policy-key", "unknown field `reboot`"),
    ("unknown-table", "unknown field `checks`"),
    ("wanted-checks-alone", "no required check in "),
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/refused")
}

#[test]
fn each_refused_configuration_says_why_and_where() {
    for (name, said) in REFUSED {
        let file = fixtures().join(format!("{name}.toml"));
        let errors = load(&[Place::Given(file.clone())], &FakeClock::default()).expect_err(name);
        let text = errors.to_string();
        assert_eq!(errors.0.len(), 1, "{name}: {text}");
        assert!(text.contains(said), "{name}: {text}");
        assert!(text.contains(&file.display().to_string()), "{name}: {text}");
    }
    let mut names: Vec<String> = fs::read_dir(fixtures())
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    let listed: Vec<&str> = REFUSED.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, listed, "every fixture is listed, and in order");
}

/// A system with files in both folders: (`usr` or `etc`, name, text).
fn system(files: &[(&str, &str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (place, name, text) in files {
        let place = INSTALLED[usize::from(*place == "etc")];
        let folder = root.path().join(&place[1..]);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), text).unwrap();
    }
    root
}

fn load_from(root: &tempfile::TempDir) -> Result<Config, ConfigErrors> {
    load(&installed(root.path()), &FakeClock::default())
}

fn of(name: &str) -> String {
    format!("[check.{name}]\nkind = \"command\"\ncommand = [\"/usr/bin/true\"]\n")
}

fn names(config: &Config) -> Vec<&str> {
    config.checks.iter().map(|check| check.name.as_str()).collect()
}

#[test]
fn all_keys_and_their_defaults_hlt_11() {
    let text = "
        [policy]
        overall-deadline = \"10min\"
        [check.full]
        kind = \"unit\"
        level = \"wanted\"
        deadline = \"2min\"
        unit = \"a-b@c\\\\x2d.service\"
        stable-for = \"500ms\"
        [check.short]
        kind = \"unit\"
        unit = \"ralphd.service\"
        [check.command]
        kind = \"command\"
        command = [\"/usr/bin/test\", \"-e\", \"/x y\"]
    ";
    let config = load_from(&system(&[("usr", "a.toml", text)])).unwrap();
    let check = |name: &str, level, deadline, kind| Check {
        name: name.into(),
        level,
        deadline,
        tries: Some(1),
        interval: Span::seconds(1),
        after: Vec::new(),
        kind,
    };
    let expected = Config {
        checks: vec![
            check(
                "command",
                Level::Required,
                Span::seconds(60),
                Kind::Command { program: "/usr/bin/test".into(), args: vec!["-e".into(), "/x y".into()] },
            ),
            check(
                "full",
                Level::Wanted,
                Span::seconds(120),
                Kind::Unit { unit: "a-b@c\\x2d.service".into(), stable_for: Span::parse("500ms").unwrap() },
            ),
            check(
                "short",
                Level::Required,
                Span::seconds(60),
                Kind::Unit { unit: "ralphd.service".into(), stable_for: Span::seconds(5) },
            ),
        ],
        policy: Policy { overall_deadline: Span::seconds(600), ..Policy::default() },
    };
    assert_eq!(config, expected);
}

#[test]
fn the_overall_deadline_is_five_minutes_if_nobody_says_otherwise_hlt_12() {
    let config = load_from(&system(&[("usr", "a.toml", &of("a"))])).unwrap();
    assert_eq!(config.policy.overall_deadline, Span::seconds(300));
    let config = load_from(&system(&[("usr", "a.toml", &format!("[policy]\n{}", of("a")))])).unwrap();
    assert_eq!(config.policy.overall_deadline, Span::seconds(300));
}

#[test]
fn files_are_read_in_the_order_of_their_names_from_both_folders_hlt_10() {
    let files = [
        ("usr", "50-b.toml", &*of("b")),
        ("etc", "60-c.toml", &of("c")),
        ("etc", "10-a.toml", &of("a")),
        ("etc", "README", "not a configuration"),
    ];
    assert_eq!(names(&load_from(&system(&files)).unwrap()), ["a", "b", "c"]);
}

#[test]
fn a_file_in_etc_replaces_its_namesake_and_an_empty_one_removes_it_hlt_10() {
    let vendor = [("usr", "50-a.toml", &*of("a")), ("usr", "60-b.toml", &of("b"))];
    let with = |text| system(&[vendor[0], vendor[1], ("etc", "50-a.toml", text)]);
    let mine = of("mine");
    assert_eq!(names(&load_from(&with(&mine)).unwrap()), ["mine", "b"]);
    assert_eq!(names(&load_from(&with("")).unwrap()), ["b"]);
    // What is replaced is not looked at.
    let broken = system(&[("usr", "50-a.toml", "broken"), vendor[1], ("etc", "50-a.toml", "")]);
    assert_eq!(names(&load_from(&broken).unwrap()), ["b"]);
    // A link to /dev/null empties it as well.
    let linked = system(&[vendor[0], vendor[1], ("etc", "x.toml", "")]);
    symlink("/dev/null", linked.path().join(&INSTALLED[1][1..]).join("50-a.toml")).unwrap();
    assert_eq!(names(&load_from(&linked).unwrap()), ["b"]);
}

#[test]
fn an_override_that_removes_the_last_check_is_refused_hlt_10() {
    let root = system(&[("usr", "50-a.toml", &of("a")), ("etc", "50-a.toml", "")]);
    assert!(matches!(load_from(&root).unwrap_err().0[..], [ConfigError::NothingRequired(_)]));
}

#[test]
fn no_configuration_at_all_is_refused_hlt_10() {
    let root = tempfile::tempdir().unwrap();
    let text = load_from(&root).unwrap_err().to_string();
    assert!(text.contains(INSTALLED[0]) && text.contains(INSTALLED[1]), "{text}");
}

#[test]
fn a_name_stands_once_over_all_files_hlt_11() {
    let errors = load_from(&system(&[("usr", "1.toml", &of("a")), ("etc", "2.toml", &of("a"))])).unwrap_err();
    let [ConfigError::Duplicate { name, first, second }] = &errors.0[..] else { panic!("{errors}") };
    assert!(name == "a" && first.ends_with("1.toml") && second.ends_with("2.toml"));
}

#[test]
fn one_file_holds_the_policy_hlt_12() {
    let policy = "[policy]\noverall-deadline = \"2min\"\n";
    let root = system(&[("usr", "1.toml", &format!("{policy}{}", of("a"))), ("usr", "2.toml", policy)]);
    assert!(matches!(load_from(&root).unwrap_err().0[..], [ConfigError::SecondPolicy { .. }]));
}

#[test]
fn a_unit_must_be_able_to_pass_before_the_overall_deadline_hlt_12() {
    let slow = "[check.slow]\nkind = \"unit\"\nunit = \"a.service\"\nstable-for = \"6min\"\ndeadline = \"10min\"\n";
    // The default of 5min, and a policy in another file.
    let errors = load_from(&system(&[("usr", "1.toml", slow)])).unwrap_err();
    assert!(matches!(&errors.0[..], [ConfigError::NeverStable { check, .. }] if check == "slow"), "{errors}");
    let policy = |overall| format!("[policy]\noverall-deadline = \"{overall}\"\n");
    assert!(load_from(&system(&[("usr", "1.toml", slow), ("etc", "2.toml", &policy("7min"))])).is_ok());
    let errors = load_from(&system(&[("usr", "1.toml", slow), ("etc", "2.toml", &policy("6min"))])).unwrap_err();
    let text = errors.to_string();
    assert!(text.contains("check `slow` in ") && text.contains("1.toml: stable-for 6min"), "{text}");
}

#[test]
fn all_errors_are_told_at_once() {
    let two = "[check.X]\nkind = \"unit\"\nunit = \"a.service\"\n[check.y]\nkind = \"unit\"\n";
    let errors = load_from(&system(&[("usr", "1.toml", two), ("usr", "2.toml", "?"), ("usr", "3.toml", &of("a"))]));
    assert_eq!(errors.unwrap_err().0.len(), 3);
}

#[test]
fn what_is_not_a_file_is_refused_and_never_waited_for() {
    let root = system(&[("usr", "1.toml", &of("a"))]);
    let folder = root.path().join(&INSTALLED[0][1..]);
    fs::create_dir(folder.join("2.toml")).unwrap();
    nix::unistd::mkfifo(&folder.join("3.toml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    symlink("/nonexistent", folder.join("4.toml")).unwrap();
    symlink("/dev/zero", folder.join("5.toml")).unwrap();
    let errors = load_from(&root).unwrap_err().0;
    assert!(
        matches!(
            errors[..],
            [
                ConfigError::NotAFile { .. },
                ConfigError::NotAFile { .. },
                ConfigError::Read { .. },
                ConfigError::NotAFile { .. }
            ]
        ),
        "{errors:?}"
    );
}

#[test]
fn a_file_without_end_is_refused() {
    let root = system(&[("usr", "1.toml", &"#".repeat(300_000))]);
    assert!(matches!(load_from(&root).unwrap_err().0[..], [ConfigError::TooLarge { .. }]));
}

#[test]
fn what_somebody_names_must_exist() {
    let place = Place::Given("/nonexistent/checks.d".into());
    assert!(matches!(load(&[place], &FakeClock::default()).unwrap_err().0[..], [ConfigError::Read { .. }, ..]));
}

/// A system of which `1.toml` is a file that opens and gives EIO when it is read: nothing is mapped at address 0.
fn unreadable() -> tempfile::TempDir {
    let root = system(&[("usr", "2.toml", &of("b"))]);
    symlink("/proc/self/mem", root.path().join(&INSTALLED[0][1..]).join("1.toml")).unwrap();
    root
}

#[test]
fn a_file_that_the_machine_cannot_read_is_read_three_times_hlt_13() {
    let (root, log) = (unreadable(), Log::default());
    let errors = load(&installed(root.path()), &FakeClock::logging(&log)).unwrap_err();
    let [ConfigError::Read { source, .. }] = &errors.0[..] else { panic!("{errors}") };
    assert_eq!(source.raw_os_error(), Some(nix::errno::Errno::EIO as i32));
    assert_eq!(log.events(), ["sleep 1000 ms", "sleep 1000 ms"]);
    assert!(errors.may_pass(), "the next boot may read it (HLT-34)");
    // What else is wrong may be replaced by what was not read.
    fs::write(root.path().join(&INSTALLED[0][1..]).join("3.toml"), "?").unwrap();
    assert!(load_from(&root).unwrap_err().may_pass());
}

/// A clock beside which, while somebody waits, the file becomes one that can be read.
struct Mending<'a>(&'a Path);

impl Clock for Mending<'_> {
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn unix(&self) -> u64 {
        0
    }

    fn sleep(&self, _how_long: Duration) {
        let file = self.0.join(&INSTALLED[0][1..]).join("1.toml");
        fs::remove_file(&file).unwrap();
        fs::write(&file, of("a")).unwrap();
    }
}

#[test]
fn what_can_be_read_at_the_second_try_counts_hlt_13() {
    let root = unreadable();
    assert_eq!(names(&load(&installed(root.path()), &Mending(root.path())).unwrap()), ["a", "b"]);
}

#[test]
fn what_stands_in_the_files_or_in_their_place_is_said_at_once_hlt_34() {
    let folder = |root: &tempfile::TempDir| root.path().join(&INSTALLED[0][1..]);
    let with = |put: &dyn Fn(PathBuf)| {
        let root = system(&[("usr", "1.toml", &of("a"))]);
        put(folder(&root).join("2.toml"));
        root
    };
    let socket = |at: PathBuf| drop(std::os::unix::net::UnixListener::bind(at).unwrap());
    for root in [
        with(&|at| fs::write(at, "[check.a]\nkey = 1\n").unwrap()),
        with(&|at| fs::write(at, "?").unwrap()),
        with(&|at| fs::write(at, b"\xff").unwrap()),
        with(&|at| fs::create_dir(at).unwrap()),
        with(&|at| symlink("/nonexistent", at).unwrap()),
        with(&|at| symlink(&at, &at).unwrap()),
        with(&|at| symlink("/dev/zero", at).unwrap()),
        with(&socket),
    ] {
        let log = Log::default();
        let errors = load(&installed(root.path()), &FakeClock::logging(&log)).unwrap_err();
        assert!(!errors.may_pass(), "{errors}");
        assert_eq!(log.events(), [""; 0], "{errors}");
    }
}

#[test]
fn what_the_machine_could_not_do_at_the_moment_may_pass_hlt_13() {
    use nix::errno::Errno;
    let read = |errno: Errno| ConfigError::Read { path: "a.toml".into(), source: errno.into() };
    for errno in [Errno::EIO, Errno::ENOMEM, Errno::EMFILE, Errno::ENFILE, Errno::EINTR, Errno::EAGAIN, Errno::ESTALE] {
        assert!(read(errno).may_pass(), "{errno}");
        assert!(ConfigError::List { path: "checks.d".into(), source: errno.into() }.may_pass(), "{errno}");
    }
    for errno in [Errno::ENOENT, Errno::ENOTDIR, Errno::EISDIR, Errno::ELOOP, Errno::EACCES] {
        assert!(!read(errno).may_pass(), "{errno}");
    }
}

proptest! {
    #[test]
    fn no_text_breaks_the_parser(text in any::<String>()) {
        let _ = raw::parse(&text);
    }

    #[test]
    fn what_is_accepted_keeps_the_rules(
        name in "[a-zA-Z0-9_-]{0,70}",
        deadline in "[0-9]{1,4}(ms|s|min|h)",
        stable in "[0-9]{1,4}(ms|s|min)",
        unit in "[-a-z*@.]{0,12}(\\.service|\\.mount|)",
    ) {
        let text = format!("[check.\"{name}\"]\nkind=\"unit\"\nunit=\"{unit}\"\ndeadline=\"{deadline}\"\nstable-for=\"{stable}\"");
        if let Ok(file) = raw::parse(&text) {
            let check = &file.checks[0];
            prop_assert!((1..=64).contains(&check.name.len()));
            prop_assert!(check.name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-')));
            prop_assert!(check.deadline >= Span::seconds(1) && check.deadline <= Span::seconds(1800));
            let Kind::Unit { unit, stable_for } = &check.kind else { panic!("{check:?}") };
            prop_assert!(*stable_for < check.deadline);
            prop_assert!(!unit.starts_with('-') && !unit.contains('*') && unit.contains('.'));
        }
    }
}
