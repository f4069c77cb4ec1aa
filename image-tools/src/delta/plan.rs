//! Which bytes of the old root help to make each piece of the new one (`specs/cutting.md`, section 4): a pure function of both chunk
//! tables and the places of both systems' files.

use std::collections::HashMap;

use file_map::{FileMap, MappedFile};
use image_format::{BaseRange, Chunk, DeltaPiece, Digest, MAX_RANGES, MAX_REFERENCE};

/// Plain bytes in a patch that are not of one chunk of the new image.
const PATCH: u32 = 1 << 20;

/// Plain bytes in a copy.
const COPY: u32 = 4 << 20;

/// Less than this between two changes is not worth a chunk of its own.
const SHORT: u32 = 64 << 10;

/// So much of the old root on either side of what belongs to no file.
const AROUND: u64 = 64 << 10;

/// A root as its image and its file system tell of it.
pub struct Root<'a> {
    /// The chunks of root.
    pub chunks: &'a [Chunk],
    /// Its files, and directories that have blocks of their own.
    pub files: &'a [MappedFile],
}

/// Files, and directories that have blocks of their own (ext4's). A directory's path gets a slash: it is like the directory of
/// that name and like no file.
pub fn with_a_place(map: FileMap) -> Vec<MappedFile> {
    let own = |directory: &MappedFile| directory.extents.iter().all(|extent| extent.image_offset.is_multiple_of(4096));
    let directories = map.directories.into_iter().filter(own).map(|mut directory| {
        directory.path.push(b'/');
        directory
    });
    map.files.into_iter().chain(directories).collect()
}

/// The pieces of the new root, and where in the old root to look for each.
pub fn plan(old: &Root<'_>, new: &Root<'_>) -> Vec<DeltaPiece> {
    let has: HashMap<(Digest, u32), u64> =
        old.chunks.iter().map(|chunk| ((chunk.plain_sha256, chunk.plain_len), chunk.plain_offset)).collect();
    let likely = Likely::new(old, new);
    let mut zeros = Zeros::default();
    let mut pieces = Pieces::default();
    for chunk in new.chunks {
        match has.get(&(chunk.plain_sha256, chunk.plain_len)) {
            _ if zeros.are(chunk) => pieces.zeros(chunk.plain_len),
            Some(offset) => pieces.same(chunk.plain_len, BaseRange { offset: *offset, len: chunk.plain_len }),
            None => {
                let start = chunk.plain_offset;
                pieces.changed(chunk.plain_len, likely.ranges(start, start + u64::from(chunk.plain_len)));
            }
        }
    }
    pieces.finish()
}

/// Tells chunks of nothing but zeros. The old root has them, too, but a machine would have to read them.
#[derive(Default)]
struct Zeros(HashMap<u32, Digest>);

impl Zeros {
    fn are(&mut self, chunk: &Chunk) -> bool {
        let len = chunk.plain_len;
        let digest = |len| Digest::of(vec![0; len as usize]);
        len >= SHORT && *self.0.entry(len).or_insert_with_key(|len| digest(*len)) == chunk.plain_sha256
    }
}

/// The pieces so far, and the one that grows.
#[derive(Default)]
struct Pieces {
    done: Vec<DeltaPiece>,
    open: Open,
}

#[derive(Default)]
struct Open {
    len: u32,
    ranges: Vec<BaseRange>,
    /// Something in it is not in the old root.
    changed: bool,
    /// It is nothing but zeros, made of nothing.
    zeros: bool,
}

impl Open {
    fn reference(&self) -> u32 {
        self.ranges.iter().map(|range| range.len).sum()
    }

    /// Whether so much more would still be a chunk.
    fn takes(&self, len: u32, ranges: &[BaseRange], most: u32) -> bool {
        let reference: u64 = ranges.iter().map(|range| u64::from(range.len)).sum();
        self.len + len <= most
            && u64::from(self.reference()) + reference <= MAX_REFERENCE.into()
            && self.ranges.len() + ranges.len() <= MAX_RANGES
    }

    fn add(&mut self, len: u32, ranges: impl IntoIterator<Item = BaseRange>) {
        self.len += len;
        for range in ranges {
            match self.ranges.last_mut() {
                Some(last) if last.offset + u64::from(last.len) == range.offset => last.len += range.len,
                _ => self.ranges.push(range),
            }
        }
    }
}

impl Pieces {
    /// Bytes that the old root has.
    fn same(&mut self, len: u32, range: BaseRange) {
        let most = if self.open.changed { PATCH } else { COPY };
        let stays = !self.open.zeros && (!self.open.changed || len < SHORT);
        if !(stays && self.open.takes(len, &[range], most)) {
            self.close();
        }
        self.open.add(len, [range]);
    }

    /// Bytes that it has not, and what they may be like.
    fn changed(&mut self, len: u32, ranges: Vec<BaseRange>) {
        let near = !self.open.zeros && (self.open.changed || self.open.len < SHORT);
        let joins = near && self.open.takes(len, &ranges, PATCH);
        if !joins {
            self.close();
        }
        self.open.changed = true;
        // What is there already is not wanted twice.
        let ranges: Vec<_> = ranges.into_iter().filter(|range| !self.open.ranges.contains(range)).collect();
        self.open.add(len, ranges);
    }

    fn zeros(&mut self, len: u32) {
        if !(self.open.zeros && self.open.takes(len, &[], COPY)) {
            self.close();
            self.open.zeros = true;
        }
        self.open.len += len;
    }

    fn close(&mut self) {
        let open = std::mem::take(&mut self.open);
        if open.len > 0 {
            self.done.push(DeltaPiece { len: open.len, ranges: open.ranges });
        }
    }

    fn finish(mut self) -> Vec<DeltaPiece> {
        self.close();
        self.done
    }
}

/// Finds what a piece of the new root was in the old one.
struct Likely<'a> {
    /// Where files lie in the new root: offset, length, offset in the file, file; by offset.
    places: Vec<(u64, u64, u64, &'a MappedFile)>,
    by_path: HashMap<&'a [u8], &'a MappedFile>,
    /// By path without digits, for what carries its version in its name; `None` where several are alike.
    by_shape: HashMap<Vec<u8>, Option<&'a MappedFile>>,
    old_len: u64,
}

fn shape(path: &[u8]) -> Vec<u8> {
    path.iter().copied().filter(|byte| !byte.is_ascii_digit()).collect()
}

impl<'a> Likely<'a> {
    fn new(old: &Root<'a>, new: &Root<'a>) -> Self {
        let mut places: Vec<_> = new
            .files
            .iter()
            .flat_map(|file| file.extents.iter().map(move |e| (e.image_offset, e.len, e.file_offset, file)))
            .collect();
        places.sort_by_key(|place| place.0);
        let mut by_shape: HashMap<Vec<u8>, Option<&MappedFile>> = HashMap::new();
        for file in old.files {
            by_shape.entry(shape(&file.path)).and_modify(|known| *known = None).or_insert(Some(file));
        }
        Self {
            places,
            by_path: old.files.iter().map(|file| (&file.path[..], file)).collect(),
            by_shape,
            old_len: old.chunks.last().map_or(0, |last| last.plain_offset + u64::from(last.plain_len)),
        }
    }

    /// Ranges of the old root that look like these bytes of the new one: at most [`MAX_REFERENCE`] and [`MAX_RANGES`].
    fn ranges(&self, start: u64, end: u64) -> Vec<BaseRange> {
        let mut found = Found { ranges: Vec::new(), left: MAX_REFERENCE.into() };
        let first = self.places.partition_point(|(offset, len, ..)| offset + len <= start);
        // Files may share extents: what begins before another need not end before it.
        let near = || self.places[first..].iter().take_while(|(offset, ..)| *offset < end);
        let touching = || near().filter(|(offset, len, ..)| offset + len > start);
        let mut unowned = end - start;
        for (offset, len, file_offset, file) in touching() {
            let (from, to) = ((*offset).max(start), (offset + len).min(end));
            unowned = unowned.saturating_sub(to - from);
            let Some(old) = self.old(file) else { continue };
            let within = |at: u64| file_offset + (at - offset);
            let share = MAX_REFERENCE as u64 / touching().count().max(1) as u64;
            found.add_file(old, window(old.size, file.size, within(from), within(to), share));
        }
        // Inodes, directories, and tails among them: they seldom go far.
        if unowned >= 4096 {
            let from = start.saturating_sub(AROUND).min(self.old_len);
            found.add(from, (end + AROUND).min(self.old_len) - from);
        }
        found.ranges
    }

    fn old(&self, file: &MappedFile) -> Option<&'a MappedFile> {
        self.by_path.get(&file.path[..]).copied().or_else(|| self.by_shape.get(&shape(&file.path)).copied().flatten())
    }
}

/// The part of an old file of `old` bytes that lies around the same place as `from..to` of a new one of `new` bytes: `most` bytes, or a
/// little more than `from..to` has.
fn window(old: u64, new: u64, from: u64, to: u64, most: u64) -> (u64, u64) {
    if old <= most {
        return (0, old);
    }
    let scaled = |at: u64| (u128::from(at) * u128::from(old) / u128::from(new.max(1))) as u64;
    let (from, to) = (scaled(from), scaled(to).min(old));
    let around = most.saturating_sub(to - from) / 2;
    (from.saturating_sub(around), (to + around).min(old))
}

struct Found {
    ranges: Vec<BaseRange>,
    left: u64,
}

impl Found {
    fn add(&mut self, offset: u64, len: u64) {
        let len = len.min(self.left);
        if len > 0 && self.ranges.len() < MAX_RANGES {
            self.left -= len;
            // At most 4 MiB.
            self.ranges.push(BaseRange { offset, len: len as u32 });
        }
    }

    fn add_file(&mut self, file: &MappedFile, (from, to): (u64, u64)) {
        for extent in &file.extents {
            let start = extent.file_offset.max(from);
            let end = (extent.file_offset + extent.len).min(to);
            if start < end {
                self.add(extent.image_offset + (start - extent.file_offset), end - start);
            }
        }
    }
}

#[cfg(test)]
mod tests;
