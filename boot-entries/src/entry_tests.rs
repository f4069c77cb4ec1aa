//! Entries, literal and arbitrary (`ENT-10` to `ENT-13`).

use proptest::prelude::*;

use super::*;
use crate::testing::{any_options, entry};

const FILE: &str = " linux /ralphos/b/g7-linux
initrd /ralphos/b/g7-initrd
title RalphOS
version 7-1.2.0
sort-key ralphos
architecture x64
options root=/dev/mapper/root ro roothash=1111111111111111111111111111111111111111111111111111111111111111 systemd.verity_root_data=PARTUUID=6ba7b810-9dad-11d1-80b4-00c04fd430c8 systemd.verity_root_hash=PARTUUID=6ba7b810-9dad-11d1-80b4-00c04fd430c8 systemd.verity_root_options=hash-offset=1048576 ralph.slot=b ralph.generation=7 ralph.system=2222222222222222222222222222222222222222222222222222222222222222 ralph.epoch=3 ralph.version=1.2.0 quiet panic=10
# ralphos-entry 1
# linux-sha256 3333333333333333333333333333333333333333333333333333333333333333
# initrd-sha256 4444444444444444444444444444444444444444444444444444444444444444
";

fn literal() -> Entry {
    Entry { payloads: Payloads::Kernel { linux: [0x33; 32], initrd: [0x44; 32] }, ..entry(Slot::B, 7) }
}

#[test]
fn ent10_the_literal_entry_round_trips() {
    assert_eq!(Entry::parse(FILE.as_bytes()), Ok((literal(), Liveness::Live)));
    assert_eq!(String::from_utf8(literal().render(Liveness::Live)).unwrap(), FILE);
    literal().check().unwrap();
}

/// Of form 2.
const UKI: &str = " linux /ralphos/b/g7-uki
title RalphOS
version 7-1.2.0
sort-key ralphos
architecture x64
# ralphos-entry 2
# options root=/dev/mapper/root ro roothash=1111111111111111111111111111111111111111111111111111111111111111 systemd.verity_root_data=PARTUUID=6ba7b810-9dad-11d1-80b4-00c04fd430c8 systemd.verity_root_hash=PARTUUID=6ba7b810-9dad-11d1-80b4-00c04fd430c8 systemd.verity_root_options=hash-offset=1048576 ralph.slot=b ralph.generation=7 ralph.system=2222222222222222222222222222222222222222222222222222222222222222 ralph.epoch=3 ralph.version=1.2.0 quiet panic=10
# uki-sha256 5555555555555555555555555555555555555555555555555555555555555555
";

#[test]
fn ent10_the_literal_entry_of_a_unified_image_round_trips() {
    let entry = Entry { payloads: Payloads::Uki([0x55; 32]), ..literal() };
    assert_eq!(Entry::parse(UKI.as_bytes()), Ok((entry.clone(), Liveness::Live)));
    assert_eq!(String::from_utf8(entry.render(Liveness::Live)).unwrap(), UKI);
    entry.check().unwrap();
    // What the loader would hand to the stub: without Secure Boot it would take the place of what was signed.
    for (from, to) in
        [("# options root", "options root"), ("# uki", "options quiet\n# uki"), ("title", "initrd /x\ntitle")]
    {
        assert!(Entry::parse(UKI.replacen(from, to, 1).as_bytes()).is_err(), "{to}");
    }
    let other = UKI.replace("g7-uki", "g7-linux");
    assert_eq!(Entry::parse(other.as_bytes()), Err(EntryError::Disagrees("linux")));
    assert!(Entry::parse(UKI.replace("entry 2", "entry 1").as_bytes()).is_err());
}

#[test]
fn ent10_live_and_inert_differ_in_byte_0_alone() {
    let (live, inert) = (literal().render(Liveness::Live), literal().render(Liveness::Inert));
    assert_eq!((live[0], inert[0]), (b' ', b'#'));
    assert_eq!(live[1..], inert[1..]);
    assert_eq!(Entry::parse(&inert), Ok((literal(), Liveness::Inert)));
}

#[test]
fn ent13_a_missing_or_doubled_line_is_refused() {
    let lines: Vec<&str> = FILE.lines().collect();
    for at in 0..lines.len() {
        let mut fewer = lines.clone();
        fewer.remove(at);
        assert!(Entry::parse((fewer.join("\n") + "\n").as_bytes()).is_err(), "without line {at}");
        let mut more = lines.clone();
        more.insert(at, lines[at]);
        assert!(Entry::parse((more.join("\n") + "\n").as_bytes()).is_err(), "line {at} twice");
    }
}

#[test]
fn ent13_places_that_disagree_are_refused() {
    for (from, to, what) in [
        ("linux /ralphos/b/g7", "linux /ralphos/a/g7", "linux"),
        ("linux /ralphos/b/g7-linux", "linux /ralphos/b/g7-initrd", "linux"),
        ("initrd /ralphos/b/g7", "initrd /ralphos/b/g6", "initrd"),
        ("version 7-", "version 8-", "version"),
        ("version 7-1.2.0", "version 7-1.2.1", "version"),
        ("quiet panic", "quiet  panic", "the spelling"),
    ] {
        let text = FILE.replacen(from, to, 1);
        assert_eq!(Entry::parse(text.as_bytes()), Err(EntryError::Disagrees(what)), "{to}");
    }
    let name = "ralphos-b-g8.conf".parse().unwrap();
    assert_eq!(Entry::parse_named(name, FILE.as_bytes()), Err(EntryError::Disagrees("the file name")));
    assert!(Entry::parse_named("ralphos-b-g7+2-1.conf".parse().unwrap(), FILE.as_bytes()).is_ok());
}

#[test]
fn ent10_what_is_no_entry_is_refused() {
    assert_eq!(Entry::parse(b""), Err(EntryError::LiveByte));
    assert_eq!(Entry::parse(&FILE.as_bytes()[1..]), Err(EntryError::LiveByte));
    assert_eq!(Entry::parse(&[b' '; 4097]), Err(EntryError::TooLong(4097)));
    assert_eq!(Entry::parse(FILE.replace("RalphOS", "R\u{e4}lphOS").as_bytes()), Err(EntryError::NotAscii));
    assert_eq!(Entry::parse(FILE.replace('\n', "\r\n").as_bytes()), Err(EntryError::NotAscii));
    assert_eq!(Entry::parse(FILE.replace("title ", "title\t").as_bytes()), Err(EntryError::NotAscii));
    let more = format!("{FILE}efi /shell.efi\n");
    assert_eq!(Entry::parse(more.as_bytes()), Err(EntryError::Line { number: 11, expected: "" }));
    let torn = &FILE[..FILE.len() - 1];
    let last = EntryError::Line { number: 10, expected: "# initrd-sha256 " };
    assert_eq!(Entry::parse(torn.as_bytes()), Err(last));
}

#[test]
fn an_entry_that_would_not_come_back_is_not_written() {
    for title in ["", " x", "x ", "a\nb", "\u{e9}"] {
        assert!(Entry { title: title.into(), ..literal() }.check().is_err(), "{title:?}");
    }
    let mut long = literal();
    long.options.extra = "x".repeat(4000);
    assert!(matches!(long.check(), Err(EntryError::TooLong(_))));
    let mut smuggled = literal();
    smuggled.options.extra = "ralph.epoch=0".into();
    assert!(matches!(smuggled.check(), Err(EntryError::Options(OptionsError::Twice(_)))));
}

#[test]
fn upd22_a_reason_is_added_to_the_options() {
    let failed = literal().failed(Some("health-check"));
    assert_eq!(failed.options.failed.as_deref(), Some("health-check"));
    failed.check().unwrap();
}

proptest! {
    #[test]
    fn ent10_every_entry_round_trips(
        options in any_options(), title in "[!-~]([ -~]{0,40}[!-~])?", x64: bool, hashes: [[u8; 32]; 2], unified: bool, live: bool,
    ) {
        let architecture = if x64 { EntryArchitecture::X64 } else { EntryArchitecture::Aa64 };
        let [linux, initrd] = hashes;
        let payloads = if unified { Payloads::Uki(linux) } else { Payloads::Kernel { linux, initrd } };
        let entry = Entry { title, architecture, options, payloads };
        let liveness = if live { Liveness::Live } else { Liveness::Inert };
        prop_assert_eq!(entry.check(), Ok(()));
        prop_assert_eq!(Entry::parse(&entry.render(liveness)), Ok((entry, liveness)));
    }

    #[test]
    fn the_parser_survives_anything(at in 0..FILE.len(), byte: u8, cut in 0..FILE.len()) {
        let mut bytes = FILE.as_bytes().to_vec();
        bytes[at] = byte;
        let _ = Entry::parse(&bytes);
        prop_assert!(Entry::parse(&bytes[..cut]).is_err());
    }
}
