//! A file on this machine: read by ranges of the one open descriptor (FET-40, THR-15).

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use super::{Fetch, Limit, Span, nowhere_else};

/// Read at a time, so that a rate limit works smoothly.
const BLOCK: usize = 256 * 1024;

/// An open regular file. As a [`Read`] it gives the head, from the beginning.
#[derive(Debug)]
pub struct FileBytes {
    file: File,
    limit: Limit,
    /// How far the head was read.
    at: u64,
    received: u64,
    /// Behind the last byte that was wanted.
    end: u64,
}

impl FileBytes {
    /// Reads from an open file, and never opens it again.
    pub fn new(file: File, limit: Limit) -> Self {
        FileBytes { file, limit, at: 0, received: 0, end: 0 }
    }

    fn read_at(&mut self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < into.len() {
            let most = (into.len() - done).min(BLOCK);
            self.file.read_exact_at(&mut into[done..done + most], at + done as u64)?;
            done += most;
            self.received += most as u64;
            self.limit.pay(most);
        }
        self.end = self.end.max(at + into.len() as u64);
        Ok(())
    }
}

impl Read for FileBytes {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(into, self.at)?;
        self.at += read as u64;
        self.end = self.end.max(self.at);
        self.received += read as u64;
        self.limit.pay(read);
        Ok(read)
    }
}

impl Fetch for FileBytes {
    fn plan(&mut self, wanted: &[Span]) {
        self.end = wanted.last().map_or(self.end, |span| self.end.max(span.end));
    }

    fn wants_all(&self) -> bool {
        false
    }

    fn read(&mut self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.read_at(at, into)
    }

    fn again(&mut self, span: Span, into: &mut [u8]) -> io::Result<()> {
        self.read_at(span.start, into)
    }

    fn wrong(&mut self, chunk: usize, _: Span, _: &mut [u8], _: &dyn Fn(&[u8]) -> bool) -> io::Result<()> {
        Err(nowhere_else(chunk))
    }

    fn ends(&mut self) -> io::Result<bool> {
        Ok(self.file.read_at(&mut [0], self.end)? == 0)
    }

    fn received(&self) -> u64 {
        self.received
    }

    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn fet_40_a_file_is_read_by_ranges_of_one_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image.zst");
        let content: Vec<u8> = (0..=255).cycle().take(700_000).collect();
        std::fs::write(&path, &content).unwrap();
        let mut bytes = FileBytes::new(File::open(&path).unwrap(), Limit::default());
        // Another file under the name, from now on, is not this one.
        std::fs::rename(&path, dir.path().join("gone")).unwrap();
        std::fs::write(&path, b"another").unwrap();
        let mut head = [0; 100];
        bytes.read_exact(&mut head).unwrap();
        assert_eq!(head[..], content[..100]);
        bytes.plan(&[Span::new(300_000, 300_000), Span::new(699_000, 1000)]);
        let mut into = vec![0; 300_000];
        Fetch::read(&mut bytes, 300_000, &mut into).unwrap();
        assert_eq!(into[..], content[300_000..600_000]);
        bytes.again(Span::new(5, 10), &mut into[..10]).unwrap();
        assert_eq!(into[..10], content[5..15]);
        assert_eq!(bytes.received(), 300_110);
        assert!(bytes.ends().unwrap());
        let error = bytes.wrong(7, Span::new(0, 1), &mut [0], &|_| true).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let mut file = File::options().append(true).open(dir.path().join("gone")).unwrap();
        file.write_all(b"x").unwrap();
        assert!(!bytes.ends().unwrap(), "something follows");
    }

    #[test]
    fn fet_40_a_file_that_is_cut_short_is_truncated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image.zst");
        std::fs::write(&path, [1; 100]).unwrap();
        let mut bytes = FileBytes::new(File::open(&path).unwrap(), Limit::default());
        let error = Fetch::read(&mut bytes, 50, &mut [0; 51]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
