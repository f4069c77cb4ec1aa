//! The order of effects of an apply, on a machine in memory (specs/boot-entries.md section 5).

use std::cell::RefCell;
use std::collections::BTreeSet;

use boot_entries::guard::{GuardEvent, GuardRecord};
use boot_entries::{LoaderVars, Space};

use super::*;
use crate::history::{Event, Records};
use crate::testing::{FakeHost, SLOT_LEN, image, spec, started_by};

fn staged(outcome: Result<Outcome, ApplyError>) -> Summary {
    match outcome {
        Ok(Outcome::Staged(summary)) => *summary,
        other => panic!("not staged: {other:?}"),
    }
}

fn refusal(outcome: Result<Outcome, ApplyError>) -> Refusal {
    match outcome {
        Err(ApplyError::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

/// What changes a machine: everything but reads and looks.
fn changes(log: &[String]) -> Vec<&String> {
    log.iter().filter(|line| !line.contains("read ") && !line.ends_with("check clusters")).collect()
}

#[test]
fn upd_2_to_6_the_exact_order_of_effects() {
    let host = FakeHost::new();
    let (bytes, manifest) = image(&spec("2.0.0"));
    let summary = staged(host.apply(bytes));
    assert_eq!(summary.file_name, "ralphos-b-g2+3-0.conf");
    assert_eq!(summary.entry.options.extra, "oops=panic quiet panic=10");
    let log = host.take_log();
    let tree = manifest.root().1.hash_offset;
    let expected = [
        // UPD-2: nothing stood there; the folder for the payloads is made.
        "esp mkdir ralphos/b".to_owned(),
        "esp flush".to_owned(),
        // ENT-28: the directory of the entries will not grow during the trial.
        "esp make room for 256 in loader/entries".to_owned(),
        // UPD-3: the data, all of it in one run; then the flush.
        "slot write 0".to_owned(),
        "slot flush 0".to_owned(),
        // UPD-4: the tree that the data on the medium give: superblock and top in one piece, the leaves; then the flush.
        format!("slot write {tree}"),
        format!("slot write {}", tree + 8192),
        "slot flush 0".to_owned(),
        // UPD-5
        "esp write ralphos/b/g2-linux".to_owned(),
        "esp flush".to_owned(),
        "esp write ralphos/b/g2-initrd".to_owned(),
        "esp flush".to_owned(),
        // UPD-6: inert, flushed, then the one byte, flushed.
        "esp write loader/entries/ralphos-b-g2+3-0.conf".to_owned(),
        "esp flush".to_owned(),
        "esp overwrite loader/entries/ralphos-b-g2+3-0.conf ' '".to_owned(),
        "esp flush".to_owned(),
    ];
    assert_eq!(changes(&log), expected.iter().collect::<Vec<_>>(), "{log:#?}");
    let slot: Vec<&str> = log.iter().filter_map(|line| line.strip_prefix("slot ")).collect();
    let expected = [
        "read 0", // Is it blank?
        "write 0",
        "flush 0",
        "read 0",
        &format!("write {tree}"),
        &format!("write {}", tree + 8192),
        "flush 0",
        &format!("read {tree}"),
        &format!("read {}", tree + 8192),
    ];
    assert_eq!(slot, expected, "UPD-4 reads what was flushed");
    let position = |wanted: &str| log.iter().position(|line| line.starts_with(wanted)).unwrap();
    let last = |wanted: &str| log.iter().rposition(|line| line.starts_with(wanted)).unwrap();
    assert!(last("slot read") < position("esp write"), "UPD-4 before UPD-5");
}

#[test]
fn upd_2_the_fence_comes_before_the_first_byte_of_the_slot() {
    let mut host = FakeHost::new();
    host.put_system("ralphos-b-g4.conf", "0.9.0");
    host.boot("ralphos-a-g1.conf", "1.0.0");
    // B is the newer one; the machine was started on A by hand, as after a rollback.
    host.with_esp(|esp| {
        esp.take("loader/entries/ralphos-b-g4.conf");
    });
    host.put_system("ralphos-b-g4+0-3.conf", "0.9.0");
    let summary = staged(host.apply(image(&spec("2.0.0")).0));
    assert_eq!(summary.file_name, "ralphos-b-g5+3-0.conf", "ENT-4: one more than any seen");
    let log = host.take_log();
    let position =
        |wanted: &str| log.iter().position(|line| line == wanted).unwrap_or_else(|| panic!("{wanted}: {log:#?}"));
    let entry = position("esp remove loader/entries/ralphos-b-g4+0-3.conf");
    let payload = position("esp remove ralphos/b/g4-linux");
    let slot = log.iter().position(|line| line.starts_with("slot write")).unwrap();
    assert!(entry < payload && payload < slot, "{log:#?}");
    assert!(log[entry..payload].contains(&"esp flush".to_owned()), "the entry is gone for good before its payloads go");
    assert!(log[payload..slot].contains(&"esp flush".to_owned()));
}

#[test]
fn upd_8_a_failure_at_any_event_of_the_esp_leaves_the_old_system_or_the_new_one() {
    let (bytes, _) = image(&spec("2.0.0"));
    let mut outcomes = BTreeSet::new();
    for event in 0.. {
        let host = FakeHost::new();
        host.with_esp(|esp| esp.fail_at(event));
        let result = host.apply(bytes.clone());
        let failed = host.with_esp(|esp| esp.events().iter().any(|e| e.to_string().starts_with("FAILED")));
        if !failed {
            staged(result);
            break;
        }
        let live = host.entries();
        let next = crate::status::gather(&host).unwrap().next_boot.unwrap();
        outcomes.insert(next.entry.clone());
        assert!(live.contains(&"ralphos-a-g1.conf".to_owned()), "event {event}: {live:?}");
        match result {
            Err(_) if next.entry == "ralphos-a-g1.conf" => {}
            // Only the last flush and the look behind it come after the commit point, and nobody is told it was not passed.
            Err(error) => {
                assert!(matches!(error, ApplyError::Uncertain { .. }), "event {event}: {error:?}");
                assert!(host.take_log().iter().any(|line| line.contains("overwrite")), "event {event}");
            }
            // No guard is no reason against an update (GRD-1), and is said.
            Ok(Outcome::Staged(summary)) if summary.notes.iter().any(|note| note.contains("boot guard")) => {}
            Ok(_) => panic!("event {event} failed and nobody noticed"),
        }
    }
    assert_eq!(outcomes.len(), 2, "both outcomes were seen: {outcomes:?}");
}

#[test]
fn upd_8_a_fence_that_fails_is_not_called_a_fence() {
    let mut host = FakeHost::new();
    host.put_system("ralphos-b-g2+0-3.conf", "0.9.0");
    let (bytes, _) = image(&spec("2.0.0"));
    let quiet = host.with_esp(|esp| esp.events().len());
    for event in quiet.. {
        let mut host = FakeHost::new();
        host.put_system("ralphos-b-g2+0-3.conf", "0.9.0");
        host.with_esp(|esp| esp.fail_at(event));
        if let Err(ApplyError::NotFenced { .. }) = host.apply(bytes.clone()) {
            assert!(!host.take_log().iter().any(|line| line.starts_with("slot write")));
            return;
        }
        assert!(event < 100, "the fence never failed");
    }
}

#[test]
fn a_spoilt_staged_system_is_staged_anew() {
    let host = FakeHost::new();
    let (bytes, _) = image(&spec("2.0.0"));
    staged(host.apply(bytes.clone()));
    host.with_esp(|esp| esp.put("ralphos/b/g2-initrd", b"spoilt"));
    assert_eq!(staged(host.apply(bytes)).file_name, "ralphos-b-g3+3-0.conf");
}

#[test]
fn a_history_that_cannot_be_read_stops_no_update_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("history.jsonl")).unwrap();
    let host = FakeHost { records: Records::in_dir(dir.path(), "boot"), ..FakeHost::new() };
    assert!(!staged(host.apply(image(&spec("2.0.0")).0)).notes.is_empty());
    assert!(!crate::status::gather(&host).unwrap().problems.is_empty());
}

#[test]
fn ent_28_that_no_room_could_be_made_is_told_with_what_helps() {
    let host = FakeHost::new();
    host.with_esp(|esp| esp.set_busy(true));
    let notes = staged(host.apply(image(&spec("2.0.0")).0)).notes;
    let note = notes.iter().find(|note| note.contains("loader/entries")).unwrap_or_else(|| panic!("{notes:?}"));
    assert!(note.contains("unmount") && note.contains("the system has it mounted"), "{note}");
}

#[test]
fn upd_8_a_failure_of_the_slot_leaves_it_fenced_and_nothing_comes_after() {
    let (bytes, _) = image(&spec("2.0.0"));
    for event in 0.. {
        let host = FakeHost::new();
        let slot = host.slot.lock().unwrap().take().unwrap();
        *host.slot.lock().unwrap() = Some(slot.fail_at(event));
        match host.apply(bytes.clone()) {
            // A first block that cannot be read is cured by writing it (DSK-44).
            Ok(_) if event == 0 => {}
            Err(ApplyError::Fenced { .. }) => {
                let log = host.take_log();
                assert!(!log.iter().any(|line| line.starts_with("esp write")), "event {event}: {log:#?}");
                assert_eq!(host.entries(), ["ralphos-a-g1.conf"]);
            }
            Ok(_) => {
                assert!(event > 6, "{event} events are too few");
                break;
            }
            Err(error) => panic!("event {event}: {error:?}"),
        }
    }
}

#[test]
fn upd_9_whoever_asks_for_an_end_before_the_fence_loses_nothing() {
    let (bytes, _) = image(&spec("2.0.0"));
    let host = FakeHost::new();
    let stop = Stop::default();
    stop.ask();
    assert!(matches!(host.apply_until(bytes, &stop), Err(ApplyError::Interrupted)));
    assert_eq!(host.entries(), FakeHost::new().entries());
    let log = host.take_log();
    assert_eq!(changes(&log), Vec::<&String>::new());
}

#[test]
fn upd_4_a_bit_that_the_medium_flips_in_data_or_tree_is_found() {
    let (bytes, manifest) = image(&spec("2.0.0"));
    let end = manifest.root().1.hash_offset;
    // Through a pipe, which does not give the chunk again to tell whether it was the image.
    let tree = "ReadBack { what: \"hash tree\" }";
    for (at, what) in [(5000, "Differs"), (end + 3, tree), (end + 4096, tree), (end + 8200, tree)] {
        let host = FakeHost { spoil: Some(at), ..FakeHost::new() };
        let error = format!("{:?}", host.apply(bytes.clone()).unwrap_err());
        assert!(error.contains(what), "{at}: {error}");
        assert_eq!(host.entries(), ["ralphos-a-g1.conf"]);
    }
}

#[test]
fn a_truncated_or_tampered_image_is_never_staged() {
    let (bytes, _) = image(&spec("2.0.0"));
    let head = UnverifiedImage::read_head(&bytes[..]).unwrap().data_start() as usize;
    for cut in [0, 10, head - 1, head, head + 1, (head + bytes.len()) / 2, bytes.len() - 1] {
        let host = FakeHost::new();
        assert!(host.apply(bytes[..cut].to_vec()).is_err(), "cut at {cut}");
        assert_eq!(host.entries(), ["ralphos-a-g1.conf"]);
    }
    for flipped in [30, 1200, head - 10, head + 20, bytes.len() - 5] {
        let host = FakeHost::new();
        let mut bytes = bytes.clone();
        bytes[flipped] ^= 1;
        assert!(host.apply(bytes).is_err(), "flipped at {flipped}");
        assert_eq!(host.entries(), ["ralphos-a-g1.conf"]);
    }
    let host = FakeHost::new();
    assert!(host.apply([&bytes[..], b"x"].concat()).is_err(), "trailing data");
    assert_eq!(host.entries(), ["ralphos-a-g1.conf"]);
}

#[test]
fn upd_1_refusals_that_need_the_esp_change_nothing() {
    let v2 = || image(&spec("2.0.0")).0;
    type Case = (&'static str, fn(&mut FakeHost));
    let cases: &[Case] = &[
        ("fallback-not-whole", |host| host.with_esp(|esp| esp.put("ralphos/a/g1-linux", b"altered"))),
        ("fallback-not-whole", |host| host.with_esp(|esp| esp.take("ralphos/a/g1-initrd"))),
        ("on-trial", |host| {
            host.put_system("ralphos-b-g2+2-1.conf", "1.5.0");
            host.boot("ralphos-b-g2+2-1.conf", "1.5.0");
        }),
        ("plan-broken", |host| {
            host.vars = LoaderVars { default: Some("ralphos-a*".into()), ..LoaderVars::default() };
        }),
        ("plan-broken", |host| host.with_esp(|esp| esp.put("loader/loader.conf", b"default ralphos-a-g1.conf\n"))),
        ("plan-broken", |host| {
            host.with_esp(|esp| {
                esp.put("loader/entries/zz.conf", b"linux /z\nsort-key aaa\n");
                esp.put("z", b"MZ");
            });
        }),
        ("plan-broken", |host| host.firmware.borrow_mut().as_mut().unwrap().features = Some(0)),
        ("plan-broken", |host| {
            host.vitals.borrow_mut().table.as_mut().unwrap().primary = Some("checksum".into());
        }),
        ("plan-broken", |host| host.vitals.borrow_mut().table.as_mut().unwrap().differ = true),
        ("plan-broken", |host| {
            let firmware = host.firmware.get_mut().as_mut().unwrap();
            (firmware.loader, firmware.preferred) = (Some("systemd-boot 260".into()), Some("ralphos-a*".into()));
        }),
        ("plan-broken", |host| {
            host.firmware.get_mut().as_mut().unwrap().loader = Some("systemd-boot 260".into());
            host.with_esp(|esp| esp.put("loader/loader.conf", b"preferred ralphos-a*\n"));
        }),
        ("esp-too-small", |host| {
            host.with_esp(|esp| esp.set_space(Space { cluster_size: 4096, free_clusters: 256 }));
        }),
    ];
    for (reason, prepare) in cases {
        let mut host = FakeHost::new();
        prepare(&mut host);
        let before = host.entries();
        assert_eq!(refusal(host.apply(v2())).reason(), *reason);
        assert_eq!(host.entries(), before);
        let log = host.take_log();
        assert_eq!(changes(&log), Vec::<&String>::new(), "{reason}");
    }
}

#[test]
fn doc_40_a_broken_plan_names_who_is_to_blame_and_the_remedy() {
    type Case = (&'static str, fn(&mut FakeHost));
    let cases: &[Case] = &[
        ("loader-without-counting: systemd-boot 257.9 does not count boots: install", |host| {
            host.firmware.borrow_mut().as_mut().unwrap().features = Some(0xef);
        }),
        (
            "default-variable: the EFI variable LoaderEntryDefault is \"ralphos-a*\": take it away; then ralphos-a-g1.conf (it is the first in the loader's order) boots (`ralph-update doctor --fix`)",
            |host| host.vars = LoaderVars { default: Some("ralphos-a*".into()), ..LoaderVars::default() },
        ),
        ("one-shot-variable: ", |host| {
            host.vars = LoaderVars { one_shot: Some("ralphos-a*".into()), ..LoaderVars::default() };
        }),
        ("default-in-conf: ", |host| {
            host.with_esp(|esp| esp.put("loader/loader.conf", b"default ralphos-a-g1.conf\n"))
        }),
        ("foreign-entry: zz.conf is a boot entry that is not ours: ", |host| {
            host.with_esp(|esp| {
                esp.put("loader/entries/zz.conf", b"linux /z\nsort-key aaa\n");
                esp.put("z", b"MZ");
            });
        }),
    ];
    for (blame, prepare) in cases {
        let mut host = FakeHost::new();
        prepare(&mut host);
        let refused = refusal(host.apply(image(&spec("2.0.0")).0)).to_string();
        assert!(refused.contains(blame), "{blame}\n{refused}");
    }
}

#[test]
fn doc_40_a_boot_loader_that_would_not_start_the_machine_again_is_told_of_before_a_restart() {
    let variables = tempfile::tempdir().unwrap();
    started_by(variables.path(), "\\EFI\\BOOT\\BOOTX64.EFI");
    let host = FakeHost { efivars: Some(variables.path().to_owned()), ..FakeHost::new() };
    host.with_esp(|esp| esp.take("EFI/BOOT/BOOTX64.EFI"));
    let before = host.entries();
    let refused = refusal(host.apply(image(&spec("2.0.0")).0)).to_string();
    assert!(refused.contains("loader-unusable: the boot loader EFI/BOOT/BOOTX64.EFI is not there: put"), "{refused}");
    assert_eq!(host.entries(), before);
    // The kept one started it, and would again.
    started_by(variables.path(), "\\EFI\\BOOT\\BOOTX64.ALT");
    staged(host.apply(image(&spec("2.0.0")).0));
}

#[test]
fn upd_1_a_trial_without_a_fallback_still_takes_an_update() {
    let mut host = FakeHost::new();
    host.with_esp(|esp| esp.take("loader/entries/ralphos-a-g1.conf"));
    host.put_system("ralphos-a-g1+0-3.conf", "1.0.0");
    host.put_system("ralphos-b-g2+0-4.conf", "1.5.0");
    host.boot("ralphos-b-g2+0-4.conf", "1.5.0");
    assert_eq!(staged(host.apply(image(&spec("2.0.0")).0)).file_name, "ralphos-a-g3+3-0.conf");
}

#[test]
fn an_applied_system_is_not_applied_again() {
    let host = FakeHost::new();
    let (bytes, _) = image(&spec("2.0.0"));
    staged(host.apply(bytes.clone()));
    host.take_log();
    assert_eq!(host.apply(bytes).unwrap(), Outcome::AlreadyStaged);
    assert_eq!(changes(&host.take_log()), Vec::<&String>::new());
}

#[test]
fn doc_40_a_staged_system_that_would_not_be_tried_is_not_told_as_well() {
    let mut host = FakeHost::new();
    let (bytes, _) = image(&spec("2.0.0"));
    staged(host.apply(bytes.clone()));
    host.vars = LoaderVars { default: Some("ralphos-a*".into()), ..LoaderVars::default() };
    host.take_log();
    assert_eq!(refusal(host.apply(bytes)).reason(), "plan-broken");
    assert_eq!(changes(&host.take_log()), Vec::<&String>::new());
}

#[test]
fn upd_42_what_failed_here_is_refused_until_it_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let host = FakeHost { records: Records::in_dir(dir.path(), "boot"), ..FakeHost::new() };
    let (bytes, manifest) = image(&spec("2.0.0"));
    let summary = staged(host.apply(bytes.clone()));
    host.with_esp(|esp| esp.take("loader/entries/ralphos-b-g2+3-0.conf"));
    let failed = event(EventKind::TrialFailed, &summary.entry, "ralphd: deadline".into());
    host.records.append(failed).unwrap();
    let refused = refusal(host.apply(bytes.clone()));
    assert_eq!(refused.reason(), "known-bad");
    assert!(refused.to_string().contains("ralphd: deadline"), "{refused}");
    staged(host.apply_as(bytes.clone(), Downgrade::Refuse, KnownBad::Retry));
    let kinds: Vec<_> = host.records.events().unwrap().into_iter().map(|Event { event, .. }| event).collect();
    assert_eq!(kinds, [EventKind::Applied, EventKind::TrialFailed, EventKind::Retried, EventKind::Applied]);
    assert_eq!(host.records.events().unwrap()[3].generation, 3, "generations are never used twice");
    assert!(usize::try_from(manifest.slot_bytes).unwrap() < SLOT_LEN);
}

#[test]
fn upd_45_what_fell_back_three_times_without_evidence_is_refused_until_it_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = FakeHost { records: Records::in_dir(dir.path(), "boot"), ..FakeHost::new() };
    let (bytes, _) = image(&spec("2.0.0"));
    // Its tries run out: the loader counted, and nobody wrote anything.
    let run_out = |host: &mut FakeHost, summary: &Summary| {
        let spent = summary.file_name.replace("+3-0", "+0-3");
        host.with_esp(|esp| {
            esp.take(&format!("loader/entries/{}", summary.file_name));
            esp.put(&format!("loader/entries/{spent}"), &summary.entry.render(boot_entries::Liveness::Live));
        });
    };
    for _ in 0..3 {
        let summary = staged(host.apply(bytes.clone()));
        run_out(&mut host, &summary);
    }
    let refused = refusal(host.apply(bytes.clone()));
    assert_eq!((refused.reason(), &refused), ("inconclusive", &Refusal::Inconclusive { times: 3 }));
    assert!(crate::status::gather(&host).unwrap().problems.iter().any(|problem| problem.contains("(3 of 3)")));
    let summary = staged(host.apply_as(bytes.clone(), Downgrade::Refuse, KnownBad::Retry));
    run_out(&mut host, &summary);
    staged(host.apply(bytes));
    let kinds: Vec<_> = host.records.events().unwrap().into_iter().map(|Event { event, .. }| event).collect();
    let retried = kinds.iter().filter(|kind| **kind == EventKind::Retried).count();
    let fell_back = kinds.iter().filter(|kind| **kind == EventKind::FellBack).count();
    assert_eq!((retried, fell_back), (1, 4), "{kinds:?}");
}

#[test]
fn upd_44_an_apply_records_the_guards_evidence_before_it_decides() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = FakeHost { records: Records::in_dir(dir.path(), "boot"), ..FakeHost::new() };
    let (bytes, _) = image(&spec("2.0.0"));
    let summary = staged(host.apply(bytes.clone()));
    host.with_esp(|esp| {
        esp.take("loader/entries/ralphos-b-g2+3-0.conf");
        esp.put("loader/entries/ralphos-b-g2+0-3.conf", &summary.entry.render(boot_entries::Liveness::Live));
    });
    let text = "initrd: no root".parse().unwrap();
    let event =
        GuardEvent { slot: disk_layout::Slot::B, generation: summary.entry.generation(), attempt: Some(3), text };
    host.guard = RefCell::new(Some(GuardRecord::default().with_event(event)));
    let refused = refusal(host.apply(bytes));
    assert_eq!(refused.reason(), "known-bad");
    assert!(refused.to_string().contains("initrd: no root"), "{refused}");
    assert_eq!(host.guard.borrow().as_ref().unwrap().event, None);
}

#[test]
fn a_system_not_started_from_its_entry_is_not_built_upon() {
    let mut host = FakeHost::new();
    host.booted.as_mut().unwrap().root_hash = [9; 32];
    let error = host.apply(image(&spec("2.0.0")).0).unwrap_err().to_string();
    assert!(error.contains("root hash"), "{error}");
    host.booted.as_mut().unwrap().generation = boot_entries::Generation::new(7).unwrap();
    let error = host.apply(image(&spec("2.0.0")).0).unwrap_err().to_string();
    assert!(error.contains("generation 7"), "{error}");
    assert_eq!(changes(&host.take_log()), Vec::<&String>::new());
}
