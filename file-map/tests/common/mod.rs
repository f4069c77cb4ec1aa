//! The least images that have something of everything the reader knows. Written by hand, so that a fuzzer has few bytes to change and
//! needs no tool to begin with; that the layouts are the real ones is shown by `real.rs`.

/// What [`ext4`] and [`erofs`] hold: paths, and the bytes of each file.
pub fn content() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("d/chunks", [vec![b'c'; 512], vec![0; 512], vec![b'C'; 512]].concat()),
        ("plain", [vec![b'p'; 512], vec![b'q'; 300]].concat()),
    ]
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

fn put16(image: &mut [u8], at: usize, value: u16) {
    put(image, at, &value.to_le_bytes());
}

fn put32(image: &mut [u8], at: usize, value: u32) {
    put(image, at, &value.to_le_bytes());
}

/// Blocks of 512 bytes: 2 and 3 the superblock, 4 the inodes with inline directories and tails, 5 and above data.
pub fn erofs() -> Vec<u8> {
    let mut image = vec![0; 9 * 512];
    put32(&mut image, 1024, 0xe0f5_e1e2);
    image[1024 + 12] = 9;
    put16(&mut image, 1024 + 14, 0);
    put32(&mut image, 1024 + 40, 4);
    put32(&mut image, 1024 + 80, 4);
    let inodes = 4 * 512;
    // nid 0: the root, compact, inline.
    let directory = |entries: &[(u64, &str)]| {
        let mut bytes = Vec::new();
        let mut name_at = 12 * entries.len();
        for (nid, name) in entries {
            bytes.extend_from_slice(&nid.to_le_bytes());
            bytes.extend_from_slice(&(name_at as u16).to_le_bytes());
            bytes.extend_from_slice(&[0, 0]);
            name_at += name.len();
        }
        entries.iter().for_each(|(_, name)| bytes.extend_from_slice(name.as_bytes()));
        bytes
    };
    let mut inode = |nid: usize, format: u16, mode: u16, size: u32, place: u32, behind: &[u8]| {
        let at = inodes + 32 * nid;
        put16(&mut image, at, format);
        put16(&mut image, at + 4, mode);
        put32(&mut image, at + 8, size);
        put32(&mut image, at + 16, place);
        put(&mut image, at + if format & 1 == 0 { 32 } else { 64 }, behind);
    };
    let root = directory(&[(0, "."), (0, ".."), (4, "d"), (7, "plain")]);
    inode(0, 2 << 1, 0x41ed, root.len() as u32, 0, &root);
    let d = directory(&[(4, "."), (0, ".."), (11, "chunks")]);
    inode(4, 2 << 1, 0x41ed, d.len() as u32, 0, &d);
    // nid 7: extended, in blocks of its own.
    inode(7, 1, 0x81a4, 812, 5, &[]);
    // nid 11: chunks of one block, in a list of blocks.
    let places = [7_u32, u32::MAX, 8].map(u32::to_le_bytes).concat();
    inode(11, 4 << 1, 0x81a4, 1536, 0, &places);
    put(&mut image, 5 * 512, &[b'p'; 512]);
    put(&mut image, 6 * 512, &[b'q'; 300]);
    put(&mut image, 7 * 512, &[b'c'; 512]);
    put(&mut image, 8 * 512, &[b'C'; 512]);
    image
}

/// Blocks of 1024 bytes: 1 the superblock, 2 the groups, 3 and 4 the inodes, 5 and above directories, a tree and data.
pub fn ext4() -> Vec<u8> {
    const BLOCK: usize = 1024;
    let mut image = vec![0; 12 * BLOCK];
    for (at, value) in [(0, 16), (4, 12), (20, 1), (24, 0), (32, 8192), (40, 16), (76, 1), (96, 0x42)] {
        put32(&mut image, 1024 + at, value);
    }
    put16(&mut image, 1024 + 56, 0xef53);
    put16(&mut image, 1024 + 88, 128);
    put32(&mut image, 2 * BLOCK + 8, 3);
    // depth, and then records of {file block, length or child, block or 0}
    let tree = |depth: u16, records: &[(u32, u16, u32)]| {
        let mut bytes = vec![0x0a, 0xf3];
        for word in [records.len() as u16, records.len() as u16, depth, 0, 0] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        for (logical, len, block) in records {
            bytes.extend_from_slice(&logical.to_le_bytes());
            match depth {
                0 => {
                    bytes.extend_from_slice(&len.to_le_bytes());
                    bytes.extend_from_slice(&[0, 0]);
                    bytes.extend_from_slice(&block.to_le_bytes());
                }
                _ => {
                    bytes.extend_from_slice(&block.to_le_bytes());
                    bytes.extend_from_slice(&[0; 4]);
                }
            }
        }
        bytes
    };
    let entries = |list: &[(u32, &str)]| {
        let mut bytes = Vec::new();
        for (number, (inode, name)) in list.iter().enumerate() {
            let left = BLOCK - bytes.len();
            let len = if number + 1 == list.len() { left } else { (8 + name.len()).next_multiple_of(4) };
            let mut entry = vec![0; len];
            put32(&mut entry, 0, *inode);
            put16(&mut entry, 4, len as u16);
            entry[6] = name.len() as u8;
            put(&mut entry, 8, name.as_bytes());
            bytes.extend_from_slice(&entry);
        }
        bytes
    };
    let mut inode = |number: usize, mode: u16, size: u32, fork: &[u8]| {
        let at = 3 * BLOCK + 128 * (number - 1);
        put16(&mut image, at, mode);
        put32(&mut image, at + 4, size);
        put32(&mut image, at + 32, 0x8_0000);
        put(&mut image, at + 40, fork);
    };
    inode(2, 0x41ed, 1024, &tree(0, &[(0, 1, 5)]));
    inode(12, 0x41ed, 1024, &tree(0, &[(0, 1, 6)]));
    inode(13, 0x81a4, 812, &tree(0, &[(0, 1, 7)]));
    // A tree with a block of its own; its second block was allocated but not written.
    inode(14, 0x81a4, 1536, &tree(1, &[(0, 0, 8)]));
    put(&mut image, 8 * BLOCK, &tree(0, &[(0, 1, 9), (1, 1, 10)]));
    put(&mut image, 5 * BLOCK, &entries(&[(2, "."), (2, ".."), (12, "d"), (13, "plain")]));
    put(&mut image, 6 * BLOCK, &entries(&[(12, "."), (2, ".."), (14, "chunks")]));
    put(&mut image, 7 * BLOCK, &content()[1].1);
    put(&mut image, 9 * BLOCK, &content()[0].1[..1024]);
    put(&mut image, 10 * BLOCK, &content()[0].1[1024..]);
    image
}
