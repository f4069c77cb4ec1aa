//! ext4, as in the kernel's `Documentation/filesystems/ext4` (super.rst, group_descr.rst, inodes.rst, ifork.rst, directory.rst).

use crate::image::{Damage, Image, MapError, u16_at, u32_at};
use crate::{Data, Extent, FileSystem, MappedFile, Node, push, walk};

const SUPERBLOCK: u64 = 1024;
const MAGIC: u16 = 0xEF53;
const ROOT: u64 = 2;

// Incompatible features (super.rst).
const RECOVER: u32 = 0x4;
const SIXTY_FOUR_BIT: u32 = 0x80;
/// Those that change nothing here: filetype, recover, extents, 64bit, mmp, flex_bg, ea_inode, csum_seed, largedir, inline_data, casefold.
const KNOWN: u32 = 0x2 | RECOVER | 0x40 | SIXTY_FOUR_BIT | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x8000 | 0x2_0000;

// Flags of an inode (inodes.rst).
const HAS_EXTENTS: u32 = 0x8_0000;
const INLINE_DATA: u32 = 0x1000_0000;

const EXTENT_MAGIC: u16 = 0xF30A;
/// Deeper than a file of 2^32 blocks needs (ifork.rst).
const MAX_DEPTH: u16 = 5;

pub(crate) fn is_ext4(image: &mut Image<'_>) -> Result<bool, MapError> {
    Ok(image.len() >= SUPERBLOCK + 1024 && u16_at(&image.bytes(SUPERBLOCK + 56, 2)?, 0) == MAGIC)
}

pub(crate) fn files(image: &mut Image<'_>) -> Result<(Vec<MappedFile>, Vec<MappedFile>), MapError> {
    walk(&mut Ext4::open(image)?, ROOT)
}

struct Ext4<'a, 'i> {
    image: &'a mut Image<'i>,
    block: u64,
    inodes: u64,
    inodes_per_group: u64,
    inode_size: u64,
    /// Where each group's inodes begin.
    tables: Vec<u64>,
}

/// What is read of an inode.
struct Inode {
    mode: u16,
    size: u64,
    flags: u32,
    /// `i_block`.
    fork: [u8; 60],
}

impl<'a, 'i> Ext4<'a, 'i> {
    fn open(image: &'a mut Image<'i>) -> Result<Self, MapError> {
        let head = image.bytes(SUPERBLOCK, 1024)?;
        let wrong = MapError::damaged(Damage::Superblock);
        let incompatible = u32_at(&head, 96);
        if incompatible & !KNOWN != 0 {
            return Err(MapError::unsupported(format!("ext4 with incompatible features {:#x}", incompatible & !KNOWN)));
        }
        if incompatible & RECOVER != 0 {
            return Err(MapError::unsupported("ext4 with a journal that was not replayed"));
        }
        let (log_block, revision) = (u32_at(&head, 24), u32_at(&head, 76));
        if log_block > 6 {
            return Err(wrong);
        }
        let block = 1024 << log_block;
        let inode_size = if revision == 0 { 128 } else { u64::from(u16_at(&head, 88)) };
        let (inodes, inodes_per_group) = (u64::from(u32_at(&head, 0)), u64::from(u32_at(&head, 40)));
        if !(128..=block).contains(&inode_size) || inodes_per_group == 0 || inodes > image.len() / 128 {
            return Err(wrong);
        }
        let wide = incompatible & SIXTY_FOUR_BIT != 0;
        let descriptor = if wide { usize::from(u16_at(&head, 254)) } else { 32 };
        if !(if wide { 64..=1024 } else { 32..=32 }).contains(&descriptor) {
            return Err(wrong);
        }
        let groups = inodes.div_ceil(inodes_per_group) as usize;
        let first = (u64::from(u32_at(&head, 20)) + 1).checked_mul(block).ok_or(wrong)?;
        let descriptors = image.bytes(first, groups * descriptor)?;
        let table = |group: &[u8]| {
            let high = if wide { u64::from(u32_at(group, 0x28)) << 32 } else { 0 };
            (high | u64::from(u32_at(group, 8))).checked_mul(block).ok_or(MapError::damaged(Damage::Superblock))
        };
        let tables = descriptors.chunks_exact(descriptor).map(table).collect::<Result<_, _>>()?;
        Ok(Self { image, block, inodes, inodes_per_group, inode_size, tables })
    }

    fn inode(&mut self, number: u64) -> Result<Inode, MapError> {
        if number == 0 || number > self.inodes {
            return Err(MapError::damaged(Damage::Inode));
        }
        let (group, index) = ((number - 1) / self.inodes_per_group, (number - 1) % self.inodes_per_group);
        let offset = self.tables[group as usize].checked_add(index * self.inode_size);
        let bytes = self.image.bytes(offset.ok_or(MapError::damaged(Damage::Outside))?, 128)?;
        Ok(Inode {
            mode: u16_at(&bytes, 0),
            size: u64::from(u32_at(&bytes, 4)) | u64::from(u32_at(&bytes, 108)) << 32,
            flags: u32_at(&bytes, 32),
            fork: bytes[40..100].try_into().expect("60 bytes"),
        })
    }

    fn extents(&mut self, inode: &Inode) -> Result<Vec<Extent>, MapError> {
        let mut extents = Vec::new();
        self.node_extents(&inode.fork, MAX_DEPTH + 1, inode.size, &mut extents)?;
        Ok(extents)
    }

    /// Appends what a node of an extent tree holds (ifork.rst); `below` must be greater than its depth.
    fn node_extents(&mut self, node: &[u8], below: u16, size: u64, into: &mut Vec<Extent>) -> Result<(), MapError> {
        let wrong = || MapError::damaged(Damage::Extent);
        let (count, depth) = (usize::from(u16_at(node, 2)), u16_at(node, 6));
        if u16_at(node, 0) != EXTENT_MAGIC || depth >= below || 12 * (count + 1) > node.len() {
            return Err(wrong());
        }
        for record in node[12..12 * (count + 1)].chunks_exact(12) {
            if depth > 0 {
                let child = u64::from(u32_at(record, 4)) | u64::from(u16_at(record, 8)) << 32;
                let child = self.image.bytes(child * self.block, self.block as usize)?;
                self.node_extents(&child, depth, size, into)?;
                continue;
            }
            let len = u64::from(u16_at(record, 4));
            // Longer ones are allocated but not written: they read as zeros.
            if len > 32768 {
                continue;
            }
            let file_offset = u64::from(u32_at(record, 0)) * self.block;
            let image_offset = (u64::from(u32_at(record, 8)) | u64::from(u16_at(record, 6)) << 32) * self.block;
            self.image.check(image_offset, len * self.block)?;
            // What lies behind the end of the file is not its content.
            let len = (len * self.block).min(size.saturating_sub(file_offset));
            if into.last().is_some_and(|last| last.file_offset + last.len > file_offset) {
                return Err(wrong());
            }
            if len > 0 {
                push(into, Extent { file_offset, image_offset, len });
            }
        }
        Ok(())
    }
}

impl FileSystem for Ext4<'_, '_> {
    fn node(&mut self, number: u64) -> Result<Node, MapError> {
        let inode = self.inode(number)?;
        let kind = inode.mode & 0xF000;
        if kind != 0x4000 && kind != 0x8000 {
            return Ok(Node::Other);
        }
        // Inline data and the block maps of old files lie where they lie.
        let mapped = inode.flags & (HAS_EXTENTS | INLINE_DATA) == HAS_EXTENTS;
        let extents = if mapped { self.extents(&inode)? } else { Vec::new() };
        let data = Data { size: inode.size, extents };
        Ok(if kind == 0x4000 { Node::Directory(data) } else { Node::Regular(data) })
    }

    /// Entries of a linear directory (directory.rst); the inner blocks of a hashed one look like empty entries.
    fn entries(&mut self, number: u64) -> Result<Vec<(Vec<u8>, u64)>, MapError> {
        let wrong = || MapError::damaged(Damage::Entry);
        let inode = self.inode(number)?;
        if inode.mode & 0xF000 != 0x4000 {
            return Err(MapError::damaged(Damage::Inode));
        }
        if inode.flags & (HAS_EXTENTS | INLINE_DATA) != HAS_EXTENTS {
            return Err(MapError::unsupported("an ext4 directory without extents (inline data or a block map)"));
        }
        let mut found = Vec::new();
        for extent in self.extents(&inode)? {
            for at in (0..extent.len).step_by(self.block as usize) {
                let block = self.image.bytes(extent.image_offset + at, self.block as usize)?;
                let mut rest = &block[..];
                while rest.len() >= 8 {
                    // 64 KiB do not fit in 16 bits.
                    let len = match u16_at(rest, 4) {
                        0 | 0xFFFF => rest.len(),
                        len => usize::from(len),
                    };
                    let (inode, name_len) = (u64::from(u32_at(rest, 0)), usize::from(rest[6]));
                    if len < 8 || len > rest.len() || 8 + name_len > len {
                        return Err(wrong());
                    }
                    let name = &rest[8..8 + name_len];
                    if inode != 0 && name_len > 0 && name != b"." && name != b".." {
                        found.push((name.to_vec(), inode));
                    }
                    rest = &rest[len..];
                }
            }
        }
        Ok(found)
    }
}
