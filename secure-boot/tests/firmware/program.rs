//! Small EFI programs, byte by byte, and lists of signatures.

use uuid::{Uuid, uuid};

pub const X509: Uuid = uuid!("a5c059a1-94e4-4aa7-87b5-ab155c2bf072");
pub const SHA256: Uuid = uuid!("c1c41626-504c-4092-aca9-41f936934328");
pub const X509_SHA256: Uuid = uuid!("3bd2a492-96c0-4079-b420-fcf98ef103ed");
pub const X509_SHA384: Uuid = uuid!("7076876e-80c2-4ee6-aad2-28b349a6865b");
pub const X509_SHA512: Uuid = uuid!("446dbf63-2502-4cda-bcfa-2465d2b0fe9d");
pub const SHA384: Uuid = uuid!("ff3e5307-9fd0-48c9-85f1-8ad56c701e01");

/// Where the PE header begins.
pub const PE: usize = 0x80;
/// Where the optional header begins.
pub const OPTIONAL: usize = PE + 24;
pub const CHECKSUM: std::ops::Range<usize> = OPTIONAL + 64..OPTIONAL + 68;
/// The certificate table's directory entry.
pub const SECURITY: usize = OPTIONAL + 112 + 4 * 8;
/// Where the section table begins.
pub const SECTIONS: usize = OPTIONAL + 112 + 16 * 8;
pub const HEADER: usize = 0x400;
const FILE_ALIGNMENT: usize = 0x200;

pub fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

pub fn put32(bytes: &mut [u8], at: usize, value: u32) {
    put(bytes, at, &value.to_le_bytes());
}

pub fn get32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// A program of these sections, for x86-64.
pub fn program(sections: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    put(&mut bytes, 0, b"MZ");
    put32(&mut bytes, 0x3c, PE as u32);
    put(&mut bytes, PE, b"PE\0\0");
    put(&mut bytes, PE + 4, &0x8664u16.to_le_bytes());
    put(&mut bytes, PE + 6, &(sections.len() as u16).to_le_bytes());
    put(&mut bytes, PE + 20, &240u16.to_le_bytes());
    put(&mut bytes, PE + 22, &0x0022u16.to_le_bytes());
    put(&mut bytes, OPTIONAL, &0x20bu16.to_le_bytes());
    put32(&mut bytes, OPTIONAL + 16, 0x1000);
    put32(&mut bytes, OPTIONAL + 32, 0x1000);
    put32(&mut bytes, OPTIONAL + 36, FILE_ALIGNMENT as u32);
    put32(&mut bytes, OPTIONAL + 60, HEADER as u32);
    put(&mut bytes, OPTIONAL + 68, &10u16.to_le_bytes());
    put32(&mut bytes, OPTIONAL + 108, 16);
    let mut address = 0x1000;
    for (number, (name, content)) in sections.iter().enumerate() {
        let entry = SECTIONS + 40 * number;
        let raw = content.len().next_multiple_of(FILE_ALIGNMENT);
        put(&mut bytes, entry, name.as_bytes());
        put32(&mut bytes, entry + 8, content.len() as u32);
        put32(&mut bytes, entry + 12, address);
        put32(&mut bytes, entry + 16, raw as u32);
        let at = bytes.len() as u32;
        put32(&mut bytes, entry + 20, at);
        put32(&mut bytes, entry + 36, 0x6000_0020);
        bytes.extend_from_slice(content);
        bytes.resize(at as usize + raw, 0);
        address += content.len().next_multiple_of(0x1000) as u32;
    }
    put32(&mut bytes, OPTIONAL + 56, address);
    bytes
}

/// A program like a small UKI.
pub fn small() -> Vec<u8> {
    program(&[(".text", &[0xc3; 300]), (".cmdline", b"root=/dev/mapper/root ro\0"), (".linux", &[7; 700])])
}

/// An EFI_SIGNATURE_LIST of entries of one length.
pub fn list(kind: Uuid, entries: &[Vec<u8>]) -> Vec<u8> {
    let len = 16 + entries.first().map_or(0, Vec::len);
    let mut bytes = kind.to_bytes_le().to_vec();
    bytes.extend_from_slice(&(28 + (len * entries.len()) as u32).to_le_bytes());
    bytes.extend_from_slice(&0u32.to_le_bytes());
    bytes.extend_from_slice(&(len as u32).to_le_bytes());
    for entry in entries {
        bytes.extend_from_slice(&[0x11; 16]);
        bytes.extend_from_slice(entry);
    }
    bytes
}
