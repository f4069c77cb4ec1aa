//! UPD-1, one row a refusal.

use image_format::ImageSpec;

use super::*;
use crate::testing::{image, spec};

fn facts() -> Facts {
    Facts {
        policy: Policy { os_id: Some("ralphos".into()), hardware: vec!["acme,box".into()], ..Policy::default() },
        architecture: Architecture::X86_64,
        updater: UpdaterVersion(0, 1, 0),
        running_version: "1.9.0".into(),
        running_system: "running".into(),
        staged_system: Some("staged".into()),
        floor: 3,
        known_bad: None,
        inconclusive: 0,
        slot_len: 1 << 30,
        cluster_size: 4096,
        free_clusters: 1 << 16,
        freed_clusters: 0,
        firmware: FirmwareTrust::Open,
        running_unified: false,
        running_on_trial: false,
    }
}

fn manifest(change: impl FnOnce(&mut ImageSpec)) -> Manifest {
    let mut spec = ImageSpec { epoch: 3, ..spec("2.0.0") };
    change(&mut spec);
    image(&spec).1
}

fn verdict(manifest: &Manifest, system: &str, facts: &Facts) -> Result<Decision, &'static str> {
    decide(manifest, system, facts, Downgrade::Refuse, KnownBad::Refuse).map_err(|refusal| refusal.reason())
}

#[test]
fn a_fitting_image_is_applied() {
    let plain = manifest(|_| {});
    assert_eq!(verdict(&plain, "new", &facts()), Ok(Decision::Apply));
    assert_eq!(verdict(&plain, "running", &facts()), Ok(Decision::AlreadyRunning));
    assert_eq!(verdict(&plain, "staged", &facts()), Ok(Decision::AlreadyStaged));
    let fits = manifest(|spec| spec.compatible = vec!["other".into(), "acme,box".into()]);
    assert_eq!(verdict(&fits, "new", &facts()), Ok(Decision::Apply));
    let any_os = Facts { policy: Policy::default(), ..facts() };
    assert_eq!(verdict(&manifest(|spec| spec.os_id = "other".into()), "new", &any_os), Ok(Decision::Apply));
}

#[test]
fn each_refusal_of_the_image() {
    type Row = (&'static str, fn(&mut ImageSpec));
    let rows: &[Row] = &[
        ("wrong-os", |spec| spec.os_id = "otheros".into()),
        ("wrong-hardware", |spec| spec.compatible = vec!["acme,phone".into()]),
        ("updater-too-old", |spec| spec.min_updater = UpdaterVersion(0, 2, 0)),
        ("below-floor", |spec| spec.epoch = 2),
        ("epoch-jump", |spec| spec.epoch = 12),
        ("downgrade", |spec| spec.version = "1.8.9".into()),
        ("downgrade", |spec| spec.version = "1.9.0~rc1".into()),
    ];
    for (reason, change) in rows {
        assert_eq!(verdict(&manifest(change), "new", &facts()), Err(*reason));
    }
}

#[test]
fn each_refusal_of_the_machine() {
    let plain = manifest(|_| {});
    let rows = [
        ("wrong-architecture", Facts { architecture: Architecture::Aarch64, ..facts() }),
        ("known-bad", Facts { known_bad: Some("deadline".into()), ..facts() }),
        ("inconclusive", Facts { inconclusive: 3, ..facts() }),
        ("slot-too-small", Facts { slot_len: plain.slot_bytes - 1, ..facts() }),
        ("esp-too-small", Facts { free_clusters: 259, ..facts() }),
        ("on-trial", Facts { running_on_trial: true, ..facts() }),
    ];
    for (reason, facts) in rows {
        assert_eq!(verdict(&plain, "new", &facts), Err(reason));
    }
    let just_enough = Facts { free_clusters: 200, freed_clusters: 60, slot_len: plain.slot_bytes, ..facts() };
    assert_eq!(verdict(&plain, "new", &just_enough), Ok(Decision::Apply));
}

#[test]
fn what_the_operator_may_overrule_and_what_not() {
    let older = manifest(|spec| spec.version = "1.0.0".into());
    assert_eq!(decide(&older, "new", &facts(), Downgrade::Allow, KnownBad::Refuse), Ok(Decision::Apply));
    let bad = Facts { known_bad: Some("deadline".into()), ..facts() };
    assert_eq!(decide(&manifest(|_| {}), "new", &bad, Downgrade::Refuse, KnownBad::Retry), Ok(Decision::Apply));
    let below = manifest(|spec| spec.epoch = 2);
    let refused = decide(&below, "new", &facts(), Downgrade::Allow, KnownBad::Retry).unwrap_err();
    assert_eq!(refused.reason(), "below-floor", "UPD-40: the floor holds, --allow-downgrade or not");
}

#[test]
fn upd_10_a_delta_refers_to_what_runs() {
    assert_eq!(refers_to_running(None, &facts()), Ok(()));
    assert_eq!(refers_to_running(Some("running".into()), &facts()), Ok(()));
    let refused = refers_to_running(Some("staged".into()), &facts()).unwrap_err();
    assert_eq!(refused.reason(), "delta-base");
    let told = refused.to_string();
    assert!(told.contains("system staged") && told.contains("runs running") && told.contains("full image"), "{told}");
}

/// With one payload in place of kernel and initrd.
fn unified(manifest: Manifest) -> Manifest {
    let mut content = manifest.into_content();
    content.payloads.truncate(2);
    let machine = content.architecture;
    content.payloads[1].kind = image_format::PayloadKind::Uki { machine };
    content.esp_bytes = content.payloads[1].size;
    Manifest::new(content).unwrap()
}

#[test]
fn upd1_sec10_what_the_firmware_asks_decides_which_images_are_taken() {
    let (apart, one) = (manifest(|_| ()), unified(manifest(|_| ())));
    let asked = |manifest: &Manifest, firmware: FirmwareTrust| {
        decide(manifest, "new", &Facts { firmware, ..facts() }, Downgrade::Refuse, KnownBad::Refuse)
    };
    let enforcing = || FirmwareTrust::Enforcing(Box::default());
    let unclear = || FirmwareTrust::Unclear("nobody knows".into());
    assert_eq!(asked(&apart, FirmwareTrust::Open), Ok(Decision::Apply));
    assert_eq!(asked(&one, FirmwareTrust::Open), Ok(Decision::Apply));
    assert_eq!(asked(&one, enforcing()), Ok(Decision::Apply), "whether it is signed is asked of the file");
    assert_eq!(asked(&apart, enforcing()), Err(Refusal::NotUnified));
    // As ever, where the firmware has started such a one.
    assert_eq!(asked(&apart, unclear()), Ok(Decision::Apply));
    assert_eq!(asked(&one, unclear()), Err(Refusal::FirmwareUnclear { why: "nobody knows".into() }));
    let from_unified = Facts { firmware: unclear(), running_unified: true, ..facts() };
    let refused = decide(&apart, "new", &from_unified, Downgrade::Refuse, KnownBad::Refuse);
    assert_eq!(refused, Err(Refusal::FirmwareUnclear { why: "nobody knows".into() }));
}
