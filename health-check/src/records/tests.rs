//! Evidence on real file systems (HLT-40), and the sign for `ralphd` (HLT-3).

use super::evidence::Came;
use super::*;
use crate::check::{Outcome, Reason};
use crate::fakes::entry;

/// As long as anything that does not hang may take.
const LONG: Duration = Duration::from_secs(60);

fn evidence(generation: u32, attempt: u32) -> Evidence {
    let entry = Entry { generation, ..entry() };
    let outcomes = [Outcome::own_failure("commit", Reason::Commit, "read-only file system".into())];
    let came = Came {
        entry: &entry,
        attempt,
        verdict: "record-and-reboot".into(),
        outcomes: &outcomes,
        notes: &["a note".into()],
    };
    evidence::of(&came, 1_700_000_000, 81_200, "0b".repeat(16), Traces::default())
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn evidence_holds_what_the_specification_lists() {
    let root = tempfile::tempdir().unwrap();
    let path = FileRecords::below(root.path()).keep(&evidence(7, 1), LONG).unwrap().path;
    assert_eq!(path, root.path().join("var/lib/ralph-update/evidence/g7-try1.json"));
    let read: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let expected = serde_json::json!({
        "format": 1, "slot": "b", "generation": 7, "system": "5e".repeat(32), "version": "1.2.0", "attempt": 1,
        "time": 1_700_000_000, "boot-id": "0b".repeat(16), "verdict": "record-and-reboot", "uptime-ms": 81_200,
        "checks": [{
            "name": "commit", "level": "required", "verdict": "failed", "milliseconds": 0, "tries": 1, "reason": "commit",
            "detail": "read-only file system", "output": "", "recorded": null,
        }],
        "kernel-log": "", "previous-end": null, "notes": ["a note"],
    });
    assert_eq!(read, expected);
    assert_eq!(names(path.parent().unwrap()), ["g7-try1.json"], "no temporary file stays");
}

#[test]
fn the_same_attempt_replaces_its_evidence() {
    let root = tempfile::tempdir().unwrap();
    let records = FileRecords::below(root.path());
    records.keep(&evidence(7, 1), LONG).unwrap();
    let later = Evidence { time: 1_700_000_001, ..evidence(7, 1) };
    let path = records.keep(&later, LONG).unwrap().path;
    assert!(fs::read_to_string(&path).unwrap().contains("1700000001"));
    assert_eq!(names(path.parent().unwrap()).len(), 1);
}

#[test]
fn at_most_32_files_are_kept_the_oldest_go_first() {
    let root = tempfile::tempdir().unwrap();
    let records = FileRecords::below(root.path());
    let folder = root.path().join(EVIDENCE);
    fs::create_dir_all(&folder).unwrap();
    // What is not ours is neither counted nor removed; a temporary file of ours is what a power cut left.
    for foreign in ["notes.txt", "g07-try1.json", "g1-try1.json.bak", "gx-try1.json", "g+1-try1.json"] {
        fs::write(folder.join(foreign), "").unwrap();
    }
    fs::write(folder.join("g1-try9.json.new"), "{").unwrap();
    for generation in 2..=12 {
        for attempt in 1..=3 {
            records.keep(&evidence(generation, attempt), LONG).unwrap();
        }
    }
    let names = names(&folder);
    let ours: Vec<FileName> = names.iter().filter_map(|name| FileName::parse(name)).collect();
    assert_eq!(ours.len(), KEPT);
    assert!(!ours.contains(&FileName { generation: 2, attempt: 1 }));
    assert!(ours.contains(&FileName { generation: 2, attempt: 2 }));
    assert!(ours.contains(&FileName { generation: 12, attempt: 3 }));
    assert_eq!(names.len(), KEPT + 5, "{names:?}");
    // After a new installation generations begin anew; what was just written stays.
    records.keep(&evidence(1, 1), LONG).unwrap();
    assert!(folder.join("g1-try1.json").exists());
    assert_eq!(self::names(&folder).len(), KEPT + 5);
}

#[test]
fn evidence_that_cannot_be_written_is_an_error_that_names_the_path() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("var")).unwrap();
    // A file where a folder should be: refused also to root, unlike a read-only folder.
    fs::write(root.path().join("var/lib"), "").unwrap();
    let error = FileRecords::below(root.path()).keep(&evidence(7, 1), LONG).unwrap_err();
    assert!(error.to_string().contains("var/lib"), "{error}");
    assert!(std::error::Error::source(&error).is_some());
}

#[test]
fn a_full_disk_keeps_the_old_evidence_and_no_half_file() {
    let root = tempfile::tempdir().unwrap();
    let records = FileRecords::below(root.path());
    let path = records.keep(&evidence(7, 1), LONG).unwrap().path;
    let before = fs::read(&path).unwrap();
    // /dev/full answers as a full disk does; the temporary name leads there.
    let temporary = path.with_extension("json.new");
    std::os::unix::fs::symlink("/dev/full", &temporary).unwrap();
    let error = records.keep(&Evidence { time: 1, ..evidence(7, 1) }, LONG).unwrap_err();
    assert!(error.to_string().starts_with("cannot write "), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(names(path.parent().unwrap()), ["g7-try1.json"]);
}

#[test]
fn a_file_system_that_hangs_is_left_behind_hlt_42() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join(EVIDENCE);
    fs::create_dir_all(&folder).unwrap();
    // Opening a FIFO that nobody reads never returns.
    nix::unistd::mkfifo(&folder.join("g7-try1.json.new"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let records = FileRecords::below(root.path());
    let begin = std::time::Instant::now();
    let error = records.keep(&evidence(7, 1), Duration::from_millis(100)).unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(30));
    assert_eq!(error.source.kind(), ErrorKind::TimedOut);
    assert!(error.to_string().ends_with("var/lib/ralph-update/evidence"), "{error}");
}

#[test]
fn evidence_on_a_tmpfs_is_known_to_be_lost_hlt_40() {
    // /dev/shm is a tmpfs on every Linux with systemd or in a container; the crate's own folder is where sources are kept.
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    assert_eq!(FileRecords::below(memory.path()).keep(&evidence(7, 1), LONG).unwrap().medium, Medium::Memory);
    assert_eq!(medium(Path::new("/proc")), Medium::Lasting);
    assert_eq!(medium(Path::new("/nonexistent")), Medium::Lasting);
}

#[test]
fn ralphd_is_told_by_a_file_hlt_3() {
    let root = tempfile::tempdir().unwrap();
    let records = FileRecords::below(root.path());
    records.mark_committed(&entry()).unwrap();
    records.mark_committed(&entry()).unwrap();
    let text = fs::read_to_string(root.path().join("run/ralphos/committed")).unwrap();
    assert_eq!(text, "slot b generation 7\n");
}

#[test]
fn the_boot_id_is_empty_where_there_is_none() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(FileRecords::below(root.path()).boot_id(), "");
    assert_eq!(FileRecords::below(Path::new("/")).boot_id().len(), 36);
}
