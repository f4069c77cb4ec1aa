//! One question to one server, over TCP or a unix socket, as HTTP/1.0 (HLT-26). Whatever the server does, the answer has a cap in bytes
//! and the whole exchange one in time (HLT-29).

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use crate::config::Server;

/// The largest answer, head and body together, in bytes.
pub const LARGEST: usize = 64 * 1024;
/// More headers than any answer to us has.
const HEADERS: usize = 64;
/// What every answer begins with.
const BEGIN: &[u8] = b"HTTP/1.";
/// Pause before a unix socket is tried again whose queue is full.
const FULL: Duration = Duration::from_millis(20);

/// What is asked.
#[derive(Debug)]
pub struct Request<'a> {
    /// The path, as it stands in the request.
    pub path: &'a str,
    /// The value of `Host`.
    pub host: &'a str,
    /// A JSON document to POST; `None`: GET.
    pub body: Option<&'a [u8]>,
}

/// A whole answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: Vec<u8>,
}

/// Why there is no whole answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody is there, or nobody takes the connection.
    #[error("cannot connect to {server}")]
    Connect {
        /// Who was to be asked.
        server: String,
        /// What the system said.
        source: io::Error,
    },
    /// The connection cannot be used.
    #[error("cannot set up the connection to {server}")]
    SetUp {
        /// Who is asked.
        server: String,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection broke after {got} bytes of the answer")]
    Broke {
        /// How many bytes had come.
        got: usize,
        /// What the system said.
        source: io::Error,
    },
    /// The time was over.
    #[error("no whole answer within {} ms: {got} bytes came", within.as_millis())]
    Slow {
        /// How long was waited.
        within: Duration,
        /// How many bytes had come.
        got: usize,
    },
    /// More than is read.
    #[error("the answer is larger than {LARGEST} bytes")]
    TooLarge,
    /// It ended too early.
    #[error("the answer ends after {got} bytes, before {what}")]
    Cut {
        /// How many bytes had come.
        got: usize,
        /// What is missing.
        what: &'static str,
    },
    /// Something else than HTTP.
    #[error("the answer is not HTTP/1")]
    NotHttp,
    /// A head that nobody should send.
    #[error("the head of the answer cannot be read")]
    Head(#[source] httparse::Error),
    /// A body we did not ask for: HTTP/1.0 has none such.
    #[error("the answer has a Transfer-Encoding, which an answer to HTTP/1.0 must not have")]
    Encoded,
    /// The length of the body is no number, or several.
    #[error("the answer does not say how long it is: Content-Length is not one number")]
    Length,
}

impl AskError {
    /// Was it the time that was over?
    pub fn is_timeout(&self) -> bool {
        match self {
            Self::Connect { source, .. } => is_timeout(source),
            Self::Slow { .. } => true,
            _ => false,
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

/// Asks, and reads the whole answer; takes no longer than `within`.
pub fn ask(server: &Server, request: &Request<'_>, within: Duration) -> Result<Answer, AskError> {
    let until = Instant::now() + within;
    let mut exchange = Exchange { server, within, until, bytes: Vec::new() };
    match server {
        Server::Tcp(address) => {
            let left = exchange.left()?;
            let stream = TcpStream::connect_timeout(address, left).map_err(|source| exchange.refused(source))?;
            exchange.run(stream, request, |stream, left| {
                stream.set_read_timeout(left).and_then(|()| stream.set_write_timeout(left))
            })
        }
        Server::Unix(path) => {
            let stream = connect_unix(path, until).map_err(|source| exchange.refused(source))?;
            exchange.run(stream, request, |stream, left| {
                stream.set_read_timeout(left).and_then(|()| stream.set_write_timeout(left))
            })
        }
    }
}

/// Asks over a stream that is there already and needs no time limits, for tests of what answers may hold.
pub fn ask_over<S: Read + Write>(
    stream: S,
    server: &Server,
    request: &Request<'_>,
    within: Duration,
) -> Result<Answer, AskError> {
    let mut exchange = Exchange { server, within, until: Instant::now() + within, bytes: Vec::new() };
    exchange.run(stream, request, |_, _| Ok(()))
}

/// Connects without ever blocking: a server that takes no connections any more has a queue that is full, and `connect` would wait for it
/// for ever.
pub(super) fn connect_unix(path: &Path, until: Instant) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    let address = UnixAddr::new(path)?;
    loop {
        match connect(fd.as_raw_fd(), &address) {
            Ok(()) => break,
            Err(nix::Error::EINTR) => {}
            Err(nix::Error::EAGAIN) if Instant::now() < until => thread::sleep(FULL),
            Err(error) => return Err(error.into()),
        }
    }
    let stream = UnixStream::from(fd);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

struct Exchange<'a> {
    server: &'a Server,
    within: Duration,
    until: Instant,
    bytes: Vec<u8>,
}

/// The head of an answer.
struct Head {
    status: u16,
    /// Where the body begins.
    ends: usize,
    /// How long it is, if that is said.
    body: Option<usize>,
}

impl Exchange<'_> {
    fn run<S: Read + Write>(
        &mut self,
        mut stream: S,
        request: &Request<'_>,
        set_timeouts: impl Fn(&S, Option<Duration>) -> io::Result<()>,
    ) -> Result<Answer, AskError> {
        let timeouts = |exchange: &Self, stream: &S| {
            let left = exchange.left()?;
            set_timeouts(stream, Some(left)).map_err(|source| exchange.set_up(source))
        };
        let sent = text(request);
        let mut rest = &sent[..];
        while !rest.is_empty() {
            timeouts(self, &stream)?;
            match stream.write(rest) {
                Ok(n) => rest = &rest[n..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // It may have answered without reading us to the end.
                Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => break,
                Err(error) => return Err(self.broke(error)),
            }
        }
        let head = loop {
            if let Some(head) = self.head()? {
                break head;
            }
            timeouts(self, &stream)?;
            if self.more(&mut stream)? == 0 {
                return Err(AskError::Cut { got: self.bytes.len(), what: "its head is whole" });
            }
        };
        loop {
            let got = self.bytes.len() - head.ends;
            if let Some(length) = head.body.filter(|&length| got >= length) {
                self.bytes.truncate(head.ends + length);
                break;
            }
            timeouts(self, &stream)?;
            if self.more(&mut stream)? == 0 {
                if head.body.is_some() {
                    return Err(AskError::Cut { got: self.bytes.len(), what: "its body is whole" });
                }
                break;
            }
        }
        Ok(Answer { status: head.status, body: self.bytes.split_off(head.ends) })
    }

    /// Reads what is there next; 0 at the end.
    fn more(&mut self, stream: &mut impl Read) -> Result<usize, AskError> {
        let mut buffer = [0; 8192];
        let got = match stream.read(&mut buffer) {
            Ok(got) => got,
            Err(error) if error.kind() == ErrorKind::Interrupted => return self.more(stream),
            Err(error) => return Err(self.broke(error)),
        };
        if self.bytes.len() + got > LARGEST {
            return Err(AskError::TooLarge);
        }
        self.bytes.extend_from_slice(&buffer[..got]);
        Ok(got)
    }

    /// The head, if it is whole. It is looked at once, however it trickles in.
    fn head(&self) -> Result<Option<Head>, AskError> {
        let begin = BEGIN.len().min(self.bytes.len());
        if self.bytes[..begin] != BEGIN[..begin] {
            return Err(AskError::NotHttp);
        }
        let ended = |end: &[u8]| self.bytes.windows(end.len()).any(|window| window == end);
        if !ended(b"\n\r\n") && !ended(b"\n\n") {
            return Ok(None);
        }
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let ends = match response.parse(&self.bytes).map_err(AskError::Head)? {
            httparse::Status::Complete(ends) => ends,
            httparse::Status::Partial => return Ok(None),
        };
        let mut body = None;
        for header in response.headers.iter() {
            if header.name.eq_ignore_ascii_case("transfer-encoding") {
                return Err(AskError::Encoded);
            }
            if header.name.eq_ignore_ascii_case("content-length") && body.replace(length(header.value)?).is_some() {
                return Err(AskError::Length);
            }
        }
        if body.is_some_and(|body| body > LARGEST - ends.min(LARGEST)) {
            return Err(AskError::TooLarge);
        }
        // RFC 9110, section 15: three digits, of which the first is no 0.
        let status = response.code.filter(|code| *code >= 100).ok_or(AskError::NotHttp)?;
        Ok(Some(Head { status, ends, body }))
    }

    fn left(&self) -> Result<Duration, AskError> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(self.slow()) } else { Ok(left) }
    }

    fn slow(&self) -> AskError {
        AskError::Slow { within: self.within, got: self.bytes.len() }
    }

    fn refused(&self, source: io::Error) -> AskError {
        AskError::Connect { server: self.server.to_string(), source }
    }

    fn set_up(&self, source: io::Error) -> AskError {
        AskError::SetUp { server: self.server.to_string(), source }
    }

    fn broke(&self, source: io::Error) -> AskError {
        if is_timeout(&source) { self.slow() } else { AskError::Broke { got: self.bytes.len(), source } }
    }
}

fn length(value: &[u8]) -> Result<usize, AskError> {
    let text = std::str::from_utf8(value).map_err(|_| AskError::Length)?;
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(AskError::Length);
    }
    // More digits than fit are more bytes than we read.
    Ok(text.parse().unwrap_or(usize::MAX))
}

fn text(request: &Request<'_>) -> Vec<u8> {
    let method = if request.body.is_some() { "POST" } else { "GET" };
    let mut text = format!(
        "{method} {} HTTP/1.0\r\nHost: {}\r\nConnection: close\r\nAccept: application/json\r\n",
        request.path, request.host
    );
    if let Some(body) = request.body {
        text += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    }
    text += "\r\n";
    [text.as_bytes(), request.body.unwrap_or_default()].concat()
}
