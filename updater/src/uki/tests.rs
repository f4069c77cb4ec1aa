use std::io::Cursor;

use proptest::prelude::*;
pub(crate) use qemu_tests::pe::program;
use qemu_tests::pe::{HEADERS, OPTIONAL, PAGE, TABLE};

use super::*;

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// A certificate table of eight bytes at the end.
fn signed(mut program: Vec<u8>) -> Vec<u8> {
    let at = program.len() as u32;
    program.extend([0; 8]);
    put(&mut program, OPTIONAL + 112 + 32, &at.to_le_bytes());
    put(&mut program, OPTIONAL + 112 + 36, &8_u32.to_le_bytes());
    program
}

const X86_64: u16 = 0x8664;
const STUB: &[u8] = b"#### LoaderInfo: systemd-stub 252.39 ####";

fn expected() -> Expected {
    let root_hash = Digest::of([]);
    let system =
        System { root_hash: &root_hash, hash_offset: 8192, epoch: 3, version: "1.2.0", options: "quiet panic=5" };
    Expected { architecture: Architecture::X86_64, command_line: system.command_line() }
}

/// A whole image with this command line.
pub(crate) fn small_uki(command_line: &str) -> Vec<u8> {
    let sections: [(&str, &[u8]); 4] = [
        (".sdmagic", STUB),
        (".cmdline", command_line.as_bytes()),
        (".initrd", b"an initrd"),
        (".linux", &kernel_bytes()),
    ];
    program(X86_64, &sections)
}

fn kernel_bytes() -> Vec<u8> {
    program(X86_64, &[(".text", &[7; 5000])])
}

/// Checks the good image after `change` was made to its sections.
fn changed(change: impl FnOnce(&mut Vec<(String, Vec<u8>)>)) -> Result<Checked, UkiError> {
    let mut sections: Vec<(String, Vec<u8>)> = vec![
        (".text".into(), vec![1; 700]),
        (".sdmagic".into(), STUB.to_vec()),
        (".osrel".into(), b"ID=ralphos\n".to_vec()),
        (".cmdline".into(), expected().command_line.into_bytes()),
        (".initrd".into(), vec![2; 3000]),
        (".linux".into(), kernel_bytes()),
    ];
    change(&mut sections);
    let sections: Vec<(&str, &[u8])> =
        sections.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect();
    check(&expected(), Cursor::new(program(X86_64, &sections)))
}

/// With another content for a section; None: without it.
fn with(name: &str, content: Option<&[u8]>) -> Result<Checked, UkiError> {
    changed(|sections| {
        let at = sections.iter().position(|section| section.0 == name).unwrap();
        match content {
            Some(content) => sections[at].1 = content.to_vec(),
            None => drop(sections.remove(at)),
        }
    })
}

/// With one section more, in front or at the end.
fn more(name: &str) -> [Result<Checked, UkiError>; 2] {
    [0, usize::MAX].map(|at| changed(|sections| sections.insert(at.min(sections.len()), (name.into(), vec![9; 10]))))
}

#[test]
fn a_whole_image_passes_signed_or_not() {
    assert_eq!(changed(|_| ()).unwrap(), Checked { signed: false });
    for extra in [".uname", ".sbat", ".splash", ".ucode", ".pcrsig", ".pcrpkey"] {
        assert!(more(extra).iter().all(Result::is_ok), "{extra}");
    }
    // In whatever order.
    changed(|sections| sections.reverse()).unwrap();
    let mut bytes = Vec::new();
    let line = expected().command_line;
    let linux = kernel_bytes();
    let sections: [(&str, &[u8]); 4] =
        [(".sdmagic", STUB), (".cmdline", line.as_bytes()), (".initrd", b"i"), (".linux", &linux)];
    bytes.extend(signed(program(X86_64, &sections)));
    assert_eq!(check(&expected(), Cursor::new(bytes)).unwrap(), Checked { signed: true });
}

#[test]
fn uki1_a_program_for_this_machine() {
    let check = |bytes: Vec<u8>| check(&expected(), Cursor::new(bytes));
    assert!(matches!(check(Vec::new()), Err(UkiError::Pe(_))));
    assert!(matches!(check(b"not a program".to_vec()), Err(UkiError::Pe(_))));
    let other = check(program(0xaa64, &[(".sdmagic", STUB)])).unwrap_err();
    assert!(matches!(other, UkiError::Machine { found: Architecture::Aarch64, .. }));
    // SEC-21: bytes that no section has.
    let mut gap = program(X86_64, &[(".sdmagic", STUB), (".linux", b"l")]);
    put(&mut gap, TABLE + 20, &(HEADERS as u32 + 8).to_le_bytes());
    assert!(matches!(check(gap), Err(UkiError::Pe(_))));
}

#[test]
fn uki2_a_systemd_stub() {
    assert!(matches!(with(".sdmagic", None), Err(UkiError::NoStub)));
    assert!(matches!(with(".sdmagic", Some(b"#### LoaderInfo: systemd-boot 252 ####")), Err(UkiError::NoStub)));
    assert!(matches!(with(".sdmagic", Some(b"")), Err(UkiError::NoStub)));
    for (release, known) in [("251", false), ("252", true), ("257.13-1~deb13u2", true), ("258~rc1", false)] {
        let stub = format!("#### LoaderInfo: systemd-stub {release} ####");
        let found = with(".sdmagic", Some(stub.as_bytes()));
        assert!(found.is_ok() == known && (known || matches!(found, Err(UkiError::Stub(_)))), "{release}");
    }
    assert!(matches!(with(".sdmagic", Some(b"#### LoaderInfo: systemd-stub v257 ####")), Err(UkiError::NoStub)));
    let long = [STUB, &[b'x'; 256]].concat();
    assert!(matches!(with(".sdmagic", Some(&long)), Err(UkiError::Pe(PeError::SectionTooLong { .. }))));
}

#[test]
fn uki3_what_boots_is_there_once() {
    for name in [".linux", ".initrd"] {
        for content in [None, Some(&b""[..])] {
            assert!(matches!(with(name, content), Err(UkiError::Missing(missing)) if missing == name), "{name}");
        }
    }
    for content in [None, Some(&b""[..]), Some(b"\0\0")] {
        let text = with(".cmdline", content).unwrap_err().to_string();
        assert!(text.contains(&format!("without a newline:\n    {}", expected().command_line)), "{text}");
    }
    for name in NEEDED {
        assert!(more(name).iter().all(|result| matches!(result, Err(UkiError::Twice(twice)) if twice == name)));
    }
}

#[test]
fn uki4_no_section_that_another_could_be_taken_for() {
    // The stub of 252 takes the last section that begins so.
    for (name, taken) in [(".linuxb", ".linux"), (".linux.2", ".linux"), (".initrdx", ".initrd")] {
        assert!(more(name).iter().all(|result| matches!(result, Err(UkiError::Twice(twice)) if twice == taken)));
    }
    for name in [".profile", ".dtb", ".dtbauto", ".hwids", ".efifw"] {
        assert!(more(name).iter().all(|result| matches!(result, Err(UkiError::Refused(found)) if found == name)));
    }
    assert!(more(".osrel").iter().all(|result| matches!(result, Err(UkiError::Twice(_)))));
}

#[test]
fn uki5_what_boots_is_not_overlapped_in_memory() {
    let sections: [(&str, &[u8]); 3] = [(".sdmagic", STUB), (".initrd", &[1; 9000]), (".cmdline", b"x")];
    let linux = kernel_bytes();
    let mut bytes = program(X86_64, &[&sections[..], &[(".linux", &linux)]].concat());
    // The command line into the initrd.
    put(&mut bytes, TABLE + 80 + 12, &(3 * PAGE as u32).to_le_bytes());
    let error = check(&expected(), Cursor::new(bytes)).unwrap_err();
    assert!(matches!(&error, UkiError::Overlap(a, b) if a == ".initrd" && b == ".cmdline"), "{error}");
    // As ukify 257 makes them of the stub of 252; neither boots.
    let line = expected().command_line;
    let sections: [(&str, &[u8]); 5] = [
        (".sbat", &[b's'; 300]),
        (".sdmagic", STUB),
        (".initrd", b"i"),
        (".cmdline", line.as_bytes()),
        (".linux", &linux),
    ];
    let mut bytes = program(X86_64, &sections);
    put(&mut bytes, TABLE + 40 + 12, &(PAGE as u32 + 256).to_le_bytes());
    check(&expected(), Cursor::new(bytes)).unwrap();
}

#[test]
fn uki6_the_command_line_is_the_manifest_s_to_the_byte() {
    let line = expected().command_line;
    assert!(line.starts_with("root=/dev/mapper/root ro roothash=e3b0c442"), "{line}");
    assert!(line.ends_with(" systemd.import_credentials=no oops=panic quiet panic=5"), "{line}");
    // What fills up the section.
    with(".cmdline", Some(format!("{line}\0\0\0").as_bytes())).unwrap();
    for other in [
        format!("{line}\n"),
        format!("{line} "),
        format!(" {line}"),
        format!("{line}\0 init=/bin/sh"),
        line.replace("ralph.epoch=3", "ralph.epoch=2"),
        line.to_uppercase(),
        "quiet".to_owned(),
    ] {
        let error = with(".cmdline", Some(other.as_bytes())).unwrap_err();
        let UkiError::CommandLine { found, expected } = &error else { panic!("{error}") };
        assert_eq!(*expected, line);
        assert_eq!(*found, other.as_bytes().escape_ascii().to_string());
        assert!(!error.to_string().contains('\0'));
    }
    assert!(matches!(
        with(".cmdline", Some(&[b'x'; 4097])),
        Err(UkiError::Pe(PeError::SectionTooLong { limit: 4096, .. }))
    ));
}

#[test]
fn uki7_the_kernel_cannot_be_started_alone() {
    let linux = |bytes: &[u8]| with(".linux", Some(bytes)).unwrap_err();
    assert!(matches!(linux(&signed(kernel_bytes())), UkiError::SignedKernel));
    assert!(matches!(linux(b"a kernel"), UkiError::Kernel(KernelError::Program(_))));
    assert!(matches!(linux(&kernel_bytes()[..200]), UkiError::Kernel(KernelError::Headers)));
    let arm = program(0xaa64, &[(".text", b"x")]);
    assert!(matches!(linux(&arm), UkiError::Kernel(KernelError::Machine(Architecture::Aarch64))));
    assert_eq!(
        kernel(&kernel_bytes(), Architecture::X86_64),
        Ok(Kernel { size_of_image: 4 * PAGE as u32, signed: false })
    );
}

#[test]
fn a_source_that_fails_is_not_the_image_s_fault() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("broken"))
        }
    }
    impl Seek for Broken {
        fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
            Ok(4096)
        }
    }
    assert!(matches!(check(&expected(), Broken), Err(UkiError::Read(_))));
}

/// Counts what is read.
struct Counting(Cursor<Vec<u8>>, usize);

impl Read for Counting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.0.read(buffer)?;
        self.1 += len;
        Ok(len)
    }
}

impl Seek for Counting {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

#[test]
fn uki8_of_a_large_image_little_is_read() {
    let linux = [kernel_bytes(), vec![3; 4 << 20]].concat();
    let line = expected().command_line;
    let sections: [(&str, &[u8]); 4] =
        [(".sdmagic", STUB), (".cmdline", line.as_bytes()), (".initrd", &vec![1; 4 << 20]), (".linux", &linux)];
    let mut counting = Counting(Cursor::new(program(X86_64, &sections)), 0);
    check(&expected(), &mut counting).unwrap();
    assert!(counting.1 <= 2 * (64 << 10) + 8192, "{}", counting.1);
}

proptest! {
    #[test]
    fn uki8_no_bytes_break_it(bytes: Vec<u8>) {
        let _ = check(&expected(), Cursor::new(&bytes));
        let _ = kernel(&bytes, Architecture::X86_64);
    }

    #[test]
    fn uki8_no_change_breaks_it(changes in prop::collection::vec((0_usize..TABLE + 200, any::<u8>()), 1..6), cut in 0_usize..12_000) {
        let line = expected().command_line;
        let linux = kernel_bytes();
        let sections: [(&str, &[u8]); 4] =
            [(".sdmagic", STUB), (".cmdline", line.as_bytes()), (".initrd", b"i"), (".linux", &linux)];
        let mut bytes = program(X86_64, &sections);
        for (at, value) in changes {
            bytes[at] = value;
        }
        let _ = check(&expected(), Cursor::new(&bytes));
        bytes.truncate(cut);
        let _ = check(&expected(), Cursor::new(&bytes));
    }
}
