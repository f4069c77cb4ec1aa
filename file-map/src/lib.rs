//! Where the regular files lie in an ext4 or erofs image (`specs/cutting.md`).
//!
//! The build host asks, of images that it made itself; a device never does. Still nothing in an image makes the reader panic, read
//! outside of it, or work without end: all it reads is counted against the length of the image.
//!
//! No crate was found that tells physical extents: `ext4-view` and `erofs-rs` read files but keep to themselves where they lie.

mod erofs;
mod ext4;
mod image;

use std::collections::BTreeMap;

use image::Image;
pub use image::{Damage, MapError, ReadAt};

/// The file systems that are known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FsKind {
    /// ext4, and ext3 or ext2 as far as their files have extents.
    Ext4,
    /// erofs.
    Erofs,
}

/// A piece of a file that lies in one piece in the image. All in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins in the file.
    pub file_offset: u64,
    /// Where it begins in the image.
    pub image_offset: u64,
    /// Its length, at least 1; it lies within file and image.
    pub len: u64,
}

/// A regular file, or a directory's entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappedFile {
    /// Path from the root, without a leading slash. Of hard links the least in byte order.
    pub path: Vec<u8>,
    /// Its size in bytes.
    pub size: u64,
    /// What can be told of where it lies, in file order, neither empty nor overlapping in the file. What is missing is a hole, or
    /// compressed, or kept in an inode.
    pub extents: Vec<Extent>,
}

/// All regular files and directories of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileMap {
    /// What the image is.
    pub kind: FsKind,
    /// Its regular files, by path.
    pub files: Vec<MappedFile>,
    /// Its directories, by path; the root's is empty. Their content is the file system's own.
    pub directories: Vec<MappedFile>,
}

/// Finds the regular files of an image of `len` bytes.
///
/// # Errors
/// When it is neither ext4 nor erofs, has features that this reader does not know, is damaged, or cannot be read.
pub fn read(from: &dyn ReadAt, len: u64) -> Result<FileMap, MapError> {
    let mut image = Image::new(from, len);
    let (kind, (files, directories)) = if erofs::is_erofs(&mut image)? {
        (FsKind::Erofs, erofs::files(&mut image)?)
    } else if ext4::is_ext4(&mut image)? {
        (FsKind::Ext4, ext4::files(&mut image)?)
    } else {
        return Err(MapError::Unknown);
    };
    Ok(FileMap { kind, files, directories })
}

/// The longest path that Linux takes.
const MAX_PATH: usize = 4096;

/// An inode as both file systems show it.
enum Node {
    Directory(Data),
    Regular(Data),
    /// Link, device, socket, pipe.
    Other,
}

/// What an inode holds.
struct Data {
    size: u64,
    extents: Vec<Extent>,
}

/// What a walk through directories needs of a file system.
trait FileSystem {
    /// The inode with this number.
    fn node(&mut self, number: u64) -> Result<Node, MapError>;

    /// Names in a directory with their inodes, without `.` and `..`.
    fn entries(&mut self, number: u64) -> Result<Vec<(Vec<u8>, u64)>, MapError>;
}

/// Every regular file and every directory that can be reached from a directory, by path.
fn walk(fs: &mut dyn FileSystem, root: u64) -> Result<(Vec<MappedFile>, Vec<MappedFile>), MapError> {
    // `None`: seen, and not a regular file.
    let mut seen: BTreeMap<u64, Option<MappedFile>> = BTreeMap::from([(root, None)]);
    let Node::Directory(Data { size, extents }) = fs.node(root)? else {
        return Err(MapError::damaged(Damage::Inode));
    };
    let mut found = vec![MappedFile { path: Vec::new(), size, extents }];
    let mut directories = vec![(root, Vec::new())];
    while let Some((directory, path)) = directories.pop() {
        for (name, number) in fs.entries(directory)? {
            let mut path: Vec<u8> = path.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            if path.len() > MAX_PATH {
                return Err(MapError::damaged(Damage::Path));
            }
            match seen.get_mut(&number) {
                Some(Some(link)) if path < link.path => link.path = path,
                // A directory that is seen twice is damage, but harms nobody here.
                Some(_) => {}
                None => {
                    let file = match fs.node(number)? {
                        Node::Regular(Data { size, extents }) => Some(MappedFile { path, size, extents }),
                        Node::Other => None,
                        Node::Directory(Data { size, extents }) => {
                            directories.push((number, path.clone()));
                            found.push(MappedFile { path, size, extents });
                            None
                        }
                    };
                    seen.insert(number, file);
                }
            }
        }
    }
    let mut files: Vec<MappedFile> = seen.into_values().flatten().collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok((files, found))
}

/// Appends an extent, and joins it to the last where it follows it in file and image.
fn push(extents: &mut Vec<Extent>, next: Extent) {
    match extents.last_mut() {
        Some(last)
            if last.file_offset + last.len == next.file_offset && last.image_offset + last.len == next.image_offset =>
        {
            last.len += next.len;
        }
        _ => extents.push(next),
    }
}

#[cfg(test)]
mod tests;
