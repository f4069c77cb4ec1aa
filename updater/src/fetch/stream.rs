//! A pipe: everything comes past once, and what is not wanted is read and dropped (FET-41).

use std::io::{self, Read};

use super::{Fetch, Limit, Span, nowhere_else};

const BLOCK: usize = 256 * 1024;

/// A stream of bytes. As a [`Read`] it gives the head, from the beginning.
pub struct StreamBytes {
    stream: Box<dyn Read + Send>,
    limit: Limit,
    at: u64,
}

impl std::fmt::Debug for StreamBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamBytes").field("at", &self.at).finish_non_exhaustive()
    }
}

impl StreamBytes {
    /// Reads it from where it stands, which is its beginning.
    pub fn new(stream: Box<dyn Read + Send>, limit: Limit) -> Self {
        StreamBytes { stream, limit, at: 0 }
    }
}

impl Read for StreamBytes {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = into.len().min(BLOCK);
        let read = self.stream.read(&mut into[..most])?;
        self.at += read as u64;
        self.limit.pay(read);
        Ok(read)
    }
}

impl Fetch for StreamBytes {
    fn plan(&mut self, _: &[Span]) {}

    fn wants_all(&self) -> bool {
        true
    }

    fn read(&mut self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let skip = at.checked_sub(self.at).ok_or_else(behind)?;
        let skipped = io::copy(&mut Read::take(&mut *self, skip), &mut io::sink())?;
        if skipped < skip {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_exact(into)
    }

    fn again(&mut self, _: Span, _: &mut [u8]) -> io::Result<()> {
        Err(behind())
    }

    fn wrong(&mut self, chunk: usize, _: Span, _: &mut [u8], _: &dyn Fn(&[u8]) -> bool) -> io::Result<()> {
        Err(nowhere_else(chunk))
    }

    fn ends(&mut self) -> io::Result<bool> {
        let mut byte = [0];
        loop {
            match Read::read(self, &mut byte) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map(|read| read == 0),
            }
        }
    }

    fn received(&self) -> u64 {
        self.at
    }

    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

fn behind() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "a stream cannot be read again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fet_41_what_is_not_wanted_is_passed_over() {
        let content: Vec<u8> = (0..=255).cycle().take(2_000_000).collect();
        let mut bytes = StreamBytes::new(Box::new(io::Cursor::new(content.clone())), Limit::default());
        let mut head = [0; 10];
        bytes.read_exact(&mut head).unwrap();
        assert!(bytes.wants_all());
        let mut into = vec![0; 1000];
        Fetch::read(&mut bytes, 1_500_000, &mut into).unwrap();
        assert_eq!(into[..], content[1_500_000..1_501_000]);
        assert_eq!(Fetch::read(&mut bytes, 10, &mut into).unwrap_err().kind(), io::ErrorKind::Unsupported);
        assert!(bytes.again(Span::new(0, 10), &mut into[..10]).is_err());
        assert!(!bytes.ends().unwrap());
        let error = Fetch::read(&mut bytes, 3_000_000, &mut into).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(bytes.ends().unwrap());
    }
}
