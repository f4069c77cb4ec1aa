//! Every kind of failure is kept so that it can be had again (`CUT-61`).

mod common;
mod program;

use std::collections::BTreeSet;

use boot_entries::fat::Volume;
use boot_entries::{Esp, EspPath, Generation, PayloadKind, PayloadName};
use common::*;
use disk_layout::Slot;
use power_cuts::Flow;
use power_cuts::check::NAMES;
use program::{files, power_cuts, text};

const ENTRY: &str = "loader/entries/ralphos-a-g1.conf";

fn path(text: &str) -> EspPath {
    text.parse().unwrap()
}

/// Records the flow, checks it, and has every state that is kept fail again by each of its names. Those names.
fn failures(bench: &Bench, flow: &Flow, act: &dyn Fn(&Bench)) -> BTreeSet<String> {
    let dir = files(flow, bench, act);
    let done = power_cuts(dir.path(), "check", &["--save", "kept"]);
    let told = text(&done);
    assert_eq!(done.status.code(), Some(1), "{}: {told}", flow.name);
    let reported: BTreeSet<String> = told.lines().filter_map(name).collect();
    let mut again = BTreeSet::new();
    for file in told.lines().filter_map(|line| line.strip_prefix("power-cuts reproduce ")) {
        let how = std::fs::read_to_string(dir.path().join(file).with_extension("txt")).unwrap();
        let wanted: BTreeSet<&str> = how.lines().filter(|line| line.starts_with("FAILED ")).collect();
        let done = power_cuts(dir.path(), "reproduce", &[file]);
        let told = text(&done);
        assert_eq!(done.status.code(), Some(1), "{file}: {told}");
        let found: BTreeSet<&str> = told.lines().filter(|line| line.starts_with("FAILED ")).collect();
        assert!(wanted.is_subset(&found), "{file}: {how} {told}");
        again.extend(wanted.into_iter().filter_map(name));
    }
    assert_eq!(again, reported, "of each kind that is reported one is kept: {told}");
    again
}

/// The name in `FAILED name …` or `FAILED name: …`.
fn name(line: &str) -> Option<String> {
    line.strip_prefix("FAILED ")?.split([' ', ':']).next().map(str::to_owned)
}

/// Changes one byte of a slot in a directory.
fn patch_slot(bench: &Bench, file: &str, at: u64, byte: u8) {
    let mut volume = Volume::open(bench.recorder.part(bench.layout.esp.start..bench.layout.esp.end())).unwrap();
    let slot = volume.find(file).unwrap().unwrap().slots[0];
    let offset = bench.layout.esp.start + slot + at;
    let start = offset / 512 * 512;
    let mut sector = bench.recorder.bytes()[usize::try_from(start).unwrap()..][..512].to_vec();
    sector[usize::try_from(offset - start).unwrap()] = byte;
    bench.recorder.write(start, &sector);
}

#[test]
fn cut61_every_kind_of_failure_is_reproduced_by_the_command_that_is_printed() {
    let (a, b) = (system(Slot::A, 1), system(Slot::B, 2));
    let bench = Bench::new();
    put(&mut bench.esp(), "another-file", &[1; 5000]);
    let bench = bench.again();
    let trial = bench.again();
    trial.apply(Slot::B, 2);
    let trial = trial.again();
    let stays = |name: &str| flow(name, &[a], &[a]);
    let apply = |name: &str| flow(name, &[a], &[b]);
    let end = bench.layout.disk_len - 512;
    let esp = bench.layout.esp.start;
    let initrd = PayloadName { slot: Slot::A, generation: Generation::FIRST, kind: PayloadKind::Initrd }.path();

    type Act<'a> = &'a dyn Fn(&Bench);
    type Case<'a> = (&'a [&'a str], &'a Bench, Flow, Act<'a>);
    let flows: [Case<'_>; 15] = [
        (&["gpt"], &bench, stays("gpt"), &|bench| {
            bench.recorder.write(512, &[0; 512]);
            bench.recorder.write(end, &[0; 512]);
        }),
        (&["fat"], &bench, stays("fat"), &|bench| bench.recorder.write(esp, &[0; 512])),
        // The firmware wants a first cluster of 0 in a long name (CUT-21), the library does not look.
        (&["readers"], &bench, stays("readers"), &|bench| patch_slot(bench, ENTRY, 26, 1)),
        (&["nothing-boots", "end"], &bench, stays("removed"), &|bench| bench.esp().remove(&path(ENTRY)).unwrap()),
        (&["unpredictable"], &bench, stays("unified"), &|bench| {
            bench.esp().make_dir(&path("EFI/Linux")).unwrap();
            put(&mut bench.esp(), "EFI/Linux/other.efi", b"MZ");
        }),
        (&["foreign-boots"], &bench, stays("foreign"), &|bench| {
            put(&mut bench.esp(), "loader/entries/other.conf", b"title x\nlinux /another-file\n");
            bench.esp().remove(&path(ENTRY)).unwrap();
        }),
        (&["not-allowed"], &bench, stays("surprise"), &|bench| bench.apply(Slot::B, 2)),
        (&["went-back"], &bench, apply("back"), &|bench| {
            bench.apply(Slot::B, 2);
            bench.mark_bad("ralphos-b-g2+3-0.conf");
        }),
        (&["base"], &bench, flow("base", &[b], &[b]), &|_| {}),
        (&["entry"], &bench, stays("entry"), &|bench| {
            let text = String::from_utf8(bench.esp().read_head(&path(ENTRY), 4096).unwrap()).unwrap();
            let at = text.find("title").unwrap() as u64;
            bench.esp().overwrite_byte(&path(ENTRY), at, b't', b'x').unwrap();
        }),
        (&["kernel", "initrd"], &bench, apply("payload-last"), &|bench| {
            bench.write_slot(Slot::B, 2);
            put_live_entry(bench, Slot::B, 2);
            put_payloads(bench, Slot::B, 2);
        }),
        (&["slot"], &bench, stays("slot"), &|bench| bench.write_slot(Slot::A, 7)),
        (&["shared-clusters"], &trial, flow("rename", &[b], &[b]), &count_as_the_firmware_does),
        (&["loader"], &bench, stays("loader"), &|bench| {
            bench.esp().overwrite_byte(&path("EFI/BOOT/BOOTX64.EFI"), 0, b't', b'T').unwrap();
        }),
        (&["fallback", "lost", "foreign"], &trial, flow("fallback", &[b], &[b]), &|bench| {
            bench.esp().drop_name(&initrd).unwrap();
            bench.esp().drop_name(&path("another-file")).unwrap();
        }),
    ];
    let mut seen = BTreeSet::new();
    for (wanted, bench, flow, act) in flows {
        let found = failures(bench, &flow, act);
        for name in wanted {
            assert!(found.contains(*name), "{}: {name} is not among {found:?}", flow.name);
        }
        seen.extend(found);
    }
    assert_eq!(seen, NAMES.iter().map(|name| name.as_str().to_owned()).collect());
}
