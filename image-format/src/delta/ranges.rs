//! Ranges of a base root, as they stand in front of a chunk's encoded bytes (IMG-72).

/// Ranges in one chunk.
pub const MAX_RANGES: usize = 1024;

/// Bytes of the base root that one chunk refers to.
pub const MAX_REFERENCE: u32 = 4 << 20;

const RECORD: usize = 12;

/// The longest that ranges can be, encoded.
pub(crate) const MAX_LEN: usize = 2 + MAX_RANGES * RECORD;

/// A piece of the base root, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaseRange {
    /// Where it begins in the base root.
    pub offset: u64,
    /// Its length, at least 1.
    pub len: u32,
}

/// The bytes of IMG-72.
pub(crate) fn to_bytes(ranges: &[BaseRange]) -> Vec<u8> {
    // At most 1024.
    let mut bytes = (ranges.len() as u16).to_le_bytes().to_vec();
    for range in ranges {
        bytes.extend_from_slice(&range.offset.to_le_bytes());
        bytes.extend_from_slice(&range.len.to_le_bytes());
    }
    bytes
}

/// Reads ranges from the front of encoded bytes; them, the sum of their lengths, and what follows. `None`: they break IMG-72.
pub(crate) fn parse(encoded: &[u8]) -> Option<(Vec<BaseRange>, usize, &[u8])> {
    let (count, rest) = encoded.split_first_chunk::<2>()?;
    let count = usize::from(u16::from_le_bytes(*count));
    if !(1..=MAX_RANGES).contains(&count) {
        return None;
    }
    let (records, rest) = rest.split_at_checked(count * RECORD)?;
    let mut sum: u32 = 0;
    let mut ranges = Vec::with_capacity(count);
    for record in records.as_chunks::<RECORD>().0 {
        let offset = u64::from_le_bytes(record[..8].try_into().expect("8 bytes"));
        let len = u32::from_le_bytes(record[8..].try_into().expect("4 bytes"));
        sum = sum.checked_add(len).filter(|sum| len > 0 && *sum <= MAX_REFERENCE)?;
        offset.checked_add(len.into())?;
        ranges.push(BaseRange { offset, len });
    }
    Some((ranges, sum as usize, rest))
}
