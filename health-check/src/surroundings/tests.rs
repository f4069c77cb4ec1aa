//! Answers of the kernel and of systemd, as captured (HLT-37, HLT-38).

use super::*;

/// A machine with these files below `/proc`.
fn proc(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = root.path().join("proc").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

#[test]
fn a_kexec_is_told_by_the_kernels_files_hlt_37_grd_13() {
    const LOADER: &str = "sys/kernel/bootloader_type";
    let started_by_kexec = |files: &[(&str, &str)]| ThisMachine::below(proc(files).path()).is_kexec();
    assert!(started_by_kexec(&[(LOADER, "208\n"), ("cmdline", "quiet")]).unwrap());
    assert!(!started_by_kexec(&[(LOADER, "33\n"), ("cmdline", "quiet")]).unwrap());
    // Where nothing tells the loader, a crash kernel is known all the same.
    assert!(!started_by_kexec(&[("cmdline", "quiet")]).unwrap());
    assert!(started_by_kexec(&[("cmdline", "quiet elfcorehdr=0x1000")]).unwrap());
    assert!(started_by_kexec(&[("cmdline", "quiet"), ("vmcore", "")]).unwrap());
    // What cannot be read is said.
    let said = |files: &[(&str, &str)]| crate::chain(started_by_kexec(files).unwrap_err().as_ref());
    assert!(said(&[(LOADER, "nonsense"), ("cmdline", "quiet")]).starts_with("/proc/sys/kernel/bootloader_type holds"));
    assert!(said(&[]).starts_with("cannot read /proc/cmdline: "));
    let told = ThisMachine::below(proc(&[(LOADER, "208\n"), ("cmdline", "quiet")]).path()).not_firmware().unwrap();
    assert_eq!(told.as_deref(), Some("the kernel was started by kexec"));
}

#[test]
fn soft_reboots_are_counted_where_systemd_knows_them_hlt_37() {
    assert_eq!(soft_reboots("SoftRebootsCount=0\n").unwrap(), 0);
    assert_eq!(soft_reboots("SoftRebootsCount=2\n").unwrap(), 2);
    assert_eq!(soft_reboots("").unwrap(), 0, "systemd 252 and older");
    assert!(soft_reboots("SoftRebootsCount=many\n").is_err());
}

#[test]
fn bless_boot_is_fine_only_masked_or_missing_hlt_38() {
    assert_eq!(not_masked("LoadState=masked\nActiveState=inactive\nUnitFileState=masked\n"), None);
    assert_eq!(not_masked("LoadState=not-found\nActiveState=inactive\nUnitFileState=\n"), None);
    for (shown, told) in [
        ("LoadState=loaded\nActiveState=inactive\nUnitFileState=static\n", "loaded, static, inactive"),
        ("LoadState=loaded\nActiveState=active\nUnitFileState=enabled-runtime\n", "loaded, enabled-runtime, active"),
        ("LoadState=bad-setting\nActiveState=inactive\nUnitFileState=\n", "bad-setting, inactive"),
    ] {
        assert_eq!(not_masked(shown).as_deref(), Some(told));
    }
    // An answer that says nothing is no proof that it is masked.
    assert!(not_masked("").is_some());
}
