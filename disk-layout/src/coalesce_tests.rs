use super::*;
use crate::fake::{FakeSlot, SlotEvent};
use proptest::prelude::*;

const B: u64 = BLOCK as u64;

fn write(offset: u64, bytes: usize) -> SlotEvent {
    SlotEvent::Write { offset, bytes: bytes as u64 }
}

#[test]
fn data_and_hash_tree_go_out_in_large_pieces() {
    let mut slot = FakeSlot::new(16 << 20);
    let mut writer = CoalescingWriter::new(&mut slot);
    // 8 MiB of data in chunks of 512 KiB, each followed by one block of the leaf level at 12 MiB, one of the level above
    // at 11 MiB in the end.
    for chunk in 0..16u64 {
        writer.write_at(chunk << 19, &vec![chunk as u8; 512 << 10]).unwrap();
        writer.write_at((12 << 20) + chunk * B, &[0xaa; BLOCK]).unwrap();
    }
    writer.write_at(11 << 20, &[0xbb; BLOCK]).unwrap();
    writer.finish().unwrap();
    let mut expected: Vec<SlotEvent> = (0..8).map(|n| write(n << 20, 1 << 20)).collect();
    expected.extend([write(12 << 20, 16 * BLOCK), write(11 << 20, BLOCK), SlotEvent::Flush]);
    assert_eq!(slot.events(), expected);
    assert!(slot.durable()[12 << 20..][..16 * BLOCK].iter().all(|b| *b == 0xaa));
}

#[test]
fn large_writes_are_not_copied() {
    let mut slot = FakeSlot::new(8 << 20);
    let mut writer = CoalescingWriter::new(&mut slot);
    writer.write_at(0, &vec![1; (2 << 20) + BLOCK]).unwrap();
    writer.write_at((2 << 20) + B, &vec![2; 1 << 20]).unwrap();
    writer.finish().unwrap();
    assert_eq!(slot.events(), [write(0, 2 << 20), write(2 << 20, 1 << 20), write(3 << 20, BLOCK), SlotEvent::Flush]);
}

#[test]
fn dsk42_what_does_not_fit_is_refused_before_it_is_gathered() {
    let mut slot = FakeSlot::new(2 * BLOCK);
    let mut writer = CoalescingWriter::new(&mut slot);
    assert!(matches!(writer.write_at(B, &[0; 2 * BLOCK]), Err(SlotError::Outside(_))));
    assert!(matches!(writer.write_at(u64::MAX - B + 1, &[0; BLOCK]), Err(SlotError::Outside(_))));
    assert!(matches!(writer.write_at(1, &[0; BLOCK]), Err(SlotError::Misaligned { .. })));
    assert!(matches!(writer.write_at(0, &[0; 100]), Err(SlotError::Misaligned { .. })));
    writer.finish().unwrap();
    assert_eq!(slot.events(), [SlotEvent::Flush]);
}

#[test]
fn a_writer_that_is_dropped_writes_nothing_more() {
    let mut slot = FakeSlot::new(4 * BLOCK);
    let mut writer = CoalescingWriter::new(&mut slot);
    writer.write_at(0, &[1; BLOCK]).unwrap();
    drop(writer);
    assert_eq!(slot.events(), []);
}

#[test]
fn an_error_stops_everything_behind_it() {
    let mut slot = FakeSlot::new(4 << 20).fail_at(1);
    let mut writer = CoalescingWriter::new(&mut slot);
    writer.write_at(0, &vec![1; 1 << 20]).unwrap();
    let error = writer.write_at(1 << 20, &vec![2; 1 << 20]).unwrap_err();
    assert!(matches!(error, SlotError::Write { offset: 0x10_0000, .. }), "{error}");
    let mut slot = FakeSlot::new(4 << 20).fail_at(0);
    let mut writer = CoalescingWriter::new(&mut slot);
    writer.write_at(0, &[1; BLOCK]).unwrap();
    assert!(writer.finish().is_err());
    assert_eq!(slot.events(), [write(0, BLOCK)], "no flush that would claim success");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Any writes in any order, overlapping too, leave what a plain array would hold, and all of it durable.
    #[test]
    fn behaves_as_an_array(writes in prop::collection::vec((0u64..1100, 1usize..600, any::<u8>()), 0..24)) {
        const BLOCKS: usize = 1700;
        let mut slot = FakeSlot::new(BLOCKS * BLOCK);
        let mut model = vec![0; BLOCKS * BLOCK];
        let mut writer = CoalescingWriter::new(&mut slot);
        for (at, blocks, fill) in writes {
            let bytes = vec![fill; blocks * BLOCK];
            writer.write_at(at * B, &bytes).unwrap();
            model[at as usize * BLOCK..][..bytes.len()].copy_from_slice(&bytes);
        }
        writer.finish().unwrap();
        prop_assert!(slot.durable() == model);
    }
}
