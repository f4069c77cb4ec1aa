//! The states that the loader model is compared on, by subject.

use boot_entries::entry::Liveness;
use qemu_tests::arch::Arch;

use super::state::{CONF_PATH, Expect, State};
use crate::ARCH;

const A: &str = "ralphos-a-g1.conf";
const B: &str = "ralphos-b-g2.conf";
const TRIAL: &str = "ralphos-b-g2+3-0.conf";
const BAD: &str = "ralphos-b-g2+0-3.conf";

pub fn table() -> Vec<State> {
    [counters(), order(), twins(), lines(), kernels(), names(), patterns(), variables(), beyond()].concat()
}

/// LDR-2, LDR-5
fn counters() -> Vec<State> {
    let s = State::new;
    vec![
        s("committed alone").ours(&[A]),
        s("a trial").ours(&[A, TRIAL]),
        s("its second try").ours(&[A, "ralphos-b-g2+2-1.conf"]),
        s("its last try").ours(&[A, "ralphos-b-g2+1-2.conf"]),
        s("used up").ours(&[A, BAD]),
        s("all are bad").ours(&["ralphos-a-g1+0-0.conf", BAD]),
        s("a bad one alone counts on").ours(&["ralphos-b-g2+0-7.conf"]),
        s("the committed one was given up").ours(&["ralphos-a-g1+0-0.conf", "ralphos-b-g2+2-1.conf"]),
        s("trials of both slots").ours(&["ralphos-a-g3+3-0.conf", "ralphos-b-g2+1-2.conf"]),
        s("a counter without done").plain(&["x+3.conf", "a.conf"]),
        s("a counter with leading zeros").plain(&["x+03-01.conf", "a.conf"]),
        s("two pluses").plain(&["x+1+2-3.conf", "a+4.conf"]),
        s("a bad counter in front of a good one").plain(&["x+0+2-3.conf", "a.conf"]),
        s("what is no counter").plain(&[
            "x+3a.conf",
            "x+.conf",
            "x+3-.conf",
            "x+-3.conf",
            "x+3-1-1.conf",
            "x+ 3.conf",
            "x-3.conf",
        ]),
        s("the greatest counter").plain(&["x+2147483647-2147483647.conf", "a.conf"]),
        s("the greatest done of a bad one").plain(&["x+0-2147483647.conf"]),
        s("a counter too great").plain(&[
            "x+2147483648.conf",
            "x+0-2147483648.conf",
            "x+99999999999999999999999-1.conf",
            "a.conf",
        ]),
        s("a counted name in upper case").ours(&[A]).ours(&["RALPHOS-B-G2+3-0.CONF"]),
        s("a bad name in upper case").ours(&["RALPHOS-A-G1.CONF", "RALPHOS-B-G2+0-3.CONF"]),
        s("a counted name in mixed case").plain(&["Linux+2-1.Conf", "a.conf"]).expect(Expect::ReleasesDiffer),
    ]
}

/// LDR-3
fn order() -> Vec<State> {
    let s = State::new;
    let key = |key: &str| format!("linux /k\nsort-key {key}\n");
    vec![
        s("the generation is a number").ours(&["ralphos-a-g10.conf", "ralphos-b-g9.conf"]),
        s("a deliberate downgrade").ours(&[A]).system(TRIAL, Liveness::Live, "0.9.0"),
        s("a smaller sort key").ours(&[A]).entry("x.conf", key("debian")),
        s("a greater sort key").ours(&[A]).entry("x.conf", key("zz-recovery")),
        s("no sort key").ours(&[A]).entry("zzz.conf", "linux /k\nversion 999\n"),
        s("an empty sort key is none").ours(&[A]).entry("x.conf", key("\"\"")).entry("y.conf", key("\"a\"")),
        s("sort keys are compared as they stand")
            .entry("1.conf", key("a"))
            .entry("2.conf", key("B"))
            .entry("3.conf", key("A"))
            .entry("4.conf", key("\u{e4}"))
            .entry("5.conf", key("\u{fffd}"))
            .entry("6.conf", key("a a"))
            .entry("7.conf", key("\u{1f600}")),
        s("sort keys that are not UTF-8")
            .entry("1.conf", b"linux /k\nsort-key b\xff\n")
            .entry("2.conf", b"linux /k\nsort-key \xc3(c\n")
            .entry("3.conf", b"linux /k\nsort-key \xe2\x82\n")
            .entry("4.conf", b"linux /k\nsort-key \xff\n")
            .entry("5.conf", b"linux /k\nsort-key \xc1\xa1\n")
            .entry("6.conf", key("a")),
        s("machine ids").versions(&["machine-id 1", "machine-id 0", "version 0", "machine-id \"\"", "machine-id a"]),
        s("versions of the specification").versions(&[
            "version 123~rc1-1",
            "version 122.1",
            "version 123",
            "version 123-a.1",
            "version 123-a",
            "version 123^post1",
            "version 123-1.1",
            "version 123-1",
            "version 123a-1",
            "version 123.1-1",
            "version 123.a-1",
            "version 124-1",
        ]),
        s("numbers in versions").versions(&[
            "version 9",
            "version 10",
            "version 2024.01",
            "version 2024.2",
            "version 1.0",
            "version 1",
            "version 1.00",
            "version 007",
            "version 0",
            "version 99999999999999999999998",
            "version 99999999999999999999999",
        ]),
        s("odd versions").versions(&[
            "version ~",
            "version 1_2",
            "version 1+2",
            "version a",
            "version A",
            "version 1~~",
            "version 1~",
            "version --1",
            "version -.1",
            "version 1 2",
            "title none",
        ]),
        s("ids, old style").plain(&["linux-5.conf", "linux-10.conf", "linux-10+0.conf", "linux.conf", "Linux-7.conf"]),
        s("ids with counters, old style")
            .plain(&["linux+3.conf", "linux-5.conf", "linux-5+1.conf", "linux.1+1.conf"])
            .expect(Expect::ReleasesDiffer),
        s("only the names differ").plain(&["1.conf", "01x.conf", "~.conf", "a~b.conf", "ab.conf", "a_b.conf"]),
        (0..24).fold(s("many entries"), |state, n| {
            let name = format!("e{}+{}-{}.conf", n % 7, n % 3, n);
            state.entry(&name, format!("linux /k\nsort-key {}\nversion {}\n", n % 4, n * 7 % 11))
        }),
    ]
}

/// LDR-7
fn twins() -> Vec<State> {
    let s = State::new;
    vec![
        s("a commit was cut").ours(&[A, B, "ralphos-b-g2+2-1.conf"]),
        s("a rollback was cut").ours(&[A, B, "ralphos-b-g2+0-0.conf"]),
        s("mark-bad was cut").ours(&[A, "ralphos-b-g2+2-1.conf", "ralphos-b-g2+0-1.conf"]),
        s("counted twins").ours(&[A, "ralphos-b-g2+2-1.conf", "ralphos-b-g2+1-2.conf"]),
        s("the count runs into a name that is there").ours(&[A, "ralphos-b-g2+1-2.conf", BAD]),
        s("a new name is still inert").system("ralphos-b-g2+2-1.conf", Liveness::Live, "1").system(
            B,
            Liveness::Inert,
            "1",
        ),
    ]
}

/// LDR-1: what a line is.
fn lines() -> Vec<State> {
    let s = State::new;
    let this = ARCH.efi();
    let other = if ARCH == Arch::X86_64 { Arch::Aarch64 } else { Arch::X86_64 }.efi();
    let one = |name: &str, content: &[u8]| s(name).ours(&[A]).entry("x.conf", [b"sort-key a\n", content].concat());
    vec![
        s("an inert trial").ours(&[A]).system(TRIAL, Liveness::Inert, "1.0.0"),
        one("an empty entry", b""),
        s("an entry of no bytes").ours(&[A]).entry("x.conf", ""),
        s("an entry of zeros").ours(&[A]).entry("x.conf", [0; 4096]),
        one("a NUL before", b"version 1\n\0linux /k\n"),
        one("a NUL behind", b"linux /k\0\nlinux /missing\n"),
        one("a NUL in the value", b"linux /\0k\n").expect(Expect::Refusal),
        one("CR LF", b"linux /k\r\nversion 1\r\n"),
        one("CR alone", b"title x\rlinux /k\rversion 1"),
        one("white space", b" \tlinux\t \t/k \t\n"),
        one("other white space", b"linux\x0b/k\n"),
        one("a comment", b"#linux /k\n"),
        one("an indented comment", b" \t# linux /k\n"),
        one("a comment behind", b"linux /k # comment\n"),
        one("no value", b"linux\n"),
        one("no value but a space", b"linux \n"),
        one("keys in upper case", b"LINUX /k\nLinux /k\n"),
        one("a mark of byte order", b"\xef\xbb\xbflinux /k\n"),
        one("double quotes", b"linux \"/k\"\n"),
        one("a quote too few", b"linux \"/k\n"),
        one("single quotes", b"linux '/k'\n").expect(Expect::ReleasesDiffer),
        one("quotes of two kinds", b"linux '/k\"\n"),
        one("the last line wins", b"linux /missing\nlinux /k\nversion 1\nversion 2\n"),
        one("the last line loses", b"linux /k\nlinux /missing\n"),
        s("the last sort key").ours(&[A]).entry("x.conf", "sort-key a\nlinux /k\nsort-key zz\n"),
        one("a long line", format!("options {}\nlinux /k\n", "x".repeat(9000)).as_bytes()),
        one("a long file", format!("{}linux /k\n", "# comment\n".repeat(9000)).as_bytes()),
        one("another architecture", format!("linux /k\narchitecture {other}\n").as_bytes()),
        one("this architecture", format!("architecture {}\nlinux /k\n", this.to_uppercase()).as_bytes()),
        one("an empty architecture", b"architecture \"\"\nlinux /k\n"),
        one(
            "another architecture, then this",
            format!("architecture {other}\narchitecture {this}\nlinux /k\n").as_bytes(),
        ),
    ]
}

/// LDR-1, LDR-6: what starts.
fn kernels() -> Vec<State> {
    let s = State::new;
    let this = ARCH.efi();
    let another = format!("EFI/systemd/systemd-boot{this}.efi");
    let one = |name: &str, line: &str| s(name).ours(&[A]).entry("x+2-0.conf", format!("sort-key a\n{line}\n"));
    // How the firmware follows such a path is its own affair.
    let odd = |name: &str, line: &str| one(name, line).expect(Expect::Refusal);
    vec![
        s("the newer kernel is missing").ours(&[A, TRIAL]).without("ralphos/b/g2-linux"),
        s("no kernel at all").ours(&[A]).without("ralphos/a/g1-linux"),
        s("the kernel is no program").ours(&[A, TRIAL]).file("ralphos/b/g2-linux", "no program").expect(Expect::Parked),
        s("the kernel is empty").ours(&[A, TRIAL]).file("ralphos/b/g2-linux", "").expect(Expect::Parked),
        s("the initrd is missing").ours(&[A, TRIAL]).without("ralphos/b/g2-initrd").expect(Expect::Parked),
        one("the kernel is a folder", "linux /loader").expect(Expect::Parked),
        odd("the kernel is the root", "linux /"),
        one("backslashes", "linux \\k"),
        one("doubled slashes", "linux //k"),
        one("no slash", "linux k"),
        one("another case", "linux /K"),
        odd("dots in the path", "linux /loader/./entries/../../k"),
        odd("a path above the root", "linux /../k"),
        odd("a path through a folder that is not there", "linux /nothing/../k"),
        odd("a path through a file", "linux /k/../k"),
        odd("a folder's slash behind", "linux /k/"),
        odd("a dot behind", "linux /k."),
        odd("a space behind", "linux \"/k \""),
        odd("a space before", "linux \"/ k\""),
        one("characters that FAT has not", "linux /k?\n"),
        one("an efi key", "efi /k"),
        one("efi, then linux", "efi /missing\nlinux /k"),
        one("linux, then efi", "linux /k\nefi /missing"),
        one("the loader itself", &format!("efi /{}", ARCH.loader_path())),
        one("the loader itself, then a kernel", &format!("efi \\efi\\boot//boot{this}.efi\nlinux /k")),
        one("the loader's path without a slash", "efi EFI/BOOT/MISSING.EFI"),
        one("beside the loader", "efi /EFI/BOOT/BOOTIA32.EFI").kernel("EFI/BOOT/BOOTIA32.EFI"),
        one("another loader", &format!("efi /{another}")).kernel(&another),
    ]
}

/// LDR-1: which files are entries.
fn names() -> Vec<State> {
    let s = State::new;
    let first = |name: &str, file: &str| s(name).ours(&[A]).entry(file, "linux /k\nsort-key a\n");
    vec![
        s("no entries"),
        s("no loader.conf").ours(&[A, TRIAL]).without(CONF_PATH),
        first("a hidden name", ".x.conf"),
        first("an automatic name", "auto-x.conf"),
        first("an automatic name in upper case", "AUTO-x.conf").expect(Expect::ReleasesDiffer),
        first("another ending", "x.conf.bak"),
        first("a longer ending", "x.config"),
        first("nothing but the ending", "x.conf"),
        first("a folder", "d.conf/x.conf"),
        first("spaces and signs", "my [entry] !^ (1),;=~.conf"),
        first("letters beyond ASCII", "\u{c4}\u{e4}\u{20ac}+2-0.conf"),
        first("a long name", &format!("{}.conf", "x".repeat(195))),
        first("a long name that grows when it is counted", &format!("{}+1.conf", "x".repeat(193))),
        // Measured: it is booted and not renamed.
        first("a name that is too long to be counted", &format!("{}+1.conf", "x".repeat(233))).expect(Expect::Refusal),
        first("the longest name", &format!("{}.conf", "x".repeat(250))).expect(Expect::Refusal),
        s("an unreadable entry of ours").ours(&[A]).entry("ralphos-b-g2+3-0.conf", "linux /k\nsort-key ralphos\n"),
    ]
}

/// LDR-4: patterns. The first match in order counts, so each names what is not the first by itself.
fn patterns() -> Vec<State> {
    let names = ["a1.conf", "b2.conf", "c3+0-1.conf", "[x].conf", "!q.conf", "^r.conf", "d-4.conf", "zz.conf"];
    [
        "a1.conf",
        "A1.CONF",
        "a1",
        "a*",
        "*",
        "**",
        "?1.conf",
        "??.conf",
        "[ab]*",
        "[a-c]?.conf",
        "[c-a]*",
        "[!a]*",
        "[^b]?*",
        "[]a]*",
        "[a]]*",
        "\\[x\\].conf",
        "[[]*",
        "[\\]\\[]*",
        "*[0-9].conf",
        "*+0*",
        "c3*",
        "[a-b-d]*",
        "[a-]*",
        "[-a]*",
        "*-*",
        "[a",
        "a1.conf\\",
        "*.conf*",
        "*a*1*.*conf",
        "d[-]4.conf",
        "d[+--]4*",
        "@x",
        "a1.conf extra",
        "[a-\\c]3*",
        "\\a1.conf",
        "",
    ]
    .into_iter()
    .map(|pattern| {
        let state = State::new(&format!("default {pattern:?}")).plain(&names).conf(format!("default {pattern}\n"));
        // Without its counter the id is another one.
        if pattern == "*+0*" { state.expect(Expect::ReleasesDiffer) } else { state }
    })
    .collect()
}

/// LDR-4: what names an entry, and who comes first.
fn variables() -> Vec<State> {
    let s = State::new;
    let two = |name: &str| s(name).ours(&[A, TRIAL]);
    let fallen = |name: &str| s(name).ours(&[A, BAD]);
    vec![
        fallen("default boots a bad one").conf("default ralphos-b-*\n"),
        fallen("default names all").conf("default ralphos-*\n"),
        two("default without the counter").conf("default ralphos-b-g2.conf\n"),
        fallen("default without the counter, bad").conf("default ralphos-b-g2.conf\n").expect(Expect::ReleasesDiffer),
        fallen("default with the counter").conf("default ralphos-b-g2+0-3.conf\n").expect(Expect::ReleasesDiffer),
        two("default twice").conf("default ralphos-b-*\ndefault ralphos-a-*\n"),
        two("default in a comment").conf("#default ralphos-a-*\n"),
        two("default in quotes").conf("default \"ralphos-a-*\"\n"),
        two("default in single quotes").conf("default 'ralphos-a-*'\n").expect(Expect::ReleasesDiffer),
        two("an empty default behind another").conf("default ralphos-a-*\ndefault \"\"\n"),
        two("default @unknown").conf("default ralphos-a-*\ndefault @unknown\n"),
        two("default that is not UTF-8").conf(b"default ralphos-a-\xff*\n"),
        two("loader.conf ends at a NUL").conf("\0default ralphos-a-*\n"),
        two("default with CR").conf("default ralphos-a-*\rtimeout 0\r\n"),
        two("one-shot").one_shot(A),
        two("one-shot in upper case").one_shot("RALPHOS-A-G1.CONF"),
        two("a stale one-shot").one_shot("ralphos-a-g0.conf"),
        two("one-shot with the counter").one_shot(TRIAL),
        two("one-shot pattern").one_shot("*-a-*"),
        fallen("one-shot boots a bad one").one_shot("ralphos-b*"),
        two("an empty one-shot").one_shot(""),
        two("the variable").default(A),
        two("a stale variable").default("ralphos-b-g1+3-0.conf"),
        two("a stale variable of a committed one").default("ralphos-b-g1.conf"),
        fallen("the variable of a system that fell").default("ralphos-b-g2.conf").expect(Expect::ReleasesDiffer),
        fallen("the variable boots a bad one").default("ralphos-b*"),
        two("the variable before loader.conf").default(A).conf("default ralphos-b-*\n"),
        two("a stale variable before loader.conf").default("gone").conf("default ralphos-a-*\n"),
        two("one-shot before both").one_shot(A).default("ralphos-b*").conf("default ralphos-b*\n"),
        two("@saved in loader.conf").conf("default @saved\n").last_booted(A),
        two("@SAVED in loader.conf").conf("default @SAVED\n").last_booted(A),
        two("@saved and nothing saved").conf("default @saved\n"),
        two("@saved and a stale one").conf("default @saved\n").last_booted("gone.conf"),
        two("@saved in the variable").default("@saved").last_booted(A),
        two("@saved in the variable hides loader.conf").default("@Saved").conf("default @saved\n").last_booted("gone"),
        two("@saved in the variable, a name in loader.conf").default("@saved").conf(format!("default {A}\n")),
        two("a variable hides @saved").default("gone").conf("default @saved\n").last_booted(A),
        two("saved is not folded").conf("default @saved\n").last_booted("RALPHOS-A-G1.CONF"),
        two("saved is a pattern").conf("default @saved\n").last_booted("ralphos-a*"),
        two("@saved as one-shot").one_shot("@saved").last_booted(A),
        s("saved with the counter")
            .plain(&["x+2-1.conf", "zz.conf"])
            .conf("default @saved\n")
            .last_booted("x+2-1.conf")
            .expect(Expect::ReleasesDiffer),
        s("saved without the counter")
            .plain(&["X+2-1.conf", "zz.conf"])
            .conf("default @saved\n")
            .last_booted("X.conf")
            .expect(Expect::ReleasesDiffer),
    ]
}

/// LDR-8, LDR-10, DSK-3: what the model leaves to others.
fn beyond() -> Vec<State> {
    let s = State::new;
    let refused = |name: &str| s(name).ours(&[A, TRIAL]).expect(Expect::Refusal);
    let halting =
        |name: &str, line: &str| s(name).ours(&[A]).entry("x.conf", format!("linux /k\n{line}\n")).expect(Expect::Halt);
    vec![
        refused("a unified image").unified("EFI/Linux/x.efi"),
        refused("a unified image that is none").file("EFI/Linux/x.efi", "x"),
        refused("a variable that names another system").conf("auto-entries yes\n").default("auto-windows"),
        s("a variable that names what is not offered").ours(&[A, TRIAL]).default("auto-windows"),
        s("entries on XBOOTLDR").ours(&[A, TRIAL]).xbootldr(&[("x+2-0.conf", "linux /k\nsort-key a\n")]),
        s("a twin on XBOOTLDR").ours(&[A]).xbootldr(&[(A, "linux /k\nsort-key ralphos\nversion 9-9\n")]),
        halting("an empty linux", "linux \"\""),
        halting("an empty initrd", "initrd \"\""),
    ]
}
