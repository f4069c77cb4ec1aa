//! The smoke test against runners that do all kinds of things (HLT-27, SBX-13, SBX-15); real sandboxes are made by the tests of the
//! crate `sandbox` and in virtual machines.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::thread;

use sandbox::{Assertion, Wall};
use serde_json::json;

use super::*;

const LONG: Limit = Limit { within: Duration::from_secs(60), reason: Reason::Deadline };

fn check() -> Sandbox {
    Sandbox {
        command: vec!["/usr/bin/echo".into(), "hello".into()],
        output: Some("hello\n".into()),
        exit: 0,
        runner: RunnerChoice::Auto,
        kvm: false,
    }
}

fn report(fails: &[Wall]) -> Report {
    let assertion = |name| Assertion { name, held: !fails.contains(&name), detail: format!("of {name}\n") };
    Report { format: 1, assertions: Wall::expected(false).into_iter().map(assertion).collect() }
}

fn ran(exit: i32, stdout: &str) -> Result<Ran, RunnerError> {
    Ok(Ran { exit, stdout: stdout.into(), stderr: b"said\n".to_vec() })
}

fn probed(fails: &[Wall]) -> Result<Ran, RunnerError> {
    ran(i32::from(!fails.is_empty()), &serde_json::to_string(&report(fails)).unwrap())
}

/// Answers so, first the last one; remembers what it was asked.
struct Told {
    answers: RefCell<Vec<Result<Ran, RunnerError>>>,
    asked: RefCell<Vec<Task>>,
}

impl Runner for Told {
    fn name(&self) -> &'static str {
        "told"
    }

    fn run(&self, task: &Task, within: Duration) -> Result<Ran, RunnerError> {
        assert!(within <= LONG.within);
        self.asked.borrow_mut().push(task.clone());
        self.answers.borrow_mut().pop().unwrap()
    }
}

fn smoke(check: &Sandbox, first: Result<Ran, RunnerError>, second: Result<Ran, RunnerError>) -> (Finding, Vec<Task>) {
    let runner = Told { answers: RefCell::new(vec![second, first]), asked: RefCell::default() };
    let root = tempfile::tempdir().unwrap();
    let told = Smoke { check, runner: &runner, until: Instant::now() + LONG.within }.run(root.path());
    (told.unwrap_or_else(|failed| failed.finding(LONG)), runner.asked.into_inner())
}

#[test]
fn two_sandboxes_probe_and_command_sbx_15() {
    let (finding, asked) = smoke(&check(), probed(&[]), ran(0, "hello\n"));
    assert_eq!(finding.failed, None, "{finding:?}");
    assert_eq!(finding.output.lines().count(), 22, "{}", finding.output);
    assert!(finding.output.lines().all(|line| line.starts_with("held ")));
    let question = |task: &Task| -> Question { serde_json::from_str(&task.command[2]).unwrap() };
    assert_eq!(asked.len(), 2);
    assert!(asked.iter().all(|task| task.limits == Limits::SMOKE_TEST && task.command[..2] == [PROGRAM, "probe"]));
    let (first, second) = (question(&asked[0]), question(&asked[1]));
    assert!(!first.marker_must_be_absent && second.marker_must_be_absent);
    assert_eq!(first.marker, second.marker);
    assert_eq!(asked[1].command[3..], ["--", "/usr/bin/echo", "hello"]);
}

#[test]
fn a_wall_that_does_not_hold_is_named_hlt_27() {
    let (finding, asked) = smoke(&check(), probed(&[Wall::Seccomp, Wall::Mounts]), ran(0, "hello\n"));
    assert_eq!(finding.failed, Some(Reason::SandboxWall));
    assert!(finding.detail.contains("seccomp: of seccomp") && finding.detail.contains("mounts: "), "{finding:?}");
    assert!(finding.output.contains("\nNOT HELD seccomp: of seccomp"), "{}", finding.output);
    assert_eq!(asked.len(), 1);
}

#[test]
fn a_marker_that_stays_in_the_second_sandbox_is_a_wall_sbx_15() {
    let stays = Report {
        format: 1,
        assertions: vec![Assertion { name: Wall::Overlay, held: false, detail: "it is still there".into() }],
    };
    let (finding, _) = smoke(&check(), probed(&[]), ran(1, &serde_json::to_string(&stays).unwrap()));
    assert_eq!(finding.failed, Some(Reason::SandboxWall), "{finding:?}");
    assert!(finding.detail.contains("overlay: it is still there"));
}

#[test]
fn a_marker_on_the_host_is_a_wall_and_is_removed_sbx_15() {
    /// Writes the marker where it must not be.
    struct Leaky(PathBuf);
    impl Runner for Leaky {
        fn name(&self) -> &'static str {
            "leaky"
        }
        fn run(&self, task: &Task, _: Duration) -> Result<Ran, RunnerError> {
            let question: Question = serde_json::from_str(&task.command[2]).unwrap();
            std::fs::write(self.0.join("usr").join(question.marker), "").unwrap();
            if question.marker_must_be_absent { ran(0, "hello\n") } else { probed(&[]) }
        }
    }
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("usr")).unwrap();
    let runner = Leaky(root.path().to_owned());
    let told = Smoke { check: &check(), runner: &runner, until: Instant::now() + LONG.within }.run(root.path());
    let finding = told.unwrap_err().finding(LONG);
    assert_eq!(finding.failed, Some(Reason::SandboxWall));
    assert!(finding.detail.contains("is on the host (removed)"), "{finding:?}");
    assert_eq!(std::fs::read_dir(root.path().join("usr")).unwrap().count(), 0);
}

#[test]
fn a_probe_that_says_nothing_valid_proves_nothing_sbx_13() {
    let whole = serde_json::to_string(&report(&[])).unwrap();
    let mut missing = report(&[]);
    missing.assertions.pop();
    let mut large = whole.clone();
    large.push_str(&" ".repeat(70_000));
    let missing = serde_json::to_string(&missing).unwrap();
    for (exit, stdout) in
        [(0, ""), (0, "{}"), (0, &missing), (0, &large), (1, &whole), (2, &whole), (137, ""), (127, "not found")]
    {
        let (finding, asked) = smoke(&check(), ran(exit, stdout), ran(0, "hello\n"));
        assert_eq!(finding.failed, Some(Reason::Sandbox), "{exit} {stdout:.40}: {finding:?}");
        assert_eq!(asked.len(), 1);
    }
    let lies = serde_json::to_string(&report(&[Wall::Kvm, Wall::Seccomp])).unwrap();
    let (finding, _) = smoke(&check(), ran(0, &lies), ran(0, "hello\n"));
    assert_eq!(finding.failed, Some(Reason::Sandbox), "it exits 0 and says that a wall does not hold");
}

#[test]
fn the_command_must_do_what_is_expected_hlt_27() {
    let of = |check: &Sandbox, second| smoke(check, probed(&[]), second).0;
    let finding = of(&check(), ran(0, "hello"));
    assert_eq!(finding.failed, Some(Reason::SandboxCommand));
    assert!(finding.detail.contains(r#"printed "hello", expected "hello ""#), "{finding:?}");
    let finding = of(&check(), ran(3, "hello\n"));
    assert_eq!(finding.failed, Some(Reason::SandboxCommand));
    assert!(finding.detail.contains("ended with 3, expected 0") && finding.output.contains("said"), "{finding:?}");
    let other = Sandbox { output: None, exit: 3, ..check() };
    assert_eq!(of(&other, ran(3, "anything")).failed, None);
}

#[test]
fn no_sandbox_and_no_time() {
    let not_made = || Err(RunnerError::NotMade("mount /usr: EPERM".into()));
    let (finding, _) = smoke(&check(), not_made(), ran(0, ""));
    assert_eq!(finding.failed, Some(Reason::Sandbox));
    assert!(finding.detail.contains("mount /usr: EPERM"));
    let (finding, _) = smoke(&check(), probed(&[]), not_made());
    assert_eq!(finding.failed, Some(Reason::Sandbox));
    let (finding, _) = smoke(&check(), Err(RunnerError::Deadline { within: LONG.within }), ran(0, ""));
    assert_eq!(finding.failed, Some(Reason::Deadline));
}

/// A program in the place of `ralph-sandbox`, that does this.
fn program(script: &str) -> (tempfile::TempDir, Own) {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("ralph-sandbox");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    (folder, Own { program })
}

fn task() -> Task {
    Task { command: vec!["/usr/bin/echo".into(), "a b".into()], limits: Limits::SMOKE_TEST, kvm: true }
}

#[test]
fn our_own_runner_hands_all_over_and_reads_all_sbx_21() {
    let own = |script: &str| {
        let (_folder, own) = program(script);
        own.run(&task(), Duration::from_secs(40))
    };
    let all = own(r#"printf '%s|' "$@"; env >&2; exit 7"#).unwrap();
    let words = "run|--memory|67108864|--pids|32|--cpu|50|--deadline|37000|--kvm|--|/usr/bin/echo|a b|";
    assert_eq!((all.exit, String::from_utf8(all.stdout).unwrap().as_str()), (7, words));
    assert!(
        String::from_utf8(all.stderr)
            .unwrap()
            .lines()
            .all(|line| ["PATH", "LANG", "PWD", "_", "SHLVL"].contains(&line.split('=').next().unwrap()))
    );
    assert!(matches!(own("echo why >&2; exit 125"), Err(RunnerError::NotMade(why)) if why == "why"));
    assert!(matches!(own("exit 124"), Err(RunnerError::Deadline { .. })));
    assert!(matches!(own("kill -9 $$"), Err(RunnerError::Died(9))));
    // More than a report may have is never cut to one that is whole.
    let large = own("head -c 100000 /dev/zero").unwrap();
    assert!(large.stdout.len() > sandbox::MAX_REPORT);
}

#[test]
fn our_own_runner_that_hangs_or_is_missing() {
    let (_folder, own) = program("trap '' TERM; sleep 60");
    let begin = Instant::now();
    assert!(matches!(own.run(&task(), Duration::from_secs(1)), Err(RunnerError::Deadline { .. })));
    assert!(begin.elapsed() < Duration::from_secs(20));
    let error = Own { program: "/nonexistent/ralph-sandbox".into() }.run(&task(), LONG.within).unwrap_err();
    assert_eq!(error.reason(LONG), Reason::CannotStart, "the next boot has no such program either (HLT-34)");
}

/// A `ralphd` that answers each question so, and hands over what it was asked.
fn ralphd(answers: Vec<String>) -> (tempfile::TempDir, Ralphd, thread::JoinHandle<Vec<String>>) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("status.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = thread::spawn(move || {
        let answer = |answer: String| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = vec![0; 65536];
            let got = stream.read(&mut asked).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(asked[..got].to_vec()).unwrap()
        };
        answers.into_iter().map(answer).collect()
    });
    (folder, Ralphd { socket }, server)
}

fn answer(status: u16, body: &serde_json::Value) -> String {
    format!("HTTP/1.0 {status} X\r\n\r\n{body}")
}

#[test]
fn ralphd_is_asked_whether_it_offers_sandboxes_hlt_7() {
    let offered = |answer: String| {
        let (_folder, ralphd, _) = ralphd(vec![answer]);
        ralphd.offered(LONG.within).map_err(|error| error.reason(LONG))
    };
    assert_eq!(offered(answer(200, &json!({"contract": 1, "offered": true}))), Ok(true));
    assert_eq!(offered(answer(200, &json!({"contract": 1, "offered": false, "new": 2}))), Ok(false));
    assert_eq!(offered(answer(404, &json!({}))), Ok(false));
    assert_eq!(offered(answer(500, &json!({"contract": 1}))), Err(Reason::Sandbox));
    assert_eq!(offered(answer(200, &json!({"contract": 2, "offered": true}))), Err(Reason::Contract));
    assert_eq!(offered(answer(200, &json!({"contract": 1}))), Err(Reason::Sandbox));
    assert_eq!(offered("nonsense".into()), Err(Reason::Sandbox));
    let nobody = Ralphd { socket: "/nonexistent/status.sock".into() };
    assert_eq!(nobody.offered(LONG.within).unwrap_err().reason(LONG), Reason::Sandbox);
}

#[test]
fn ralphd_runs_a_command_hlt_8() {
    let done = answer(200, &json!({"contract": 1, "exit": 3, "stdout": "out", "stderr": "err"}));
    let (_folder, asked, server) = ralphd(vec![done]);
    let ran = asked.run(&task(), Duration::from_secs(23)).unwrap();
    assert_eq!(ran, Ran { exit: 3, stdout: b"out".to_vec(), stderr: b"err".to_vec() });
    let request = server.join().unwrap().remove(0);
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /v1/sandbox/run HTTP/1.0\r\n"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    let expected = json!({
        "contract": 1, "command": ["/usr/bin/echo", "a b"], "memory": 67_108_864, "pids": 32, "cpu-percent": 50,
        "kvm": true, "deadline-ms": 20_000,
    });
    assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap(), expected);
}

#[test]
fn ralphd_fails_in_many_ways_hlt_8() {
    let fails = |answer: String| {
        let (_folder, ralphd, _) = ralphd(vec![answer]);
        ralphd.run(&task(), LONG.within).unwrap_err()
    };
    let error = fails(answer(500, &json!({"contract": 1, "error": "no cgroup\u{1b}"})));
    assert!(matches!(&error, RunnerError::NotMade(why) if why == "no cgroup "), "{error}");
    let ended = |exit: i32| fails(answer(200, &json!({"contract": 1, "exit": exit, "stdout": "", "stderr": ""})));
    assert!(matches!(ended(124), RunnerError::Deadline { .. }));
    assert!(matches!(ended(125), RunnerError::NotMade(_)));
    assert!(matches!(fails(answer(200, &json!({"contract": 1, "exit": 0}))), RunnerError::Shape { .. }));
    assert!(matches!(fails(answer(200, &json!({"contract": 9}))), RunnerError::Contract { .. }));
    assert!(matches!(fails(answer(403, &json!({}))), RunnerError::Status { status: 403, .. }));
}

#[test]
fn auto_takes_ralphds_if_offered_and_ours_if_not_hlt_7() {
    let limit = LONG;
    // Ours is missing: that shows which one was taken.
    let with = |runner, answers: Vec<String>| {
        let (_folder, ralphd, _) = ralphd(answers);
        let sandboxes = Sandboxes { program: "/nonexistent/ralph-sandbox".into(), socket: ralphd.socket };
        run(&Sandbox { runner, ..check() }, &sandboxes, limit).failed
    };
    let offers = |offered: bool| answer(200, &json!({"contract": 1, "offered": offered}));
    let refuses = answer(500, &json!({"contract": 1, "error": "none"}));
    assert_eq!(with(RunnerChoice::Auto, vec![offers(true), refuses.clone()]), Some(Reason::Sandbox));
    assert_eq!(with(RunnerChoice::Auto, vec![offers(false)]), Some(Reason::CannotStart));
    assert_eq!(with(RunnerChoice::Own, vec![]), Some(Reason::CannotStart));
    assert_eq!(with(RunnerChoice::Ralphd, vec![offers(false)]), Some(Reason::Sandbox));
    assert_eq!(with(RunnerChoice::Ralphd, vec![offers(true), refuses]), Some(Reason::Sandbox));
}
