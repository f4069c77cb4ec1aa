//! Images by the real program, judged by stock tools: keygen, build, sign, inspect, verify, extract.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use common::{AARCH64, Lab, find, pe};
use serde_json::Value;

#[test]
fn keys_are_those_of_openssl() {
    let lab = Lab::new();
    let mode = |name: &str| std::fs::metadata(lab.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("k.pem"), 0o600);
    assert_eq!(mode("k.pub.pem") & 0o444, 0o444 & mode("k.pub.pem"));
    // IMG-35: openssl reads the private key and derives the same public one.
    assert_eq!(lab.tool("openssl", &["pkey", "-in", "k.pem", "-pubout"]), lab.read("k.pub.pem"));
    assert_ne!(lab.read("k.pem"), lab.read("other.pem"));

    // And we read openssl's.
    lab.tool("openssl", &["genpkey", "-algorithm", "ed25519", "-out", "o.pem"]);
    lab.tool("openssl", &["pkey", "-in", "o.pem", "-pubout", "-out", "o.pub.pem"]);
    lab.build("o.zst", &["--key", "o.pem"]);
    lab.ok(&["verify", "o.zst", "--trust", "o.pub.pem"]);
}

#[test]
fn keys_are_never_overwritten() {
    let lab = Lab::new();
    let (private, public) = (lab.read("k.pem"), lab.read("k.pub.pem"));
    assert!(lab.fails(&["keygen", "--out", "k"], 1).contains("k.pem exists already"));
    std::fs::remove_file(lab.path("k.pem")).unwrap();
    // One half is enough to refuse, and no new half appears beside it.
    assert!(lab.fails(&["keygen", "--out", "k"], 1).contains("k.pub.pem exists already"));
    lab.write("k.pem", &private);
    std::fs::remove_file(lab.path("k.pub.pem")).unwrap();
    lab.fails(&["keygen", "--out", "k"], 1);
    assert_eq!(lab.read("k.pem"), private);
    lab.write("k.pub.pem", &public);
    lab.fails(&["keygen", "--out", "missing/k"], 1);
}

#[test]
fn names_that_no_key_should_have_are_refused() {
    let lab = Lab::new();
    std::fs::create_dir(lab.path("dir")).unwrap();
    for directory in ["dir/", "", ".", "..", "dir/.", "dir/.."] {
        assert!(lab.fails(&["keygen", "--out", directory], 2).contains("names a directory"), "{directory:?}");
    }
    assert_eq!(std::fs::read_dir(lab.path("dir")).unwrap().count(), 0);
    for public in ["new.pub", "dir/new.pub", ".pub"] {
        assert!(lab.fails(&["keygen", "--out", public], 2).contains("leave .pub away"), "{public:?}");
    }
    lab.ok(&["keygen", "--out", "dir/new"]);
    lab.ok(&["keygen", "--out", "new.public"]);
}

#[test]
fn img_1_an_image_is_a_plain_zstd_file() {
    let lab = Lab::with_image();
    lab.tool("zstd", &["-qt", "v1.zst"]);
    let plain = lab.tool("zstd", &["-dcq", "v1.zst"]);
    let expected = [lab.read("root.erofs"), lab.read("linux"), lab.read("initrd")].concat();
    assert!(plain == expected, "root first, byte for byte");
}

#[test]
fn img_55_the_same_inputs_give_the_same_file() {
    let lab = Lab::with_image();
    for more in [&[][..], &["--threads", "1"], &["--threads", "3"], &["--threads", "999999999"]] {
        lab.build("again.zst", &[&["--key", "k.pem"], more].concat());
        assert!(lab.read("again.zst") == lab.read("v1.zst"), "{more:?}");
        std::fs::remove_file(lab.path("again.zst")).unwrap();
    }
    lab.build("other.zst", &["--key", "k.pem", "--chunk-size", "64K"]);
    assert!(lab.read("other.zst") != lab.read("v1.zst"));
    // IMG-17: however it is cut, it is the same system.
    let id = |name| inspect(&lab, name)["system_id"].clone();
    assert_eq!(id("other.zst"), id("v1.zst"));
}

fn inspect(lab: &Lab, name: &str) -> Value {
    serde_json::from_slice(&lab.ok(&["inspect", name, "--json"])).unwrap()
}

#[test]
fn a_root_that_is_not_whole_blocks_is_padded() {
    let lab = Lab::new();
    let mut root = lab.read("root.erofs");
    root.truncate(root.len() - 4096 - 100);
    lab.write("root.erofs", &root);
    lab.build("v1.zst", &["--key", "k.pem"]);
    lab.ok(&["extract", "v1.zst", "--trust", "k.pub.pem", "--payload", "root", "-o", "out"]);
    root.resize(root.len().next_multiple_of(4096), 0);
    assert!(lab.read("out") == root);
}

#[test]
fn builds_that_are_refused_leave_nothing() {
    let lab = Lab::new();
    lab.write("arm", &pe(AARCH64, 9000));
    lab.write("empty", b"");
    let build = |change: &[&str], code| {
        let mut arguments: Vec<&str> = Lab::BUILD.to_vec();
        arguments.extend(["--key", "k.pem", "-o", "v1.zst"]);
        for pair in change.chunks(2) {
            match arguments.iter().position(|a| *a == pair[0]) {
                Some(at) => arguments[at + 1] = pair[1],
                None => arguments.extend(pair),
            }
        }
        lab.fails(&arguments, code)
    };
    let text = build(&["--linux", "arm"], 1);
    assert!(text.contains("aarch64") && text.contains("x86_64"), "{text}");
    assert!(build(&["--arch", "aarch64"], 1).contains("IMG-15"));
    assert!(build(&["--linux", "root.erofs"], 1).contains("UEFI firmware"));
    assert!(build(&["--initrd", "empty"], 1).contains("initrd payload is empty"));
    assert!(build(&["--root", "missing"], 1).contains("cannot open missing"));
    assert!(build(&["--cmdline", "quiet roothash=00"], 1).contains("roothash"));
    assert!(build(&["--cmdline", "quiet  splash"], 1).contains("two in a row"));
    assert!(build(&["--cmdline", "rd.roothash=00"], 1).contains("rd.roothash"));
    assert!(build(&["--title", "RalphOS "], 1).contains("`title` begins or ends with a blank"));
    assert!(build(&["--version", "1.0+1"], 1).contains("version"));
    assert!(build(&["--os-id", "Ralph OS"], 1).contains("os-id"));
    assert!(build(&["--chunk-size", "5000"], 1).contains("5000"));
    assert!(build(&["--chunk-size", "99999M"], 1).contains("chunk length"));
    assert!(build(&["--key", "missing.pem"], 1).contains("cannot read the key missing.pem"));
    for usage in [["--epoch", "0"], ["--arch", "mips"], ["--level", "20"], ["--min-updater", "1"], ["--bogus", "1"]] {
        build(&usage, 2);
    }
}

#[test]
fn threads_that_the_system_does_not_give_are_an_error() {
    let lab = Lab::new();
    let (before, mut shell) = (lab.names(), std::process::Command::new("sh"));
    // Room for the program and for a few stacks, and then more than a little is left: not even an error message can do without.
    shell.env("RUST_MIN_STACK", (64 << 20).to_string()).env("MALLOC_ARENA_MAX", "1");
    shell.args(["-c", "ulimit -v 300000 && exec \"$@\"", "sh", env!("CARGO_BIN_EXE_ralph-image")]);
    shell.args(Lab::BUILD).args(["--unsigned", "--threads", "256", "-o", "v1.zst"]);
    let output = shell.current_dir(lab.path("")).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("cannot start the threads that compress: choose fewer of them"), "{error}");
    assert_eq!(lab.names(), before);
}

#[test]
fn what_is_there_is_replaced_only_by_force() {
    let lab = Lab::new();
    lab.write("v1.zst", b"precious");
    let arguments = [&Lab::BUILD[..], &["--key", "k.pem", "-o", "v1.zst"]].concat();
    assert!(lab.fails(&arguments, 1).contains("v1.zst exists already; --force"));
    assert_eq!(lab.read("v1.zst"), b"precious");
    lab.ok(&[&arguments[..], &["--force"]].concat());
    lab.ok(&["verify", "v1.zst", "--trust", "k.pub.pem"]);
}

#[test]
fn to_build_without_a_key_must_be_asked_for() {
    let lab = Lab::new();
    let arguments = [&Lab::BUILD[..], &["-o", "v1.zst"]].concat();
    assert!(lab.fails(&arguments, 2).contains("--key"));
    let text = String::from_utf8(lab.ok(&[&arguments[..], &["--unsigned"]].concat())).unwrap();
    assert!(text.contains("not signed"), "{text}");
    lab.fails(&["verify", "v1.zst", "--trust", "k.pub.pem"], 3);
}

#[test]
fn verify_says_what_it_saw() {
    let lab = Lab::with_image();
    let text =
        String::from_utf8(lab.ok(&["verify", "v1.zst", "--trust", "other.pub.pem", "--trust", "k.pub.pem"])).unwrap();
    let id = inspect(&lab, "v1.zst")["system_id"].as_str().unwrap().to_owned();
    assert!(text.starts_with("v1.zst: good\n  ralphos 1.0.0 for x86_64, epoch 1\n"), "{text}");
    assert!(text.contains(&id), "{text}");
    // A list for each role: they may be signed by different keys.
    let key =
        |name: &str| image_format::PublicKey::from_pem(&String::from_utf8(lab.read(name)).unwrap()).unwrap().key_id();
    let (k, other) = (key("k.pub.pem"), key("other.pub.pem"));
    assert!(text.ends_with(&format!("\n  manifest  signed by {k}\n  transport signed by {k}\n")), "{text}");
    assert_eq!(text.matches("signed by").count(), 2, "{text}");
    lab.ok(&["sign", "v1.zst", "--key", "other.pem", "--role", "transport"]);
    let text =
        String::from_utf8(lab.ok(&["verify", "v1.zst", "--trust", "other.pub.pem", "--trust", "k.pub.pem"])).unwrap();
    let both = format!("\n  manifest  signed by {k}\n  transport signed by {k}\n  transport signed by {other}\n");
    assert!(text.ends_with(&both), "{text}");

    // From a pipe: one pass is enough (IMG-3).
    let file = std::fs::File::open(lab.path("v1.zst")).unwrap();
    let output = lab.command(&["verify", "-", "--trust", "k.pub.pem"]).stdin(Stdio::from(file)).output().unwrap();
    assert!(output.status.success());
}

#[test]
fn img_34_who_must_have_signed() {
    let lab = Lab::with_image();
    let both = ["--trust", "k.pub.pem", "--trust", "other.pub.pem"];
    let text = lab.fails(&["verify", "v1.zst", "--trust", "other.pub.pem"], 3);
    assert!(text.contains("signed by 0 trusted keys, 1 are needed"), "{text}");
    lab.fails(&[&["verify", "v1.zst", "--threshold", "2"], &both[..]].concat(), 3);
    // The same key twice is one key, and then two can never be reached.
    let twice = ["--trust", "k.pub.pem", "--trust", "k.pub.pem"];
    assert!(lab.fails(&[&["verify", "v1.zst", "--threshold", "2"], &twice[..]].concat(), 2).contains("1 distinct"));
    lab.fails(&["verify", "v1.zst"], 2);
    lab.fails(&["verify", "v1.zst", "--trust", "k.pub.pem", "--threshold", "0"], 2);

    lab.ok(&["sign", "v1.zst", "--key", "other.pem"]);
    lab.ok(&[&["verify", "v1.zst", "--threshold", "2"], &both[..]].concat());
}

#[test]
fn any_damage_is_refused() {
    let lab = Lab::with_image();
    let good = lab.read("v1.zst");
    let claims = image_format::UnverifiedImage::read_head(&good[..]).unwrap();
    let data = claims.data_start() as usize;
    let places = [
        0,
        8,                                // the frame's magic
        find(&good, b"\"epoch\": 1") + 9, // the manifest
        find(&good, b"\"os-id\"") + 20,
        data - 40,      // the chunk table
        data + 5,       // the first chunk
        good.len() - 1, // the last one
    ];
    let verify = ["verify", "bad.zst", "--trust", "k.pub.pem"];
    for place in places {
        let mut bad = good.clone();
        bad[place] ^= 1;
        lab.write("bad.zst", &bad);
        let text = lab.fails(&verify, 3);
        assert!(text.starts_with("ralph-image: ") && text.contains("bad.zst"), "{place}: {text}");
    }
    for len in [0, 10, data - 1, data, data + 100, good.len() - 1] {
        lab.write("bad.zst", &good[..len]);
        assert!(lab.fails(&verify, 3).contains("truncated"), "cut to {len}");
    }
    lab.write("bad.zst", &[&good[..], b"x"].concat());
    assert!(lab.fails(&verify, 3).contains("trailing data"));
    lab.write("bad.zst", b"PK\x03\x04 something else altogether, and long enough to hold a frame header");
    assert!(lab.fails(&verify, 3).contains("not a RalphOS image"));
    lab.fails(&["verify", "missing.zst", "--trust", "k.pub.pem"], 1);
    lab.fails(&["verify", ".", "--trust", "k.pub.pem"], 1);
}

#[test]
fn extract_gives_the_bytes_that_went_in() {
    let lab = Lab::with_image();
    for (payload, original) in [("root", "root.erofs"), ("linux", "linux"), ("initrd", "initrd")] {
        let out = format!("out-{payload}");
        lab.ok(&["extract", "v1.zst", "--trust", "k.pub.pem", "--payload", payload, "-o", &out]);
        assert!(lab.read(&out) == lab.read(original), "{payload}");
    }
    let extract = |payload, trust| ["extract", "v1.zst", "--trust", trust, "--payload", payload, "-o", "out"];
    assert!(lab.fails(&extract("kernel", "k.pub.pem"), 1).contains("root, linux, initrd"));
    lab.fails(&extract("root", "other.pub.pem"), 3);
    // A payload whose last chunk is wrong does not appear.
    let mut bad = lab.read("v1.zst");
    *bad.last_mut().unwrap() ^= 1;
    lab.write("v1.zst", &bad);
    lab.fails(&extract("initrd", "k.pub.pem"), 3);
}

#[test]
fn inspect_shows_claims_and_says_so() {
    let lab = Lab::new();
    lab.build(
        "v1.zst",
        &[
            "--key",
            "k.pem",
            "--cmdline",
            "quiet panic=10",
            "--compatible",
            "board,a",
            "--compatible",
            "b",
            "--cut",
            "fixed",
        ],
    );
    let text = String::from_utf8(lab.ok(&["inspect", "v1.zst"])).unwrap();
    assert!(text.starts_with("v1.zst: NOT VERIFIED"), "{text}");
    assert!(text.contains("quiet panic=10") && text.contains("board,a b"), "{text}");
    assert!(!text.contains("!!"), "{text}");
    let json = inspect(&lab, "v1.zst");
    assert_eq!(json["verified"], false);
    assert_eq!(json["file_bytes"], lab.read("v1.zst").len());
    assert_eq!(json["manifest"]["options"], "quiet panic=10");
    assert_eq!(json["manifest"]["payloads"][1]["machine"], "x86_64");
    assert_eq!(json["unknown_fields"], serde_json::json!([]));
    for (index, kind) in ["root", "linux", "initrd"].into_iter().enumerate() {
        let sha256 = json["manifest"]["payloads"][index]["sha256"].as_str().unwrap();
        assert!(text.contains(&format!("kind {kind}, required, sha256 {sha256}\n")), "{text}");
    }
    let root = &json["chunk_statistics"][0];
    let size = lab.read("root.erofs").len() as u64;
    assert_eq!((root["name"].as_str(), root["plain"]["sum"].as_u64()), (Some("root"), Some(size)));
    assert_eq!(root["chunks"].as_u64(), Some(size.div_ceil(1 << 20)));
    assert_eq!(root["plain"]["max"], 1 << 20);
    let roles: Vec<&str> = json["signatures"].as_array().unwrap().iter().map(|s| s["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["manifest", "transport"]);
    // A reader that goes away early is no error.
    let mut child = lab.command(&["inspect", "v1.zst", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
    // A file that contradicts itself is not shown.
    let mut bad = lab.read("v1.zst");
    let at = find(&bad, b"\"epoch\": 1") + 9;
    bad[at] = b'2';
    lab.write("bad.zst", &bad);
    lab.fails(&["inspect", "bad.zst"], 3);
}

/// An unsigned image as a hostile builder would make it: `to` in the place of `from` in its manifest.
fn forge(lab: &Lab, name: &str, from: &str, to: &str) {
    let good = lab.read("v1.zst");
    let head = image_format::UnverifiedImage::read_head(&good[..]).unwrap();
    let old = head.claimed_manifest_bytes().to_vec();
    let new = String::from_utf8(old.clone()).unwrap().replacen(from, to, 1).into_bytes();
    // IMG-2: the length counts our 16-byte prefix. IMG-40: the transport begins with the system id.
    let mut forged = good[..24].to_vec();
    forged[4..8].copy_from_slice(&(new.len() as u32 + 16).to_le_bytes());
    forged.extend(&new);
    let signatures = 24 + old.len();
    forged.extend(&good[signatures..signatures + 24]);
    forged.extend([0; 4120]);
    let transport = signatures + 24 + 4120;
    forged.extend(&good[transport..transport + 24]);
    forged.extend(image_format::Digest::of(&new).as_bytes());
    forged.extend(&good[transport + 24 + 32..]);
    lab.write(name, &forged);
}

#[test]
fn img_4_what_readers_ignore_is_shown_before_it_is_signed() {
    let lab = Lab::with_image();
    // Also one that would blink on a terminal, and one in a payload.
    let odd = "{\n  \"x-owner\": [\"m\u{f6}ller\"], \"\u{9b}5m\": 1, \"critical\": [\"options\"],";
    forge(&lab, "odd.zst", "{", odd);
    let text = lab.ok(&["inspect", "odd.zst"]);
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("!!           UNKNOWN FIELD \"x-owner\""), "{text}");
    assert!(text.contains("UNKNOWN FIELD \"\\u{9b}5m\"") && text.contains("CRITICAL [\"options\"]"), "{text}");
    let printed = lab.ok(&["inspect", "odd.zst", "--json"]);
    assert!(printed.is_ascii());
    let json: Value = serde_json::from_slice(&printed).unwrap();
    assert_eq!(json["manifest"]["x-owner"][0], "m\u{f6}ller");
    assert_eq!(json["manifest"]["critical"][0], "options");
    assert_eq!(json["manifest"]["title"], "RalphOS");
    assert_eq!(json["unknown_fields"].as_array().unwrap().len(), 2);

    let warns = |arguments: &[&str]| {
        let output = lab.run(arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{arguments:?}: {error}");
        assert!(error.contains("ralph-image: warning: UNKNOWN FIELD \"x-owner\""), "{arguments:?}: {error}");
        assert!(error.contains("ralph-image: warning: CRITICAL"), "{arguments:?}: {error}");
    };
    warns(&["sign", "odd.zst", "--print-tbs", "-o", "tbs"]);
    lab.tool("openssl", &["pkeyutl", "-sign", "-rawin", "-inkey", "k.pem", "-in", "tbs", "-out", "sig"]);
    warns(&["sign", "odd.zst", "--attach", "sig", "--public", "k.pub.pem"]);
    warns(&["sign", "odd.zst", "--key", "k.pem"]);
    lab.ok(&["verify", "odd.zst", "--trust", "k.pub.pem"]);

    forge(&lab, "payload.zst", "\"kind\": \"initrd\"", "\"kind\": \"initrd\", \"note\": 1");
    let text = String::from_utf8(lab.ok(&["inspect", "payload.zst"])).unwrap();
    assert!(text.contains("UNKNOWN FIELD \"payloads[2].note\""), "{text}");
    // IMG-12: what must be understood and is not stops every tool.
    forge(&lab, "critical.zst", "{", "{\"critical\": [\"tpm\"],");
    for arguments in [&["inspect", "critical.zst"][..], &["sign", "critical.zst", "--key", "k.pem"]] {
        assert!(lab.fails(arguments, 3).contains("understands \"tpm\""));
    }
}

#[test]
fn img_36_a_signature_more_changes_nothing_else() {
    let lab = Lab::with_image();
    let before = lab.read("v1.zst");
    lab.ok(&["sign", "v1.zst", "--key", "k.pem"]);
    assert!(lab.read("v1.zst") == before, "signed already");
    lab.ok(&["sign", "v1.zst", "--key", "other.pem"]);
    let after = lab.read("v1.zst");
    let changed: Vec<usize> = (0..before.len()).filter(|at| before[*at] != after[*at]).collect();
    assert_eq!(before.len(), after.len());
    // The signature body follows the manifest frame and its own header.
    let manifest_frame = 8 + u32::from_le_bytes(before[4..8].try_into().unwrap()) as usize;
    let body = manifest_frame + 24..manifest_frame + 24 + 4120;
    assert!(!changed.is_empty() && changed.iter().all(|at| body.contains(at)));
    // Both keys in one run give the same file.
    lab.build("two.zst", &["--unsigned"]);
    lab.ok(&["sign", "two.zst", "--key", "k.pem", "--key", "other.pem"]);
    assert!(lab.read("two.zst") == after);
}

#[test]
fn img_35_a_key_that_lives_elsewhere() {
    let lab = Lab::new();
    lab.build("v1.zst", &["--unsigned"]);
    for role in ["manifest", "transport"] {
        let bytes = lab.ok(&["sign", "v1.zst", "--print-tbs", "--role", role]);
        assert_eq!(&bytes[..15], b"RALPHOS IMAGE v");
        lab.ok(&["sign", "v1.zst", "--print-tbs", "--role", role, "-o", "tbs"]);
        assert!(lab.read("tbs") == bytes);
        lab.tool("openssl", &["pkeyutl", "-sign", "-rawin", "-inkey", "k.pem", "-in", "tbs", "-out", "sig"]);
        // Another key's, and one of other bytes, are found out.
        lab.fails(&["sign", "v1.zst", "--attach", "sig", "--public", "other.pub.pem"], 1);
        let text = lab.ok(&["sign", "v1.zst", "--attach", "sig", "--public", "k.pub.pem"]);
        assert!(String::from_utf8(text).unwrap().contains(&format!("signed {role}")));
        for file in ["tbs", "sig"] {
            std::fs::remove_file(lab.path(file)).unwrap();
        }
    }
    lab.ok(&["verify", "v1.zst", "--trust", "k.pub.pem"]);
    // Ed25519 is deterministic: as if the key had been here.
    lab.build("here.zst", &["--key", "k.pem"]);
    assert!(lab.read("here.zst") == lab.read("v1.zst"));

    lab.write("short", &[0; 63]);
    assert!(
        lab.fails(&["sign", "v1.zst", "--attach", "short", "--public", "k.pub.pem"], 1)
            .contains("64 bytes, this has 63")
    );
    for usage in
        [&["sign", "v1.zst"][..], &["sign", "v1.zst", "--attach", "sig"], &["sign", "v1.zst", "--public", "k.pub.pem"]]
    {
        lab.fails(usage, 2);
    }
}

#[test]
fn img_35_openssl_accepts_our_signatures() {
    let lab = Lab::with_image();
    let image = lab.read("v1.zst");
    let head = image_format::UnverifiedImage::read_head(&image[..]).unwrap();
    for (role, name) in [(image_format::Role::Manifest, "manifest"), (image_format::Role::Transport, "transport")] {
        let record = head.signatures().records().iter().find(|record| record.role == role).unwrap();
        lab.write("sig", &record.signature);
        lab.write("tbs", &lab.ok(&["sign", "v1.zst", "--print-tbs", "--role", name]));
        let verify = ["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", "k.pub.pem", "-in", "tbs", "-sigfile", "sig"];
        lab.tool("openssl", &verify);
    }
}

#[test]
fn a_role_that_nobody_signed_is_pointed_out() {
    let lab = Lab::new();
    lab.build("v1.zst", &["--unsigned"]);
    let text = String::from_utf8(lab.ok(&["sign", "v1.zst", "--key", "k.pem", "--role", "manifest"])).unwrap();
    assert!(text.contains("no key has signed the transport yet"), "{text}");
    lab.fails(&["verify", "v1.zst", "--trust", "k.pub.pem"], 3);
    let text = String::from_utf8(lab.ok(&["sign", "v1.zst", "--key", "k.pem"])).unwrap();
    assert!(!text.contains("yet"), "{text}");
    lab.ok(&["verify", "v1.zst", "--trust", "k.pub.pem"]);
}

#[test]
fn files_that_are_no_images_are_not_signed() {
    let lab = Lab::new();
    for name in ["root.erofs", "linux"] {
        let before = lab.read(name);
        lab.fails(&["sign", name, "--key", "k.pem"], 3);
        assert!(lab.read(name) == before);
    }
    lab.fails(&["sign", "missing.zst", "--key", "k.pem"], 1);
}

#[test]
fn help_names_the_exit_codes() {
    let lab = Lab::new();
    let text = String::from_utf8(lab.ok(&["--help"])).unwrap();
    assert!(text.contains("3  the image is refused"), "{text}");
    for command in ["keygen", "build", "sign", "inspect", "verify", "extract", "disk"] {
        assert!(text.contains(command));
        lab.ok(&[command, "--help"]);
    }
    lab.fails(&[], 2);
    lab.fails(&["delta"], 2);
}
