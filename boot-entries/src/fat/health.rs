//! How a FAT volume says it was left: the marks of an unclean end, and whether its copies of the FAT agree. Only read.

use std::io::{Read, Seek};

use super::{FatError, FatKind, Volume};

/// How the volume was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VolumeHealth {
    /// Somebody mounted it for writing and did not unmount it, or has it mounted now.
    pub dirty: bool,
    /// A driver met an error of the medium.
    pub medium_failed: bool,
    /// The copies of the FAT differ: a cut between the writes of one and the other.
    pub copies_differ: bool,
}

/// Bytes compared at a time.
const PIECE: u64 = 64 * 1024;

impl<T: Read + Seek> Volume<T> {
    /// How the volume was left.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn health(&mut self) -> Result<VolumeHealth, FatError> {
        // Linux keeps its own mark in the boot sector, beside the one in the FAT that others keep.
        let state_at = if self.geometry.kind == FatKind::Fat32 { 65 } else { 37 };
        let state = self.read_at(state_at, 1)?[0];
        // In the FAT's second entry: set bits mean that all is well.
        let (clean, sound) = match self.geometry.kind {
            FatKind::Fat12 => (true, true),
            FatKind::Fat16 => {
                let entry = u16::from_le_bytes(self.fat_bytes(self.geometry.fat_start + 2)?);
                (entry & 0x8000 != 0, entry & 0x4000 != 0)
            }
            FatKind::Fat32 => {
                let entry = u32::from_le_bytes(self.fat_bytes(self.geometry.fat_start + 4)?);
                (entry & 0x0800_0000 != 0, entry & 0x0400_0000 != 0)
            }
        };
        Ok(VolumeHealth {
            dirty: state & 1 != 0 || !clean,
            medium_failed: !sound,
            copies_differ: self.copies_differ()?,
        })
    }

    fn copies_differ(&mut self) -> Result<bool, FatError> {
        let copies = self.geometry.copies();
        let Some((first, others)) = copies.split_first() else { return Ok(false) };
        let mut at = 0;
        while at < self.geometry.fat_len {
            let len = usize::try_from(PIECE.min(self.geometry.fat_len - at)).unwrap_or(0);
            let expected = self.read_at(first + at, len)?;
            for other in others {
                if self.read_at(other + at, len)? != expected {
                    return Ok(true);
                }
            }
            at += len as u64;
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::fat::{FormatOptions, format_esp};

    fn volume() -> Volume<Cursor<Vec<u8>>> {
        let mut memory = Cursor::new(vec![0; 40 << 20]);
        format_esp(&mut memory, FormatOptions { label: "ESP", serial: 1, sector_size: 512 }).unwrap();
        Volume::open(memory).unwrap()
    }

    #[test]
    fn doc_12_each_mark_of_an_unclean_end_is_told() {
        let whole = VolumeHealth::default();
        assert_eq!(volume().health().unwrap(), whole);

        let mut linux = volume();
        linux.write_at(65, &[1]).unwrap();
        assert_eq!(linux.health().unwrap(), VolumeHealth { dirty: true, ..whole });

        for (byte, expected) in
            [(0x07, VolumeHealth { dirty: true, ..whole }), (0x0b, VolumeHealth { medium_failed: true, ..whole })]
        {
            let mut others = volume();
            for copy in others.geometry.copies() {
                others.write_at(copy + 7, &[byte]).unwrap();
            }
            assert_eq!(others.health().unwrap(), expected);
        }

        let mut cut = volume();
        let (copy, len) = (cut.geometry.copies()[1], cut.geometry.fat_len);
        cut.write_at(copy + len - 4, &[1]).unwrap();
        assert_eq!(cut.health().unwrap(), VolumeHealth { copies_differ: true, ..whole });
    }
}
