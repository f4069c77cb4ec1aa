use super::*;
use crate::log::LogWriter;

fn sector(byte: u8) -> [u8; SECTOR] {
    [byte; SECTOR]
}

fn cut(writer: LogWriter) -> (Disk<Vec<u8>, Vec<u8>>, Vec<Interval>) {
    let base = vec![0; 64 * SECTOR];
    let log = writer.finish();
    let mut disk = Disk::new(base, log.clone()).unwrap();
    let log = Log::read(log, disk.bytes()).unwrap();
    let intervals = intervals(&mut disk, &log).unwrap();
    (disk, intervals)
}

#[test]
fn cut11_a_sector_may_hold_any_of_its_versions() {
    let mut log = LogWriter::new();
    log.write(3, &sector(1));
    log.write(3, &sector(2));
    log.write(3, &sector(1));
    log.write(4, &sector(0));
    log.write(5, &sector(7));
    log.flush();
    log.write(3, &sector(0));
    let (disk, intervals) = cut(log);
    assert_eq!(intervals.len(), 2);
    let start = Rc::new(Layer::default());
    let choices = intervals[0].choices(&start);
    let counts: Vec<(u64, usize)> = choices.iter().map(|choice| (choice.sector, choice.contents.len())).collect();
    assert_eq!(counts, [(3, 3), (5, 2)], "sector 4 holds what the base does");
    assert_eq!(count(&choices), 6);
    assert_eq!(choices[0].last(), 1, "the content written last is the one that came first");
    let end = intervals[0].end(&disk, &start);
    let choices = intervals[1].choices(&end);
    assert_eq!(choices[0].contents[1].0, Content::Base, "back to what the base holds");
    assert_eq!(State::of(intervals[1].end(&disk, &end)).changed().len(), 1);
}

#[test]
fn cut12_a_flush_with_data_comes_before_the_data() {
    let mut bytes = {
        let mut log = LogWriter::new();
        log.write(1, &sector(1));
        log.write(2, &sector(2));
        log.finish()
    };
    // The second request becomes flush and write.
    bytes[SECTOR * 3 + 16] = 1;
    let mut disk = Disk::new(vec![0; 8 * SECTOR], bytes.clone()).unwrap();
    let log = Log::read(bytes, disk.bytes()).unwrap();
    let intervals = intervals(&mut disk, &log).unwrap();
    let sectors: Vec<Vec<u64>> =
        intervals.iter().map(|interval| interval.writes.iter().map(|write| write.sector).collect()).collect();
    assert_eq!(sectors, [vec![1], vec![2]]);
}

#[test]
fn cut33_what_no_flush_ends_is_not_durable_but_what_was_written_through() {
    let mut log = LogWriter::new();
    log.write(1, &sector(1));
    log.flush();
    log.write(2, &sector(2));
    log.write_fua(3, &sector(3));
    log.write(3, &sector(4));
    let (disk, intervals) = cut(log);
    let flushed: Vec<bool> = intervals.iter().map(|interval| interval.flushed).collect();
    assert_eq!(flushed, [true, false]);
    let start = intervals[0].durable(&disk, &Rc::new(Layer::default()));
    assert_ne!(start.get(1), Content::Base);
    let (durable, end) = (intervals[1].durable(&disk, &start), intervals[1].end(&disk, &start));
    assert_eq!(durable.get(2), Content::Base);
    assert_ne!(end.get(2), Content::Base);
    assert!(durable.get(3) != Content::Base && durable.get(3) != end.get(3));
}

#[test]
fn cut13_a_discarded_sector_may_be_zero() {
    let mut log = LogWriter::new();
    log.write(1, &sector(1));
    log.flush();
    log.discard(1, 2);
    log.mark("nothing");
    let (disk, intervals) = cut(log);
    let start = intervals[0].end(&disk, &Rc::new(Layer::default()));
    let choices = intervals[1].choices(&start);
    assert_eq!(choices.len(), 1);
    assert_eq!(choices[0].contents[1].0, Content::Base, "zeros, as the base");
}

#[test]
fn cut15_equal_disks_have_equal_fingerprints() {
    let mut log = LogWriter::new();
    log.write(1, &sector(1));
    log.write(2, &sector(1));
    log.write(1, &sector(3));
    log.write(1, &sector(1));
    let (disk, intervals) = cut(log);
    let start = Rc::new(Layer::default());
    let prefix = |request| intervals[0].prefix(&disk, &start, request);
    assert_eq!(prefix(2).fingerprint(), prefix(4).fingerprint());
    assert_ne!(prefix(2).fingerprint(), prefix(3).fingerprint());
    assert_ne!(prefix(1).fingerprint(), prefix(0).fingerprint());
    assert_eq!(prefix(4).fingerprint(), State::of(intervals[0].end(&disk, &start)).fingerprint());
    let part = |state: &State| state.fingerprint_of(&disk, 2..3);
    assert_eq!(part(&prefix(2)), part(&prefix(3)));
    assert_ne!(part(&prefix(2)), part(&prefix(1)));
}

#[test]
fn cut16_small_intervals_come_first_and_the_rest_is_spread() {
    let deciding = |counts: &[u64]| counts.iter().map(|count| (*count, true)).collect::<Vec<_>>();
    assert_eq!(share(&deciding(&[4, 1_000_000, 8, u64::MAX]), 112), [4, 50, 8, 50]);
    assert_eq!(share(&deciding(&[4, 8]), 100), [4, 8]);
    assert_eq!(share(&[], 100), Vec::<u64>::new());
    assert_eq!(share(&deciding(&[10, 10]), 0), [0, 0]);
}

#[test]
fn cut16_what_nothing_refers_to_gets_a_tenth_and_what_the_others_leave() {
    assert_eq!(share(&[(u64::MAX, false), (u64::MAX, true), (4, true)], 100), [10, 86, 4]);
    assert_eq!(share(&[(u64::MAX, false), (30, true)], 100), [70, 30]);
    assert_eq!(share(&[(2, false), (u64::MAX, true)], 100), [2, 98]);
}
