//! `SEC-20` to `SEC-22`, `SEC-50`: what is a program, and its sections.

use std::io::{Cursor, Read, Result, Seek, SeekFrom};

use secure_boot::{Machine, Pe, PeError};

use crate::digest;
use crate::program::{HEADER, OPTIONAL, PE, SECTIONS, program, put, put32, small};

fn open(bytes: &[u8]) -> std::result::Result<Pe<Cursor<&[u8]>>, PeError> {
    Pe::open(Cursor::new(bytes))
}

#[test]
fn sec50_sections_are_listed_in_order_and_read_without_their_padding() {
    let bytes = small();
    let mut pe = open(&bytes).unwrap();
    assert_eq!(pe.machine(), Machine::X86_64);
    assert!(!pe.is_signed());
    let sections = pe.sections().to_vec();
    let names: Vec<_> = sections.iter().map(|section| section.name()).collect();
    assert_eq!(names, [&b".text"[..], b".cmdline", b".linux"], "eight bytes are a name without a NUL");
    assert_eq!((sections[1].raw_offset, sections[1].raw_size, sections[1].virtual_size), (0x600, 0x200, 25));
    assert_eq!(pe.read_section(&sections[1], 25).unwrap(), b"root=/dev/mapper/root ro\0");
    let error = pe.read_section(&sections[1], 24).expect_err("one byte more");
    assert_eq!(error.to_string(), "section .cmdline has 25 bytes, more than the 24 that are read of it");
}

#[test]
fn sec50_a_section_has_no_more_bytes_than_the_file_gives_it() {
    let mut bytes = small();
    put32(&mut bytes, SECTIONS + 40 + 8, 0x300);
    let mut pe = open(&bytes).unwrap();
    let section = pe.sections()[1].clone();
    assert_eq!(pe.read_section(&section, 4096).unwrap().len(), 0x200);
}

#[test]
fn sec23_the_order_of_the_section_table_does_not_change_what_is_hashed_of_the_sections() {
    let bytes = small();
    let mut turned = bytes.clone();
    let (first, second) = (bytes[SECTIONS..SECTIONS + 40].to_vec(), bytes[SECTIONS + 40..SECTIONS + 80].to_vec());
    put(&mut turned, SECTIONS, &second);
    put(&mut turned, SECTIONS + 40, &first);
    open(&turned).expect("order in the file is what counts");
    assert_ne!(digest(&turned), digest(&bytes), "the table itself is hashed");
}

#[test]
fn sec20_what_is_no_64_bit_efi_application_is_refused() {
    let change = |at: usize, value: &[u8]| {
        let mut bytes = small();
        put(&mut bytes, at, value);
        bytes
    };
    for (what, at, value) in [
        ("no DOS header", 0, &b"ZM"[..]),
        ("no PE header", PE, b"PX\0\0"),
        ("a header far away", 0x3c, &[0xff; 4]),
        ("a header in the DOS header", 0x3c, &[8, 0, 0, 0]),
        ("32-bit x86", PE + 4, &0x14cu16.to_le_bytes()),
        ("PE32", OPTIONAL, &0x10bu16.to_le_bytes()),
        ("a driver", OPTIONAL + 68, &11u16.to_le_bytes()),
        ("sections without end", PE + 6, &[0xff; 2]),
        ("more sections than the header has room for", PE + 6, &[60, 0]),
        ("17 directories", OPTIONAL + 108, &[17, 0, 0, 0]),
        ("15 directories with room for 16", OPTIONAL + 108, &[15, 0, 0, 0]),
        ("no header", OPTIONAL + 60, &[0; 4]),
        ("a header longer than the file", OPTIONAL + 60, &[0, 0, 1, 0]),
        ("begins in no place", OPTIONAL + 16, &[0; 4]),
        ("begins behind its end", OPTIONAL + 16, &[0, 0, 0, 1]),
        ("a section behind its end", SECTIONS + 12, &[0, 0, 0, 1]),
        ("a section at the end of the address space", SECTIONS + 12, &[0xff; 4]),
    ] {
        assert!(open(&change(at, value)).is_err(), "{what}");
    }
    let arm = change(PE + 4, &0xaa64u16.to_le_bytes());
    assert_eq!(open(&arm).unwrap().machine(), Machine::Aarch64);
}

#[test]
fn sec21_gaps_and_overlaps_in_the_file_are_refused() {
    for (what, offset, size) in [
        ("a gap in front", HEADER as u32 + 0x200, 0x200),
        ("over the header", 0, 0x200),
        ("shorter than the next begins", HEADER as u32, 0x100),
        ("over the next", HEADER as u32, 0x400),
        ("to the end of all", HEADER as u32, u32::MAX),
    ] {
        let mut bytes = small();
        put32(&mut bytes, SECTIONS + 16, size);
        put32(&mut bytes, SECTIONS + 20, offset);
        assert!(matches!(open(&bytes), Err(PeError::Layout(_))), "{what}");
    }
    let mut bytes = small();
    bytes.pop();
    assert!(matches!(open(&bytes), Err(PeError::NotPe(_))), "the last section is cut off");
}

#[test]
fn sec21_a_section_without_bytes_lies_anywhere() {
    let mut bytes = small();
    put(&mut bytes, PE + 6, &[4, 0]);
    put(&mut bytes, SECTIONS + 120, b".bss\0\0\0\0");
    put32(&mut bytes, SECTIONS + 128, 0x100);
    put32(&mut bytes, SECTIONS + 132, 0x1000);
    let mut pe = open(&bytes).unwrap();
    let bss = pe.sections()[3].clone();
    assert_eq!(pe.read_section(&bss, 0).unwrap(), b"");
}

/// Tells how many bytes were asked for at most, and in all.
struct Watched<'a> {
    bytes: Cursor<&'a [u8]>,
    longest: usize,
    total: usize,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        // A source that gives less than asked for is a source, too.
        let read = self.bytes.by_ref().take(10_000).read(buffer)?;
        self.longest = self.longest.max(buffer.len());
        self.total += read;
        Ok(read)
    }
}

impl Seek for Watched<'_> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        self.bytes.seek(to)
    }
}

#[test]
fn sec2_memory_is_bounded_and_the_program_is_read_once() {
    let bytes = program(&[(".text", &[0xc3; 300]), (".linux", &vec![7; 10 << 20])]);
    let mut watched = Watched { bytes: Cursor::new(&bytes), longest: 0, total: 0 };
    Pe::open(&mut watched).unwrap().authenticode_digest().unwrap();
    assert!(watched.longest <= 64 << 10, "{}", watched.longest);
    assert!(watched.total <= bytes.len() + (64 << 10), "{}", watched.total);
}
