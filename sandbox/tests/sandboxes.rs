//! Sandboxes on the machine that runs the tests. Namespaces, mounts, ids, capabilities and the filter need root and
//! no more; the limits need cgroup v2, and are tested in a virtual machine by `ralph-sandbox self-test`.
//!
//! Without root, and where nobody may make a user namespace (in a chroot, in most containers), all that can be shown is
//! that the program says so. The virtual machine shows the rest in any case.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use sandbox::{HostSockets, Limits, Question, Report, Wall};

const PROGRAM: &str = env!("CARGO_BIN_EXE_ralph-sandbox");

/// What the program must say where no sandbox can be made, one or the other; `None` where one can.
fn complaint() -> Option<&'static [&'static str]> {
    if !nix::unistd::geteuid().is_root() {
        return Some(&["run it as root"]);
    }
    let tried = Command::new("unshare").args(["--user", "true"]).output().expect("unshare (util-linux) is needed");
    // The kernel refuses both in a chroot, and what keeps a container in refuses one or the other.
    if tried.status.success() { None } else { Some(&["not permitted", "Invalid argument", "Permission denied"]) }
}

fn complains(said: &str, complaint: &[&str]) {
    eprintln!("no sandbox can be made here, and this test shows only that the error is clear: {said}");
    assert!(complaint.iter().any(|part| said.contains(part)), "{said}");
}

/// `run` without a cgroup; `None` where no sandbox can be made, after a look at the error.
fn run(options: &[&str], command: &[&str]) -> Option<Output> {
    let output = start(options, command).output().unwrap();
    let Some(complaint) = complaint() else { return Some(output) };
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    complains(&text(&output.stderr), complaint);
    None
}

fn start(options: &[&str], command: &[&str]) -> Command {
    let mut program = Command::new(PROGRAM);
    program.args(["run", "--no-cgroup"]).args(options).arg("--").args(command);
    program
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn shell(options: &[&str], script: &str) -> Option<(i32, String)> {
    let output = run(options, &["/usr/bin/sh", "-c", script])?;
    Some((output.status.code()?, text(&output.stdout) + &text(&output.stderr)))
}

/// The processes of this machine whose command line holds `word`.
fn processes(word: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let has = |dir: &PathBuf| std::fs::read(dir.join("cmdline")).is_ok_and(|line| text(&line).contains(word));
    entries.filter(has).collect()
}

fn none_left(word: &str) {
    let end = Instant::now() + Duration::from_secs(5);
    while !processes(word).is_empty() {
        assert!(Instant::now() < end, "left over: {:?}", processes(word));
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// SBX-15, SBX-22: all walls that need no cgroup hold, and each is missed when it is left out.
#[test]
fn the_probe_notices_every_wall_that_is_left_out() {
    let output = Command::new(PROGRAM).args(["self-test", "--no-cgroup", "--json"]).output().unwrap();
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let tests = document["tests"].as_array().unwrap();
    if let Some(complaint) = complaint() {
        assert_eq!(document["passed"], false);
        complains(tests[0]["detail"].as_str().unwrap(), complaint);
        return;
    }
    assert_eq!(document["passed"], true, "{document:#}");
    assert_eq!(output.status.code(), Some(0));
    let expected =
        Wall::all().filter(|wall| ![Wall::Kvm, Wall::MemoryLimit, Wall::PidsLimit, Wall::CpuLimit].contains(wall));
    let left_out: Vec<String> = tests[1..].iter().map(|test| test["without"].as_str().unwrap().to_owned()).collect();
    assert_eq!(left_out, expected.map(|wall| wall.to_string()).collect::<Vec<_>>());
}

/// SBX-12: without a cgroup, the three limits are what does not hold, and nothing else.
#[test]
fn limits_are_missed_without_a_cgroup() {
    let sockets = HostSockets::listen().unwrap();
    let question = Question::new(Limits::SMOKE_TEST, &sockets, vec!["/p".to_owned()], false).unwrap();
    let command = question.first_command("/p");
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let Some(output) = run(&["--bind", &format!("{PROGRAM}:/p")], &command) else { return };
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report = Report::parse(&output.stdout, &question.expected()).unwrap();
    let failed: Vec<Wall> = report.failed().map(|assertion| assertion.name).collect();
    assert_eq!(failed, [Wall::MemoryLimit, Wall::PidsLimit, Wall::CpuLimit], "{report:#?}");
    assert!(!question.marker_on_host().exists());
}

/// SBX-15: in the second sandbox output and exit code are the command's; a marker that is there is noticed.
#[test]
fn the_second_probe_becomes_the_command() {
    let sockets = HostSockets::listen().unwrap();
    let question = Question::new(Limits::SMOKE_TEST, &sockets, vec!["/p".to_owned()], false).unwrap();
    let trivial = ["/usr/bin/sh", "-c", "echo out; exit 5"].map(str::to_owned);
    let command = question.second_command("/p", &trivial);
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let bind = format!("{PROGRAM}:/p");
    let Some(output) = run(&["--bind", &bind], &command) else { return };
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(5), "out\n".to_owned()), "{output:?}");

    let marker = question.marker_on_host();
    let there = format!("{PROGRAM}:{}", marker.display());
    let output = run(&["--bind", &bind, "--bind", &there], &command).unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let second = Question { marker_must_be_absent: true, ..question };
    let report = Report::parse(&output.stdout, &second.expected()).unwrap();
    assert_eq!(report.failed().map(|assertion| assertion.name).collect::<Vec<_>>(), [Wall::Overlay]);
    assert!(!marker.exists());
}

/// SBX-10: a question that is none is exit code 2.
#[test]
fn a_probe_that_cannot_run_says_so() {
    for question in ["", "{}", "null", r#"{"format":2}"#] {
        let output = Command::new(PROGRAM).args(["probe", question]).output().unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{output:?}");
    }
}

/// SBX-10, SBX-12: on the host itself nearly nothing holds.
#[test]
fn the_host_is_no_sandbox() {
    let sockets = HostSockets::listen().unwrap();
    let mut question = Question::new(Limits::SMOKE_TEST, &sockets, Vec::new(), false).unwrap();
    question.limits.pids = 4;
    // So that nothing is written to the host's /usr by this test.
    question.marker = "there-is-no-such-folder/marker".to_owned();
    let command = question.first_command(PROGRAM);
    let output = Command::new(&command[0]).args(&command[1..]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let report = Report::parse(&output.stdout, &question.expected()).unwrap();
    let failed: Vec<Wall> = report.failed().map(|assertion| assertion.name).collect();
    for wall in [Wall::UserNamespace, Wall::NetNamespace, Wall::Overlay, Wall::MemoryLimit, Wall::HostSockets] {
        assert!(failed.contains(&wall), "{report:#?}");
    }
}

/// SBX-21: the command's exit code and output, 128+signal, 124, 125.
#[test]
fn exit_codes_are_those_of_the_specification() {
    let Some((code, output)) = shell(&[], "echo out; echo err >&2; exit 7") else { return };
    assert_eq!((code, output.as_str()), (7, "out\nerr\n"));
    assert_eq!(shell(&[], "kill -TERM $$").unwrap().0, 128 + 15);
    let start = Instant::now();
    assert_eq!(shell(&["--deadline", "300"], "sleep 60003 & sleep 60003").unwrap().0, 124);
    assert!(start.elapsed() < Duration::from_secs(20));
    none_left("60003");
    let output = run(&[], &["/usr/bin/no-such-program"]).unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).contains("/usr/bin/no-such-program"), "{output:?}");
    let output = run(&["--bind", "/no/such/folder:/x"], &["/usr/bin/true"]).unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).contains("/no/such/folder: No such file"), "{output:?}");
}

/// SBX-6: environment, hostname, folder, standard input, session.
#[test]
fn the_environment_is_that_of_the_specification() {
    let script = "env -u PWD -u SHLVL -u _ | sort; cat /proc/sys/kernel/hostname; pwd; wc -c; id -u; id -g; id -G";
    let Some((code, output)) = shell(&[], script) else { return };
    let expected = "LANG=C.UTF-8\nPATH=/usr/bin:/usr/sbin:/bin:/sbin\nsandbox\n/\n0\n1000\n1000\n1000\n";
    assert_eq!((code, output.as_str()), (0, expected));
}

/// SBX-2: what is bound is there, cannot be written to, and a link inside leads nowhere outside.
#[test]
fn binds_are_read_only() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bound");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("file"), "content\n").unwrap();
    std::fs::set_permissions(folder.join("file"), PermissionsExt::from_mode(0o666)).unwrap();
    let bind = format!("{}:/usr/share/bound", folder.display());
    let script = "cat /usr/share/bound/file; (echo x > /usr/share/bound/file) 2>/dev/null || echo refused; ls /run";
    let Some((_, output)) = shell(&["--bind", &bind], script) else { return };
    assert!(output.starts_with("content\nrefused\n"), "{output}");
    assert!(output.contains("/run"), "the host's /run is there: {output}");
    assert_eq!(std::fs::read_to_string(folder.join("file")).unwrap(), "content\n");
    assert!(!Path::new("/usr/share/bound").exists(), "the mount point was made on the host");
}

/// SBX-2: `/usr` can be written to, and nothing of it is left.
#[test]
fn nothing_written_is_left() {
    let Some((code, output)) = shell(&[], "mkdir /usr/left && echo x > /usr/left/over && cat /usr/left/over") else {
        return;
    };
    assert_eq!((code, output.as_str()), (0, "x\n"));
    assert!(!Path::new("/usr/left").exists());
    assert_eq!(shell(&[], "test ! -e /usr/left").unwrap().0, 0);
}

/// SBX-5: a call of the list that a shell's tools can make, and which is the filter's to refuse.
#[test]
fn refused_calls_are_refused() {
    let Some((code, output)) = shell(&[], "unshare --user true") else { return };
    assert_ne!(code, 0);
    assert!(output.contains("Operation not permitted"), "{output}");
    let (code, output) = shell(&["--without", "seccomp"], "unshare --user true").unwrap();
    assert_eq!(code, 0, "it is refused without the filter, too: {output}");
    // These are refused in any case: there are no capabilities.
    for script in ["unshare --mount true", "mount -t tmpfs x /tmp"] {
        assert_ne!(shell(&[], script).unwrap().0, 0, "{script}");
        assert_ne!(shell(&["--without", "seccomp"], script).unwrap().0, 0, "{script}");
    }
}

/// SBX-21: SIGTERM ends it, with everything inside.
#[test]
fn sigterm_ends_everything() {
    ends_with("60001", |child| {
        let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
    });
}

/// SBX-21: whenever it comes, during set-up too.
#[test]
fn sigterm_during_set_up_ends_everything() {
    if run(&[], &["/usr/bin/true"]).is_none() {
        return;
    }
    for delay in (0..20).map(|step| Duration::from_millis(2 * step)) {
        let mut child = start(&[], &["/usr/bin/sleep", "60004"]).spawn().unwrap();
        std::thread::sleep(delay);
        let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let status = child.wait().unwrap();
        // Before it watches its signals, there is nothing to take away, and the signal itself ends it.
        assert!(status.code() == Some(128 + 15) || status.signal() == Some(15), "{delay:?}: {status}");
    }
    none_left("60004");
}

/// SBX-21: so does SIGKILL, although nobody is left to do it.
#[test]
fn sigkill_ends_everything() {
    ends_with("60002", |child| {
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    });
}

fn ends_with(word: &str, end: impl FnOnce(&mut std::process::Child)) {
    if run(&[], &["/usr/bin/true"]).is_none() {
        return;
    }
    let script = format!("setsid sleep {word} & echo up; exec sleep {word}");
    let mut child = start(&[], &["/usr/bin/sh", "-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 3];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut first).unwrap();
    assert!(!processes(word).is_empty());
    end(&mut child);
    none_left(word);
}
