//! Where an image comes from: a file, standard input, or HTTP. All give one forward stream of bytes.
//!
//! A body is read by a thread of its own, so that a server that stalls is noticed (no byte within [`STALL`]) even
//! though the HTTP library has no time limit between two reads, and so that fetching overlaps writing.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// A body that brings nothing for so long is given up.
pub const STALL: Duration = Duration::from_secs(60);
/// A body that brings less than this in a [`STALL`] is given up, too: it would hold the update lock for days.
const LEAST: u64 = 256 * 1024;
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

/// An open source: a stream, and its length where that is known.
pub struct Stream {
    /// The bytes, in order, once.
    pub reader: Box<dyn Read>,
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
        match self {
            Source::File(path) => open_file(path),
            Source::Stdin => Ok(Stream { reader: Box::new(io::stdin()), length: None }),
            Source::Url(url) => fetch(url, STALL),
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
    let length = meta.is_file().then_some(meta.len());
    Ok(Stream { reader: Box::new(file), length })
}

fn fetch(url: &str, stall: Duration) -> Result<Stream, SourceError> {
    let shown = without_credentials(url);
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .max_redirects(MAX_REDIRECTS)
        // A redirect may lead back to the same server. A connection kept for it may be closed by the server in the very
        // moment we ask again, and the fetch would fail for nothing.
        .max_idle_connections(0)
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_recv_response(Some(stall))
        .user_agent(concat!("ralph-update/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
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
    let reader = Watched::start(body, shown, length, stall);
    Ok(Stream { reader: Box::new(reader), length })
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

/// A reader fed by a thread, with a limit on the silence between two blocks and a check of the promised length.
struct Watched {
    blocks: Receiver<io::Result<Vec<u8>>>,
    current: io::Cursor<Vec<u8>>,
    url: String,
    promised: Option<u64>,
    received: u64,
    stall: Duration,
    ended: bool,
    /// When the present stretch of time began, and how much had come by then.
    stretch: (Instant, u64),
}

impl Watched {
    fn start(body: impl Read + Send + 'static, url: String, promised: Option<u64>, stall: Duration) -> Self {
        let (sender, blocks) = sync_channel(AHEAD);
        std::thread::spawn(move || pump(body, &sender));
        Watched {
            blocks,
            current: io::Cursor::new(Vec::new()),
            url,
            promised,
            received: 0,
            stall,
            ended: false,
            stretch: (Instant::now(), 0),
        }
    }

    fn next_block(&mut self) -> io::Result<Vec<u8>> {
        match self.blocks.recv_timeout(self.stall) {
            Ok(Ok(block)) => {
                self.received += block.len() as u64;
                if self.promised.is_some_and(|promised| self.received > promised) {
                    return Err(self.broken("sent more than it promised"));
                }
                if self.is_a_trickle() {
                    return Err(self.broken(&format!("sent less than {LEAST} bytes in {} s", self.stall.as_secs())));
                }
                Ok(block)
            }
            Ok(Err(error)) => Err(self.broken(&format!("broke off ({error})"))),
            Err(RecvTimeoutError::Timeout) => Err(self.broken(&format!("sent nothing for {} s", self.stall.as_secs()))),
            Err(RecvTimeoutError::Disconnected) => match self.promised {
                Some(promised) if self.received < promised => Err(self.broken("ended early")),
                _ => Ok(Vec::new()),
            },
        }
    }

    /// Judges stretches in which we waited for the server; when writing takes longer than fetching, blocks lie ready.
    fn is_a_trickle(&mut self) -> bool {
        let (since, before) = self.stretch;
        if since.elapsed() < self.stall {
            return false;
        }
        self.stretch = (Instant::now(), self.received);
        self.received - before < LEAST
    }

    fn broken(&self, what: &str) -> io::Error {
        let promised = self.promised.map_or(String::new(), |n| format!(" of {n}"));
        // Not `UnexpectedEof`: readers of the image would call that a truncated file and drop this message.
        io::Error::other(format!(
            "{} {what} after {}{promised} bytes: try again, or use another mirror",
            self.url, self.received
        ))
    }
}

impl Read for Watched {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if !self.ended && self.current.position() == self.current.get_ref().len() as u64 {
            let block = self.next_block()?;
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
