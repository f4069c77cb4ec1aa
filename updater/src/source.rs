//! Where an image comes from: a file, standard input, or HTTP. Each gives its head as a stream, and then its chunks.

mod file;
mod limit;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use image_format::{ChunkSource, VerifiedImage};

use crate::fetch::{BadProxy, FetchError, Http, HttpChunks, Settings, Told, without_credentials};
use crate::stop::Stop;
use file::RegularFile;
use limit::Limited;

/// Where to take an image from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file, read once from its beginning.
    File(PathBuf),
    /// Standard input.
    Stdin,
    /// An `http://` or `https://` address.
    Url(String),
}

impl std::str::FromStr for Source {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lower = text.to_ascii_lowercase();
        Ok(match text {
            "-" => Source::Stdin,
            _ if lower.starts_with("http://") || lower.starts_with("https://") => Source::Url(text.to_owned()),
            _ => Source::File(text.into()),
        })
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::File(path) => path.display().fmt(f),
            Source::Stdin => f.write_str("standard input"),
            Source::Url(url) => f.write_str(&without_credentials(url)),
        }
    }
}

/// Why no image could be opened.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file cannot be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The proxy that is named is none.
    #[error("the image cannot be fetched")]
    Proxy(#[from] BadProxy),
}

/// Chunks, wherever they come from.
pub type Chunks = Box<dyn ChunkSource + Send>;

/// An image as it is opened: bytes in order until its head is read and trusted, and then chunks.
pub trait ImageStream: Read + Send {
    /// Gives the chunks of the image whose data begin `data_start` bytes from the start of the stream, which is where it stands, and end
    /// at `file_len`.
    ///
    /// # Errors
    /// The source is not the file that the head is of.
    fn into_chunks(self: Box<Self>, data_start: u64, file_len: u64) -> io::Result<Chunks>;

    /// The head that was read cannot be used: is there another one to be had? Then that is what is read next.
    ///
    /// # Errors
    /// There is none; what others did who were asked for it.
    fn begin_anew(&mut self) -> Result<(), Option<FetchError>> {
        Err(None)
    }
}

/// Exchanges the stream that an image's head came from for its chunks.
///
/// # Errors
/// As [`ImageStream::into_chunks`].
pub fn with_chunks(image: VerifiedImage<Box<dyn ImageStream>>) -> io::Result<VerifiedImage<Chunks>> {
    let (data_start, file_len) = (image.data_start(), image.file_len());
    let mut refused = None;
    let image = image.map_source(|stream| match stream.into_chunks(data_start, file_len) {
        Ok(chunks) => chunks,
        Err(error) => {
            refused = Some(error);
            Box::new(io::empty())
        }
    });
    refused.map_or(Ok(image), Err)
}

impl ImageStream for Http {
    fn into_chunks(self: Box<Self>, data_start: u64, file_len: u64) -> io::Result<Chunks> {
        Ok(Box::new(HttpChunks::new(*self, data_start, file_len)?))
    }

    fn begin_anew(&mut self) -> Result<(), Option<FetchError>> {
        self.strike_head()
    }
}

/// A stream that cannot be asked for anything but its next byte.
#[derive(Debug)]
pub struct Forward<R>(pub R);

impl<R: Read> Read for Forward<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl<R: Read + Send + 'static> ImageStream for Forward<R> {
    fn into_chunks(self: Box<Self>, _: u64, _: u64) -> io::Result<Chunks> {
        Ok(self)
    }
}

/// An open source.
pub struct Stream {
    /// The bytes, in order, once; then chunks.
    pub reader: Box<dyn ImageStream>,
    /// What a network can tell afterwards.
    pub told: Told,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("told", &self.told).finish_non_exhaustive()
    }
}

impl Source {
    /// Opens the source. Errors name it and say what to do.
    pub fn open(&self) -> Result<Stream, SourceError> {
        self.open_with(Vec::new(), Settings::default(), &Stop::default())
    }

    /// Opens the source; an address, and its mirrors, as `settings` say. Servers are asked when the head is read, and not before. Nobody
    /// waits for it any more once `stop` is asked for: servers are hung up on, and reading fails.
    pub fn open_with(&self, mirrors: Vec<String>, settings: Settings, stop: &Stop) -> Result<Stream, SourceError> {
        let source = match self {
            Source::File(path) => open_file(path)?,
            Source::Stdin => Box::new(Forward(io::stdin())),
            Source::Url(url) => {
                // It keeps to the rate by itself, what it reads and does not want included.
                let http = Http::new([vec![url.clone()], mirrors].concat(), settings)?;
                let told = http.told();
                let waker = told.clone();
                stop.when_asked(move || waker.hang_up());
                return Ok(Stream { told, reader: Box::new(http) });
            }
        };
        let limited = Limited { source, limit: settings.limit, stop: stop.clone() };
        Ok(Stream { reader: Box::new(limited), told: Told::default() })
    }
}

fn open_file(path: &Path) -> Result<Box<dyn ImageStream>, SourceError> {
    let open = |e| SourceError::Open { path: path.to_owned(), source: e };
    let file = File::open(path).map_err(open)?;
    let meta = file.metadata().map_err(open)?;
    if meta.is_dir() {
        return Err(open(io::ErrorKind::IsADirectory.into()));
    }
    Ok(if meta.is_file() { Box::new(RegularFile(file)) } else { Box::new(Forward(file)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_told_apart() {
        let parse = |text: &str| text.parse::<Source>().unwrap();
        assert_eq!(parse("-"), Source::Stdin);
        assert_eq!(parse("HTTPS://x/y"), Source::Url("HTTPS://x/y".into()));
        assert_eq!(parse("http.zst"), Source::File("http.zst".into()));
        assert_eq!(parse("http://me:secret@x/y").to_string(), "http://x/y");
    }

    #[test]
    fn a_missing_file_and_a_folder_are_named() {
        for path in ["/nonexistent/image.zst", "/"] {
            let error = Source::File(path.into()).open().unwrap_err();
            assert!(error.to_string().contains(path), "{error}");
        }
    }
}
