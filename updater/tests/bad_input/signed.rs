//! What the holder of a trusted key can do: images that are signed as they should be, and must be refused all the same.

use std::io::Cursor;

use image_format::{BootSource, Digest, ImageSpec, Role, Sources, build};
use updater::config::Policy;

use crate::attacks::good;
use crate::lab::{EPOCH, SLOT_LEN, good_spec};
use crate::parts::{Parts, Plain, kernel, key};
use crate::table::Attack;

pub fn all() -> Vec<Attack> {
    let mut attacks = manifests();
    attacks.extend(texts());
    attacks.extend(tables());
    attacks.extend(contents());
    attacks.extend(refused_by_policy());
    attacks
}

/// The good image with another manifest, signed.
fn manifest(edit: impl FnOnce(String) -> String) -> Vec<u8> {
    let mut parts = good();
    let before = String::from_utf8(parts.manifest.clone()).unwrap();
    parts.manifest = edit(before.clone()).into_bytes();
    assert_ne!(parts.manifest, before.as_bytes(), "the edit found nothing to edit");
    parts.resign()
}

fn replaced(from: &str, to: &str) -> Vec<u8> {
    manifest(|text| {
        assert!(text.contains(from), "no {from} in {text}");
        text.replacen(from, to, 1)
    })
}

/// The good image with an unknown field in its manifest.
fn with_field(json: &str) -> Vec<u8> {
    replaced("{", &format!("{{ \"x-field\": {json},"))
}

/// The bytes of a manifest that need not be text.
fn raw(bytes: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut parts = good();
    bytes(&mut parts.manifest);
    parts.resign()
}

fn manifests() -> Vec<Attack> {
    let long = format!("[{}0]", "0,".repeat(500_000));
    let many_keys: Vec<String> = (0..70_000).map(|n| format!("\"k{n}\":0")).collect();
    let os = "\"os-id\": \"ralphos\"";
    let payload = |required| {
        let kind = format!("{{\"name\":\"extra\",\"kind\":\"novel\",\"required\":{required},\"size\":1,\"sha256\":\"");
        replaced("\"payloads\": [", &format!("\"payloads\": [{kind}{}\"}},", "0".repeat(64)))
    };
    let extra = (0..32).map(|n| {
        format!(
            "{{\"name\":\"extra-{n}\",\"kind\":\"novel\",\"required\":false,\"size\":1,\"sha256\":\"{}\"}},",
            "0".repeat(64)
        )
    });
    let crowd = replaced("\"payloads\": [", &format!("\"payloads\": [{}", extra.collect::<String>()));
    vec![
        Attack::file("duplicate JSON keys", "untrusted/manifest-duplicate-key", with_field("{\"a\":1,\"a\":2}")),
        Attack::files(
            "a manifest that is not UTF-8",
            "untrusted/manifest-not-utf8",
            vec![
                (
                    "a byte".to_owned(),
                    raw(|bytes| {
                        let at = bytes.windows(7).position(|it| it == b"RalphOS").unwrap();
                        bytes[at] = 0xFF;
                    }),
                ),
                ("a byte order mark".to_owned(), raw(|bytes| drop(bytes.splice(..0, *b"\xEF\xBB\xBF")))),
            ],
        ),
        Attack::files(
            "a manifest that is no strict JSON",
            "untrusted/manifest-json",
            vec![
                ("nested".to_owned(), with_field(&format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)))),
                ("a float".to_owned(), with_field("1.5")),
                ("above 2^53".to_owned(), with_field("9007199254740993")),
                ("negative".to_owned(), with_field("-1")),
                ("an open string".to_owned(), raw(|bytes| bytes.truncate(300))),
                ("something behind it".to_owned(), raw(|bytes| bytes.extend(b"{}"))),
                ("a field missing".to_owned(), replaced("\"epoch\"", "\"epok\"")),
            ],
        ),
        Attack::files(
            "a manifest of very many values",
            "untrusted/manifest-field",
            vec![
                ("numbers".to_owned(), replaced(os, &format!("\"x\": {long}, \"os-id\": \"RALPHOS\""))),
                ("keys".to_owned(), replaced(os, &format!("{}, \"os-id\": \"RALPHOS\"", many_keys.join(",")))),
            ],
        ),
        Attack::file(
            "another manifest format",
            "untrusted/manifest-format",
            replaced("\"format\": 1", "\"format\": 2"),
        ),
        Attack::file(
            "an unknown critical field",
            "untrusted/manifest-critical",
            replaced("{", "{ \"critical\": [\"novelty\"],"),
        ),
        Attack::file("an unknown required payload kind", "untrusted/unknown-payload-kind", payload(true)),
        Attack::file("a payload before the root", "untrusted/manifest-payloads", payload(false)),
        Attack::file("more payloads than there may be", "untrusted/manifest-field", crowd),
        Attack::file("a zero-length payload", "untrusted/payload-size", replaced("\"size\": 5000", "\"size\": 0")),
        Attack::file(
            "a payload larger than any",
            "untrusted/payload-size",
            replaced("\"size\": 5000", "\"size\": 281474976710657"),
        ),
        Attack::file(
            "sizes that do not add up",
            "untrusted/manifest-sum",
            replaced("\"size\": 5000", "\"size\": 5001"),
        ),
        Attack::file(
            "a kernel declared for another machine",
            "untrusted/manifest-machine",
            replaced("\"machine\": \"x86_64\"", "\"machine\": \"aarch64\""),
        ),
        Attack::file(
            "verity numbers of another root",
            "untrusted/manifest-verity",
            replaced("\"data-blocks\": 5", "\"data-blocks\": 6"),
        ),
    ]
}

fn texts() -> Vec<Attack> {
    let title = |text: &str| replaced("\"title\": \"RalphOS 3.0.0\"", &format!("\"title\": \"{text}\""));
    let options = |text: &str| replaced("\"options\": \"console=ttyS0\"", &format!("\"options\": \"{text}\""));
    let each = |make: &dyn Fn(&str) -> Vec<u8>, texts: &[&str]| {
        texts.iter().map(|text| (text.to_string(), make(text))).collect::<Vec<_>>()
    };
    vec![
        Attack::files(
            "a newline in the title",
            "untrusted/manifest-title",
            each(&title, &["a\\nlinux /evil", "a\\rb", "a\\u0000b", "\\u2028", "a\\u007f", " a"]),
        ),
        Attack::files(
            "a newline in the options",
            "untrusted/manifest-options",
            each(&options, &["quiet\\ninitrd /evil", "a\\u0000b", "a\\tb", "a \\\"b", "a -- b", "a  b", "a 'b'"]),
        ),
        Attack::files(
            "an option that is the updater's own",
            "untrusted/reserved-option",
            each(
                &options,
                &[
                    "roothash=00",
                    "rd.root=/dev/sda",
                    "ralph.slot=a",
                    "systemd.verity=no",
                    "\\\"ro\\\"",
                    "ralph_slot=a ro",
                ],
            ),
        ),
        Attack::files(
            "a field out of its alphabet",
            "untrusted/manifest-field",
            vec![
                ("version".to_owned(), replaced("\"version\": \"3.0.0\"", "\"version\": \"../3\"")),
                ("os-id".to_owned(), replaced("\"os-id\": \"ralphos\"", "\"os-id\": \"Ralph\\nOS\"")),
                ("payload name".to_owned(), replaced("\"name\": \"linux\"", "\"name\": \"../linux\"")),
            ],
        ),
    ]
}

fn tables() -> Vec<Attack> {
    let table = |edit: &dyn Fn(&mut Parts)| {
        let mut parts = good();
        edit(&mut parts);
        parts.resign()
    };
    let set = |chunk: usize, at: usize, bytes: &[u8]| {
        table(&|parts| parts.record(chunk)[at..at + bytes.len()].copy_from_slice(bytes))
    };
    let swapped = table(&|parts| {
        let second = parts.record(1).to_vec();
        parts.table.copy_within(0..96, 96);
        parts.record(0).copy_from_slice(&second);
    });
    let repeated = table(&|parts| {
        let last = parts.record(5).to_vec();
        parts.table.extend(last);
    });
    let longest = table(&|parts| {
        let last = parts.record(5).to_vec();
        while parts.table.len() < 16_777_152 {
            parts.table.extend(&last);
        }
    });
    let slack = table(&|parts| parts.data.push(0));
    vec![
        Attack::file("records of the table swapped, signed", "untrusted/table-plain-offset", swapped),
        Attack::files(
            "a record of the table repeated, signed",
            "untrusted/table-payload",
            vec![("once".to_owned(), repeated), ("174,756 times".to_owned(), longest)],
        ),
        Attack::file(
            "a table cut short, signed",
            "untrusted/table-uncovered",
            table(&|parts| parts.table.truncate(480)),
        ),
        Attack::files(
            "an unknown chunk encoding",
            "untrusted/chunk-encoding",
            [0, 2, 7].map(|n| (format!("{n}"), set(1, 2, &[n, 0]))).to_vec(),
        ),
        Attack::file("a reserved field of the table used", "untrusted/table-reserved", set(1, 28, &[1])),
        Attack::files(
            "a chunk of another length than any",
            "untrusted/table-plain-length",
            [0, (4 << 20) + 1, u32::MAX].map(|n: u32| (format!("{n}"), set(1, 4, &n.to_le_bytes()))).to_vec(),
        ),
        Attack::file(
            "a chunk that is no whole block of root",
            "untrusted/table-unaligned",
            set(1, 4, &1_u32.to_le_bytes()),
        ),
        Attack::file(
            "chunks that overlap in the file",
            "untrusted/table-encoded-offset",
            set(1, 16, &0_u64.to_le_bytes()),
        ),
        Attack::file(
            "an encoded length beyond what zstd needs",
            "untrusted/table-encoded-length",
            set(1, 24, &u32::MAX.to_le_bytes()),
        ),
        Attack::file("data that no chunk covers", "untrusted/table-data-length", slack),
        Attack::file("bases of a full image", "untrusted/transport-encoding", table(&|parts| parts.transport[70] = 16)),
        Attack::file(
            "a transport record of another length",
            "untrusted/transport-length",
            table(&|parts| parts.transport.extend([0; 32])),
        ),
    ]
}

/// Signed chunks that are not what table and manifest promise.
fn contents() -> Vec<Attack> {
    let plain = Plain::small();
    let chunk = |encoded: &[u8]| {
        let mut parts = good();
        parts.replace_encoded(1, encoded);
        parts.resign()
    };
    let good_chunk = zstd::bulk::compress(&plain.root[8192..16384], 3).unwrap();
    let digest_edited = |of: &[u8]| {
        let promised = Digest::of(of).to_string();
        replaced(&promised, &Digest::of(b"another").to_string())
    };
    let mut damaged = good_chunk.clone();
    damaged[9..40].fill(0xFF);
    let root_hash = manifest(|text| {
        let at = text.find("\"root-hash\": \"").unwrap() + 14;
        format!("{}{}{}", &text[..at], "0".repeat(64), &text[at + 64..])
    });
    let built = |linux: Vec<u8>| {
        // The builder refuses such a kernel, so it is put in its place.
        let mut parts = good();
        let (old, new) = (Digest::of(&plain.linux).to_string(), Digest::of(&linux).to_string());
        parts.manifest = String::from_utf8(parts.manifest).unwrap().replace(&old, &new).into_bytes();
        for (at, content) in [(3, &linux[..8192]), (4, &linux[8192..])] {
            parts.record(at)[32..64].copy_from_slice(Digest::of(content).as_ref());
            parts.replace_encoded(at, &zstd::bulk::compress(content, 3).unwrap());
        }
        parts.resign()
    };
    vec![
        Attack::file("a window of 128 MiB", "fenced/chunk-window", chunk(&wide_window(&plain.root[8192..16384]))),
        Attack::files(
            "a decompression bomb",
            "fenced/chunk-content-size",
            vec![
                ("32 MiB".to_owned(), chunk(&zstd::bulk::compress(&vec![0; 32 << 20], 3).unwrap())),
                ("2^62 promised".to_owned(), chunk(b"\x28\xB5\x2F\xFD\xE0\0\0\0\0\0\0\0\x40\x01\0\0")),
            ],
        ),
        // Behind the right content size the blocks go on for ever: a run of 128 KiB in each four bytes.
        Attack::file("a chunk that gives more than it says", "fenced/chunk-decompress", chunk(&endless_blocks())),
        Attack::file(
            "a chunk that asks for a dictionary",
            "fenced/chunk-dictionary",
            chunk(b"\x28\xB5\x2F\xFD\x61\x07\0\x1F\x01\0\0"),
        ),
        Attack::files(
            "a chunk that is not one frame",
            "fenced/chunk-frame",
            vec![
                ("garbage".to_owned(), chunk(b"garbage")),
                ("two".to_owned(), chunk(&[&good_chunk[..], b"\x5A\x2A\x4D\x18\x02\0\0\0ab"].concat())),
            ],
        ),
        Attack::file("a chunk that zstd cannot decode", "fenced/chunk-decompress fenced/chunk-frame", chunk(&damaged)),
        Attack::file(
            "a chunk of other bytes than the table says",
            "fenced/chunk-content",
            chunk(&zstd::bulk::compress(&plain.root[..8192], 3).unwrap()),
        ),
        Attack::files(
            "a payload of other bytes than the manifest says",
            "fenced/payload-digest",
            vec![
                ("kernel".to_owned(), digest_edited(&plain.linux)),
                ("initrd".to_owned(), digest_edited(&plain.initrd)),
            ],
        ),
        Attack::file("a root hash of another root", "fenced/root-hash", root_hash),
        Attack::file("a kernel that is no EFI program", "fenced/kernel-not-efi", built(vec![b'x'; 10_000])),
        Attack::file("a unified kernel image that is none", "fenced/kernel-not-unified", unified(plain.linux.clone())),
        Attack::file(
            "a kernel for another machine",
            "fenced/kernel-machine",
            built(kernel(image_format::Architecture::Aarch64, 10_000)),
        ),
    ]
}

/// A kernel in the place of a unified kernel image: the builder's library takes any program, and only its tool looks inside.
fn unified(linux: Vec<u8>) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    let root = &mut Cursor::new(Plain::small().root);
    let sources = Sources { root, boot: BootSource::Uki(&mut Cursor::new(linux)) };
    build(&good_spec(), sources, &[key(1)], &mut out, &mut |_, _| {}).unwrap();
    out.into_inner()
}

/// A frame that zstd itself accepts, with window log 27.
fn wide_window(plain: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    // Pledging the size would make zstd shrink the window, so the size is written into the header by hand.
    encoder.set_parameter(zstd::zstd_safe::CParameter::WindowLog(27)).unwrap();
    std::io::Write::write_all(&mut encoder, plain).unwrap();
    let mut frame = encoder.finish().unwrap();
    frame[4] |= 0x40;
    frame.splice(6..6, (plain.len() as u16 - 256).to_le_bytes());
    frame
}

/// Content size 8192, then run-length blocks of 128 KiB each.
fn endless_blocks() -> Vec<u8> {
    let mut frame = b"\x28\xB5\x2F\xFD\x60\x00\x1F".to_vec();
    for block in 0..2000_u32 {
        let last = u32::from(block == 1999);
        frame.extend(&((128 << 10) << 3 | 1 << 1 | last).to_le_bytes()[..3]);
        frame.push(0);
    }
    frame
}

fn refused_by_policy() -> Vec<Attack> {
    let plain = Plain::small();
    let built = |spec: ImageSpec| plain.build(&spec, &[key(1)]);
    let version = |version: &str, epoch| built(ImageSpec { version: version.to_owned(), epoch, ..good_spec() });
    let policy = |os: &str| Policy { os_id: Some(os.to_owned()), ..Policy::default() };
    let large = Plain { root: vec![7; SLOT_LEN as usize], ..Plain::small() };
    let other_machine = Plain { linux: kernel(image_format::Architecture::Aarch64, 10_000), ..Plain::small() };
    let aarch64 = ImageSpec { architecture: image_format::Architecture::Aarch64, ..good_spec() };
    vec![
        Attack::file("a replayed image below the floor", "below-floor", version("3.0.0", EPOCH - 1)),
        Attack::file("an older version in the same epoch", "downgrade", version("1.9.9", EPOCH)),
        Attack::file("an epoch jump", "epoch-jump", version("3.0.0", EPOCH + 9)),
        Attack::file("an image of another OS", "wrong-os", version("3.0.0", EPOCH)).on(policy("otheros")),
        Attack::file(
            "an image for another architecture",
            "wrong-architecture",
            other_machine.build(&aarch64, &[key(1)]),
        ),
        Attack::file(
            "an image for other hardware",
            "wrong-hardware",
            built(ImageSpec { compatible: vec!["acme,phone".to_owned()], ..good_spec() }),
        ),
        Attack::file(
            "an image that needs a newer updater",
            "updater-too-old",
            built(ImageSpec { min_updater: image_format::UpdaterVersion(99, 0, 0), ..good_spec() }),
        ),
        Attack::file("an image larger than the slot", "slot-too-small", large.build(&good_spec(), &[key(1)])),
        Attack::file("an image larger than the ESP", "esp-too-small", huge_initrd()),
    ]
}

/// An image whose initrd is said to have 64 MiB; its chunks would follow.
fn huge_initrd() -> Vec<u8> {
    const LEN: u64 = 64 << 20;
    let mut parts = good();
    let text = String::from_utf8(parts.manifest).unwrap();
    let text = text.replace("\"size\": 5000", &format!("\"size\": {LEN}"));
    parts.manifest = text.replace("\"esp-bytes\": 15000", &format!("\"esp-bytes\": {}", LEN + 10_000)).into_bytes();
    let last = parts.record(5).to_vec();
    let mut at = parts.encoded(5).start as u64;
    parts.table.truncate(5 * 96);
    for n in 0..LEN >> 20 {
        let mut record = last.clone();
        record[4..8].copy_from_slice(&(1_u32 << 20).to_le_bytes());
        record[8..16].copy_from_slice(&(n << 20).to_le_bytes());
        record[16..24].copy_from_slice(&at.to_le_bytes());
        record[24..28].copy_from_slice(&100_u32.to_le_bytes());
        at += 100;
        parts.table.extend(record);
    }
    parts.data.resize(at as usize, 0);
    parts.bind();
    parts.sign_as(&[(Role::Manifest, 1, 1), (Role::Transport, 1, 1)]);
    parts.join()
}
