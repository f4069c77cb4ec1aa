//! The program as it is installed: `validate` and `check`, their output and exit codes (HLT-50 … HLT-52).

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const HEALTHY: i32 = 0;
const FAILED: i32 = 1;
const USAGE: i32 = 2;
const INVALID: i32 = 3;

fn program(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ralph-health-check")).args(args).output().expect("the program starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("it prints UTF-8")
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// What of systemd's settings would take the ESP's block device away, or start the service only with a whole `/var`.
#[test]
fn the_service_needs_neither_var_nor_a_device_policy_hlt_63() {
    let unit = std::fs::read_to_string(here("units/ralph-health-check.service")).unwrap();
    let settings: Vec<&str> = unit.lines().filter(|line| !line.starts_with('#')).collect();
    for refused in [
        "ProtectClock",
        "DeviceAllow",
        "DevicePolicy",
        "PrivateDevices",
        "PrivateTmp",
        "StateDirectory",
        "LogsDirectory",
        "RequiresMountsFor",
        "Requires",
        "BindsTo",
        "Condition",
    ] {
        assert!(!settings.iter().any(|line| line.starts_with(refused)), "{refused}");
    }
    let kept = settings.iter().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    assert!(!kept.starts_with('~'), "what it may is named, not what it may not");
    let kept: Vec<&str> = kept.split(' ').collect();
    for capability in ["CAP_SYS_TIME", "CAP_WAKE_ALARM"] {
        assert!(!kept.contains(&capability), "{capability}: what ProtectClock= would take away");
    }
    for capability in ["CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYSLOG"] {
        assert!(kept.contains(&capability), "{capability}: the ESP's mount, a forced reboot, the kernel's log");
    }
    assert!(settings.contains(&"After=var.mount"));
}

#[test]
fn emergency_and_rescue_mode_are_judged_first_hlt_64() {
    for mode in ["emergency", "rescue"] {
        let drop_in = std::fs::read_to_string(here(&format!("units/{mode}.service.d/50-ralph.conf"))).unwrap();
        // What fails must not keep the shell of the mode from a person: hence the dash.
        let expected = format!("ExecStartPre=-/usr/bin/ralph-health-check emergency {mode}");
        assert!(drop_in.lines().any(|line| line == expected), "{drop_in}");
    }
}

/// A folder with one configuration file.
fn configured(content: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("50-test.toml"), content).unwrap();
    folder
}

fn command(name: &str, level: &str, deadline: &str, script: &str) -> String {
    format!(
        "[check.{name}]\nkind = \"command\"\nlevel = \"{level}\"\ndeadline = \"{deadline}\"\ncommand = [\"/bin/sh\", \"-c\", {script:?}]\n"
    )
}

#[test]
fn the_shipped_policy_is_valid() {
    let shipped = here("units/checks.d");
    let out = program(&["validate", shipped.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(HEALTHY), "{}", text(&out.stderr));
    let expected = "\
api (wanted, deadline 30s): GET /v1/health of 127.0.0.1:7340 answers 200
health (required, deadline 1min): GET /v1/health of /run/ralphd/status.sock answers 200
policy (required, deadline 1min): GET /v1/policy of /run/ralphd/status.sock answers 200
ralphd (required, deadline 1min): ralphd.service active for 5s
sandbox (required, deadline 2min): /usr/bin/echo sandboxed in a sandbox
valid; overall deadline 5min
";
    assert_eq!(text(&out.stdout), expected);
}

#[test]
fn every_refused_configuration_exits_3_and_names_its_file() {
    let mut seen = 0;
    for entry in std::fs::read_dir(here("tests/fixtures/refused")).unwrap() {
        let path = entry.unwrap().path();
        let path = path.to_str().unwrap();
        let out = program(&["validate", path]);
        assert_eq!(out.status.code(), Some(INVALID), "{path}");
        assert!(text(&out.stderr).contains(path), "{path}: {}", text(&out.stderr));
        assert!(out.stdout.is_empty(), "{path}");
        seen += 1;
    }
    assert!(seen > 30);
}

#[test]
fn validate_takes_files_and_directories_and_reports_in_json() {
    let folder = configured(&command("one", "required", "30s", "exit 0"));
    let other = configured(&command("two", "wanted", "30s", "exit 0"));
    let file = other.path().join("50-test.toml");
    let both = [folder.path().to_str().unwrap(), file.to_str().unwrap()];
    let out = program(&["validate", "--json", both[0], both[1]]);
    assert_eq!(out.status.code(), Some(HEALTHY));
    let document: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let expected = serde_json::json!({ "format": 1, "valid": true, "errors": [], "checks": ["one", "two"] });
    assert_eq!(document, expected);

    let out = program(&["--json", "validate", "/nonexistent.toml"]);
    assert_eq!(out.status.code(), Some(INVALID));
    let document: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(document["valid"], false);
    assert!(document["errors"][0].as_str().unwrap().contains("/nonexistent.toml: No such file"));
}

#[test]
fn check_tells_by_its_exit_code() {
    let healthy = configured(&(command("a", "required", "30s", "exit 0") + &command("b", "wanted", "30s", "exit 9")));
    let out = program(&["check", healthy.path().to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(HEALTHY));
    let lines: Vec<&str> = text(&out.stdout).lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].starts_with("pass a (required, ") && lines[0].ends_with("): exited with code 0"), "{lines:?}");
    assert!(lines[1].starts_with("FAIL b (wanted, "), "{lines:?}");

    let failing = configured(&command("a", "required", "30s", "echo reason; exit 4"));
    let out = program(&["check", failing.path().to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(FAILED));
    assert!(text(&out.stdout).contains("exit-code: exited with code 4\n     | reason\n"), "{}", text(&out.stdout));

    let out = program(&["check", "--json", here("tests/fixtures/refused/no-checks.toml").to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(INVALID));
    let document: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(document["checks"][0]["name"], "configuration", "HLT-13");
    assert_eq!(document["healthy"], false);
}

#[test]
fn what_a_check_started_is_gone_when_the_program_is_also_in_a_session_of_its_own() {
    // Each `sleep` has a length of its own, by which /proc finds it: two levels deep, one daemonised, output inherited or closed.
    let sleeps = ["1.5", "2.5", "3.5", "4.5", "5.5"].map(|end| format!("{}{end}", 1000 + std::process::id()));
    let [a, b, c, d, e] = &sleeps;
    let script = format!(
        r#"trap "" TERM
setsid sh -c 'trap "" TERM; sleep {a} & exec sleep {b}' &
setsid -f sleep {c} >/dev/null 2>&1 </dev/null
sleep {d} &
exec sleep {e}"#
    );
    let folder = configured(&command("escape", "required", "3s", &script));
    let begin = Instant::now();
    let out = program(&["check", folder.path().to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(FAILED));
    assert!(begin.elapsed() < Duration::from_secs(40), "{:?}", begin.elapsed());
    assert!(text(&out.stdout).contains("deadline: still ran after 3000 ms and was killed"), "{}", text(&out.stdout));
    assert!(text(&out.stderr).starts_with("killed "), "{}", text(&out.stderr));
    for sleep in &sleeps {
        assert!(!runs(sleep), "sleep {sleep} still runs");
    }
}

#[test]
fn children_that_the_program_was_started_with_are_spared_hlt_20() {
    let length = format!("{}6.5", 1000 + std::process::id());
    let folder = configured(&command("a", "required", "30s", "setsid -f sleep 60; exit 0"));
    let script = r#"sleep "$1" >/dev/null 2>&1 & echo $!; exec "$2" check "$3""#;
    let out = Command::new("/bin/sh")
        .args(["-c", script, "sh", &length, env!("CARGO_BIN_EXE_ralph-health-check")])
        .arg(folder.path())
        .output()
        .unwrap();
    let pid = text(&out.stdout).lines().next().unwrap();
    let spared = runs(&length);
    Command::new("/bin/sh").args(["-c", "kill \"$1\"", "sh", pid]).status().unwrap();
    assert_eq!(out.status.code(), Some(HEALTHY));
    assert!(spared, "{}", text(&out.stderr));
    assert_eq!(text(&out.stderr), "killed 1 processes that checks had left behind\n");
}

/// Does a `sleep` of this length run?
fn runs(length: &str) -> bool {
    let wanted = format!("sleep\0{length}\0");
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .any(|entry| std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| line == wanted.as_bytes()))
}

#[test]
fn a_reader_that_goes_away_is_no_crash() {
    let folder = configured(&command("a", "required", "30s", "exit 0"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_ralph-health-check"))
        .args(["check", folder.path().to_str().unwrap()])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(HEALTHY));
}

#[test]
fn usage_is_exit_code_2() {
    assert_eq!(program(&[]).status.code(), Some(USAGE));
    assert_eq!(program(&["commit"]).status.code(), Some(USAGE));
    assert_eq!(program(&["run", "extra"]).status.code(), Some(USAGE));
    assert_eq!(program(&["emergency"]).status.code(), Some(USAGE), "HLT-64: it needs a reason");
}
