//! Was the running kernel started by another kernel, and not by the firmware's loader (`GRD-13`)?

use std::num::ParseIntError;

/// Where Linux says who loaded it; x86 alone has the file.
pub const BOOTLOADER_TYPE: &str = "/proc/sys/kernel/bootloader_type";
/// A crash kernel shows here the memory of the one before it.
pub const VMCORE: &str = "/proc/vmcore";

/// What the kernel calls the loader that is a kernel (`Documentation/arch/x86/boot.rst`, `type_of_loader`).
const LOADER_KEXEC: u32 = 0xd;
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

/// `GRD-13`, of the texts of [`BOOTLOADER_TYPE`] (none where there is no such file) and `/proc/cmdline`, and whether [`VMCORE`] is there. The
/// number holds the loader's type above four bits of its version. Only x86 has it; elsewhere a crash kernel is known by what it was told of the
/// one before it, and any other kernel started by a kernel is not known.
///
/// # Errors
/// When the file is there and holds no number.
pub fn is_kexec(bootloader_type: Option<&str>, command_line: &str, vmcore: bool) -> Result<bool, NoLoaderType> {
    match bootloader_type {
        Some(text) => match text.trim().parse::<u32>() {
            Ok(number) => Ok(number >> 4 == LOADER_KEXEC),
            Err(source) => Err(NoLoaderType { text: text.to_owned(), source }),
        },
        None => Ok(vmcore || command_line.split_ascii_whitespace().any(|word| word.starts_with(ELFCOREHDR))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
