//! A slot from several threads, from several places, and with several things wrong.

mod deltas;

use std::io::{self, Cursor};
use std::sync::Mutex;

use disk_layout::SlotIo;
use disk_layout::fake::{FakeSlot, SlotEvent};
use image_format::{
    Again, Chunk, ChunkSource, NoReuse, Passage, Place, Reuse, UnverifiedImage, VerifiedImage, slot_bytes,
};
use proptest::prelude::*;

use super::*;
use crate::testing::{image_of, key, spec, trust};

/// Several runs of chunks, with long zeros, and no whole number of blocks.
const ROOT: usize = (5 << 20) + 100;
const SLOT: usize = 8 << 20;

fn root(version: u8) -> Vec<u8> {
    let mut root: Vec<u8> = (0..ROOT as u32).map(|at| (at >> 4 ^ at >> 11) as u8).collect();
    root[200 * 1024..420 * 1024].fill(0);
    root[(2 << 20) + 5000..3 << 20].fill(0);
    root[500_000..500_100].fill(version);
    root
}

type Image = VerifiedImage<Cursor<Vec<u8>>>;

fn open(file: Vec<u8>) -> Image {
    UnverifiedImage::read_head(Cursor::new(file)).unwrap().verify_any(&trust(&[key()])).unwrap()
}

fn file(version: u8) -> Vec<u8> {
    let spec = image_format::ImageSpec { chunk_len: 64 * 1024, ..spec("2.0.0") };
    image_of(&spec, root(version)).0
}

fn how(stop: &Stop, workers: usize, look: Look) -> How<'_> {
    How { look, stop, workers: NonZeroUsize::new(workers) }
}

fn write_and_prove<S: ChunkSource + Send>(
    image: &mut VerifiedImage<S>,
    reuse: &dyn Reuse,
    slot: &mut dyn SlotIo,
    how: &How<'_>,
) -> Result<(image_format::Taken, disk_layout::Changed), SlotContentError> {
    let written = write(image, reuse, slot, how, &mut |_| {})?;
    let (taken, changed) = (written.taken, written.changed);
    let count = image.chunks().iter().take_while(|chunk| chunk.payload == 0).count();
    let _: Proven = written.prove(&image.chunks()[..count], slot, how, &mut |_| {})?;
    Ok((taken, changed))
}

/// What a slot must hold afterwards, made by the plainest means.
fn expected(image: &Image) -> Vec<u8> {
    let (payload, verity) = image.manifest().root();
    let mut slot = vec![0; slot_bytes(payload.size) as usize];
    let mut data = root_of(image);
    data.resize(payload.size as usize, 0);
    slot[..data.len()].copy_from_slice(&data);
    let mut builder = image_format::VerityBuilder::new(payload.size, &verity.salt).unwrap();
    let mut sink = |offset: u64, bytes: &[u8]| {
        slot[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    };
    builder.update(&data, &mut sink).unwrap();
    builder.finish(&mut sink).unwrap();
    let superblock = image_format::verity_superblock(verity);
    slot[payload.size as usize..][..4096].copy_from_slice(&superblock);
    slot
}

fn root_of(image: &Image) -> Vec<u8> {
    // The version is the only thing that tells the roots of these tests apart.
    let is = |version: &u8| image.manifest().root().0.sha256 == Digest::of(padded(root(*version)));
    root((0..10).find(is).expect("one of the test's roots"))
}

fn padded(mut root: Vec<u8>) -> Vec<u8> {
    root.resize(root.len().next_multiple_of(4096), 0);
    root
}

#[test]
fn upd_3_and_4_any_number_of_workers_writes_the_same_slot() {
    for workers in [1, 2, 3, 8] {
        let mut image = open(file(1));
        let expected = expected(&image);
        let mut slot = FakeSlot::new(SLOT);
        let stop = Stop::default();
        let (taken, changed) =
            write_and_prove(&mut image, &NoReuse, &mut slot, &how(&stop, workers, Look::Never)).unwrap();
        assert!(slot.durable()[..expected.len()] == expected, "{workers}");
        assert_eq!(changed.written + changed.zeroed, image.manifest().root().0.size);
        assert!(taken.fetched > 0 && taken.reused == 0);
        // The image goes on behind root, and ends as it should.
        while let Some(payload) = image.next_payload().unwrap() {
            payload.drain().unwrap();
        }
        image.finish().unwrap();
    }
}

#[test]
fn dsk_44_a_slot_that_holds_the_version_before_takes_only_the_blocks_that_differ() {
    let stop = Stop::default();
    let mut slot = FakeSlot::new(SLOT);
    let data = open(file(1)).manifest().root().0.size;
    write_and_prove(&mut open(file(1)), &NoReuse, &mut slot, &how(&stop, 2, Look::Never)).unwrap();
    let before = slot.events().len();
    let (_, changed) = write_and_prove(&mut open(file(2)), &NoReuse, &mut slot, &how(&stop, 2, Look::First)).unwrap();
    assert_eq!(changed.written, 4096, "one block differs");
    let written = |event: &SlotEvent| match event {
        SlotEvent::Write { offset, bytes } if *offset < data => *bytes,
        _ => 0,
    };
    assert_eq!(slot.events()[before..].iter().map(written).sum::<u64>(), 4096);
    let expected = expected(&open(file(2)));
    assert!(slot.durable()[..expected.len()] == expected);
}

#[test]
fn img_53_the_first_failure_in_chunk_order_is_told() {
    let good = file(1);
    let head = open(good.clone());
    let (start, chunks) = (head.data_start() as usize, head.chunks().to_vec());
    for workers in [1, 2, 8] {
        for spoilt in [vec![0], vec![9, 3], vec![50, 20], vec![70, 60, 40, 30, 21, 22]] {
            let mut bad = good.clone();
            for number in &spoilt {
                bad[start + chunks[*number].encoded_offset as usize] ^= 1;
            }
            let stop = Stop::default();
            let mut slot = FakeSlot::new(SLOT);
            let error = write(&mut open(bad), &NoReuse, &mut slot, &how(&stop, workers, Look::Never), &mut |_| {});
            let first = *spoilt.iter().min().unwrap();
            let told = matches!(
                &error,
                Err(SlotContentError::Image { source: ChunkError::EncodedDigest { chunk } }) if *chunk == first
            );
            assert!(told, "{workers} {spoilt:?}: {error:?}");
        }
        let cut = start + chunks[37].encoded_offset as usize + 3;
        let mut slot = FakeSlot::new(SLOT);
        let stop = Stop::default();
        let image = &mut open(good[..cut].to_vec());
        let error = write(image, &NoReuse, &mut slot, &how(&stop, workers, Look::Never), &mut |_| {});
        let told = matches!(error, Err(SlotContentError::Image { source: ChunkError::Truncated { chunk: 37, .. } }));
        assert!(told, "{error:?}");
        assert!(matches!(image.next_payload(), Err(ChunkError::AlreadyFailed)), "nothing is read after a failure");
    }
}

#[test]
fn upd_8_a_slot_that_fails_anywhere_proves_nothing() {
    for workers in [1, 3] {
        for event in 0.. {
            let stop = Stop::default();
            let mut slot = FakeSlot::new(SLOT).fail_at(event);
            let how = how(&stop, workers, Look::Never);
            match write_and_prove(&mut open(file(1)), &NoReuse, &mut slot, &how) {
                Err(SlotContentError::Slot { .. }) => {}
                Ok(_) => {
                    assert!(event > 6 && slot.events().len() == event, "event {event} failed and nobody noticed");
                    break;
                }
                Err(error) => panic!("event {event}: {error:?}"),
            }
        }
    }
}

#[test]
fn upd_8_an_end_that_was_asked_for_comes_soon() {
    let stop = Stop::default();
    stop.ask();
    let mut slot = FakeSlot::new(SLOT);
    let result = write(&mut open(file(1)), &NoReuse, &mut slot, &how(&stop, 2, Look::Never), &mut |_| {});
    assert!(matches!(result, Err(SlotContentError::Interrupted)), "{result:?}");
    assert_eq!(slot.events(), []);
    // Asked while it writes.
    let stop = Stop::default();
    let result = write(&mut open(file(1)), &NoReuse, &mut slot, &how(&stop, 1, Look::Never), &mut |_| {
        stop.ask();
    });
    assert!(matches!(result, Err(SlotContentError::Interrupted)), "{result:?}");
    // And while it reads back.
    let stop = Stop::default();
    let mut image = open(file(1));
    let how = how(&stop, 2, Look::Never);
    let written = write(&mut image, &NoReuse, &mut slot, &how, &mut |_| {}).unwrap();
    stop.ask();
    let result = written.prove(&[], &mut slot, &how, &mut |_| {});
    assert!(matches!(result, Err(SlotContentError::Interrupted)), "{result:?}");
}

/// A slot that is said to hold chunks: where, and what is really there.
struct Said {
    places: Vec<Option<Place>>,
    medium: Vec<u8>,
    reads: Mutex<usize>,
}

impl Reuse for Said {
    fn claims(&self, number: usize, _: &Chunk) -> Option<Place> {
        self.places[number]
    }

    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        *self.reads.lock().unwrap() += 1;
        let found = self.medium.get(at as usize..).and_then(|rest| rest.get(..into.len()));
        into.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// A source that gives what is wanted, and nothing else; every `again` is counted. Damages the first answer for one chunk.
struct Picky {
    file: Vec<u8>,
    data_start: usize,
    planned: Vec<usize>,
    again: Vec<(usize, Again)>,
    damage: Option<usize>,
}

impl Picky {
    fn take(&self, chunk: &Chunk, into: &mut [u8]) {
        let at = self.data_start + chunk.encoded_offset as usize;
        into.copy_from_slice(&self.file[at..at + into.len()]);
    }
}

impl ChunkSource for &mut Picky {
    fn plan(&mut self, _: &[Chunk], wanted: &[usize]) -> io::Result<Passage> {
        self.planned = wanted.iter().rev().copied().collect();
        Ok(Passage::Wanted)
    }

    fn next(&mut self, number: usize, chunk: &Chunk, into: &mut [u8]) -> io::Result<()> {
        assert_eq!(self.planned.pop(), Some(number), "in the order of the plan, and nothing else");
        self.take(chunk, into);
        if self.damage == Some(number) {
            into[0] ^= 1;
        }
        Ok(())
    }

    fn again(&mut self, number: usize, chunk: &Chunk, into: &mut [u8], why: Again) -> io::Result<()> {
        self.again.push((number, why));
        self.take(chunk, into);
        Ok(())
    }

    fn at_end(&mut self) -> io::Result<bool> {
        Ok(self.planned.is_empty())
    }
}

fn picky(file: &[u8], damage: Option<usize>) -> Picky {
    let data_start = open(file.to_vec()).data_start() as usize;
    Picky { file: file.to_vec(), data_start, planned: Vec::new(), again: Vec::new(), damage }
}

#[test]
fn img_53_a_source_with_another_place_to_ask_is_asked_again() {
    let file = file(1);
    for damage in [0, 5, 33] {
        let mut source = picky(&file, Some(damage));
        let mut image = open(file.clone()).map_source(|_| &mut source);
        let mut slot = FakeSlot::new(SLOT);
        let stop = Stop::default();
        write_and_prove(&mut image, &NoReuse, &mut slot, &how(&stop, 2, Look::Never)).unwrap();
        while let Some(payload) = image.next_payload().unwrap() {
            payload.drain().unwrap();
        }
        image.finish().unwrap();
        assert_eq!(source.again, [(damage, Again::Damaged)]);
    }
}

/// A source that gives nothing before the other slot was read.
struct Waits<'s> {
    source: &'s mut Picky,
    said: &'s Said,
}

impl ChunkSource for Waits<'_> {
    fn plan(&mut self, chunks: &[Chunk], wanted: &[usize]) -> io::Result<Passage> {
        self.source.plan(chunks, wanted)
    }

    fn next(&mut self, number: usize, chunk: &Chunk, into: &mut [u8]) -> io::Result<()> {
        let began = std::time::Instant::now();
        while *self.said.reads.lock().unwrap() == 0 {
            assert!(began.elapsed().as_secs() < 60, "nobody reads the slot while the source is waited for");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        self.source.next(number, chunk, into)
    }

    fn at_end(&mut self) -> io::Result<bool> {
        self.source.at_end()
    }
}

/// Runs of 1 MiB, each of 16 chunks: the first two from the source, the others from the other slot.
#[test]
fn what_a_slot_holds_is_read_at_once_and_does_not_wait_for_the_source() {
    let new = file(2);
    let image = open(new.clone());
    let (expected, chunks) = (expected(&image), image.chunks().to_vec());
    let place = |number: usize| chunks[number].payload == 0 && number >= 32;
    let places = (0..chunks.len()).map(|number| place(number).then(|| Place::At(chunks[number].plain_offset)));
    let said = Said { places: places.collect(), medium: padded(root(2)), reads: Mutex::new(0) };
    let mut source = picky(&new, None);
    let mut image = image.map_source(|_| Waits { source: &mut source, said: &said });
    let (stop, mut slot) = (Stop::default(), FakeSlot::new(SLOT));
    let (taken, _) = write_and_prove(&mut image, &said, &mut slot, &how(&stop, 3, Look::Never)).unwrap();
    assert!(slot.durable()[..expected.len()] == expected);
    let fetched: u64 = chunks[..32].iter().map(|chunk| u64::from(chunk.encoded_len)).sum();
    assert_eq!(taken, image_format::Taken { fetched, reused: padded(root(2)).len() as u64 - (2 << 20), ..taken });
    assert_eq!((taken.in_place, taken.missed), (0, 0));
    assert_eq!(*said.reads.lock().unwrap(), 4, "one read for each run");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// IMG-56: whatever is claimed of what any slot holds, the slot ends up with the signed root, and what was not there is fetched.
    #[test]
    fn img_56_no_claim_is_believed(
        claims in prop::collection::vec((0_u8..5, 1_usize..30), 1..40),
        flips in prop::collection::vec(0..ROOT, 0..4),
        workers in 1_usize..4,
    ) {
        // Alike for a few chunks on end, as they are where they are read at once.
        let claims: Vec<u8> = claims.iter().flat_map(|(claim, count)| vec![*claim; *count]).collect();
        let new = file(2);
        let image = open(new.clone());
        let expected = expected(&image);
        let data = image.manifest().root().0.size as usize;
        let chunks: Vec<Chunk> = image.chunks().iter().copied().filter(|chunk| chunk.payload == 0).collect();
        // The target holds version 1, but for some flipped bits; the other slot version 2, flipped as well.
        let mut slot = FakeSlot::new(SLOT);
        slot.tamper()[..data].copy_from_slice(&padded(root(1)));
        let mut medium = padded(root(2));
        for at in &flips {
            slot.tamper()[*at] ^= 4;
            medium[*at] ^= 4;
        }
        let places = (0..image.chunks().len()).map(|number| match claims.get(number) {
            Some(1) => Some(Place::InPlace),
            Some(2) => Some(Place::At(chunks.get(number)?.plain_offset)),
            Some(3) => Some(Place::At(chunks.get(number)?.plain_offset + 4096)),
            Some(4) => Some(Place::At(u64::from(u32::MAX))),
            _ => None,
        });
        let places: Vec<_> = places.enumerate().map(|(number, place)| place.filter(|_| number < chunks.len())).collect();
        let said = Said { places, medium, reads: Mutex::new(0) };
        let mut source = picky(&new, None);
        let stop = Stop::default();
        let how = how(&stop, workers, Look::First);
        let mut image = image.map_source(|_| &mut source);
        let (taken, _) = write_and_prove(&mut image, &said, &mut slot, &how).unwrap();
        prop_assert!(slot.durable()[..expected.len()] == expected);
        drop(image);
        prop_assert!(source.again.iter().all(|(_, why)| *why == Again::Missing));
        let missed: u64 = source.again.iter().map(|(number, _)| u64::from(chunks[*number].plain_len)).sum();
        prop_assert_eq!(taken.missed, missed);
    }
}
