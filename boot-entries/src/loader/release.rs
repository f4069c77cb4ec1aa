//! In what the releases of the loader differ (`LDR-9`).

use std::fmt;

use super::ENDING;

/// A way in which releases of systemd-boot read entries. Which one a machine has cannot be known in general: the same
/// numbers hold it before and after a fix was taken back into them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// 252 (Debian 12).
    V252,
    /// 257, as it was first.
    V257,
    /// 257 from about its tenth point release on (Debian 13 holds 257.13): ids lose their counter.
    V257Stripped,
}

impl Release {
    /// All of them, oldest first.
    pub const ALL: [Release; 3] = [Release::V252, Release::V257, Release::V257Stripped];

    /// The marks around a value that do not belong to it.
    pub(super) const fn quotes(self) -> &'static [u8] {
        match self {
            Release::V252 => b"\"",
            Release::V257 | Release::V257Stripped => b"\"'",
        }
    }

    /// `LDR-1`: the name is one of an entry.
    pub(super) fn takes_name(self, name: &str) -> bool {
        let folded = name.to_ascii_lowercase();
        let automatic = match self {
            Release::V252 => name.starts_with("auto-"),
            Release::V257 | Release::V257Stripped => folded.starts_with("auto-"),
        };
        folded.ends_with(ENDING) && !name.starts_with('.') && !automatic
    }

    /// `LDR-3`: the id of a file.
    pub(super) fn id(self, name: &str, counted: bool) -> String {
        match (self, name.rsplit_once('+')) {
            (Release::V257Stripped, Some((stem, _))) if counted => format!("{stem}{ENDING}"),
            _ => name.to_ascii_lowercase(),
        }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Release::V252 => "252",
            Release::V257 => "257",
            Release::V257Stripped => "257.13",
        })
    }
}
