//! What two versions share: cutting, `inspect --against`, and deltas, by the real program on file systems made by the real tools.

mod common;

use std::fs;

use common::{Lab, noise};
use serde_json::Value;

/// Two versions of a system: `v1.erofs` and `v2.erofs` of which one file in twenty differs a little, as images `v1.zst` and `v2.zst`.
fn two_versions(fs_options: &str, build: &[&str]) -> Lab {
    let lab = Lab::new();
    fs::create_dir_all(lab.path("tree/usr/share")).unwrap();
    for number in 0..200 {
        lab.write(&format!("tree/usr/share/{number}"), &noise(1000 + number, 500 + number as usize * 60));
    }
    for number in 0..10 {
        lab.write(&format!("tree/usr/program-{number}"), &noise(2000 + number, 300_000 + number as usize));
    }
    lab.tool(
        "mkfs.erofs",
        &["--quiet", "-T0", "-U5ca1ab1e-0000-4000-8000-000000000001", fs_options, "v1.erofs", "tree"],
    );
    // A file that comes first moves all others; a few change within.
    lab.write("tree/a-new-file", &noise(3000, 50_000));
    for name in ["usr/share/17", "usr/share/77", "usr/program-3"] {
        let mut bytes = lab.read(&format!("tree/{name}"));
        let middle = bytes.len() / 2;
        bytes.splice(middle..middle, *b"what is new here");
        lab.write(&format!("tree/{name}"), &bytes);
    }
    lab.tool(
        "mkfs.erofs",
        &["--quiet", "-T0", "-U5ca1ab1e-0000-4000-8000-000000000001", fs_options, "v2.erofs", "tree"],
    );
    for version in ["v1", "v2"] {
        make(&lab, version, build);
    }
    lab
}

fn make(lab: &Lab, version: &str, more: &[&str]) {
    let (root, number, output) =
        (format!("{version}.erofs"), format!("{}.0.0", &version[1..]), format!("{version}.zst"));
    let mut arguments = Lab::BUILD.to_vec();
    arguments[2] = &root;
    arguments[10] = &number;
    arguments.extend(["--key", "k.pem", "--force", "-o", &output]);
    lab.ok(&[&arguments, more].concat());
}

fn json(lab: &Lab, arguments: &[&str]) -> Value {
    serde_json::from_slice(&lab.ok(&[&["inspect", "--json"], arguments].concat())).unwrap()
}

/// Bytes of root that a machine with v1 fetches of v2.
fn fetched_root(lab: &Lab) -> u64 {
    let against = &json(lab, &["v2.zst", "--against", "v1.zst"])["against"];
    let [total, head, root, rest] =
        ["fetched", "head", "root", "other_payloads"].map(|name| against[name].as_u64().unwrap());
    assert_eq!(total, head + root + rest);
    assert!(rest > 1_000_000, "kernel and initrd are fetched whole");
    root
}

#[test]
fn chk_10_what_two_versions_share_is_not_fetched_twice() {
    // What changed is 370 KB in three files; all else moved by 52 KiB.
    let lab = two_versions("--chunksize=1048576", &[]);
    let by_files = fetched_root(&lab);
    assert!(by_files < 900_000, "{by_files}");
    let text = String::from_utf8(lab.ok(&["inspect", "v2.zst", "--against", "v1.zst"])).unwrap();
    assert!(text.contains("a machine that holds v1.zst fetches"), "{text}");
    for (rule, least, most) in [("content", 1, 2_000_000), ("fixed", 4_000_000, 9_000_000)] {
        make(&lab, "v1", &["--cut", rule]);
        make(&lab, "v2", &["--cut", rule]);
        let fetched = fetched_root(&lab);
        assert!((least..most).contains(&fetched), "{rule}: {fetched}");
    }
}

#[test]
fn img_17_however_it_is_cut_it_is_the_same_system() {
    let lab = two_versions("-Enoinline_data", &[]);
    let id = |lab: &Lab| json(lab, &["v1.zst"])["system_id"].as_str().unwrap().to_owned();
    let first = (id(&lab), lab.read("v1.zst"));
    // IMG-55
    make(&lab, "v1", &["--threads", "5"]);
    assert!(lab.read("v1.zst") == first.1);
    for rule in ["content", "fixed"] {
        make(&lab, "v1", &["--cut", rule]);
        assert_eq!(id(&lab), first.0, "{rule}");
        lab.ok(&["verify", "v1.zst", "--trust", "k.pub.pem"]);
        assert_eq!(lab.tool("zstd", &["-dcq", "v1.zst"])[..lab.read("v1.erofs").len()], lab.read("v1.erofs"));
    }
}

#[test]
fn chk_2_a_root_that_is_no_known_file_system_is_cut_by_content() {
    let lab = Lab::new();
    lab.write("root.erofs", &noise(5, 3_000_000));
    let output = lab.ok(&[&Lab::BUILD[..], &["--key", "k.pem", "-o", "v1.zst"]].concat());
    let text = String::from_utf8(output).unwrap();
    assert!(text.contains("cut by content, not at its files: neither an ext4 nor an erofs"), "{text}");
    lab.ok(&["verify", "v1.zst", "--trust", "k.pub.pem"]);
}

const DELTA: [&str; 6] = ["delta", "v1.zst", "v2.zst", "--trust", "k.pub.pem", "-o"];

#[test]
fn a_delta_is_small_and_makes_the_same_system() {
    let lab = two_versions("--chunksize=1048576", &[]);
    let said = lab.ok(&[&DELTA[..], &["d.zst", "--sign-key", "other.pem"]].concat());
    assert!(String::from_utf8(said).unwrap().contains("to         2.0.0"));
    let delta = json(&lab, &["d.zst"]);
    let id = |name: &str| json(&lab, &[name])["system_id"].clone();
    assert_eq!((&delta["delta_from"], &delta["system_id"]), (&id("v1.zst"), &id("v2.zst")));
    assert_eq!(delta["file_bytes"], lab.read("d.zst").len());
    let of = |name: &str| ["count", "encoded"].map(|what| delta["chunks"][name][what].as_u64().unwrap());
    let ([copies, copied], [patches, patched]) = (of("copy"), of("patch"));
    assert!(copies > 0 && patches > 0, "{delta}");
    // 50,000 bytes are new; inodes and directories changed a little.
    assert!(copied + patched < 60_000, "{copied} {patched}");
    let text = String::from_utf8(lab.ok(&["inspect", "d.zst"])).unwrap();
    assert!(text.contains("a delta      from system"), "{text}");

    let trust = ["--trust", "k.pub.pem", "--trust", "other.pub.pem"];
    let verify = |more: &[&'static str]| [&["verify", "d.zst"], &trust[..], more].concat();
    assert!(String::from_utf8(lab.ok(&verify(&[]))).unwrap().starts_with("d.zst: whole; "));
    assert!(String::from_utf8(lab.ok(&verify(&["--base", "v1.erofs"]))).unwrap().starts_with("d.zst: good\n"));
    // IMG-73: another base, one with a flipped bit, one cut short.
    let refused = lab.fails(&verify(&["--base", "v2.erofs"]), 3);
    assert!(refused.contains("does not fit the base root"), "{refused}");
    let mut flipped = lab.read("v1.erofs");
    let copied_from = common::find(&flipped, &lab.read("tree/usr/program-9")[..100]);
    flipped[copied_from + 50] ^= 1;
    lab.write("flipped", &flipped);
    assert!(lab.fails(&verify(&["--base", "flipped"]), 3).contains("does not fit the base root"));
    lab.write("short", &flipped[..4096]);
    assert!(lab.fails(&verify(&["--base", "short"]), 1).contains("cannot read the base root"));
    // IMG-71: the manifest's keys are not the transport's.
    lab.fails(&["verify", "d.zst", "--trust", "k.pub.pem"], 3);
    // IMG-70: what knows only full images says so.
    let refused =
        lab.fails(&["extract", "d.zst", trust[0], trust[1], trust[2], trust[3], "--payload", "root", "-o", "x"], 3);
    assert!(refused.contains("a full image is needed"), "{refused}");
}

#[test]
fn a_delta_can_be_signed_elsewhere_and_is_reproducible() {
    let lab = two_versions("-Enoinline_data", &[]);
    lab.ok(&[&DELTA[..], &["signed.zst", "--sign-key", "other.pem", "--threads", "1"]].concat());
    let said = lab.ok(&[&DELTA[..], &["d.zst", "--unsigned", "--threads", "5"]].concat());
    assert!(String::from_utf8(said).unwrap().contains("not signed"));
    let tbs = lab.ok(&["sign", "d.zst", "--print-tbs", "--role", "transport"]);
    lab.write("tbs", &tbs);
    lab.tool("openssl", &["pkeyutl", "-sign", "-rawin", "-inkey", "other.pem", "-in", "tbs", "-out", "sig"]);
    lab.ok(&["sign", "d.zst", "--attach", "sig", "--public", "other.pub.pem"]);
    assert!(lab.read("d.zst") == lab.read("signed.zst"));
}

#[test]
fn a_delta_of_what_is_not_trusted_is_not_made() {
    let lab = two_versions("-Enoinline_data", &[]);
    let arguments = ["delta", "v1.zst", "v2.zst", "--trust", "other.pub.pem", "--unsigned", "-o", "d.zst"];
    lab.fails(&arguments, 3);
    let same = ["delta", "v1.zst", "v1.zst", "--trust", "k.pub.pem", "--unsigned", "-o", "d.zst"];
    assert!(lab.fails(&same, 1).contains("the same system"));
    let mut damaged = lab.read("v1.zst");
    let at = damaged.len() / 2;
    damaged[at] ^= 1;
    lab.write("v1.zst", &damaged);
    lab.fails(&[&DELTA[..], &["d.zst", "--unsigned"]].concat(), 3);
}
