//! Answers of the kernel and of systemd, as captured (HLT-37, HLT-38).

use super::*;

#[test]
fn a_kexec_is_told_from_every_loader_hlt_37() {
    // kexec writes 0xd0; the EFI stub 0x21, QEMU's -kernel 0xb0, GRUB 0x72.
    assert!(is_kexec("208\n").unwrap());
    assert!(is_kexec("209\n").unwrap());
    for other in ["33\n", "176\n", "114\n", "13\n", "0\n"] {
        assert!(!is_kexec(other).unwrap(), "{other}");
    }
    assert!(is_kexec("many").is_err());
}

#[test]
fn the_kernels_file_is_read_and_its_absence_is_no_kexec_hlt_37() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join(BOOTLOADER_TYPE);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "208\n").unwrap();
    let told = ThisMachine::below(root.path()).not_firmware().unwrap();
    assert_eq!(told.as_deref(), Some("the kernel was started by kexec"));
    fs::write(&path, "nonsense").unwrap();
    assert!(ThisMachine::below(root.path()).not_firmware().is_err());
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
