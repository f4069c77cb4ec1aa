//! The check kind `path` on filesystems that are full or read-only (HLT-28): real ones, in a mount namespace of their own. Needs `unshare`
//! and `mount`, and root or a kernel that lets this user make user namespaces.

use std::process::Command;

/// Runs a check of `FOLDER/disk` after the script has prepared it; what it prints.
fn checked(prepare: &str, keys: &str) -> String {
    qemu_tests::setup::ensure_tools().expect("unshare and mount");
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let config = folder.path().join("50-test.toml");
    std::fs::write(
        &config,
        format!("[check.disk]\nkind = \"path\"\npath = \"{}\"\ntries = 1\n{keys}\n", disk.display()),
    )
    .unwrap();
    let script = format!(
        "set -e; cd {}; trap 'umount disk' EXIT; mount -t tmpfs -o size=64k tmpfs disk; {prepare}; {} check {} || true; \
        if ls -A disk | grep -q ralph-health-check; then echo LEFT BEHIND; fi",
        folder.path().display(),
        env!("CARGO_BIN_EXE_ralph-health-check"),
        config.display()
    );
    // Root needs no user namespace, and gets none in a chroot, whose root is no mount that could be made private either.
    let root = ["--propagation", "unchanged", "--mount"];
    let user = ["--user", "--map-root-user", "--mount"];
    let out = Command::new("unshare")
        .args(if nix::unistd::geteuid().is_root() { root } else { user })
        .args(["sh", "-c", &script])
        .output()
        .expect("unshare (util-linux) is needed by this test");
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success(), "this test makes a mount namespace: {}", String::from_utf8_lossy(&out.stderr));
    assert!(!text.contains("LEFT BEHIND"), "{text}");
    text
}

const FILL: &str = "dd if=/dev/zero of=disk/full bs=4k 2>/dev/null || true";

#[test]
fn a_filesystem_with_room_passes() {
    let text = checked("true", "type = \"directory\"\nwritable = true\nfree = \"32KiB\"");
    assert!(text.starts_with("pass disk "), "{text}");
}

#[test]
fn a_full_filesystem_takes_no_new_file() {
    let text = checked(FILL, "writable = true");
    assert!(text.starts_with("FAIL disk ") && text.contains("takes no new file: No space left"), "{text}");
    let text = checked(FILL, "free = \"1KiB\"");
    assert!(text.starts_with("FAIL disk ") && text.contains("0 bytes are free at "), "{text}");
    // Without these keys it must only be there.
    assert!(checked(FILL, "").starts_with("pass disk "));
}

#[test]
fn a_read_only_filesystem_takes_no_new_file() {
    let text = checked("mount -o remount,ro disk", "writable = true");
    assert!(text.starts_with("FAIL disk ") && text.contains("Read-only file system"), "{text}");
}
