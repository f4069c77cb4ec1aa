//! Images as the tools make them: what the map says of a file is its content.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use file_map::{FileMap, FsKind, MappedFile};
use qemu_tests::setup;

const ERASED: &str = "sub/erased";

/// A tree with something of everything; its files by path.
fn tree(at: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut add = |path: &str, bytes: Vec<u8>| {
        let file = at.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, &bytes).unwrap();
        files.insert(path.to_owned(), bytes);
    };
    let noise = |seed: u32, len: usize| -> Vec<u8> {
        (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) ^ seed.wrapping_mul(40_503)).to_le_bytes()[3]).collect()
    };
    add("large", noise(1, 300_000));
    add("text", b"all work and no play\n".repeat(4000));
    add("sub/whole-blocks", noise(2, 8192));
    add("sub/tiny", b"tiny".to_vec());
    add("sub/empty", Vec::new());
    add("sub/erased", vec![0; 70_000]);
    // More than a block of names, so that ext4 hashes the directory and erofs needs several blocks for it.
    for number in 0..300 {
        add(&format!("many/a-name-of-some-length-{number}"), noise(number, number as usize * 20));
    }
    fs::hard_link(at.join("large"), at.join("zz-the-same")).unwrap();
    fs::hard_link(at.join("text"), at.join("a-link")).unwrap();
    std::os::unix::fs::symlink("large", at.join("symbolic")).unwrap();
    // A link is known by the least of its names.
    let text = files.remove("text").unwrap();
    files.insert("a-link".to_owned(), text);
    files
}

fn map(image: &Path) -> (Vec<u8>, FileMap) {
    let file = fs::File::open(image).unwrap();
    let bytes = fs::read(image).unwrap();
    let map = file_map::read(&file, bytes.len() as u64).unwrap();
    (bytes, map)
}

fn in_extents(file: &MappedFile) -> u64 {
    file.extents.iter().map(|extent| extent.len).sum()
}

/// Every file is there, and what is mapped of it is its content; how many bytes of files are mapped.
fn check(image: &Path, kind: FsKind, files: &BTreeMap<String, Vec<u8>>) -> (u64, FileMap) {
    let (bytes, map) = map(image);
    assert_eq!(map.kind, kind);
    let paths: Vec<&str> = map.files.iter().map(|file| str::from_utf8(&file.path).unwrap()).collect();
    let mut expected: Vec<&str> = files.keys().map(String::as_str).collect();
    expected.sort();
    assert_eq!(paths.into_iter().filter(|path| *path != "lost+found").collect::<Vec<_>>(), expected);
    for file in &map.files {
        let content = &files[str::from_utf8(&file.path).unwrap()];
        assert_eq!(file.size, content.len() as u64);
        for extent in &file.extents {
            let found = &bytes[extent.image_offset as usize..][..extent.len as usize];
            let wanted = &content[extent.file_offset as usize..][..extent.len as usize];
            assert!(found == wanted, "{}: {extent:?}", String::from_utf8_lossy(&file.path));
        }
    }
    (map.files.iter().map(in_extents).sum(), map)
}

#[test]
fn ext4_as_mke2fs_makes_it() {
    setup::ensure_tools().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (source, image) = (dir.path().join("tree"), dir.path().join("image"));
    let files = tree(&source);
    let all: u64 = files.values().map(|bytes| bytes.len() as u64).sum();
    for options in ["-b4096", "-b1024", "-b4096 -O^64bit,^metadata_csum,^flex_bg -I128", "-b4096 -Oinline_data"] {
        let _ = fs::remove_file(&image);
        let mut mkfs = setup::command("mke2fs");
        mkfs.args(["-q", "-t", "ext4", "-d"]).arg(&source).args(options.split(' ')).arg(&image).arg("20M");
        setup::run(&mut mkfs).unwrap();
        let inline = options.contains("inline");
        if inline && file_map::read(&fs::File::open(&image).unwrap(), 20 << 20).is_err() {
            // A directory that fits in its inode: refused by name, see the unit tests.
            continue;
        }
        let (mapped, _) = check(&image, FsKind::Ext4, &files);
        // Zeros may be left out.
        assert!((all - 70_000..=all).contains(&mapped) || inline, "{options}: {mapped} of {all}");
    }
}

#[test]
fn erofs_as_mkfs_erofs_makes_it() {
    setup::ensure_tools().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (source, image) = (dir.path().join("tree"), dir.path().join("image"));
    let files = tree(&source);
    let all: u64 = files.values().map(|bytes| bytes.len() as u64).sum();
    for options in ["-T0", "-Eforce-inode-extended", "-Enoinline_data", "--chunksize=4096", "--chunksize=1048576"] {
        let mut mkfs = setup::command("mkfs.erofs");
        mkfs.args(["--quiet", options]).arg(&image).arg(&source);
        setup::run(&mut mkfs).unwrap();
        let (mapped, map) = check(&image, FsKind::Erofs, &files);
        let erased = map.files.iter().find(|file| file.path == ERASED.as_bytes()).unwrap();
        assert_eq!(mapped + 70_000 - in_extents(erased), all, "{options}");
    }
    // What is compressed has no place of its own, and is not mistaken for something else.
    let mut mkfs = setup::command("mkfs.erofs");
    mkfs.args(["--quiet", "-zlz4"]).arg(&image).arg(&source);
    setup::run(&mut mkfs).unwrap();
    let (mapped, map) = check(&image, FsKind::Erofs, &files);
    assert!(mapped < all);
    assert!(map.files.iter().any(|file| file.path == b"a-link" && file.extents.is_empty()));
}
