//! Deltas: section 9 of the specification.

mod common;

use std::io::{self, Cursor};
use std::num::NonZeroUsize;

use common::{Parts, Plain, key, program_like, spec, trust};
use image_format::{
    BaseRange, BaseRoot, ChunkError, DeltaBuildError, DeltaPiece, Encoding, FinishError, ImageSpec, NewSystem, NoReuse,
    Role, SystemId, TableError, TransportError, UnverifiedImage, VerifiedImage, VerifyError, add_signature,
    build_delta,
};

/// A root in memory.
#[derive(Clone)]
struct Memory(Vec<u8>);

impl BaseRoot for Memory {
    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let from = self.0.get(at as usize..).and_then(|rest| rest.get(..into.len()));
        into.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// The old system's root, and a new system's: two blocks that are the same elsewhere, four that are alike, two that are new.
fn roots() -> (Plain, Plain) {
    let old = Plain { root: program_like(10 * 4096, 1), ..Plain::small() };
    let mut alike = old.root[5 * 4096..9 * 4096].to_vec();
    alike[100..121].copy_from_slice(b"something that is new");
    let root = [&old.root[4096..3 * 4096], &alike, &program_like(2 * 4096, 99)].concat();
    (old, Plain { root, ..Plain::small() })
}

const PIECES: [(u32, &[(u64, u32)]); 3] =
    [(2, &[(4096, 4096), (8192, 4096)]), (4, &[(0, 7), (5 * 4096, 4 * 4096)]), (2, &[])];

fn pieces() -> Vec<DeltaPiece> {
    let range = |(offset, len): &(u64, u32)| BaseRange { offset: *offset, len: *len };
    PIECES
        .map(|(blocks, ranges)| DeltaPiece { len: blocks * 4096, ranges: ranges.iter().map(range).collect() })
        .to_vec()
}

fn new_spec() -> ImageSpec {
    ImageSpec { version: "1.3.0".to_owned(), ..spec() }
}

fn base_id() -> SystemId {
    SystemId::of_manifest(b"the old system")
}

fn try_delta(pieces: &[DeltaPiece], workers: usize, keys: &[u8]) -> Result<Vec<u8>, DeltaBuildError> {
    let (old, new) = roots();
    let file = new.build(&new_spec(), &[key(1)]);
    let image = UnverifiedImage::read_head(&file[..]).unwrap();
    let start = image.data_start();
    let mut encoded = |chunk: &image_format::Chunk| {
        let at = (start + chunk.encoded_offset) as usize;
        Ok(file[at..at + chunk.encoded_len as usize].to_vec())
    };
    let system = NewSystem { image: &image, root: &Memory(new.root.clone()), encoded: &mut encoded };
    let keys: Vec<_> = keys.iter().map(|n| key(*n)).collect();
    let mut out = Cursor::new(Vec::new());
    let workers = NonZeroUsize::new(workers);
    build_delta(system, base_id(), &Memory(old.root), pieces, 3, workers, &keys, &mut out, &mut |_| {})?;
    Ok(out.into_inner())
}

fn delta() -> Vec<u8> {
    try_delta(&pieces(), 2, &[2]).unwrap()
}

fn open(file: &[u8]) -> VerifiedImage<&[u8]> {
    UnverifiedImage::read_head(file).unwrap().verify_any(&trust(&[1, 2], 1)).unwrap()
}

/// Everything that comes of a delta, payload behind payload.
fn apply(file: &[u8], base: impl BaseRoot + Send + Sync + 'static) -> Result<Vec<u8>, ChunkError> {
    let mut delta = open(file).on_base(base);
    let mut all = Vec::new();
    while let Some(mut payload) = delta.next_payload()? {
        while let Some(plain) = payload.next_chunk()? {
            all.extend_from_slice(plain.bytes);
        }
    }
    delta.finish().unwrap();
    Ok(all)
}

/// The root that workers make of a delta, and how many of them there could be.
fn share(file: &[u8], base: Memory, workers: usize) -> Result<Vec<u8>, ChunkError> {
    let mut delta = open(file).on_base(base);
    let shared = delta.share_root(&NoReuse)?;
    assert!(shared.worker_memory() >= 4 << 20, "a worker needs room for what a chunk refers to");
    let root = std::sync::Mutex::new(vec![0; 8 * 4096]);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let (mut worker, mut memory) = (shared.worker(), vec![0; shared.longest_run()]);
                while let Some(run) = worker.next(&mut memory, &mut |_, _| unreachable!()) {
                    let at = run.offset() as usize;
                    root.lock().unwrap()[at..at + run.bytes().len()].copy_from_slice(run.bytes());
                }
            });
        }
    });
    shared.finish()?;
    while let Some(payload) = delta.next_payload()? {
        payload.drain()?;
    }
    delta.finish().unwrap();
    Ok(root.into_inner().unwrap())
}

#[test]
fn img_71_a_delta_is_the_same_system() {
    let (old, new) = roots();
    let file = delta();
    assert_eq!(
        apply(&file, Memory(old.root)).unwrap(),
        [new.root.clone(), new.linux.clone(), new.initrd.clone()].concat()
    );
    let full = UnverifiedImage::read_head(Cursor::new(new.build(&new_spec(), &[key(1)]))).unwrap();
    let head = UnverifiedImage::read_head(&file[..]).unwrap();
    assert_eq!(head.claimed_manifest_bytes(), full.claimed_manifest_bytes());
    let claims = head.claims().unwrap();
    assert_eq!((claims.system_id, claims.transport.base), (full.claimed_system_id(), Some(base_id())));
    assert_eq!(full.claims().unwrap().transport.base, None);
    assert_eq!(open(&file).base(), Some(base_id()));
    let encodings: Vec<Encoding> = claims.chunks.iter().map(|chunk| chunk.encoding).collect();
    assert_eq!(encodings[..3], [Encoding::Copy, Encoding::Patch, Encoding::Zstd]);
    assert!(encodings[3..].iter().all(|encoding| *encoding == Encoding::Zstd));
    // What is like the old bytes costs next to nothing; what is the same, the range alone.
    assert_eq!(claims.chunks[0].encoded_len, 2 + 2 * 12);
    assert!(claims.chunks[1].encoded_len < 120, "{}", claims.chunks[1].encoded_len);
}

#[test]
fn img_73_workers_make_the_same_root() {
    let (old, new) = roots();
    for workers in [1, 3] {
        assert!(share(&delta(), Memory(old.root.clone()), workers).unwrap() == new.root);
    }
    // IMG-56: of what fails the first in table order is told. The plain SHA-256 is looked at even of what refers to nothing.
    let mut flipped = old.root.clone();
    flipped[4096] ^= 1;
    flipped[6 * 4096] ^= 1;
    let error = share(&delta(), Memory(flipped), 3).unwrap_err();
    assert!(matches!(error, ChunkError::BaseDiffers { chunk: 0 }), "{error}");
}

#[test]
fn img_73_without_its_base_a_delta_gives_nothing() {
    let mut delta = delta();
    let mut without = open(&delta);
    let error = without.next_payload().unwrap().unwrap().next_chunk().unwrap_err();
    assert!(matches!(error, ChunkError::Base { chunk: 0, .. }), "{error}");
    // Its own bytes can be checked all the same.
    let check = |delta: &[u8]| -> Result<(), ChunkError> {
        let mut delta = open(delta);
        while let Some(payload) = delta.next_payload()? {
            payload.drain()?;
        }
        Ok(())
    };
    check(&delta).unwrap();
    let start = open(&delta).data_start() as usize;
    delta[start + 3] ^= 1;
    assert!(matches!(check(&delta), Err(ChunkError::EncodedDigest { chunk: 0 })));
}

#[test]
fn img_71_the_manifest_keeps_its_signatures_and_the_transport_has_its_own() {
    let file = delta();
    let roles = |file: &[u8]| -> Vec<(Role, _)> {
        let head = UnverifiedImage::read_head(file).unwrap();
        head.signatures().records().iter().map(|record| (record.role, record.key_id)).collect()
    };
    let id = |n: u8| key(n).public().key_id();
    assert_eq!(roles(&file), [(Role::Manifest, id(1)), (Role::Transport, id(2))]);
    let refused =
        |file: &[u8], keys: &[u8]| UnverifiedImage::read_head(file).unwrap().verify_any(&trust(keys, 1)).err();
    assert!(matches!(refused(&file, &[1]), Some(VerifyError::Threshold { role: Role::Transport, .. })));
    assert!(matches!(refused(&file, &[2]), Some(VerifyError::Threshold { role: Role::Manifest, .. })));
    // It can be signed later, too.
    let mut unsigned = Cursor::new(try_delta(&pieces(), 1, &[]).unwrap());
    assert!(refused(unsigned.get_ref(), &[1, 2]).is_some());
    add_signature(&mut unsigned, &key(2), &[Role::Transport]).unwrap();
    assert_eq!(*unsigned.get_ref(), file);
}

#[test]
fn img_55_the_same_inputs_give_the_same_delta() {
    for workers in [1, 5] {
        assert!(try_delta(&pieces(), workers, &[2]).unwrap() == delta());
    }
}

#[test]
fn img_70_who_knows_only_full_images_refuses_a_delta() {
    let file = delta();
    let head = UnverifiedImage::read_head(&file[..]).unwrap();
    let refused = head.verify(&trust(&[1, 2], 1)).unwrap_err();
    assert!(matches!(refused, VerifyError::Delta { base } if base == base_id()), "{refused}");
}

/// The delta with a changed transport, unsigned.
fn with_transport(change: impl FnOnce(&mut Vec<u8>)) -> Option<VerifyError> {
    let mut parts = Parts::of(&delta());
    change(&mut parts.transport);
    let file = parts.join();
    UnverifiedImage::read_head(&file[..]).unwrap().claims().err()
}

#[test]
fn img_70_one_base_and_no_other_number() {
    use TransportError::{Bases, Length};
    let of = |error| match error {
        Some(VerifyError::Transport(error)) => error,
        other => panic!("{other:?}"),
    };
    assert!(matches!(of(with_transport(|t| t[70] = 0)), Bases(0)));
    assert!(matches!(of(with_transport(|t| t[70] = 2)), Bases(2)));
    assert!(matches!(of(with_transport(|t| t.push(0))), Length { found: 113, expected: 112 }));
    assert!(matches!(of(with_transport(|t| t.truncate(80))), Length { found: 80, expected: 112 }));
    assert!(matches!(with_transport(|t| t[0] ^= 1), Some(VerifyError::SystemId { .. })));
}

/// The claims of a delta whose table was changed, its transport put right.
fn with_table(change: impl FnOnce(&mut Vec<u8>)) -> Option<VerifyError> {
    let mut parts = Parts::of(&delta());
    change(&mut parts.table);
    let sum = image_format::Digest::of(&parts.table);
    parts.transport[32..64].copy_from_slice(sum.as_ref());
    let file = parts.join();
    UnverifiedImage::read_head(&file[..]).unwrap().claims().err()
}

#[test]
fn img_72_only_root_has_a_base_and_other_encodings_are_refused() {
    let encoding = |error| match error {
        Some(VerifyError::Table(TableError::Encoding { chunk, found })) => (chunk, found),
        other => panic!("{other:?}"),
    };
    assert!(with_table(|_| {}).is_none());
    assert_eq!(encoding(with_table(|t| t[2] = 0)), (0, 0));
    assert_eq!(encoding(with_table(|t| t[2] = 4)), (0, 4));
    // The first chunk of linux.
    assert_eq!(encoding(with_table(|t| t[3 * 96 + 2] = 2)), (3, 2));
    assert_eq!(encoding(with_table(|t| t[3 * 96 + 2] = 3)), (3, 3));
    // A copy longer than its ranges can be.
    let long = with_table(|t| t[24..28].copy_from_slice(&12_291_u32.to_le_bytes()));
    assert!(matches!(long, Some(VerifyError::Table(TableError::EncodedLength { chunk: 0, .. }))), "{long:?}");
}

#[test]
fn img_73_a_base_that_differs_is_noticed_where_it_counts() {
    let (old, _) = roots();
    let file = delta();
    for (at, chunk) in [(4096, 0), (3 * 4096 - 1, 0), (6 * 4096, 1), (8 * 4096 + 9, 1)] {
        let mut root = old.root.clone();
        root[at] ^= 1;
        let error = apply(&file, Memory(root)).map(|all| all.len()).unwrap_err();
        assert!(matches!(error, ChunkError::BaseDiffers { chunk: found } if found == chunk), "{at}: {error}");
    }
    // Nobody looks at these.
    let mut root = old.root.clone();
    root[9 * 4096] ^= 1;
    apply(&file, Memory(root)).unwrap();
    // A base that is too short, and one of zeros.
    let short = apply(&file, Memory(old.root[..7 * 4096].to_vec())).unwrap_err();
    assert!(matches!(short, ChunkError::Base { chunk: 1, .. }), "{short}");
    let zeros = apply(&file, Memory(vec![0; old.root.len()])).unwrap_err();
    assert!(matches!(zeros, ChunkError::BaseDiffers { chunk: 0 }), "{zeros}");
}

#[test]
fn img_73_a_damaged_delta_is_noticed_before_the_base_is_read() {
    struct Untouched;
    impl BaseRoot for Untouched {
        fn read(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
            panic!("read before the chunk was found to be the signed one");
        }
    }
    let mut file = delta();
    let start = UnverifiedImage::read_head(&file[..]).unwrap().data_start() as usize;
    file[start + 3] ^= 1;
    let error = apply(&file, Untouched).unwrap_err();
    assert!(matches!(error, ChunkError::EncodedDigest { chunk: 0 }), "{error}");
}

#[test]
fn img_3_a_delta_ends_where_it_says() {
    let (old, _) = roots();
    let file = delta();
    let cut = apply(&file[..file.len() - 1], Memory(old.root)).unwrap_err();
    assert!(matches!(cut, ChunkError::Truncated { chunk: 5, chunks: 6 }), "{cut}");
    let longer = [&file[..], &[0]].concat();
    let mut delta = open(&longer);
    while let Some(payload) = delta.next_payload().unwrap() {
        payload.drain().unwrap();
    }
    assert!(matches!(delta.finish(), Err(FinishError::TrailingData)));
    assert!(matches!(open(&file).finish(), Err(FinishError::Unread { .. })));
}

#[test]
fn the_builder_refuses_pieces_that_no_reader_would_accept() {
    let refused = |change: &dyn Fn(&mut Vec<DeltaPiece>)| {
        let mut pieces = pieces();
        change(&mut pieces);
        matches!(try_delta(&pieces, 1, &[]), Err(DeltaBuildError::Pieces))
    };
    assert!(refused(&|pieces| pieces[0].len = 4096));
    assert!(refused(&|pieces| pieces[0].len += 1));
    assert!(refused(&|pieces| pieces[0].ranges[0].len = 0));
    assert!(refused(&|pieces| pieces[0].ranges[0].len = (4 << 20) + 1));
    assert!(refused(&|pieces| pieces[0].ranges = vec![BaseRange { offset: 0, len: 1 }; 1025]));
    let mut outside = pieces();
    outside[0].ranges[0].offset = 1 << 40;
    assert!(matches!(try_delta(&outside, 1, &[]), Err(DeltaBuildError::Read("base", _))));
}
