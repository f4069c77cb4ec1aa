//! The checks find the states that break: flows of the library that does not care for power cuts (`UPD-60`), and flows that
//! are broken on purpose, each caught by name.

mod common;

use boot_entries::fat::Volume;
use boot_entries::{Esp, EspPath, Generation, PayloadKind, PayloadName};
use common::*;
use disk_layout::Slot;
use power_cuts::check::Name;
use power_cuts::{Bounds, Flow};
use sha2::{Digest, Sha256};

fn bounds(max_states: u64) -> Bounds {
    Bounds { max_states, ..Bounds::default() }
}

#[test]
fn a_disk_that_nothing_is_done_to_passes() {
    let bench = Bench::new();
    let a = system(Slot::A, 1);
    let report = bench.check(&flow("nothing", &[a], &[a]), bounds(100), &|_| {});
    assert!(report.passed(), "{report}");
    assert_eq!((report.distinct, report.booted["a-g1"]), (1, 1));
}

#[test]
fn cut35_a_slot_written_while_nothing_starts_it_harms_nobody() {
    let bench = Bench::new();
    let a = system(Slot::A, 1);
    let report = bench.check(&flow("slot", &[a], &[a]), bounds(400), &|bench| bench.write_slot(Slot::B, 2));
    assert!(report.passed(), "{report}");
    assert!(report.distinct > 200, "{report}");
}

/// `UPD-60`: the library writes directory, FAT and data in an order of its own. The commit point is one sector all the same:
/// no state boots anything but the old system or the new one, whole.
#[test]
fn upd60_an_apply_by_the_library_boots_one_system_whole_wherever_it_is_cut() {
    let bench = Bench::new();
    let (a, b) = (system(Slot::A, 1), system(Slot::B, 2));
    let report = bench.check(&flow("apply", &[a], &[b]), bounds(4000), &|bench| bench.apply(Slot::B, 2));
    println!("{report}");
    assert!(report.booted["a-g1"] > 100 && report.booted["b-g2"] > 0, "{report}");
    for name in [Name::NothingBoots, Name::NotAllowed, Name::Kernel, Name::Initrd, Name::Slot, Name::WentBack] {
        assert!(!report.found(name), "{report}");
    }
}

#[test]
fn cut34_payloads_written_after_their_entry_are_caught() {
    let bench = Bench::new();
    let (a, b) = (system(Slot::A, 1), system(Slot::B, 2));
    let report = bench.check(&flow("payload-last", &[a], &[b]), bounds(3000), &|bench| {
        bench.write_slot(Slot::B, 2);
        put_live_entry(bench, Slot::B, 2);
        put_payloads(bench, Slot::B, 2);
    });
    assert!(report.found(Name::Kernel) && report.found(Name::Initrd), "{report}");
}

#[test]
fn cut35_a_slot_that_was_not_flushed_before_its_entry_is_caught() {
    let bench = Bench::new();
    let (a, b) = (system(Slot::A, 1), system(Slot::B, 2));
    let report = bench.check(&flow("no-flush", &[a], &[b]), bounds(3000), &|bench| {
        put_payloads(bench, Slot::B, 2);
        bench.write_slot_unflushed(Slot::B, 2);
        put_live_entry(bench, Slot::B, 2);
    });
    assert!(report.found(Name::Slot), "{report}");
}

#[test]
fn cut11_an_apply_on_a_disk_that_never_flushes_is_caught() {
    let bench = Bench::new();
    let (a, b) = (system(Slot::A, 1), system(Slot::B, 2));
    let report = bench.check(&flow("never-flushed", &[a], &[b]), bounds(3000), &|bench| {
        bench.recorder.flushes(false);
        bench.apply(Slot::B, 2);
    });
    assert!(!report.passed(), "{report}");
    assert_eq!(report.flushes, 0);
}

#[test]
fn cut33_the_only_entry_removed_is_caught() {
    let bench = Bench::new();
    let a = system(Slot::A, 1);
    let report = bench.check(&flow("removed", &[a], &[a]), bounds(500), &|bench| {
        bench.esp().remove(&"loader/entries/ralphos-a-g1.conf".parse().unwrap()).unwrap();
    });
    assert!(report.found(Name::NothingBoots) && report.found(Name::End), "{report}");
}

#[test]
fn cut33_another_system_than_allowed_is_caught() {
    let bench = Bench::new();
    let a = system(Slot::A, 1);
    let flow = flow("surprise", &[a], &[a]);
    let report = bench.check(&flow, bounds(500), &|bench| bench.apply(Slot::B, 2));
    assert!(report.found(Name::NotAllowed) && report.found(Name::End), "{report}");
}

#[test]
fn cut33_going_back_is_caught() {
    let bench = Bench::new();
    let (a, b) = (system(Slot::A, 1), system(Slot::B, 2));
    let report = bench.check(&flow("back", &[a], &[b]), bounds(3000), &|bench| {
        bench.apply(Slot::B, 2);
        bench.mark_bad("ralphos-b-g2+3-0.conf");
    });
    assert!(report.found(Name::WentBack) && report.found(Name::End), "{report}");
}

/// What was not flushed when the program said that it is done may never arrive.
#[test]
fn cut33_a_flow_without_its_last_flush_is_caught() {
    let (a, b) = (system(Slot::A, 1), system(Slot::B, 2));
    let bench = Bench::new();
    let apply = flow("apply", &[a], &[b]);
    let live = |bench: &Bench, flush: bool| {
        bench.write_slot(Slot::B, 2);
        put_payloads(bench, Slot::B, 2);
        bench.recorder.flush();
        bench.recorder.flushes(flush);
        put_live_entry(bench, Slot::B, 2);
    };
    let report = bench.check(&apply, bounds(500), &|bench| live(bench, true));
    assert!(!report.found(Name::End), "{report}");
    let report = bench.check(&apply, bounds(500), &|bench| live(bench, false));
    assert!(report.examples[&Name::End].contains("what is durable at the end"), "{report}");
}

/// CUT-16: nothing is left for the only interval, so its end is a state that was not taken before.
#[test]
fn cut33_the_end_fails_by_every_rule_where_no_interval_had_a_share() {
    let (bench, a) = (Bench::new(), system(Slot::A, 1));
    let report = bench.check(&flow("loader", &[a], &[a]), bounds(1), &|bench| {
        bench.esp().overwrite_byte(&"EFI/BOOT/BOOTX64.EFI".parse().unwrap(), 0, b't', b'T').unwrap();
    });
    assert_eq!(report.distinct, 1, "{report}");
    assert!(report.examples[&Name::Loader].contains("what is durable at the end"), "{report}");
}

/// Where the same system boots before and after, the names in `loader/entries` tell whether anything was done.
#[test]
fn cut33_a_commit_without_its_last_flush_is_caught_by_its_entries() {
    let bench = Bench::new();
    bench.apply(Slot::B, 2);
    let (bench, b) = (bench.again(), system(Slot::B, 2));
    let names = ["ralphos-a-g1.conf", "ralphos-b-g2.conf"].map(str::to_owned).to_vec();
    let flow = Flow { entries: Some(names), ..flow("commit", &[b], &[b]) };
    let report = bench.check(&flow, bounds(500), &|bench| bench.commit("ralphos-b-g2+3-0.conf"));
    assert!(!report.found(Name::End), "{report}");
    let done = bench.again();
    done.commit("ralphos-b-g2+3-0.conf");
    let report = check_log(bench.recorder.bytes(), without_last_flush(done.recorder.log()), &flow, bounds(500));
    assert!(report.found(Name::End), "{report}");
    assert!(report.examples[&Name::End].contains("ralphos-b-g2+3-0.conf"), "{report}");
}

/// While a trial may boot, what the loader falls back to is whole, whatever boots first.
#[test]
fn cut39_a_fallback_that_is_not_whole_while_a_trial_boots_is_caught() {
    let b = system(Slot::B, 2);
    let bench = Bench::new();
    bench.apply(Slot::B, 2);
    let bench = bench.again();
    let flow = flow("trial", &[b], &[b]);
    type Act<'a> = &'a dyn Fn(&Bench);
    let acts: [(&str, Act<'_>); 3] = [
        ("boots: initrd: ralphos/a/g1-initrd", &|bench| {
            bench
                .esp()
                .remove(&PayloadName { slot: Slot::A, generation: Generation::FIRST, kind: PayloadKind::Initrd }.path())
                .unwrap();
        }),
        ("slot a: its data has another root hash", &|bench| bench.write_slot(Slot::A, 7)),
        ("nothing-boots: the loader finds nothing else to boot", &|bench| {
            bench.esp().remove(&"loader/entries/ralphos-a-g1.conf".parse().unwrap()).unwrap();
        }),
    ];
    for (said, act) in acts {
        let report = bench.check(&flow, bounds(400), act);
        assert!(report.found(Name::Fallback), "{said}: {report}");
        assert!(report.examples[&Name::Fallback].contains(said), "{said}: {report}");
        let without = Flow { fallback: false, ..flow.clone() };
        assert!(!bench.check(&without, bounds(400), act).found(Name::Fallback));
    }
    // What is committed needs none.
    let report = bench.check(&flow, bounds(400), &|bench| {
        bench.commit("ralphos-b-g2+3-0.conf");
        bench.write_slot(Slot::A, 7);
    });
    assert!(report.passed(), "{report}");
}

/// CUT-41: what a flow writes may be lost by a cut, and what it removes; other files' clusters may not.
#[test]
fn cut41_lost_clusters_are_counted_and_a_file_that_only_loses_its_name_is_caught() {
    let (a, b) = (system(Slot::A, 1), system(Slot::B, 2));
    let bench = Bench::new();
    let report = bench.check(&flow("apply", &[a], &[b]), bounds(1500), &|bench| bench.apply(Slot::B, 2));
    assert!(report.lost > 0 && Some(report.lost) <= report.lost_bound, "{report}");
    assert!(!report.found(Name::Lost), "{report}");
    put(&mut bench.esp(), "another-file", &[1; 5000]);
    let report = bench.check(&flow("dropped", &[a], &[a]), bounds(100), &|bench| {
        bench.esp().drop_name(&"another-file".parse().unwrap()).unwrap();
    });
    assert_eq!((report.lost, report.lost_bound), (10, Some(0)), "clusters of 512 bytes: {report}");
    assert!(report.found(Name::Lost), "{report}");
}

/// CUT-42: one cluster less is nothing beside those that an apply uses, so CUT-41 does not see it.
#[test]
fn cut42_a_foreign_file_that_loses_its_name_or_its_content_is_caught() {
    let (a, b) = (system(Slot::A, 1), system(Slot::B, 2));
    let bench = Bench::new();
    let (note, other): (EspPath, EspPath) =
        ("loader/entries/note.conf".parse().unwrap(), "EFI/vendor/tool.efi".parse().unwrap());
    put(&mut bench.esp(), note.as_str(), b"title a note\n");
    bench.esp().make_dir(&"EFI/vendor".parse().unwrap()).unwrap();
    put(&mut bench.esp(), other.as_str(), b"a tool");
    let apply = flow("apply", &[a], &[b]);
    let report = bench.check(&apply, bounds(1000), &|bench| bench.apply(Slot::B, 2));
    assert!(!report.found(Name::Foreign), "{report}");
    type Act<'a> = &'a dyn Fn(&Bench);
    let acts: [(&str, Act<'_>); 2] = [
        ("loader/entries/note.conf is gone", &|bench| bench.esp().drop_name(&note).unwrap()),
        ("EFI/vendor/tool.efi is not what it was", &|bench| {
            bench.esp().overwrite_byte(&other, 0, b'a', b'A').unwrap();
        }),
    ];
    for (said, act) in acts {
        let report = bench.check(&apply, bounds(1000), &|bench| {
            bench.apply(Slot::B, 2);
            act(bench);
        });
        assert!(report.found(Name::Foreign) && !report.found(Name::Lost), "{said}: {report}");
        assert!(report.examples[&Name::Foreign].contains(said), "{said}: {report}");
    }
}

#[test]
fn cut36_two_names_on_one_chain_are_caught_unless_the_firmware_may_rename() {
    let bench = Bench::new();
    bench.apply(Slot::B, 2);
    let (bench, b) = (bench.again(), system(Slot::B, 2));
    let mut flow = flow("rename", &[b], &[b]);
    let report = bench.check(&flow, bounds(2000), &count_as_the_firmware_does);
    assert!(report.found(Name::SharedClusters), "{report}");
    flow.firmware_renames = true;
    let report = bench.check(&flow, bounds(2000), &count_as_the_firmware_does);
    assert!(report.passed() && report.with_cut_renames > 0, "{report}");
}

#[test]
fn cut30_a_damaged_partition_table_is_caught_when_both_copies_are() {
    let bench = Bench::new();
    let a = system(Slot::A, 1);
    let end = bench.layout.disk_len - 512;
    let one = bench.check(&flow("gpt", &[a], &[a]), bounds(500), &|bench| bench.recorder.write(512, &[0; 512]));
    assert!(one.passed(), "{one}");
    let both = bench.check(&flow("gpt", &[a], &[a]), bounds(500), &|bench| {
        bench.recorder.write(512, &[0; 512]);
        bench.recorder.write(end, &[0; 512]);
    });
    assert_eq!(both.failures.get(&Name::Gpt), Some(&1), "only the state with both: {both}");
}

#[test]
fn cut37_a_damaged_loader_is_caught() {
    let bench = Bench::new();
    let a = system(Slot::A, 1);
    let report = bench.check(&flow("loader", &[a], &[a]), bounds(500), &|bench| {
        bench.esp().overwrite_byte(&"EFI/BOOT/BOOTX64.EFI".parse().unwrap(), 0, b't', b'T').unwrap();
    });
    assert!(report.found(Name::Loader), "{report}");
}

#[test]
fn cut37_the_loader_is_what_it_was_or_what_the_flow_makes_of_it() {
    let a = system(Slot::A, 1);
    let path: EspPath = "EFI/BOOT/BOOTX64.EFI".parse().unwrap();
    for allowed in [true, false] {
        let bench = Bench::new();
        let old = bench.esp().read(&path, 1 << 20).unwrap();
        let mut new = old.clone();
        new[0] ^= 1;
        let flow = Flow { loader: allowed.then(|| Sha256::digest(&new).into()), ..flow("loader", &[a], &[a]) };
        let report = bench.check(&flow, bounds(500), &|bench| {
            bench.esp().overwrite_byte(&path, 0, old[0], new[0]).unwrap();
        });
        assert_eq!(report.passed(), allowed, "{report}");
        assert_eq!(report.found(Name::Loader), !allowed, "{report}");
    }
}

#[test]
fn cut37_loader_conf_holds_what_it_held_or_what_the_flow_makes_of_it() {
    let a = system(Slot::A, 1);
    let path: EspPath = "loader/loader.conf".parse().unwrap();
    for allowed in [true, false] {
        let bench = Bench::new();
        let old = bench.esp().read_head(&path, 4096).unwrap();
        let mut new = String::from_utf8(old.clone()).unwrap();
        new.replace_range(..1, "#");
        let flow = Flow { loader_conf: allowed.then_some(new), ..flow("conf", &[a], &[a]) };
        let report = bench.check(&flow, bounds(500), &|bench| {
            bench.esp().overwrite_byte(&path, 0, old[0], b'#').unwrap();
        });
        assert_eq!(report.passed(), allowed, "{report}");
        assert_eq!(report.found(Name::Loader), !allowed, "{report}");
    }
}

/// A machine whose `loader/entries` has room for no name more, and whose free clusters lie far behind it.
fn full_directory() -> Bench {
    let bench = Bench::new();
    put(&mut bench.esp(), "fill", &vec![1; 200_000]);
    let room = |bench: &Bench| {
        let part = bench.recorder.part(bench.layout.esp.start..bench.layout.esp.end());
        Volume::open(part).unwrap().room("loader/entries").unwrap().unwrap()
    };
    let mut number = 0;
    while room(&bench) >= 3 {
        put(&mut bench.esp(), &format!("loader/entries/a-foreign-file-{number:04}"), b"");
        number += 1;
    }
    bench.again()
}

#[test]
fn cut23_a_directory_of_entries_that_grows_is_caught() {
    let a = system(Slot::A, 1);
    let report = full_directory().check(&flow("grows", &[a], &[a]), bounds(1500), &|bench| {
        put(&mut bench.esp(), "loader/entries/another-foreign-file", b"");
    });
    assert!(report.found(Name::Fat) && report.found(Name::NothingBoots), "{report}");
}

#[test]
fn ent28_room_is_made_without_a_state_that_fails() {
    let a = system(Slot::A, 1);
    let bench = full_directory();
    let report = bench.check(&flow("room", &[a], &[a]), bounds(1500), &|bench| {
        bench.esp().make_room(&"loader/entries".parse().unwrap(), 256).unwrap();
    });
    assert!(report.passed() && report.distinct > 10, "{report}");
}
