//! Real files and directories (HLT-28); filesystems that are full or read-only are tried by the whole program, in `tests/paths.rs`.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::config::Size;
use std::time::Duration;

const LONG: Limit = Limit { within: Duration::from_secs(60), reason: Reason::Deadline };

fn of(path: &Path) -> PathCheck {
    PathCheck { path: path.to_owned(), file_type: None, writable: false, free: None }
}

fn passes(check: &PathCheck) {
    let finding = run(check, LONG);
    assert_eq!(finding.failed, None, "{finding:?}");
}

fn fails(check: &PathCheck, said: &str) {
    let finding = run(check, LONG);
    assert_eq!(finding.failed, Some(Reason::Path), "{finding:?}");
    assert!(finding.detail.contains(said), "{finding:?}");
}

#[test]
fn it_must_exist_and_links_are_followed() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("link");
    symlink("file", &link).unwrap();
    fails(&of(&link), "link: No such file");
    std::fs::write(folder.path().join("file"), "").unwrap();
    passes(&of(&link));
    passes(&PathCheck { file_type: Some(FileType::File), ..of(&link) });
    fails(&PathCheck { file_type: Some(FileType::Directory), ..of(&link) }, "is no directory");
    passes(&PathCheck { file_type: Some(FileType::Directory), ..of(folder.path()) });
    fails(&PathCheck { file_type: Some(FileType::File), ..of(folder.path()) }, "is no file");
}

#[test]
fn a_directory_takes_a_new_file_of_which_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    // What a power cut left does not stand in the way, whatever number it has.
    for number in 0..200 {
        let name = format!(".ralph-health-check-{}-{number}", process::id());
        std::fs::write(folder.path().join(name), "").unwrap();
    }
    passes(&PathCheck { writable: true, ..of(folder.path()) });
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 200);
}

#[test]
fn a_file_is_opened_for_writing_and_not_changed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "content").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    passes(&PathCheck { writable: true, ..of(&file) });
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "content");
}

#[test]
fn a_device_or_a_pipe_is_never_opened() {
    fails(&PathCheck { writable: true, ..of(Path::new("/dev/null")) }, "neither a file nor a directory");
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    fails(&PathCheck { writable: true, ..of(&pipe) }, "neither a file nor a directory");
    passes(&of(&pipe));
}

#[test]
fn so_much_must_be_free() {
    let folder = tempfile::tempdir().unwrap();
    let free = |text| PathCheck { free: Size::parse(text), ..of(folder.path()) };
    passes(&free("1KiB"));
    fails(&free("999999999GiB"), "expected 1073741822926258176");
}
