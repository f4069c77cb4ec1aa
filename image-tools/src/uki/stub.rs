//! A systemd-stub, and a program of it with more sections.
//!
//! The stub's own sections keep their addresses, so that relocations and data directories hold. Its header is changed and not laid
//! out anew: the stub of systemd 252 has a section that begins at no multiple of its section alignment.

use std::fs::File;
use std::io::{self, Cursor, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use object::pe::{ImageDosHeader, ImageNtHeaders64, ImageOptionalHeader64, ImageSectionHeader, SectionFlags};
use object::pod::{bytes_of_slice, from_bytes_mut};
use object::read::pe::ImageNtHeaders;
use object::{LittleEndian as LE, U16, U32};
use secure_boot::Pe;
use updater::uki::MAGIC;

use super::read_short;

/// No stub is longer.
const STUB_MAX: u64 = 16 << 20;
/// Sections of ours begin on pages, whatever the stub's do: the kernel is a program of its own.
const PAGE: u32 = 4096;
/// Programs have no sections aligned to more than this.
const LARGEST_ALIGNMENT: u32 = 64 << 10;

/// A section to be added.
pub struct Addition<'a> {
    /// Its name, eight letters at most.
    pub name: &'static str,
    /// Its content.
    pub content: Box<dyn Read + 'a>,
    /// Bytes in the file.
    pub size: u64,
    /// Bytes in memory.
    pub virtual_size: u64,
    /// What the memory is for.
    pub flags: SectionFlags,
}

/// A systemd-stub that has nothing to start yet.
#[derive(Debug)]
pub struct Stub {
    bytes: Vec<u8>,
    optional: ImageOptionalHeader64,
    sections: Vec<ImageSectionHeader>,
    /// Where its PE header begins.
    nt: usize,
    /// Where its section table begins.
    table: usize,
}

/// What the header says of a program with more sections.
struct Layout {
    sections: Vec<ImageSectionHeader>,
    headers_len: u32,
    size_of_image: u32,
    initialized: u32,
}

impl Stub {
    /// Reads a stub.
    pub fn read(path: &Path) -> Result<Stub> {
        let bytes = read_short(path, "stub", STUB_MAX)?;
        let shown = path.display();
        let cannot_use = || format!("cannot use the stub {shown}");
        let program = Pe::open(Cursor::new(&bytes)).with_context(cannot_use)?;
        if program.is_signed() {
            bail!(
                "the stub {shown} is signed, which would not hold for what is made of it: give one without a signature"
            );
        }
        if program.sections().iter().any(|section| section.name() == b".linux") {
            bail!("{shown} holds a kernel already: give it with --uki, without --linux and --initrd");
        }
        let nt = ImageDosHeader::parse(&bytes[..]).with_context(cannot_use)?.nt_headers_offset();
        let mut position = nt.into();
        let (headers, _) = ImageNtHeaders64::parse(&bytes[..], &mut position).with_context(cannot_use)?;
        let sections = headers.sections(&bytes[..], position).with_context(cannot_use)?.iter().copied().collect();
        let (optional, nt, table) = (headers.optional_header, nt as usize, position as usize);
        Ok(Stub { bytes, optional, sections, nt, table })
    }

    /// What the stub says of itself, if it has no section for it: the one of systemd 252 for Arm has all that no code asks for behind
    /// its last section, where nothing loads it.
    pub fn magic(&self) -> Option<&str> {
        if self.sections.iter().any(|section| section.name == *b".sdmagic") {
            return None;
        }
        let behind = self.bytes.get(self.raw_end()..)?;
        let at = behind.windows(MAGIC.len()).position(|bytes| bytes == MAGIC)?;
        let text = behind[at..].split(|byte| *byte == 0).next()?;
        std::str::from_utf8(text).ok()
    }

    /// Writes the stub with more sections. All lie one behind the other in the file (`SEC-21`).
    pub fn extend(&self, additions: Vec<Addition<'_>>, mut out: &File) -> Result<()> {
        let layout = self.layout(&additions)?;
        let file_alignment = self.file_alignment();
        let mut front = self.header(&layout)?;
        // Not what lies behind the last section: symbols, which programs should not have.
        front.extend(self.bytes.get(self.headers_len()..self.raw_end()).context("the stub is cut off")?);
        front.resize(front.len().next_multiple_of(file_alignment as usize), 0);
        out.write_all(&front).context("cannot write it")?;
        for mut addition in additions {
            let copied = io::copy(&mut (&mut addition.content).take(addition.size), &mut out);
            if copied.with_context(|| format!("cannot copy {}", addition.name))? != addition.size {
                bail!("what is to be {} became shorter while it was read", addition.name);
            }
            let padding = align(addition.size, file_alignment)? - addition.size as u32;
            out.write_all(&vec![0; padding as usize]).context("cannot write it")?;
        }
        Ok(())
    }

    fn layout(&self, additions: &[Addition<'_>]) -> Result<Layout> {
        let file_alignment = self.file_alignment();
        let alignment = self.optional.section_alignment.get(LE).clamp(PAGE, LARGEST_ALIGNMENT).next_power_of_two();
        let table_len = (self.sections.len() + additions.len()) * size_of::<ImageSectionHeader>();
        let headers_len = align((self.table + table_len) as u64, file_alignment)?.max(self.headers_len() as u32);
        if self.sections.iter().any(|section| section.virtual_address.get(LE) < headers_len) {
            bail!("its header has no room for {} sections more: take the stub of another systemd", additions.len());
        }
        // All move together when the header grows.
        let moved = u64::from(headers_len) - self.headers_len() as u64;
        let mut sections = self.sections.clone();
        for section in sections.iter_mut().filter(|section| section.size_of_raw_data.get(LE) > 0) {
            let offset = u64::from(section.pointer_to_raw_data.get(LE)) + moved;
            section.pointer_to_raw_data.set(LE, align(offset, 1)?);
        }
        let memory_end = |section: &ImageSectionHeader| {
            u64::from(section.virtual_address.get(LE)) + u64::from(section.virtual_size.get(LE))
        };
        let stub_end = sections.iter().map(memory_end).max().unwrap_or_default();
        let mut address = align(stub_end.max(self.optional.size_of_image.get(LE).into()), alignment)?;
        let mut offset = align(self.raw_end() as u64 + moved, file_alignment)?;
        let mut initialized = u64::from(self.optional.size_of_initialized_data.get(LE));
        for addition in additions {
            let mut name = [0; 8];
            name[..addition.name.len()].copy_from_slice(addition.name.as_bytes());
            let raw_size = align(addition.size, file_alignment)?;
            sections.push(ImageSectionHeader {
                name,
                virtual_size: U32::new(LE, align(addition.virtual_size, 1)?),
                virtual_address: U32::new(LE, address),
                size_of_raw_data: U32::new(LE, raw_size),
                pointer_to_raw_data: U32::new(LE, offset),
                pointer_to_relocations: U32::new(LE, 0),
                pointer_to_linenumbers: U32::new(LE, 0),
                number_of_relocations: U16::new(LE, 0),
                number_of_linenumbers: U16::new(LE, 0),
                characteristics: addition.flags.into(),
            });
            address = align(u64::from(address) + addition.virtual_size, alignment)?;
            offset = align(u64::from(offset) + u64::from(raw_size), 1)?;
            initialized += addition.virtual_size;
        }
        Ok(Layout { sections, headers_len, size_of_image: address, initialized: align(initialized, 1)? })
    }

    /// The stub's header, changed, with the whole section table.
    fn header(&self, layout: &Layout) -> Result<Vec<u8>> {
        let mut header = self.bytes.get(..self.table).context("the stub's header is cut off")?.to_vec();
        let (nt, _) = from_bytes_mut::<ImageNtHeaders64>(&mut header[self.nt..])
            .map_err(|()| anyhow!("the stub's header is cut off"))?;
        let sections = u16::try_from(layout.sections.len()).context("it has too many sections")?;
        nt.file_header.number_of_sections.set(LE, sections);
        nt.file_header.pointer_to_symbol_table.set(LE, 0);
        nt.file_header.number_of_symbols.set(LE, 0);
        nt.optional_header.size_of_headers.set(LE, layout.headers_len);
        nt.optional_header.size_of_image.set(LE, layout.size_of_image);
        nt.optional_header.size_of_initialized_data.set(LE, layout.initialized);
        // The stub's own, and no firmware asks for it; sbsign makes a new one.
        nt.optional_header.check_sum.set(LE, 0);
        header.extend(bytes_of_slice(&layout.sections));
        header.resize(layout.headers_len as usize, 0);
        Ok(header)
    }

    fn headers_len(&self) -> usize {
        self.optional.size_of_headers.get(LE) as usize
    }

    fn file_alignment(&self) -> u32 {
        self.optional.file_alignment.get(LE).clamp(1, LARGEST_ALIGNMENT).next_power_of_two()
    }

    /// Where its last section ends in the file.
    fn raw_end(&self) -> usize {
        let with_bytes = self.sections.iter().filter(|section| section.size_of_raw_data.get(LE) > 0);
        let end = |section: &ImageSectionHeader| {
            section.pointer_to_raw_data.get(LE) as usize + section.size_of_raw_data.get(LE) as usize
        };
        with_bytes.map(end).max().unwrap_or_else(|| self.headers_len())
    }
}

/// To a power of two; what a program says of itself has 32 bits.
fn align(value: u64, to: u32) -> Result<u32> {
    u32::try_from(value.next_multiple_of(to.into())).context("it would have 4 GiB or more, which no program can")
}
