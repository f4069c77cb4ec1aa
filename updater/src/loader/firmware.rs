//! The firmware's own choice of what to start: `BootNext`, `BootOrder` and the option for the alternate loader (UEFI 2.10, section 3.3;
//! LUP-5).

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use boot_entries::vars::read_text;
use disk_layout::DiskLayout;

use crate::vars::make_mutable;

/// Of the variables that UEFI itself defines.
const GLOBAL_GUID: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Kept; readable and writable while booting and afterwards.
const ATTRIBUTES: u32 = 7;
/// Of a load option: it may be started.
const ACTIVE: u32 = 1;
/// How our option is found again.
const DESCRIPTION: &str = "RalphOS alternate boot loader";

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

    /// Which program the firmware started, as a path with backslashes in small letters; none where the loader does not say.
    pub fn started(self) -> Option<String> {
        let path = read_text(self.dir, "LoaderImageIdentifier").ok().flatten()?;
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

    /// The number of our option, if there is one.
    pub fn alternate(self) -> Result<Option<u16>, VariableFault> {
        for number in self.numbers()? {
            if self.read(&name(number))?.is_some_and(|option| is_ours(&option)) {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// Sees to it that there is an option for the program `file` of this disk's EFI partition, and gives its number.
    pub fn ensure_alternate(self, layout: &DiskLayout, file: &str) -> Result<u16, VariableFault> {
        let wanted = load_option(layout, file);
        let number = match self.alternate()? {
            Some(number) => number,
            None => {
                let taken = self.numbers()?;
                // There are 65536, and a firmware holds some dozens.
                (0..=u16::MAX).find(|number| !taken.contains(number)).unwrap_or(u16::MAX)
            }
        };
        if self.read(&name(number))?.as_ref() != Some(&wanted) {
            self.write(&name(number), &wanted)?;
        }
        Ok(number)
    }

    /// Puts our option behind all others, so that the firmware tries it when it can start none of them. Not where none of them is what
    /// started this boot: a firmware that looks for the default loader by itself would find ours first. False: it stands nowhere now.
    pub fn append(self, option: u16) -> Result<bool, VariableFault> {
        let Some(mut order) = self.read("BootOrder")? else { return Ok(false) };
        let (ours, current) = (option.to_le_bytes(), self.read("BootCurrent")?);
        let stands = |wanted: &[u8]| order.chunks_exact(2).any(|one| one == wanted);
        if stands(&ours) {
            return Ok(true);
        }
        if order.len() % 2 != 0 || !current.is_some_and(|current| stands(&current)) {
            return Ok(false);
        }
        order.extend_from_slice(&ours);
        self.write("BootOrder", &order)?;
        Ok(true)
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
    option.get(6..).is_some_and(|rest| rest.starts_with(&utf16(DESCRIPTION)))
}

/// `EFI_LOAD_OPTION` with the short form of a path: the partition, and the file on it (UEFI 2.10, sections 3.1.3 and 10.3.5).
fn load_option(layout: &DiskLayout, file: &str) -> Vec<u8> {
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
    [&ACTIVE.to_le_bytes()[..], &(path.len() as u16).to_le_bytes(), &utf16(DESCRIPTION), &path].concat()
}

/// The length of a node, its head of four bytes included.
fn node_len(content: usize) -> [u8; 2] {
    (content as u16 + 4).to_le_bytes()
}
