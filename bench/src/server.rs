//! A small HTTP/1.1 server over one folder, which counts what it sends: connections are kept open, single ranges are
//! served, entity tags hold for as long as a file's length and time do.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result};

/// No request has more lines, or longer ones.
const MAX_HEADERS: usize = 64;
const MAX_LINE: u64 = 8192;

/// The running server; it lives as long as the process.
#[derive(Debug)]
pub struct Server {
    port: u16,
    sent: Arc<Sent>,
}

/// What was sent so far.
#[derive(Debug, Default)]
struct Sent {
    /// Bytes of bodies, headers not counted.
    body: AtomicU64,
    requests: AtomicU64,
    /// Milliseconds that each answer is late by.
    latency: AtomicU64,
}

impl Server {
    /// Serves the files below `root` on a free port of the loopback interface.
    ///
    /// # Errors
    /// When no port is to be had.
    pub fn start(root: &Path) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("cannot listen on the loopback interface")?;
        let port = listener.local_addr()?.port();
        let sent = Arc::new(Sent::default());
        let (root, shared): (Arc<Path>, _) = (root.into(), Arc::clone(&sent));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (root, sent) = (Arc::clone(&root), Arc::clone(&shared));
                // A client that goes away is its own affair.
                std::thread::spawn(move || drop(connection(&stream, &root, &sent)));
            }
        });
        Ok(Self { port, sent })
    }

    /// From now on each answer begins so many milliseconds late, as on a long way.
    pub fn delay(&self, milliseconds: u64) {
        self.sent.latency.store(milliseconds, Ordering::SeqCst);
    }

    /// The address of a file.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    /// Bytes of bodies and number of requests, since the start.
    pub fn sent(&self) -> (u64, u64) {
        (self.sent.body.load(Ordering::SeqCst), self.sent.requests.load(Ordering::SeqCst))
    }
}

/// One request's line and headers.
struct Request {
    method: String,
    path: String,
    headers: HashMap<String, String>,
}

impl Request {
    /// `None` at the end of the connection, or at what is no request.
    fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut line = |line: &mut String| -> io::Result<usize> {
            line.clear();
            reader.by_ref().take(MAX_LINE).read_line(line)
        };
        let mut text = String::new();
        if line(&mut text)? == 0 {
            return Ok(None);
        }
        let mut words = text.split_whitespace().map(str::to_owned);
        let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(None) };
        let mut headers = HashMap::new();
        for _ in 0..MAX_HEADERS {
            if line(&mut text)? == 0 || text.trim().is_empty() {
                return Ok(Some(Self { method, path, headers }));
            }
            if let Some((name, value)) = text.split_once(':') {
                headers.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
            }
        }
        Ok(None)
    }
}

fn connection(stream: &TcpStream, root: &Path, sent: &Sent) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let mut out = stream;
    while let Some(request) = Request::read(&mut reader)? {
        sent.requests.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(sent.latency.load(Ordering::SeqCst)));
        answer(&request, &mut out, root, sent)?;
        if request.headers.get("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            break;
        }
    }
    Ok(())
}

fn answer(request: &Request, out: &mut impl Write, root: &Path, sent: &Sent) -> io::Result<()> {
    let found = below(root, &request.path).and_then(|path| File::open(path).ok());
    let Some((mut file, meta)) = found.and_then(|file| file.metadata().ok().map(|meta| (file, meta))) else {
        return empty(out, "404 Not Found", "");
    };
    if !meta.is_file() || !matches!(request.method.as_str(), "GET" | "HEAD") {
        return empty(out, "404 Not Found", "");
    }
    let len = meta.len();
    let age = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    let tag = format!("\"{len:x}-{:x}\"", age.as_nanos());
    // A range is meant for the file that the client knows; of another one it gets everything.
    let same = request.headers.get("if-range").is_none_or(|known| *known == tag);
    let range = request.headers.get("range").filter(|_| same).map(|text| parse_range(text, len));
    let (status, from, bytes) = match range {
        Some(Range::Bytes(from, bytes)) => ("206 Partial Content", from, bytes),
        Some(Range::Outside) => {
            return empty(out, "416 Range Not Satisfiable", &format!("Content-Range: bytes */{len}\r\n"));
        }
        Some(Range::NotUnderstood) | None => ("200 OK", 0, len),
    };
    let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {bytes}\r\nAccept-Ranges: bytes\r\nETag: {tag}\r\n");
    if status.starts_with("206") {
        head += &format!("Content-Range: bytes {from}-{}/{len}\r\n", from + bytes - 1);
    }
    out.write_all((head + "\r\n").as_bytes())?;
    if request.method == "HEAD" {
        return Ok(());
    }
    file.seek(SeekFrom::Start(from))?;
    send(&mut file.take(bytes), out, &sent.body)
}

fn empty(out: &mut impl Write, status: &str, header: &str) -> io::Result<()> {
    write!(out, "HTTP/1.1 {status}\r\n{header}Content-Length: 0\r\n\r\n")
}

/// Counts as it goes: a client that goes away half-way was sent half.
fn send(from: &mut impl Read, out: &mut impl Write, sent: &AtomicU64) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        out.write_all(&buffer[..count])?;
        sent.fetch_add(count as u64, Ordering::SeqCst);
    }
}

/// The file that a request's path names, if it lies below `root`.
fn below(root: &Path, path: &str) -> Option<PathBuf> {
    let relative = Path::new(path.split('?').next()?.trim_start_matches('/'));
    relative.components().all(|part| matches!(part, Component::Normal(_))).then(|| root.join(relative))
}

#[derive(Debug, PartialEq)]
enum Range {
    /// First byte and length, within the file and not empty.
    Bytes(u64, u64),
    Outside,
    /// Several ranges, or another unit: the whole file is an allowed answer.
    NotUnderstood,
}

fn parse_range(text: &str, len: u64) -> Range {
    let parse = || -> Option<Range> {
        let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
        let (from, end) = if first.is_empty() {
            (len.saturating_sub(last.parse().ok()?), len)
        } else if last.is_empty() {
            (first.parse().ok()?, len)
        } else {
            (first.parse().ok()?, last.parse::<u64>().ok()?.checked_add(1)?.min(len))
        };
        Some(if from < end { Range::Bytes(from, end - from) } else { Range::Outside })
    };
    parse().unwrap_or(Range::NotUnderstood)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_to_the_file() {
        for (text, range) in [
            ("bytes=0-0", Range::Bytes(0, 1)),
            ("bytes=2-", Range::Bytes(2, 8)),
            ("bytes=-3", Range::Bytes(7, 3)),
            ("bytes=8-100", Range::Bytes(8, 2)),
            ("bytes=10-12", Range::Outside),
            ("bytes=5-4", Range::Outside),
            ("bytes=0-1,4-5", Range::NotUnderstood),
            ("lines=1-2", Range::NotUnderstood),
            ("bytes=0-18446744073709551615", Range::NotUnderstood),
        ] {
            assert_eq!(parse_range(text, 10), range, "{text}");
        }
    }

    #[test]
    fn nothing_outside_the_folder_is_served() {
        assert_eq!(below(Path::new("/r"), "/a/b?x"), Some("/r/a/b".into()));
        assert_eq!(below(Path::new("/r"), "/../etc/passwd"), None);
    }

    #[test]
    fn ranges_and_whole_files_come_over_one_connection_and_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), "0123456789").unwrap();
        let server = Server::start(dir.path()).unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        server.delay(20);
        let begin = std::time::Instant::now();
        let requests = "GET /f HTTP/1.1\r\n\r\nGET /f HTTP/1.1\r\nRange: bytes=2-4\r\n\r\n\
            GET /f HTTP/1.1\r\nRange: bytes=2-4\r\nIf-Range: \"other\"\r\n\r\nHEAD /f HTTP/1.1\r\n\r\n\
            GET /none HTTP/1.1\r\nConnection: close\r\n\r\n";
        stream.write_all(requests.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text.matches("200 OK").count(), 3, "{text}");
        assert_eq!(text.matches("\r\n\r\n0123456789HTTP").count(), 2, "{text}");
        assert!(text.contains("Content-Range: bytes 2-4/10\r\n\r\n234HTTP"), "{text}");
        assert!(text.contains("404 Not Found"), "{text}");
        assert_eq!(server.sent(), (23, 5));
        assert!(begin.elapsed() >= Duration::from_millis(100), "five answers, each late");
    }
}
