//! Keys and defaults of each kind, the shipped file, and random configurations (HLT-11, HLT-12).

use serde_json::json;

use super::super::*;
use super::raw;
use crate::fakes::FakeClock;
use proptest::prelude::*;

fn one(text: &str) -> Check {
    raw::parse(&format!("[check.c]\n{text}")).unwrap().checks.remove(0)
}

#[test]
fn http_and_its_defaults_hlt_11() {
    let check = one("kind = \"http\"\nurl = \"http://localhost:7340/v1/health\"");
    let plain = Http {
        server: Server::Tcp("127.0.0.1:7340".parse().unwrap()),
        host: "localhost:7340".into(),
        path: "/v1/health".into(),
        status: 200,
        json: Vec::new(),
        record: None,
    };
    assert_eq!((check.tries, check.interval, &check.kind), (None, Span::seconds(1), &Kind::Http(plain.clone())));
    let text = "kind = \"http\"\nsocket = \"/run/s\"\npath = \"/p\"\nstatus = 503\ntries = 7\ninterval = \"5min\"\n\
        json = { \"/a\" = [\"x\", 2, true], \"/b\" = false }\nrecord = \"/c\"\nafter = [\"d\"]";
    let check = one(text);
    let full = Http {
        server: Server::Unix("/run/s".into()),
        host: "localhost".into(),
        path: "/p".into(),
        status: 503,
        json: vec![
            Expectation { pointer: "/a".into(), one_of: vec![json!("x"), json!(2), json!(true)] },
            Expectation { pointer: "/b".into(), one_of: vec![json!(false)] },
        ],
        record: Some("/c".into()),
    };
    assert_eq!((check.tries, check.interval, &check.kind), (Some(7), Span::seconds(300), &Kind::Http(full)));
    assert_eq!(check.after, ["d"]);
}

#[test]
fn sandbox_and_its_defaults_hlt_11() {
    let check = one("kind = \"sandbox\"\ncommand = [\"/usr/bin/true\"]");
    let plain = Sandbox {
        command: vec!["/usr/bin/true".into()],
        output: None,
        exit: 0,
        runner: RunnerChoice::Auto,
        kvm: false,
    };
    assert_eq!((check.tries, &check.kind), (Some(1), &Kind::Sandbox(plain.clone())));
    let check = one(
        "kind = \"sandbox\"\ncommand = [\"/usr/bin/true\"]\noutput = \"x\"\nexit = 3\nrunner = \"own\"\nkvm = true\ntries = 2",
    );
    let full = Sandbox { output: Some("x".into()), exit: 3, runner: RunnerChoice::Own, kvm: true, ..plain };
    assert_eq!((check.tries, &check.kind), (Some(2), &Kind::Sandbox(full)));
}

#[test]
fn path_and_its_defaults_hlt_11() {
    let check = one("kind = \"path\"\npath = \"/var\"");
    let plain = PathCheck { path: "/var".into(), file_type: None, writable: false, free: None };
    assert_eq!((check.tries, &check.kind), (None, &Kind::Path(plain.clone())));
    let check = one("kind = \"path\"\npath = \"/var\"\ntype = \"directory\"\nwritable = true\nfree = \"64MiB\"");
    let full = PathCheck { file_type: Some(FileType::Directory), writable: true, free: Size::parse("64MiB"), ..plain };
    assert_eq!(check.kind, Kind::Path(full));
}

#[test]
fn the_policy_and_its_defaults_hlt_12() {
    let of = |text: &str| raw::parse(text).unwrap().policy;
    assert_eq!(of(""), None);
    assert_eq!(of("[policy]"), Some(Policy::default()));
    let default = Policy::default();
    assert_eq!((default.overall_deadline, default.soak), (Span::seconds(300), Span::seconds(0)));
    assert_eq!((default.on_failure, default.on_deterministic_failure), (Action::Reboot, Action::MarkBad));
    let full = "[policy]\noverall-deadline = \"60min\"\nsoak = \"10min\"\non-failure = \"stay\"\non-deterministic-failure = \"reboot\"";
    let expected = Policy {
        overall_deadline: Span::seconds(3600),
        soak: Span::seconds(600),
        on_failure: Action::Stay,
        on_deterministic_failure: Action::Reboot,
    };
    assert_eq!(of(full), Some(expected));
}

#[test]
fn the_shipped_file_is_the_policy_of_ralphos() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("units/checks.d");
    let config = load(&[Place::Given(folder)], &FakeClock::default()).unwrap();
    assert_eq!(config.policy, Policy::default());
    let check = |name: &str| config.checks.iter().find(|check| check.name == name).unwrap();
    let required: Vec<&str> =
        config.checks.iter().filter(|check| check.level == Level::Required).map(|check| check.name.as_str()).collect();
    assert_eq!(required, ["health", "policy", "ralphd", "sandbox"]);
    assert!(["api", "health", "policy", "sandbox"].iter().all(|name| check(name).after == ["ralphd"]));
    let Kind::Http(policy) = &check("policy").kind else { panic!() };
    assert_eq!(policy.record.as_deref(), Some("/digest"));
    // All that must pass has its time within the overall deadline, one after the other.
    let longest = |name| check(name).deadline.duration();
    assert!(longest("ralphd") + longest("sandbox") < config.policy.overall_deadline.duration());
}

/// Values that fit a key, and some that do not.
fn key_value() -> impl Strategy<Value = String> {
    let keys = prop::sample::select(vec![
        "kind",
        "level",
        "deadline",
        "tries",
        "interval",
        "after",
        "unit",
        "stable-for",
        "command",
        "url",
        "socket",
        "path",
        "status",
        "json",
        "record",
        "output",
        "exit",
        "runner",
        "kvm",
        "type",
        "writable",
        "free",
        "strange",
    ]);
    let values = prop::sample::select(vec![
        "\"unit\"",
        "\"http\"",
        "\"sandbox\"",
        "\"path\"",
        "\"command\"",
        "\"5s\"",
        "\"0s\"",
        "3",
        "-1",
        "1.5",
        "true",
        "[\"/x\"]",
        "[\"c\"]",
        "[]",
        "\"a.service\"",
        "\"http://127.0.0.1/\"",
        "\"/x\"",
        "{ \"/a\" = 1 }",
        "\"64MiB\"",
        "\"own\"",
        "\"file\"",
        "\"wanted\"",
        "9223372036854775807",
        "1979-05-27",
        "{}",
    ]);
    (keys, values).prop_map(|(key, value)| format!("{key} = {value}"))
}

proptest! {
    #[test]
    fn no_keys_and_values_break_the_parser(kind in "unit|command|http|sandbox|path", lines in prop::collection::vec(key_value(), 0..6)) {
        let text = format!("[check.c]\nkind = {kind:?}\n{}", lines.join("\n"));
        match raw::parse(&text) {
            Ok(file) => {
                let check = &file.checks[0];
                prop_assert!(check.tries.is_none_or(|tries| (1..=100).contains(&tries)));
                prop_assert!(check.interval >= Span::milliseconds(100) && check.interval <= Span::seconds(300));
                prop_assert!(!text.contains("strange"), "an unknown key is an error (HLT-10)");
                prop_assert!(!check.kind.to_string().is_empty());
            }
            Err(problems) => {
                prop_assert_eq!(problems.len(), 1);
                // Each names the check, or shows its line.
                let said = crate::chain(&problems[0]);
                prop_assert!(said.contains("check `c`: ") || said.contains("TOML parse error at line"), "{}", said);
            }
        }
    }

    #[test]
    fn what_is_written_is_read_back(
        tries in 1u32..=100, interval in 100u64..=300_000, deadline in 1u64..=1800, status in 200u16..=599, port in 1u16..,
        path in "/[a-zA-Z0-9/?=&._-]{0,20}", pointer in "(/[a-z0-9\"\\\\ ä]{1,5}){1,3}", number in any::<i64>(), text in any::<String>(),
        after in prop::collection::vec("[a-z0-9-]{1,8}", 0..3),
    ) {
        let string = |text: &str| toml::Value::from(text).to_string();
        let after_list = toml::Value::from(after.clone()).to_string();
        let check = one(&format!(
            "kind = \"http\"\ntries = {tries}\ninterval = \"{interval}ms\"\ndeadline = \"{deadline}s\"\nstatus = {status}\n\
            url = {}\nafter = {after_list}\nrecord = {}\njson = {{ {} = [{number}, {}] }}",
            string(&format!("http://127.0.0.1:{port}{path}")), string(&pointer), string(&pointer), string(&text),
        ));
        let http = Http {
            server: Server::Tcp(([127, 0, 0, 1], port).into()),
            host: format!("127.0.0.1:{port}"),
            path,
            status,
            json: vec![Expectation { pointer: pointer.clone(), one_of: vec![json!(number), json!(text)] }],
            record: Some(pointer),
        };
        let expected = Check {
            name: "c".into(), level: Level::Required, deadline: Span::seconds(deadline), tries: Some(tries),
            interval: Span::milliseconds(interval), after, kind: Kind::Http(http),
        };
        prop_assert_eq!(check, expected);
    }
}
