//! DOC-10 and DOC-14: what leads the loader away, and what it is.

use super::*;
use crate::vitals::{Firmware, Watchdog};

#[test]
fn doc_4_a_default_is_a_danger_only_when_it_changes_what_boots_now_or_later() {
    for (pattern, found) in [
        // Now.
        ("ralphos-a*", &["default-variable!+"][..]),
        // Not now, but when B fails, or A is updated.
        ("ralphos-b*", &["default-variable!+"]),
        ("ralphos-b-g2.conf", &["default-variable!+"]),
        // Never: the order decides among all of ours.
        ("ralphos-*", &["default-variable~"]),
        ("windows*", &["default-variable~"]),
    ] {
        let mut host = two_systems();
        host.vars = with_default(pattern);
        assert_eq!(ids(&look(&host)), found, "{pattern}");
    }
}

#[test]
fn doc_10_a_one_shot_for_another_entry_is_a_danger_and_one_for_the_next_is_not() {
    for (pattern, danger) in [("ralphos-a-g1.conf", true), ("nothing", false)] {
        let mut host = two_systems();
        host.vars = LoaderVars { one_shot: Some(pattern.into()), ..LoaderVars::default() };
        let diagnosis = look(&host);
        assert_eq!(ids(&diagnosis), [if danger { "one-shot-variable!+" } else { "one-shot-variable~" }], "{pattern}");
        assert!(diagnosis.findings[0].command.is_some());
    }
}

#[test]
fn doc_22_what_keeps_a_broken_system_from_booting_is_left_to_a_person() {
    let mut host = two_systems();
    host.vars = with_default("ralphos-a*");
    host.with_esp(|esp| esp.put("ralphos/b/g2-linux", b"spoilt"));
    let diagnosis = look(&host);
    assert_eq!(ids(&diagnosis), ["payload-altered!", "default-variable!"]);
    let default = diagnosis.findings.iter().find(|finding| finding.id == "default-variable").unwrap();
    assert!(
        !default.fixable && default.remedy.contains("without it the loader would boot ralphos-b-g2.conf"),
        "{default:?}"
    );
}

#[test]
fn doc_4_what_hides_behind_another_is_found_and_so_are_two_that_do_it_together() {
    let mut host = two_systems();
    host.vars = LoaderVars { one_shot: Some("ralphos-a*".into()), ..with_default("ralphos-a*") };
    host.with_esp(|esp| esp.put("loader/loader.conf", b"default ralphos-a*\n"));
    assert_eq!(ids(&look(&host)), ["one-shot-variable!+", "default-variable!+", "default-in-conf!+"]);

    let mut host = two_systems();
    host.vars = with_default("debian*");
    host.with_esp(|esp| {
        esp.put("loader/entries/debian.conf", b"linux /vmlinuz\n");
        esp.put("vmlinuz", b"kernel");
    });
    assert_eq!(ids(&look(&host)), ["default-variable!+", "foreign-entry!"]);
}

#[test]
fn doc_10_a_default_line_in_loader_conf() {
    let host = two_systems();
    host.with_esp(|esp| esp.put("loader/loader.conf", b"timeout 0\ndefault ralphos-b*\n"));
    assert_eq!(ids(&look(&host)), ["default-in-conf!+"]);
    host.with_esp(|esp| esp.put("loader/loader.conf", b"timeout 0\ndefault ralphos-*\n"));
    assert_eq!(ids(&look(&host)), ["default-in-conf~"]);
    host.with_esp(|esp| esp.put("loader/loader.conf", b"timeout 0\n#default ralphos-b*\n"));
    assert_eq!(ids(&look(&host)), Vec::<String>::new());
}

#[test]
fn doc_10_without_the_line_no_release_obeys_it() {
    // A runs, B is staged, and the line holds the loader at A: read twice, as 252 and as 257 read it (LDR-9).
    let mut host = FakeHost::new();
    host.put_system("ralphos-b-g2+3-0.conf", "2.0.0");
    host.with_esp(|esp| esp.put("loader/loader.conf", b"timeout 0\ndefault ralphos-a-*\n"));
    let found = ids(&look(&host));
    assert!(found.contains(&"default-in-conf!+".to_owned()), "{found:?}");
    let done = crate::doctor::fix::fix(&host).unwrap();
    assert_eq!(done.diagnosis.next_boot.unwrap().entry, "ralphos-b-g2+3-0.conf");
}

#[test]
fn doc_10_preferred_is_a_danger_to_loaders_that_know_it() {
    let firmware = |loader: &str| {
        Some(Firmware { features: Some(16), loader: Some(loader.into()), preferred: Some("ralphos-a*".into()) })
    };
    let host = two_systems();
    *host.firmware.borrow_mut() = firmware("systemd-boot 257.9-1~deb13u1");
    assert_eq!(ids(&look(&host)), ["preferred-variable~"]);
    *host.firmware.borrow_mut() = firmware("systemd-boot 260");
    assert_eq!(ids(&look(&host)), ["preferred-variable!+"]);
    host.with_esp(|esp| esp.put("loader/loader.conf", b"preferred ralphos-a*\n"));
    assert_eq!(ids(&look(&host)), ["preferred-variable!+", "preferred-in-conf!+"]);
}

#[test]
fn doc_10_a_variable_that_cannot_be_read_is_told() {
    let mut host = two_systems();
    let dir = tempfile::tempdir().unwrap();
    let guid = boot_entries::vars::LOADER_GUID;
    std::fs::create_dir(dir.path().join(format!("LoaderEntryDefault-{guid}"))).unwrap();
    host.efivars = Some(dir.path().to_owned());
    let diagnosis = look(&host);
    assert_eq!(ids(&diagnosis), ["variable-unreadable~"]);
    assert!(diagnosis.findings[0].what.contains("LoaderEntryDefault"), "{diagnosis:?}");
}

#[test]
fn doc_10_a_foreign_entry_is_as_bad_as_what_it_changes() {
    let foreign = |content: &[u8]| {
        let host = two_systems();
        host.with_esp(|esp| {
            esp.put("loader/entries/debian.conf", content);
            esp.put("vmlinuz", b"kernel");
            esp.put("tool.efi", b"program");
        });
        ids(&look(&host))
    };
    assert_eq!(foreign(b"linux /vmlinuz\nsort-key a\n"), ["foreign-entry!"]);
    assert_eq!(foreign(b"linux /vmlinuz\n"), ["foreign-entry~"], "it sorts behind ours");
    assert_eq!(foreign(b"linux /missing\n"), ["foreign-entry"], "the loader does not show it");
    assert_eq!(foreign(b"efi /tool.efi\nsort-key a\n"), ["efi-key!"]);
    assert_eq!(foreign(b"efi /tool.efi\n"), ["efi-key~"]);
}

#[test]
fn doc_10_an_entry_that_is_not_counted() {
    let host = two_systems();
    host.with_esp(|esp| {
        esp.put("loader/entries/ralphos-b-g3+3x.conf", b"linux /vmlinuz\n");
        esp.put("vmlinuz", b"kernel");
    });
    assert_eq!(ids(&look(&host)), ["uncounted-entry!"]);

    // Staged, and then renamed by somebody: it still restarts on corruption.
    let host = two_systems();
    let mut entry = host.entry("ralphos-b-g2.conf".parse().unwrap(), "2.0.0");
    entry.options.on_corruption = boot_entries::OnCorruption::Restart;
    host.with_esp(|esp| esp.put("loader/entries/ralphos-b-g2.conf", &entry.render(boot_entries::Liveness::Live)));
    let diagnosis = look(&host);
    assert_eq!(ids(&diagnosis), ["uncounted-entry!"]);
    assert_eq!(diagnosis.findings[0].command.as_deref(), Some("ralph-update rollback"));

    let mut host = two_systems();
    host.with_esp(|esp| esp.take("loader/entries/ralphos-b-g2.conf"));
    host.boot("ralphos-a-g1.conf", "1.0.0");
    host.put_system("ralphos-b-g2+3-0.conf", "2.0.0");
    let content = host.with_esp(|esp| esp.content("loader/entries/ralphos-b-g2+3-0.conf").unwrap().to_vec());
    host.with_esp(|esp| {
        esp.take("loader/entries/ralphos-b-g2+3-0.conf");
        esp.put("loader/entries/RALPHOS-B-G2+3-0.CONF", &content);
    });
    assert_eq!(ids(&look(&host)), ["uncounted-entry!"], "LDR-2");
}

#[test]
fn doc_10_a_unified_kernel_image_makes_every_prediction_void() {
    let host = two_systems();
    host.with_esp(|esp| esp.put("EFI/Linux/arch.efi", b"uki"));
    let diagnosis = look(&host);
    assert_eq!(ids(&diagnosis), ["unmodelled-entry!"]);
    assert_eq!(diagnosis.next_boot, None);
    assert!(diagnosis.next_boot_why.contains("EFI/Linux/arch.efi"));
    assert!(
        text::text(&diagnosis, None, &[])
            .starts_with("next boot: what it does cannot be predicted because of EFI/Linux/arch.efi")
    );
}

#[test]
fn doc_14_the_loader_the_watchdog_the_clock_and_the_blesser() {
    let host = two_systems();
    host.firmware.borrow_mut().as_mut().unwrap().features = Some(0xef);
    assert_eq!(ids(&look(&host)), ["loader-without-counting!"]);
    host.firmware.borrow_mut().as_mut().unwrap().features = None;
    assert_eq!(ids(&look(&host)), Vec::<String>::new(), "a loader that says nothing is not accused");

    host.vitals.borrow_mut().watchdog = Some(Watchdog::Absent);
    assert_eq!(ids(&look(&host)), ["watchdog-absent~"]);
    host.vitals.borrow_mut().watchdog = Some(Watchdog::Idle);
    assert_eq!(ids(&look(&host)), ["watchdog-idle~"]);
    host.vitals.borrow_mut().watchdog = None;
    host.vitals.borrow_mut().now = Some(1_600_000_000);
    let clock = look(&host);
    assert_eq!(ids(&clock), ["clock-wrong~"]);
    assert!(
        clock.findings[0].what.contains("2020-09-13") && clock.findings[0].what.contains("2023-11-14"),
        "{clock:?}"
    );
    host.vitals.borrow_mut().now = Some(1_800_000_000);
    host.vitals.borrow_mut().bless_boot = Some(true);
    assert_eq!(ids(&look(&host)), ["bless-boot~"]);
    host.vitals.borrow_mut().bless_boot = None;
    *host.firmware.borrow_mut() = None;
    assert!(look(&host).left_out[0].contains("efivars"));
}

#[test]
fn doc_10_an_entry_at_which_the_loader_halts_is_a_danger_whatever_else_it_is() {
    // LDR-10. Somebody else's: the loader does not show it, and halts at it.
    let host = two_systems();
    host.with_esp(|esp| esp.put("loader/entries/debian.conf", b"linux \"\"\n"));
    let diagnosis = look(&host);
    assert_eq!(ids(&diagnosis), ["loader-halts!"]);
    let remedy = &diagnosis.findings[0].remedy;
    assert!(remedy.contains("what the loader boots then: ralphos-b-g2.conf"), "{remedy}");
    assert!(diagnosis.next_boot_why.contains("debian.conf, at which the boot loader halts"), "{diagnosis:?}");

    // One of ours, which nothing else stands for, and which only looks as if the loader skipped it.
    let host = two_systems();
    host.with_esp(|esp| esp.put("loader/entries/ralphos-a-g3+3-0.conf", b"linux \"\"\n"));
    assert_eq!(ids(&look(&host)), ["loader-halts!"]);
    host.with_esp(|esp| esp.put("loader/entries/ralphos-a-g4+3-0.conf", b"efi \"\"\n"));
    assert_eq!(ids(&look(&host)), ["loader-halts!", "loader-halts!"]);

    // A torn name beside a whole one: the next writing run removes it.
    let host = two_systems();
    host.with_esp(|esp| esp.put("loader/entries/ralphos-b-g2+1-2.conf", b"initrd \"\"\n"));
    assert_eq!(ids(&look(&host)), ["loader-halts!+"]);
    let done = crate::doctor::fix::fix(&host).unwrap();
    assert_eq!(done.diagnosis.findings, []);
    assert_eq!(done.diagnosis.next_boot.unwrap().entry, "ralphos-b-g2.conf");
}

#[test]
fn doc_10_where_releases_differ_the_entries_of_ours_stay_and_what_names_them_goes() {
    // LDR-9: a default that named a trial, which fell; 257 without the counter in the id finds the bad entry by it.
    let mut host = FakeHost::new();
    host.put_system("ralphos-b-g2+0-3.conf", "2.0.0");
    host.vars = with_default("ralphos-b-g2.conf");
    let diagnosis = look(&host);
    let found = ids(&diagnosis);
    assert!(found.contains(&"releases-differ!".to_owned()), "{found:?}");
    assert!(found.contains(&"default-variable!+".to_owned()), "{found:?}");
    assert!(!found.iter().any(|id| id.starts_with("unmodelled")), "{found:?}");
    let differ = diagnosis.findings.iter().find(|finding| finding.id == "releases-differ").unwrap();
    assert!(differ.what.contains("ralphos-a-g1.conf") && differ.remedy.starts_with("leave the entries of ours"));
    let done = crate::doctor::fix::fix(&host).unwrap();
    assert_eq!(done.diagnosis.next_boot.unwrap().entry, "ralphos-a-g1.conf");
}

#[test]
fn doc_10_a_pattern_that_may_name_something_else_than_an_entry() {
    let mut host = two_systems();
    host.vars = with_default("auto-windows");
    let diagnosis = look(&host);
    assert_eq!(ids(&diagnosis), ["pattern-elsewhere!", "default-variable!+"]);
    host.with_esp(|esp| esp.put("loader/loader.conf", b"auto-entries no\n"));
    assert_eq!(ids(&look(&host)), ["default-variable~"]);
}

#[test]
fn doc_10_what_the_loader_does_not_show_is_no_danger_by_its_name() {
    let host = two_systems();
    host.with_esp(|esp| {
        let content = esp.content("loader/entries/ralphos-a-g1.conf").unwrap().to_vec();
        esp.put("loader/entries/ralphos-a-g1+3-0.conf.bak", &content);
        // Its kernel is missing.
        esp.put("loader/entries/ralphos-b-g3+3x.conf", b"linux /vmlinuz\n");
    });
    assert_eq!(ids(&look(&host)), ["foreign-entry", "foreign-entry"]);
}
