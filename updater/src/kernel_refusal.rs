//! The firmware may refuse the kernel of an entry (UPD-51): what those who know it tell those who give an entry up.

use boot_entries::{Esp, EspError, OurEntry};

/// Why the firmware would not start a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelRefusal {
    /// Any firmware with these keys refuses it; else some may.
    pub certain: bool,
    /// For a person.
    pub why: String,
}

/// Asks what the firmware would do with the kernel of an entry; none: it would start it, or nothing is known.
pub type AskFirmware<'f> = &'f dyn Fn(&mut dyn Esp, &OurEntry) -> Result<Option<KernelRefusal>, EspError>;

/// Nothing is known of the firmware.
///
/// # Errors
/// None.
pub fn nothing_known(_: &mut dyn Esp, _: &OurEntry) -> Result<Option<KernelRefusal>, EspError> {
    Ok(None)
}
