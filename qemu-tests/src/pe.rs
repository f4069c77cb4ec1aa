//! Small EFI programs, for tests that need nothing but what stands in their headers.

const ALIGNMENT: usize = 512;
/// What sections are aligned to in memory.
pub const PAGE: usize = 4096;
/// Bytes of all headers.
pub const HEADERS: usize = 1024;
const NT: usize = 64;
/// Where the optional header begins.
pub const OPTIONAL: usize = NT + 24;
/// Where the section table begins.
pub const TABLE: usize = OPTIONAL + 240;

/// A program for this machine type (as the PE header has it) with these sections, one behind the other, each on pages of its own.
pub fn program(machine: u16, sections: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; HEADERS];
    put(&mut bytes, 0, b"MZ");
    put(&mut bytes, 0x3c, &(NT as u32).to_le_bytes());
    put(&mut bytes, NT, b"PE\0\0");
    put(&mut bytes, NT + 4, &machine.to_le_bytes());
    put(&mut bytes, NT + 6, &(sections.len() as u16).to_le_bytes());
    put(&mut bytes, NT + 20, &240_u16.to_le_bytes());
    put(&mut bytes, OPTIONAL, &0x20b_u16.to_le_bytes());
    let mut address = PAGE;
    for (index, (name, content)) in sections.iter().enumerate() {
        let (offset, size) = (bytes.len(), content.len().next_multiple_of(ALIGNMENT));
        let header = TABLE + 40 * index;
        put(&mut bytes, header, name.as_bytes());
        for (place, value) in [(8, content.len()), (12, address), (16, size), (20, offset)] {
            put(&mut bytes, header + place, &(value as u32).to_le_bytes());
        }
        bytes.extend_from_slice(content);
        bytes.resize(offset + size, 0);
        address = (address + content.len().max(1)).next_multiple_of(PAGE);
    }
    for (place, value) in
        [(16, PAGE), (32, PAGE), (36, ALIGNMENT), (56, address + PAGE), (60, HEADERS), (68, 10), (108, 16)]
    {
        put(&mut bytes, OPTIONAL + place, &(value as u32).to_le_bytes());
    }
    bytes
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}
