//! Real processes, among them those that do not want to end (HLT-20, HLT-21).

use super::*;
use std::os::unix::fs::PermissionsExt;

const LONG: Duration = Duration::from_secs(60);

fn sh(script: &str, within: Duration) -> Ended {
    run(Path::new("/bin/sh"), &["-c".to_owned(), script.to_owned()], within).expect("/bin/sh starts")
}

fn alive(pid: &str) -> bool {
    // A zombie is dead; it waits for a parent that may be slow.
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

fn gone_soon(pid: &str) -> bool {
    let until = Instant::now() + Duration::from_secs(5);
    while alive(pid) {
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

#[test]
fn exit_codes_and_signals() {
    assert_eq!(sh("exit 0", LONG).end, End::Code(0));
    assert_eq!(sh("exit 77", LONG).end, End::Code(77));
    assert_eq!(sh("kill -TERM $$", LONG).end, End::Signal(15));
    assert_eq!(sh("kill -40 $$", LONG).end, End::Signal(40));
}

#[test]
fn a_missing_program_and_one_that_is_not_executable() {
    let missing = run(Path::new("/nonexistent/program"), &[], LONG).unwrap_err();
    let StartError::Spawn { source, .. } = &missing else { panic!("{missing:?}") };
    assert_eq!(source.kind(), ErrorKind::NotFound);
    assert!(missing.to_string().contains("/nonexistent/program"));

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("program");
    std::fs::write(&file, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let refused = run(&file, &[], LONG).unwrap_err();
    let StartError::Spawn { source, .. } = &refused else { panic!("{refused:?}") };
    assert_eq!(source.kind(), ErrorKind::PermissionDenied);
}

#[test]
fn the_environment_is_empty_but_for_two_variables_hlt_21() {
    let ended = run(Path::new("/usr/bin/env"), &[], LONG).unwrap();
    let mut lines: Vec<&str> = ended.output.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["LANG=C.UTF-8", "PATH=/usr/bin:/usr/sbin:/bin:/sbin"]);
    assert_eq!(sh("pwd; cat; readlink /proc/self/fd/0", LONG).output, "/\n/dev/null\n");
}

#[test]
fn both_streams_are_kept_in_order() {
    assert_eq!(sh("echo one; echo two >&2; echo three", LONG).output, "one\ntwo\nthree\n");
}

#[test]
fn a_mebibyte_of_output_keeps_its_last_2_kib_hlt_21() {
    let ended = sh("head -c 1048576 /dev/zero | tr '\\0' x; echo the end", LONG);
    assert_eq!(ended.end, End::Code(0));
    assert_eq!(ended.output.len(), KEPT);
    assert!(ended.output.starts_with("xxx") && ended.output.ends_with("xthe end\n"));
}

#[test]
fn a_program_past_its_deadline_is_killed_hlt_20() {
    let start = Instant::now();
    let ended = sh("echo begun; exec sleep 100", Duration::from_secs(2));
    assert_eq!(ended.end, End::Deadline);
    assert_eq!(ended.output, "begun\n");
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(30), "{took:?}");
}

#[test]
fn children_that_ignore_sigterm_are_killed_with_it_hlt_20() {
    let script = r#"trap "" TERM; sleep 100 & echo $!; sleep 100 & echo $!; echo $$; wait; sleep 100"#;
    let start = Instant::now();
    let ended = sh(script, Duration::from_secs(3));
    assert_eq!(ended.end, End::Deadline);
    assert!(start.elapsed() < Duration::from_secs(30));
    let pids: Vec<&str> = ended.output.lines().collect();
    assert_eq!(pids.len(), 3);
    for pid in pids {
        assert!(gone_soon(pid), "{pid} still runs");
    }
}

#[test]
fn what_a_passing_program_leaves_in_its_group_is_killed() {
    let start = Instant::now();
    let ended = sh("sleep 100 & echo $!", LONG);
    assert_eq!(ended.end, End::Code(0));
    assert!(start.elapsed() < Duration::from_secs(30), "the inherited pipe must not be waited for");
    assert!(gone_soon(&ended.output));
}

#[test]
fn a_grandchild_in_a_session_of_its_own_holds_nothing_up() {
    // It keeps the pipe and cannot be reached by the group's signal; we return all the same.
    let start = Instant::now();
    let ended = sh("setsid sleep 60 & sleep 0.2; echo done", LONG);
    assert_eq!((ended.end, ended.output.as_str()), (End::Code(0), "done\n"));
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_grandchild_that_never_stops_writing_holds_nothing_up() {
    let start = Instant::now();
    let ended = sh("setsid timeout 60 yes & sleep 0.2; exit 3", LONG);
    assert_eq!(ended.end, End::Code(3));
    assert!(start.elapsed() < Duration::from_secs(30));
    let ended = sh("yes", Duration::from_millis(300));
    assert_eq!(ended.end, End::Deadline);
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_stopped_program_is_killed_too() {
    let start = Instant::now();
    assert_eq!(sh("kill -STOP $$", Duration::from_millis(300)).end, End::Deadline);
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_program_that_closes_its_output_is_still_waited_for() {
    let ended = sh("echo first; exec >&- 2>&-; sleep 0.3; exit 5", LONG);
    assert_eq!((ended.end, ended.output.as_str()), (End::Code(5), "first\n"));
}
