//! Unified kernel images, applied on a machine in memory (UPD-5, IMG-19, ENT-10).

use std::io::Cursor;

use image_format::{BootSource, ImageSpec, Sources, build, root_verity};

use super::*;
use crate::firmware_trust::KernelRefused;
use crate::testing::{FakeHost, GLOBAL, enrol_digest, installed_kernel, key, spec, under_secure_boot};
use crate::uki::System;
use crate::uki::tests::small_uki;

/// An image whose unified kernel image has the line that it should have, changed.
fn image(spec: &ImageSpec, change: impl FnOnce(String) -> String) -> Vec<u8> {
    let mut root = Cursor::new(spec.version.repeat(50_000).into_bytes());
    let verity = root_verity(&mut root).unwrap();
    let system = System {
        root_hash: &verity.root_hash,
        hash_offset: verity.hash_offset,
        epoch: spec.epoch,
        version: &spec.version,
        options: &spec.options,
    };
    let mut uki = Cursor::new(small_uki(&change(system.command_line())));
    let sources = Sources { root: &mut root, boot: BootSource::Uki(&mut uki) };
    let mut out = Cursor::new(Vec::new());
    build(spec, sources, &[key()], &mut out, &mut |_, _| {}).unwrap();
    out.into_inner()
}

#[test]
fn upd_5_a_unified_image_is_written_and_staged_in_an_entry_of_form_2() {
    let host = FakeHost::new();
    let Outcome::Staged(summary) = host.apply(image(&spec("2.0.0"), |line| line)).unwrap() else {
        panic!("not staged")
    };
    assert_eq!(host.entries(), ["ralphos-a-g1.conf", "ralphos-b-g2+3-0.conf"]);
    assert_eq!(summary.entry.kernel_path().as_str(), "ralphos/b/g2-uki");
    let files: Vec<String> = host.with_esp(|esp| esp.files().into_iter().map(str::to_owned).collect());
    assert!(files.iter().any(|file| file == "ralphos/b/g2-uki"), "{files:?}");
    assert!(!files.iter().any(|file| file.starts_with("ralphos/b/g2-") && !file.ends_with("uki")), "{files:?}");
    // The file is looked at once it was read back, and before anything refers to it.
    let log = host.take_log();
    let at =
        |what: &str| log.iter().rposition(|line| line.contains(what)).unwrap_or_else(|| panic!("{what}: {log:#?}"));
    let read = log.iter().rposition(|line| line.contains("read ralphos/b/g2-uki")).unwrap();
    assert!(at("write ralphos/b/g2-uki") < read && read < at("write loader/entries/ralphos-b-g2"), "{log:#?}");
}

#[test]
fn upd_5_a_unified_image_that_the_loader_must_not_start_is_not_staged() {
    let refused = |host: &FakeHost, image: Vec<u8>| {
        let error = host.apply(image).unwrap_err();
        assert_eq!(host.entries(), ["ralphos-a-g1.conf"], "the slot stays fenced");
        let ApplyError::Fenced { source, .. } = error else { panic!("{error:?}") };
        let FencedError::Refused(refused) = *source else { panic!("{source:?}") };
        refused
    };
    for change in [
        (|line| line + " init=/bin/sh") as fn(String) -> String,
        |line| line.replace("roothash=", "roothash=0"),
        |line| line.replace("ralph.epoch=1", "ralph.epoch=2"),
    ] {
        assert!(matches!(refused(&FakeHost::new(), image(&spec("2.0.0"), change)), KernelRefused::Uki(_)));
    }
    let (host, variables) = under_secure_boot(FakeHost::new());
    assert!(matches!(refused(&host, image(&spec("2.0.0"), |line| line)), KernelRefused::Firmware(_)));
    // The running system has lost nothing: what the firmware starts can be applied.
    std::fs::write(variables.path().join(format!("SecureBoot-{GLOBAL}")), [7, 0, 0, 0, 0]).unwrap();
    assert!(matches!(host.apply(image(&spec("2.0.0"), |line| line)), Ok(Outcome::Staged(_))));
}

#[test]
fn upd_52_the_last_kernel_that_the_firmware_starts_is_not_taken_away() {
    let v3 = || image(&spec("3.0.0"), |line| line);
    // The running 1.0.0 was revoked, or nobody signed it; the firmware starts what is in slot B, as far as it is told here.
    let with_b = |in_b: &str, started: bool| {
        let mut host = FakeHost::new();
        host.put_system(in_b, "2.0.0");
        let (host, variables) = under_secure_boot(host);
        if started {
            enrol_digest(variables.path(), "db", &installed_kernel("2.0.0"));
        }
        (host, variables)
    };
    let (host, _variables) = with_b("ralphos-b-g2.conf", true);
    let before = host.entries();
    let ApplyError::Refused(refusal) = host.apply(v3()).unwrap_err() else { panic!("not refused") };
    assert_eq!(refusal.reason(), "fallback-not-whole");
    assert!(refusal.to_string().contains("ralph-update rollback"), "{refusal}");
    assert_eq!(host.entries(), before);
    // Where a rollback does not lead out, the new one does, and is asked about when it is written.
    let (spoilt, _spoilt) = with_b("ralphos-b-g2.conf", true);
    spoilt.with_esp(|esp| esp.take("ralphos/b/g2-linux"));
    let (misled, _misled) = with_b("ralphos-b-g2.conf", true);
    misled.with_esp(|esp| esp.put("loader/loader.conf", b"default ralphos-a-g1.conf\n"));
    assert!(matches!(misled.apply(v3()), Err(ApplyError::Refused(refusal)) if refusal.reason() == "plan-broken"));
    let (unproven, _unproven) = with_b("ralphos-b-g2+3-0.conf", true);
    let (neither, _neither) = with_b("ralphos-b-g2.conf", false);
    for host in [spoilt, unproven, neither] {
        assert!(matches!(host.apply(v3()), Err(ApplyError::Fenced { .. })));
    }
}
