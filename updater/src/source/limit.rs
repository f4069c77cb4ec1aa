//! Not faster than asked: for machines at work and lines that others use, too.

use std::fmt;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use image_format::{Again, Chunk, ChunkSource, Passage};

use crate::stop::Stop;

/// The longest sleep at a time: an end that is asked for is noticed in between.
const NAP: Duration = Duration::from_millis(100);

/// Takes chunks from a source at a limited rate. What comes at once is a chunk; in the long run it is the rate.
pub struct Limited<S> {
    source: S,
    rate: u64,
    stop: Stop,
    began: Option<Instant>,
    taken: u64,
}

impl<S> Limited<S> {
    /// At most `rate` encoded bytes a second, which is not 0. When `stop` is asked for there is no more waiting.
    pub fn new(source: S, rate: u64, stop: Stop) -> Self {
        Limited { source, rate: rate.max(1), stop, began: None, taken: 0 }
    }

    /// Waits until so many bytes may have come.
    fn wait_for(&mut self, bytes: usize) {
        let began = *self.began.get_or_insert_with(Instant::now);
        self.taken = self.taken.saturating_add(bytes as u64);
        let due = Duration::from_secs_f64(self.taken as f64 / self.rate as f64);
        loop {
            let left = due.saturating_sub(began.elapsed());
            if left.is_zero() || self.stop.is_asked() {
                return;
            }
            thread::sleep(left.min(NAP));
        }
    }
}

impl<S> fmt::Debug for Limited<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limited").field("rate", &self.rate).field("taken", &self.taken).finish_non_exhaustive()
    }
}

impl<S: ChunkSource> ChunkSource for Limited<S> {
    fn plan(&mut self, chunks: &[Chunk], wanted: &[usize]) -> io::Result<Passage> {
        self.source.plan(chunks, wanted)
    }

    fn next(&mut self, number: usize, chunk: &Chunk, into: &mut [u8]) -> io::Result<()> {
        self.wait_for(into.len());
        self.source.next(number, chunk, into)
    }

    fn again(&mut self, number: usize, chunk: &Chunk, into: &mut [u8], why: Again) -> io::Result<()> {
        self.wait_for(into.len());
        self.source.again(number, chunk, into, why)
    }

    fn at_end(&mut self) -> io::Result<bool> {
        self.source.at_end()
    }
}

#[cfg(test)]
mod tests {
    use image_format::Digest;

    use super::*;

    fn chunk(len: u32) -> Chunk {
        let digest = Digest::of("");
        Chunk {
            payload: 0,
            encoding: image_format::Encoding::Zstd,
            plain_len: len,
            plain_offset: 0,
            encoded_offset: 0,
            encoded_len: len,
            plain_sha256: digest,
            encoded_sha256: digest,
        }
    }

    #[test]
    fn bytes_come_no_faster_than_asked_and_a_stop_ends_the_waiting() {
        let stop = Stop::default();
        let mut limited = Limited::new(io::repeat(7), 100_000, stop.clone());
        let mut into = [0; 10_000];
        let began = Instant::now();
        for number in 0..3 {
            limited.next(number, &chunk(10_000), &mut into).unwrap();
        }
        assert!(began.elapsed() >= Duration::from_millis(300));
        assert_eq!(into, [7; 10_000]);
        stop.ask();
        let began = Instant::now();
        limited.next(3, &chunk(10_000), &mut vec![0; 100_000_000]).unwrap();
        assert!(began.elapsed() < Duration::from_secs(60), "1000 s at that rate");
    }
}
