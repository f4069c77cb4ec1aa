//! Where the encoded bytes of chunks come from.

use std::io::{self, Read};

use crate::table::Chunk;

/// What a [`ChunkSource`] can spare itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// Every byte passes, wanted or not: a plain stream. Each chunk is then taken, in order.
    Everything,
    /// Only what is wanted is taken.
    Wanted,
}

/// Why a chunk is taken out of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// It was not planned, because a slot claimed to hold it; what the slot holds is something else.
    Missing,
    /// What the source gave last time are not the signed bytes. A source that has another place to ask asks there.
    Damaged,
}

/// Gives the encoded bytes of an image's chunks. They are authenticated by who takes them, chunk by chunk (IMG-53): a source may be
/// as wrong as it likes.
///
/// Every [`Read`] that stands at the start of the data is such a source, one that passes everything.
pub trait ChunkSource {
    /// Told at most once, before the first chunk is taken: `chunks` is the whole table, `wanted` are the numbers, ascending, of
    /// those that [`next`](Self::next) will be asked for. A source that is told nothing gives all of them, in order.
    ///
    /// # Errors
    /// The source's own.
    fn plan(&mut self, chunks: &[Chunk], wanted: &[usize]) -> io::Result<Passage> {
        let _ = (chunks, wanted);
        Ok(Passage::Everything)
    }

    /// Fills `into`, which is as long as the chunk's encoding, with that of chunk `number`: the next one planned.
    ///
    /// # Errors
    /// The source's own; [`io::ErrorKind::UnexpectedEof`] means that the image ends here.
    fn next(&mut self, number: usize, chunk: &Chunk, into: &mut [u8]) -> io::Result<()>;

    /// As [`next`](Self::next), out of order; what comes next is not changed by it.
    ///
    /// # Errors
    /// The source's own; [`io::ErrorKind::Unsupported`] when it has nothing else to give. Nobody asks it again then.
    fn again(&mut self, number: usize, chunk: &Chunk, into: &mut [u8], why: Again) -> io::Result<()> {
        let _ = (number, chunk, into, why);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Asked when the last chunk was taken: does the image end there (IMG-3)?
    ///
    /// # Errors
    /// The source's own.
    fn at_end(&mut self) -> io::Result<bool>;
}

impl<R: Read> ChunkSource for R {
    fn next(&mut self, _number: usize, _chunk: &Chunk, into: &mut [u8]) -> io::Result<()> {
        self.read_exact(into)
    }

    fn at_end(&mut self) -> io::Result<bool> {
        let mut byte = [0];
        loop {
            match self.read(&mut byte) {
                Ok(got) => return Ok(got == 0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl ChunkSource for Box<dyn ChunkSource + Send> {
    fn plan(&mut self, chunks: &[Chunk], wanted: &[usize]) -> io::Result<Passage> {
        (**self).plan(chunks, wanted)
    }

    fn next(&mut self, number: usize, chunk: &Chunk, into: &mut [u8]) -> io::Result<()> {
        (**self).next(number, chunk, into)
    }

    fn again(&mut self, number: usize, chunk: &Chunk, into: &mut [u8], why: Again) -> io::Result<()> {
        (**self).again(number, chunk, into, why)
    }

    fn at_end(&mut self) -> io::Result<bool> {
        (**self).at_end()
    }
}
