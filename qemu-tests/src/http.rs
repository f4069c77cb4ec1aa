//! A small HTTP server for files, on the host's loopback: a guest reaches it at 10.0.2.2. It can lie in the ways
//! that servers and networks do.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

/// What a path answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The file, or the one range of it that is asked for.
    File(PathBuf),
    /// The same until so many bytes have gone out in all; then nothing more comes, and no connection ends.
    FallsSilent(PathBuf, u64),
    /// The length of the whole file, but only its first bytes, and then the connection ends. Whoever asks again finds nothing.
    Truncated(PathBuf, u64),
    /// The whole file under a length that is too small by one.
    TooShortLength(PathBuf),
    /// A redirect to this path (its own: a loop).
    Redirect(String),
    /// 404, as for every path that is not known.
    NotFound,
}

/// A server that runs as long as this process.
#[derive(Debug)]
pub struct Server {
    port: u16,
    paths: Paths,
}

/// What is known of each path.
type Paths = Arc<Mutex<HashMap<String, Known>>>;

#[derive(Debug)]
struct Known {
    answer: Answer,
    /// Bytes of the file that went out.
    sent: u64,
}

impl Server {
    /// Starts one on a free port.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("cannot listen on 127.0.0.1")?;
        let port = listener.local_addr().context("no local address")?.port();
        let paths = Paths::default();
        let shared = Arc::clone(&paths);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                // A client that goes away is its own affair.
                std::thread::spawn(move || drop(serve(stream, &shared)));
            }
        });
        Ok(Self { port, paths })
    }

    /// Answers `path` (without the leading slash) with `answer` from now on, and gives the URL for a guest.
    pub fn serve(&self, path: &str, answer: Answer) -> String {
        lock(&self.paths).insert(path.to_owned(), Known { answer, sent: 0 });
        format!("http://10.0.2.2:{}/{path}", self.port)
    }

    /// How many bytes of files have gone out under this path since it was given its answer.
    pub fn sent(&self, path: &str) -> u64 {
        lock(&self.paths).get(path).map_or(0, |known| known.sent)
    }
}

fn lock(paths: &Paths) -> MutexGuard<'_, HashMap<String, Known>> {
    paths.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(mut stream: TcpStream, paths: &Paths) -> Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().context("nothing is asked")??;
    let path = request.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
    let mut range = None;
    for line in lines {
        let line = line?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(asked) = line.strip_prefix("range:") {
            range = parse_range(asked.trim());
        }
    }
    let answer = lock(paths).get(&path).map_or(Answer::NotFound, |known| known.answer.clone());
    let mut out = Out { stream: &mut stream, paths, path: &path, limit: u64::MAX };
    match answer {
        Answer::File(file) => out.send_range(&file, range),
        Answer::FallsSilent(file, bytes) => {
            out.limit = bytes;
            out.send_range(&file, range)?;
            std::thread::sleep(Duration::from_secs(3600));
            Ok(())
        }
        Answer::Truncated(file, bytes) => {
            if let Some(known) = lock(paths).get_mut(&path) {
                known.answer = Answer::NotFound;
            }
            out.send_whole(&file, 0, bytes)
        }
        Answer::TooShortLength(file) => out.send_whole(&file, 1, u64::MAX),
        Answer::Redirect(to) => out.say(&format!("302 Found\r\nLocation: /{to}\r\nContent-Length: 0")),
        Answer::NotFound => out.say("404 Not Found\r\nContent-Length: 0"),
    }
}

/// `bytes=FIRST-LAST`, the only form that is asked for.
fn parse_range(text: &str) -> Option<Range<u64>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    Some(first.parse().ok()?..last.parse::<u64>().ok()? + 1)
}

/// One answer on its way.
struct Out<'o> {
    stream: &'o mut TcpStream,
    paths: &'o Paths,
    path: &'o str,
    /// So many bytes of files may go out under this path in all.
    limit: u64,
}

impl Out<'_> {
    fn say(&mut self, head: &str) -> Result<()> {
        Ok(write!(self.stream, "HTTP/1.1 {head}\r\nConnection: close\r\n\r\n")?)
    }

    fn send_range(&mut self, path: &Path, range: Option<Range<u64>>) -> Result<()> {
        let Some(range) = range else { return self.send_whole(path, 0, u64::MAX) };
        let mut file = File::open(path)?;
        let whole = file.metadata()?.len();
        if range.start >= whole || range.is_empty() {
            return self
                .say(&format!("416 Range Not Satisfiable\r\nContent-Range: bytes */{whole}\r\nContent-Length: 0"));
        }
        let end = range.end.min(whole);
        let (first, last, length) = (range.start, end - 1, end - range.start);
        self.say(&format!(
            "206 Partial Content\r\nContent-Range: bytes {first}-{last}/{whole}\r\nContent-Length: {length}"
        ))?;
        file.seek(SeekFrom::Start(first))?;
        self.copy(file, length)
    }

    /// Sends the first `bytes` of a file under a length that is `short` too small.
    fn send_whole(&mut self, path: &Path, short: u64, bytes: u64) -> Result<()> {
        let file = File::open(path)?;
        let whole = file.metadata()?.len();
        let length = whole - short;
        self.say(&format!("200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {length}"))?;
        self.copy(file, whole.min(bytes))
    }

    fn copy(&mut self, file: File, bytes: u64) -> Result<()> {
        let mut file = file.take(bytes);
        let mut block = vec![0; 16 << 10];
        loop {
            let read = file.read(&mut block)?;
            // Counted before it goes: who has read everything finds everything counted.
            let granted = self.grant(read as u64);
            if granted == 0 {
                return Ok(());
            }
            self.stream.write_all(&block[..granted as usize])?;
        }
    }

    fn grant(&self, bytes: u64) -> u64 {
        let mut paths = lock(self.paths);
        let Some(known) = paths.get_mut(self.path) else { return 0 };
        let granted = bytes.min(self.limit.saturating_sub(known.sent));
        known.sent += granted;
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(server: &Server, path: &str) -> String {
        get_range(server, path, "")
    }

    fn get_range(server: &Server, path: &str, header: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port)).expect("it listens");
        write!(stream, "GET /{path} HTTP/1.1\r\nHost: x\r\n{header}\r\n").expect("it reads");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("it answers");
        text
    }

    #[test]
    fn it_serves_files_and_lies_when_told() {
        let file = crate::workspace::cache_dir().expect("a target folder").join("http-test.txt");
        std::fs::write(&file, "0123456789").expect("writable");
        let server = Server::start().expect("a free port");
        server.serve("whole", Answer::File(file.clone()));
        server.serve("cut", Answer::Truncated(file.clone(), 4));
        server.serve("short", Answer::TooShortLength(file));
        server.serve("loop", Answer::Redirect("loop".into()));

        let whole = get(&server, "whole");
        assert!(whole.contains("Content-Length: 10\r\n") && whole.ends_with("\r\n\r\n0123456789"));
        let cut = get(&server, "cut");
        assert!(cut.contains("Content-Length: 10\r\n") && cut.ends_with("\r\n\r\n0123"));
        assert!(get(&server, "cut").starts_with("HTTP/1.1 404"));
        assert!(get(&server, "short").contains("Content-Length: 9\r\n"));
        assert!(get(&server, "loop").contains("Location: /loop\r\n"));
        assert!(get(&server, "nothing").starts_with("HTTP/1.1 404"));

        assert_eq!(server.sent("whole"), 10);
        let part = get_range(&server, "whole", "Range: bytes=3-20\r\n");
        assert!(part.starts_with("HTTP/1.1 206") && part.contains("Content-Range: bytes 3-9/10\r\n"), "{part}");
        assert!(part.ends_with("\r\n\r\n3456789"), "{part}");
        assert!(get_range(&server, "whole", "Range: bytes=10-11\r\n").starts_with("HTTP/1.1 416"));
        assert_eq!((server.sent("whole"), server.sent("nothing")), (17, 0));
    }
}
