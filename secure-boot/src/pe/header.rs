//! The headers in front of a program's sections, and what they say of the rest of the file.

use std::mem::size_of;
use std::ops::Range;

use object::LittleEndian as LE;
use object::pe;
use object::read::pe::{DataDirectories, ImageNtHeaders, ImageOptionalHeader};

use super::{CERTIFICATE_ALIGNMENT, MAX_CERTIFICATE_TABLE, MAX_HEADER, Machine, PeError, Section};

/// More data directories than these have no meaning, and edk2 loads no program that has them.
const MAX_DIRECTORIES: u32 = 16;
/// Where `CheckSum` stands in an optional header of either size.
const CHECKSUM: Range<usize> = 64..68;

pub(super) struct Header {
    /// Bytes in front of the first section.
    pub size: usize,
    pub machine: Machine,
    pub sections: Vec<Section>,
    pub unhashed: Vec<Range<usize>>,
    pub certificates: Option<Range<u64>>,
}

/// Reads the header of a file of `len` bytes out of its first ones.
pub(super) fn parse(bytes: &[u8], len: u64) -> Result<Header, PeError> {
    let dos = pe::ImageDosHeader::parse(bytes).map_err(|_| PeError::NotPe("it has no DOS header"))?;
    let nt_start = dos.nt_headers_offset();
    if (nt_start as usize) < size_of::<pe::ImageDosHeader>() {
        return Err(PeError::Layout("its PE header overlaps its DOS header"));
    }
    let mut position = u64::from(nt_start);
    let (nt, directories) = pe::ImageNtHeaders64::parse(bytes, &mut position)
        .map_err(|_| PeError::NotPe("it has no whole PE32+ header in its first 64 KiB"))?;
    let (file, optional) = (nt.file_header(), nt.optional_header());
    let machine = match file.machine.get(LE) {
        pe::IMAGE_FILE_MACHINE_AMD64 => Machine::X86_64,
        pe::IMAGE_FILE_MACHINE_ARM64 => Machine::Aarch64,
        _ => return Err(PeError::OtherMachine("it is neither for x86-64 nor for 64-bit Arm")),
    };
    if optional.subsystem() != pe::IMAGE_SUBSYSTEM_EFI_APPLICATION {
        return Err(PeError::OtherMachine("it is no EFI application"));
    }
    let directories_len = size_of::<pe::ImageDataDirectory>() * directories.len();
    if optional.number_of_rva_and_sizes() > MAX_DIRECTORIES
        || usize::from(file.size_of_optional_header.get(LE)) != size_of::<pe::ImageOptionalHeader64>() + directories_len
    {
        return Err(PeError::Layout("its optional header has not the length that its data directories need"));
    }

    let table = nt.sections(bytes, position).map_err(|_| PeError::NotPe("its section table is cut off"))?;
    let table_end = position + (size_of::<pe::ImageSectionHeader>() * table.len()) as u64;
    let size = u64::from(optional.size_of_headers());
    if size > len {
        return Err(PeError::NotPe("its header is cut off"));
    }
    if size > MAX_HEADER || table_end > size {
        return Err(PeError::Layout("its header ends before its section table, or has more than 64 KiB"));
    }
    let sections: Vec<Section> = table.iter().map(section).collect();
    let sections_end = check_order(&sections, size)?;
    check_memory(&sections, optional)?;

    let optional_start = nt_start as usize + size_of::<u32>() + size_of::<pe::ImageFileHeader>();
    let checksum = optional_start + CHECKSUM.start..optional_start + CHECKSUM.end;
    let security = (directories.len() > pe::IMAGE_DIRECTORY_ENTRY_SECURITY).then(|| {
        let entry = size_of::<pe::ImageDataDirectory>();
        let start =
            optional_start + size_of::<pe::ImageOptionalHeader64>() + entry * pe::IMAGE_DIRECTORY_ENTRY_SECURITY;
        start..start + entry
    });
    let unhashed = [Some(checksum), security].into_iter().flatten().collect();
    let certificates = certificate_table(&directories, sections_end, len)?;
    Ok(Header { size: size as usize, machine, sections, unhashed, certificates })
}

fn section(header: &pe::ImageSectionHeader) -> Section {
    Section {
        name: header.name,
        virtual_address: header.virtual_address.get(LE),
        virtual_size: header.virtual_size.get(LE),
        raw_offset: header.pointer_to_raw_data.get(LE),
        raw_size: header.size_of_raw_data.get(LE),
    }
}

/// `SEC-21`: where the last section ends in the file.
fn check_order(sections: &[Section], header_size: u64) -> Result<u64, PeError> {
    let mut in_file: Vec<&Section> = sections.iter().filter(|section| section.raw_size > 0).collect();
    in_file.sort_by_key(|section| section.raw_offset);
    in_file.iter().try_fold(header_size, |end, section| {
        if u64::from(section.raw_offset) == end {
            Ok(section.raw_end())
        } else {
            Err(PeError::Layout("its sections do not lie one behind the other in the file"))
        }
    })
}

/// `SEC-22`.
fn check_memory(sections: &[Section], optional: &pe::ImageOptionalHeader64) -> Result<(), PeError> {
    let size = optional.size_of_image();
    let fits = |section: &Section| {
        let end = u64::from(section.virtual_address) + u64::from(section.virtual_size);
        section.virtual_size == 0 || end <= u64::from(size)
    };
    if !sections.iter().all(fits) {
        return Err(PeError::Layout("a section does not end within the program's size in memory"));
    }
    if !(1..size).contains(&optional.address_of_entry_point()) {
        return Err(PeError::Layout("it begins outside of itself"));
    }
    Ok(())
}

/// `SEC-24`.
fn certificate_table(
    directories: &DataDirectories<'_>,
    sections_end: u64,
    len: u64,
) -> Result<Option<Range<u64>>, PeError> {
    // Of this directory alone the address is one in the file. (`get` would pass over an entry that has a size and the address 0.)
    let entry = directories.iter().nth(pe::IMAGE_DIRECTORY_ENTRY_SECURITY);
    let (start, size) = entry.map_or((0, 0), pe::ImageDataDirectory::address_range);
    let (start, size) = (u64::from(start), u64::from(size));
    let signed = size > 0;
    if sections_end > if signed { start.min(len) } else { len } {
        return Err(PeError::NotPe("its sections are cut off"));
    }
    if !signed {
        return Ok(None);
    }
    if size > MAX_CERTIFICATE_TABLE {
        return Err(PeError::CertificateTable("has more than 64 KiB"));
    }
    if start % CERTIFICATE_ALIGNMENT != 0 || start + size != len {
        return Err(PeError::CertificateTable("is not the last of the file, at a multiple of 8 bytes"));
    }
    Ok(Some(start..len))
}
