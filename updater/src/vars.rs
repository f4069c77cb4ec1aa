//! The boot loader's EFI variables that decide the next boot, as far as the machine shows them. Hints to read, never
//! state to depend on: firmware loses them, and many machines mount no efivarfs.

use std::path::Path;

use boot_entries::LoaderVars;
use boot_entries::loader::parse_efi_string;

/// Where Linux shows EFI variables.
pub const EFIVARS: &str = "/sys/firmware/efi/efivars";
const LOADER_GUID: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// Reads the variables from `dir`; what is missing or unreadable is absent.
pub fn read(dir: &Path) -> LoaderVars {
    let text = |name: &str| {
        let bytes = std::fs::read(dir.join(format!("{name}-{LOADER_GUID}"))).ok()?;
        parse_efi_string(&bytes).ok().filter(|s| !s.is_empty())
    };
    LoaderVars {
        one_shot: text("LoaderEntryOneShot"),
        default: text("LoaderEntryDefault"),
        last_booted: text("LoaderEntryLastBooted"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read_and_missing_ones_are_absent() {
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> =
            [7, 0, 0, 0].into_iter().chain("x-*\0".encode_utf16().flat_map(u16::to_le_bytes)).collect();
        std::fs::write(dir.path().join(format!("LoaderEntryDefault-{LOADER_GUID}")), bytes).unwrap();
        std::fs::write(dir.path().join(format!("LoaderEntryOneShot-{LOADER_GUID}")), b"x").unwrap();
        let vars = read(dir.path());
        assert_eq!(vars, LoaderVars { default: Some("x-*".into()), ..LoaderVars::default() });
    }
}
