//! DOC-12: the boot loader's own files.

use qemu_tests::pe::{HEADERS, TABLE};

use super::*;
use crate::testing::{enrol_digest, installed_kernel, installed_loader, started_by, under_secure_boot};
use crate::uki::tests::program;

const DEFAULT: &str = "EFI/BOOT/BOOTX64.EFI";
const ALTERNATE: &str = "EFI/BOOT/BOOTX64.ALT";

#[test]
fn doc_12_a_loader_that_the_firmware_cannot_start_is_told_of_before_it_is_needed() {
    let broken: [(&str, Option<Vec<u8>>); 3] = [
        ("is not there", None),
        ("is not what the firmware can start", Some(b"no program".to_vec())),
        ("another architecture", Some(program(0xaa64, &[(".text", b"x")]))),
    ];
    for (said, content) in broken {
        let (mut host, variables) = (two_systems(), tempfile::tempdir().unwrap());
        host.with_esp(|esp| match &content {
            Some(content) => esp.put(DEFAULT, content),
            None => esp.take(DEFAULT),
        });
        // Nobody says what started the machine: it may have been another file.
        assert_eq!(ids(&look(&host)), ["loader-unusable~"], "{said}");
        host.efivars = Some(variables.path().to_owned());
        for (starter, expected) in [
            ("\\EFI\\BOOT\\BOOTX64.EFI", &["loader-unusable!"][..]),
            // Somebody else sees to that.
            ("\\EFI\\other\\shimx64.efi", &[]),
        ] {
            started_by(variables.path(), starter);
            let found = look(&host);
            assert_eq!(ids(&found), expected, "{starter}");
            assert!(expected.is_empty() || found.findings[0].what.contains(said), "{found:?}");
            // After a restart there would be nobody to try the update (DOC-40).
            let refused = host.with_esp(|esp| against_a_restart(&host, esp));
            assert_eq!(refused.is_some(), !expected.is_empty(), "{starter}");
        }
        // A disk image has nothing but its own files.
        host.booted = None;
        host.efivars = None;
        assert!(ids(&look(&host)).contains(&"loader-unusable!".to_owned()), "{said}");
    }
}

#[test]
fn doc_12_what_the_firmware_refuses_for_certain_is_a_danger_and_a_doubt_a_warning() {
    let (host, variables) = under_secure_boot(two_systems());
    for version in ["1.0.0", "2.0.0"] {
        enrol_digest(variables.path(), "db", &installed_kernel(version));
    }
    started_by(variables.path(), "\\EFI\\BOOT\\BOOTX64.EFI");
    assert_eq!(ids(&look(&host)), Vec::<String>::new());
    enrol_digest(variables.path(), "dbx", &installed_loader());
    assert_eq!(ids(&look(&host)), ["loader-unusable!"]);
    // Whoever has made it.
    host.with_esp(|esp| esp.put(DEFAULT, &program(0x8664, &[(".text", b"unsigned")])));
    assert_eq!(ids(&look(&host)), ["loader-unusable!"]);
    // Firmwares differ about bytes between the sections.
    let mut gap = program(0x8664, &[(".text", b"x")]);
    let at = TABLE + 20;
    gap.splice(HEADERS..HEADERS, [0; 512]);
    gap[at..at + 4].copy_from_slice(&(HEADERS as u32 + 512).to_le_bytes());
    host.with_esp(|esp| esp.put(DEFAULT, &gap));
    assert_eq!(ids(&look(&host)), ["loader-unusable~"]);
    let open = two_systems();
    open.with_esp(|esp| esp.put(DEFAULT, &gap));
    assert_eq!(ids(&look(&open)), Vec::<String>::new());
}

#[test]
fn doc_12_a_boot_by_the_kept_loader_is_told_of() {
    let (mut host, variables) = (two_systems(), tempfile::tempdir().unwrap());
    host.efivars = Some(variables.path().to_owned());
    started_by(variables.path(), "\\EFI\\BOOT\\BOOTX64.ALT");
    host.with_esp(|esp| esp.put(ALTERNATE, b"the one before"));
    // They have changed places since, and the default is what started this boot; or another kernel has started this one.
    for (swapped, expected) in [(Some(false), &["on-alternate-loader~"][..]), (Some(true), &[]), (None, &[])] {
        host.vitals.borrow_mut().loaders_swapped = swapped;
        assert_eq!(ids(&look(&host)), expected, "{swapped:?}");
    }
}
