//! `ralph-update --disk FILE`, the real program on real disk images made by the real `ralph-image` (UPD-60, IFC-1 to IFC-30).

mod deltas;
mod lab;
#[allow(dead_code, reason = "made for other tests, too")]
#[path = "../../src/fetch/server.rs"]
mod server;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use lab::Lab;
use serde_json::Value;

#[test]
fn a_life_of_updates_on_a_disk_image() {
    let lab = Lab::new();
    let fresh = lab.status();
    assert_eq!(fresh["booted"], Value::Null);
    assert_eq!(fresh["slots"]["a"]["state"], "committed");
    assert_eq!(fresh["slots"]["b"]["state"], "empty");
    assert_eq!(fresh["next_boot"]["slot"], "a");

    lab.image("v2.zst", &["--version", "2.0.0"]);
    let (code, applied) = lab.apply("v2.zst", &[]);
    assert_eq!((code, applied["slot"].as_str(), applied["generation"].as_u64()), (0, Some("b"), Some(2)));
    lab.check_disk();
    lab.verity_holds("b");
    let staged = lab.status();
    assert_eq!(staged["slots"]["b"]["state"], "staged");
    assert_eq!(staged["slots"]["b"]["tries_left"], 3);
    assert_eq!(staged["next_boot"]["entry"], "ralphos-b-g2+3-0.conf");
    let (code, again) = lab.apply("v2.zst", &[]);
    assert_eq!((code, again["reason"].as_str()), (4, Some("already-staged")));

    assert_eq!(lab.json(&["commit"]).0, 0);
    assert_eq!(lab.json(&["commit"]).0, 4);
    assert_eq!(lab.json(&["rollback"]).0, 0);
    lab.check_disk();
    let back = lab.status();
    assert_eq!(back["slots"]["b"]["failed"], "rolled-back");
    assert_eq!(back["next_boot"]["slot"], "a");
    let (code, refused) = lab.apply("v2.zst", &[]);
    assert_eq!((code, refused["reason"].as_str()), (3, Some("known-bad")));
    assert_eq!(lab.apply("v2.zst", &["--retry-failed"]).0, 0);
    assert_eq!(lab.json(&["reject", "b"]).0, 0);
    assert_eq!(lab.json(&["reject", "a"]).1["reason"], "no-fallback");

    lab.image("v3.zst", &["--version", "3.0.0"]);
    assert_eq!(lab.apply("v3.zst", &[]).1["entry"], "ralphos-b-g4+3-0.conf");
    lab.check_disk();
    lab.verity_holds("a");
    lab.verity_holds("b");
}

#[test]
fn upd_1_refusals_leave_the_disk_as_it_was() {
    let lab = Lab::new();
    lab.image("old.zst", &["--version", "0.9.0"]);
    lab.image("jump.zst", &["--version", "2.0.0", "--epoch", "100"]);
    lab.image("v2.zst", &["--version", "2.0.0"]);
    lab.image("hardware.zst", &["--version", "2.0.0", "--compatible", "acme,phone"]);
    let whole = fs::read(lab.path("v2.zst")).unwrap();
    let mut tampered = whole.clone();
    tampered[400] ^= 1;
    lab.write("tampered.zst", &tampered);
    lab.write("text", b"this is no image at all, only some text of some length");
    fs::create_dir_all(lab.path("config/keys")).unwrap();
    fs::copy(lab.path("key.pub.pem"), lab.path("config/keys/key.pem")).unwrap();
    lab.write("config/update.toml", b"os-id = \"otheros\"\n");
    let before = fs::read(lab.path("disk.raw")).unwrap();
    for (args, reason) in [
        (&["old.zst", "--trust", "key.pub.pem"][..], "downgrade"),
        (&["jump.zst", "--trust", "key.pub.pem"], "epoch-jump"),
        (&["hardware.zst", "--trust", "key.pub.pem"], "wrong-hardware"),
        (&["tampered.zst", "--trust", "key.pub.pem"], "untrusted"),
        (&["v2.zst", "--trust", "other.pub.pem"], "untrusted"),
        (&["text", "--trust", "key.pub.pem"], "not-an-image"),
        (&["v2.zst", "--config", "config"], "wrong-os"),
    ] {
        let (code, object) = lab.json(&[&["apply"], args].concat());
        assert_eq!((code, object["reason"].as_str()), (3, Some(reason)), "{object}");
        assert!(object["message"].as_str().is_some_and(|m| m.len() > 20));
        assert_eq!(fs::read(lab.path("disk.raw")).unwrap(), before, "{reason} changed the disk");
    }
    lab.write("config/update.toml", b"os_id = \"ralphos\"\n");
    assert_eq!(
        lab.json(&["apply", "v2.zst", "--config", "config"]).0,
        1,
        "a policy that cannot be read accepts nothing"
    );
    assert_eq!(lab.json(&["apply", "v2.zst"]).0, 1, "the host's own keys are never used for a disk image");
    assert_eq!(fs::read(lab.path("disk.raw")).unwrap(), before);
    assert_eq!(lab.apply("old.zst", &["--allow-downgrade"]).0, 0);
    assert_eq!(
        lab.status()["next_boot"]["generation"],
        2,
        "an older version on trial sorts first all the same (ENT-12)"
    );
}

#[test]
fn an_image_that_ends_early_leaves_the_slot_fenced_and_the_old_system_next() {
    let lab = Lab::new();
    lab.image("v2.zst", &["--version", "2.0.0"]);
    let whole = fs::read(lab.path("v2.zst")).unwrap();
    lab.write("cut.zst", &whole[..whole.len() - 50]);
    let (code, object) = lab.apply("cut.zst", &[]);
    assert_eq!((code, object["reason"].as_str()), (1, Some("fenced")), "{object}");
    assert!(object["message"].as_str().is_some_and(|m| m.contains("truncated")), "{object}");
    let status = lab.status();
    assert_eq!(status["slots"]["b"]["state"], "fenced");
    assert_eq!(status["next_boot"]["slot"], "a");
    lab.check_disk();
    assert_eq!(lab.apply("v2.zst", &[]).0, 0);
}

#[test]
fn an_image_comes_through_a_pipe() {
    let lab = Lab::new();
    lab.image("v2.zst", &["--version", "2.0.0"]);
    let mut command = lab.command(&["apply", "-", "--trust", "key.pub.pem", "--progress", "json"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let bytes = fs::read(lab.path("v2.zst")).unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&bytes));
    let out = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let steps: Vec<Value> = String::from_utf8(out.stderr)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["step"].clone())
        .collect();
    assert_eq!(steps, ["check", "fence", "write", "read-back", "payloads", "stage"], "IFC-30");
}

#[test]
fn dsk_40_whoever_comes_second_is_told_to_wait() {
    let lab = Lab::new();
    lab.image("v2.zst", &["--version", "2.0.0"]);
    let mut first = lab.command(&["apply", "-", "--trust", "key.pub.pem", "--progress", "json"]);
    let mut first: Child = first.stdin(Stdio::piped()).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let whole = fs::read(lab.path("v2.zst")).unwrap();
    let mut stdin = first.stdin.take().unwrap();
    stdin.write_all(&whole[..whole.len() - 100]).unwrap();
    // It has the head of the image, says that it begins, and waits for the rest with the lock in its hand.
    let mut steps = BufReader::new(first.stderr.take().unwrap()).lines();
    steps.find(|line| line.as_ref().unwrap().contains("fence")).expect("it takes the lock").unwrap();
    for second in [vec!["commit"], vec!["apply", "v2.zst", "--trust", "key.pub.pem"], vec!["doctor", "--fix"]] {
        let (code, busy) = lab.json(&second);
        assert_eq!((code, &busy["result"], &busy["reason"]), (5, &"busy".into(), &"busy".into()), "{second:?}: {busy}");
        assert!(busy["message"].as_str().unwrap().contains(&first.id().to_string()), "{busy}");
    }
    first.kill().unwrap();
    first.wait().unwrap();
    assert_eq!(lab.json(&["commit"]).0, 4, "the lock goes with its holder");
}

#[test]
fn the_memory_of_an_apply_does_not_grow_with_the_image() {
    let lab = Lab::new();
    let root = fs::OpenOptions::new().write(true).open(lab.path("root")).unwrap();
    root.set_len(768 << 20).unwrap();
    lab.image("big.zst", &["--version", "2.0.0"]);
    lab.disk("800M");
    let mut apply = lab.command(&["apply", "big.zst", "--trust", "key.pub.pem"]);
    let mut child = apply.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let high =
            status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        peak = peak.max(high.unwrap_or(0));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(child.wait().unwrap().success());
    assert!((1..64 * 1024).contains(&peak), "peak {peak} KiB");
}

#[test]
fn usage_and_missing_files_have_their_exit_codes() {
    let lab = Lab::new();
    assert_eq!(lab.run(&["frobnicate"]).status.code(), Some(2));
    assert_eq!(lab.run(&["reject", "c"]).status.code(), Some(2));
    assert_eq!(lab.apply("nowhere.zst", &[]).0, 1);
    assert_eq!(lab.apply("http://127.0.0.1:1/v2.zst", &[]).0, 1);
    assert_eq!(lab.json(&["history"]).0, 1);
    let mut device = Command::new(env!("CARGO_BIN_EXE_ralph-update"));
    let out = device.args(["--disk", "/dev/null", "status"]).output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("not a regular file"), "DSK-34");
    lab.write("disk.raw", &vec![0; 1 << 20]);
    let (code, object) = lab.json(&["status"]);
    assert_eq!(code, 1);
    assert!(object["message"].as_str().unwrap().contains("disk.raw"), "{object}");
}

/// Puts other bytes where these stand on the disk, which must be once.
#[track_caller]
fn spoil(lab: &Lab, from: &[u8], to: &[u8]) {
    let mut disk = fs::read(lab.path("disk.raw")).unwrap();
    let places: Vec<usize> = (0..disk.len()).step_by(512).filter(|&at| disk[at..].starts_with(from)).collect();
    assert_eq!(places.len(), 1);
    disk[places[0]..][..to.len()].copy_from_slice(to);
    fs::write(lab.path("disk.raw"), disk).unwrap();
}

fn found(object: &Value) -> Vec<String> {
    let id = |finding: &Value| format!("{} {}", finding["severity"].as_str().unwrap(), finding["id"].as_str().unwrap());
    object["findings"].as_array().unwrap().iter().map(id).collect()
}

#[test]
fn doc_3_the_doctor_looks_and_repairs_and_stock_tools_find_nothing_wrong_afterwards() {
    let lab = Lab::new();
    let fresh = fs::read(lab.path("disk.raw")).unwrap();
    let (code, healthy) = lab.json(&["doctor"]);
    assert_eq!((code, found(&healthy)), (0, vec!["note no-fallback".to_owned()]));
    assert_eq!((&healthy["result"], &healthy["next_boot"]["slot"]), (&"ok".into(), &"a".into()));
    assert_eq!(healthy["left_out"].as_array().unwrap().len(), 1, "DOC-1: what only a machine knows");
    let (code, nothing) = lab.json(&["doctor", "--fix"]);
    assert_eq!((code, &nothing["repaired"]), (0, &Value::Array(Vec::new())));
    assert!(fs::read(lab.path("disk.raw")).unwrap() == fresh, "DOC-26");

    // Both ends of trouble: the last sector of the disk, and a line that keeps every update from being tried.
    let mut disk = fresh.clone();
    let last = disk.len() - 512;
    disk[last..].fill(0);
    fs::write(lab.path("disk.raw"), &disk).unwrap();
    spoil(&lab, b"timeout 0\neditor no\n", b"default ralphos-a*\n#");
    lab.image("v2.zst", &["--version", "2.0.0"]);
    let (code, refused) = lab.apply("v2.zst", &[]);
    assert_eq!((code, refused["reason"].as_str()), (3, Some("plan-broken")));
    assert!(refused["message"].as_str().unwrap().contains("`ralph-update --disk disk.raw doctor --fix`"), "{refused}");
    let (code, ill) = lab.json(&["doctor"]);
    assert_eq!(code, 6);
    assert_eq!((ill["result"].as_str(), ill["reason"].as_str()), (Some("endangered"), Some("endangered")));
    assert_eq!(found(&ill), ["danger default-in-conf", "warning gpt-backup-damaged"]);

    let (code, fixed) = lab.json(&["doctor", "--fix"]);
    assert_eq!((code, found(&fixed)), (0, vec!["note no-fallback".to_owned()]), "{fixed}");
    let repaired: Vec<&str> =
        fixed["repaired"].as_array().unwrap().iter().filter_map(|step| step["id"].as_str()).collect();
    assert_eq!(repaired, ["gpt-backup-damaged", "default-in-conf"]);
    lab.check_disk();
    let now = fs::read(lab.path("disk.raw")).unwrap();
    assert!(now[last - 32 * 512..] == fresh[last - 32 * 512..], "DSK-6: the table is as it was, byte for byte");
    assert_eq!(lab.apply("v2.zst", &[]).0, 0);
    assert_eq!(lab.json(&["doctor"]).0, 0);
}

#[test]
fn doc_11_what_is_altered_or_torn_on_the_disk_is_found_and_the_first_copy_of_the_table_comes_back() {
    let lab = Lab::new();
    let text = lab.run(&["doctor"]);
    assert_eq!(text.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&text.stdout).starts_with("next boot: slot a, ralphos-a-g1.conf: "));
    let fresh = fs::read(lab.path("disk.raw")).unwrap();
    spoil(&lab, b"an initrd", b"an Initrd");
    let (code, altered) = lab.json(&["doctor"]);
    assert_eq!((code, found(&altered)), (6, vec!["danger payload-altered".to_owned(), "note no-fallback".to_owned()]));

    let mut disk = fresh.clone();
    disk[512 + 16] ^= 1;
    fs::write(lab.path("disk.raw"), &disk).unwrap();
    let (code, torn) = lab.json(&["doctor"]);
    assert_eq!((code, found(&torn)), (6, vec!["danger gpt-primary-damaged".to_owned(), "note no-fallback".to_owned()]));
    assert_eq!(lab.json(&["doctor", "--fix"]).0, 0);
    assert!(fs::read(lab.path("disk.raw")).unwrap() == fresh);

    let mut disk = fresh.clone();
    disk[(1 << 20) + 510] = 0;
    fs::write(lab.path("disk.raw"), &disk).unwrap();
    let (code, no_fat) = lab.json(&["doctor"]);
    assert_eq!((code, &no_fat["next_boot"]), (6, &Value::Null));
    assert_eq!(found(&no_fat), ["danger esp-not-fat", "warning guard-missing"]);

    let mut disk = fresh.clone();
    disk[(1 << 20) + 65] |= 1;
    fs::write(lab.path("disk.raw"), &disk).unwrap();
    assert_eq!(found(&lab.json(&["doctor"]).1), ["note esp-dirty", "note no-fallback"]);
}

#[test]
fn doc_1_an_extended_loader_partition_is_told_though_nothing_else_works() {
    let lab = Lab::new();
    let out = Command::new("sgdisk").args(["-t", "4:ea00"]).arg(lab.path("disk.raw")).output().unwrap();
    assert!(out.status.success());
    assert_eq!(lab.json(&["status"]).0, 1);
    for args in [&["doctor"][..], &["doctor", "--fix"]] {
        let (code, object) = lab.json(args);
        assert_eq!((code, found(&object)), (6, vec!["danger xbootldr".to_owned()]));
    }
    lab.write("disk.raw", &vec![0; 1 << 20]);
    assert_eq!(lab.json(&["doctor"]).0, 1, "no disk of ours");
}
