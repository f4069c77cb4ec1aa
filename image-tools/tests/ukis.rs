//! Unified kernel images by the real program, of a real systemd-stub, judged by binutils and sbsigntool (`specs/uki.md`).

mod common;

use std::fs::{self, File};
use std::io::Cursor;
use std::num::NonZeroUsize;

use common::uki::{ARCH, LINUX_LEN, MACHINE, SIGN, STUB, build, built, extract, lab};
use common::{AARCH64, Lab, X86_64, kernel, kernel_memory};
use image_format::{BootSource, ImageSpec, PrivateKey, Sources};
use qemu_tests::setup;
use secure_boot::Pe;
use serde_json::Value;

/// An image `v1.zst` with an unsigned unified kernel image, and that as `uki.efi`.
fn unsigned(lab: &Lab) {
    built(lab, "v1.zst", &STUB);
    extract(lab, "v1.zst", "uki.efi");
}

/// A section by objcopy, as it stands in the file.
fn section(lab: &Lab, name: &str) -> Vec<u8> {
    let to = format!("{name}=section");
    lab.tool("objcopy", &["-O", "binary", "--dump-section", &to, "uki.efi", "/dev/null"]);
    let bytes = lab.read("section");
    fs::remove_file(lab.path("section")).unwrap();
    bytes
}

/// Names and addresses by objdump.
fn sections(lab: &Lab, name: &str) -> Vec<(String, String)> {
    let text = String::from_utf8(lab.tool("objdump", &["-h", name])).unwrap();
    let rows = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.first().is_some_and(|index| index.parse::<u32>().is_ok()))
        .map(|row| (row[1].to_owned(), row[3].to_owned()))
        .collect()
}

/// The command line that is demanded, from the error of a build that lacks it.
fn demanded(lab: &Lab) -> String {
    let text = lab.fails(&build("v.zst", &["--uki", "stub"]), 1);
    assert!(text.contains("no section .linux"), "{text}");
    // The whole program's own words are the interface here.
    unsigned(lab);
    String::from_utf8(section(lab, ".cmdline")).unwrap()
}

#[test]
fn uki10_what_is_made_of_a_stub() {
    let lab = lab();
    let note = built(&lab, "v1.zst", &STUB);
    assert!(note.contains("not signed: firmware with Secure Boot refuses it"), "{note}");
    extract(&lab, "v1.zst", "uki.efi");
    // The stub as it was, and ours behind it.
    let (stub, made) = (sections(&lab, "stub"), sections(&lab, "uki.efi"));
    assert_eq!(made[..stub.len()], stub);
    let added: Vec<&str> = made[stub.len()..].iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(added, [".osrel", ".cmdline", ".initrd", ".linux"]);
    assert!(made[stub.len()..].iter().all(|(_, address)| address.ends_with("000")), "{made:?}");

    let padded = |name: &str, content: &[u8]| {
        let found = section(&lab, name);
        assert!(found[..content.len()] == *content && found[content.len()..].iter().all(|byte| *byte == 0), "{name}");
    };
    padded(".linux", &lab.read("linux"));
    padded(".initrd", &lab.read("initrd"));
    padded(".osrel", b"ID=\"ralphos\"\nVERSION_ID=\"1.0.0\"\nNAME=\"RalphOS\"\nPRETTY_NAME=\"RalphOS 1.0.0\"\n");
    let manifest: Value = serde_json::from_slice(&lab.ok(&["inspect", "v1.zst", "--json"])).unwrap();
    let payloads = &manifest["manifest"]["payloads"];
    assert_eq!(
        (&payloads[1]["kind"], &payloads[1]["machine"], &payloads[2]),
        (&"uki".into(), &ARCH.into(), &Value::Null)
    );
    let hash = payloads[0]["verity"]["root-hash"].as_str().unwrap();
    let line = String::from_utf8(section(&lab, ".cmdline")).unwrap();
    let line = line.trim_end_matches('\0');
    assert!(line.starts_with(&format!("root=/dev/mapper/root ro roothash={hash} ")), "{line}");
    assert!(
        line.ends_with(" ralph.epoch=1 ralph.version=1.0.0 systemd.import_credentials=no panic=10 oops=panic quiet"),
        "{line}"
    );

    // UKI-11, and what no firmware may stumble over (SEC-20 to SEC-24).
    let program = Pe::open(File::open(lab.path("uki.efi")).unwrap()).unwrap();
    let linux = program.sections().last().unwrap();
    assert_eq!((linux.name(), linux.virtual_size), (&b".linux"[..], kernel_memory(LINUX_LEN)));
    lab.tool("sbverify", &["--list", "uki.efi"]);
    lab.ok(&["verify", "v1.zst", "--trust", "k.pub.pem"]);
    let text = String::from_utf8(lab.ok(&["inspect", "v1.zst"])).unwrap();
    assert!(text.contains("kind uki, required"), "{text}");
}

#[test]
fn uki10_an_x86_kernel_names_its_release() {
    let lab = lab();
    let mut linux = kernel(MACHINE, LINUX_LEN);
    linux[0x202..0x206].copy_from_slice(b"HdrS");
    linux[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
    linux[0x300..0x310].copy_from_slice(b"6.12.9-cloud (x)");
    lab.write("linux", &linux);
    unsigned(&lab);
    assert!(section(&lab, ".uname").starts_with(b"6.12.9-cloud"));
}

#[test]
fn uki12_the_same_inputs_give_the_same_image_and_a_finished_one_is_taken_as_it_is() {
    let lab = lab();
    unsigned(&lab);
    built(&lab, "again.zst", &STUB);
    assert!(lab.read("again.zst") == lab.read("v1.zst"));
    built(&lab, "taken.zst", &["--uki", "uki.efi"]);
    assert!(lab.read("taken.zst") == lab.read("v1.zst"));
}

#[test]
fn a_kernel_and_an_initrd_apart_are_still_an_image() {
    let lab = lab();
    assert_eq!(built(&lab, "v1.zst", &STUB[..4]), "");
    lab.ok(&["verify", "v1.zst", "--trust", "k.pub.pem"]);
}

/// A unified kernel image by objcopy, as one was made before there was ukify: at addresses of its own choice.
fn assemble(lab: &Lab, line: &str) {
    lab.write("line", line.as_bytes());
    let text = String::from_utf8(lab.tool("objdump", &["-p", "stub"])).unwrap();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
    };
    let mut address = field("ImageBase") + field("SizeOfImage").next_multiple_of(0x1000);
    let mut arguments = Vec::new();
    for (name, file) in [(".cmdline", "line"), (".initrd", "initrd"), (".linux", "linux")] {
        arguments.extend(["--add-section".into(), format!("{name}={file}")]);
        arguments.extend(["--change-section-vma".into(), format!("{name}={address:#x}")]);
        address += (lab.read(file).len() as u64).next_multiple_of(0x1000);
    }
    arguments.extend(["stub".into(), "assembled.efi".into()]);
    lab.tool("objcopy", &arguments.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn an_image_that_others_assembled_is_taken_if_its_command_line_is_the_one() {
    let lab = lab();
    let line = demanded(&lab);
    let line = line.trim_end_matches('\0');
    fs::remove_file(lab.path("v1.zst")).unwrap();
    assemble(&lab, line);
    built(&lab, "v1.zst", &["--uki", "assembled.efi"]);
    lab.ok(&["verify", "v1.zst", "--trust", "k.pub.pem"]);

    // UKI-6, with the line to copy.
    for other in [format!("{line}\n"), line.replace("quiet", "debug"), "quiet".to_owned()] {
        assemble(&lab, &other);
        let text = lab.fails(&build("v2.zst", &["--uki", "assembled.efi"]), 1);
        assert!(text.contains("UKI-6") && text.contains(&format!("without a newline:\n    {line}\n")), "{text}");
    }
    assemble(&lab, line);
    lab.tool("objcopy", &["--remove-section", ".cmdline", "assembled.efi"]);
    let text = lab.fails(&build("v2.zst", &["--uki", "assembled.efi"]), 1);
    assert!(text.contains("no section .cmdline") && text.contains(&format!("\n    {line}\n")), "{text}");
    // The same image for another root, epoch or version.
    assemble(&lab, line);
    for other in [["--epoch", "2"], ["--version", "1.0.1"], ["--cmdline", ""], ["--root", "initrd"]] {
        let mut arguments = build("v2.zst", &["--uki", "assembled.efi"]);
        let at = arguments.iter().position(|argument| *argument == other[0]).unwrap();
        arguments[at + 1] = other[1];
        assert!(lab.fails(&arguments, 1).contains("UKI-6"), "{other:?}");
    }
}

#[test]
fn uki4_sections_that_make_it_boot_otherwise_are_refused() {
    let lab = lab();
    unsigned(&lab);
    for name in [".profile", ".dtb", ".dtbauto", ".hwids"] {
        let add = format!("{name}=initrd");
        lab.tool("objcopy", &["--add-section", &add, "uki.efi", "more.efi"]);
        let text = lab.fails(&build("v2.zst", &["--uki", "more.efi"]), 1);
        assert!(text.contains(name), "{text}");
    }
    for name in [".linux", ".initrd", ".sdmagic"] {
        lab.tool("objcopy", &["--remove-section", name, "uki.efi", "less.efi"]);
        let text = lab.fails(&build("v2.zst", &["--uki", "less.efi"]), 1);
        assert!(text.contains(name), "{text}");
    }
}

#[test]
fn builds_that_are_refused_leave_nothing() {
    let lab = lab();
    let other = if MACHINE == AARCH64 { X86_64 } else { AARCH64 };
    lab.write("foreign", &kernel(other, 9000));
    lab.write("text", b"no program at all");
    lab.write("empty", b"");
    let stub = |change: [&str; 2]| {
        let mut arguments = build("v1.zst", &STUB);
        let at = arguments.iter().position(|argument| *argument == change[0]).unwrap();
        arguments[at + 1] = change[1];
        lab.fails(&arguments, 1)
    };
    assert!(stub(["--stub", "missing"]).contains("cannot read the stub missing"));
    assert!(stub(["--stub", "text"]).contains("cannot use the stub text"));
    assert!(stub(["--stub", "loader.efi"]).contains("UKI-2"));
    assert!(stub(["--linux", "text"]).contains("text is not a kernel"));
    assert!(stub(["--linux", "foreign"]).contains("foreign is not a kernel"));
    assert!(stub(["--linux", "missing"]).contains("cannot open missing"));
    assert!(stub(["--initrd", "missing"]).contains("cannot open missing"));
    assert!(stub(["--initrd", "empty"]).contains("no section .initrd, or an empty one"));
    assert!(stub(["--root", "missing"]).contains("cannot open missing"));
    // Before anybody builds an image with a command line that none can have.
    assert!(stub(["--cmdline", "roothash=00"]).contains("roothash"));
    assert!(lab.fails(&build("v1.zst", &["--uki", "text"]), 1).contains("cannot use text"));
    assert!(lab.fails(&build("v1.zst", &["--uki", "missing"]), 1).contains("cannot open missing"));
    unsigned(&lab);
    let again = ["--linux", "linux", "--initrd", "initrd", "--stub", "uki.efi"];
    assert!(lab.fails(&build("v2.zst", &again), 1).contains("give it with --uki"));
}

#[test]
fn uki7_a_kernel_that_is_signed_by_itself_is_refused() {
    let lab = lab();
    // As every distribution's is; the loader stands in for one.
    lab.tool("sbsign", &["--key", "sb.key", "--cert", "sb.crt", "--output", "linux", "loader.efi"]);
    let text = lab.fails(&build("v1.zst", &STUB), 1);
    assert!(text.contains("signed by itself") && text.contains("sbattach --remove"), "{text}");
    lab.tool("sbattach", &["--remove", "linux"]);
    built(&lab, "v1.zst", &STUB);
    // So is one inside a finished image.
    let line = {
        extract(&lab, "v1.zst", "uki.efi");
        String::from_utf8(section(&lab, ".cmdline")).unwrap()
    };
    lab.tool("sbsign", &["--key", "sb.key", "--cert", "sb.crt", "--output", "linux", "loader.efi"]);
    assemble(&lab, line.trim_end_matches('\0'));
    assert!(lab.fails(&build("v2.zst", &["--uki", "assembled.efi"]), 1).contains("UKI-7"));
}

#[test]
fn a_signature_for_secure_boot_is_the_key_s() {
    let lab = lab();
    let note = built(&lab, "v1.zst", &[&STUB[..], &SIGN].concat());
    assert!(note.contains("signed for Secure Boot by sb.crt"), "{note}");
    extract(&lab, "v1.zst", "uki.efi");
    lab.tool("sbverify", &["--cert", "sb.crt", "uki.efi"]);
    assert!(
        setup::run(setup::command("sbverify").current_dir(lab.path("")).args(["--cert", "else.crt", "uki.efi"]))
            .is_err()
    );
    lab.ok(&["verify", "v1.zst", "--trust", "k.pub.pem"]);
    // A finished image is taken with its signature, and signed here only if it has none.
    let note = built(&lab, "taken.zst", &["--uki", "uki.efi"]);
    assert!(note.contains("whose signature it is was not asked"), "{note}");
    assert!(lab.read("taken.zst") == lab.read("v1.zst"));
    let text = lab.fails(&build("v2.zst", &[&["--uki", "uki.efi"][..], &SIGN].concat()), 1);
    assert!(text.contains("signed already"), "{text}");
    lab.tool("sbattach", &["--remove", "uki.efi"]);
    built(&lab, "v3.zst", &[&["--uki", "uki.efi"][..], &SIGN].concat());
    extract(&lab, "v3.zst", "v3.efi");
    lab.tool("sbverify", &["--cert", "sb.crt", "v3.efi"]);
    assert!(sections(&lab, "v3.efi") == sections(&lab, "uki.efi"));
}

#[test]
fn keys_that_cannot_sign_are_an_error_with_what_sbsign_said() {
    let lab = lab();
    let with = |key: &str, cert: &str| {
        lab.fails(&build("v1.zst", &[&STUB[..], &["--sign-key", key, "--sign-cert", cert]].concat()), 1)
    };
    assert!(with("missing", "sb.crt").contains("cannot read the key missing"));
    assert!(with("sb.key", "missing").contains("cannot read the certificate missing"));
    for (key, cert) in [("sb.key", "else.crt"), ("sb.crt", "sb.crt"), ("sb.key", "sb.key")] {
        let text = with(key, cert);
        assert!(text.contains(&format!("cannot sign with {key} and {cert}")) && text.contains("sbsign"), "{text}");
    }
    // Without the program, before any work is done.
    let arguments = build("v1.zst", &[&STUB[..], &SIGN].concat());
    let output = lab.command(&arguments).env("PATH", lab.path("")).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("install the package sbsigntool"), "{text}");
    assert!(!lab.path("v1.zst").exists());
}

#[test]
fn what_boots_is_given_in_one_way() {
    let lab = lab();
    let usage = |more: &[&str], wanted: &str| {
        let text = lab.fails(&build("v1.zst", more), 2);
        assert!(text.contains(wanted), "{more:?}: {text}");
    };
    usage(&[], "--linux");
    usage(&["--linux", "linux"], "--initrd");
    usage(&["--initrd", "initrd"], "--linux");
    usage(&["--stub", "stub"], "--linux");
    usage(&["--uki", "stub", "--linux", "linux", "--initrd", "initrd"], "cannot be used with");
    usage(&["--uki", "stub", "--stub", "stub"], "cannot be used with");
    usage(&[&STUB[..], &["--sign-key", "sb.key"]].concat(), "--sign-cert");
    usage(&[&STUB[..], &["--sign-cert", "sb.crt"]].concat(), "--sign-key");
    usage(&[&STUB[..4], &SIGN].concat(), "--stub");
    let help = String::from_utf8(lab.ok(&["build", "--help"])).unwrap();
    assert!(help.contains("The signature holds the time") && help.contains("--sign-cert"), "{help}");
}

/// An image as a builder of other rules would make it: its signatures hold.
fn forged(lab: &Lab, output: &str, uki: &[u8]) {
    let spec = ImageSpec {
        os_id: "ralphos".into(),
        version: "1.0.0".into(),
        architecture: ARCH.parse().unwrap(),
        compatible: Vec::new(),
        epoch: 1,
        min_updater: "0.1.0".parse().unwrap(),
        title: "RalphOS".into(),
        options: "quiet".into(),
        level: 3,
        chunk_len: 1 << 20,
        workers: NonZeroUsize::new(1),
    };
    let mut root = File::open(lab.path("root.erofs")).unwrap();
    let key = PrivateKey::from_pem(&String::from_utf8(lab.read("k.pem")).unwrap()).unwrap();
    let mut out = File::create(lab.path(output)).unwrap();
    let sources = Sources { root: &mut root, boot: BootSource::Uki(&mut Cursor::new(uki)) };
    image_format::build(&spec, sources, &[key], &mut out, &mut |_, _| ()).unwrap();
}

#[test]
fn uki6_another_command_line_is_refused_whoever_signed_the_image() {
    let lab = lab();
    unsigned(&lab);
    let good = lab.read("uki.efi");
    forged(&lab, "good.zst", &good);
    lab.ok(&["verify", "good.zst", "--trust", "k.pub.pem"]);

    let mut bad = good.clone();
    let at = common::find(&bad, b"ralph.epoch=1") + 12;
    bad[at] = b'2';
    forged(&lab, "bad.zst", &bad);
    let text = lab.fails(&["verify", "bad.zst", "--trust", "k.pub.pem"], 3);
    assert!(text.contains("UKI-6") && text.contains("ralph.epoch=2"), "{text}");
    let disk = ["disk", "--image", "bad.zst", "--trust", "k.pub.pem", "--loader", "loader.efi", "-o", "disk.raw"];
    assert!(lab.fails(&disk, 3).contains("UKI-6"));
}
