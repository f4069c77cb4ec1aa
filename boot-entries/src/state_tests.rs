use super::*;
use crate::esp::FakeEsp;
use crate::testing::{entry, machine, put_payloads, put_system};

const X64: EntryArchitecture = EntryArchitecture::X64;

fn read(esp: &FakeEsp) -> EspState {
    EspState::read(&mut esp.clone()).unwrap()
}

fn name(text: &str) -> EntryName {
    text.parse().unwrap()
}

fn boots(prediction: Prediction) -> String {
    match prediction {
        Prediction::Boots { file_name, .. } => file_name,
        other => panic!("{other:?}"),
    }
}

fn no_vars() -> LoaderVars {
    LoaderVars::default()
}

#[test]
fn ent1_ours_and_foreign_are_told_apart() {
    let mut esp = machine(&["ralphos-a-g1.conf", "RALPHOS-B-G2+2-1.CONF"]);
    esp.put("loader/entries/ralphos-b-g02.conf", b"linux /k\n");
    esp.put("loader/entries/debian.conf", b"linux /k\n");
    let state = read(&esp);
    let ours: Vec<EntryName> = state.ours.iter().map(|entry| entry.name).collect();
    assert_eq!(ours, [name("ralphos-a-g1.conf"), name("ralphos-b-g2+2-1.conf")]);
    assert_eq!(state.foreign, ["debian.conf", "ralphos-b-g02.conf"]);
    assert_eq!(state.entries(Slot::B).count(), 1);
    assert_eq!(state.live(Slot::B).unwrap().path().as_str().to_lowercase(), "loader/entries/ralphos-b-g2+2-1.conf");
}

/// Names may share one chain of clusters, so that a small volume shows gigabytes.
#[test]
fn thr11_entries_are_not_read_beyond_a_bound_and_then_nothing_is_predicted() {
    let mut esp = machine(&["ralphos-a-g1.conf"]);
    for number in 0..20 {
        esp.put(&format!("loader/entries/long-{number}.conf"), &vec![b'#'; 1 << 20]);
    }
    let state = read(&esp);
    assert!(state.live(Slot::A).is_some(), "ours is never hidden by others");
    let held: usize = state.files.iter().map(|file| file.content.len()).sum();
    assert!(held <= 17 << 20 && state.unmodelled.len() >= 4, "{held}, {:?}", state.unmodelled);
    assert!(matches!(state.predict(&no_vars(), X64), Prediction::Unknown { .. }));
}

#[test]
fn ent13_an_unreadable_entry_is_there_and_live_when_the_loader_would_take_it() {
    let mut esp = machine(&["ralphos-a-g1.conf"]);
    let path = "loader/entries/ralphos-a-g1.conf";
    let good = esp.content(path).unwrap().to_vec();
    for (content, liveness) in [
        ([&good[..], b"options quiet\n"].concat(), Liveness::Live),
        ([b"#", &good[1..], b"x"].concat(), Liveness::Inert),
        (b"".to_vec(), Liveness::Inert),
        (vec![0xa5; 5000], Liveness::Inert),
        (entry(Slot::A, 2).render(Liveness::Live), Liveness::Live),
    ] {
        esp.put(path, &content);
        let state = read(&esp);
        assert!(state.ours[0].entry.is_err());
        assert_eq!(state.ours[0].liveness, liveness, "{}", String::from_utf8_lossy(&content));
        let error = state.ours[0].entry.clone().unwrap_err();
        assert_eq!(is_whole(&mut esp.clone(), &state.ours[0]).unwrap(), Wholeness::Unreadable(error));
    }
}

#[test]
fn ent4_the_highest_generation_is_in_entries_and_payloads() {
    assert_eq!(read(&FakeEsp::new()).highest_generation(), None);
    let mut esp = machine(&["ralphos-a-g9.conf", "ralphos-b-g10+0-3.conf"]);
    let highest = |esp: &FakeEsp| read(esp).highest_generation().unwrap().get();
    assert_eq!(highest(&esp), 10);
    put_payloads(&mut esp, "ralphos-b-g12.conf");
    assert_eq!(highest(&esp), 12);
    esp.put("loader/entries/ralphos-a-g13+3-0.conf", b"");
    assert_eq!(highest(&esp), 13);
    esp.put("loader/entries/ralphos-a-g014.conf", b"");
    esp.put("ralphos/a/g15-other", b"");
    assert_eq!(highest(&esp), 13);
}

#[test]
fn ent14_whole_means_both_payloads_are_the_recorded_ones() {
    let esp = machine(&["ralphos-a-g1.conf"]);
    let check = |change: &dyn Fn(&mut FakeEsp)| {
        let mut esp = esp.clone();
        change(&mut esp);
        let state = read(&esp);
        is_whole(&mut esp, &state.ours[0]).unwrap()
    };
    assert_eq!(check(&|_| ()), Wholeness::Whole);
    assert_eq!(check(&|esp| esp.take("ralphos/a/g1-linux")), Wholeness::Missing(PayloadKind::Linux));
    assert_eq!(check(&|esp| esp.take("ralphos/a/g1-initrd")), Wholeness::Missing(PayloadKind::Initrd));
    assert_eq!(check(&|esp| esp.put("ralphos/a/g1-linux", b"x")), Wholeness::Differs(PayloadKind::Linux));
    assert_eq!(check(&|esp| esp.put("ralphos/a/g1-initrd", b"")), Wholeness::Differs(PayloadKind::Initrd));
    let inert = entry(Slot::A, 1).render(Liveness::Inert);
    assert_eq!(check(&|esp| esp.put("loader/entries/ralphos-a-g1.conf", &inert)), Wholeness::Inert);
}

#[test]
fn the_entry_that_stands_for_a_slot_is_the_newest_live_one() {
    let mut esp = machine(&["ralphos-b-g2.conf", "ralphos-b-g10.conf", "ralphos-b-g10+2-1.conf"]);
    esp.put("loader/entries/ralphos-b-g11+3-0.conf", &entry(Slot::B, 11).render(Liveness::Inert));
    let state = read(&esp);
    assert_eq!(state.live(Slot::B).unwrap().file_name, "ralphos-b-g10.conf");
    assert_eq!(state.live(Slot::A), None);
}

#[test]
fn upd1_the_fence_frees_entries_and_every_payload_file() {
    let mut esp = FakeEsp::new();
    let space = Space { cluster_size: 4096, free_clusters: 0 };
    assert_eq!(read(&esp).freed_by_fence(Slot::A, space), 0);
    put_system(&mut esp, "ralphos-a-g1.conf");
    esp.put("ralphos/a/g1-linux", &[0; 4096]);
    esp.put("ralphos/a/g1-initrd", &[0; 4097]);
    esp.put("ralphos/a/leftover", &[0; 1]);
    esp.put("ralphos/a/empty", b"");
    assert_eq!(read(&esp).freed_by_fence(Slot::A, space), 1 + 1 + 2 + 1);
    assert_eq!(read(&esp).freed_by_fence(Slot::B, space), 0);
}

#[test]
fn upd1_the_plan_is_asked_before_anything_is_changed() {
    // A deliberate downgrade, over an older system, with the running one at a higher OS version.
    let state = read(&machine(&["ralphos-a-g9.conf", "ralphos-b-g8.conf"]));
    let mut new = entry(Slot::B, 10);
    new.options.os_version = "0.1".into();
    let staged = |new: &Entry, counter| boots(state.predict_staged(new, counter, &no_vars(), X64));
    assert_eq!(staged(&new, Counter::fresh()), "ralphos-b-g10+3-0.conf");
    assert_eq!(staged(&new, Counter::fresh().bad_keeping_done()), "ralphos-a-g9.conf");
    // Forgetting the generation would never be tried.
    assert_eq!(staged(&entry(Slot::B, 8), Counter::fresh()), "ralphos-a-g9.conf");
    // Another machine's entries are not seen: here only the new one is for this machine.
    new.architecture = EntryArchitecture::Aa64;
    let on_arm = boots(state.predict_staged(&new, Counter::fresh(), &no_vars(), EntryArchitecture::Aa64));
    assert_eq!(on_arm, "ralphos-b-g10+3-0.conf");
    assert_eq!(boots(state.predict_staged(&new, Counter::fresh(), &no_vars(), X64)), "ralphos-a-g9.conf");
}

#[test]
fn upd1_the_plan_counts_foreign_entries_and_stale_defaults() {
    let mut esp = machine(&["ralphos-a-g1.conf", "ralphos-b-g2+0-3.conf"]);
    esp.put("vmlinuz", b"k");
    let new = entry(Slot::B, 3);
    let staged = |esp: &FakeEsp, vars: &LoaderVars| boots(read(esp).predict_staged(&new, Counter::fresh(), vars, X64));
    let default = |text: &str| LoaderVars { default: Some(text.into()), ..no_vars() };
    assert_eq!(staged(&esp, &default("ralphos-a-*")), "ralphos-a-g1.conf");
    assert_eq!(staged(&esp, &default("ralphos-b-g2+0-3.conf")), "ralphos-b-g3+3-0.conf");
    esp.put("loader/entries/debian.conf", b"linux //vmlinuz\nsort-key debian\n");
    assert_eq!(staged(&esp, &no_vars()), "debian.conf");
    // A kernel of the slot that will be fenced is gone by then.
    esp.put("loader/entries/debian.conf", b"linux \\ralphos\\B\\g2-linux\nsort-key debian\n");
    assert_eq!(boots(read(&esp).predict(&no_vars(), X64)), "debian.conf");
    assert_eq!(staged(&esp, &no_vars()), "ralphos-b-g3+3-0.conf");
    esp.put("loader/loader.conf", b"default ralphos-a*\n");
    assert_eq!(staged(&esp, &no_vars()), "ralphos-a-g1.conf");
}

#[test]
fn ldr8_what_is_not_modelled_is_not_predicted() {
    let mut esp = machine(&["ralphos-a-g1.conf"]);
    esp.put("EFI/Linux/readme.txt", b"");
    assert_eq!(boots(read(&esp).predict(&no_vars(), X64)), "ralphos-a-g1.conf");
    esp.put("EFI/Linux/Other.EFI", b"");
    let because = vec![Unpredictable::Unmodelled("EFI/Linux/Other.EFI".to_owned())];
    assert_eq!(read(&esp).predict(&no_vars(), X64), Prediction::Unknown { because });
    esp.take("EFI/Linux/Other.EFI");
    // What is too long to be read here may be an entry; what the loader does not read may be as long as it likes.
    esp.put("loader/entries/README", &vec![b'#'; 2 << 20]);
    assert_eq!(boots(read(&esp).predict(&no_vars(), X64)), "ralphos-a-g1.conf");
    esp.put("loader/entries/x.conf", &vec![b'#'; 2 << 20]);
    let because = vec![Unpredictable::Unmodelled("loader/entries/x.conf".to_owned())];
    assert_eq!(read(&esp).predict(&no_vars(), X64), Prediction::Unknown { because });
}

#[test]
fn ldr1_an_entry_without_its_kernel_is_skipped() {
    let mut esp = machine(&["ralphos-a-g1.conf", "ralphos-b-g2.conf"]);
    esp.take("ralphos/b/g2-linux");
    assert_eq!(boots(read(&esp).predict(&no_vars(), X64)), "ralphos-a-g1.conf");
    esp.take("ralphos/a/g1-linux");
    assert_eq!(read(&esp).predict(&no_vars(), X64), Prediction::Nothing);
}

fn fallback(esp: &FakeEsp, from: &str, vars: &LoaderVars) -> Result<String, NoFallback> {
    let state = read(esp);
    another_whole_entry_boots(&mut esp.clone(), &state, name(from), vars, X64).map(|fallback| fallback.file_name)
}

#[test]
fn upd50_another_whole_entry_will_boot() {
    let esp = machine(&["ralphos-a-g1.conf", "ralphos-b-g2+2-1.conf"]);
    assert_eq!(fallback(&esp, "ralphos-b-g2+2-1.conf", &no_vars()).unwrap(), "ralphos-a-g1.conf");
    // From the committed one a trial is a fallback too, and a rollback from B to an older A.
    assert_eq!(fallback(&esp, "ralphos-a-g1.conf", &no_vars()).unwrap(), "ralphos-b-g2+2-1.conf");
    // The other live name of the same system is none.
    let twins = machine(&["ralphos-a-g1.conf", "ralphos-b-g2+2-1.conf", "ralphos-b-g2.conf"]);
    assert_eq!(fallback(&twins, "ralphos-b-g2+2-1.conf", &no_vars()).unwrap(), "ralphos-a-g1.conf");
}

#[test]
fn upd50_every_reason_why_not() {
    let trial = "ralphos-b-g2+2-1.conf";
    let esp = machine(&["ralphos-a-g1.conf", trial]);
    let with = |change: &dyn Fn(&mut FakeEsp)| {
        let mut esp = esp.clone();
        change(&mut esp);
        fallback(&esp, trial, &no_vars()).unwrap_err()
    };
    let alone = machine(&[trial]);
    assert!(matches!(fallback(&alone, trial, &no_vars()), Err(NoFallback::Same { .. })));
    assert!(matches!(
        fallback(&machine(&["ralphos-a-g1+0-0.conf", trial]), "ralphos-a-g1+0-0.conf", &no_vars()),
        Ok(file) if file == trial
    ));
    assert!(matches!(
        fallback(&machine(&["ralphos-a-g3+0-0.conf", trial]), trial, &no_vars()),
        Err(NoFallback::Bad { .. })
    ));
    assert!(matches!(with(&|esp| esp.take("ralphos/a/g1-linux")), NoFallback::Same { .. }));
    let missing = with(&|esp| esp.take("ralphos/a/g1-initrd"));
    assert!(matches!(missing, NoFallback::NotWhole { why: Wholeness::Missing(PayloadKind::Initrd), .. }));
    assert_eq!(missing.to_string(), "the boot loader would choose ralphos-a-g1.conf, but its initrd file is missing");
    assert!(matches!(with(&|esp| esp.put("ralphos/a/g1-linux", b"")), NoFallback::NotWhole { .. }));
    assert!(matches!(with(&|esp| esp.put("EFI/Linux/x.efi", b"")), NoFallback::Unknown { .. }));
    let foreign = with(&|esp| {
        esp.put("vmlinuz", b"");
        esp.put("loader/entries/x.conf", b"linux /vmlinuz\nsort-key a\n");
    });
    assert!(matches!(foreign, NoFallback::Foreign { .. }));
    let stale = LoaderVars { default: Some("ralphos-b-*".into()), ..no_vars() };
    assert!(matches!(
        fallback(&esp, trial, &stale),
        Err(NoFallback::Same { reason: ChoiceReason::DefaultVariable, .. })
    ));
    assert!(matches!(fallback(&machine(&[]), trial, &no_vars()), Err(NoFallback::Nothing)));
}

#[test]
fn ldr8_a_kernel_path_is_plain_or_nothing_is_predicted() {
    for (kernel, path) in
        [("/ralphos/a/g1-linux", "ralphos/a/g1-linux"), ("\\EFI\\x/k", "EFI/x/k"), ("//a///b", "a/b"), ("k", "k")]
    {
        assert_eq!(resolve(kernel), Kernel::At(EspPath::literal(path)));
    }
    for kernel in ["", "/", "/a/ralphos/..", "/ralphos/a/../a/g1-linux", "."] {
        assert_eq!(resolve(kernel), Kernel::Doubtful, "{kernel:?}");
    }
    for kernel in ["/a:b", "/a?", &"x".repeat(300)] {
        assert_eq!(resolve(kernel), Kernel::Nowhere, "{kernel:?}");
    }
    let predict = |kernel: &str| {
        let mut esp = machine(&["ralphos-a-g1.conf"]);
        esp.put("loader/entries/x.conf", format!("sort-key a\nlinux \"{kernel}\"\n").as_bytes());
        read(&esp).predict(&no_vars(), X64)
    };
    let there = [
        "/ralphos/a/g1-linux.",
        "/ralphos/a/g1-linux ",
        "/ ralphos/a/g1-linux",
        "/ralphos/./a/g1-linux",
        "/ralphos/a/",
    ];
    let unknown = |because: Unpredictable| Prediction::Unknown { because: vec![because] };
    for kernel in there.into_iter().chain(["/", "/../k"]) {
        let refused = unknown(Unpredictable::Unmodelled("loader/entries/x.conf".into()));
        assert_eq!(predict(kernel), refused, "{kernel:?}");
    }
    assert_eq!(predict(""), unknown(Unpredictable::Halts("x.conf".into())), "LDR-10");
    // Whoever follows these finds nothing.
    for kernel in ["/k.", "/ k", "/k/", "/a:b."] {
        assert_eq!(boots(predict(kernel)), "ralphos-a-g1.conf", "{kernel:?}");
    }
}

#[test]
fn ldr9_where_releases_differ_nothing_is_predicted() {
    let esp = machine(&["ralphos-a-g1.conf", "ralphos-b-g2+0-3.conf"]);
    let with = |default: &str| LoaderVars { default: Some(default.into()), ..no_vars() };
    for default in ["ralphos-b-g2.conf", "ralphos-b-g2+0-3.conf"] {
        let Prediction::Unknown { because } = read(&esp).predict(&with(default), X64) else { panic!("{default}") };
        assert!(matches!(&because[..], [Unpredictable::ReleasesDiffer { .. }]), "{because:?}");
        let text = because_text(&because);
        assert!(text.contains("ralphos-a-g1.conf") && text.contains("ralphos-b-g2+0-3.conf"), "{text}");
    }
    assert_eq!(boots(read(&esp).predict(&with("ralphos-a-g1.conf"), X64)), "ralphos-a-g1.conf");
    // Twins: the same system, whichever they take.
    let twins = machine(&["ralphos-a-g1.conf", "ralphos-b-g2.conf", "ralphos-b-g2+2-1.conf"]);
    assert!(read(&twins).predict(&no_vars(), X64).boots(name("ralphos-b-g2.conf")));
}
