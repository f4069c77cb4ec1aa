//! Was the running kernel started by another kernel, and not by the firmware's loader (`GRD-13`)?

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::num::ParseIntError;
use std::path::{Path, PathBuf};

/// Where Linux says who loaded it; x86 alone has the file.
const BOOTLOADER_TYPE: &str = "proc/sys/kernel/bootloader_type";
/// Elsewhere: the device tree that the kernel was given, as bytes. The EFI stub makes one where the firmware has none.
const DEVICE_TREE: &str = "sys/firmware/fdt";
/// Bytes of the longest device tree that Linux takes (`MAX_FDT_SIZE`).
const DEVICE_TREE_MAX: u64 = 2 << 20;
const COMMAND_LINE: &str = "proc/cmdline";
const RELEASE: &str = "proc/sys/kernel/osrelease";
/// A crash kernel shows here the memory of the one before it.
const VMCORE: &str = "proc/vmcore";

/// What the kernel calls the loader that is a kernel (`Documentation/arch/x86/boot.rst`, `type_of_loader`).
const LOADER_KEXEC: u32 = 0xd;
/// A property that a kernel adds to the tree it hands over (`of_kexec_alloc_and_setup_fdt`); names end in NUL.
const STARTED_BY_KERNEL: &[u8] = b"linux,booted-from-kexec\0";
/// How the older system call's tool says where the initrd lies.
const INITRD_IN_TREE: &[u8] = b"linux,initrd-start\0";
/// What the EFI stub puts into the tree, and each kernel hands on to the next. Without it no EFI firmware stands at the beginning, and
/// whatever loader there is says by the tree where the initrd lies.
const FROM_EFI: &[u8] = b"linux,uefi-system-table\0";
/// From here on the EFI stub says that by a configuration table, and no longer in the tree. (It changed before this one, of
/// 2023; which release did is not known for sure, and one that is taken for newer than it is would never commit.)
const STUB_USES_A_TABLE: (u32, u32) = (6, 6);
/// How a crash kernel is told of the one before it.
const ELFCOREHDR: &str = "elfcorehdr=";

/// It cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum KexecError {
    /// A file of the kernel's cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The loader's type is no number.
    #[error("{} holds no number: {text:?}", path.display())]
    NoLoaderType {
        /// The file.
        path: PathBuf,
        /// What it holds.
        text: String,
        /// What is wrong with it.
        source: ParseIntError,
    },
}

/// `GRD-13`, asked of the kernel whose `/proc` and `/sys` lie below `root`, which is `/` but for tests.
///
/// # Errors
/// When a file is there and cannot be read or understood.
pub fn started_by_kexec(root: &Path) -> Result<bool, KexecError> {
    let loader = root.join(BOOTLOADER_TYPE);
    if let Some(text) = read(&loader)? {
        let text = String::from_utf8_lossy(&text).into_owned();
        return match text.trim().parse() {
            Ok(number) => Ok(is_kexec_loader(number)),
            Err(source) => Err(KexecError::NoLoaderType { path: loader, text, source }),
        };
    }
    let vmcore = root.join(VMCORE);
    if vmcore.try_exists().map_err(|source| KexecError::Read { path: vmcore, source })? {
        return Ok(true);
    }
    let line = must_read(&root.join(COMMAND_LINE))?;
    if line.split_ascii_whitespace().any(|word| word.starts_with(ELFCOREHDR)) {
        return Ok(true);
    }
    let release = must_read(&root.join(RELEASE))?;
    Ok(read(&root.join(DEVICE_TREE))?.is_some_and(|tree| tree_of_kexec(&tree, &release)))
}

/// The number holds the loader's type above four bits of its version.
fn is_kexec_loader(number: u32) -> bool {
    number >> 4 == LOADER_KEXEC
}

/// Does this device tree of the kernel `release` come from another kernel?
fn tree_of_kexec(tree: &[u8], release: &str) -> bool {
    let stub_uses_a_table = version(release) >= Some(STUB_USES_A_TABLE) && names(tree, FROM_EFI);
    names(tree, STARTED_BY_KERNEL) || (stub_uses_a_table && names(tree, INITRD_IN_TREE))
}

/// The names of a tree's properties stand in it one after the other, each once.
fn names(tree: &[u8], name: &[u8]) -> bool {
    tree.windows(name.len()).any(|window| window == name)
}

/// The first two numbers of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The bytes of a file, if it is there.
fn read(path: &Path) -> Result<Option<Vec<u8>>, KexecError> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(DEVICE_TREE_MAX).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(KexecError::Read { path: path.to_owned(), source }),
    }
}

fn must_read(path: &Path) -> Result<String, KexecError> {
    fs::read_to_string(path).map_err(|source| KexecError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RELEASE_FILE: (&str, &[u8]) = (RELEASE, b"6.12.107+deb13-arm64\n");
    const QUIET: (&str, &[u8]) = (COMMAND_LINE, b"quiet\n");

    /// The answer of a machine with these files.
    fn asked(files: &[(&str, &[u8])]) -> Result<bool, String> {
        let root = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let place = format!("{}/", root.path().display());
        started_by_kexec(root.path()).map_err(|error| error.to_string().replace(&place, "/"))
    }

    #[test]
    fn grd13_elsewhere_the_device_tree_tells() {
        let tree = |bytes, release| asked(&[QUIET, (RELEASE, release), (DEVICE_TREE, bytes)]);
        assert_eq!(tree(b"\xd0\x0d\xfe\xedlinux,uefi-mmap-size\0linux,booted-from-kexec\0x\0", b"6.1.0"), Ok(true));
        assert_eq!(tree(b"linux,booted-from-kexec", b"6.12.1"), Ok(false), "another name, or a tree cut short");
        // What kexec-tools leave where the kernel has no kexec_file_load; older stubs do so themselves.
        let initrd = b"\xd0\x0d\xfe\xedlinux,initrd-start\0linux,initrd-end\0linux,uefi-system-table\0";
        for (release, kexec) in [
            ("6.12.107+deb13", true),
            ("6.6.0", true),
            ("7.0-rc1", true),
            ("6.1.0-30", false),
            ("?", false),
            ("", false),
        ] {
            assert_eq!(tree(initrd, release.as_bytes()), Ok(kexec), "{release}");
        }
        let no_efi = b"\xd0\x0d\xfe\xedlinux,initrd-start\0linux,initrd-end\0";
        assert_eq!(tree(no_efi, b"6.12.1"), Ok(false), "a loader that is no EFI program, as QEMU's own");
        assert_eq!(tree(b"", b"6.12.1"), Ok(false));
        assert_eq!(asked(&[QUIET, RELEASE_FILE]), Ok(false), "no tree: a machine with ACPI alone");
        assert_eq!(asked(&[(BOOTLOADER_TYPE, b"33\n"), (DEVICE_TREE, b"linux,booted-from-kexec\0")]), Ok(false));
    }

    #[test]
    fn grd13_the_loaders_type_is_what_counts_where_there_is_one() {
        // type_of_loader 0xd0 of kexec; 0x21 of the EFI stub; 0x7x of GRUB; 0xb0 of QEMU; what 13 alone would be: type 0, version 13.
        for (text, kexec) in [
            ("208\n", true),
            ("209", true),
            ("223", true),
            ("224", false),
            ("33\n", false),
            ("114\n", false),
            ("176\n", false),
            ("13\n", false),
        ] {
            assert_eq!(asked(&[(BOOTLOADER_TYPE, text.as_bytes()), (VMCORE, b"")]), Ok(kexec), "{text:?}");
        }
        for text in ["", "many", "-1", "0xd0"] {
            let said = asked(&[(BOOTLOADER_TYPE, text.as_bytes())]).unwrap_err();
            assert_eq!(said, format!("/proc/sys/kernel/bootloader_type holds no number: {text:?}"));
        }
    }

    #[test]
    fn grd13_elsewhere_a_crash_kernel_is_known() {
        let line = |text| asked(&[(COMMAND_LINE, text), RELEASE_FILE]);
        assert_eq!(line(b"quiet xelfcorehdr=1"), Ok(false));
        assert_eq!(line(b"quiet elfcorehdr=0x1000\n"), Ok(true));
        assert_eq!(asked(&[(VMCORE, b"")]), Ok(true));
        assert_eq!(asked(&[]), Err("cannot read /proc/cmdline".to_owned()));
    }

    proptest! {
        #[test]
        fn grd13_no_text_breaks_it(tree: Vec<u8>, release: String) {
            let _ = tree_of_kexec(&tree, &release);
        }

        #[test]
        fn grd13_every_version_of_kexec(number: u32) {
            prop_assert_eq!(is_kexec_loader(number), (208..224).contains(&number));
        }
    }
}
