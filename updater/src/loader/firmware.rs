//! The firmware's own choice of what to start: `BootNext`, `BootOrder` and the option for the alternate loader (UEFI 2.10, section 3.3;
//! LUP-5).

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use boot_entries::options::hex;
use boot_entries::vars::{is_kept, read_text};
use disk_layout::DiskLayout;

use crate::vars::make_mutable;

/// Of the variables that UEFI itself defines.
const GLOBAL_GUID: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// What systemd-boot says of its own file.
const STARTED: &str = "LoaderImageIdentifier";
/// Kept; readable and writable while booting and afterwards.
const ATTRIBUTES: u32 = 7;
/// Of a load option: it may be started.
const ACTIVE: u32 = 1;
/// How our option is found again; behind it stands the loader's [`Standing`], and the beginning of its SHA-256.
const DESCRIPTION: &str = "RalphOS alternate boot loader";
/// Options are numbered from here down: firmware numbers its own from 0 up, and need not look at what stands in no order.
const HIGHEST: u16 = 0x0FFF;
const LOWEST: u16 = 0x0F00;

/// What is known of the alternate loader: a word in its option's description, which a person reads in the firmware's menu, too (LUP-5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The firmware was not yet asked to try it.
    Waits,
    /// It was asked to, the first time.
    FirstTry,
    /// It was asked to, the second and last time.
    SecondTry,
    /// It has started a system that is committed.
    Proven,
    /// It is the one before the default.
    Previous,
}

impl Standing {
    const ALL: [Self; 5] = [Self::Waits, Self::FirstTry, Self::SecondTry, Self::Proven, Self::Previous];

    const fn word(self) -> &'static str {
        match self {
            Self::Waits => "waits",
            Self::FirstTry => "try 1",
            Self::SecondTry => "try 2",
            Self::Proven => "proven",
            Self::Previous => "previous",
        }
    }
}

/// An option of ours, as the firmware has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OurOption {
    /// `Boot####`.
    pub number: u16,
    bytes: Vec<u8>,
}

impl OurOption {
    /// What it says of the loader with this SHA-256 as the file `file` of this disk; nothing where it is about another one.
    pub fn standing(&self, layout: &DiskLayout, file: &str, sha256: &[u8; 32]) -> Option<Standing> {
        Standing::ALL.into_iter().find(|standing| self.bytes == load_option(layout, file, *standing, sha256))
    }
}

/// A variable that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}", path.display())]
pub struct VariableFault {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// The variables below a folder, as Linux shows them.
#[derive(Debug, Clone, Copy)]
pub struct BootVariables<'d> {
    dir: &'d Path,
}

impl<'d> BootVariables<'d> {
    pub fn in_dir(dir: &'d Path) -> Self {
        Self { dir }
    }

    /// Which program the firmware started, as a path with backslashes in small letters; none where the loader of this boot does not say.
    pub fn started(self) -> Option<String> {
        if is_kept(self.dir, STARTED) {
            return None;
        }
        let path = read_text(self.dir, STARTED).ok().flatten()?;
        Some(path.replace('/', "\\").trim_start_matches('\\').to_ascii_lowercase())
    }

    /// The option that the next boot starts with, once.
    pub fn next(self) -> Result<Option<u16>, VariableFault> {
        Ok(self.read("BootNext")?.and_then(|value| Some(u16::from_le_bytes(value.try_into().ok()?))))
    }

    pub fn set_next(self, option: u16) -> Result<(), VariableFault> {
        self.write("BootNext", &option.to_le_bytes())
    }

    /// Takes `BootNext` away, if it is this.
    pub fn unset_next(self, option: u16) -> Result<(), VariableFault> {
        if self.next()? != Some(option) {
            return Ok(());
        }
        let path = self.path("BootNext");
        let removed = make_mutable(&path).and_then(|()| std::fs::remove_file(&path));
        removed.map_err(|source| VariableFault { what: "remove", path, source })
    }

    /// Our option.
    pub fn option(self) -> Result<Option<OurOption>, VariableFault> {
        for number in self.numbers()? {
            let bytes = match self.read(&name(number)) {
                Ok(bytes) => bytes.filter(|bytes| is_ours(bytes)),
                // One of somebody else's that cannot be read keeps nobody from anything.
                Err(_) if number < LOWEST => None,
                Err(error) => return Err(error),
            };
            if let Some(bytes) = bytes {
                return Ok(Some(OurOption { number, bytes }));
            }
        }
        Ok(None)
    }

    /// Sees to it that there is an option for the program `file` of this disk's EFI partition that says this of the loader with this
    /// SHA-256, and gives its number.
    pub fn set_option(
        self,
        layout: &DiskLayout,
        file: &str,
        standing: Standing,
        sha256: &[u8; 32],
    ) -> Result<u16, VariableFault> {
        let wanted = load_option(layout, file, standing, sha256);
        let number = match self.option()? {
            Some(option) if option.bytes == wanted => return Ok(option.number),
            Some(option) => option.number,
            None => {
                let taken = self.numbers()?;
                (LOWEST..=HIGHEST).rev().find(|number| !taken.contains(number)).unwrap_or(HIGHEST)
            }
        };
        self.write(&name(number), &wanted)?;
        Ok(number)
    }

    /// Takes what is ours out of the order that the firmware tries options in.
    pub fn leave_order(self) -> Result<(), VariableFault> {
        let Some(order) = self.read("BootOrder")? else { return Ok(()) };
        let others = self.others(&order);
        if others == order { Ok(()) } else { self.write("BootOrder", &others) }
    }

    /// An order without what is ours.
    fn others(self, order: &[u8]) -> Vec<u8> {
        let ours = |one: &&[u8]| match **one {
            [low, high] => {
                let option = self.read(&name(u16::from_le_bytes([low, high]))).ok().flatten();
                option.is_some_and(|option| is_ours(&option))
            }
            _ => false,
        };
        order.chunks(2).filter(|one| !ours(one)).flatten().copied().collect()
    }

    /// Sees to it that our option stands behind all others, so that the firmware tries it when it can start none of them. Not where none of
    /// them is what started this boot: a firmware that looks for the default loader by itself would find ours first. False: it stands
    /// nowhere now.
    pub fn stand_last(self, option: u16) -> Result<bool, VariableFault> {
        let Some(order) = self.read("BootOrder")? else { return Ok(false) };
        let current = self.read("BootCurrent")?;
        let mut wanted = self.others(&order);
        let holds_current = wanted.chunks_exact(2).any(|one| current.as_deref() == Some(one));
        if holds_current && order.len() % 2 == 0 {
            wanted.extend_from_slice(&option.to_le_bytes());
        }
        if wanted != order {
            self.write("BootOrder", &wanted)?;
        }
        Ok(holds_current)
    }

    fn numbers(self) -> Result<Vec<u16>, VariableFault> {
        let fault = |source| VariableFault { what: "list", path: self.dir.to_owned(), source };
        let mut numbers = Vec::new();
        for file in std::fs::read_dir(self.dir).map_err(fault)? {
            let file = file.map_err(fault)?.file_name();
            let digits =
                file.to_str().and_then(|name| name.strip_prefix("Boot")?.strip_suffix(&format!("-{GLOBAL_GUID}")));
            numbers.extend(digits.filter(|it| it.len() == 4).and_then(|it| u16::from_str_radix(it, 16).ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn path(self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}-{GLOBAL_GUID}"))
    }

    fn read(self, name: &str) -> Result<Option<Vec<u8>>, VariableFault> {
        let path = self.path(name);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(bytes.get(4..).map(<[u8]>::to_vec)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(VariableFault { what: "read", path, source }),
        }
    }

    /// In one call: efivarfs hands each to the firmware as it is.
    fn write(self, name: &str, value: &[u8]) -> Result<(), VariableFault> {
        let path = self.path(name);
        let fault = |source| VariableFault { what: "write", path: path.clone(), source };
        match make_mutable(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(fault(error)),
            _ => {}
        }
        let bytes = [&ATTRIBUTES.to_le_bytes(), value].concat();
        std::fs::write(&path, &bytes).map_err(fault)?;
        // A firmware that has no room left may say yes all the same.
        let kept = std::fs::read(&path).map_err(fault)?;
        if kept == bytes { Ok(()) } else { Err(fault(io::Error::other("the firmware does not keep it"))) }
    }
}

fn name(number: u16) -> String {
    format!("Boot{number:04X}")
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

fn is_ours(option: &[u8]) -> bool {
    let description = utf16(DESCRIPTION);
    option.get(6..).is_some_and(|rest| rest.starts_with(&description[..description.len() - 2]))
}

/// `EFI_LOAD_OPTION` with the short form of a path: the partition, and the file on it (UEFI 2.10, sections 3.1.3 and 10.3.5).
fn load_option(layout: &DiskLayout, file: &str, standing: Standing, sha256: &[u8; 32]) -> Vec<u8> {
    let description = format!("{DESCRIPTION} ({}, {})", standing.word(), hex(&sha256[..4]));
    let file = utf16(file);
    let file_node = [&[4, 4], &node_len(file.len())[..], &file].concat();
    let (start, len) = (layout.esp.start / layout.sector_size, layout.esp.len / layout.sector_size);
    let partition = [
        &[4, 1][..],
        &node_len(38),
        &layout.esp.number.to_le_bytes(),
        &start.to_le_bytes(),
        &len.to_le_bytes(),
        &layout.esp.unique_guid.to_bytes_le(),
        // A GUID partition table, and so the GUID is its.
        &[2, 2],
    ]
    .concat();
    let path = [&partition[..], &file_node, &[0x7F, 0xFF, 4, 0]].concat();
    [&ACTIVE.to_le_bytes()[..], &(path.len() as u16).to_le_bytes(), &utf16(&description), &path].concat()
}

/// The length of a node, its head of four bytes included.
fn node_len(content: usize) -> [u8; 2] {
    (content as u16 + 4).to_le_bytes()
}
