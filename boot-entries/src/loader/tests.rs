use proptest::prelude::*;

use super::*;
use crate::entry::Liveness;
use crate::testing::entry;
use disk_layout::Slot;

/// An entry of ours under this name, live.
fn ours(name: &str) -> EntryFile {
    ours_as(name, Liveness::Live)
}

fn ours_as(name: &str, liveness: Liveness) -> EntryFile {
    let parsed: crate::names::EntryName = name.parse().unwrap();
    let content = entry(parsed.slot, parsed.generation.get()).render(liveness);
    EntryFile { name: name.to_owned(), content }
}

fn file(name: &str, content: &str) -> EntryFile {
    EntryFile { name: name.to_owned(), content: content.as_bytes().to_vec() }
}

fn vars(one_shot: Option<&str>, default: Option<&str>) -> LoaderVars {
    let own = |text: Option<&str>| text.map(str::to_owned);
    LoaderVars { one_shot: own(one_shot), default: own(default), last_booted: None }
}

fn outcome(release: Release, files: &[EntryFile], conf: &str, vars: &LoaderVars) -> Outcome {
    let exists = |kernel: &str| !kernel.contains("missing");
    choose(release, files, &exists, &LoaderConf::parse(conf), vars, EntryArchitecture::X64)
}

fn boots_in(release: Release, files: &[EntryFile], conf: &str, vars: &LoaderVars) -> Option<(String, ChoiceReason)> {
    outcome(release, files, conf, vars).choice().map(|choice| (choice.name, choice.reason))
}

/// What boots with every release.
fn boots_with(files: &[EntryFile], conf: &str, vars: &LoaderVars) -> Option<(String, ChoiceReason)> {
    let boots = Release::ALL.map(|release| boots_in(release, files, conf, vars));
    assert!(boots.iter().all(|other| *other == boots[0]), "{boots:?}");
    boots.into_iter().next().flatten()
}

/// The name of what boots by order alone.
fn first(files: &[EntryFile]) -> Option<String> {
    boots_with(files, "", &LoaderVars::default()).map(|(name, reason)| {
        assert_eq!(reason, ChoiceReason::First);
        name
    })
}

#[test]
fn ldr3_the_order_decides() {
    for (files, expected) in [
        // The higher generation is the newer one, also with a digit more.
        (vec!["ralphos-a-g9.conf", "ralphos-b-g10+3-0.conf"], "ralphos-b-g10+3-0.conf"),
        (vec!["ralphos-b-g10.conf", "ralphos-a-g9+3-0.conf"], "ralphos-b-g10.conf"),
        (vec!["ralphos-a-g1.conf", "ralphos-b-g2+1-2.conf"], "ralphos-b-g2+1-2.conf"),
        // Bad ones come last, whatever their generation.
        (vec!["ralphos-a-g1.conf", "ralphos-b-g2+0-3.conf"], "ralphos-a-g1.conf"),
        (vec!["ralphos-a-g1+0-0.conf", "ralphos-b-g2+2-1.conf"], "ralphos-b-g2+2-1.conf"),
        // All bad: the newest bad one.
        (vec!["ralphos-a-g1+0-0.conf", "ralphos-b-g2+0-3.conf"], "ralphos-b-g2+0-3.conf"),
        (vec!["ralphos-b-g2+0-3.conf"], "ralphos-b-g2+0-3.conf"),
        // Twins (LDR-7): the one with more tries left, or with any beside a bad one.
        (vec!["ralphos-b-g2+1-2.conf", "ralphos-b-g2+2-1.conf"], "ralphos-b-g2+2-1.conf"),
        (vec!["ralphos-b-g2+0-3.conf", "ralphos-b-g2+1-2.conf"], "ralphos-b-g2+1-2.conf"),
        (vec!["ralphos-b-g2+0-0.conf", "ralphos-b-g2.conf"], "ralphos-b-g2.conf"),
        // Names in upper case.
        (vec!["RALPHOS-A-G9.CONF", "RALPHOS-B-G10+3-0.CONF"], "RALPHOS-B-G10+3-0.CONF"),
        (vec!["RALPHOS-A-G9.CONF", "RALPHOS-B-G10+0-3.CONF"], "RALPHOS-A-G9.CONF"),
    ] {
        let mut entries: Vec<EntryFile> = files.iter().map(|name| ours(name)).collect();
        assert_eq!(first(&entries).as_deref(), Some(expected), "{files:?}");
        entries.reverse();
        assert_eq!(first(&entries).as_deref(), Some(expected), "{files:?} in the other order");
    }
}

#[test]
fn ldr1_what_the_loader_leaves_out() {
    let good = || ours("ralphos-a-g1.conf");
    for other in [
        ours_as("ralphos-b-g2+3-0.conf", Liveness::Inert),
        file("ralphos-b-g2+3-0.conf", ""),
        file("ralphos-b-g2+3-0.conf", "sort-key ralphos\nversion 2-1\n"),
        file("zz.conf", "# linux /k\n"),
        file("zz.conf", "linux /missing\n"),
        file("zz.conf", "linux /k\nlinux /missing\n"),
        file("zz.conf", "linux /k\narchitecture aa64\n"),
        file("zz.conf", "efi /EFI/BOOT/BOOTX64.EFI\n"),
        file("zz.txt", "linux /k\n"),
        file("zz.conf.bak", "linux /k\n"),
        file(".zz.conf", "linux /k\n"),
        file("auto-zz.conf", "linux /k\n"),
    ] {
        assert_eq!(first(std::slice::from_ref(&other)), None, "{other:?}");
        assert_eq!(first(&[other, good()]).as_deref(), Some("ralphos-a-g1.conf"));
    }
    assert_eq!(first(&[]), None);
    // A kernel that is missing does not take an entry's turn.
    let exists = |kernel: &str| !kernel.contains("g2");
    let files = [good(), ours("ralphos-b-g2+3-0.conf")];
    for release in Release::ALL {
        let (conf, vars) = (LoaderConf::default(), LoaderVars::default());
        let outcome = choose(release, &files, &exists, &conf, &vars, EntryArchitecture::X64);
        assert_eq!(outcome.choice().unwrap().name, "ralphos-a-g1.conf");
    }
}

#[test]
fn ldr1_what_the_loader_takes() {
    for content in [
        " linux /k\n",
        "\tlinux\t/k",
        "title x\nefi /shell.efi\n",
        "linux /missing\nlinux /k\n",
        "linux /k\narchitecture x64\n",
        "linux \"/k\"\r\n",
    ] {
        assert!(first(&[file("x.conf", content)]).is_some(), "{content:?}");
    }
    assert!(first(&[file("x.CONF", "linux /k\n")]).is_some());
}

#[test]
fn ldr3_foreign_entries_take_their_place() {
    let ours = || ours("ralphos-b-g7.conf");
    // Without a sort key: behind all that have one.
    assert_eq!(first(&[file("zzz.conf", "linux /k\nversion 999\n"), ours()]).unwrap(), "ralphos-b-g7.conf");
    // A smaller sort key comes first, a greater one behind.
    assert_eq!(first(&[ours(), file("x.conf", "linux /k\nsort-key debian\n")]).unwrap(), "x.conf");
    assert_eq!(first(&[file("x.conf", "linux /k\nsort-key zz-recovery\n"), ours()]).unwrap(), "ralphos-b-g7.conf");
    // The same sort key: no machine id before one, then the version.
    let same = "linux /k\nsort-key ralphos\n";
    assert_eq!(
        first(&[file("x.conf", &format!("{same}machine-id 0\nversion 9\n")), ours()]).unwrap(),
        "ralphos-b-g7.conf"
    );
    assert_eq!(first(&[ours(), file("x.conf", &format!("{same}version 8\n"))]).unwrap(), "x.conf");
    assert_eq!(first(&[file("x.conf", same), ours()]).unwrap(), "ralphos-b-g7.conf");
    // Old style among themselves: the id, downwards; but a bad one last.
    let old = |name: &str| file(name, "linux /k\n");
    assert_eq!(first(&[old("linux-5.conf"), old("linux-10.conf")]).unwrap(), "linux-10.conf");
    assert_eq!(first(&[old("linux-5.conf"), old("linux-10+0.conf")]).unwrap(), "linux-5.conf");
}

#[test]
fn ldr4_variables_and_defaults_come_before_the_order() {
    use ChoiceReason::{DefaultInConf, DefaultVariable, First, OneShot};
    let files = [ours("ralphos-a-g1.conf"), ours("ralphos-b-g2+0-3.conf"), ours("ralphos-b-g3+2-1.conf")];
    let (a, bad, trial) = ("ralphos-a-g1.conf", "ralphos-b-g2+0-3.conf", "ralphos-b-g3+2-1.conf");
    for (one_shot, default, conf, expected, reason) in [
        (None, None, "", trial, First),
        (Some("ralphos-a-g1.conf"), None, "", a, OneShot),
        (Some("RALPHOS-A-G1.CONF"), Some("*b-g3*"), "default *b-g2*", a, OneShot),
        // A one-shot boots a bad entry, and a default does: fallback is defeated.
        (Some("*b-g2*"), None, "", bad, OneShot),
        (None, None, "default ralphos-b-g2*", bad, DefaultInConf),
        (None, Some("ralphos-a*"), "default ralphos-b-g2*", a, DefaultVariable),
        // Stale: what it names is gone.
        (None, Some("ralphos-b-g1+3-0.conf"), "default nothing", trial, First),
        (Some("gone"), None, "default ralphos-a-*", a, DefaultInConf),
        // The first match in order, so this is harmless.
        (None, None, "default ralphos-*", trial, DefaultInConf),
        (None, None, "default RALPHOS-A*", a, DefaultInConf),
        (None, None, "# default ralphos-a*", trial, First),
        (None, None, "default ralphos-a*\ndefault ralphos-b-g2*", bad, DefaultInConf),
        (None, None, "default @something", trial, First),
        (None, Some(""), "", trial, First),
    ] {
        let expected = Some((expected.to_owned(), reason));
        assert_eq!(boots_with(&files, conf, &vars(one_shot, default)), expected, "{one_shot:?} {default:?} {conf:?}");
    }
}

#[test]
fn ldr4_saved_is_the_last_booted() {
    let files = [ours("ralphos-a-g1.conf"), ours("ralphos-b-g2.conf")];
    let last =
        |default: Option<&str>| LoaderVars { last_booted: Some("ralphos-a-g1.conf".into()), ..vars(None, default) };
    let boots = |conf: &str, default| boots_with(&files, conf, &last(default)).unwrap();
    assert_eq!(boots("default @SAVED", None), ("ralphos-a-g1.conf".to_owned(), ChoiceReason::DefaultInConf));
    assert_eq!(boots("", Some("@saved")), ("ralphos-a-g1.conf".to_owned(), ChoiceReason::DefaultVariable));
    assert_eq!(boots("", None), ("ralphos-b-g2.conf".to_owned(), ChoiceReason::First));
    let gone = LoaderVars { last_booted: Some("gone".into()), ..vars(None, Some("@saved")) };
    assert_eq!(boots_with(&files, "default @saved", &gone).unwrap().1, ChoiceReason::First);
}

#[test]
fn ldr9_releases_differ_in_ids() {
    use ChoiceReason::{DefaultVariable, First};
    use Release::{V252, V257, V257Stripped};
    let (a, bad) = ("ralphos-a-g1.conf", "ralphos-b-g2+0-3.conf");
    let files = [ours(a), ours(bad)];
    // A default without the counter: the newest release finds the bad entry by it.
    let stale = vars(None, Some("ralphos-b-g2.conf"));
    for (release, expected) in [(V252, (a, First)), (V257, (a, First)), (V257Stripped, (bad, DefaultVariable))] {
        assert_eq!(boots_in(release, &files, "", &stale), Some((expected.0.to_owned(), expected.1)), "{release}");
    }
    // One with the counter: the older releases do.
    let exact = vars(None, Some(bad));
    for (release, expected) in [(V252, (bad, DefaultVariable)), (V257Stripped, (a, First))] {
        assert_eq!(boots_in(release, &files, "", &exact), Some((expected.0.to_owned(), expected.1)), "{release}");
    }
    // Twins: the counted one, or the first in the directory.
    let (committed, counted) = ("ralphos-b-g2.conf", "ralphos-b-g2+2-1.conf");
    for names in [[committed, counted], [counted, committed]] {
        let files = names.map(ours);
        for (release, expected) in [(V252, counted), (V257, counted), (V257Stripped, names[0])] {
            let boots = boots_in(release, &files, "", &LoaderVars::default());
            assert_eq!(boots, Some((expected.to_owned(), First)), "{release}");
        }
    }
    // Only what is not counted is folded then.
    let ids = |name| Release::ALL.map(|release| release.id(name, name.contains('+')));
    assert_eq!(ids("X+1-2.Conf"), ["x+1-2.conf", "x+1-2.conf", "X.conf"]);
    assert_eq!(ids("X.CONF"), ["x.conf"; 3]);
}

#[test]
fn ldr9_releases_differ_in_quotes_and_hidden_names() {
    let takes = |name: &str, content: &str| {
        let file = file(name, content);
        Release::ALL.map(|release| candidate(release, 0, &file, EntryArchitecture::X64).map(|found| found.kernel))
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(takes("AUTO-x.conf", "linux /k\n"), [some("/k"), None, None]);
    assert_eq!(takes("x.conf", "linux '/k'\n"), [some("'/k'"), some("/k"), some("/k")]);
    let files = [ours("ralphos-a-g1.conf"), ours("ralphos-b-g2.conf")];
    let boots = |release| boots_in(release, &files, "default 'ralphos-a*'", &LoaderVars::default()).unwrap().0;
    assert_eq!(boots(Release::V252), "ralphos-b-g2.conf");
    assert_eq!(boots(Release::V257), "ralphos-a-g1.conf");
}

#[test]
fn ldr8_a_pattern_may_name_something_that_is_no_entry() {
    let files = [ours("ralphos-a-g1.conf")];
    let windows = vars(None, Some("auto-windows"));
    for release in Release::ALL {
        let outcome = |conf: &str, vars: &LoaderVars| outcome(release, &files, conf, vars);
        assert_eq!(outcome("", &windows), Outcome::Automatic { pattern: "auto-windows".into() });
        assert!(outcome("auto-entries no\n", &windows).choice().is_some());
        // What an entry matches is decided.
        assert!(outcome("default *\n", &LoaderVars::default()).choice().is_some());
        assert!(outcome("default auto-windows\n", &vars(Some("ralphos*"), None)).choice().is_some());
    }
}

#[test]
fn ldr10_an_empty_path_halts_the_loader() {
    for (name, content, expected) in [
        ("x.conf", "linux /k\ninitrd \"\"\n", true),
        ("x.conf", "linux \"\"\n", true),
        ("x.conf", "efi ''\n", true),
        ("x.conf", "devicetree \"\n", true),
        ("x.conf", "linux\ninitrd \n", false),
        ("x.conf", "#initrd \"\"\ntitle \"\"\n", false),
        ("x.txt", "linux \"\"\n", false),
    ] {
        assert_eq!(halts_the_loader(&file(name, content)), expected, "{content:?}");
    }
}

#[test]
fn ldr5_the_name_after_a_try() {
    for (name, expected) in [
        ("ralphos-b-g7+3-0.conf", Some("ralphos-b-g7+2-1.conf")),
        ("ralphos-b-g7+0-3.conf", Some("ralphos-b-g7+0-4.conf")),
        ("X+3.CONF", Some("X+2-1.conf")),
        ("x+1+02-01.conf", Some("x+1+1-2.conf")),
        ("x+0-2147483647.conf", Some("x+0-2147483647.conf")),
        ("x.conf", None),
    ] {
        let found = candidate(Release::V252, 0, &file(name, "linux /k\n"), EntryArchitecture::X64).unwrap();
        assert_eq!(found.counted_name.as_deref(), expected, "{name}");
    }
}

#[test]
fn ldr3_many_entries_whose_versions_are_no_order() {
    // The standard library's sort may panic on such a list; the loader's takes what comes.
    let version = |n: u32| ["1-1", "1.", "1^", "1~", "-", "", "a-", "a.1"][n as usize % 8];
    let files: Vec<EntryFile> = (0..200)
        .map(|n| {
            file(&format!("{n}.conf"), &format!("linux /k\nsort-key a\nversion {}{}\n", version(n), version(n / 8)))
        })
        .collect();
    for release in Release::ALL {
        assert_eq!(candidates(release, &files, &|_| true, EntryArchitecture::X64).len(), 200);
    }
}

#[test]
fn ldr2_counters_are_read_as_the_loader_reads_them() {
    for (id, expected) in [
        ("x+3.conf", Some((3, 0))),
        ("x+3-1.conf", Some((3, 1))),
        ("x+03-01.conf", Some((3, 1))),
        ("x+1+2-3.conf", Some((2, 3))),
        ("x.conf", None),
        ("x+.conf", None),
        ("x+3-.conf", None),
        ("x+-3.conf", None),
        ("x+3-1-1.conf", None),
        ("x+3a.conf", None),
        ("x+2147483647-2147483647.conf", Some((i32::MAX as u32, i32::MAX as u32))),
        ("x+2147483648.conf", None),
    ] {
        assert_eq!(counter(id), expected, "{id}");
    }
}

#[test]
fn efi_strings_are_read_from_efivarfs() {
    let file = |text: &str, nul: bool| {
        let units = text.encode_utf16().chain(nul.then_some(0));
        [6, 0, 0, 0].into_iter().chain(units.flat_map(u16::to_le_bytes)).collect::<Vec<u8>>()
    };
    assert_eq!(parse_efi_string(&file("ralphos-a-g1.conf", true)), Ok("ralphos-a-g1.conf".to_owned()));
    assert_eq!(parse_efi_string(&file("a", false)), Ok("a".to_owned()));
    assert_eq!(parse_efi_string(&file("a\0b", true)), Ok("a".to_owned()));
    assert_eq!(parse_efi_string(&[6, 0, 0, 0]), Ok(String::new()));
    assert_eq!(parse_efi_string(&[6, 0, 0]), Err(VariableError::Attributes));
    assert_eq!(parse_efi_string(&[6, 0, 0, 0, 65]), Err(VariableError::NotAString));
    assert_eq!(parse_efi_string(&[6, 0, 0, 0, 0, 0xd8]), Err(VariableError::NotAString));
}

fn any_ours() -> impl Strategy<Value = (EntryFile, Liveness)> {
    (any::<bool>(), 1..15u32, proptest::option::of((0..4u32, 0..4u32)), any::<bool>()).prop_map(
        |(a, g, counter, live)| {
            let slot = if a { Slot::A } else { Slot::B };
            let counter = counter.map(|(left, done)| crate::names::Counter::new(left, done).unwrap());
            let entry = entry(slot, g);
            let liveness = if live { Liveness::Live } else { Liveness::Inert };
            (EntryFile { name: entry.name(counter).to_string(), content: entry.render(liveness) }, liveness)
        },
    )
}

proptest! {
    /// An inert entry is never chosen, whatever points at it.
    #[test]
    fn ent10_an_inert_entry_is_never_chosen(
        files in proptest::collection::vec(any_ours(), 0..8), one_shot in proptest::option::of("[a-b*0-9g?-]{0,6}"),
    ) {
        let list: Vec<EntryFile> = files.iter().map(|(file, _)| file.clone()).collect();
        let vars = LoaderVars { one_shot, ..LoaderVars::default() };
        for release in Release::ALL {
            match outcome(release, &list, "auto-entries no\nauto-firmware no\nsecure-boot-enroll off\n", &vars) {
                Outcome::Boots(choice) => prop_assert_eq!(files[choice.index].1, Liveness::Live),
                Outcome::Nothing => prop_assert!(files.iter().all(|(_, liveness)| *liveness == Liveness::Inert)),
                Outcome::Automatic { pattern } => prop_assert!(false, "{}", pattern),
            }
        }
    }

    /// By order alone a bad entry boots only when nothing else does, and otherwise the newest generation.
    #[test]
    fn ldr3_not_bad_and_newest_wins(files in proptest::collection::vec(any_ours(), 1..8)) {
        let list: Vec<EntryFile> = files.into_iter().map(|(file, _)| file).collect();
        for release in Release::ALL {
            let all = candidates(release, &list, &|_| true, EntryArchitecture::X64);
            let rank = |c: &Candidate| {
                let name: crate::names::EntryName = list[c.index].name.parse().unwrap();
                (!name.is_exhausted(), name.generation)
            };
            if let Some(first) = all.first() {
                prop_assert_eq!(Some(rank(first)), all.iter().map(rank).max());
            }
        }
    }

    #[test]
    fn the_model_survives_anything(name in "\\PC*(\\.conf)?", content in any::<Vec<u8>>(), pattern in "\\PC*|[a*?\\[\\]\\\\-]*") {
        let vars = LoaderVars { default: Some(pattern.clone()), ..LoaderVars::default() };
        let conf = LoaderConf::parse(format!("default {pattern}"));
        let files = [EntryFile { name, content }, ours("ralphos-a-g1.conf")];
        for release in Release::ALL {
            let outcome = choose(release, &files, &|_| true, &conf, &vars, EntryArchitecture::X64);
            prop_assert!(outcome != Outcome::Nothing);
        }
    }
}

#[test]
fn ldr9_without_its_default_lines_no_release_obeys_loader_conf() {
    let files = [ours("ralphos-a-g1.conf"), ours("ralphos-b-g2+3-0.conf")];
    let conf = LoaderConf::parse("default ralphos-a-*\n");
    for release in Release::ALL {
        assert_eq!(conf.default_in(release).map(String::as_str), Some("ralphos-a-*"));
        let without = conf.clone().without_default();
        assert_eq!(without.default_in(release), None);
        let chosen = choose(release, &files, &|_| true, &without, &vars(None, None), EntryArchitecture::X64);
        assert_eq!(chosen.choice().unwrap().name, "ralphos-b-g2+3-0.conf");
    }
}
