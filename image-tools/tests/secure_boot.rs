//! Disks that firmware with Secure Boot starts, and the refusal to make others.

mod common;

use std::fs::{self, File};

use boot_entries::state::{EspState, Wholeness, is_whole};
use boot_entries::{Esp, ImageEsp};
use common::Lab;
use common::uki::{SIGN, STUB, built, extract, lab};
use disk_layout::{DiskLayout, FileWindow, Slot};

fn disk<'a>(image: &'a str, loader: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let fixed = ["disk", "--image", image, "--trust", "k.pub.pem", "--loader", loader, "-o", "disk.raw", "--force"];
    let small = ["--esp-size", "34M", "--slot-size", "16M", "--var-size", "16M"];
    [&fixed[..], &small, more].concat()
}

/// With `signed.zst`, `unsigned.zst` and `apart.zst`, and the loader with a signature as `signed.efi`.
fn whole_lab() -> Lab {
    let lab = lab();
    built(&lab, "signed.zst", &[&STUB[..], &SIGN].concat());
    built(&lab, "unsigned.zst", &STUB);
    built(&lab, "apart.zst", &STUB[..4]);
    lab.tool("sbsign", &["--key", "sb.key", "--cert", "sb.crt", "--output", "signed.efi", "loader.efi"]);
    lab
}

#[test]
fn a_disk_with_a_unified_kernel_image() {
    let lab = whole_lab();
    let text = String::from_utf8(lab.ok(&disk("unsigned.zst", "loader.efi", &[]))).unwrap();
    assert!(!text.contains("signed"), "nothing was asked: {text}");
    extract(&lab, "unsigned.zst", "uki.efi");
    let layout = DiskLayout::open(lab.path("disk.raw")).unwrap();
    let file = File::options().read(true).write(true).open(lab.path("disk.raw")).unwrap();
    let mut esp = ImageEsp::new(FileWindow::new(file, layout.esp.start, layout.esp.len).unwrap());
    assert!(esp.read(&"ralphos/a/g1-uki".parse().unwrap(), 4 << 20).unwrap() == lab.read("uki.efi"));
    let state = EspState::read(&mut esp).unwrap();
    let entry = state.live(Slot::A).unwrap().clone();
    assert_eq!(is_whole(&mut esp, &entry).unwrap(), Wholeness::Whole);
}

#[test]
fn what_firmware_would_refuse_is_not_put_on_a_disk() {
    let lab = whole_lab();
    let refused = |image, loader, more: &[&str], code| {
        lab.fails(&disk(image, loader, &[&["--secure-boot"][..], more].concat()), code)
    };
    let text = refused("signed.zst", "loader.efi", &[], 1);
    assert!(text.contains("the boot loader loader.efi is not signed") && text.contains("sbsign --key"), "{text}");
    let text = refused("unsigned.zst", "signed.efi", &[], 1);
    assert!(text.contains("its unified kernel image is not signed") && text.contains("--sign-key"), "{text}");
    let text = refused("apart.zst", "signed.efi", &[], 1);
    assert!(text.contains("kernel and initrd apart") && text.contains("--stub"), "{text}");
    // By somebody else's key, each of the two.
    let text = refused("signed.zst", "signed.efi", &["--secure-boot-cert", "else.crt"], 1);
    assert!(text.contains("the boot loader signed.efi is refused: it is not signed by else.crt"), "{text}");
    lab.tool("sbsign", &["--key", "else.key", "--cert", "else.crt", "--output", "else.efi", "loader.efi"]);
    let text = refused("signed.zst", "else.efi", &["--secure-boot-cert", "else.crt"], 1);
    assert!(text.contains("its unified kernel image is refused: it is not signed by else.crt"), "{text}");
    assert!(refused("signed.zst", "signed.efi", &["--secure-boot-cert", "missing"], 1).contains("missing"));
    let text = lab.fails(&disk("signed.zst", "signed.efi", &["--secure-boot-cert", "sb.crt"]), 2);
    assert!(text.contains("--secure-boot"), "{text}");
}

#[test]
fn what_firmware_would_start_is() {
    let lab = whole_lab();
    lab.tool("sbsign", &["--key", "else.key", "--cert", "else.crt", "--output", "else.efi", "loader.efi"]);
    let made = |loader, more: &[&str]| {
        let text = lab.ok(&disk("signed.zst", loader, &[&["--secure-boot"][..], more].concat()));
        String::from_utf8(text).unwrap()
    };
    assert!(made("else.efi", &[]).contains("whose signatures they are was not asked"));
    assert!(made("signed.efi", &["--secure-boot-cert", "sb.crt"]).contains("signed as demanded"));
    // Loader and image by two keys.
    made("else.efi", &["--secure-boot-cert", "else.crt", "--secure-boot-cert", "sb.crt"]);
    // No key goes anywhere.
    let key = lab.read("sb.key");
    let secret = &key[100..164];
    for name in ["disk.raw", "signed.zst"] {
        assert!(!fs::read(lab.path(name)).unwrap().windows(secret.len()).any(|bytes| bytes == secret), "{name}");
    }
}
