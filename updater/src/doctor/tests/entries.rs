//! DOC-11: the entries of ours.

use boot_entries::fat::ClusterFault;
use boot_entries::vars::LOADER_GUID;
use boot_entries::{EspPath, Liveness};

use super::*;
use crate::testing::{enrol_digest, installed_kernel, under_secure_boot};

/// A runs and is committed; B under this name.
fn beside(name: &str) -> FakeHost {
    let mut host = FakeHost::new();
    host.put_system(name, "2.0.0");
    host
}

#[test]
fn doc_11_a_trial_is_no_danger_while_it_boots_next_and_has_something_behind_it() {
    assert_eq!(ids(&look(&beside("ralphos-b-g2+3-0.conf"))), Vec::<String>::new());
    let host = beside("ralphos-b-g2+3-0.conf");
    host.with_esp(|esp| esp.take("ralphos/a/g1-initrd"));
    assert_eq!(ids(&look(&host)), ["no-fallback!", "payload-missing!"]);
}

#[test]
fn doc_11_a_trial_that_sorts_below_the_good_one_is_never_tried() {
    let mut host = FakeHost::new();
    host.with_esp(|esp| esp.take("loader/entries/ralphos-a-g1.conf"));
    host.put_system("ralphos-a-g5.conf", "1.0.0");
    host.boot("ralphos-a-g5.conf", "1.0.0");
    host.put_system("ralphos-b-g2+3-0.conf", "2.0.0");
    let diagnosis = look(&host);
    assert_eq!(ids(&diagnosis), ["trial-sorts-low!"]);
    assert_eq!(diagnosis.findings[0].command.as_deref(), Some("ralph-update reject b"));
}

#[test]
fn doc_11_what_runs_waits_for_no_try() {
    // A runs on trial, B is bad, and an update to B was staged beside it.
    let mut host = FakeHost::new();
    host.with_esp(|esp| esp.take("loader/entries/ralphos-a-g1.conf"));
    host.put_system("ralphos-a-g2+2-1.conf", "2.0.0");
    host.boot("ralphos-a-g2+2-1.conf", "2.0.0");
    host.put_system("ralphos-b-g3+3-0.conf", "3.0.0");
    let diagnosis = look(&host);
    assert_eq!(diagnosis.next_boot.as_ref().unwrap().entry, "ralphos-b-g3+3-0.conf");
    assert!(!diagnosis.is_endangered(), "{:?}", ids(&diagnosis));
}

#[test]
fn doc_11_a_kernel_that_the_firmware_would_refuse_is_told_of_before_it_is_needed() {
    let (host, variables) = under_secure_boot(two_systems());
    let both = look(&host);
    assert_eq!(ids(&both), ["kernel-refused!", "kernel-refused~"]);
    assert!(both.findings[0].what.contains("ralphos-b-g2.conf"), "{both:?}");
    assert!(both.findings[0].command.as_ref().unwrap().contains("apply"), "{both:?}");
    // The firmware starts the other one: that is the way out.
    enrol_digest(variables.path(), "db", &installed_kernel("1.0.0"));
    let next = look(&host);
    assert_eq!(ids(&next), ["kernel-refused!"]);
    assert_eq!(next.findings[0].command.as_deref(), Some("ralph-update rollback"));
    // What is damaged is told as that, and as nothing else.
    host.with_esp(|esp| esp.put("ralphos/b/g2-linux", b"other"));
    assert_eq!(ids(&look(&host)), ["payload-altered!"]);
}

#[test]
fn doc_11_where_what_runs_was_revoked_and_what_boots_next_starts_the_remedy_is_a_restart() {
    let (host, variables) = under_secure_boot(beside("ralphos-b-g2+3-0.conf"));
    enrol_digest(variables.path(), "db", &installed_kernel("2.0.0"));
    let staged = look(&host);
    assert_eq!(ids(&staged), ["kernel-refused~"]);
    assert!(staged.findings[0].remedy.starts_with("restart"), "{staged:?}");
    assert_eq!(staged.findings[0].command, None);
}

#[test]
fn doc_11_what_would_not_be_given_up_is_not_told_to_be() {
    // Neither would start: the staged one cannot be rejected (UPD-51), and an update is the way out (UPD-52).
    let (host, _variables) = under_secure_boot(beside("ralphos-b-g2+3-0.conf"));
    let both = look(&host);
    assert_eq!(ids(&both), ["kernel-refused!", "kernel-refused~"]);
    for finding in &both.findings {
        assert_eq!(finding.command.as_deref(), Some("ralph-update apply IMAGE"), "{finding:?}");
    }
}

#[test]
fn doc_22_what_keeps_the_loader_on_the_kernel_that_the_firmware_starts_is_not_taken_away() {
    let (host, variables) = under_secure_boot(two_systems());
    enrol_digest(variables.path(), "db", &installed_kernel("1.0.0"));
    let pattern = "ralphos-a-*\0".encode_utf16().flat_map(u16::to_le_bytes);
    let value: Vec<u8> = [7, 0, 0, 0].into_iter().chain(pattern).collect();
    std::fs::write(variables.path().join(format!("LoaderEntryDefault-{LOADER_GUID}")), value).unwrap();
    assert_eq!(ids(&look(&host)), ["default-variable!", "kernel-refused~"]);
    // The firmware would start the other one, too.
    enrol_digest(variables.path(), "db", &installed_kernel("2.0.0"));
    assert_eq!(ids(&look(&host)), ["default-variable!+"]);
}

#[test]
fn doc_11_a_staged_kernel_that_the_firmware_would_refuse_is_to_be_given_up() {
    let (host, variables) = under_secure_boot(beside("ralphos-b-g2+3-0.conf"));
    enrol_digest(variables.path(), "db", &installed_kernel("1.0.0"));
    let staged = look(&host);
    assert_eq!(ids(&staged), ["kernel-refused!"]);
    assert_eq!(staged.findings[0].command.as_deref(), Some("ralph-update reject b"));
}

#[test]
fn doc_11_nothing_or_nothing_good_boots() {
    let host = FakeHost::new();
    host.with_esp(|esp| esp.take("loader/entries/ralphos-a-g1.conf"));
    let none = look(&host);
    assert_eq!(ids(&none), ["nothing-boots!", "running-entry!"]);
    assert_eq!(none.next_boot, None);
    host.with_esp(|esp| {
        esp.put("loader/entries/debian.conf", b"linux /vmlinuz\n");
        esp.put("vmlinuz", b"kernel");
    });
    assert_eq!(ids(&look(&host)), ["foreign-boots!", "running-entry!", "foreign-entry!"]);

    let mut host = beside("ralphos-b-g2+0-3.conf");
    host.with_esp(|esp| esp.take("loader/entries/ralphos-a-g1.conf"));
    host.put_system("ralphos-a-g1+0-0.conf", "1.0.0");
    assert_eq!(ids(&look(&host)), ["bad-boots!", "no-fallback!"]);
}

#[test]
fn doc_11_a_kernel_or_initrd_that_is_missing_or_altered() {
    for (file, content, id) in [
        ("ralphos/b/g2-linux", Some(&b"x"[..]), "payload-altered!"),
        ("ralphos/b/g2-initrd", Some(b"x"), "payload-altered!"),
        ("ralphos/b/g2-initrd", None, "payload-missing!"),
        ("ralphos/a/g1-linux", Some(b"x"), "payload-altered!"),
    ] {
        let host = two_systems();
        host.with_esp(|esp| match content {
            Some(content) => esp.put(file, content),
            None => esp.take(file),
        });
        let diagnosis = look(&host);
        assert!(ids(&diagnosis).contains(&id.to_owned()), "{file}: {:?}", ids(&diagnosis));
        let finding = diagnosis.findings.iter().find(|finding| finding.id.starts_with("payload")).unwrap();
        assert!(finding.what.contains(file), "{finding:?}");
    }
    let host = beside("ralphos-b-g2+0-3.conf");
    host.with_esp(|esp| esp.take("ralphos/b/g2-linux"));
    assert_eq!(ids(&look(&host)), ["payload-missing~", "no-fallback"], "nobody boots a bad one");
}

/// Makes this event fail when the doctor looks next.
fn fail(host: &FakeHost, event: &str) {
    look(host);
    let at = host.with_esp(|esp| esp.take_events()).iter().position(|seen| seen == event);
    host.with_esp(|esp| esp.fail_at(at.unwrap_or_else(|| panic!("{event}"))));
}

#[test]
fn doc_1_what_cannot_be_read_hides_nothing_else() {
    for file in ["ralphos/a/g1-initrd", "ralphos/b/g2-linux"] {
        let host = two_systems();
        // Looked at once to find out what boots if B fails, and once on its own.
        look(&host);
        let events = host.with_esp(|esp| esp.take_events());
        let last = events.iter().rposition(|seen| *seen == format!("read {file}")).unwrap();
        host.with_esp(|esp| esp.fail_at(last));
        let diagnosis = look(&host);
        assert_eq!(ids(&diagnosis), ["payload-unreadable!"], "{file}");
        assert_eq!(diagnosis.next_boot.as_ref().unwrap().entry, "ralphos-b-g2.conf");
        let entry = if file.contains("/a/") { "ralphos-a-g1.conf" } else { "ralphos-b-g2.conf" };
        assert!(diagnosis.findings[0].what.starts_with(&format!("of {entry}, ")), "{diagnosis:?}");
    }
    // A directory somewhere, or the FAT: nothing can be tidied then, and what needs no tidying can be repaired.
    let host = two_systems();
    let entry = host.entry("ralphos-a-g3+3-0.conf".parse().unwrap(), "3.0.0");
    host.with_esp(|esp| {
        esp.put("loader/entries/ralphos-a-g3+3-0.conf", &entry.render(Liveness::Inert));
        esp.put("loader/loader.conf", b"default ralphos-a*\n");
    });
    fail(&host, "check clusters");
    let diagnosis = look(&host);
    assert_eq!(ids(&diagnosis), ["directory-unreadable!", "default-in-conf!+", "inert-entry"]);
    assert_eq!(diagnosis.next_boot.unwrap().entry, "ralphos-a-g1.conf");
}

#[test]
fn doc_11_twins_and_the_one_that_stops_the_count() {
    let host = beside("ralphos-b-g2+2-1.conf");
    let content = host.with_esp(|esp| esp.content("loader/entries/ralphos-b-g2+2-1.conf").unwrap().to_vec());
    host.with_esp(|esp| esp.put("loader/entries/ralphos-b-g2.conf", &content));
    let harmless: Vec<String> = ids(&look(&host)).into_iter().filter(|id| id.starts_with("twin")).collect();
    assert_eq!(harmless, ["twin~+"]);
    host.with_esp(|esp| {
        esp.take("loader/entries/ralphos-b-g2.conf");
        esp.put("loader/entries/ralphos-b-g2+1-2.conf", &content);
    });
    assert!(ids(&look(&host)).contains(&"twin!+".to_owned()), "LDR-7");
}

#[test]
fn doc_11_inert_unreadable_and_older_entries() {
    let host = two_systems();
    let entry = host.entry("ralphos-a-g3+3-0.conf".parse().unwrap(), "3.0.0");
    host.with_esp(|esp| esp.put("loader/entries/ralphos-a-g3+3-0.conf", &entry.render(Liveness::Inert)));
    assert_eq!(ids(&look(&host)), ["inert-entry+"]);

    let host = two_systems();
    host.with_esp(|esp| esp.put("loader/entries/ralphos-a-g3+3-0.conf", b"\0\0\0"));
    assert_eq!(ids(&look(&host)), ["unreadable-entry~"], "the loader skips it, and tidy does not know it");
    host.with_esp(|esp| esp.put("loader/entries/ralphos-a-g3+3-0.conf", b"linux /ralphos/a/g1-linux\n"));
    assert!(ids(&look(&host)).contains(&"unreadable-entry!".to_owned()));
    host.with_esp(|esp| esp.put("loader/entries/ralphos-a-g3+3-0.conf", b"efi /ralphos/a/g1-linux\n"));
    assert!(ids(&look(&host)).contains(&"efi-key!".to_owned()));
    let host = two_systems();
    host.with_esp(|esp| esp.put("loader/entries/ralphos-b-g2+1-2.conf", b"torn"));
    assert_eq!(ids(&look(&host)), ["unreadable-entry~+"], "UPD-24 removes it");

    let mut host = two_systems();
    host.put_system("ralphos-a-g3.conf", "3.0.0");
    let older: Vec<String> = ids(&look(&host)).into_iter().filter(|id| id.starts_with("older")).collect();
    assert_eq!(older, ["older-entry!"]);
}

#[test]
fn doc_11_a_running_system_without_its_entry() {
    let mut host = two_systems();
    host.booted.as_mut().unwrap().root_hash = [9; 32];
    assert_eq!(ids(&look(&host)), ["running-entry!"]);
}

#[test]
fn doc_12_names_that_share_clusters_and_chains_that_are_none() {
    let (old, new) = ("loader/entries/ralphos-b-g2+2-1.conf", "loader/entries/ralphos-b-g2+1-2.conf");
    let shared = |first: &str, second: &str| ClusterFault::Shared {
        first: EspPath::literal(first),
        second: EspPath::literal(second),
        same_start: true,
    };
    let host = beside("ralphos-b-g2+2-1.conf");
    let content = host.with_esp(|esp| esp.content(old).unwrap().to_vec());
    host.with_esp(|esp| {
        esp.put(new, &content);
        esp.set_faults(vec![shared(old, new)]);
    });
    let found = ids(&look(&host));
    assert!(found.contains(&"cut-rename~+".to_owned()) && found.contains(&"twin!+".to_owned()), "{found:?}");

    let host = two_systems();
    host.with_esp(|esp| esp.set_faults(vec![shared("ralphos/a/g1-linux", "ralphos/b/g2-linux")]));
    assert_eq!(ids(&look(&host)), ["shared-clusters!"]);
    for (path, id) in [("ralphos/b/g2-linux", "broken-chain!"), ("ralphos/a/g1-linux", "broken-chain~")] {
        let broken = ClusterFault::Broken { path: EspPath::literal(path) };
        host.with_esp(|esp| esp.set_faults(vec![broken]));
        assert_eq!(ids(&look(&host)), [id]);
    }
}
