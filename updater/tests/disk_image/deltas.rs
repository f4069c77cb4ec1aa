//! Deltas: named, and chosen from a list beside an image (IMG-70 to IMG-74, UPD-10, FET-60 to FET-62, IFC-8).

use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::lab::Lab;
use crate::server::{Server, answer, serve};

const SLOT_A: usize = 65 << 20;
const SLOT_B: usize = 81 << 20;
const SLOT: usize = 16 << 20;

/// Versions 1.0.0 (in slot A), 2.0.0 and a delta from the one to the other, `d.zst`.
fn lab() -> Lab {
    let lab = Lab::new();
    let mut root = fs::read(lab.path("root")).unwrap();
    // Something changes, and everything behind it moves.
    root.splice(300_000..300_000, b"what is new".repeat(1000));
    lab.write("root", &root);
    lab.image("v2.zst", &["--version", "2.0.0"]);
    delta(&lab, "v1.zst", "v2.zst", "d.zst");
    lab
}

fn delta(lab: &Lab, old: &str, new: &str, output: &str) {
    lab.tool(&["delta", old, new, "--trust", "key.pub.pem", "--sign-key", "key.pem", "--force", "-o", output]);
}

fn disk(lab: &Lab) -> Vec<u8> {
    fs::read(lab.path("disk.raw")).unwrap()
}

fn slot_b(lab: &Lab) -> Vec<u8> {
    disk(lab)[SLOT_B..SLOT_B + SLOT].to_vec()
}

/// What slot B holds when the full image of 2.0.0 was applied.
fn by_the_full_image(lab: &Lab) -> Vec<u8> {
    lab.disk("16M");
    assert_eq!(lab.apply("v2.zst", &[]).0, 0);
    let slot = slot_b(lab);
    lab.disk("16M");
    slot
}

fn len(lab: &Lab, name: &str) -> u64 {
    fs::metadata(lab.path(name)).unwrap().len()
}

fn system_id(lab: &Lab, image: &str) -> String {
    let (code, told) = lab.json(&["verify", image, "--trust", "key.pub.pem"]);
    assert_eq!(code, 0, "{told}");
    told["system_id"].as_str().unwrap().to_owned()
}

/// Flips a bit of the running slot where the delta copies from it; what is there counts for nothing else here.
fn flip_in_base(lab: &Lab) {
    let mut disk = disk(lab);
    disk[SLOT_A + 1_000_000] ^= 4;
    lab.write("disk.raw", &disk);
}

#[test]
fn img_74_a_delta_makes_the_very_slot_that_the_full_image_makes() {
    let lab = lab();
    let full = by_the_full_image(&lab);
    assert!(len(&lab, "d.zst") < len(&lab, "v2.zst") / 3, "{} {}", len(&lab, "d.zst"), len(&lab, "v2.zst"));
    let (code, told) = lab.apply("d.zst", &["--workers", "3"]);
    assert_eq!((code, told["version"].as_str()), (0, Some("2.0.0")), "{told}");
    assert_eq!(told["way"]["by"], "delta");
    assert!(slot_b(&lab) == full);
    lab.verity_holds("b");
    lab.check_disk();
    assert_eq!(lab.apply("d.zst", &[]).1["reason"], "already-staged");
    assert_eq!(lab.json(&["commit"]).0, 0);
    // What runs now is not its base any more, but what it would make.
    assert_eq!(lab.apply("d.zst", &[]).1["reason"], "already-running");
    assert_eq!(lab.apply("v2.zst", &[]).1["reason"], "already-running");

    // The same through a pipe, by one worker.
    lab.disk("16M");
    let mut command = lab.command(&["apply", "-", "--trust", "key.pub.pem", "--workers", "1"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&fs::read(lab.path("d.zst")).unwrap()).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(slot_b(&lab) == full);
}

#[test]
fn upd_10_a_delta_of_another_base_is_refused_and_changes_nothing() {
    let lab = lab();
    lab.image("v3.zst", &["--version", "3.0.0"]);
    delta(&lab, "v2.zst", "v3.zst", "later.zst");
    lab.image("old.zst", &["--version", "0.5.0"]);
    delta(&lab, "v2.zst", "old.zst", "back.zst");
    lab.disk("16M");
    let before = disk(&lab);
    let (code, told) = lab.apply("later.zst", &[]);
    assert_eq!((code, told["reason"].as_str(), told["result"].as_str()), (3, Some("delta-base"), Some("refused")));
    let message = told["message"].as_str().unwrap();
    for part in [system_id(&lab, "v1.zst"), system_id(&lab, "v2.zst"), "apply the full image".to_owned()] {
        assert!(message.contains(&part), "{part}: {message}");
    }
    // What would be refused as a full image is refused for that.
    assert_eq!(lab.apply("back.zst", &[]).1["reason"], "downgrade");
    let foreign = lab.json(&["apply", "d.zst", "--trust", "other.pub.pem"]);
    assert_eq!((foreign.0, foreign.1["reason"].as_str()), (3, Some("untrusted")));
    assert!(disk(&lab) == before);
}

#[test]
fn img_73_a_base_that_differs_and_a_delta_cut_short_leave_a_fenced_slot() {
    let lab = lab();
    let full = by_the_full_image(&lab);
    flip_in_base(&lab);
    let (code, told) = lab.apply("d.zst", &[]);
    assert_eq!(
        (code, told["reason"].as_str(), told["cause"].as_str()),
        (1, Some("fenced"), Some("delta-base-differs"))
    );
    let message = told["message"].as_str().unwrap();
    assert!(message.contains("chunk ") && message.contains("take the full image instead"), "{message}");
    let status = lab.status();
    assert_eq!((&status["slots"]["b"]["state"], &status["next_boot"]["slot"]), (&"fenced".into(), &"a".into()));
    lab.check_disk();
    assert_eq!(lab.apply("v2.zst", &[]).0, 0);
    assert!(slot_b(&lab) == full);

    lab.disk("16M");
    let whole = fs::read(lab.path("d.zst")).unwrap();
    lab.write("cut.zst", &whole[..whole.len() - 20]);
    let (code, told) = lab.apply("cut.zst", &[]);
    assert_eq!(
        (code, told["reason"].as_str(), told["cause"].as_str()),
        (1, Some("fenced"), Some("truncated")),
        "{told}"
    );
    assert_eq!(lab.status()["slots"]["b"]["state"], "fenced");
    // The second time everything is there already.
    let (code, told) = lab.apply("d.zst", &[]);
    assert_eq!((code, &told["bytes"]["written"]), (0, &0.into()), "{told}");
    assert!(told["bytes"]["equal"].as_u64().unwrap() > 1_400_000, "{told}");
    assert!(slot_b(&lab) == full);
    lab.verity_holds("b");
}

#[test]
fn verify_reads_a_delta_to_its_end() {
    let lab = lab();
    let (code, told) = lab.json(&["verify", "d.zst", "--trust", "key.pub.pem"]);
    assert_eq!((code, told["delta_from"].as_str()), (0, Some(&*system_id(&lab, "v1.zst"))));
    assert_eq!(told["system_id"], system_id(&lab, "v2.zst"));
    let mut damaged = fs::read(lab.path("d.zst")).unwrap();
    let at = damaged.len() - 40;
    damaged[at] ^= 1;
    lab.write("damaged.zst", &damaged);
    let (code, told) = lab.json(&["verify", "damaged.zst", "--trust", "key.pub.pem"]);
    assert_eq!((code, told["cause"].as_str()), (1, Some("chunk-damaged")), "{told}");
}

/// A server of the lab's folder, where the list beside `v2.zst` can be exchanged.
fn server(lab: &Lab, list: &str) -> (Server, Arc<Mutex<String>>) {
    let (folder, list) = (lab.path(""), Arc::new(Mutex::new(list.to_owned())));
    let shown = Arc::clone(&list);
    let server = serve(move |request, stream| {
        let name = request.path.trim_start_matches('/');
        let file = match name {
            "v2.zst.deltas" => shown.lock().unwrap().clone().into_bytes(),
            _ => fs::read(folder.join(name)).unwrap_or_default(),
        };
        if file.is_empty() {
            crate::server::send(stream, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
            return crate::server::After::Keep;
        }
        answer(request, stream, &file, None)
    });
    (server, list)
}

fn apply_from(lab: &Lab, server: &Server) -> Value {
    let (code, told) = lab.apply(&server.url.replace("image.zst", "v2.zst"), &[]);
    assert_eq!(code, 0, "{told}");
    told
}

#[test]
fn fet_61_the_cheapest_way_is_taken_and_told() {
    let lab = lab();
    let full = by_the_full_image(&lab);
    let (v1, bytes) = (system_id(&lab, "v1.zst"), len(&lab, "d.zst"));
    let other = "0".repeat(64);
    let list = format!("ralph-deltas 1\n{other} 10 other.zst\n{v1} {bytes} d.zst\n{v1} {} longer.zst\n", bytes + 1);
    let (server, list) = server(&lab, &list);
    let told = apply_from(&lab, &server);
    assert_eq!(told["way"]["by"], "delta");
    assert_eq!(told["way"]["delta"], server.url.replace("image.zst", "d.zst"));
    assert_eq!(told["way"]["delta_bytes"], bytes);
    let image_bytes = told["way"]["image_bytes"].as_u64().unwrap();
    assert!((bytes..len(&lab, "v2.zst")).contains(&image_bytes), "{told}");
    assert!(told["bytes"]["received"].as_u64().unwrap() >= bytes);
    assert!(!told["notes"].to_string().contains("delta"), "{told}");
    assert!(slot_b(&lab) == full);
    lab.disk("16M");
    let out = lab.run(&["apply", &server.url.replace("image.zst", "v2.zst"), "--trust", "key.pub.pem"]);
    assert!(String::from_utf8_lossy(&out.stdout).contains("\nby the delta http://"), "{out:?}");

    // Longer than the image: named, and not taken. No list, or none of the form: the image.
    for (text, way, note) in [
        (format!("ralph-deltas 1\n{v1} 99999999 d.zst\n"), Some(99_999_999), ""),
        (String::new(), None, ""),
        (format!("ralph-deltas 1\n{other} 10 d.zst\n"), None, ""),
        ("<html>".to_owned(), None, "the list of deltas beside the image is of no use: it does not begin with"),
    ] {
        *list.lock().unwrap() = text.clone();
        lab.disk("16M");
        let told = apply_from(&lab, &server);
        assert_eq!((&told["way"]["by"], told["way"]["delta_bytes"].as_u64()), (&"image".into(), way), "{text}");
        assert!(told["notes"].to_string().contains(note), "{told}");
        assert!(slot_b(&lab) == full);
    }
}

#[test]
fn fet_62_a_list_that_lies_costs_a_detour_and_nothing_else() {
    let lab = lab();
    let full = by_the_full_image(&lab);
    lab.image("v3.zst", &["--version", "3.0.0"]);
    delta(&lab, "v1.zst", "v3.zst", "to-v3.zst");
    delta(&lab, "v3.zst", "v2.zst", "from-v3.zst");
    let whole = fs::read(lab.path("d.zst")).unwrap();
    lab.write("cut.zst", &whole[..whole.len() - 20]);
    lab.write("text.zst", b"no image");
    let v1 = system_id(&lab, "v1.zst");
    let (server, list) = server(&lab, "");
    for (file, why) in [
        ("to-v3.zst", "it carries system"),
        ("from-v3.zst", "is made for a machine that runs system"),
        ("v2.zst", "it is no delta"),
        ("text.zst", "not a usable image"),
        ("nowhere.zst", "404"),
        ("cut.zst", ""),
        ("d.zst", "does not fit the base root"),
    ] {
        lab.disk("16M");
        if file == "d.zst" {
            flip_in_base(&lab);
        }
        *list.lock().unwrap() = format!("ralph-deltas 1\n{v1} 100 {file}\n");
        let told = apply_from(&lab, &server);
        assert_eq!((&told["way"]["by"], &told["version"]), (&"image".into(), &"2.0.0".into()), "{file}");
        let notes = told["notes"].to_string();
        assert!(notes.contains("the full image was taken") && notes.contains(why), "{file}: {notes}");
        assert!(slot_b(&lab) == full, "{file}");
        lab.verity_holds("b");
    }
    // What speaks against the system speaks against it whichever way it comes, and nothing is tried twice.
    lab.disk("16M");
    *list.lock().unwrap() = format!("ralph-deltas 1\n{v1} 100 d.zst\n");
    let url = server.url.replace("image.zst", "v2.zst");
    assert_eq!(lab.apply(&url, &[]).0, 0);
    assert_eq!(lab.json(&["reject", "b"]).0, 0);
    assert_eq!(lab.apply(&url, &[]).1["reason"], "known-bad");
}

/// The disk is what a delta has left it, whatever the image says then (IFC-2).
#[test]
fn fet_62_a_slot_that_a_delta_fenced_is_told_when_the_image_is_gone() {
    let lab = lab();
    lab.disk("16M");
    let v1 = system_id(&lab, "v1.zst");
    let (folder, list) = (lab.path(""), format!("ralph-deltas 1\n{v1} 100 d.zst\n"));
    let server = serve(move |request, stream| {
        let name = request.path.trim_start_matches('/');
        if name == "d.zst" {
            let _ = fs::remove_file(folder.join("v2.zst"));
        }
        let file = match name {
            "v2.zst.deltas" => list.clone().into_bytes(),
            _ => fs::read(folder.join(name)).unwrap_or_default(),
        };
        if file.is_empty() {
            crate::server::send(stream, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
            return crate::server::After::Keep;
        }
        answer(request, stream, &file, None)
    });
    let url = server.url.replace("image.zst", "v2.zst");
    flip_in_base(&lab);
    let (code, told) = lab.apply(&url, &[]);
    assert_eq!(
        (code, told["reason"].as_str(), told["cause"].as_str()),
        (1, Some("fenced"), Some("http-status")),
        "{told}"
    );
    let message = told["message"].to_string();
    assert!(message.contains("does not fit the base root") && message.contains("404"), "{message}");
    assert_eq!(lab.status()["slots"]["b"]["state"], "fenced");
}
