//! Makes a unified kernel image: sections behind those of a systemd-stub, in the order in which ukify puts them.

use std::fs::File;
use std::io::{self, Cursor, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use object::pe::{self, ImageNtHeaders64, ImageSectionHeader, SectionFlags};
use object::pod::{bytes_of, from_bytes_mut};
use object::{LittleEndian as LE, U16, U32};
use secure_boot::pe::MAX_HEADER;
use secure_boot::{Pe, Section};
use updater::uki::{Expected, kernel};

use super::{Release, open, read_short};

/// No stub is longer.
const STUB_MAX: u64 = 16 << 20;
/// Sections of ours begin on pages, whatever the stub's do: the kernel is a program of its own.
const PAGE: u32 = 4096;
/// Bytes of a section header.
const SECTION_HEADER: usize = size_of::<ImageSectionHeader>();

const DATA: SectionFlags = SectionFlags(pe::IMAGE_SCN_CNT_INITIALIZED_DATA.0 | pe::IMAGE_SCN_MEM_READ.0);
/// Kernels that a stub enters at their EFI handover point run where they lie.
const CODE: SectionFlags = SectionFlags(pe::IMAGE_SCN_CNT_CODE.0 | pe::IMAGE_SCN_MEM_READ.0);

/// What it is made of.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The stub.
    pub stub: &'a Path,
    /// The kernel.
    pub linux: &'a Path,
    /// The initial RAM disk.
    pub initrd: &'a Path,
}

/// A section to be added.
struct Addition<'a> {
    name: &'static str,
    content: Box<dyn Read + 'a>,
    /// Bytes in the file.
    size: u64,
    /// Bytes in memory.
    virtual_size: u64,
    flags: SectionFlags,
}

impl<'a> Addition<'a> {
    fn text(name: &'static str, text: &'a str) -> Self {
        let size = text.len() as u64;
        Addition { name, content: Box::new(text.as_bytes()), size, virtual_size: size, flags: DATA }
    }
}

/// Makes the unified kernel image in `out`, which is empty.
pub fn make(parts: &Parts<'_>, release: Release<'_>, expected: &Expected, out: &File) -> Result<()> {
    let stub = Stub::read(parts.stub)?;
    let (mut linux, initrd) = (open(parts.linux)?, open(parts.initrd)?);
    let (linux_size, initrd_size) = (size(&linux, parts.linux)?, size(&initrd, parts.initrd)?);
    let mut head = Vec::new();
    let read = (&mut linux).take(MAX_HEADER).read_to_end(&mut head);
    read.with_context(|| format!("cannot read {}", parts.linux.display()))?;
    let shown = parts.linux.display();
    let kernel = kernel(&head, expected.architecture)
        .with_context(|| format!("{shown} is not a kernel that a unified kernel image can hold"))?;
    if kernel.signed {
        bail!(
            "the kernel {shown} is signed by itself (UKI-7): firmware would also start it alone, with any initrd and command line. \
             Take the signature off a copy of it: sbattach --remove COPY"
        );
    }

    let os_release = os_release(release);
    let mut additions = vec![Addition::text(".osrel", &os_release), Addition::text(".cmdline", &expected.command_line)];
    additions.extend(uname(&head).map(|uname| Addition::text(".uname", uname)));
    additions.push(Addition {
        name: ".initrd",
        content: Box::new(initrd),
        size: initrd_size,
        virtual_size: initrd_size,
        flags: DATA,
    });
    // Last, and with as much memory as it says it needs: a kernel that runs in place grows over whatever is behind it.
    additions.push(Addition {
        name: ".linux",
        content: Box::new(Cursor::new(&head).chain(linux)),
        size: linux_size,
        virtual_size: linux_size.max(kernel.size_of_image.into()),
        flags: CODE,
    });
    stub.extend(additions, out)
        .with_context(|| format!("cannot make a unified kernel image of {}", parts.stub.display()))
}

fn size(file: &File, path: &Path) -> Result<u64> {
    Ok(file.metadata().with_context(|| format!("cannot read {}", path.display()))?.len())
}

/// What boot menus and `bootctl` show of the image.
fn os_release(release: Release<'_>) -> String {
    let Release { os_id, version, title } = release;
    let mut quoted = String::new();
    for c in title.chars() {
        if matches!(c, '"' | '$' | '`' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    format!("ID=\"{os_id}\"\nVERSION_ID=\"{version}\"\nNAME=\"{quoted}\"\nPRETTY_NAME=\"{quoted} {version}\"\n")
}

/// The release that an x86 kernel names in its boot header (Linux, `Documentation/arch/x86/boot.rst`).
fn uname(head: &[u8]) -> Option<&str> {
    const MAGIC: usize = 0x202;
    const VERSION: usize = 0x20e;
    if head.get(MAGIC..MAGIC + 4)? != b"HdrS" {
        return None;
    }
    let at = 0x200 + usize::from(u16::from_le_bytes(head.get(VERSION..VERSION + 2)?.try_into().ok()?));
    let text = head.get(at..)?.split(|byte| *byte == b' ' || *byte == 0).next()?;
    let known = |byte: &u8| byte.is_ascii_alphanumeric() || b"._+~-".contains(byte);
    let plausible = (1..=64).contains(&text.len()) && text.iter().all(known);
    std::str::from_utf8(text).ok().filter(|_| plausible)
}

/// A systemd-stub that has nothing to start yet.
struct Stub {
    bytes: Vec<u8>,
    sections: Vec<Section>,
    /// Where its PE header begins.
    nt: usize,
    /// Where its section table begins.
    table: usize,
}

impl Stub {
    fn read(path: &Path) -> Result<Stub> {
        let bytes = read_short(path, "stub", STUB_MAX)?;
        let shown = path.display();
        let program = Pe::open(Cursor::new(&bytes)).with_context(|| format!("cannot use the stub {shown}"))?;
        if program.is_signed() {
            bail!("the stub {shown} is signed: its signature would not hold for what is made of it. Give one without");
        }
        let sections = program.sections().to_vec();
        if sections.iter().any(|section| section.name() == b".linux") {
            bail!("{shown} holds a kernel already: give it with --uki, without --linux and --initrd");
        }
        // Both were read a moment ago.
        let dos = pe::ImageDosHeader::parse(&bytes[..]).context("the stub has no DOS header")?;
        let nt = dos.nt_headers_offset() as usize;
        let table = {
            use object::read::pe::ImageNtHeaders;
            let mut position = nt as u64;
            ImageNtHeaders64::parse(&bytes[..], &mut position).context("the stub has no PE header")?;
            position as usize
        };
        Ok(Stub { bytes, sections, nt, table })
    }

    /// Writes the stub with more sections. Its own ones keep their addresses, so that relocations and data directories hold; in the
    /// file all lie one behind the other (`SEC-21`). The header is changed and not laid out anew: the stub of systemd 252 has a
    /// section at no multiple of its section alignment.
    fn extend(&self, additions: Vec<Addition<'_>>, mut out: &File) -> Result<()> {
        const TOO_LARGE: &str = "it would have 4 GiB or more, which no program can";
        let header = self.bytes.get(..self.table).context("the stub's header is cut off")?;
        let mut header = header.to_vec();
        let (nt, _) = from_bytes_mut::<ImageNtHeaders64>(&mut header[self.nt..])
            .map_err(|()| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        let align = |value: u64, to: u32| u32::try_from(value.next_multiple_of(to.into())).context(TOO_LARGE);
        let file_alignment = nt.optional_header.file_alignment.get(LE).clamp(1, 1 << 16).next_power_of_two();
        let alignment = nt.optional_header.section_alignment.get(LE).clamp(PAGE, 1 << 16).next_power_of_two();

        let table_len = (self.sections.len() + additions.len()) * SECTION_HEADER;
        let headers_len = align((self.table + table_len) as u64, file_alignment)?;
        let headers_len = headers_len.max(nt.optional_header.size_of_headers.get(LE));
        if self.sections.iter().any(|section| section.virtual_address < headers_len) {
            bail!("its header has no room for {} sections more: use the stub of another systemd", additions.len());
        }
        // The sections move together when the header grows.
        let moved = u64::from(headers_len - nt.optional_header.size_of_headers.get(LE));
        let raw_end = |section: &Section| u64::from(section.raw_offset) + u64::from(section.raw_size);
        let stub_end = self.sections.iter().map(raw_end).max().unwrap_or_default();
        let stub_data = nt.optional_header.size_of_headers.get(LE) as usize..stub_end as usize;

        let mut table = Vec::with_capacity(table_len);
        let own = self.bytes.get(self.table..).unwrap_or_default().chunks_exact(SECTION_HEADER);
        for (raw, section) in own.zip(&self.sections) {
            let mut raw = raw.to_vec();
            if section.raw_size > 0 {
                let (header, _) = from_bytes_mut::<ImageSectionHeader>(&mut raw)
                    .map_err(|()| io::Error::from(io::ErrorKind::UnexpectedEof))?;
                header.pointer_to_raw_data.set(LE, align(u64::from(section.raw_offset) + moved, 1)?);
            }
            table.extend(raw);
        }
        let memory_end = |section: &Section| u64::from(section.virtual_address) + u64::from(section.virtual_size);
        let mut address = align(self.sections.iter().map(memory_end).max().unwrap_or_default(), alignment)?;
        let mut offset = align(stub_end + moved, file_alignment)?;
        let padding = u64::from(offset) - (stub_end + moved);
        let mut data_len = u64::from(nt.optional_header.size_of_initialized_data.get(LE));
        for addition in &additions {
            let raw_size = align(addition.size, file_alignment)?;
            let mut name = [0; 8];
            name[..addition.name.len()].copy_from_slice(addition.name.as_bytes());
            table.extend(bytes_of(&ImageSectionHeader {
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
            }));
            address = align(u64::from(address) + addition.virtual_size, alignment)?;
            offset = align(u64::from(offset) + u64::from(raw_size), 1)?;
            data_len += addition.virtual_size;
        }

        let file = &mut nt.file_header;
        let sections = u16::try_from(self.sections.len() + additions.len()).context("it has too many sections")?;
        file.number_of_sections.set(LE, sections);
        // The stub's symbols are left out; programs should have none.
        file.pointer_to_symbol_table.set(LE, 0);
        file.number_of_symbols.set(LE, 0);
        let optional = &mut nt.optional_header;
        optional.size_of_headers.set(LE, headers_len);
        optional.size_of_image.set(LE, address);
        optional.size_of_initialized_data.set(LE, align(data_len, 1)?);
        // Of what was there before, and asked by no firmware.
        optional.check_sum.set(LE, 0);

        let stub_data = self.bytes.get(stub_data).context("the stub is cut off")?;
        header.extend(table);
        header.resize(headers_len as usize, 0);
        header.extend(stub_data);
        header.resize(header.len() + padding as usize, 0);
        out.write_all(&header).context("cannot write it")?;
        for mut addition in additions {
            let len = io::copy(&mut (&mut addition.content).take(addition.size), &mut out);
            if len.with_context(|| format!("cannot copy {}", addition.name))? != addition.size {
                bail!("what is to be {} became shorter while it was read", addition.name);
            }
            let padding = u64::from(align(addition.size, file_alignment)?) - addition.size;
            out.write_all(&vec![0; padding as usize]).context("cannot write it")?;
        }
        Ok(())
    }
}
