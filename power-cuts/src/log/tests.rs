use proptest::prelude::*;

use super::*;

const DISK: u64 = 1 << 20;

fn sample() -> Vec<u8> {
    let mut log = LogWriter::new();
    log.write(7, &[1; 2 * SECTOR]);
    log.flush();
    log.write_fua(9, &[2; SECTOR]);
    log.discard(20, 4);
    log.mark("here");
    log.finish()
}

fn read(bytes: &[u8]) -> Result<Log<Vec<u8>>, LogError> {
    Log::read(bytes.to_vec(), DISK)
}

#[test]
fn cut1_requests_are_read_with_their_flags() {
    let log = read(&sample()).unwrap();
    let request = Request { sector: 0, count: 0, flush: false, fua: false, discard: false, mark: false, data: 0 };
    let expected = [
        Request { sector: 7, count: 2, data: 1024, ..request },
        Request { flush: true, data: 2560, ..request },
        Request { sector: 9, count: 1, fua: true, data: 3072, ..request },
        Request { sector: 20, count: 4, discard: true, data: 4096, ..request },
        Request { mark: true, data: 4608, ..request },
    ];
    assert_eq!(log.requests(), expected);
}

#[test]
fn cut1_a_log_is_replayed_up_to_a_request() {
    let log = read(&sample()).unwrap();
    for (requests, expected) in [(0, vec![]), (2, vec![(7 * 512, 1024)]), (5, vec![(7 * 512, 1024), (9 * 512, 512)])] {
        let mut found = Vec::new();
        log.replay(requests, &mut |offset, bytes| {
            assert!(bytes.iter().all(|b| *b == if offset == 9 * 512 { 2 } else { 1 }));
            found.push((offset, bytes.len()));
            Ok(())
        })
        .unwrap();
        assert_eq!(found, expected);
    }
}

#[test]
fn cut2_the_number_of_requests_is_a_lower_bound() {
    let mut killed = sample();
    killed[16..24].copy_from_slice(&2u64.to_le_bytes());
    assert_eq!(read(&killed).unwrap().requests().len(), 5);
    killed[..SECTOR].fill(0);
    let log = read(&killed).unwrap();
    assert_eq!(log.requests().len(), 5);
    // The data of the last write is cut off.
    assert_eq!(read(&killed[..3072]).unwrap().requests().len(), 2);
    assert_eq!(read(&[]).unwrap().requests(), []);
    let mut promising = sample();
    promising[16] = 6;
    assert!(matches!(read(&promising), Err(LogError::Short { promised: 6, found: 5 })));
}

#[test]
fn cut2_what_cannot_be_is_refused() {
    for (at, byte, what) in [(0, 0, "magic number"), (8, 2, "version"), (25, 4, "sector size")] {
        let mut bytes = sample();
        bytes[at] = byte;
        assert!(matches!(read(&bytes), Err(LogError::Format(found)) if found == what), "{what}");
    }
    for (at, what) in [(512 + 16, "it has a flag that nobody knows"), (512 + 3, "it leaves the disk")] {
        let mut bytes = sample();
        bytes[at] = 0x10;
        assert!(matches!(read(&bytes), Err(LogError::Request { number: 0, what: found }) if found == what), "{what}");
    }
}

/// Recorded by QEMU 7.2 while Linux 6.12 made a directory and a file on a new vfat of 40 MiB and flushed, and killed soon
/// after: sector 0 tells of the requests up to the last flush only.
#[test]
fn cut2_a_log_of_a_killed_qemu() {
    let bytes = include_bytes!("../../fixtures/qemu-killed.log");
    let promised = u64_at(bytes.first_chunk().unwrap(), 16);
    let log = Log::read(bytes.to_vec(), 40 << 20).unwrap();
    let requests = log.requests();
    let flushes: Vec<usize> = (0..requests.len()).filter(|i| requests[*i].flush).collect();
    assert_eq!(Some(promised), flushes.last().map(|last| *last as u64 + 1));
    assert!(requests.len() as u64 > promised, "what came behind the last flush is there, too");
    for flush in flushes {
        assert_eq!((requests[flush].sector, requests[flush].count), (0, 0), "a flush is a request of its own");
    }
    assert!(requests.iter().all(|request| !request.fua && !request.discard && !request.mark));
}

proptest! {
    #[test]
    fn cut1_any_bytes_are_refused_or_read(head in any::<bool>(), bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
        let mut log = if head { sample() } else { Vec::new() };
        log.extend(&bytes);
        if let Ok(log) = read(&log) {
            prop_assert!(log.requests().iter().all(|r| r.mark || r.sector + r.count <= DISK / SECTOR as u64));
        }
    }

    #[test]
    fn cut1_every_bit_of_a_log_may_be_wrong(at in 0usize..4608, bit in 0u8..8) {
        let mut bytes = sample();
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << bit;
        }
        let _ = read(&bytes);
    }
}
