//! What the builder writes, the reader gives back.

mod common;

use std::io::{Cursor, Read, Seek, SeekFrom, Write};
use std::num::NonZeroUsize;

use common::{Parts, Plain, kernel, key, open, program_like, read_all, small_image, spec, trust};
use image_format::{
    Architecture, Boot, BootSource, BuildError, ChunkError, Digest, FinishError, ImageSpec, Manifest, PayloadKind,
    Sources, SystemId, UnverifiedImage, VerityBuilder, build, root_verity, slot_bytes,
};
use proptest::prelude::*;

/// Gives a few bytes at a time and is interrupted now and then, as pipes and sockets do.
struct Dribble<'a> {
    bytes: &'a [u8],
    calls: usize,
}

impl Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.calls += 1;
        if self.calls.is_multiple_of(3) {
            return Err(std::io::ErrorKind::Interrupted.into());
        }
        let len = buffer.len().min(self.calls % 100 + 1);
        self.bytes.read(&mut buffer[..len])
    }
}

#[test]
fn img_1_payloads_come_back_in_order() {
    let plain = Plain::small();
    let payloads = read_all(&small_image(), &trust(&[1], 1)).unwrap();
    let names: Vec<&str> = payloads.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["root", "linux", "initrd"]);
    assert!(payloads[0].1 == plain.root && payloads[1].1 == plain.linux && payloads[2].1 == plain.initrd);
}

#[test]
fn img_19_a_unified_image_is_built_with_the_root_hash_known_before() {
    let plain = Plain::small();
    let verity = root_verity(&mut Cursor::new(&plain.root)).unwrap();
    let mut out = Cursor::new(Vec::new());
    let sources =
        Sources { root: &mut Cursor::new(&plain.root), boot: BootSource::Uki(&mut Cursor::new(&plain.linux)) };
    let built = build(&spec(), sources, &[key(1)], &mut out, &mut |_, _| {}).unwrap();
    assert_eq!(built.manifest.root().1, &verity);
    let payloads = read_all(&out.into_inner(), &trust(&[1], 1)).unwrap();
    assert_eq!(payloads, [("root".to_owned(), plain.root.clone()), ("uki".to_owned(), plain.linux)]);
}

#[test]
fn img_12_the_manifest_says_what_was_built() {
    let (plain, file) = (Plain::small(), small_image());
    let image = open(&file, &trust(&[1], 1)).unwrap();
    let manifest = image.manifest();
    assert_eq!((manifest.os_id.as_str(), manifest.version.as_str()), ("ralphos", "1.2.0"));
    let (root, verity) = manifest.root();
    assert_eq!(root.sha256, Digest::of(&plain.root));
    let Boot::Kernel { linux, initrd } = manifest.boot() else { panic!("{manifest:?}") };
    assert_eq!(linux.sha256, Digest::of(&plain.linux));
    assert_eq!(linux.kind, PayloadKind::Linux { machine: Architecture::X86_64 });
    assert_eq!(initrd.size, 5000);
    assert_eq!(manifest.slot_bytes, slot_bytes(5 * 4096));
    assert_eq!(manifest.esp_bytes, 15_000);
    let mut nowhere = |_: u64, _: &[u8]| Ok(());
    let mut tree = VerityBuilder::new(root.size, &verity.salt).unwrap();
    tree.update(&plain.root, &mut nowhere).unwrap();
    assert_eq!(tree.finish(&mut nowhere).unwrap(), verity.root_hash);

    // IMG-17, IMG-18: the id is of the bytes in the file, and ours are the canonical ones.
    assert_eq!(image.system_id(), SystemId::of_manifest(&Parts::of(&file).manifest));
    assert_eq!(image.manifest_bytes(), manifest.to_json());
    assert_eq!(image.file_len(), file.len() as u64);
    assert_eq!(image.chunks().len(), 3 + 2 + 1);
    assert_eq!(image.signers().manifest, [key(1).public().key_id()]);
    assert_eq!(image.signers().transport, [key(1).public().key_id()]);
}

#[test]
fn img_3_a_pipe_is_enough() {
    let (plain, file) = (Plain::small(), small_image());
    let source = Dribble { bytes: &file, calls: 0 };
    let mut image = UnverifiedImage::read_head(source).unwrap().verify(&trust(&[1], 1)).unwrap();
    let mut all = Vec::new();
    while let Some(mut payload) = image.next_payload().unwrap() {
        payload.read_to_end(&mut all).unwrap();
    }
    assert!(image.finish().unwrap().bytes.is_empty());
    assert!(all == [plain.root, plain.linux, plain.initrd].concat());
}

#[test]
fn img_3_reading_the_head_takes_not_a_byte_of_the_data() {
    let file = small_image();
    let mut source = Cursor::new(&file);
    let head = UnverifiedImage::read_head(&mut source).unwrap();
    let data_start = head.data_start();
    drop(head);
    assert_eq!(source.position(), data_start);
    assert_eq!(data_start as usize + Parts::of(&file).data.len(), file.len());
}

#[test]
fn img_14_payloads_can_be_passed_over_but_not_forgotten() {
    let file = small_image();
    let policy = trust(&[1], 1);
    let mut image = open(&file, &policy).unwrap();
    image.next_payload().unwrap().unwrap().drain().unwrap();
    let mut linux = image.next_payload().unwrap().unwrap();
    assert_eq!(linux.payload().name, "linux");
    let first = linux.next_chunk().unwrap().unwrap();
    assert_eq!((first.offset, first.bytes.len()), (0, 8192));
    drop(linux);
    assert!(matches!(image.next_payload(), Err(ChunkError::Unfinished { payload }) if payload == "linux"));
    assert!(matches!(image.finish(), Err(FinishError::NotAtEnd(ChunkError::Unfinished { .. }))));

    let mut image = open(&file, &policy).unwrap();
    image.next_payload().unwrap().unwrap().drain().unwrap();
    assert!(matches!(image.finish(), Err(FinishError::Unread { payload }) if payload == "linux"));
}

#[test]
fn chunks_and_bytes_can_be_mixed() {
    let (plain, file) = (Plain::small(), small_image());
    let mut image = open(&file, &trust(&[1], 1)).unwrap();
    let mut root = image.next_payload().unwrap().unwrap();
    let mut first = [0; 100];
    root.read_exact(&mut first).unwrap();
    let rest = root.next_chunk().unwrap().unwrap();
    assert_eq!((rest.offset, rest.bytes.len()), (100, 8092));
    assert!(first == plain.root[..100] && rest.bytes == &plain.root[100..8192]);
    let second = root.next_chunk().unwrap().unwrap();
    assert_eq!((second.offset, second.bytes.len()), (8192, 8192));
}

#[test]
fn img_21_root_is_padded_with_zeros() {
    let mut plain = Plain::small();
    plain.root = program_like(2 * 4096 + 1, 9);
    let payloads = read_all(&plain.build(&spec(), &[key(1)]), &trust(&[1], 1)).unwrap();
    let root = &payloads[0].1;
    assert_eq!(root.len(), 3 * 4096);
    assert!(root[..8193] == plain.root && root[8193..].iter().all(|byte| *byte == 0));
}

#[test]
fn img_55_the_same_inputs_give_the_same_file() {
    let plain = Plain::small();
    let with = |workers, level| {
        plain.build(&ImageSpec { workers: NonZeroUsize::new(workers), level, ..spec() }, &[key(1), key(2)])
    };
    for level in [3, 12] {
        let one = with(1, level);
        assert!(one == with(1, level) && one == with(4, level), "level {level}");
    }
    // IMG-17: compressed otherwise, cut otherwise, signed otherwise, it is the same system.
    let id = |file: &[u8]| SystemId::of_manifest(&Parts::of(file).manifest);
    let other = plain.build(&ImageSpec { level: 19, chunk_len: 4096, ..spec() }, &[]);
    assert_eq!(id(&with(1, 3)), id(&other));
    assert_ne!(id(&other), id(&plain.build(&ImageSpec { epoch: 2, ..spec() }, &[])));
}

#[test]
fn a_key_given_twice_signs_once() {
    let file = Plain::small().build(&spec(), &[key(1), key(1)]);
    assert!(file == small_image());
}

#[test]
fn img_31_too_many_keys_are_refused_before_any_work() {
    let plain = Plain::small();
    let mut keys: Vec<_> = (1..=16).map(key).collect();
    // The same key again takes no room.
    keys.push(key(1));
    assert_eq!(Parts::of(&plain.build(&spec(), &keys)).signatures[0], 32);
    keys.push(key(17));
    let sources = Sources {
        root: &mut Cursor::new(&plain.root),
        boot: BootSource::Kernel { linux: &mut Cursor::new(&plain.linux), initrd: &mut Cursor::new(&plain.initrd) },
    };
    let mut out = Cursor::new(Vec::new());
    let refused = build(&spec(), sources, &keys, &mut out, &mut |_, _| panic!("work was done"));
    assert!(matches!(refused, Err(BuildError::Signatures(_))), "{refused:?}");
    assert!(out.get_ref().is_empty());
}

fn try_build(spec: &ImageSpec, plain: &Plain, out: &mut (impl Write + Seek)) -> Result<(), BuildError> {
    let sources = Sources {
        root: &mut Cursor::new(&plain.root),
        boot: BootSource::Kernel { linux: &mut Cursor::new(&plain.linux), initrd: &mut Cursor::new(&plain.initrd) },
    };
    build(spec, sources, &[key(1)], out, &mut |_, _| {}).map(drop)
}

#[test]
fn the_builder_refuses_what_no_reader_would_accept() {
    let fails = |spec: ImageSpec, plain: &Plain| {
        let mut out = Cursor::new(Vec::new());
        let error = try_build(&spec, plain, &mut out).unwrap_err();
        assert!(out.get_ref().is_empty(), "wrote something before it refused: {error}");
        error
    };
    let small = Plain::small();
    for level in [0, -1, 20] {
        assert!(matches!(fails(ImageSpec { level, ..spec() }, &small), BuildError::Level(_)));
    }
    for chunk_len in [0, 1, 4095, 6000, (4 << 20) + 4096] {
        assert!(matches!(fails(ImageSpec { chunk_len, ..spec() }, &small), BuildError::ChunkLen(_)));
    }
    let reserved = ImageSpec { options: "root=/dev/sda".to_owned(), ..spec() };
    assert!(matches!(fails(reserved, &small), BuildError::Manifest(_)));
    let arm = ImageSpec { architecture: Architecture::Aarch64, ..spec() };
    assert!(matches!(fails(arm, &small), BuildError::Manifest(_)));
    assert!(matches!(
        fails(spec(), &Plain { linux: vec![0x1F; 5000], ..Plain::small() }),
        BuildError::Kernel { payload: "linux", .. }
    ));
    assert!(matches!(fails(spec(), &Plain { root: Vec::new(), ..Plain::small() }), BuildError::Empty("root")));
    assert!(matches!(fails(spec(), &Plain { linux: Vec::new(), ..Plain::small() }), BuildError::Empty("linux")));
    assert!(matches!(fails(spec(), &Plain { initrd: Vec::new(), ..Plain::small() }), BuildError::Empty("initrd")));

    let mut used = Cursor::new(vec![0; 10]);
    assert!(matches!(try_build(&spec(), &small, &mut used), Err(BuildError::OutputNotEmpty)));
}

/// A source that has another length, or other bytes, when it is read for the second time.
struct Changing {
    versions: [Vec<u8>; 2],
    rewinds: usize,
    position: usize,
}

impl Read for Changing {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        // Rewound once for the size and once for the first pass.
        let bytes = &self.versions[usize::from(self.rewinds > 2)];
        let len = (&bytes[self.position.min(bytes.len())..]).read(buffer)?;
        self.position += len;
        Ok(len)
    }
}

impl Seek for Changing {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.position = match to {
            SeekFrom::Start(at) => at as usize,
            _ => self.versions[0].len(),
        };
        self.rewinds += usize::from(self.position == 0);
        Ok(self.position as u64)
    }
}

#[test]
fn a_root_that_changes_while_it_is_read_gives_no_image() {
    let root = program_like(5 * 4096, 1);
    let mut edited = root.clone();
    edited[9000] ^= 1;
    for second in [edited, root[..4096].to_vec(), root[..5 * 4096 - 1].to_vec()] {
        let mut source = Changing { versions: [root.clone(), second], rewinds: 0, position: 0 };
        let sources = Sources {
            root: &mut source,
            boot: BootSource::Kernel {
                linux: &mut Cursor::new(kernel(Architecture::X86_64, 1000)),
                initrd: &mut Cursor::new(b"initrd"),
            },
        };
        let mut out = Cursor::new(Vec::new());
        let result = build(&spec(), sources, &[key(1)], &mut out, &mut |_, _| {});
        assert!(matches!(result, Err(BuildError::Changed("root"))));
        // Without its head the file is no image.
        assert!(UnverifiedImage::read_head(out.get_ref().as_slice()).is_err());
    }
}

#[test]
fn progress_reaches_its_total() {
    let plain = Plain::small();
    let sources = Sources {
        root: &mut Cursor::new(&plain.root),
        boot: BootSource::Kernel { linux: &mut Cursor::new(&plain.linux), initrd: &mut Cursor::new(&plain.initrd) },
    };
    let mut seen = Vec::new();
    build(&spec(), sources, &[], &mut Cursor::new(Vec::new()), &mut |done, total| seen.push((done, total))).unwrap();
    assert!(seen.is_sorted());
    assert_eq!(seen.last(), Some(&(2 * 20480 + 15_000, 2 * 20480 + 15_000)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_sizes_and_cuts_round_trip(
        root in 1_usize..60_000,
        linux in 512_usize..20_000,
        initrd in 1_usize..20_000,
        blocks in 1_u32..6,
        level in 1_i32..6,
    ) {
        let plain = Plain {
            root: program_like(root, 1),
            linux: kernel(Architecture::X86_64, linux),
            initrd: program_like(initrd, 3),
        };
        let file = plain.build(&ImageSpec { chunk_len: blocks * 4096, level, ..spec() }, &[key(1)]);
        let payloads = read_all(&file, &trust(&[1], 1)).unwrap();
        prop_assert!(payloads[0].1[..root] == plain.root && payloads[0].1.len() == root.next_multiple_of(4096));
        prop_assert!(payloads[1].1 == plain.linux && payloads[2].1 == plain.initrd);
        let manifest = Manifest::parse(&Parts::of(&file).manifest).unwrap();
        prop_assert_eq!(manifest.slot_bytes, slot_bytes(manifest.root().0.size));
    }
}
