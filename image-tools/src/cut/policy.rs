//! The rules of `specs/cutting.md` as a pure function of the blocks' hashes and the files' places.

use file_map::MappedFile;

/// The unit of everything here (IMG-21).
pub const BLOCK: usize = 4096;

/// Chunks of root; the rest of the table is for the other payloads (IMG-2).
const MOST_CHUNKS: usize = 160_000;

/// What a rule can say, in blocks (CHK-4 to CHK-8).
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Files of more bytes are large.
    large_file: u64,
    /// A large file is cut before one in so many blocks,
    large_mean: u64,
    /// into chunks of at least
    large_min: usize,
    /// and at most so many.
    large_max: usize,
    /// Small files are cut before one in so many files.
    small_mean: u64,
    small_max: usize,
    /// The rest is cut before one in so many blocks.
    rest_mean: u64,
    rest_min: usize,
    rest_max: usize,
    /// A run of fewer zero blocks is like any other.
    zero_min: usize,
    zero_max: usize,
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            large_file: 32 << 10,
            large_mean: 256,
            large_min: 64,
            large_max: 512,
            small_mean: 8,
            small_max: 256,
            rest_mean: 16,
            rest_min: 4,
            rest_max: 256,
            zero_min: 4,
            zero_max: 512,
        }
    }
}

impl Rule {
    /// For roots of so many files that the table would not hold their chunks.
    fn coarser(self) -> Self {
        Self {
            large_file: self.large_file * 2,
            large_mean: self.large_mean * 2,
            large_min: (self.large_min * 2).min(self.large_max),
            large_max: (self.large_max * 2).min(self.zero_max),
            small_mean: self.small_mean * 2,
            small_max: (self.small_max * 2).min(self.zero_max),
            rest_mean: self.rest_mean * 2,
            rest_min: (self.rest_min * 2).min(self.rest_max),
            rest_max: (self.rest_max * 2).min(self.zero_max),
            ..self
        }
    }
}

/// The blocks of an image, as far as cutting looks at them.
#[derive(Debug, Default)]
pub struct Blocks {
    hashes: Vec<u64>,
}

impl Blocks {
    /// Adds a block of 4096 bytes.
    pub fn push(&mut self, block: &[u8]) {
        let zero = block.iter().all(|byte| *byte == 0);
        self.hashes.push(if zero { ZERO } else { hash(block).max(ZERO + 1) });
    }
}

/// Stands for the hash of a block of zeros.
const ZERO: u64 = 0;

/// CHK-3. Not cryptographic: a bad choice of a cut harms nothing.
fn hash(bytes: &[u8]) -> u64 {
    const PRIME: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut state: u64 = 0xcbf2_9ce4_8422_2325;
    let mut mix = |word: u64| {
        state = (state ^ word).wrapping_mul(PRIME);
        state ^= state >> 29;
    };
    let (words, rest) = bytes.as_chunks::<8>();
    words.iter().for_each(|word| mix(u64::from_le_bytes(*word)));
    rest.iter().for_each(|byte| mix(u64::from(*byte)));
    state = (state ^ state >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    state ^ state >> 32
}

/// What a block belongs to (CHK-4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Inodes, directories, tails, whatever no file has to itself.
    Rest,
    Zeros,
    Small,
    Large,
}

/// What may happen before a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Nothing,
    /// A group of small files ends here.
    Group,
    /// A large file or a piece of one begins or ends here.
    Cut,
}

/// Plain lengths of the chunks, by the first of the rules `first`, twice as coarse, and so on, that keeps within the table (CHK-9).
pub fn within_table(blocks: &Blocks, files: Option<&[MappedFile]>, first: Rule) -> Option<Vec<u32>> {
    let mut rule = first;
    for _ in 0..8 {
        let lens = cut(blocks, files.unwrap_or_default(), &rule);
        if lens.len() <= MOST_CHUNKS {
            return Some(lens);
        }
        rule = rule.coarser();
    }
    None
}

/// Plain lengths of the chunks.
fn cut(blocks: &Blocks, files: &[MappedFile], rule: &Rule) -> Vec<u32> {
    let (kinds, marks) = look(blocks, files, rule);
    let before = |block: usize, one_in: u64| blocks.hashes[block].is_multiple_of(one_in);
    let mut lens = Vec::new();
    let mut start = 0;
    for block in 1..=kinds.len() {
        let len = block - start;
        let here = block == kinds.len() || kinds[block] != kinds[start] || marks[block] == Mark::Cut;
        let cut = here
            || match kinds[start] {
                Kind::Zeros => len >= rule.zero_max,
                Kind::Large => len >= rule.large_max || len >= rule.large_min && before(block, rule.large_mean),
                Kind::Small => len >= rule.small_max || marks[block] == Mark::Group,
                Kind::Rest => len >= rule.rest_max || len >= rule.rest_min && before(block, rule.rest_mean),
            };
        if cut {
            // At most 4 MiB by the rules.
            lens.push((len * BLOCK) as u32);
            start = block;
        }
    }
    lens
}

/// What each block belongs to, and what may happen before it.
fn look(blocks: &Blocks, files: &[MappedFile], rule: &Rule) -> (Vec<Kind>, Vec<Mark>) {
    let count = blocks.hashes.len();
    let mut kinds = vec![Kind::Rest; count];
    let mut marks = vec![Mark::Nothing; count + 1];
    for file in files {
        let large = file.size > rule.large_file;
        for (number, extent) in file.extents.iter().enumerate() {
            // A tail within a block of inodes: not the file's own.
            if !extent.image_offset.is_multiple_of(BLOCK as u64) {
                continue;
            }
            let first = (extent.image_offset / BLOCK as u64) as usize;
            let end = (extent.image_offset + extent.len).div_ceil(BLOCK as u64) as usize;
            let (first, end) = (first.min(count), end.min(count));
            if first == end {
                continue;
            }
            kinds[first..end].fill(if large { Kind::Large } else { Kind::Small });
            if large {
                marks[first] = Mark::Cut;
                marks[end] = Mark::Cut;
            } else if number == 0 && marks[first] == Mark::Nothing && hash(&file.path).is_multiple_of(rule.small_mean) {
                marks[first] = Mark::Group;
            }
        }
    }
    // Long runs of zeros that no file has written.
    let mut start = 0;
    for block in 0..=count {
        let zero = block < count && kinds[block] == Kind::Rest && blocks.hashes[block] == ZERO;
        if !zero {
            if block - start >= rule.zero_min {
                kinds[start..block].fill(Kind::Zeros);
            }
            start = block + 1;
        }
    }
    (kinds, marks)
}

#[cfg(test)]
mod tests;
