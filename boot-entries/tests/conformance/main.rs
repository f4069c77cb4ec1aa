//! One suite over all back ends of the ESP that run unprivileged: the recording fake, the FAT library on an image file,
//! and the kernel on a directory. What one of them does, all do.

mod unmounted;

use std::fs::File;
use std::io::{self, Read, SeekFrom};
use std::path::Path;

use boot_entries::esp::{DirItem, Esp, EspError, EspPath, FakeEsp, ImageEsp, KernelEsp, WriteError};
use boot_entries::fat::{FormatOptions, format_esp};
use boot_entries::names::{entries_dir, payload_dir};
use boot_entries::{
    BootOptions, Entry, EntryArchitecture, EntryName, EspState, Generation, LoaderVars, OnCorruption, PayloadKind,
    Payloads, Prediction, commit, fence, is_whole, mark_bad, stage, tidy,
};
use disk_layout::{Slot, UpdateLock};
use qemu_tests::setup;
use sha2::{Digest, Sha256};

fn path(text: &str) -> EspPath {
    text.parse().unwrap()
}

fn put(esp: &mut dyn Esp, name: &str, content: &[u8]) {
    esp.write_new(&path(name), content.len() as u64, &mut &content[..]).unwrap();
}

fn names(esp: &mut dyn Esp, dir: &str) -> Vec<String> {
    let mut names: Vec<String> = esp.list(&path(dir)).unwrap().into_iter().map(|item| item.name).collect();
    names.sort();
    names
}

/// Whether anybody else writes to the volume meanwhile.
#[derive(Clone, Copy, PartialEq)]
enum Volume {
    Ours,
    Shared,
}

/// Everything the trait promises.
fn suite(esp: &mut dyn Esp, volume: Volume) {
    directories(esp);
    files(esp);
    long_files(esp, volume);
    failing_content(esp);
    overwriting(esp);
    acts(esp);
}

fn directories(esp: &mut dyn Esp) {
    assert_eq!(esp.list(&path("missing")).unwrap(), []);
    assert_eq!(esp.list(&path("missing/too")).unwrap(), []);
    esp.make_dir(&path("one/two/three")).unwrap();
    esp.make_dir(&path("one/two")).unwrap();
    esp.flush().unwrap();
    assert_eq!(esp.list(&path("one")).unwrap(), [DirItem { name: "two".into(), size: 0, is_dir: true }]);
    assert_eq!(esp.list(&path("one/two/three")).unwrap(), []);
    assert!(esp.exists(&path("one/two/three")).unwrap());
    assert!(!esp.exists(&path("one/two/four")).unwrap());
    assert!(!esp.exists(&path("nowhere/two")).unwrap());
    // A directory is no file.
    assert!(matches!(esp.remove(&path("one/two/three")), Err(EspError::Io { .. })));
    assert!(esp.exists(&path("one/two/three")).unwrap());
    assert!(esp.read(&path("one/two/three"), 10).is_err());
    put(esp, "one/file", b"x");
    assert!(esp.make_dir(&path("one/file")).is_err());
    assert!(esp.make_dir(&path("one/file/below")).is_err());
    assert!(esp.list(&path("one/file")).is_err());
    assert!(!esp.exists(&path("one/file/below")).unwrap());
}

fn files(esp: &mut dyn Esp) {
    let file = path("one/Some-Name+3-0.conf");
    put(esp, file.as_str(), b"content");
    esp.flush().unwrap();
    let item = DirItem { name: "Some-Name+3-0.conf".into(), size: 7, is_dir: false };
    assert!(esp.list(&path("one")).unwrap().contains(&item));
    assert_eq!(esp.read(&file, 7).unwrap(), b"content");
    assert_eq!(esp.read_head(&file, 3).unwrap(), b"con");
    assert_eq!(esp.read_head(&file, 100).unwrap(), b"content");
    match esp.read(&file, 6) {
        Err(EspError::TooLong { size: 7, limit: 6, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(esp.hash_file(&file).unwrap(), (Sha256::digest(b"content").into(), 7));
    // Nothing is overwritten.
    match esp.write_new(&file, 3, &mut &b"new"[..]) {
        Err(WriteError::Esp(EspError::Exists { path })) => assert_eq!(path, file),
        other => panic!("{other:?}"),
    }
    assert_eq!(esp.read(&file, 100).unwrap(), b"content");
    esp.remove(&file).unwrap();
    esp.flush().unwrap();
    assert!(!esp.exists(&file).unwrap());
    for error in [
        esp.remove(&file).unwrap_err(),
        esp.read(&file, 1).unwrap_err(),
        esp.read_head(&file, 1).unwrap_err(),
        esp.examine(&file, &mut |_| panic!("there is nothing")).unwrap_err(),
        esp.hash_file(&file).unwrap_err(),
        esp.overwrite_byte(&file, 0, 0, 1).unwrap_err(),
    ] {
        assert!(matches!(error, EspError::Missing { .. }), "{error:?}");
        assert!(error.to_string().contains(file.as_str()), "{error}");
    }
    // A file in a directory that is not there.
    assert!(matches!(
        esp.write_new(&path("nowhere/x"), 1, &mut &b"x"[..]),
        Err(WriteError::Esp(EspError::Missing { .. }))
    ));
    // The name can be used again, and an empty file is a file.
    put(esp, file.as_str(), b"");
    assert_eq!(esp.read(&file, 0).unwrap(), b"");
    assert_eq!(esp.hash_file(&file).unwrap().1, 0);
    esp.remove(&file).unwrap();
}

fn long_files(esp: &mut dyn Esp, volume: Volume) {
    // Longer than every buffer, and no multiple of anything.
    let content: Vec<u8> = (0..1_234_567u32).map(|i| (i * 7 + i / 251) as u8).collect();
    let file = path("one/long");
    let before = esp.space().unwrap();
    put(esp, file.as_str(), &content);
    esp.flush().unwrap();
    assert!(before.cluster_size >= 512);
    // Others may use the file system that a plain directory lies on.
    if volume == Volume::Ours {
        let used = before.free_clusters - esp.space().unwrap().free_clusters;
        assert_eq!(used, before.clusters(content.len() as u64));
    }
    assert_eq!(esp.hash_file(&file).unwrap(), (Sha256::digest(&content).into(), content.len() as u64));
    assert!(esp.read(&file, content.len() as u64).unwrap() == content);
    assert_eq!(esp.read_head(&file, 70_000).unwrap(), content[..70_000]);
    let (mut end, mut middle) = (0, [0; 100]);
    esp.examine(&file, &mut |open| {
        end = open.seek(SeekFrom::End(-1)).unwrap();
        open.seek(SeekFrom::Start(700_000)).unwrap();
        open.read_exact(&mut middle).unwrap();
    })
    .unwrap();
    assert_eq!((end, &middle[..]), (1_234_566, &content[700_000..700_100]));
    esp.remove(&file).unwrap();
}

/// Gives one byte at a time, is interrupted now and then, and fails in the end.
struct Slow<'a> {
    rest: &'a [u8],
    turn: usize,
    end: io::ErrorKind,
}

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.turn += 1;
        if self.turn.is_multiple_of(3) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        match self.rest.split_first() {
            Some((byte, rest)) => {
                buffer[0] = *byte;
                self.rest = rest;
                Ok(1)
            }
            None => Err(self.end.into()),
        }
    }
}

fn failing_content(esp: &mut dyn Esp) {
    let before = names(esp, "one");
    let file = path("one/partial");
    let mut failing = |size: u64, content: &mut dyn Read| match esp.write_new(&file, size, content) {
        Err(WriteError::Source { path, source }) => {
            assert_eq!(path, file);
            assert!(!esp.exists(&file).unwrap(), "the partial file is removed");
            source.kind()
        }
        other => panic!("{other:?}"),
    };
    let end = io::ErrorKind::BrokenPipe;
    assert_eq!(failing(100, &mut Slow { rest: &[1; 50], turn: 0, end }), end);
    assert_eq!(failing(100, &mut &[1; 99][..]), io::ErrorKind::UnexpectedEof);
    assert_eq!(failing(100, &mut &[1; 101][..]), io::ErrorKind::InvalidData);
    assert_eq!(failing(200_000, &mut &vec![1; 150_000][..]), io::ErrorKind::UnexpectedEof);
    assert_eq!(names(esp, "one"), before);
}

fn overwriting(esp: &mut dyn Esp) {
    let file = path("one/byte");
    let content: Vec<u8> = (0..9000).map(|i| (i % 251) as u8).collect();
    put(esp, file.as_str(), &content);
    for at in [0, 511, 512, 4096, 8999] {
        let old = content[at];
        esp.overwrite_byte(&file, at as u64, old, 255).unwrap();
        esp.flush().unwrap();
        let mut expected = content.clone();
        expected[at] = 255;
        assert!(esp.read(&file, 9000).unwrap() == expected);
        // The old byte is checked, and nothing is changed when it is another.
        match esp.overwrite_byte(&file, at as u64, old, 0) {
            Err(EspError::OtherByte { offset, expected, found: 255, .. }) => {
                assert_eq!((offset, expected), (at as u64, old));
            }
            other => panic!("{other:?}"),
        }
        esp.overwrite_byte(&file, at as u64, 255, old).unwrap();
    }
    assert!(esp.overwrite_byte(&file, 9000, 0, 1).is_err());
    assert!(esp.read(&file, 9000).unwrap() == content);
    esp.remove(&file).unwrap();
}

fn entry(slot: Slot, generation: u32, linux: &[u8], initrd: &[u8]) -> Entry {
    Entry {
        title: "RalphOS".into(),
        architecture: EntryArchitecture::X64,
        options: BootOptions {
            root_hash: [1; 32],
            partuuid: uuid::Uuid::from_u128(7),
            on_corruption: OnCorruption::Fail,
            hash_offset: 4096,
            slot,
            generation: Generation::new(generation).unwrap(),
            system: [2; 32],
            epoch: 1,
            os_version: "1.0".into(),
            failed: None,
            extra: String::new(),
        },
        payloads: Payloads::Kernel { linux: Sha256::digest(linux).into(), initrd: Sha256::digest(initrd).into() },
    }
}

fn apply(lock: &UpdateLock, esp: &mut dyn Esp, slot: Slot, generation: u32) -> EntryName {
    let (linux, initrd) = (vec![generation as u8; 300_000], vec![0x55; 100_000]);
    let entry = entry(slot, generation, &linux, &initrd);
    let fenced = fence(lock, esp, slot).unwrap();
    let mut write = |kind, content: &[u8]| {
        let (size, digest) = (content.len() as u64, Sha256::digest(content).into());
        let generation = Generation::new(generation).unwrap();
        fenced.write_payload(lock, esp, kind, generation, size, &mut &content[..], digest).unwrap()
    };
    let written = [write(PayloadKind::Linux, &linux), write(PayloadKind::Initrd, &initrd)];
    stage(lock, esp, fenced, &written, &entry).unwrap().name
}

/// A life: two systems, a commit, a fallback, a rollback, on an ESP that holds nothing yet.
fn acts(esp: &mut dyn Esp) {
    let lock = UpdateLock::for_tests();
    let boots = |esp: &mut dyn Esp| match EspState::read(esp)
        .unwrap()
        .predict(&LoaderVars::default(), EntryArchitecture::X64)
    {
        Prediction::Boots { file_name, .. } => file_name,
        other => panic!("{other:?}"),
    };
    let live = |esp: &mut dyn Esp, slot| EspState::read(esp).unwrap().live(slot).unwrap().clone();

    let first = apply(&lock, esp, Slot::A, 1);
    let entry = live(esp, Slot::A);
    assert_eq!(entry.name, first);
    assert_eq!(commit(&lock, esp, &entry).unwrap().name.to_string(), "ralphos-a-g1.conf");
    apply(&lock, esp, Slot::B, 2);
    assert_eq!(boots(esp), "ralphos-b-g2+3-0.conf");
    let trial = live(esp, Slot::B);
    assert!(mark_bad(&lock, esp, &trial, Some("panic")).unwrap().changed);
    assert_eq!(boots(esp), "ralphos-a-g1.conf");
    apply(&lock, esp, Slot::B, 3);
    let trial = live(esp, Slot::B);
    assert!(commit(&lock, esp, &trial).unwrap().changed);
    assert_eq!(boots(esp), "ralphos-b-g3.conf");
    let booted = live(esp, Slot::B);
    assert!(mark_bad(&lock, esp, &booted, None).unwrap().changed);
    assert_eq!(boots(esp), "ralphos-a-g1.conf");
    assert_eq!(tidy(&lock, esp).unwrap().removed, Vec::<String>::new());

    assert_eq!(names(esp, entries_dir().as_str()), ["ralphos-a-g1.conf", "ralphos-b-g3+0-0.conf"]);
    assert_eq!(names(esp, payload_dir(Slot::B).as_str()), ["g3-initrd", "g3-linux"]);
    let state = EspState::read(esp).unwrap();
    assert_eq!(state.highest_generation().unwrap().get(), 3);
    for entry in &state.ours {
        assert_eq!(is_whole(esp, entry).unwrap(), boot_entries::Wholeness::Whole);
    }
}

#[test]
fn fake() {
    suite(&mut FakeEsp::new(), Volume::Ours);
}

#[test]
fn kernel_on_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    suite(&mut KernelEsp::directory(dir.path()).unwrap(), Volume::Shared);
}

fn image_file(mib: u64) -> tempfile::NamedTempFile {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(mib << 20).unwrap();
    let mut storage = image.reopen().unwrap();
    format_esp(&mut storage, FormatOptions { label: "EFI", serial: 1, sector_size: 512 }).unwrap();
    image
}

fn fsck(image: &Path) {
    setup::ensure_tools().unwrap();
    let output = setup::command("fsck.vfat").arg("-n").arg("-v").arg(image).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !text.contains("wrong") && !text.contains("uninitialized"), "{text}");
}

#[test]
fn image() {
    let image = image_file(64);
    suite(&mut ImageEsp::new(image.reopen().unwrap()), Volume::Ours);
    fsck(image.path());
}

/// As in a disk image: the ESP is a part of the file, and nothing around it is touched.
#[test]
fn image_in_a_window() {
    let image = tempfile::NamedTempFile::new().unwrap();
    let (start, len) = (1 << 20, 64 << 20);
    std::fs::write(image.path(), vec![0xee; start + len + 4096]).unwrap();
    let file = File::options().read(true).write(true).open(image.path()).unwrap();
    let mut window = disk_layout::FileWindow::new(file, start as u64, len as u64).unwrap();
    format_esp(&mut window, FormatOptions { label: "EFI", serial: 1, sector_size: 512 }).unwrap();
    suite(&mut ImageEsp::new(window), Volume::Ours);
    let bytes = std::fs::read(image.path()).unwrap();
    assert!(bytes[..start].iter().chain(&bytes[start + len..]).all(|byte| *byte == 0xee));
    let esp = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(esp.path(), &bytes[start..start + len]).unwrap();
    fsck(esp.path());
}

#[test]
fn a_full_image_is_told_and_stays_whole() {
    let image = image_file(40);
    let mut esp = ImageEsp::new(image.reopen().unwrap());
    let space = esp.space().unwrap();
    let free = space.free_clusters * u64::from(space.cluster_size);
    put(&mut esp, "ralphos/a/g1-linux", &vec![1; usize::try_from(free).unwrap() - 100_000]);
    let content = vec![2; 200_000];
    match esp.write_new(&path("ralphos/b/g2-linux"), content.len() as u64, &mut &content[..]) {
        Err(WriteError::Esp(EspError::Io { .. })) => {}
        other => panic!("{other:?}"),
    }
    assert!(!esp.exists(&path("ralphos/b/g2-linux")).unwrap());
    assert!(esp.space().unwrap().free_clusters * u64::from(space.cluster_size) >= 99_000);
    fsck(image.path());
}

/// What ENT-23 asks of the kernel's mount cannot be seen on a directory; that paths stay inside can.
#[test]
fn symbolic_links_are_not_followed() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(outside.path().join("secret"), "x").unwrap();
    std::os::unix::fs::symlink(outside.path(), dir.path().join("link")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("secret"), dir.path().join("file")).unwrap();
    let mut esp = KernelEsp::directory(dir.path()).unwrap();
    assert!(esp.read(&path("link/secret"), 10).is_err());
    assert!(esp.read(&path("file"), 10).is_err());
    assert!(esp.overwrite_byte(&path("file"), 0, b'x', b'y').is_err());
    assert!(esp.write_new(&path("link/new"), 1, &mut &b"x"[..]).is_err());
    assert!(esp.make_dir(&path("link/new")).is_err());
    assert!(esp.remove(&path("link/secret")).is_err());
    assert_eq!(std::fs::read_to_string(outside.path().join("secret")).unwrap(), "x");
}
