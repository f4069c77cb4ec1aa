//! What a verdict leaves in the guard's record (GRD-3, GRD-11, HLT-36).

use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use super::*;
use crate::config::Level;
use crate::fakes::entry;
use disk_layout::Slot;

fn failed(name: &str, reason: Reason) -> Outcome {
    Outcome::own_failure(name, reason, "too late".into())
}

#[test]
fn the_first_required_check_that_failed_is_named_grd_3() {
    let mut wanted = failed("extra", Reason::Deadline);
    wanted.level = Level::Wanted;
    let outcomes = [wanted, failed("ralphd", Reason::Deadline), failed("policy", Reason::Json)];
    assert_eq!(Failure::of(&entry(), 2, &outcomes).text, "check: ralphd");
    let outcomes = [failed("health", Reason::After), failed("ralphd", Reason::Deadline)];
    assert_eq!(Failure::of(&entry(), 2, &outcomes).text, "check: ralphd", "the cause, not what waited for it");
    assert_eq!(Failure::of(&entry(), 2, &[failed("emergency", Reason::Emergency)]).text, "emergency");
    assert_eq!(Failure::of(&entry(), 2, &[]).text, "check: configuration");
}

#[test]
fn a_verdict_sets_the_count_to_0_and_keeps_an_event_grd_11() {
    let counted = GuardRecord::default().counted(Slot::A, Generation::FIRST, None);
    let earlier =
        GuardEvent { slot: Slot::A, generation: Generation::FIRST, attempt: None, text: GuardText::sanitised("guard") };
    let record = with_verdict(counted.with_event(earlier.clone()), Count::Zero, None);
    assert_eq!((record.boots, record.event), (0, Some(earlier)));
    let counted = GuardRecord::default().counted(Slot::A, Generation::FIRST, None);
    assert_eq!(with_verdict(counted.clone(), Count::Keep, None), counted);
}

#[test]
fn a_failed_trial_is_the_event_of_the_record_grd_3() {
    let name = "n".repeat(64);
    let failure = Failure::of(&entry(), 2, &[failed(&name, Reason::Deadline)]);
    let record =
        with_verdict(GuardRecord::default().counted(Slot::B, Generation::FIRST, Some(2)), Count::Keep, Some(&failure));
    let event = record.event.clone().unwrap();
    assert_eq!((event.slot, event.generation.get(), event.attempt), (Slot::B, 7, Some(2)));
    assert_eq!(event.text.as_str(), format!("check: {}", "n".repeat(41)), "cut to the 48 bytes there are");
    assert_eq!(record.boots, 1, "a reboot comes, and the boot counts");
    assert_eq!(GuardRecord::decode(&record.encode()).unwrap(), record);
}

/// A guard below `root`; `reload` always fails, which shows that it was asked for.
fn below(root: &Path, name: &str) -> BootGuard {
    BootGuard { client: GuardClient::named(name), root: root.to_owned(), reload: || Err("reloaded".into()) }
}

fn put(root: &Path, path: &str, text: &str) -> PathBuf {
    let path = root.join(path.trim_start_matches('/'));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path
}

fn listen(name: &str) -> UnixListener {
    UnixListener::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap()
}

#[test]
fn a_guard_that_cannot_be_asked_is_not_off_hlt_36() {
    let root = tempfile::tempdir().unwrap();
    let name = format!("ralphos-health-watch-{}", std::process::id());
    let guard = below(root.path(), &name);
    let why = "nobody answers for it".to_owned();
    assert_eq!(guard.watch(), Watch::Off { why: why.clone(), left: None });
    let trial = "slot=b\ngeneration=7\nattempt=1\ndeadline-seconds=600\nanother=yes\n";
    put(root.path(), TRIAL_FILE, trial);
    put(root.path(), "proc/uptime", "100.50 7.00\n");
    assert_eq!(guard.watch().left(), None, "nobody is there who would end this boot");
    let left = Some(Duration::from_millis(499_500));
    put(root.path(), DROP_IN, "");
    assert_eq!(guard.watch(), Watch::Off { why, left }, "systemd is (GRD-23)");
    // Somebody listens, and gives an answer that is none.
    let listener = listen(&name);
    let answering = std::thread::spawn(move || {
        for _ in 0..3 {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 16]);
            stream.write_all(b"armed\n").unwrap();
        }
    });
    assert!(matches!(guard.watch(), Watch::NotKnown { left: found, .. } if found == left));
    put(root.path(), TRIAL_FILE, &trial.replace("yes", "no"));
    assert_eq!(guard.watch().left(), None, "nothing happens at that deadline");
    put(root.path(), TRIAL_FILE, trial);
    put(root.path(), "proc/uptime", "700.00 7.00\n");
    assert_eq!(guard.watch().left(), None, "it has passed, and nothing happened");
    answering.join().unwrap();
}

#[test]
fn a_guard_that_does_not_answer_is_told_again_hlt_36() {
    let root = tempfile::tempdir().unwrap();
    let name = format!("ralphos-health-disarm-{}", std::process::id());
    let guard = below(root.path(), &name);
    assert_eq!(guard.disarm(), [""; 0], "nobody watches: that is what was wanted");
    let listener = listen(&name);
    let answering = std::thread::spawn(move || {
        for answer in ["", "what?\n", "disarmed\n", "", "", ""] {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 16]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    assert_eq!(guard.disarm(), [""; 0], "the third time");
    let notes = guard.disarm();
    assert!(notes.len() == 1 && notes[0].starts_with("the boot guard is still armed: "), "{notes:?}");
    answering.join().unwrap();
}

#[test]
fn what_the_guard_left_to_systemd_is_taken_back_grd_23() {
    let root = tempfile::tempdir().unwrap();
    let guard = below(root.path(), &format!("ralphos-health-drop-in-{}", std::process::id()));
    let path = put(root.path(), DROP_IN, "");
    assert_eq!(guard.disarm(), ["systemd still has the trial's deadline: reloaded"]);
    assert!(!path.exists());
    assert_eq!(guard.disarm(), [""; 0], "and systemd is not bothered without need");
}
