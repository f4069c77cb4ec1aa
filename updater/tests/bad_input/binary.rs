//! The program itself: what it prints, keys that are none, and what an attack may cost in memory and time.

use std::fs;
use std::io::Write;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::attacks::{self, good};
use crate::lab::{Lab, pem};
use crate::parts::key;
use crate::signed;
use crate::table::Random;

/// Address space of a run: the program itself, its libraries and stacks, and the 66 MiB of IMG-60.
const ADDRESS_SPACE_KIB: u32 = 160 * 1024;
/// A run takes a fraction of a second; the rest is a busy machine.
const LONGEST: Duration = Duration::from_secs(60);

fn program(lab: &Lab, args: &[&str]) -> Output {
    let limited = format!("ulimit -v {ADDRESS_SPACE_KIB} && exec timeout {} \"$@\"", LONGEST.as_secs());
    let mut command = Command::new("sh");
    command.current_dir(lab.dir.path()).args(["-c", &limited, "sh", env!("CARGO_BIN_EXE_ralph-update")]);
    command.args(["--json", "--disk", "disk.raw", "apply"]).args(args).output().unwrap()
}

/// Exit code, and `reason/cause` of the JSON object.
#[track_caller]
fn told(out: &Output) -> (i32, String) {
    let errors = String::from_utf8_lossy(&out.stderr);
    let code = out.status.code().unwrap_or_else(|| panic!("{:?}: {errors}", out.status));
    let object: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|error| panic!("{error}: {code} {errors}"));
    assert_eq!((object["format"].as_i64(), object["exit"].as_i64()), (Some(1), Some(code.into())));
    let (reason, cause) = (object["reason"].as_str().unwrap_or("-"), object["cause"].as_str());
    (code, cause.map_or(reason.to_owned(), |cause| format!("{reason}/{cause}")))
}

/// IMG-60: those of the attacks that ask for much.
#[test]
fn img_60_counts_sizes_and_windows_cost_no_memory_and_end() {
    let lab = Lab::new();
    fs::write(lab.path("key.pem"), key(1).public().to_pem()).unwrap();
    let costly = [
        "a frame longer than allowed",
        "the longest head there can be, unsigned",
        "a manifest that is no strict JSON",
        "a manifest of very many values",
        "a record of the table repeated, signed",
        "a window of 128 MiB",
        "a decompression bomb",
        "a chunk that gives more than it says",
        "an image larger than the ESP",
    ];
    let mut all = attacks::all(&mut Random(1));
    all.extend(signed::all());
    let mut run = 0;
    for attack in all.iter().filter(|attack| costly.contains(&attack.name)) {
        run += 1;
        for (which, file) in &attack.files {
            fs::write(lab.path("image.zst"), file).unwrap();
            let began = Instant::now();
            let (_, found) = told(&program(&lab, &["image.zst", "--trust", "key.pem"]));
            assert!(attack.expected.split(' ').any(|one| one == found), "{} {which}: {found}", attack.name);
            assert!(began.elapsed() < LONGEST);
            lab.check_unchanged(found.split('/').next().unwrap(), attack.name);
        }
    }
    assert_eq!(run, costly.len());
    fs::write(lab.path("image.zst"), good().join()).unwrap();
    assert_eq!(program(&lab, &["image.zst", "--trust", "key.pem"]).status.code(), Some(0), "the bound is no refusal");
}

/// Every point of small order in its canonical form, and two that are not canonical.
const SMALL_ORDER: [&str; 10] = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];

#[test]
fn img_33_keys_that_are_none() {
    let lab = Lab::new();
    fs::write(lab.path("image.zst"), good().join()).unwrap();
    let keys = lab.path("config/keys");
    fs::create_dir_all(&keys).unwrap();
    fs::write(lab.path("config/update.toml"), "threshold = 2\n").unwrap();
    let refused = |args: &[&str], expected: &str| {
        let (code, found) = told(&program(&lab, &[&["image.zst"], args].concat()));
        assert_eq!((code, found.as_str()), (1, expected), "{args:?}");
        lab.check_unchanged("policy", expected);
    };
    for point in SMALL_ORDER {
        let bytes: [u8; 32] = std::array::from_fn(|at| u8::from_str_radix(&point[2 * at..2 * at + 2], 16).unwrap());
        fs::write(lab.path("weak.pem"), pem(&bytes)).unwrap();
        refused(&["--trust", "weak.pem"], "policy/weak-key");
    }
    fs::write(lab.path("garbage.pem"), "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n").unwrap();
    refused(&["--trust", "garbage.pem"], "policy/not-a-key");
    refused(&["--trust", "nowhere.pem"], "policy/cannot-open");
    refused(&[], "failed");
    refused(&["--config", "config"], "policy/no-keys");
    // One key in two files is one key.
    for name in ["one.pem", "two.pem"] {
        fs::write(keys.join(name), key(1).public().to_pem()).unwrap();
    }
    refused(&["--config", "config"], "policy/threshold-unreachable");
    fs::write(keys.join("two.pem"), pem(key(2).public().as_bytes())).unwrap();
    let (code, found) = told(&program(&lab, &["image.zst", "--config", "config"]));
    assert_eq!((code, found.as_str()), (3, "untrusted/threshold"));
}

/// A pipe with a name gives its bytes once: whoever opened it again would wait for ever.
#[test]
fn thr_15_a_named_pipe_is_read_once() {
    let lab = Lab::new();
    fs::write(lab.path("key.pem"), key(1).public().to_pem()).unwrap();
    assert!(Command::new("mkfifo").arg(lab.path("pipe")).status().unwrap().success());
    let (pipe, image) = (lab.path("pipe"), good().join());
    let writer = std::thread::spawn(move || fs::File::options().write(true).open(pipe).unwrap().write_all(&image));
    let out = program(&lab, &["pipe", "--trust", "key.pem"]);
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    writer.join().unwrap().unwrap();
    assert_eq!(lab.next_boot(), "ralphos-a-g3+3-0.conf");
}
