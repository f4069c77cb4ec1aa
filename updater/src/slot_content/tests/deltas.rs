//! The same by a delta (UPD-10): its base may be anything, at any time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use image_format::{
    BaseRange, BaseRoot, ChunkError, DeltaPiece, Encoding, MAX_REFERENCE, NewSystem, SystemId, build_delta,
};

use super::*;
use crate::slot_map::{KnownSlots, SlotMaps};

/// Plain bytes of a chunk.
const PIECE: usize = 192 * 1024;

/// A base in memory, of which bits flip once it was read so often.
#[derive(Clone, Default)]
struct Base {
    root: Vec<u8>,
    flips: Vec<usize>,
    from: usize,
    reads: Arc<AtomicUsize>,
}

impl BaseRoot for Base {
    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let at = at as usize;
        into.copy_from_slice(&self.root[at..at + into.len()]);
        if self.reads.fetch_add(1, SeqCst) >= self.from {
            let here = at..at + into.len();
            self.flips.iter().filter(|flip| here.contains(flip)).for_each(|flip| into[flip - at] ^= 4);
        }
        Ok(())
    }
}

fn base() -> Base {
    Base { root: padded(root(1)), ..Base::default() }
}

/// From version 1 to version 2: a chunk by itself, a patch, and copies.
fn delta() -> Vec<u8> {
    let full = file(2);
    let image = UnverifiedImage::read_head(&full[..]).unwrap();
    let (start, new) = (image.data_start() as usize, Base { root: padded(root(2)), ..Base::default() });
    let mut encoded = |chunk: &Chunk| {
        let at = start + chunk.encoded_offset as usize;
        Ok(full[at..at + chunk.encoded_len as usize].to_vec())
    };
    let piece = |offset: usize| {
        let len = PIECE.min(new.root.len() - offset) as u32;
        let range = BaseRange { offset: offset as u64, len };
        DeltaPiece { len, ranges: if offset == 0 { Vec::new() } else { vec![range] } }
    };
    let pieces: Vec<DeltaPiece> = (0..new.root.len()).step_by(PIECE).map(piece).collect();
    let system = NewSystem { image: &image, root: &new, encoded: &mut encoded };
    let mut out = Cursor::new(Vec::new());
    let from = SystemId::of_manifest(b"the base");
    build_delta(system, from, &base(), &pieces, 1, None, &[key()], &mut out, &mut |_| {}).unwrap();
    out.into_inner()
}

fn end<S: ChunkSource>(mut image: VerifiedImage<S>) {
    while let Some(payload) = image.next_payload().unwrap() {
        payload.drain().unwrap();
    }
    image.finish().unwrap();
}

#[test]
fn upd_10_any_number_of_workers_makes_the_slot_of_the_full_image() {
    let (delta, expected) = (delta(), expected(&open(file(2))));
    let encodings: Vec<Encoding> = open(delta.clone()).chunks().iter().map(|chunk| chunk.encoding).collect();
    assert_eq!(encodings[..4], [Encoding::Zstd, Encoding::Copy, Encoding::Patch, Encoding::Copy]);
    for workers in [1, 2, 8] {
        let mut image = open(delta.clone()).on_base(base());
        let (mut slot, stop) = (FakeSlot::new(SLOT), Stop::default());
        let how = how(&stop, workers, Look::Never);
        write_and_prove(&mut image, &NoReuse, &mut slot, &how).unwrap();
        assert!(slot.durable()[..expected.len()] == expected, "{workers}");
        end(image);
    }
}

#[test]
fn img_60_the_workers_of_a_delta_are_as_many_as_fit() {
    let stop = Stop::default();
    let most = how(&stop, 8, Look::Never);
    let largest = MAX_REFERENCE as usize;
    assert_eq!(most.workers(MEMORY_FOR_DELTA, 3 * largest), 2, "reference, plain and encoded");
    assert_eq!(
        most.workers(MEMORY_FOR_DELTA, 2 * largest + (2 << 20)),
        3,
        "as deltas are made, and a look at the slot"
    );
    let mut image = open(delta()).on_base(base());
    let shared = image.share_root(&NoReuse).unwrap();
    assert_eq!(shared.worker_memory(), shared.longest_run() + (1 << 20) + largest);
}

/// A delta that a signal ended is taken up where it was: what the journal says is read and checked, and neither fetched, nor made of the
/// base, nor written again.
#[test]
fn slm_3_an_interrupted_delta_is_resumed() {
    let (delta, expected) = (delta(), expected(&open(file(2))));
    let dir = tempfile::tempdir().unwrap();
    let maps = SlotMaps::in_dir(dir.path());
    let mut slot = FakeSlot::new(SLOT);
    let (stop, mut through) = (Stop::default(), 0);
    let mut image = open(delta.clone()).on_base(base());
    let count = image.chunks().iter().take_while(|chunk| chunk.payload == 0).count();
    let holds = KnownSlots::new(&maps, disk_layout::Slot::B, &mut slot, None);
    let mut journal = maps.begin(disk_layout::Slot::B, &holds, image.system_id(), &image.chunks()[..count]).unwrap();
    let ended = write(&mut image, &NoReuse, &mut slot, &how(&stop, 1, Look::Never), &mut |done| {
        through = done.through;
        if done.bytes > 3 << 20 {
            stop.ask();
        }
    });
    assert!(matches!(ended, Err(SlotContentError::Interrupted)), "{ended:?}");
    journal.leave(through);
    drop(journal);
    slot.flush().unwrap();
    assert!((3 << 20..5 << 20).contains(&through), "{through}");

    let (stop, base) = (Stop::default(), base());
    let known = KnownSlots::new(&maps, disk_layout::Slot::B, &mut slot, None);
    let mut source = picky(&delta, None);
    let mut image = open(delta.clone()).on_base(base.clone()).map_source(|_| &mut source);
    let (taken, changed) = write_and_prove(&mut image, &known, &mut slot, &how(&stop, 2, Look::First)).unwrap();
    assert!(taken.in_place >= through, "{taken:?}");
    assert!(changed.equal >= through, "{changed:?}");
    assert!(slot.durable()[..expected.len()] == expected);
    let left = expected.len() as u64 - through;
    assert!((base.reads.load(SeqCst) as u64) <= left / PIECE as u64 + 1, "the base is asked for the rest alone");
    end(image);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// IMG-73: whatever flips in the base, before or while it is read, the slot is the signed one or the chunk is named.
    #[test]
    fn img_73_no_base_is_believed(
        flips in prop::collection::vec(0..ROOT, 0..3),
        from in 0_usize..40,
        workers in 1_usize..4,
    ) {
        let delta = delta();
        let mut image = open(delta).on_base(Base { flips: flips.clone(), from, ..base() });
        let (mut slot, stop) = (FakeSlot::new(SLOT), Stop::default());
        match write_and_prove(&mut image, &NoReuse, &mut slot, &how(&stop, workers, Look::Never)) {
            Ok(_) => {
                let expected = expected(&open(file(2)));
                prop_assert!(slot.durable()[..expected.len()] == expected);
            }
            Err(SlotContentError::Image { source: ChunkError::BaseDiffers { chunk } }) => {
                // Nothing but what flipped is blamed; the first chunk needs no base.
                prop_assert!(flips.iter().any(|at| at / PIECE == chunk && chunk > 0), "chunk {} of {:?}", chunk, flips);
            }
            Err(other) => prop_assert!(false, "{other:?}"),
        }
    }
}
