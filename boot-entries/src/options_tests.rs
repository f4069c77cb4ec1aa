use proptest::prelude::*;

use super::*;
use crate::testing::{any_options, options};

const LINE: &str = "root=/dev/mapper/root ro \
    roothash=1111111111111111111111111111111111111111111111111111111111111111 \
    systemd.verity_root_data=PARTUUID=6ba7b810-9dad-11d1-80b4-00c04fd430c8 \
    systemd.verity_root_hash=PARTUUID=6ba7b810-9dad-11d1-80b4-00c04fd430c8 \
    systemd.verity_root_options=hash-offset=1048576 \
    ralph.slot=b ralph.generation=7 \
    ralph.system=2222222222222222222222222222222222222222222222222222222222222222 \
    ralph.epoch=3 ralph.version=1.2.0 quiet panic=10";

#[test]
fn ent11_the_literal_line_round_trips() {
    let expected = options(Slot::B, 7);
    assert_eq!(BootOptions::parse(LINE), Ok(expected.clone()));
    assert_eq!(expected.to_string(), LINE);
    assert!(expected.is_canonical());
}

#[test]
fn ent11_the_kernels_command_line_may_have_other_words_anywhere() {
    let line = format!("initrd=\\ralphos\\b\\g7-initrd  BOOT_IMAGE=x\t{LINE} console=ttyS0\n");
    let parsed = BootOptions::parse(&line).unwrap();
    assert_eq!(parsed.extra, "initrd=\\ralphos\\b\\g7-initrd BOOT_IMAGE=x quiet panic=10 console=ttyS0");
    assert_eq!(BootOptions { extra: "quiet panic=10".into(), ..parsed }, options(Slot::B, 7));
}

#[test]
fn ent11_a_key_of_ours_that_stands_twice_is_refused() {
    for key in KEYS.into_iter().filter(|key| *key != FAILED) {
        let word = LINE.split(' ').find(|word| word.starts_with(key)).unwrap();
        assert_eq!(BootOptions::parse(&format!("{LINE} {word}")), Err(OptionsError::Twice(key)));
        let without = LINE.replacen(&format!("{word} "), "", 1);
        assert_eq!(BootOptions::parse(&without), Err(OptionsError::Missing(key)), "{without}");
    }
    let twice = format!("{LINE} ralph.failed=health ralph.failed=health");
    assert_eq!(BootOptions::parse(&twice), Err(OptionsError::Twice(FAILED)));
}

#[test]
fn ent11_values_that_cannot_be_are_refused() {
    for (good, bad) in [
        ("root=/dev/mapper/root", "root=/dev/sda1"),
        ("roothash=1111", "roothash=111"),
        ("roothash=1111", "roothash=G111"),
        ("hash-offset=1048576", "hash-offset=-1"),
        ("hash-offset=1048576", "hash-offset=01"),
        ("hash-offset=1048576", "panic-on-corruption"),
        ("hash-offset=1048576", "hash-offset=1048576,panic-on-corruption"),
        ("hash-offset=1048576", "hash-offset=1048576,"),
        ("hash-offset=1048576", "restart-on-corruption"),
        ("hash-offset=1048576", "restart-on-corruption,hash-offset=1048576"),
        ("hash-offset=1048576", "hash-offset=1048576,restart-on-corruption,restart-on-corruption"),
        ("data=PARTUUID=6ba7b810-", "data=PARTUUID={6ba7b810-"),
        ("data=PARTUUID=", "data=UUID="),
        ("ralph.slot=b", "ralph.slot=c"),
        ("ralph.generation=7", "ralph.generation=0"),
        ("ralph.epoch=3", "ralph.epoch=4294967296"),
        ("ralph.version=1.2.0", "ralph.version="),
        ("quiet", "ralph.failed=Panic"),
        ("quiet", "ralph.failed=abcdefghijklmnopqrstuvwxyzabcdefg"),
    ] {
        let line = LINE.replacen(good, bad, 1);
        assert_ne!(line, LINE, "{good}");
        assert!(matches!(BootOptions::parse(&line), Err(OptionsError::Invalid { .. })), "{line}");
    }
    let line = LINE.replacen("root_hash=PARTUUID=6", "root_hash=PARTUUID=7", 1);
    assert_eq!(BootOptions::parse(&line), Err(OptionsError::TwoPartitions));
    assert_eq!(BootOptions::parse(&LINE.replacen(" ro ", " ", 1)), Err(OptionsError::Missing("ro")));
}

#[test]
fn ent11_on_trial_a_corrupt_block_restarts_the_machine() {
    let line = LINE.replacen("hash-offset=1048576", "hash-offset=1048576,restart-on-corruption", 1);
    let expected = BootOptions { on_corruption: OnCorruption::Restart, ..options(Slot::B, 7) };
    assert_eq!(BootOptions::parse(&line), Ok(expected.clone()));
    assert_eq!(expected.to_string(), line);
}

#[test]
fn ent11_panic_and_oops_are_added_unless_the_image_has_them() {
    for (image, with) in [
        ("", "panic=10 oops=panic"),
        ("quiet", "panic=10 oops=panic quiet"),
        ("  quiet\tx=\"a  panic=3\" ", "panic=10 oops=panic quiet x=\"a  panic=3\""),
        ("quiet panic=10", "oops=panic quiet panic=10"),
        ("panic=0 oops=no", "panic=0 oops=no"),
        ("oops=panic", "panic=10 oops=panic"),
        ("panic_on_warn=1 -- panic=3", "panic=10 oops=panic panic_on_warn=1 -- panic=3"),
    ] {
        assert_eq!(with_default_words(image), with);
        assert_eq!(with_default_words(with), with, "once is enough");
        let options = BootOptions { extra: with.into(), ..options(Slot::A, 1) };
        assert!(options.is_canonical(), "{with}");
    }
}

#[test]
fn ent11_a_quoted_value_is_one_word() {
    let line = format!("{LINE} x=\"a ralph.slot=a b\"");
    assert_eq!(BootOptions::parse(&line).unwrap().extra, "quiet panic=10 x=\"a ralph.slot=a b\"");
}

#[test]
fn options_that_would_not_come_back_are_not_canonical() {
    let with_extra = |extra: &str| BootOptions { extra: extra.into(), ..options(Slot::A, 1) };
    assert!(with_extra("").is_canonical());
    assert!(with_extra("ro").is_canonical());
    for extra in ["a  b", " a", "a ", "a\nb", "ralph.epoch=9", "root=/dev/sda", "\u{e9}"] {
        assert!(!with_extra(extra).is_canonical(), "{extra:?}");
    }
    assert!(!BootOptions { os_version: "1 2".into(), ..options(Slot::A, 1) }.is_canonical());
    assert!(!BootOptions { failed: Some("NO".into()), ..options(Slot::A, 1) }.is_canonical());
}

proptest! {
    #[test]
    fn ent11_all_options_round_trip(options in any_options()) {
        prop_assert!(options.is_canonical(), "{}", options);
    }

    #[test]
    fn the_parser_survives_anything(text in "\\PC*|[a-z.=\" ]*") {
        let _ = BootOptions::parse(&text);
        let _ = BootOptions::parse(&format!("{LINE} {text}"));
    }
}
