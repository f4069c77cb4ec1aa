//! Reject, fence, tidy and the guard's file: the exact events, and after a failure at each of them the exact events so far.

use super::flows::on_slot_b;
use super::*;
use crate::entry::Liveness;
use crate::guard;

/// Tidy and the caller's look read every entry and loader.conf; then the entry in question is read again.
fn looked(entries: [&str; 2], subject: &str) -> Vec<String> {
    let mut look: Vec<String> = entries.iter().map(|name| format!("read loader/entries/{name}")).collect();
    look.push("read loader/loader.conf".to_owned());
    [look.clone(), look, vec![format!("read loader/entries/{subject}")]].concat()
}

/// UPD-20: a new name in the place of an old one.
fn renamed(old: &str, new: &str) -> Vec<String> {
    let new = format!("loader/entries/{new}");
    [
        "check clusters".to_owned(),
        format!("write {new}"),
        "flush".to_owned(),
        format!("read {new}"),
        format!("overwrite {new} ' '"),
        "flush".to_owned(),
        format!("read {new}"),
        "check clusters".to_owned(),
        format!("remove loader/entries/{old}"),
        "flush".to_owned(),
    ]
    .to_vec()
}

fn check(
    before: FakeEsp,
    act: &dyn Fn(&mut dyn Esp) -> Result<(), ChangeError>,
    events: &[String],
    may_boot: &[(Slot, u32)],
    after: &[&str],
) {
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    Flow { before, act, events: &events, may_boot, after }.check();
}

fn give_up_b(reason: &'static str) -> impl Fn(&mut dyn Esp) -> Result<(), ChangeError> {
    move |esp| on_slot_b(esp, |lock, esp, entry| mark_bad(lock, esp, entry, Some(reason)).map(drop))
}

#[test]
fn upd23_reject_a_staged_system() {
    let (a, b, bad) = ("ralphos-a-g1.conf", "ralphos-b-g2+3-0.conf", "ralphos-b-g2+0-0.conf");
    let events = [looked([a, b], b), renamed(b, bad)].concat();
    check(machine(&[a, b]), &give_up_b("rejected"), &events, &[(Slot::B, 2), (Slot::A, 1)], &[a, bad]);
}

#[test]
fn upd22_mark_bad_in_the_last_try() {
    let (a, b, bad) = ("ralphos-a-g1.conf", "ralphos-b-g2+0-3.conf", "ralphos-b-g2+0-4.conf");
    let events = [looked([a, b], b), renamed(b, bad)].concat();
    check(machine(&[a, b]), &give_up_b("health-check"), &events, &[(Slot::A, 1)], &[a, bad]);
}

#[test]
fn upd21_commit_in_the_last_try() {
    let (a, b, good) = ("ralphos-a-g1.conf", "ralphos-b-g2+0-3.conf", "ralphos-b-g2.conf");
    let so: Vec<String> = [a, good]
        .map(|name| format!("read loader/entries/{name}"))
        .into_iter()
        .chain(["read loader/loader.conf".into()])
        .collect();
    let events = [looked([a, b], b), renamed(b, good), so].concat();
    let act = |esp: &mut dyn Esp| on_slot_b(esp, |lock, esp, booted| commit(lock, esp, booted).map(drop));
    // Until the new name is live the loader takes the trial for used up.
    check(machine(&[a, b]), &act, &events, &[(Slot::A, 1), (Slot::B, 2)], &[a, good]);
}

#[test]
fn upd2_the_fence_alone() {
    let events = [
        "check clusters",
        "remove loader/entries/ralphos-b-g2.conf",
        "remove loader/entries/ralphos-b-g3+3-0.conf",
        "flush",
        "check clusters",
        "remove ralphos/b/g2-initrd",
        "remove ralphos/b/g2-linux",
        "remove ralphos/b/g3-initrd",
        "remove ralphos/b/g3-linux",
        "flush",
        "make room for 256 in loader/entries",
    ];
    check(
        machine(&["ralphos-a-g1.conf", "ralphos-b-g2.conf", "ralphos-b-g3+3-0.conf"]),
        &|esp| fence(&lock(), esp, Slot::B).map(drop),
        &events.map(str::to_owned),
        &[(Slot::A, 1), (Slot::B, 2), (Slot::B, 3)],
        &["ralphos-a-g1.conf"],
    );
}

/// ENT-28: an error there ends the apply.
#[test]
fn ent28_when_no_room_can_be_made_nothing_is_staged_and_the_next_boot_is_what_it_was() {
    let before = machine(&["ralphos-a-g1.conf", "ralphos-b-g2+0-3.conf"]);
    let mut whole = before.clone();
    apply(&mut whole, 3).unwrap();
    let at = whole.take_events().iter().position(|event| event.starts_with("make room")).unwrap();

    let mut esp = before.clone();
    esp.fail_at(at);
    let error = apply(&mut esp, 3).unwrap_err();
    assert!(error.to_string().contains("make room in"), "{error}");
    for esp in [vec![esp.clone()], esp.after_power_cut()].concat() {
        assert_eq!(boots(&esp), Some((Slot::A, 1)));
        assert!(!esp.files().iter().any(|file| file.contains("-b-") || file.contains("/b/")), "{:?}", esp.files());
    }
    apply(&mut esp, 3).unwrap();
    assert_eq!(boots(&esp), Some((Slot::B, 3)));
}

#[test]
fn ent28_a_volume_that_the_system_has_mounted_is_no_reason_not_to_update_and_is_told() {
    let mut esp = machine(&["ralphos-a-g1.conf"]);
    assert!(fence(&lock(), &mut esp, Slot::B).unwrap().crowded().is_none());
    esp.set_busy(true);
    let fenced = fence(&lock(), &mut esp, Slot::B).unwrap();
    assert!(matches!(fenced.crowded(), Some(EspError::Busy { path, .. }) if path.as_str() == "loader/entries"));
    apply(&mut esp, 2).unwrap();
    assert_eq!(boots(&esp), Some((Slot::B, 2)));
}

/// Tidy, on slot B with these names (the last may be inert), of which the one in the middle goes.
fn tidies(names: [&str; 2], inert: bool, goes: &str, may_boot: &[(Slot, u32)]) {
    let a = "ralphos-a-g1.conf";
    let mut before = machine(&[a, names[0], names[1]]);
    if inert {
        let path = format!("loader/entries/{goes}");
        before.put(&path, &entry(Slot::B, 2).render(Liveness::Inert));
    }
    tidies_from(before, names, goes, may_boot);
}

/// The same, where the first of the names is marked bad.
fn tidies_marked(names: [&str; 2], goes: &str, may_boot: &[(Slot, u32)]) {
    let mut before = machine(&["ralphos-a-g1.conf", names[0], names[1]]);
    let marked = entry(Slot::B, 2).failed(Some("checks")).render(Liveness::Live);
    before.put(&format!("loader/entries/{}", names[0]), &marked);
    tidies_from(before, names, goes, may_boot);
}

fn tidies_from(before: FakeEsp, names: [&str; 2], goes: &str, may_boot: &[(Slot, u32)]) {
    let a = "ralphos-a-g1.conf";
    let mut events: Vec<String> = [a, names[0], names[1]].map(|name| format!("read loader/entries/{name}")).to_vec();
    events.extend(["read loader/loader.conf", "check clusters"].map(str::to_owned));
    events.extend([format!("remove loader/entries/{goes}"), "flush".to_owned()]);
    let stays = if names[0] == goes { names[1] } else { names[0] };
    check(before, &|esp| tidy(&lock(), esp).map(drop), &events, may_boot, &[a, stays]);
}

#[test]
fn upd24_tidy_after_every_cut() {
    let (trial, good, bad) = ("ralphos-b-g2+2-1.conf", "ralphos-b-g2.conf", "ralphos-b-g2+0-1.conf");
    // A commit, before its name was live and after.
    tidies([trial, good], true, good, &[(Slot::B, 2)]);
    tidies([trial, good], false, trial, &[(Slot::B, 2)]);
    // Marking bad, the same.
    tidies([bad, trial], true, bad, &[(Slot::B, 2)]);
    tidies([bad, trial], false, trial, &[(Slot::B, 2), (Slot::A, 1)]);
    // A rollback, the same.
    tidies(["ralphos-b-g2+0-0.conf", good], true, "ralphos-b-g2+0-0.conf", &[(Slot::B, 2)]);
    tidies(["ralphos-b-g2+0-0.conf", good], false, good, &[(Slot::B, 2), (Slot::A, 1)]);
    // Marking bad, and then the loader took the last try: the mark stays, whatever the names say.
    let last = "ralphos-b-g2+0-3.conf";
    tidies_marked(["ralphos-b-g2+0-2.conf", last], last, &[(Slot::A, 1)]);
    tidies_marked([bad, trial], trial, &[(Slot::B, 2), (Slot::A, 1)]);
    // What was committed has answered a mark.
    tidies_marked([bad, good], bad, &[(Slot::B, 2)]);
    // The firmware's counting, where the clusters are not shared any more.
    tidies(["ralphos-b-g2+1-2.conf", trial], false, trial, &[(Slot::B, 2)]);
}

#[test]
fn grd1_the_guards_file_is_made() {
    let events = ["write ralphos/guard", "flush", "read ralphos/guard"].map(str::to_owned);
    let act = |esp: &mut dyn Esp| guard::ensure(&lock(), esp).map(drop);
    check(machine(&["ralphos-a-g1.conf"]), &act, &events, &[(Slot::A, 1)], &["ralphos-a-g1.conf"]);

    let mut cut = machine(&["ralphos-a-g1.conf"]);
    cut.put("ralphos/guard", b"");
    let anew = ["check clusters", "remove ralphos/guard", "flush"].map(str::to_owned);
    check(cut, &act, &[&anew[..], &events].concat(), &[(Slot::A, 1)], &["ralphos-a-g1.conf"]);
}
