//! Not faster than asked: for machines at work and lines that others use, too.

use std::fmt;
use std::io::{self, Read};
use std::thread;
use std::time::{Duration, Instant};

use image_format::{Again, Chunk, ChunkSource, Passage};

use super::{Chunks, ImageStream};
use crate::fetch::{FetchError, Limit};
use crate::stop::Stop;

/// The longest sleep at a time: an end that is asked for is noticed in between.
const NAP: Duration = Duration::from_millis(100);

/// An image, or its chunks, at a limited rate (FET-50). What comes at once is a piece of the head or a chunk; in the long run it is the rate. When `stop` is asked for there is no more waiting.
pub(super) struct Limited<S> {
    pub(super) source: S,
    pub(super) limit: Limit,
    pub(super) stop: Stop,
}

impl<S> Limited<S> {
    /// Waits until so many bytes may come.
    fn wait_for(&self, bytes: usize) {
        let until = Instant::now() + self.limit.wait_for(bytes);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stop.is_asked() {
                return;
            }
            thread::sleep(left.min(NAP));
        }
    }
}

impl<S> fmt::Debug for Limited<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limited").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl Read for Limited<Box<dyn ImageStream>> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let came = self.source.read(buf)?;
        self.wait_for(came);
        Ok(came)
    }
}

impl ImageStream for Limited<Box<dyn ImageStream>> {
    fn into_chunks(self: Box<Self>, data_start: u64, file_len: u64) -> io::Result<Chunks> {
        let source = self.source.into_chunks(data_start, file_len)?;
        Ok(Box::new(Limited { source, limit: self.limit, stop: self.stop }))
    }

    fn begin_anew(&mut self) -> Result<(), Option<FetchError>> {
        self.source.begin_anew()
    }
}

impl ChunkSource for Limited<Chunks> {
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

    use super::super::Forward;
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
    fn fet_50_bytes_come_no_faster_than_asked_and_a_stop_ends_the_waiting() {
        let stop = Stop::default();
        let source: Box<dyn ImageStream> = Box::new(Forward(io::repeat(7)));
        let began = Instant::now();
        let limit = Limit::new("100000".parse().ok());
        let mut limited = Box::new(Limited { source, limit, stop: stop.clone() });
        let mut into = [0; 10_000];
        limited.read_exact(&mut into).unwrap();
        let mut limited = limited.into_chunks(0, 0).unwrap();
        for number in 0..2 {
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
