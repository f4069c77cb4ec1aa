//! What a unified kernel image of ours must be (`specs/uki.md`): asked where it is built, where an image is verified, and on a
//! device before it is staged.

use std::io::{self, Read, Seek, SeekFrom};

use boot_entries::options::with_default_words;
use boot_entries::{BootOptions, Generation, OnCorruption};
use disk_layout::Slot;
use image_format::{Architecture, Digest, Manifest};
use object::LittleEndian as LE;
use object::pe::{IMAGE_DIRECTORY_ENTRY_SECURITY, ImageDosHeader, ImageNtHeaders64};
use object::read::pe::ImageOptionalHeader;
use secure_boot::pe::MAX_HEADER;
use secure_boot::{Machine, Pe, PeError, Section};
use uuid::Uuid;

/// Bytes of the longest `.cmdline`: no entry holds more options (`ENT-10`).
const MAX_COMMAND_LINE: u64 = 4096;
/// Bytes of the longest `.sdmagic`; a stub's own has about fifty.
const MAX_MAGIC: u64 = 256;
/// How the section `.sdmagic` begins, by which a systemd-stub tells that it is one (`UKI-2`).
pub const MAGIC: &[u8] = b"#### LoaderInfo: systemd-stub ";

/// The releases whose sources were read: what a stub takes from outside the image differs from one to the next (`UKI-2`).
const STUBS: std::ops::RangeInclusive<u32> = 252..=257;

/// What must be there once, and not empty (`UKI-3`).
const NEEDED: [&str; 3] = [".linux", ".initrd", ".cmdline"];
/// How the names begin of what makes one image several, or adds to it by the machine's hardware, as `.dtbauto` (`UKI-4`).
const REFUSED: [&str; 4] = [".profile", ".dtb", ".hwids", ".efifw"];

/// What an image's unified kernel image must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The machine it is for.
    pub architecture: Architecture,
    /// Its `.cmdline`, to the byte (`ENT-15`).
    pub command_line: String,
}

/// What follows for the command line from the image's content: what [`Expected::of`] takes from a manifest, for whoever has none yet.
#[derive(Debug, Clone, Copy)]
pub struct System<'a> {
    /// The dm-verity root hash.
    pub root_hash: &'a Digest,
    /// Where the hash tree begins.
    pub hash_offset: u64,
    /// The security epoch.
    pub epoch: u32,
    /// The version of the operating system.
    pub version: &'a str,
    /// The image's own options.
    pub options: &'a str,
}

/// What was found of an image that passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// It carries an Authenticode signature; whose was not asked.
    pub signed: bool,
}

/// A unified kernel image that is refused.
#[derive(Debug, thiserror::Error)]
pub enum UkiError {
    /// It cannot be read.
    #[error("the unified kernel image cannot be read")]
    Read(#[source] io::Error),
    /// Firmware would not load it, or not every firmware alike (`UKI-1`).
    #[error("the unified kernel image is not one that every firmware starts (UKI-1)")]
    Pe(#[source] PeError),
    /// For another machine (`UKI-1`).
    #[error("the unified kernel image is for {found} but the image is for {wanted} (UKI-1)")]
    Machine {
        /// By its header.
        found: Architecture,
        /// By the manifest.
        wanted: Architecture,
    },
    /// Not made of a systemd-stub (`UKI-2`).
    #[error(
        "the unified kernel image is not made of a systemd-stub, it has no section .sdmagic of one (UKI-2). Make it with ukify, mkosi or `ralph-image build --stub`"
    )]
    NoStub,
    /// Made of a stub of another release (`UKI-2`).
    #[error(
        "the unified kernel image is made of systemd-stub {0} (UKI-2): what it takes from outside the image is known here for 252 to 257 alone. Build it with one of these"
    )]
    Stub(u32),
    /// Something that must be there is not (`UKI-3`).
    #[error("the unified kernel image has no section {0}, or an empty one (UKI-3). Build it again with one")]
    Missing(&'static str),
    /// A name stands twice, or nearly (`UKI-4`).
    #[error(
        "the unified kernel image has more than one section that a stub may take for {0} (UKI-4). Build it again with one"
    )]
    Twice(String),
    /// A section that must not be there (`UKI-4`).
    #[error(
        "the unified kernel image has the section {0} (UKI-4): what boots would depend on more than what the image's manifest names. Build it again without"
    )]
    Refused(String),
    /// What boots is overlapped in memory (`UKI-5`).
    #[error(
        "the sections {0} and {1} of the unified kernel image overlap in memory (UKI-5). Build it with ukify, or with addresses further apart"
    )]
    Overlap(String, String),
    /// No command line (`UKI-6`).
    #[error("the unified kernel image has no section .cmdline, or an empty one (UKI-6). {}", Remedy(expected))]
    NoCommandLine {
        /// What must stand there.
        expected: String,
    },
    /// Another command line (`UKI-6`).
    #[error(
        "the command line in the unified kernel image is not this image's (UKI-6). It is\n    {found}\n{}",
        Remedy(expected)
    )]
    CommandLine {
        /// What stands there, printable.
        found: String,
        /// What must stand there.
        expected: String,
    },
    /// What is inside is no kernel (`UKI-7`).
    #[error("the section .linux of the unified kernel image is no kernel for this machine (UKI-7)")]
    Kernel(#[source] KernelError),
    /// The kernel can be started without what is around it (`UKI-7`).
    #[error(
        "the kernel in the unified kernel image is signed by itself (UKI-7): firmware would also start it alone, with any initrd and command line. \
         Build with a kernel without signature (sbattach --remove FILE; ukify --no-sign-kernel)"
    )]
    SignedKernel,
}

/// What to do about a command line.
struct Remedy<'a>(&'a str);

impl std::fmt::Display for Remedy<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Give exactly this line to whatever builds it (ukify --cmdline, mkosi KernelCommandLine), without a newline:\n    {}",
            self.0
        )
    }
}

/// Something that is no kernel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// Not a program of a known machine.
    #[error(transparent)]
    Program(#[from] image_format::PeError),
    /// Its headers are cut off.
    #[error("its PE headers are not whole")]
    Headers,
    /// For another machine.
    #[error("it is for {0}")]
    Machine(Architecture),
}

/// What the header of a kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    /// Bytes it takes in memory, its data without content included.
    pub size_of_image: u32,
    /// It carries an Authenticode signature.
    pub signed: bool,
}

/// The release in what follows [`MAGIC`], as `257.13-1`.
fn stub_release(text: &[u8]) -> Option<u32> {
    let digits = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    std::str::from_utf8(&text[..digits]).ok()?.parse().ok()
}

impl Expected {
    /// What the manifest demands.
    pub fn of(manifest: &Manifest) -> Expected {
        let (_, verity) = manifest.root();
        let system = System {
            root_hash: &verity.root_hash,
            hash_offset: verity.hash_offset,
            epoch: manifest.epoch,
            version: &manifest.version,
            options: &manifest.options,
        };
        Expected { architecture: manifest.architecture, command_line: system.command_line() }
    }
}

impl System<'_> {
    /// The signed command line (`ENT-15`).
    pub fn command_line(&self) -> String {
        let options = BootOptions {
            root_hash: *self.root_hash.as_bytes(),
            hash_offset: self.hash_offset,
            epoch: self.epoch,
            os_version: self.version.to_owned(),
            extra: with_default_words(self.options),
            // None of these stands in the line.
            partuuid: Uuid::nil(),
            on_corruption: OnCorruption::Fail,
            slot: Slot::A,
            generation: Generation::FIRST,
            system: [0; 32],
            failed: None,
        };
        options.signed_line()
    }
}

/// Checks that `image` is a unified kernel image as `expected`. Only headers and short sections are read.
///
/// # Errors
/// What is wrong with it, and what to do.
pub fn check(expected: &Expected, mut image: impl Read + Seek) -> Result<Checked, UkiError> {
    let mut pe = Pe::open(&mut image).map_err(pe_error)?;
    let found = match pe.machine() {
        Machine::X86_64 => Architecture::X86_64,
        Machine::Aarch64 => Architecture::Aarch64,
    };
    if found != expected.architecture {
        return Err(UkiError::Machine { found, wanted: expected.architecture });
    }
    let sections = pe.sections().to_vec();
    let [linux, _, command_line] = NEEDED.map(|name| sections.iter().find(|section| section.name() == name.as_bytes()));
    let magic = sections.iter().find(|section| section.name() == b".sdmagic").ok_or(UkiError::NoStub)?;
    let magic = pe.read_section(magic, MAX_MAGIC).map_err(pe_error)?;
    let release = stub_release(magic.strip_prefix(MAGIC).ok_or(UkiError::NoStub)?).ok_or(UkiError::NoStub)?;
    if !STUBS.contains(&release) {
        return Err(UkiError::Stub(release));
    }
    names(&sections)?;
    for name in NEEDED {
        let content = sections.iter().filter(|section| section.name() == name.as_bytes()).map(Section::content_size);
        match (name, content.sum::<u32>()) {
            (".cmdline", 0) => return Err(UkiError::NoCommandLine { expected: expected.command_line.clone() }),
            (_, 0) => return Err(UkiError::Missing(name)),
            _ => (),
        }
    }
    overlap(&sections)?;
    if let Some(section) = command_line {
        check_command_line(&pe.read_section(section, MAX_COMMAND_LINE).map_err(pe_error)?, &expected.command_line)?;
    }
    let signed = pe.is_signed();
    if let Some(section) = linux {
        check_kernel(&mut image, section, expected.architecture)?;
    }
    Ok(Checked { signed })
}

fn pe_error(error: PeError) -> UkiError {
    match error {
        PeError::Read(source) => UkiError::Read(source),
        other => UkiError::Pe(other),
    }
}

/// `UKI-4`.
fn names(sections: &[Section]) -> Result<(), UkiError> {
    for (index, section) in sections.iter().enumerate() {
        let (name, shown) = (section.name(), || String::from_utf8_lossy(section.name()).escape_default().to_string());
        if REFUSED.iter().any(|refused| name.starts_with(refused.as_bytes())) {
            return Err(UkiError::Refused(shown()));
        }
        // systemd-stub 252 compares as many letters as its own name has, and takes the last section that fits.
        let nearly = NEEDED.iter().find(|needed| name.starts_with(needed.as_bytes()) && name != needed.as_bytes());
        if let Some(needed) = nearly {
            return Err(UkiError::Twice((*needed).to_owned()));
        }
        if sections[..index].iter().any(|other| other.name() == name) {
            return Err(UkiError::Twice(shown()));
        }
    }
    Ok(())
}

/// `UKI-5`.
fn overlap(sections: &[Section]) -> Result<(), UkiError> {
    let memory = |section: &Section| {
        let start = u64::from(section.virtual_address);
        (start, start + u64::from(section.virtual_size))
    };
    let shown = |section: &Section| String::from_utf8_lossy(section.name()).escape_default().to_string();
    for section in sections.iter().filter(|section| NEEDED.iter().any(|name| section.name() == name.as_bytes())) {
        let (start, end) = memory(section);
        let on_it = |other: &&Section| {
            let (other_start, other_end) = memory(other);
            other.name() != section.name() && start < other_end && other_start < end
        };
        if let Some(other) = sections.iter().find(on_it) {
            return Err(UkiError::Overlap(shown(section), shown(other)));
        }
    }
    Ok(())
}

/// `UKI-6`.
fn check_command_line(content: &[u8], expected: &str) -> Result<(), UkiError> {
    // What fills the section up ends the line for every stub.
    let len = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let found = &content[..len];
    if found == expected.as_bytes() {
        return Ok(());
    }
    let expected = expected.to_owned();
    Err(match found.escape_ascii().to_string() {
        found if found.is_empty() => UkiError::NoCommandLine { expected },
        found => UkiError::CommandLine { found, expected },
    })
}

/// `UKI-7`.
fn check_kernel(image: &mut (impl Read + Seek), section: &Section, wanted: Architecture) -> Result<(), UkiError> {
    let mut head = Vec::new();
    image.seek(SeekFrom::Start(section.raw_offset.into())).map_err(UkiError::Read)?;
    let len = u64::from(section.content_size()).min(MAX_HEADER);
    image.take(len).read_to_end(&mut head).map_err(UkiError::Read)?;
    match kernel(&head, wanted).map_err(UkiError::Kernel)? {
        Kernel { signed: true, .. } => Err(UkiError::SignedKernel),
        _ => Ok(()),
    }
}

/// Reads the header of a kernel; `head` is its beginning, as much as there is up to [`MAX_HEADER`] bytes.
///
/// # Errors
/// When it is no kernel for this machine.
pub fn kernel(head: &[u8], wanted: Architecture) -> Result<Kernel, KernelError> {
    match image_format::pe_machine(head)? {
        found if found == wanted => (),
        found => return Err(KernelError::Machine(found)),
    }
    let dos = ImageDosHeader::parse(head).map_err(|_| KernelError::Headers)?;
    let mut position = dos.nt_headers_offset().into();
    let (nt, directories) = {
        use object::read::pe::ImageNtHeaders;
        ImageNtHeaders64::parse(head, &mut position).map_err(|_| KernelError::Headers)?
    };
    // Whatever its address is: to be asked too much costs a signature that is taken off.
    let signed = directories.iter().nth(IMAGE_DIRECTORY_ENTRY_SECURITY).is_some_and(|entry| entry.size.get(LE) != 0);
    Ok(Kernel { size_of_image: nt.optional_header.size_of_image(), signed })
}

#[cfg(test)]
pub(crate) mod tests;
