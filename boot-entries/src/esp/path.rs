//! Paths on the ESP.

use std::fmt;
use std::str::FromStr;

/// A path of a file or directory on the ESP, relative to its root.
///
/// Parts are separated by `/`. No part is empty, `.` or `..`, none holds a character that FAT refuses, none ends in a dot
/// or a space (FAT drops those, so two spellings would name one file). A path that was parsed therefore stays inside
/// the volume and means the same file to every back end. Compared exactly; FAT itself ignores case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EspPath(String);

/// The longest name FAT can hold, in UTF-16 units.
const NAME_MAX: usize = 255;

/// Text that is no path on the ESP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a path of a FAT file system")]
pub struct NotAPath(pub String);

impl EspPath {
    /// A path that the program itself composed.
    ///
    /// # Panics
    /// When it is none.
    pub fn literal(text: &str) -> EspPath {
        text.parse().expect("a path composed by this crate is valid")
    }

    /// The text, parts separated by `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path of `name` inside this directory.
    ///
    /// # Errors
    /// When `name` is not one part of a path.
    pub fn join(&self, name: &str) -> Result<EspPath, NotAPath> {
        if valid_part(name) { Ok(EspPath(format!("{}/{name}", self.0))) } else { Err(NotAPath(name.to_owned())) }
    }

    /// Directory and last part; the directory is None in the root.
    pub fn split(&self) -> (Option<EspPath>, &str) {
        match self.0.rsplit_once('/') {
            Some((dir, name)) => (Some(EspPath(dir.to_owned())), name),
            None => (None, &self.0),
        }
    }

    /// The parts, from the root downwards.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

fn valid_part(part: &str) -> bool {
    let legal = |c: char| !c.is_control() && !"\"*/:<>?\\|".contains(c);
    !part.is_empty()
        && !part.ends_with(['.', ' '])
        && part.encode_utf16().count() <= NAME_MAX
        && part.chars().all(legal)
}

impl FromStr for EspPath {
    type Err = NotAPath;

    fn from_str(text: &str) -> Result<EspPath, NotAPath> {
        if text.split('/').all(valid_part) { Ok(EspPath(text.to_owned())) } else { Err(NotAPath(text.to_owned())) }
    }
}

impl fmt::Display for EspPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside_the_volume() {
        for text in ["loader/entries", "EFI/BOOT/BOOTX64.EFI", "ralphos/a/g7-linux", "a+b.conf", "ö"] {
            assert_eq!(text.parse::<EspPath>().unwrap().as_str(), text);
        }
        for text in [
            "", "/", "/a", "a/", "a//b", "..", "a/../b", ".", "a/.", "a\\b", "a:b", "a?", "a*", "a.", "a ", "a\nb",
            "a\0",
        ] {
            assert_eq!(text.parse::<EspPath>(), Err(NotAPath(text.to_owned())));
        }
        assert!("x".repeat(255).parse::<EspPath>().is_ok());
        assert!("x".repeat(256).parse::<EspPath>().is_err());
    }

    #[test]
    fn joined_and_split() {
        let dir: EspPath = "loader/entries".parse().unwrap();
        let file = dir.join("a.conf").unwrap();
        assert_eq!(file.split(), (Some(dir.clone()), "a.conf"));
        assert!(dir.join("a/b").is_err());
        assert!(dir.join("..").is_err());
        assert_eq!("top".parse::<EspPath>().unwrap().split(), (None, "top"));
    }
}
