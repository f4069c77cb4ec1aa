//! Files and pipes of this machine (FET-40, FET-41). A file is read by ranges of the one open descriptor (THR-15).

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use image_format::{Again, Chunk, ChunkSource, Passage};

use super::{Limit, Told};

/// Read at a time, so that a rate limit works smoothly.
const BLOCK: usize = 256 * 1024;

/// A stream with a rate limit, whose bytes are counted: a pipe, or the head of a file.
#[derive(Debug)]
pub struct Limited<R> {
    stream: R,
    limit: Limit,
    told: Told,
}

impl<R> Limited<R> {
    /// Reads `stream` no faster than `limit`.
    pub fn new(stream: R, limit: Limit, told: Told) -> Self {
        Limited { stream, limit, told }
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = into.len().min(BLOCK);
        let read = self.stream.read(&mut into[..most])?;
        self.told.count(read);
        self.limit.pay(read);
        Ok(read)
    }
}

/// The chunks of an image in an open regular file.
#[derive(Debug)]
pub struct FileChunks {
    file: File,
    limit: Limit,
    told: Told,
    data_start: u64,
    file_len: u64,
}

impl FileChunks {
    /// The chunks stand from `data_start` to `file_len`, says the authenticated head. The file is never opened again.
    pub fn new(file: File, data_start: u64, file_len: u64, limit: Limit, told: Told) -> Self {
        FileChunks { file, limit, told, data_start, file_len }
    }

    fn read(&mut self, chunk: &Chunk, into: &mut [u8]) -> io::Result<()> {
        let mut at = self.data_start + chunk.encoded_offset;
        for block in into.chunks_mut(BLOCK) {
            self.file.read_exact_at(block, at)?;
            at += block.len() as u64;
            self.told.count(block.len());
            self.limit.pay(block.len());
        }
        Ok(())
    }
}

impl ChunkSource for FileChunks {
    fn plan(&mut self, _: &[Chunk], _: &[usize]) -> io::Result<Passage> {
        Ok(Passage::Wanted)
    }

    fn next(&mut self, _: usize, chunk: &Chunk, into: &mut [u8]) -> io::Result<()> {
        self.read(chunk, into)
    }

    fn again(&mut self, _: usize, chunk: &Chunk, into: &mut [u8], why: Again) -> io::Result<()> {
        match why {
            Again::Missing => self.read(chunk, into),
            // Each byte is read once: there is no other copy of it.
            Again::Damaged => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn at_end(&mut self) -> io::Result<bool> {
        Ok(self.file.read_at(&mut [0], self.file_len)? == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image_format::Digest;
    use std::io::Write;

    fn chunk(encoded_offset: u64, encoded_len: u32) -> Chunk {
        let digest = Digest::of(b"");
        Chunk {
            payload: 0,
            plain_len: 4096,
            plain_offset: 0,
            encoded_offset,
            encoded_len,
            plain_sha256: digest,
            encoded_sha256: digest,
        }
    }

    #[test]
    fn fet_40_a_file_is_read_by_ranges_of_one_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image.zst");
        let content: Vec<u8> = (0..=255).cycle().take(700_000).collect();
        std::fs::write(&path, &content).unwrap();
        let told = Told::default();
        let mut chunks = FileChunks::new(File::open(&path).unwrap(), 100, 700_000, Limit::default(), told.clone());
        // Another file under the name, from now on, is not this one.
        std::fs::rename(&path, dir.path().join("gone")).unwrap();
        std::fs::write(&path, b"another").unwrap();
        assert_eq!(chunks.plan(&[], &[]).unwrap(), Passage::Wanted);
        let mut into = vec![0; 300_000];
        chunks.next(0, &chunk(299_900, 300_000), &mut into).unwrap();
        assert_eq!(into[..], content[300_000..600_000]);
        chunks.again(0, &chunk(5, 10), &mut into[..10], Again::Missing).unwrap();
        assert_eq!(into[..10], content[105..115]);
        assert_eq!(told.received(), 300_010);
        let damaged = chunks.again(0, &chunk(5, 10), &mut into[..10], Again::Damaged).unwrap_err();
        assert_eq!(damaged.kind(), io::ErrorKind::Unsupported);
        let short = chunks.next(0, &chunk(699_890, 11), &mut into[..11]).unwrap_err();
        assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
        assert!(chunks.at_end().unwrap());
        let mut file = File::options().append(true).open(dir.path().join("gone")).unwrap();
        file.write_all(b"x").unwrap();
        assert!(!chunks.at_end().unwrap(), "something follows");
    }

    #[test]
    fn fet_41_a_pipe_is_counted_and_slowed_down() {
        let content = vec![7; 300_000];
        let told = Told::default();
        let limit = Limit::new(Some("1M".parse().unwrap()));
        let began = std::time::Instant::now();
        let mut into = Vec::new();
        Limited::new(&content[..], limit, told.clone()).read_to_end(&mut into).unwrap();
        assert_eq!((into.len(), told.received()), (300_000, 300_000));
        // 300,000 bytes at 1 MiB a second, less the tenth that may have piled up.
        assert!(began.elapsed().as_millis() >= 180, "{:?}", began.elapsed());
    }
}
