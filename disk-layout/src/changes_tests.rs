use proptest::prelude::*;

use super::*;
use crate::fake::{FakeSlot, SlotEvent};

const BLOCKS: usize = 600;

/// A slot whose blocks hold these bytes.
fn slot(blocks: &[u8]) -> FakeSlot {
    let mut slot = FakeSlot::new(BLOCKS * BLOCK);
    for (index, byte) in blocks.iter().enumerate() {
        slot.tamper()[index * BLOCK..][..BLOCK].fill(*byte);
    }
    slot
}

fn bytes(blocks: &[u8]) -> Vec<u8> {
    blocks.iter().flat_map(|byte| [*byte; BLOCK]).collect()
}

fn writes(slot: &FakeSlot) -> Vec<(u64, u64)> {
    let write = |event: &SlotEvent| match event {
        SlotEvent::Write { offset, bytes } => Some((offset / BLOCK as u64, bytes / BLOCK as u64)),
        _ => None,
    };
    slot.events().iter().filter_map(write).collect()
}

#[test]
fn dsk_44_only_blocks_that_differ_are_written() {
    let mut slot = slot(&[1, 2, 3, 4, 5, 6]);
    let changed = ChangeWriter::new(Look::First).put(&mut slot, 0, &bytes(&[1, 9, 9, 4, 5, 9])).unwrap();
    assert_eq!(writes(&slot), [(1, 2), (5, 1)]);
    let block = BLOCK as u64;
    assert_eq!(changed, Changed { written: 3 * block, zeroed: 0, equal: 3 * block });
}

#[test]
fn dsk_44_one_bit_is_a_difference() {
    let mut slot = slot(&[7, 7]);
    slot.tamper()[BLOCK + 4095] ^= 0x80;
    ChangeWriter::new(Look::First).put(&mut slot, 0, &bytes(&[7, 7])).unwrap();
    assert_eq!(writes(&slot), [(1, 1)]);
    assert_eq!(slot.written()[..2 * BLOCK], bytes(&[7, 7]));
}

#[test]
fn dsk_44_without_looking_nothing_is_read() {
    let mut slot = slot(&[1, 2]);
    ChangeWriter::new(Look::Never).put(&mut slot, 0, &bytes(&[1, 3])).unwrap();
    assert_eq!(slot.events(), [SlotEvent::Write { offset: 0, bytes: 2 * BLOCK as u64 }]);
}

#[test]
fn dsk_44_what_cannot_be_read_is_written() {
    let mut slot = slot(&[1, 2]).fail_at(0);
    ChangeWriter::new(Look::First).put(&mut slot, 0, &bytes(&[1, 2])).unwrap();
    assert_eq!(writes(&slot), [(0, 2)]);
}

#[test]
fn dsk_44_long_runs_of_zeros_are_left_to_the_medium() {
    let mut content = vec![5; 40];
    content[2..36].fill(0);
    let mut slot = slot(&[5; 60]);
    let changed = ChangeWriter::new(Look::Never).put(&mut slot, 0, &bytes(&content)).unwrap();
    assert_eq!(changed.zeroed, 34 * BLOCK as u64);
    assert_eq!(changed.written, 6 * BLOCK as u64);
    assert_eq!(slot.written()[..40 * BLOCK], bytes(&content));
    assert_eq!(slot.written()[40 * BLOCK], 5);
}

/// One stretch after the other, each of 256 blocks, each block of ones, over a slot of zeros but for the blocks `equal`, which hold ones.
fn looked_at(stretches: usize, equal: Range<usize>) -> (FakeSlot, Vec<u64>, Changed) {
    let blocks = stretches * STRETCH / BLOCK;
    let mut slot = FakeSlot::new(blocks * BLOCK);
    slot.tamper()[equal.start * BLOCK..equal.end * BLOCK].fill(1);
    let mut writer = ChangeWriter::new(Look::First);
    let (mut reads, mut all) = (Vec::new(), Changed::default());
    for stretch in 0..stretches {
        let before = slot.events().len();
        all += writer.put(&mut slot, (stretch * STRETCH) as u64, &[1; STRETCH]).unwrap();
        let read = slot.events()[before..].iter().map(|event| match event {
            SlotEvent::Read { bytes, .. } => *bytes,
            _ => 0,
        });
        reads.push(read.sum());
    }
    (slot, reads, all)
}

#[test]
fn dsk_44_a_slot_with_nothing_of_use_is_not_read_to_its_end() {
    let (stretch, few) = (STRETCH as u64, TRIED as u64);
    let (slot, reads, all) = looked_at(20, 0..0);
    assert_eq!(reads, [vec![stretch; 16], vec![few; 4]].concat());
    assert_eq!(all.written, 20 * stretch);
    assert!(slot.written().iter().all(|byte| *byte == 1));
    // Something of use where it is looked at: from there on all is looked at, for as long as before.
    let (slot, reads, all) = looked_at(40, 17 * 256 + 3..17 * 256 + 30);
    let expected = [vec![stretch; 16], vec![few], vec![stretch; 17], vec![few; 6]].concat();
    assert_eq!(reads, expected);
    assert_eq!(all.equal, 27 * BLOCK as u64);
    assert!(slot.written().iter().all(|byte| *byte == 1));
}

#[test]
fn dsk_44_what_cannot_be_tried_is_written() {
    let mut slot = FakeSlot::new(18 * STRETCH);
    let mut writer = ChangeWriter::new(Look::First);
    writer.put(&mut slot, 0, &vec![1; 16 * STRETCH]).unwrap();
    let mut slot = FakeSlot::new(18 * STRETCH).fail_at(0);
    let changed = writer.put(&mut slot, 0, &[1; STRETCH]).unwrap();
    assert_eq!(changed.written, STRETCH as u64);
    assert!(slot.written()[..STRETCH].iter().all(|byte| *byte == 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// DSK-44: whatever was there, the bytes are there afterwards, and no more blocks were written than differed.
    #[test]
    fn dsk_44_the_slot_holds_the_bytes_and_little_was_written(
        before in prop::collection::vec(0_u8..3, 1..500),
        after in prop::collection::vec(0_u8..3, 1..500),
        long in any::<bool>(),
        look in prop::sample::select(vec![Look::First, Look::Never]),
    ) {
        // Long runs, too: each block stands for many.
        let stretch = |blocks: &[u8]| -> Vec<u8> {
            let factor = if long { 40 } else { 1 };
            blocks.iter().flat_map(|b| std::iter::repeat_n(*b, factor)).take(BLOCKS - 1).collect()
        };
        let (before, after) = (stretch(&before), stretch(&after));
        let mut slot = slot(&before);
        let untouched = slot.written()[(1 + after.len()) * BLOCK..].to_vec();
        let changed = ChangeWriter::new(look).put(&mut slot, BLOCK as u64, &bytes(&after)).unwrap();
        prop_assert!(slot.written()[BLOCK..][..after.len() * BLOCK] == bytes(&after));
        prop_assert!(slot.written()[(1 + after.len()) * BLOCK..] == untouched);
        let differ = after.iter().enumerate().filter(|(i, b)| before.get(i + 1).unwrap_or(&0) != *b).count();
        let total = (after.len() * BLOCK) as u64;
        prop_assert_eq!(changed.written + changed.zeroed + changed.equal, total);
        if look == Look::First {
            prop_assert_eq!(changed.written + changed.zeroed, (differ * BLOCK) as u64);
        }
    }
}
