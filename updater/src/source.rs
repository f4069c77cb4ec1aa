//! Where an image comes from: a file, standard input, or HTTP. All give one forward stream of bytes.
//!
//! A body is read by a thread of its own, so that a server that stalls is noticed (no byte within [`Patience::stall`]) even
//! though the HTTP library has no time limit between two reads, and so that fetching overlaps writing.

mod file;
mod limit;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use image_format::ChunkSource;

use file::RegularFile;
pub use limit::Limited;

/// How long a server may keep an apply waiting (THR-9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// A body that brings nothing for so long is given up.
    pub stall: Duration,
    /// A body that brings fewer bytes than this while we wait for `stall` in all is given up, too: it would hold the update
    /// lock for days.
    pub least: u64,
}

/// What [`Source::open`] has.
pub const PATIENCE: Patience = Patience { stall: Duration::from_secs(60), least: 256 * 1024 };

const MAX_REDIRECTS: u32 = 5;
const BLOCK: usize = 256 * 1024;
/// Blocks fetched ahead: 4 MiB.
const AHEAD: usize = 16;

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
    /// The server answered with something other than 200.
    #[error("{url} answered {status}: is the address right?")]
    Status {
        /// The address asked.
        url: String,
        /// The HTTP status code.
        status: u16,
    },
    /// One redirect led to the next.
    #[error("{url} redirects more than {MAX_REDIRECTS} times: the server sends clients in a loop")]
    Redirects {
        /// The address asked.
        url: String,
    },
    /// The server cannot be reached, or does not speak HTTP.
    #[error("cannot fetch {url}")]
    Fetch {
        /// The address asked.
        url: String,
        /// What went wrong.
        source: Box<ureq::Error>,
    },
}

/// What a body did wrong while it came. Inside an [`io::Error`], because readers of images know no other.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// No byte within [`Patience::stall`].
    #[error("{url} sent nothing for {} s after {received}: try again, or use another mirror", waited.as_secs())]
    Silent {
        /// Whom we asked.
        url: String,
        /// How many bytes had come, and of how many.
        received: Received,
        /// How long we waited.
        waited: Duration,
    },
    /// Fewer bytes than [`Patience::least`].
    #[error("{url} sent less than {least} bytes in {} s after {received}: try again, or use another mirror", waited.as_secs())]
    Trickle {
        /// Whom we asked.
        url: String,
        /// How many bytes had come, and of how many.
        received: Received,
        /// What should have come.
        least: u64,
        /// In what time.
        waited: Duration,
    },
    /// More than the length promised.
    #[error("{url} sent more than it promised: {received}: use another mirror")]
    TooLong {
        /// Whom we asked.
        url: String,
        /// How many bytes had come, and of how many.
        received: Received,
    },
    /// Less than the length promised.
    #[error("{url} ended early after {received}: try again, or use another mirror")]
    EndedEarly {
        /// Whom we asked.
        url: String,
        /// How many bytes had come, and of how many.
        received: Received,
    },
    /// The connection broke, or what came is not HTTP.
    #[error("{url} broke off after {received}: try again, or use another mirror")]
    Broken {
        /// Whom we asked.
        url: String,
        /// How many bytes had come, and of how many.
        received: Received,
        /// What went wrong.
        source: io::Error,
    },
}

/// How much of a body has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Bytes that came.
    pub bytes: u64,
    /// Bytes that were promised.
    pub of: Option<u64>,
}

impl std::fmt::Display for Received {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.of {
            Some(of) => write!(f, "{} of {of} bytes", self.bytes),
            None => write!(f, "{} bytes", self.bytes),
        }
    }
}

/// An image as it is opened: bytes in order until its head is read and trusted, and then chunks.
pub trait ImageStream: Read + Send {
    /// Gives the chunks of the image whose data begin `data_start` bytes from the start of the stream, which is where it stands.
    fn into_chunks(self: Box<Self>, data_start: u64) -> Box<dyn ChunkSource + Send>;
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
    fn into_chunks(self: Box<Self>, _: u64) -> Box<dyn ChunkSource + Send> {
        self
    }
}

/// An open source: a stream, and its length where that is known.
pub struct Stream {
    /// The bytes, in order, once.
    pub reader: Box<dyn ImageStream>,
    /// How many bytes are expected in all.
    pub length: Option<u64>,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("length", &self.length).finish_non_exhaustive()
    }
}

impl Source {
    /// Opens the source. Errors name it and say what to do.
    pub fn open(&self) -> Result<Stream, SourceError> {
        self.open_with(PATIENCE)
    }

    /// Opens the source, with another patience for servers.
    pub fn open_with(&self, patience: Patience) -> Result<Stream, SourceError> {
        match self {
            Source::File(path) => open_file(path),
            Source::Stdin => Ok(Stream { reader: Box::new(Forward(io::stdin())), length: None }),
            Source::Url(url) => fetch(url, patience),
        }
    }
}

fn open_file(path: &Path) -> Result<Stream, SourceError> {
    let open = |e| SourceError::Open { path: path.to_owned(), source: e };
    let file = File::open(path).map_err(open)?;
    let meta = file.metadata().map_err(open)?;
    if meta.is_dir() {
        return Err(open(io::ErrorKind::IsADirectory.into()));
    }
    if !meta.is_file() {
        return Ok(Stream { reader: Box::new(Forward(file)), length: None });
    }
    Ok(Stream { reader: Box::new(RegularFile(file)), length: Some(meta.len()) })
}

/// How servers are asked.
pub fn client(patience: Patience) -> ureq::config::Config {
    ureq::Agent::config_builder()
        .max_redirects(MAX_REDIRECTS)
        // A redirect may lead back to the same server. A connection kept for it may be closed by the server in the very
        // moment we ask again, and the fetch would fail for nothing.
        .max_idle_connections(0)
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_recv_response(Some(patience.stall))
        .user_agent(concat!("ralph-update/", env!("CARGO_PKG_VERSION")))
        .build()
}

fn fetch(url: &str, patience: Patience) -> Result<Stream, SourceError> {
    fetch_over(&ureq::Agent::new_with_config(client(patience)), url, patience)
}

/// As [`Source::open_with`] does with an address, over connections of the caller's own kind: for who wants to see what becomes of an
/// answer without a server.
///
/// # Errors
/// As [`Source::open_with`].
pub fn fetch_over(agent: &ureq::Agent, url: &str, patience: Patience) -> Result<Stream, SourceError> {
    let shown = without_credentials(url);
    // Compressed transfer would only hide the length: the image is compressed already.
    let response = agent.get(url).header("Accept-Encoding", "identity").call().map_err(|error| match error {
        ureq::Error::StatusCode(status) => SourceError::Status { url: shown.clone(), status },
        ureq::Error::TooManyRedirects => SourceError::Redirects { url: shown.clone() },
        other => SourceError::Fetch { url: shown.clone(), source: Box::new(other) },
    })?;
    if response.status().as_u16() != 200 {
        return Err(SourceError::Status { url: shown, status: response.status().as_u16() });
    }
    let length = response.headers().get("content-length").and_then(|v| v.to_str().ok()?.parse().ok());
    let body = response.into_body().into_reader();
    let reader = Watched::start(body, shown, length, patience);
    Ok(Stream { reader: Box::new(Forward(reader)), length })
}

/// User name and password of an address are not for logs.
fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{host}{path}"),
        None => url.to_owned(),
    }
}

/// A reader fed by a thread, with limits on the server's silence and slowness and a check of the promised length.
struct Watched {
    blocks: Receiver<io::Result<Vec<u8>>>,
    current: io::Cursor<Vec<u8>>,
    url: String,
    received: Received,
    patience: Patience,
    ended: bool,
    /// How long we waited for the server since the last judgement, and how much had come by then. Only waiting counts: the
    /// server can do nothing about the minutes in which a slot is flushed or read back.
    waited: Duration,
    judged: u64,
}

impl Watched {
    fn start(body: impl Read + Send + 'static, url: String, promised: Option<u64>, patience: Patience) -> Self {
        let (sender, blocks) = sync_channel(AHEAD);
        std::thread::spawn(move || pump(body, &sender));
        Watched {
            blocks,
            current: io::Cursor::new(Vec::new()),
            url,
            received: Received { bytes: 0, of: promised },
            patience,
            ended: false,
            waited: Duration::ZERO,
            judged: 0,
        }
    }

    fn next_block(&mut self) -> Result<Vec<u8>, BodyError> {
        let began = Instant::now();
        let came = self.blocks.recv_timeout(self.patience.stall);
        self.waited += began.elapsed();
        let url = self.url.clone();
        match came {
            Ok(Ok(block)) => {
                self.received.bytes += block.len() as u64;
                let received = self.received;
                if received.of.is_some_and(|promised| received.bytes > promised) {
                    return Err(BodyError::TooLong { url, received });
                }
                if let Some(waited) = self.trickled() {
                    return Err(BodyError::Trickle { url, received, least: self.patience.least, waited });
                }
                Ok(block)
            }
            Ok(Err(source)) if source.kind() == io::ErrorKind::UnexpectedEof => {
                Err(BodyError::EndedEarly { url, received: self.received })
            }
            Ok(Err(source)) => Err(BodyError::Broken { url, received: self.received, source }),
            Err(RecvTimeoutError::Timeout) => {
                Err(BodyError::Silent { url, received: self.received, waited: self.patience.stall })
            }
            Err(RecvTimeoutError::Disconnected) => match self.received.of {
                Some(promised) if self.received.bytes < promised => {
                    Err(BodyError::EndedEarly { url, received: self.received })
                }
                _ => Ok(Vec::new()),
            },
        }
    }

    /// Each time we have waited for [`Patience::stall`] in all: how long, if too little came in it.
    fn trickled(&mut self) -> Option<Duration> {
        if self.waited < self.patience.stall {
            return None;
        }
        let came = self.received.bytes - self.judged;
        self.judged = self.received.bytes;
        let waited = std::mem::take(&mut self.waited);
        (came < self.patience.least).then_some(waited)
    }
}

impl Read for Watched {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if !self.ended && self.current.position() == self.current.get_ref().len() as u64 {
            // `other` and not `UnexpectedEof`: readers of the image would call that a truncated file and drop the message.
            let block = self.next_block().map_err(io::Error::other)?;
            self.ended = block.is_empty();
            self.current = io::Cursor::new(block);
        }
        self.current.read(buf)
    }
}

fn pump(mut body: impl Read, sender: &SyncSender<io::Result<Vec<u8>>>) {
    loop {
        // Each read is passed on as it comes: waiting for a full block would make a slow server look like a stalled one.
        let mut block = vec![0; BLOCK];
        let message = match body.read(&mut block) {
            Ok(0) => return,
            Ok(n) => {
                block.truncate(n);
                Ok(block)
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => Err(e),
        };
        let failed = message.is_err();
        // The receiver is gone when the apply has failed for another reason.
        if sender.send(message).is_err() || failed {
            return;
        }
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
