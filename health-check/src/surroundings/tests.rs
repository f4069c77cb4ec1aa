//! Answers of the kernel and of systemd, as captured (HLT-37, HLT-38).

use super::*;

#[test]
fn a_kexec_is_told_by_the_kernels_files_hlt_37_grd_13() {
    let root = tempfile::tempdir().unwrap();
    let loader = root.path().join("proc/sys/kernel/bootloader_type");
    std::fs::create_dir_all(loader.parent().unwrap()).unwrap();
    std::fs::write(&loader, "208\n").unwrap();
    let told = || ThisMachine::below(root.path()).not_firmware();
    assert_eq!(told().unwrap().as_deref(), Some("the kernel was started by kexec"));
    // What cannot be understood is said.
    std::fs::write(&loader, "nonsense").unwrap();
    let said = crate::chain(told().unwrap_err().as_ref());
    assert!(said.contains("bootloader_type holds no number"), "{said}");
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
