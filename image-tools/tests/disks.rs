//! Disks by `ralph-image disk`, judged by the tools that a person would judge them by.

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use boot_entries::state::{EspState, Prediction, Wholeness, is_whole};
use boot_entries::{EntryArchitecture, Esp, ImageEsp, LoaderVars};
use common::{AARCH64, Lab, cut, pe};
use disk_layout::{Architecture, DiskLayout, FileWindow, LABEL_VAR, Slot, SlotFile, SlotIo};
use image_format::{Digest, SlotMap, UnverifiedImage};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const SMALL: [&str; 6] = ["--esp-size", "34M", "--slot-size", "16M", "--var-size", "16M"];

/// `more` may give one of the sizes of [`SMALL`] another value.
fn disk<'a>(output: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let fixed = ["disk", "--image", "v1.zst", "--trust", "k.pub.pem", "--loader", "loader.efi", "-o", output];
    let small = SMALL.chunks(2).filter(|pair| !more.contains(&pair[0]));
    fixed.into_iter().chain(small.flatten().copied()).chain(more.iter().copied()).collect()
}

fn layout(lab: &Lab, name: &str) -> DiskLayout {
    DiskLayout::open(lab.path(name)).unwrap()
}

fn esp(lab: &Lab, name: &str) -> ImageEsp<FileWindow> {
    let layout = layout(lab, name);
    let file = fs::File::options().read(true).write(true).open(lab.path(name)).unwrap();
    ImageEsp::new(FileWindow::new(file, layout.esp.start, layout.esp.len).unwrap())
}

/// Judges a disk by stock tools, and its slot A by the root hash in its entry.
fn check_with_tools(lab: &Lab, name: &str) {
    let layout = layout(lab, name);
    if layout.sector_size == 512 {
        // sgdisk believes in 512-byte sectors in files.
        let text = lab.tool("sgdisk", &["-v", name]);
        assert!(String::from_utf8_lossy(&text).contains("No problems found"));
    }
    cut(&lab.path(name), layout.esp.start, layout.esp.len, &lab.path("esp"));
    lab.tool("fsck.vfat", &["-n", "esp"]);
    let var = layout.var.clone().unwrap();
    cut(&lab.path(name), var.start, var.len, &lab.path("var"));
    lab.tool("e2fsck", &["-fn", "var"]);

    let mut esp = esp(lab, name);
    let state = EspState::read(&mut esp).unwrap();
    let entry = state.live(Slot::A).unwrap().clone();
    assert_eq!(entry.name.to_string(), "ralphos-a-g1.conf");
    assert_eq!(is_whole(&mut esp, &entry).unwrap(), Wholeness::Whole);
    let architecture = match layout.architecture {
        Architecture::X86_64 => EntryArchitecture::X64,
        Architecture::Aarch64 => EntryArchitecture::Aa64,
    };
    let prediction: Prediction = state.predict(&LoaderVars::default(), architecture);
    assert!(prediction.boots(entry.name), "{prediction:?}");

    let options = &entry.entry.as_ref().unwrap().options;
    let slot = layout.slot(Slot::A);
    assert_eq!(options.partuuid, slot.unique_guid);
    cut(&lab.path(name), slot.start, slot.len, &lab.path("slot"));
    let hash: String = options.root_hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let offset = format!("--hash-offset={}", options.hash_offset);
    lab.tool("veritysetup", &["verify", "slot", "slot", &hash, &offset]);
    let root = lab.read("root.erofs");
    assert!(lab.read("slot")[..root.len()] == root);
    for file in ["esp", "var", "slot"] {
        fs::remove_file(lab.path(file)).unwrap();
    }
}

#[test]
fn a_disk_passes_every_tool() {
    let lab = Lab::with_image();
    let text = String::from_utf8(lab.ok(&disk("disk.raw", &[]))).unwrap();
    assert!(text.contains("SYSTEM_A") && text.contains("ralphos 1.0.0, committed"), "{text}");
    check_with_tools(&lab, "disk.raw");
    assert_eq!(lab.names().iter().filter(|n| n.contains("disk.raw")).count(), 1, "no temporary file is left");
}

#[test]
fn dsk1_a_disk_with_sectors_of_4096_bytes() {
    let lab = Lab::with_image();
    // FAT32 needs 65525 clusters, and none is smaller than a sector.
    lab.ok(&disk("disk.raw", &["--sector-size", "4096", "--esp-size", "280M"]));
    assert_eq!(layout(&lab, "disk.raw").sector_size, 4096);
    check_with_tools(&lab, "disk.raw");
}

#[test]
fn a_disk_for_the_other_architecture() {
    let lab = Lab::new();
    lab.write("linux", &pe(AARCH64, 300_000));
    lab.write("loader.efi", &pe(AARCH64, 100_000));
    let mut build = Lab::BUILD.to_vec();
    let at = build.iter().position(|a| *a == "x86_64").unwrap();
    build[at] = "aarch64";
    lab.ok(&[&build[..], &["--key", "k.pem", "-o", "v1.zst"]].concat());
    lab.ok(&disk("disk.raw", &[]));
    assert_eq!(layout(&lab, "disk.raw").architecture, Architecture::Aarch64);
    check_with_tools(&lab, "disk.raw");
    let mut esp = esp(&lab, "disk.raw");
    let loader = esp.read(&"EFI/BOOT/BOOTAA64.EFI".parse().unwrap(), 1 << 20).unwrap();
    assert!(loader == lab.read("loader.efi"));
}

#[test]
fn dsk10_the_esp_holds_what_it_must() {
    let lab = Lab::with_image();
    lab.ok(&disk("disk.raw", &[]));
    let mut esp = esp(&lab, "disk.raw");
    let read = |esp: &mut ImageEsp<FileWindow>, path: &str| esp.read(&path.parse().unwrap(), 4 << 20).unwrap();
    assert!(read(&mut esp, "EFI/BOOT/BOOTX64.EFI") == lab.read("loader.efi"));
    assert!(read(&mut esp, "ralphos/a/g1-linux") == lab.read("linux"));
    assert!(read(&mut esp, "ralphos/a/g1-initrd") == lab.read("initrd"));
    // ENT-60, to the letter.
    let conf = "timeout 0\neditor no\nauto-entries no\nauto-firmware no\nsecure-boot-enroll off\nreboot-on-error yes\n";
    assert_eq!(String::from_utf8(read(&mut esp, "loader/loader.conf")).unwrap(), conf);
    assert_eq!(esp.list(&"loader/entries".parse().unwrap()).unwrap().len(), 1);
    assert_eq!(esp.list(&"ralphos/b".parse().unwrap()).unwrap().len(), 0);
    let mut slot = SlotFile::open_image(lab.path("disk.raw"), &layout(&lab, "disk.raw"), Slot::B).unwrap();
    assert!(slot.is_blank().unwrap());
}

#[test]
fn var_belongs_to_root_and_has_its_directories() {
    let lab = Lab::with_image();
    lab.ok(&disk("disk.raw", &[]));
    let var = layout(&lab, "disk.raw").var.unwrap();
    assert_eq!(var.label, LABEL_VAR);
    let within = format!("disk.raw?offset={}", var.start);
    let list = |dir: &str| {
        let text = lab.tool("debugfs", &["-R", &format!("ls -p {dir}"), &within]);
        let mut names = Vec::new();
        for line in String::from_utf8(text).unwrap().lines().filter(|line| line.starts_with('/')) {
            // /inode/mode/uid/gid/name/size/
            let fields: Vec<&str> = line.split('/').collect();
            assert_eq!((fields[3], fields[4]), ("0", "0"), "{line}");
            names.push(fields[5].to_owned());
        }
        names.sort();
        names
    };
    assert_eq!(list("/"), [".", "..", "lib", "log", "lost+found"]);
    assert_eq!(list("/lib"), [".", "..", "ralph-update", "ralphd"]);
}

#[test]
fn slm_1_a_new_disk_remembers_what_is_in_slot_a() {
    let lab = Lab::with_image();
    lab.ok(&disk("disk.raw", &[]));
    let within = format!("disk.raw?offset={}", layout(&lab, "disk.raw").var.unwrap().start);
    let map = lab.tool("debugfs", &["-R", "cat /lib/ralph-update/slots/a.map", &within]);
    let map = SlotMap::parse(&map).expect("a map");
    let image = UnverifiedImage::read_head(fs::File::open(lab.path("v1.zst")).unwrap()).unwrap();
    assert_eq!(map, SlotMap::whole(image.claimed_system_id(), &image.claims().unwrap().chunks));
    assert!(!map.pieces.is_empty());
    let mut slot = SlotFile::open_image(lab.path("disk.raw"), &layout(&lab, "disk.raw"), Slot::A).unwrap();
    for piece in map.pieces {
        let mut bytes = vec![0; piece.len as usize];
        slot.read_at_uncached(piece.offset, &mut bytes).unwrap();
        assert_eq!(Digest::of(&bytes), piece.sha256);
    }
}

#[test]
fn dsk5_a_seed_gives_the_same_disk_and_none_gives_others() {
    let lab = Lab::with_image();
    for (name, seed) in [("1", "1"), ("again", "1"), ("2", "2")] {
        lab.ok(&disk(name, &["--seed", seed]));
    }
    assert!(lab.read("1") == lab.read("again"));
    assert!(lab.read("1") != lab.read("2"));
    for name in ["x", "y"] {
        lab.ok(&disk(name, &[]));
    }
    let [x, y] = ["x", "y"].map(|name| layout(&lab, name));
    assert_ne!(x.disk_guid, y.disk_guid);
    assert_ne!(x.slot(Slot::A).unique_guid, y.slot(Slot::A).unique_guid);
}

#[test]
fn dsk11_dsk22_default_sizes_and_holes() {
    let lab = Lab::with_image();
    lab.ok(&["disk", "--image", "v1.zst", "--trust", "k.pub.pem", "--loader", "loader.efi", "-o", "disk.raw"]);
    let layout = layout(&lab, "disk.raw");
    let gib = 1 << 30;
    assert_eq!(layout.esp.len, gib / 2);
    assert_eq!((layout.slot(Slot::A).len, layout.slot(Slot::B).len), (gib, gib));
    assert_eq!(layout.var.unwrap().len, gib);
    let meta = fs::metadata(lab.path("disk.raw")).unwrap();
    assert!(meta.blocks() * 512 < 32 << 20, "a disk of {} takes {} bytes", meta.len(), meta.blocks() * 512);
}

#[test]
fn names_that_tools_take_for_options_are_only_names() {
    let lab = Lab::with_image();
    lab.ok(&disk("./-disk?offset=7.raw", &[]));
    fs::rename(lab.path("-disk?offset=7.raw"), lab.path("disk.raw")).unwrap();
    check_with_tools(&lab, "disk.raw");
}

#[test]
fn disks_that_cannot_be_made_leave_nothing() {
    let lab = Lab::with_image();
    lab.write("arm.efi", &pe(AARCH64, 9000));
    let with = |image: &str, trust: &str, loader: &str, [esp, slot, var]: [&str; 3], code| {
        let sizes = ["--esp-size", esp, "--slot-size", slot, "--var-size", var];
        let fixed = ["disk", "--image", image, "--trust", trust, "--loader", loader, "-o", "disk.raw"];
        lab.fails(&[&fixed[..], &sizes].concat(), code)
    };
    let fit = ["34M", "16M", "16M"];
    let text = with("v1.zst", "k.pub.pem", "arm.efi", fit, 1);
    assert!(text.contains("arm.efi is for aarch64, but the image is for x86_64"), "{text}");
    assert!(with("v1.zst", "k.pub.pem", "initrd", fit, 1).contains("initrd is not an EFI boot loader"));
    assert!(with("v1.zst", "k.pub.pem", "missing", fit, 1).contains("missing"));
    assert!(with("v1.zst", "other.pub.pem", "loader.efi", fit, 3).contains("signed by 0"));
    assert!(with("root.erofs", "k.pub.pem", "loader.efi", fit, 3).contains("not a RalphOS image"));
    assert!(with("v1.zst", "k.pub.pem", "loader.efi", ["34M", "2M", "16M"], 1).contains("--slot-size 4M"));
    assert!(with("v1.zst", "k.pub.pem", "loader.efi", ["8M", "16M", "16M"], 1).contains("--esp-size 512M"));
    with("v1.zst", "k.pub.pem", "loader.efi", ["34M", "16M", "0"], 1);
    with("v1.zst", "k.pub.pem", "loader.efi", ["34M", "16M", "x"], 2);
    with("v1.zst", "k.pub.pem", "loader.efi", ["34M", "16383P", "16M"], 2);
    with("v1.zst", "k.pub.pem", "loader.efi", ["34M", "9000000T", "16M"], 1);
    lab.fails(&disk("disk.raw", &["--sector-size", "1024"]), 1);

    // Damage is found where it lies: in the last chunk, after the root was written.
    let mut bad = lab.read("v1.zst");
    *bad.last_mut().unwrap() ^= 1;
    lab.write("bad.zst", &bad);
    assert!(with("bad.zst", "k.pub.pem", "loader.efi", fit, 3).contains("damaged"));
    bad.truncate(bad.len() - 1);
    lab.write("bad.zst", &bad);
    assert!(with("bad.zst", "k.pub.pem", "loader.efi", fit, 3).contains("truncated"));
}

#[test]
fn dsk11_a_disk_that_could_never_be_updated_is_not_made() {
    let lab = Lab::new();
    // One such system fits by far, two do not.
    lab.write("linux", &pe(common::X86_64, 18 << 20));
    lab.build("v1.zst", &["--key", "k.pem"]);
    let text = lab.fails(&disk("disk.raw", &[]), 1);
    assert!(text.contains("too small to be updated"), "{text}");
    let wanted = text.split("(--esp-size ").nth(1).and_then(|rest| rest.split(')').next()).expect(&text);
    assert_eq!(wanted, "39M", "{text}");
    lab.ok(&disk("disk.raw", &["--esp-size", wanted]));
    check_with_tools(&lab, "disk.raw");
}

#[test]
fn a_disk_that_is_there_is_replaced_only_by_force() {
    let lab = Lab::with_image();
    lab.write("disk.raw", b"precious");
    assert!(lab.fails(&disk("disk.raw", &[]), 1).contains("disk.raw exists already"));
    assert_eq!(lab.read("disk.raw"), b"precious");
    lab.ok(&disk("disk.raw", &["--force"]));
    check_with_tools(&lab, "disk.raw");
}

#[test]
fn an_interrupted_run_removes_its_unfinished_disk() {
    let lab = Lab::with_image();
    let before = lab.names();
    let mut arguments = disk("disk.raw", &[]);
    arguments[2] = "-";
    let mut child = lab.command(&arguments).stdin(Stdio::piped()).spawn().unwrap();
    // The head and some chunks; the rest never comes.
    let image = lab.read("v1.zst");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&image[..image.len() / 2]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while lab.names() == before {
        assert!(Instant::now() < deadline, "no temporary file appears");
        std::thread::sleep(Duration::from_millis(10));
    }
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
    assert_eq!(lab.names(), before);
    drop(stdin);
}
