//! Where an image's payloads come from.

use std::io::{Read, Seek};

/// Where a payload is read from: from its beginning to its end, `root` twice.
pub trait Source: Read + Seek {}

impl<T: Read + Seek> Source for T {}

/// The payloads.
#[allow(missing_debug_implementations, reason = "trait objects")]
pub struct Sources<'a> {
    /// Root filesystem; padded with zeros to a multiple of 4096 (IMG-21).
    pub root: &'a mut dyn Source,
    /// What boots it.
    pub boot: BootSource<'a>,
}

/// The payloads that go to the ESP (IMG-14).
#[allow(missing_debug_implementations, reason = "trait objects")]
pub enum BootSource<'a> {
    /// Two files.
    Kernel {
        /// Kernel, a PE file.
        linux: &'a mut dyn Source,
        /// Initial RAM disk.
        initrd: &'a mut dyn Source,
    },
    /// A unified kernel image, a PE file.
    Uki(&'a mut dyn Source),
}

impl Sources<'_> {
    /// All of them, in file order, with their names, which are their kinds, too.
    pub(super) fn all(&mut self) -> Vec<(&'static str, &mut dyn Source)> {
        let mut all: Vec<(&'static str, &mut dyn Source)> = vec![("root", &mut *self.root)];
        match &mut self.boot {
            BootSource::Kernel { linux, initrd } => {
                all.push(("linux", &mut **linux));
                all.push(("initrd", &mut **initrd));
            }
            BootSource::Uki(uki) => all.push(("uki", &mut **uki)),
        }
        all
    }
}
