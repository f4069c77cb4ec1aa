mod arbitrary;

use super::*;
use crate::verity::{BLOCK, slot_bytes};

/// A manifest written by hand, not by the code under test.
const GOOD: &str = r#"{
  "format": 1,
  "os-id": "ralphos",
  "version": "1.2.0~rc1",
  "architecture": "x86_64",
  "compatible": [
    "qemu,q35"
  ],
  "epoch": 3,
  "min-updater": "0.1.0",
  "title": "RalphOS 1.2.0~rc1",
  "options": "console=ttyS0 quiet",
  "payloads": [
    {
      "name": "root",
      "kind": "root",
      "required": true,
      "size": 12288,
      "sha256": "1111111111111111111111111111111111111111111111111111111111111111",
      "verity": {
        "root-hash": "2222222222222222222222222222222222222222222222222222222222222222",
        "salt": "3333333333333333333333333333333333333333333333333333333333333333",
        "uuid": "44444444-4444-8444-8444-444444444444",
        "data-blocks": 3,
        "hash-offset": 12288
      }
    },
    {
      "name": "linux",
      "kind": "linux",
      "required": true,
      "size": 1000,
      "sha256": "5555555555555555555555555555555555555555555555555555555555555555",
      "machine": "x86_64"
    },
    {
      "name": "initrd",
      "kind": "initrd",
      "required": true,
      "size": 24,
      "sha256": "6666666666666666666666666666666666666666666666666666666666666666"
    }
  ],
  "slot-bytes": 20480,
  "esp-bytes": 1024
}
"#;

/// A fourth payload, to be put behind the initrd.
const FIRMWARE: &str = r#"{"name": "fw", "kind": "firmware", "required": false, "size": 5, "future": [1],
    "sha256": "7777777777777777777777777777777777777777777777777777777777777777"}"#;

pub(crate) fn good() -> Manifest {
    Manifest::parse(GOOD.as_bytes()).unwrap()
}

fn edited(from: &str, to: &str) -> Result<Manifest, ManifestError> {
    assert!(GOOD.contains(from), "{from:?} is not in the fixture");
    Manifest::parse(GOOD.replacen(from, to, 1).as_bytes())
}

fn with_fourth_payload(payload: &str) -> Result<Manifest, ManifestError> {
    edited("    }\n  ],\n  \"slot", &format!("    }}, {payload} ],\n  \"slot"))
}

/// The error and everything behind it, as a user sees it.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

#[test]
fn img_12_and_img_18_the_fixture_reads_and_writes_byte_for_byte() {
    let manifest = good();
    assert_eq!(manifest.os_id, "ralphos");
    assert_eq!(manifest.version, "1.2.0~rc1");
    assert_eq!(manifest.architecture, Architecture::X86_64);
    assert_eq!(manifest.compatible, ["qemu,q35"]);
    assert_eq!(manifest.epoch, 3);
    assert_eq!(manifest.min_updater, UpdaterVersion(0, 1, 0));
    assert_eq!(manifest.title, "RalphOS 1.2.0~rc1");
    assert_eq!(manifest.options, "console=ttyS0 quiet");
    assert_eq!(manifest.slot_bytes, 20480);
    assert_eq!(manifest.esp_bytes, 1024);
    let (root, verity) = manifest.root();
    assert_eq!((root.name.as_str(), root.size), ("root", 12288));
    assert_eq!(verity.data_blocks, 3);
    assert_eq!(verity.uuid.to_string(), "44444444-4444-8444-8444-444444444444");
    let Boot::Kernel { linux, initrd } = manifest.boot() else { panic!("{manifest:?}") };
    assert_eq!(linux.size, 1000);
    assert_eq!(initrd.sha256.to_string(), "6".repeat(64));
    assert_eq!(String::from_utf8(manifest.to_json()).unwrap(), GOOD);
}

#[test]
fn img_12_unknown_fields_are_ignored_at_every_level() {
    assert_eq!(edited("\"format\"", "\"x\": {\"y\": [null, 1]}, \"format\"").unwrap(), good());
    assert_eq!(edited("\"machine\"", "\"x\": 1, \"machine\"").unwrap(), good());
    assert_eq!(edited("\"salt\"", "\"x\": 1, \"salt\"").unwrap(), good());
}

#[test]
fn img_12_img_13_fields_that_are_ignored_have_names() {
    let unknown = |from: &str, to: &str| unknown_fields(GOOD.replacen(from, to, 1).as_bytes()).unwrap();
    assert!(unknown("", "").is_empty());
    assert_eq!(unknown("\"format\"", "\"x\": {\"title\": 1}, \"y\\u000a\": 1, \"format\""), ["x", "y\n"]);
    assert_eq!(unknown("\"machine\"", "\"x\": 1, \"machine\""), ["payloads[1].x"]);
    assert_eq!(unknown("\"salt\"", "\"x\": 1, \"salt\""), ["payloads[0].verity.x"]);
    // A field that is known elsewhere is not known here.
    assert_eq!(unknown("\"salt\"", "\"title\": 1, \"salt\""), ["payloads[0].verity.title"]);
    assert!(unknown_fields(GOOD.replacen("\"format\"", "\"x\": 1, \"x\": 2, \"format\"", 1).as_bytes()).is_err());

    // Every field that is called known is one that we write.
    let mut content = good().into_content();
    content.critical.push("title".to_owned());
    let json: serde_json::Value = serde_json::from_slice(&Manifest::new(content).unwrap().to_json()).unwrap();
    let has = |object: &serde_json::Value, name: &str| object.get(name).is_some();
    assert!(wire::KNOWN_FIELDS.iter().all(|name| has(&json, name)));
    let payloads = json["payloads"].as_array().unwrap();
    assert!(unknown::PAYLOAD_FIELDS.iter().all(|name| payloads.iter().any(|payload| has(payload, name))));
    assert!(unknown::VERITY_FIELDS.iter().all(|name| has(&payloads[0]["verity"], name)));
}

#[test]
fn img_12_critical_names_fields_that_must_be_understood() {
    let known = edited("\"format\"", "\"critical\": [\"options\", \"critical\"], \"format\"").unwrap();
    assert_eq!(known.critical, ["options", "critical"]);
    assert_eq!(Manifest::parse(&known.to_json()).unwrap(), known);
    let unknown = edited("\"format\"", "\"critical\": [\"tpm\"], \"tpm\": 1, \"format\"");
    assert!(matches!(unknown, Err(ManifestError::Critical(name)) if name == "tpm"));
    // Also when the field that is called critical is not even there.
    assert!(matches!(edited("\"format\"", "\"critical\": [\"tpm\"], \"format\""), Err(ManifestError::Critical(_))));
}

#[test]
fn img_12_critical_has_at_most_64_names() {
    let critical = |count: usize| {
        let names = vec!["\"title\""; count].join(", ");
        edited("\"format\"", &format!("\"critical\": [{names}], \"format\""))
    };
    assert_eq!(critical(64).unwrap().critical.len(), 64);
    assert!(critical(65).unwrap_err().to_string().contains("`critical` has 65 entries, more than 64"));
}

#[test]
fn img_14_an_unknown_optional_payload_is_kept() {
    let manifest = with_fourth_payload(FIRMWARE).unwrap();
    assert_eq!(manifest.payloads[3].kind, PayloadKind::Unknown("firmware".to_owned()));
    // It goes to neither slot nor ESP.
    assert_eq!((manifest.slot_bytes, manifest.esp_bytes), (20480, 1024));
    assert_eq!(Manifest::parse(&manifest.to_json()).unwrap(), manifest);
}

#[test]
fn refusals() {
    let long = "a".repeat(129);
    let many = format!("[{}]", vec!["\"x\""; 65].join(","));
    let options = format!("\"options\": \"{}\"", "a".repeat(1025));
    let table: &[(&str, &str, &str, &str)] = &[
        ("IMG-12 another format", "\"format\": 1", "\"format\": 2", "format 2 is not supported"),
        ("IMG-11 no format", "\"format\": 1,", "", "missing field `format`"),
        ("IMG-11 no title", "\"title\": \"RalphOS 1.2.0~rc1\",", "", "missing field `title`"),
        ("IMG-11 no esp-bytes", "20480,\n  \"esp-bytes\": 1024", "20480", "missing field `esp-bytes`"),
        ("IMG-11 epoch as text", "\"epoch\": 3", "\"epoch\": \"3\"", "invalid type: string"),
        ("IMG-11 epoch as float", "\"epoch\": 3", "\"epoch\": 3.0", "floating point"),
        ("IMG-11 required as number", "\"required\": true", "\"required\": 1", "invalid type: integer"),
        ("IMG-11 compatible as text", "[\n    \"qemu,q35\"\n  ]", "\"qemu,q35\"", "invalid type: string"),
        ("IMG-11 duplicate key", "\"epoch\": 3", "\"epoch\": 3, \"epoch\": 4", "duplicate key \"epoch\""),
        ("IMG-11 duplicate key in a payload", "\"size\": 24", "\"size\": 24, \"size\": 24", "duplicate key \"size\""),
        ("IMG-11 critical null", "\"format\"", "\"critical\": null, \"format\"", "invalid type: null"),
        ("IMG-11 machine null", "\"size\": 24", "\"machine\": null, \"size\": 24", "invalid type: null"),
        ("IMG-11 payload as array", "\"payloads\": [", "\"payloads\": [[\"a\"],", "expected an object"),
        ("IMG-11 size above 2^53", "\"size\": 24", "\"size\": 9007199254740993", "above 2^53"),
        ("IMG-12 os-id upper case", "\"ralphos\"", "\"RalphOS\"", "`os-id` contains 'R'"),
        ("IMG-12 os-id empty", "\"ralphos\"", "\"\"", "`os-id` has 0 characters"),
        ("IMG-12 version with plus", "1.2.0~rc1\",\n  \"arch", "1.2+3\",\n  \"arch", "`version` contains '+'"),
        ("IMG-12 version with newline", "1.2.0~rc1\",\n  \"arch", "1.2\\n\",\n  \"arch", "`version` contains '\\n'"),
        ("IMG-12 version with slash", "1.2.0~rc1\",\n  \"arch", "1/2\",\n  \"arch", "`version` contains '/'"),
        ("IMG-12 version begins with dot", "1.2.0~rc1\",\n  \"arch", "..\",\n  \"arch", "must begin with a letter"),
        ("IMG-12 unknown architecture", "\"x86_64\",\n  \"comp", "\"riscv64\",\n  \"comp", "unknown architecture"),
        ("IMG-12 compatible with blank", "qemu,q35", "qemu q35", "`compatible[0]` contains ' '"),
        ("IMG-12 compatible too long", "qemu,q35", &long, "has 129 characters"),
        ("IMG-12 compatible too many", "[\n    \"qemu,q35\"\n  ]", &many, "has 65 entries"),
        ("IMG-12 epoch 0", "\"epoch\": 3", "\"epoch\": 0", "`epoch` is 0"),
        ("IMG-12 epoch 2^32", "\"epoch\": 3", "\"epoch\": 4294967296", "`epoch` is above"),
        ("IMG-12 min-updater of two", "\"0.1.0\"", "\"0.1\"", "not three dot-separated integers"),
        ("IMG-12 min-updater with sign", "\"0.1.0\"", "\"0.+1.0\"", "not three dot-separated integers"),
        ("IMG-12 min-updater leading zero", "\"0.1.0\"", "\"0.01.0\"", "not three dot-separated integers"),
        ("IMG-12 title empty", "\"RalphOS 1.2.0~rc1\"", "\"\"", "`title` has 0 characters"),
        ("IMG-12 title with newline", "\"RalphOS 1.2.0~rc1\"", "\"a\\nb\"", "`title` contains '\\n'"),
        ("IMG-12 title not ASCII", "\"RalphOS 1.2.0~rc1\"", "\"Ralphö\"", "`title` contains 'ö'"),
        ("IMG-12 options with newline", "console=ttyS0 ", "console=ttyS0\\nlinux /evil ", "`options` contains '\\n'"),
        ("IMG-12 options too long", "\"options\": \"console=ttyS0 quiet\"", &options, "has 1025 characters"),
        (
            "IMG-12 options begin with a blank",
            "\"console=ttyS0",
            "\" console=ttyS0",
            "`options` has a blank at its beginning",
        ),
        ("IMG-12 options end with a blank", " quiet\"", " quiet \"", "`options` has a blank at its beginning"),
        ("IMG-12 options are one blank", "console=ttyS0 quiet", " ", "`options` has a blank at its beginning"),
        (
            "IMG-12 options with two blanks",
            " quiet",
            "  quiet",
            "`options` has a blank at its beginning or end, or two",
        ),
        ("IMG-12 options with two blanks in quotes", " quiet", " x=\\\"a  b\\\"", "or two in a row"),
        ("IMG-12 title begins with a blank", "\"RalphOS 1.2", "\" RalphOS 1.2", "`title` begins or ends with a blank"),
        ("IMG-12 title ends with a blank", "\"RalphOS 1.2.0~rc1\"", "\"RalphOS \"", "`title` begins or ends"),
        ("IMG-12 title is one blank", "\"RalphOS 1.2.0~rc1\"", "\" \"", "`title` begins or ends"),
        ("IMG-13 name upper case", "\"name\": \"linux\"", "\"name\": \"Linux\"", "`payloads[1].name` contains 'L'"),
        ("IMG-13 name with slash", "\"name\": \"linux\"", "\"name\": \"../x\"", "`payloads[1].name` contains '.'"),
        ("IMG-13 size zero", "\"size\": 24", "\"size\": 0", "`payloads[2].size` is 0"),
        ("IMG-13 size above 2^48", "\"size\": 24", "\"size\": 281474976710657", "not 1 to 2^48"),
        ("IMG-13 sha256 upper case", &"5".repeat(64), &"A".repeat(64), "not 64 lower-case hex digits"),
        ("IMG-13 sha256 short", &"5".repeat(64), "55", "not 64 lower-case hex digits"),
        ("IMG-13 linux without machine", ",\n      \"machine\": \"x86_64\"", "", "`payloads[1].machine` must be there"),
        ("IMG-13 machine on initrd", "\"size\": 24", "\"size\": 24, \"machine\": \"x86_64\"", "`payloads[2].machine`"),
        ("IMG-13 verity on linux", "\"size\": 1000", "\"size\": 1000, \"verity\": {}", "missing field `root-hash`"),
        ("IMG-14 two of a name", "\"name\": \"initrd\"", "\"name\": \"linux\"", "two are named \"linux\""),
        ("IMG-14 root not required", "\"required\": true", "\"required\": false", "\"root\" must be required"),
        ("IMG-14 initrd of another kind", "\"kind\": \"initrd\"", "\"kind\": \"ramdisk\"", "unknown kind \"ramdisk\""),
        (
            "IMG-15 machine differs",
            "\"machine\": \"x86_64\"",
            "\"machine\": \"aarch64\"",
            "kernel's machine is aarch64",
        ),
        ("IMG-15 machine unknown", "\"machine\": \"x86_64\"", "\"machine\": \"ia32\"", "unknown architecture"),
        ("IMG-20 data-blocks", "\"data-blocks\": 3", "\"data-blocks\": 4", "`data-blocks` is 4"),
        ("IMG-20 hash-offset", "\"hash-offset\": 12288", "\"hash-offset\": 8192", "`hash-offset` is 8192"),
        ("IMG-20 uuid upper case", "44444444-4444-8444", "4444444A-4444-8444", "not a lower-case UUID"),
        ("IMG-20 uuid without hyphens", "44444444-4444-8444-8444-", "44444444444484448444", "not a lower-case UUID"),
        ("IMG-20 salt too long", &"3".repeat(64), &"3".repeat(66), "not 64 lower-case hex digits"),
        ("IMG-21 size not in blocks", "\"size\": 12288", "\"size\": 12289", "not a multiple of 4096"),
        ("IMG-22 slot-bytes too small", "20480", "16384", "`slot-bytes` is 16384 but must be 20480"),
        (
            "IMG-12 esp-bytes wrong",
            "\"esp-bytes\": 1024",
            "\"esp-bytes\": 1025",
            "`esp-bytes` is 1025 but must be 1024",
        ),
    ];
    for (attack, from, to, expected) in table {
        let message = chain(&edited(from, to).expect_err(attack));
        assert!(message.contains(expected), "{attack}: {message}");
    }
}

#[test]
fn img_14_payload_sets() {
    let required = FIRMWARE.replace("false", "true");
    assert!(matches!(
        with_fourth_payload(&required),
        Err(ManifestError::UnknownRequired { kind, .. }) if kind == "firmware"
    ));
    let second_initrd = FIRMWARE.replace("firmware", "initrd").replace("false", "true");
    let message = with_fourth_payload(&second_initrd).unwrap_err().to_string();
    assert!(message.contains("exactly one \"initrd\", not 2"), "{message}");

    let mut swapped = good().into_content();
    swapped.payloads.swap(0, 1);
    assert!(Manifest::new(swapped).unwrap_err().to_string().contains("the first must be \"root\""));
    for missing in 0..3 {
        let mut content = good().into_content();
        content.payloads.remove(missing);
        assert!(matches!(Manifest::new(content), Err(ManifestError::Payloads(_))), "without payload {missing}");
    }
    let mut content = good().into_content();
    content.payloads.clear();
    assert!(Manifest::new(content).is_err());
    let filler = |n: usize| Payload {
        name: format!("p{n}"),
        kind: PayloadKind::Unknown("x".to_owned()),
        required: false,
        size: 1,
        sha256: Digest::of([]),
    };
    let mut content = good().into_content();
    content.payloads.extend((3..32).map(filler));
    assert!(Manifest::new(content.clone()).is_ok());
    content.payloads.push(filler(32));
    assert!(Manifest::new(content).unwrap_err().to_string().contains("has 33 entries"));
}

#[test]
fn img_16_reserved_options() {
    for options in [
        "root=/dev/sda1",
        "root",
        "quiet roothash=00",
        "usrhash=00",
        "ro",
        "rw quiet",
        "ralph.slot=a",
        "ralph.",
        "ralph.deadlines=60",
        "rd.ralph.deadline=60",
        "systemd.verity=0",
        "systemd.verity_root_data=x",
        "systemd.verity-root-data=x",
        "\"root=x\"",
        "ro\"ot\"=x",
        "a=\"b c\" root=x",
        "rw --",
        // systemd in the initrd strips the prefix, the kernel and the loader do not.
        "rd.roothash=00",
        "rd.systemd.verity_root_data=x",
        "rd.systemd.verity=0",
        "rd.root=/dev/sda1",
        "rd.rw",
        "rd.rd.roothash=00",
        "rd.usrhash",
        "rd.ralph.slot=a",
        "r\"d.root\"hash=00",
    ] {
        assert!(matches!(check_options(options), Err(ManifestError::ReservedOption(_))), "{options:?}");
        let manifest = edited("console=ttyS0 quiet", &options.replace('"', "\\\""));
        assert!(matches!(manifest, Err(ManifestError::ReservedOption(_))), "{options:?}");
    }
    for options in [
        "",
        "rootwait",
        "rootfstype=erofs",
        "read.ro=1",
        "x=root",
        "systemd.unit=a",
        "x=\"a root=b\"",
        "ROOT=1",
        "ralph.deadline=60",
    ]
    .into_iter()
    .chain(["rd.debug", "rd.rootwait", "rd.", "rd", "rdroot=x", "x.rd.root=1", "rd_root=x"])
    {
        assert!(check_options(options).is_ok(), "{options:?}");
    }
}

#[test]
fn img_16_options_that_would_swallow_others() {
    for (options, expected) in [
        ("quiet \"", "open double quote"),
        ("x=\"a b", "open double quote"),
        ("a\"b\"\"", "open double quote"),
        ("--", "the word \"--\""),
        ("quiet -- splash", "the word \"--\""),
        ("quiet \"--\"", "the word \"--\""),
    ] {
        let message = check_options(options).expect_err(options).to_string();
        assert!(message.contains(expected), "{options:?}: {message}");
    }
    assert!(check_options("x=\"a -- b\" y=-- --z").is_ok());
}

#[test]
fn img_16_options_that_systemd_would_unquote() {
    for options in ["'roothash=00'", "roo'thash=00'", "ro\\othash=00", "x='a b'", "quiet \\", "x=it's"] {
        let message = check_options(options).expect_err(options).to_string();
        assert!(message.contains("which systemd takes out and the kernel does not"), "{options:?}: {message}");
        let escaped = options.replace('\\', "\\\\");
        assert!(edited("console=ttyS0 quiet", &escaped).is_err(), "{options:?}");
    }
}

#[test]
fn img_2_a_manifest_above_1_mib_is_refused() {
    let long = format!("{{\"x\":\"{}\"}}", "a".repeat(1 << 20));
    assert!(matches!(Manifest::parse(long.as_bytes()), Err(ManifestError::TooLong(_))));
}

#[test]
fn updater_versions_are_ordered_by_number() {
    let version = |text: &str| text.parse::<UpdaterVersion>();
    assert!(version("0.10.0").unwrap() > version("0.9.9").unwrap());
    assert_eq!(version("1.2.3").unwrap().to_string(), "1.2.3");
    for bad in ["", "1", "1.2", "1.2.3.4", "1.2.x", "1.2.-3", "1.2.3 ", "1.2.4294967296", "00.1.2", "1..2"] {
        assert!(version(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn known_kinds_cannot_hide_as_unknown() {
    let mut content = good().into_content();
    content.payloads.push(Payload {
        name: "second".to_owned(),
        kind: PayloadKind::Unknown("linux".to_owned()),
        required: false,
        size: 1,
        sha256: Digest::of([]),
    });
    assert!(Manifest::new(content).is_err());
}

#[test]
fn img_14_a_unified_image_stands_for_kernel_and_initrd() {
    let text = |payloads: &[(&str, bool)], esp_bytes: u64| {
        let (head, rest) = GOOD.split_once("    {\n      \"name\": \"linux\"").unwrap();
        let tail = rest.split_once("\n  ],").unwrap().1.replace("1024", &esp_bytes.to_string());
        let of = |(kind, machine): &(&str, bool)| {
            let machine = if *machine { ", \"machine\": \"x86_64\"" } else { "" };
            let sha256 = "5".repeat(64);
            format!(
                "{{\"name\": \"{kind}\", \"kind\": \"{kind}\", \"required\": true, \"size\": 500, \"sha256\": \"{sha256}\"{machine}}}"
            )
        };
        format!("{head}{}\n  ],{tail}", payloads.iter().map(of).collect::<Vec<_>>().join(","))
    };
    let parse = |payloads: &[(&str, bool)], bytes| {
        let parsed = Manifest::parse(text(payloads, bytes).as_bytes());
        parsed.map_err(|error| match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        })
    };
    let manifest = parse(&[("uki", true)], 500).unwrap();
    let Boot::Uki(uki) = manifest.boot() else { panic!("{manifest:?}") };
    assert_eq!((uki.size, &uki.kind), (500, &PayloadKind::Uki { machine: Architecture::X86_64 }));
    assert_eq!(manifest.boot().sizes(), [500]);
    for (payloads, said) in [
        (&[("uki", false)][..], "must be there exactly for kinds"),
        (&[("uki", true), ("initrd", false)], "there must be no \"initrd\" beside a \"uki\", not 1"),
        (&[("linux", true), ("initrd", false), ("uki", true)], "there must be no \"linux\" beside a \"uki\", not 1"),
        (&[("linux", true)], "there must be exactly one \"initrd\", not 0"),
    ] {
        let error = parse(payloads, 500 * payloads.len() as u64).unwrap_err();
        assert!(error.contains(said), "{payloads:?}: {error}");
    }
}
