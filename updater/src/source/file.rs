//! An image in a file: its chunks are read where they lie, and only those that are wanted.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use image_format::{Again, Chunk, ChunkSource, Passage};

use super::{Chunks, ImageStream};

/// A regular file, while its head is read.
pub(super) struct RegularFile(pub(super) File);

impl Read for RegularFile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl ImageStream for RegularFile {
    fn into_chunks(self: Box<Self>, data_start: u64, _: u64) -> io::Result<Chunks> {
        Ok(Box::new(FileChunks { file: self.0, data_start, end: data_start }))
    }
}

/// The chunks of an image file. Each is read once at most (THR-15).
struct FileChunks {
    file: File,
    data_start: u64,
    /// Where the last chunk that was asked for ends in the file.
    end: u64,
}

impl FileChunks {
    fn read(&mut self, chunk: &Chunk, into: &mut [u8]) -> io::Result<()> {
        let offset = self.data_start + chunk.encoded_offset;
        self.end = self.end.max(offset + into.len() as u64);
        self.file.read_exact_at(into, offset)
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
            // A file says the same every time; and one that changes under us is not to be given a second chance.
            Again::Damaged => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn at_end(&mut self) -> io::Result<bool> {
        loop {
            match self.file.read_at(&mut [0], self.end) {
                Ok(got) => return Ok(got == 0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
