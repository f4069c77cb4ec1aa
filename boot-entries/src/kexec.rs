//! Was the running kernel started by another kernel, and not by the firmware's loader (`GRD-13`)?

use std::num::ParseIntError;

/// Where Linux says who loaded it; x86 alone has the file.
pub const BOOTLOADER_TYPE: &str = "/proc/sys/kernel/bootloader_type";
/// Elsewhere: the device tree that the kernel was given, as bytes. The EFI stub makes one where the firmware has none.
pub const DEVICE_TREE: &str = "/sys/firmware/fdt";
/// Bytes of the longest device tree that Linux takes (`MAX_FDT_SIZE`).
pub const DEVICE_TREE_MAX: u64 = 2 << 20;
/// A crash kernel shows here the memory of the one before it.
pub const VMCORE: &str = "/proc/vmcore";

/// What the kernel calls the loader that is a kernel (`Documentation/arch/x86/boot.rst`, `type_of_loader`).
const LOADER_KEXEC: u32 = 0xd;
/// A property that the kernel before adds to the tree it hands over (`of_kexec_alloc_and_setup_fdt`); names end in NUL.
const STARTED_BY_KERNEL: &[u8] = b"linux,booted-from-kexec\0";
/// How a crash kernel is told of the one before it.
const ELFCOREHDR: &str = "elfcorehdr=";

/// [`BOOTLOADER_TYPE`] holds no number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{BOOTLOADER_TYPE} holds no number: {text:?}")]
pub struct NoLoaderType {
    /// What it holds.
    pub text: String,
    /// What is wrong with it.
    pub source: ParseIntError,
}

/// What there is to tell by.
#[derive(Debug, Clone, Copy, Default)]
pub struct Traces<'a> {
    /// The text of [`BOOTLOADER_TYPE`]; none where there is no such file.
    pub bootloader_type: Option<&'a str>,
    /// The bytes of [`DEVICE_TREE`]; none where there is no such file.
    pub device_tree: Option<&'a [u8]>,
    /// The text of `/proc/cmdline`.
    pub command_line: &'a str,
    /// [`VMCORE`] is there.
    pub vmcore: bool,
}

/// `GRD-13`. The number in [`BOOTLOADER_TYPE`] holds the loader's type above four bits of its version. Only x86 has it;
/// elsewhere the device tree tells, and a crash kernel is known by what it was told of the one before it, too.
///
/// # Errors
/// When the file is there and holds no number.
pub fn is_kexec(traces: Traces<'_>) -> Result<bool, NoLoaderType> {
    match traces.bootloader_type {
        Some(text) => match text.trim().parse::<u32>() {
            Ok(number) => Ok(number >> 4 == LOADER_KEXEC),
            Err(source) => Err(NoLoaderType { text: text.to_owned(), source }),
        },
        None => Ok(traces.vmcore
            || traces.command_line.split_ascii_whitespace().any(|word| word.starts_with(ELFCOREHDR))
            || traces.device_tree.is_some_and(|tree| names(tree, STARTED_BY_KERNEL))),
    }
}

/// The names of a tree's properties stand in it one after the other, each once.
fn names(tree: &[u8], name: &[u8]) -> bool {
    tree.windows(name.len()).any(|window| window == name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_kexec(bootloader_type: Option<&str>, command_line: &str, vmcore: bool) -> Result<bool, NoLoaderType> {
        super::is_kexec(Traces { bootloader_type, command_line, vmcore, device_tree: None })
    }

    #[test]
    fn grd13_elsewhere_the_device_tree_tells() {
        let of = |bootloader_type, tree| {
            super::is_kexec(Traces { bootloader_type, device_tree: Some(tree), ..Traces::default() })
        };
        assert_eq!(of(None, b"\xd0\x0d\xfe\xedchosen\0linux,initrd-start\0linux,booted-from-kexec\0x\0"), Ok(true));
        assert_eq!(of(None, b"linux,booted-from-kexec"), Ok(false), "another name that begins so, or a tree cut short");
        assert_eq!(of(None, b""), Ok(false));
        assert_eq!(of(Some("33"), b"linux,booted-from-kexec\0"), Ok(false));
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
            assert_eq!(is_kexec(Some(text), "elfcorehdr=1", true), Ok(kexec), "{text:?}");
        }
        for text in ["", "many", "-1", "0xd0"] {
            assert!(is_kexec(Some(text), "elfcorehdr=1", true).is_err(), "{text:?}");
        }
    }

    #[test]
    fn grd13_elsewhere_a_crash_kernel_is_known() {
        assert_eq!(is_kexec(None, "quiet xelfcorehdr=1", false), Ok(false));
        assert_eq!(is_kexec(None, "quiet", true), Ok(true));
        assert_eq!(is_kexec(None, "quiet elfcorehdr=0x1000\n", false), Ok(true));
    }

    proptest! {
        #[test]
        fn grd13_no_text_breaks_it(loader: Option<String>, line: String, vmcore: bool) {
            let _ = is_kexec(loader.as_deref(), &line, vmcore);
        }

        #[test]
        fn grd13_every_version_of_kexec(number: u32) {
            prop_assert_eq!(is_kexec(Some(&number.to_string()), "", false), Ok((208..224).contains(&number)));
        }
    }
}
