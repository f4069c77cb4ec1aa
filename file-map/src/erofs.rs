//! erofs, as in the kernel's `fs/erofs/erofs_fs.h` and `Documentation/filesystems/erofs.rst` (section "On-disk details").

use crate::image::{Damage, Image, MapError, u16_at, u32_at, u64_at};
use crate::{Data, Extent, FileSystem, MappedFile, Node, push, walk};

const SUPERBLOCK: u64 = 1024;
const MAGIC: u32 = 0xE0F5_E1E2;
/// Incompatible features that change only how compressed files and long attributes are kept, or are read below (chunk-based files, 0x4).
const KNOWN: u32 = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x20 | 0x40;

/// Layouts of an inode's data (`erofs_fs.h`).
const FLAT_PLAIN: u16 = 0;
const FLAT_INLINE: u16 = 2;
const CHUNK_BASED: u16 = 4;

/// A chunk of a sparse file that is not there.
const HOLE: u32 = u32::MAX;

pub(crate) fn is_erofs(image: &mut Image<'_>) -> Result<bool, MapError> {
    Ok(image.len() >= SUPERBLOCK + 128 && u32_at(&image.bytes(SUPERBLOCK, 4)?, 0) == MAGIC)
}

pub(crate) fn files(image: &mut Image<'_>) -> Result<(Vec<MappedFile>, Vec<MappedFile>), MapError> {
    let head = image.bytes(SUPERBLOCK, 128)?;
    let unknown = u32_at(&head, 80) & !KNOWN;
    if unknown != 0 {
        return Err(MapError::unsupported(format!("erofs with incompatible features {unknown:#x}")));
    }
    if u16_at(&head, 86) != 0 {
        return Err(MapError::unsupported("erofs on several devices"));
    }
    // 512 bytes to 64 KiB.
    let block_bits = head[12];
    if !(9..=16).contains(&block_bits) {
        return Err(MapError::damaged(Damage::Superblock));
    }
    let root = u64::from(u16_at(&head, 14));
    let inodes_at = u64::from(u32_at(&head, 40)) << block_bits;
    walk(&mut Erofs { image, block: 1 << block_bits, inodes_at }, root)
}

struct Erofs<'a, 'i> {
    image: &'a mut Image<'i>,
    block: u64,
    inodes_at: u64,
}

/// What is read of an inode.
struct Inode {
    mode: u16,
    size: u64,
    layout: u16,
    /// `i_u`: the first block, or how chunks are kept.
    place: u32,
    /// Where inode and attributes end and an inline tail or the chunks' places begin.
    behind: u64,
}

impl Erofs<'_, '_> {
    fn inode(&mut self, nid: u64) -> Result<Inode, MapError> {
        let outside = || MapError::damaged(Damage::Outside);
        let offset = nid.checked_mul(32).and_then(|at| at.checked_add(self.inodes_at)).ok_or_else(outside)?;
        let head = self.image.bytes(offset, 32)?;
        let format = u16_at(&head, 0);
        let extended = format & 1 != 0;
        let (size, inode_len) = if extended { (u64_at(&head, 8), 64) } else { (u64::from(u32_at(&head, 8)), 32) };
        // `erofs_xattr_ibody_size`
        let attributes = match u64::from(u16_at(&head, 2)) {
            0 => 0,
            count => 12 + 4 * (count - 1),
        };
        if size > 1 << 60 {
            return Err(MapError::damaged(Damage::Inode));
        }
        Ok(Inode {
            mode: u16_at(&head, 4),
            size,
            layout: format >> 1 & 7,
            place: u32_at(&head, 16),
            behind: offset.checked_add(inode_len + attributes).ok_or_else(outside)?,
        })
    }

    fn extents(&mut self, inode: &Inode) -> Result<Vec<Extent>, MapError> {
        let mut extents = Vec::new();
        let start = u64::from(inode.place) * self.block;
        match inode.layout {
            FLAT_PLAIN => self.push(&mut extents, 0, start, inode.size)?,
            FLAT_INLINE => {
                let blocks = inode.size - inode.size % self.block;
                self.push(&mut extents, 0, start, blocks)?;
                self.push(&mut extents, blocks, inode.behind, inode.size - blocks)?;
            }
            CHUNK_BASED => self.chunks(inode, &mut extents)?,
            // Compressed.
            _ => {}
        }
        Ok(extents)
    }

    /// The places of a chunk-based file's chunks.
    fn chunks(&mut self, inode: &Inode, into: &mut Vec<Extent>) -> Result<(), MapError> {
        let (bits, indexes) = (inode.place & 0x1F, inode.place & 0x20 != 0);
        let chunk = self.block << bits;
        let count = inode.size.div_ceil(chunk);
        let (unit, record) = if indexes { (8, 8) } else { (4, 4) };
        let places = inode.behind.next_multiple_of(unit);
        self.image.check(places, count * unit)?;
        let places = self.image.bytes(places, (count * unit) as usize)?;
        for (number, place) in places.chunks_exact(record).enumerate() {
            let block = if indexes { u32_at(place, 4) } else { u32_at(place, 0) };
            if indexes && u16_at(place, 2) != 0 {
                return Err(MapError::unsupported("erofs on several devices"));
            }
            let file_offset = number as u64 * chunk;
            if block != HOLE {
                self.push(into, file_offset, u64::from(block) * self.block, chunk.min(inode.size - file_offset))?;
            }
        }
        Ok(())
    }

    fn push(&self, into: &mut Vec<Extent>, file_offset: u64, image_offset: u64, len: u64) -> Result<(), MapError> {
        if len > 0 {
            self.image.check(image_offset, len)?;
            push(into, Extent { file_offset, image_offset, len });
        }
        Ok(())
    }
}

impl FileSystem for Erofs<'_, '_> {
    fn node(&mut self, nid: u64) -> Result<Node, MapError> {
        let inode = self.inode(nid)?;
        Ok(match inode.mode & 0xF000 {
            0x4000 => Node::Directory(Data { size: inode.size, extents: self.extents(&inode)? }),
            0x8000 => Node::Regular(Data { size: inode.size, extents: self.extents(&inode)? }),
            _ => Node::Other,
        })
    }

    /// Blocks of entries: records of 12 bytes, then their names (erofs.rst, "Directories").
    fn entries(&mut self, nid: u64) -> Result<Vec<(Vec<u8>, u64)>, MapError> {
        let wrong = || MapError::damaged(Damage::Entry);
        let inode = self.inode(nid)?;
        if inode.mode & 0xF000 != 0x4000 {
            return Err(MapError::damaged(Damage::Inode));
        }
        let mut found = Vec::new();
        for extent in self.extents(&inode)? {
            for at in (0..extent.len).step_by(self.block as usize) {
                let len = self.block.min(extent.len - at) as usize;
                let block = self.image.bytes(extent.image_offset + at, len)?;
                if len < 12 {
                    return Err(wrong());
                }
                // The first name begins where the records end.
                let names_at = usize::from(u16_at(&block, 8));
                if names_at < 12 || names_at % 12 != 0 || names_at > len {
                    return Err(wrong());
                }
                let records: Vec<&[u8]> = block[..names_at].chunks_exact(12).collect();
                for (number, record) in records.iter().enumerate() {
                    let start = usize::from(u16_at(record, 8));
                    let end = records.get(number + 1).map_or(len, |next| usize::from(u16_at(next, 8)));
                    let name = block.get(start..end).filter(|_| start >= names_at).ok_or_else(wrong)?;
                    // The last name of a block is filled up with NULs.
                    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                    if !name.is_empty() && name != b"." && name != b".." {
                        found.push((name.to_vec(), u64_at(record, 0)));
                    }
                }
            }
        }
        Ok(found)
    }
}
